//! Postgres: policies, tiers, clients and keys that change without a restart, and everything SQL.

pub mod directory;
pub mod generated_key;
pub mod saved;

mod address;
mod document;
mod failure;
mod follower;
mod housekeeping;
mod keys;
mod kind;
mod pool;
mod resources;
mod revisions;
mod rows;
mod schema;
mod settings;
mod tls;

pub use directory::{ClientRecord, Directory, KeyRecord, Recalled, Unavailable};
pub use failure::{DatabaseError, Health, SchemaVersion};
pub use keys::{CreatedKey, NewKey, StoredKey, is_scope};
pub use resources::{Expected, Kind, Page, Stored, Terms, Written};
pub use revisions::Revision;
pub use rows::Rows;
pub use schema::Migrated;
pub use settings::Settings;

use crate::telemetry::DatabaseMetrics;
use failure::within;
use follower::Follower;
use parking_lot::Mutex;
use pool::{Lease, Pool};
use resources::Change;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;

/// The file in the state's folder that holds what is known of keys and clients.
const DIRECTORY_FILE: &str = "directory.saved";

/// Longest name of whoever makes a change; longer ones are cut.
const MAX_BY: usize = 256;

/// The database as the rest of Tidegate sees it; nothing here waits for ever.
pub struct Database {
    pool: Arc<Pool>,
    directory: Directory,
    changed: watch::Sender<u64>,
    health: watch::Sender<Health>,
    metrics: DatabaseMetrics,
    /// how long revisions are kept; absent: for ever
    keep_revisions: Option<Duration>,
    /// look-ups are left connections of the pool, however many people write at once
    work: Semaphore,
    turn: tokio::sync::Mutex<()>,
    /// ended with the database
    tasks: Mutex<JoinSet<()>>,
}

impl Database {
    /// Reads the settings and what an earlier process knew; connects to nothing yet.
    pub fn new(settings: &Settings, metrics: DatabaseMetrics) -> Result<Arc<Self>, String> {
        let pool = Arc::new(Pool::new(settings)?);
        let health = watch::Sender::new(Health::Connecting);
        let file = settings.state_dir.as_ref();
        let directory = Directory::new(
            settings.max_cached,
            file.map(|folder| folder.join(DIRECTORY_FILE)),
            pool.clone(),
            health.subscribe(),
            metrics.clone(),
        );
        if let Err(error) = directory.load() {
            // it is a copy: without it nothing is wrong but an outage right after the start
            tracing::warn!("keys and clients of an earlier run are not used: {error}");
        }
        Ok(Arc::new(Database {
            pool,
            directory,
            changed: watch::Sender::new(0),
            health,
            metrics,
            keep_revisions: settings.keep_revisions,
            work: Semaphore::new((settings.pool / 2).max(1)),
            turn: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Listens, polls, refreshes and writes in the background of the current runtime, as long as
    /// the database lives.
    pub fn start(self: &Arc<Self>) {
        let mut tasks = self.tasks.lock();
        if !tasks.is_empty() {
            return;
        }
        self.pool.settle_here();
        let follower = Follower {
            pool: self.pool.clone(),
            directory: self.directory.clone(),
            changed: self.changed.clone(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
        };
        tasks.spawn(async move { follower.follow().await });
        let directory = self.directory.clone();
        tasks.spawn(async move { directory.keep_fresh().await });
        let directory = self.directory.clone();
        tasks.spawn(async move { directory.keep_checked().await });
        tasks.spawn(housekeeping::keep_house(
            self.pool.clone(),
            self.directory.clone(),
            self.keep_revisions,
            self.health.subscribe(),
            self.metrics.clone(),
        ));
    }

    /// Saves what is known now, for the end of the process. Blocks for as long as a file is
    /// written.
    pub fn save(&self) {
        housekeeping::save(&self.directory);
    }

    /// Deletes what is not needed any more, which the background does every ten minutes.
    pub async fn prune(&self) -> Result<(), DatabaseError> {
        housekeeping::prune(&self.pool, self.keep_revisions).await
    }

    /// Notes which keys were used since that was last noted, which the background does once a
    /// minute.
    pub async fn note_uses(&self) -> Result<(), DatabaseError> {
        self.directory.note_uses().await
    }

    /// Everything that belongs in the snapshot, as one consistent whole.
    pub async fn rows(&self) -> Result<Rows, DatabaseError> {
        let mut lease = self.lease().await?;
        let done = within(self.pool.long_timeout(), rows::read(lease.client()?)).await;
        lease.settle(&done);
        done
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

    /// Brings the schema to the version that is needed.
    pub async fn migrate(&self) -> Result<Migrated, DatabaseError> {
        schema::migrate(&self.pool).await
    }

    /// Reads one resource.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Option<Stored>, DatabaseError> {
        let mut lease = self.lease().await?;
        let done = self
            .bounded(resources::get(lease.client()?, kind, name))
            .await;
        lease.settle(&done);
        done
    }

    /// Reads at most `limit` resources by name, those after `after`.
    pub async fn list(
        &self,
        kind: Kind,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Stored>, DatabaseError> {
        let mut lease = self.lease().await?;
        let done = self
            .bounded(resources::list(lease.client()?, kind, after, limit))
            .await;
        lease.settle(&done);
        done
    }

    /// To be held from before a document is judged until it is written, so that those who write
    /// through this gateway do not overtake each other.
    pub async fn turn(&self) -> Result<MutexGuard<'_, ()>, DatabaseError> {
        within(self.pool.long_timeout(), async {
            Ok(self.turn.lock().await)
        })
        .await
    }

    /// Writes a whole document, which the caller has validated.
    pub async fn put(
        &self,
        kind: Kind,
        name: &str,
        document: &Value,
        by: &str,
        terms: impl Into<Terms>,
    ) -> Result<Written, DatabaseError> {
        self.write(Change {
            kind,
            name,
            document: Some(document),
            by: shortened(by),
            terms: terms.into(),
            rolled_back_from: None,
        })
        .await
    }

    /// Deletes one resource.
    pub async fn delete(
        &self,
        kind: Kind,
        name: &str,
        by: &str,
        terms: impl Into<Terms>,
    ) -> Result<Written, DatabaseError> {
        self.write(Change {
            kind,
            name,
            document: None,
            by: shortened(by),
            terms: terms.into(),
            rolled_back_from: None,
        })
        .await
    }

    /// Makes a key; its text is in the answer and nowhere else.
    pub async fn create_key(&self, new: &NewKey, by: &str) -> Result<CreatedKey, DatabaseError> {
        let mut lease = self.lease().await?;
        let limit = self.pool.long_timeout();
        let work = keys::create(lease.client()?, new, shortened(by), limit);
        let done = within(limit, work).await;
        lease.settle(&done);
        done
    }

    /// At most `limit` keys by id, those after `after`; of one client or of all.
    pub async fn list_keys(
        &self,
        client: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<StoredKey>, DatabaseError> {
        let mut lease = self.lease().await?;
        let done = self
            .bounded(keys::list(lease.client()?, client, after, limit))
            .await;
        lease.settle(&done);
        done
    }

    /// Revokes a key; one that is revoked already stays as it is.
    pub async fn revoke_key(&self, id: &str, by: &str) -> Result<StoredKey, DatabaseError> {
        let mut lease = self.lease().await?;
        let limit = self.pool.long_timeout();
        let work = keys::revoke(lease.client()?, id, shortened(by), limit);
        let done = within(limit, work).await;
        lease.settle(&done);
        done
    }

    /// At most `limit` revisions from the newest on, those before `before`.
    pub async fn revisions(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<Revision>, DatabaseError> {
        let mut lease = self.lease().await?;
        let done = self
            .bounded(revisions::list(lease.client()?, before, limit))
            .await;
        lease.settle(&done);
        done
    }

    /// One revision.
    pub async fn revision(&self, id: i64) -> Result<Option<Revision>, DatabaseError> {
        let mut lease = self.lease().await?;
        let done = self.bounded(revisions::get(lease.client()?, id)).await;
        lease.settle(&done);
        done
    }

    /// Writes what was there before a revision, which the caller has validated, and records it as
    /// a rollback.
    pub async fn rollback(
        &self,
        id: i64,
        by: &str,
        terms: impl Into<Terms>,
    ) -> Result<Written, DatabaseError> {
        let revision = self.revision(id).await?;
        let revision = revision.ok_or_else(|| DatabaseError::NotFound(format!("revision {id}")))?;
        let kind = Kind::from_name(&revision.kind).ok_or_else(|| {
            DatabaseError::Invalid(format!(
                "revision {id} is about a {}: it cannot be rolled back, make a new one",
                revision.kind
            ))
        })?;
        self.write(Change {
            kind,
            name: &revision.name,
            document: revision.before.as_ref(),
            by: shortened(by),
            terms: terms.into(),
            rolled_back_from: Some(id),
        })
        .await
    }

    async fn write(&self, change: Change<'_>) -> Result<Written, DatabaseError> {
        let mut lease = self.lease().await?;
        let limit = self.pool.long_timeout();
        let done = within(limit, resources::write(lease.client()?, change, limit)).await;
        lease.settle(&done);
        done
    }

    /// A connection to a database with the schema that is needed.
    async fn lease(&self) -> Result<Work<'_>, DatabaseError> {
        // who follows has just been told, or still is: no reason to wait for the same answer
        if let Health::Unavailable(reason) = &*self.health.borrow() {
            return Err(DatabaseError::Unavailable(reason.clone()));
        }
        let permit = self.bounded(async {
            let permit = self.work.acquire().await;
            permit.map_err(|error| DatabaseError::Unavailable(error.to_string()))
        });
        let permit = permit.await?;
        let mut lease = self.pool.lease().await?;
        let checked = self.bounded(schema::check(lease.client()?)).await;
        lease.settle(&checked);
        checked?;
        lease.unsettle();
        Ok(Work {
            lease,
            _permit: permit,
        })
    }

    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, DatabaseError>>,
    ) -> Result<T, DatabaseError> {
        within(self.pool.timeout(), work).await
    }
}

/// A connection for what nobody's request to the gateway waits for.
struct Work<'a> {
    lease: Lease,
    _permit: SemaphorePermit<'a>,
}

impl Work<'_> {
    fn client(&mut self) -> Result<&mut tokio_postgres::Client, DatabaseError> {
        self.lease.client()
    }

    fn settle<T>(&mut self, done: &Result<T, DatabaseError>) {
        self.lease.settle(done);
    }
}

fn shortened(by: &str) -> &str {
    match by.char_indices().nth(MAX_BY) {
        Some((end, _)) => by.get(..end).unwrap_or(by),
        None => by,
    }
}
