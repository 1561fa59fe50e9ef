//! Postgres: policies, tiers, clients and keys that change without a restart, and everything SQL.

pub mod directory;
pub mod generated_key;
pub mod saved;

mod failure;
mod keys;
mod resources;
mod revisions;
mod rows;
mod settings;

pub use directory::{ClientRecord, Directory, KeyRecord, Recalled, Unavailable};
pub use failure::{DatabaseError, Health, SchemaVersion};
pub use keys::{CreatedKey, NewKey, StoredKey};
pub use resources::{Expected, Kind, Page, Stored, Written};
pub use revisions::Revision;
pub use rows::Rows;
pub use settings::Settings;

use crate::telemetry::DatabaseMetrics;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;

/// The database as the rest of Tidegate sees it; nothing here waits for longer than its timeout.
pub struct Database {
    directory: Directory,
    changed: watch::Sender<u64>,
    health: watch::Sender<Health>,
}

impl Database {
    /// Reads the settings; connects to nothing yet.
    pub fn new(_settings: &Settings, _metrics: DatabaseMetrics) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Database {
            directory: Directory::default(),
            changed: watch::Sender::new(0),
            health: watch::Sender::new(Health::Connecting),
        }))
    }

    /// Listens, polls, refreshes and writes in the background of the current runtime, from now on.
    pub fn start(self: &Arc<Self>) {}

    /// Everything that belongs in the snapshot, as one consistent whole.
    pub async fn rows(&self) -> Result<Rows, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Grows whenever policies, tiers or route settings may have changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How things are, for the health check.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Keys and clients on demand.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Reads one resource.
    pub async fn get(&self, _kind: Kind, _name: &str) -> Result<Option<Stored>, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Reads resources by name, those after `after`.
    pub async fn list(
        &self,
        _kind: Kind,
        _after: Option<&str>,
        _limit: u32,
    ) -> Result<Page<Stored>, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Writes a whole document, which the caller has validated.
    pub async fn put(
        &self,
        _kind: Kind,
        _name: &str,
        _document: &Value,
        _by: &str,
        _expected: Expected,
    ) -> Result<Written, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Deletes one resource.
    pub async fn delete(
        &self,
        _kind: Kind,
        _name: &str,
        _by: &str,
        _expected: Expected,
    ) -> Result<Written, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Makes a key; its text is in the answer and nowhere else.
    pub async fn create_key(&self, _new: &NewKey, _by: &str) -> Result<CreatedKey, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Keys by id, those after `after`; of one client or of all.
    pub async fn list_keys(
        &self,
        _client: Option<&str>,
        _after: Option<&str>,
        _limit: u32,
    ) -> Result<Page<StoredKey>, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Revokes a key; one that is revoked already stays as it is.
    pub async fn revoke_key(&self, _id: &str, _by: &str) -> Result<StoredKey, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Revisions from the newest on, those before `before`.
    pub async fn revisions(
        &self,
        _before: Option<i64>,
        _limit: u32,
    ) -> Result<Page<Revision>, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// One revision.
    pub async fn revision(&self, _id: i64) -> Result<Option<Revision>, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }

    /// Writes what was there before a revision, which the caller has validated, and records it as
    /// a rollback.
    pub async fn rollback(
        &self,
        _id: i64,
        _by: &str,
        _expected: Expected,
    ) -> Result<Written, DatabaseError> {
        Err(DatabaseError::Unavailable("not connected".to_owned()))
    }
}
