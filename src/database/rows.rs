//! Everything of the database that belongs in the snapshot.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Documents by name, as they are: rows written by hand may be wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// policies in the file's shape, by name
    pub policies: Vec<(String, Value)>,
    /// names of tiers
    pub tiers: Vec<String>,
    /// settings of routes, by the route's name
    pub routes: Vec<(String, Value)>,
    /// the newest revision they contain
    pub revision: i64,
}
