//! Revisions: who changed what, when, from what to what.

use serde::Serialize;
use serde_json::Value;

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Revision {
    /// grows with time
    pub id: i64,
    /// RFC 3339
    pub at: String,
    /// who
    pub by: String,
    /// `policy`, `tier`, `client`, `route_settings` or `key`
    pub kind: String,
    /// the name, or a key's id
    pub name: String,
    /// the document before; absent: it did not exist
    pub before: Option<Value>,
    /// the document after; absent: it was deleted
    pub after: Option<Value>,
    /// the revision this one took back
    pub rolled_back_from: Option<i64>,
}
