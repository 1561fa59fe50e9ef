//! Where the database is and how long anything waits for it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How the database is reached.
#[derive(Clone)]
pub struct Settings {
    /// `postgres://user:password@host/name?sslmode=verify-full`, or `host=.. user=..`; a secret
    pub url: String,
    /// certificates that sign Postgres' own, PEM; absent: those of the system
    pub ca_file: Option<PathBuf>,
    /// connections at most, beside the one that listens
    pub pool: usize,
    /// how long a request or a statement waits
    pub timeout: Duration,
    /// keys and clients kept in memory, of each
    pub max_cached: usize,
    /// where keys and clients are kept for a start without the database
    pub state_dir: Option<PathBuf>,
    /// how long revisions are kept; absent: for ever
    pub keep_revisions: Option<Duration>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the URL may hold a password
        f.debug_struct("Settings")
            .field("url", &"***")
            .field("ca_file", &self.ca_file)
            .field("pool", &self.pool)
            .field("timeout", &self.timeout)
            .field("max_cached", &self.max_cached)
            .field("state_dir", &self.state_dir)
            .field("keep_revisions", &self.keep_revisions)
            .finish()
    }
}
