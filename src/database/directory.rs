//! API keys and clients on demand: bounded, remembered, one query for one key at a time.

mod cache;
mod freshness;
mod look_up;
mod record;
mod section;
mod state;

pub use record::{ClientRecord, KeyRecord};
pub(super) use state::unhex;

use super::failure::{DatabaseError, Health, within};
use super::pool::Pool;
use crate::clock::Clock;
use crate::telemetry::DatabaseMetrics;
use parking_lot::Mutex;
use record::Record;
use section::Section;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_postgres::Client;

/// Look-ups under way at once in the process.
const MAX_LOOK_UPS: usize = 64;

/// Refreshes that may wait; beyond that they are left to a later request.
const MAX_REFRESHES: usize = 1_024;

/// Of keys that do not exist, so many are kept: enough for a client with an old key, whatever
/// garbage comes by.
const MAX_ABSENT_KEYS: usize = 65_536;

/// What is known without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled<T> {
    /// it exists
    Known(Arc<T>),
    /// it does not exist
    Absent,
    /// the database has to be asked
    Unknown,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// no answer from the database
    #[error("the database does not answer")]
    Away,
    /// too many look-ups are under way
    #[error("too many look-ups are under way")]
    TooMany,
}

/// Keys by digest and clients by id; clones are the same directory.
#[derive(Clone)]
pub struct Directory {
    shared: Arc<Shared>,
}

struct Shared {
    keys: Section<KeyRecord>,
    clients: Section<ClientRecord>,
    look_ups: Arc<Semaphore>,
    refreshes: mpsc::Sender<Wanted>,
    /// until [`Directory::keep_fresh`] takes it
    wanted: Mutex<Option<mpsc::Receiver<Wanted>>>,
    /// everything is to be asked for again
    expired: Notify,
    pool: Arc<Pool>,
    health: watch::Receiver<Health>,
    clock: Clock,
    metrics: DatabaseMetrics,
    /// where it is kept for a start without the database
    file: Option<PathBuf>,
    uses_noted_us: AtomicU64,
}

fn keys(shared: &Shared) -> &Section<KeyRecord> {
    &shared.keys
}

fn clients(shared: &Shared) -> &Section<ClientRecord> {
    &shared.clients
}

/// What is to be asked for again.
enum Wanted {
    Key([u8; 32]),
    Client(Arc<str>),
}

impl Directory {
    pub(super) fn new(
        max_cached: usize,
        file: Option<PathBuf>,
        pool: Arc<Pool>,
        health: watch::Receiver<Health>,
        metrics: DatabaseMetrics,
    ) -> Self {
        let (refreshes, wanted) = mpsc::channel(MAX_REFRESHES);
        let clock = Clock::new();
        let shared = Shared {
            keys: Section::new(max_cached, max_cached.min(MAX_ABSENT_KEYS)),
            // a token's subject need not be a client of the database, and most may not be
            clients: Section::new(max_cached, max_cached),
            look_ups: Arc::new(Semaphore::new(MAX_LOOK_UPS)),
            refreshes,
            wanted: Mutex::new(Some(wanted)),
            expired: Notify::new(),
            pool,
            health,
            uses_noted_us: AtomicU64::new(clock.now_us()),
            clock,
            metrics,
            file,
        };
        Directory {
            shared: Arc::new(shared),
        }
    }

    /// What is known of a key, without waiting. Counts as a use of the key.
    pub fn recall_key(&self, digest: &[u8; 32], now_us: u64) -> Recalled<KeyRecord> {
        let found = self.shared.keys.recall(digest, now_us);
        if found.is_old {
            // a full queue is no loss: the next request tries again
            let _ = self.shared.refreshes.try_send(Wanted::Key(*digest));
        }
        found.recalled
    }

    /// Asks the database for a key if need be; absent: there is none such, or none that is valid.
    pub async fn find_key(
        &self,
        digest: [u8; 32],
        now_us: u64,
    ) -> Result<Option<Arc<KeyRecord>>, Unavailable> {
        self.shared.find(keys, digest, now_us).await
    }

    /// What is known of a client, without waiting.
    pub fn recall_client(&self, id: &str, now_us: u64) -> Recalled<ClientRecord> {
        let found = self.shared.clients.recall(id, now_us);
        if found.is_old {
            let _ = self.shared.refreshes.try_send(Wanted::Client(id.into()));
        }
        found.recalled
    }

    /// Asks the database for a client if need be; absent: there is none such.
    pub async fn find_client(
        &self,
        id: &str,
        now_us: u64,
    ) -> Result<Option<Arc<ClientRecord>>, Unavailable> {
        self.shared.find(clients, id.into(), now_us).await
    }

    /// What is known of a key, however old, without asking anybody.
    pub fn recall_old_key(&self, digest: &[u8; 32], now_us: u64) -> Recalled<KeyRecord> {
        self.shared.old(self.shared.keys.recall_old(digest, now_us))
    }

    /// What is known of a client, however old, without asking anybody.
    pub fn recall_old_client(&self, id: &str, now_us: u64) -> Recalled<ClientRecord> {
        self.shared.old(self.shared.clients.recall_old(id, now_us))
    }

    /// Everything may have changed while nobody could tell.
    pub(super) fn expire_all(&self) {
        let shared = &self.shared;
        shared.metrics.expired_all.inc();
        shared.keys.expire_all();
        shared.clients.expire_all();
        shared.expired.notify_one();
    }

    /// Many keys have changed: what was known of any of them serves no more.
    pub(super) fn distrust_keys(&self) {
        let shared = &self.shared;
        shared.metrics.expired_all.inc();
        shared.keys.distrust_all();
        shared.expired.notify_one();
    }

    /// Many clients have changed, and the keys that carry their tiers.
    pub(super) fn distrust_all(&self) {
        self.shared.clients.distrust_all();
        self.distrust_keys();
    }

    /// These keys and clients have changed: those in memory are asked for at once on this
    /// connection, so that nothing is forgotten for the time the database may be away. If it
    /// does not answer they are forgotten: one of them may have been revoked.
    pub(super) async fn renew(
        &self,
        keys: Vec<[u8; 32]>,
        clients: Vec<Arc<str>>,
        client: &Client,
    ) -> Result<(), DatabaseError> {
        let shared = &self.shared;
        // one after the other on one connection, and the second whatever came of the first
        let of_keys = shared.renew(&shared.keys, keys, client).await;
        let of_clients = match &of_keys {
            Ok(()) => shared.renew(&shared.clients, clients, client).await,
            Err(_) => {
                shared.clients.forget(&clients);
                Ok(())
            }
        };
        of_keys.and(of_clients)
    }

    /// Sets the gauges.
    pub(super) fn measure(&self) {
        let (keys, clients) = (self.shared.keys.sizes(), self.shared.clients.sizes());
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.shared.metrics.known.set(gauge(keys.0 + clients.0));
        self.shared.metrics.absent.set(gauge(keys.1 + clients.1));
        self.shared.clock.follow_wall();
    }
}

impl Shared {
    /// Counts what is served however old it is.
    fn old<R>(&self, recalled: Recalled<R>) -> Recalled<R> {
        if !matches!(recalled, Recalled::Unknown) {
            self.metrics.stale.inc();
        }
        recalled
    }

    async fn renew<R: Record>(
        &self,
        section: &Section<R>,
        ids: Vec<R::Id>,
        client: &Client,
    ) -> Result<(), DatabaseError> {
        if ids.is_empty() {
            return Ok(());
        }
        let held = section.changed(ids);
        if held.is_empty() {
            return Ok(());
        }
        let generation = section.generation();
        let found = match within(self.pool.timeout(), R::find(client, &held)).await {
            Ok(found) => found,
            Err(error) => {
                section.forget(&held);
                return Err(error);
            }
        };
        let found: hashbrown::HashMap<R::Id, Arc<R>> = found
            .into_iter()
            .map(|(id, record)| (id, Arc::new(record)))
            .collect();
        for id in &held {
            section.put(id, found.get(id), generation, self.clock.now_us());
        }
        Ok(())
    }
}
