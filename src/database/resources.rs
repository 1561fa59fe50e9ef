//! Resources: documents by kind and name.

use serde::Serialize;
use serde_json::Value;

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// a policy, as in the file
    Policy,
    /// a tier: `{}`
    Tier,
    /// a client: `{"tier": "pro"}`
    Client,
    /// what may be set of a route
    RouteSettings,
}

impl Kind {
    /// Its name in revisions.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Policy => "policy",
            Kind::Tier => "tier",
            Kind::Client => "client",
            Kind::RouteSettings => "route_settings",
        }
    }
}

/// What a writer expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// whatever there is
    Any,
    /// nothing (`If-None-Match: *`)
    Absent,
    /// this very version (`If-Match`)
    Etag(String),
}

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stored {
    /// its name, unique within its kind
    pub name: String,
    /// in exactly the shape of the file
    pub document: Value,
    /// changes whenever the document does; without quotes
    pub etag: String,
    /// RFC 3339
    pub changed_at: String,
    /// whoever wrote it last
    pub changed_by: String,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// the revision that records it
    pub revision: i64,
    /// it did not exist before
    pub created: bool,
    /// as it is now; absent: deleted
    pub stored: Option<Stored>,
}

/// Some of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page<T> {
    /// in order
    pub items: Vec<T>,
    /// what to ask for to get those that follow; absent: these were the last
    pub next: Option<String>,
}
