//! Where policies, tiers, clients and API keys live beside the file.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// The Postgres that gateways share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// `postgres://` or `postgresql://` and what follows; never empty. Whether a driver takes it is not checked here.
    pub url: Secret,
    /// A PEM file of certificates to trust instead of the system's; readable when the configuration was loaded.
    pub ca_file: Option<PathBuf>,
    /// Connections at most, beside the one that listens; 1 to 1,000.
    pub pool: usize,
    /// Limit for a connection and for each statement; 10 ms to 30 s.
    pub timeout: Duration,
    /// API keys remembered at most, and as many clients; at least 1,000.
    pub max_cached: usize,
    /// Directory of what is known from the database; absent: where the system keeps state.
    pub state_dir: Option<PathBuf>,
    /// How long revisions are kept, 1 hour to ten years; absent: for ever.
    pub keep_revisions: Option<Duration>,
}
