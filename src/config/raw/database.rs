//! The keys of the database.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span;
use crate::config::notation::{PostgresUrl, TimeSpan, Written};

/// Policies, tiers, clients and API keys in Postgres, beside those of this file.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Database {
    /// Where it is: postgres://[user[:password]@]host[:port]/name[?sslmode=require]; null or empty: this file only.
    pub(in crate::config) url: Option<Written<PostgresUrl>>,
    /// Certificates to trust instead of the system's, in PEM.
    pub(in crate::config) ca_file: Option<String>,
    /// Connections at most, beside the one that listens for changes.
    #[schemars(range(min = 1, max = 1_000))]
    pub(in crate::config) pool: usize,
    /// Limit for a connection and for each statement, 10ms to 30s.
    pub(in crate::config) timeout: Written<TimeSpan>,
    /// API keys remembered at most, and as many clients; more are looked up again when they come back.
    #[schemars(range(min = 1_000, max = 100_000_000))]
    pub(in crate::config) max_cached: usize,
    /// Directory of what is known from the database, for a start without it; null: $STATE_DIRECTORY of systemd,
    /// else /var/lib/tidegate or, where that may not be written, .local/state/tidegate at home.
    pub(in crate::config) state_dir: Option<String>,
    /// How long revisions of the admin API are kept, 1h to 87600h; null: for ever.
    pub(in crate::config) keep_revisions: Option<Written<TimeSpan>>,
}

impl Default for Database {
    fn default() -> Self {
        Database {
            url: None,
            ca_file: None,
            pool: 8,
            timeout: span("1s", Duration::from_secs(1)),
            max_cached: 100_000,
            state_dir: None,
            keep_revisions: None,
        }
    }
}
