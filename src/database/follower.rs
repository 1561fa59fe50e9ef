//! Follows what changes: told by NOTIFY, and by looking once a second, should that get lost.

use super::directory::Directory;
use super::document::parameter;
use super::failure::{DatabaseError, Health, within};
use super::pool::{Driver, Pool};
use super::{directory, schema};
use crate::telemetry::DatabaseMetrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Row};

const CHANGES: &str = include_str!("../../sql/queries/changes.sql");

/// How many changes one look takes one by one; more are taken as "everything".
const MAX_CHANGES: usize = 10_000;

/// Between two looks nobody asked for; a lost notification is noticed within a second.
const POLL: Duration = Duration::from_millis(700);

/// Between two looks at least, so that a storm of notifications becomes a few of them.
const REST: Duration = Duration::from_millis(25);

/// A connection that is cut is made again at once; one that comes to nothing so often is an outage.
const CUTS: u32 = 3;

/// Between attempts to connect.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Keeps a connection, and by it the directory and whoever waits for changes, up to date.
pub(super) struct Follower {
    pub(super) pool: Arc<Pool>,
    pub(super) directory: Directory,
    pub(super) changed: watch::Sender<u64>,
    pub(super) health: watch::Sender<Health>,
    pub(super) metrics: DatabaseMetrics,
}

/// What a look found.
#[derive(Default)]
struct Look {
    version: u32,
    snapshot: String,
    rows: bool,
    all_keys: bool,
    all_clients: bool,
    keys: Vec<[u8; 32]>,
    clients: Vec<Arc<str>>,
    count: usize,
}

/// The task that drives a connection, ended with it.
struct Driven {
    task: JoinHandle<()>,
    told: Arc<Notify>,
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// For ever: connects, follows, and connects again.
    pub(super) async fn follow(&self) {
        let mut retry = FIRST_RETRY;
        let mut failures = 0;
        loop {
            let mut snapshot = None;
            let error = match within(self.pool.timeout() * 2, self.connect()).await {
                Ok((client, driven)) => self.stay(&client, &driven, &mut snapshot).await,
                Err(error) => error,
            };
            tracing::debug!("no connection that listens: {error}");
            if snapshot.is_some() {
                (retry, failures) = (FIRST_RETRY, 0);
            }
            failures += 1;
            let is_cut = *self.health.borrow() == Health::Connected && failures < CUTS;
            if !is_cut || error.is_silence() {
                self.is_away(&error);
            }
            // half of it at random: gateways must not all come back at the same moment
            let spread = retry.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::time::sleep(spread).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    async fn connect(&self) -> Result<(Client, Driven), DatabaseError> {
        let (client, driver) = self.pool.connect().await?;
        let driven = drive(driver);
        // fails only behind a pooler, or on a standby: looking once a second is enough then
        if let Err(error) = client.batch_execute("LISTEN tidegate").await {
            if client.is_closed() {
                return Err(error.into());
            }
            tracing::warn!(
                "no notifications from the database, it is asked once a second: {error}"
            );
        }
        self.metrics.connects.inc();
        Ok((client, driven))
    }

    /// Until the connection breaks or does not answer in time.
    async fn stay(
        &self,
        client: &Client,
        driven: &Driven,
        snapshot: &mut Option<String>,
    ) -> DatabaseError {
        loop {
            let looked = match self.look(client, snapshot.as_deref()).await {
                Ok(look) => self.take(client, look, snapshot.is_none()).await,
                Err(error) => Err(error),
            };
            match looked {
                Ok(now) => *snapshot = Some(now),
                Err(DatabaseError::Schema(version)) => {
                    // from then on everything is to be asked for again
                    *snapshot = None;
                    self.set(Health::Schema(version));
                }
                Err(error) => return error,
            }
            tokio::time::sleep(REST).await;
            tokio::select! {
                () = driven.told.notified() => (),
                () = tokio::time::sleep(POLL) => (),
            }
            if client.is_closed() {
                return DatabaseError::Unavailable("the connection broke".to_owned());
            }
        }
    }

    /// What has changed since `snapshot`; without one, only that of now.
    async fn look(&self, client: &Client, snapshot: Option<&str>) -> Result<Look, DatabaseError> {
        within(self.pool.timeout(), async {
            if snapshot.is_none() {
                schema::check(client).await?;
            }
            let parameters = [parameter(&snapshot, Type::TEXT)];
            Look::read(&client.query_typed(CHANGES, &parameters).await?)
        })
        .await
    }

    /// Acts on what was found; the snapshot for the next look.
    async fn take(
        &self,
        client: &Client,
        look: Look,
        is_first: bool,
    ) -> Result<String, DatabaseError> {
        schema::fits(look.version)?;
        self.metrics
            .changes
            .inc_by(u64::try_from(look.count).unwrap_or(u64::MAX));
        let is_everything = is_first || look.count > MAX_CHANGES;
        if is_first {
            self.directory.expire_all();
        } else if is_everything || look.all_clients {
            self.directory.distrust_all();
        } else if look.all_keys {
            self.directory.distrust_keys();
        }
        let renewed = match is_everything {
            true => Ok(()),
            false => self.directory.renew(look.keys, look.clients, client).await,
        };
        if renewed.is_ok() {
            self.set(Health::Connected);
        }
        // whatever came of the keys: these changes are told only once
        if is_everything || look.rows {
            self.changed.send_modify(|count| *count += 1);
        }
        renewed.map(|()| look.snapshot)
    }

    fn is_away(&self, error: &DatabaseError) {
        let reason = match error {
            DatabaseError::Unavailable(reason) => reason.clone(),
            other => other.to_string(),
        };
        self.set(Health::Unavailable(reason));
    }

    /// Tells the log once, not at every attempt.
    fn set(&self, health: Health) {
        self.metrics.up.set((health == Health::Connected).into());
        let before = self.health.send_replace(health.clone());
        let is_told = match (&before, &health) {
            (Health::Unavailable(_), Health::Unavailable(_)) => true,
            (before, now) => before == now,
        };
        match health {
            _ if is_told => (),
            Health::Connected => tracing::info!("connected to the database"),
            Health::Connecting => (),
            Health::Unavailable(reason) => tracing::warn!(
                "the database does not answer, what is known of it goes on: {reason}"
            ),
            Health::Schema(version) => {
                tracing::error!("{version}; what is known of it goes on");
            }
        }
    }
}

impl Look {
    fn read(rows: &[Row]) -> Result<Look, DatabaseError> {
        let mut look = Look::default();
        for row in rows {
            let version: i32 = row.try_get("version")?;
            look.version = u32::try_from(version).unwrap_or(0);
            look.snapshot = row.try_get("snapshot")?;
            let Some(kind) = row.try_get::<_, Option<&str>>("kind")? else {
                continue;
            };
            look.count += 1;
            look.note(kind, row.try_get("subject")?);
        }
        Ok(look)
    }

    fn note(&mut self, kind: &str, subject: Option<&str>) {
        let digest = subject.and_then(directory::unhex);
        match (kind, subject, digest) {
            ("rows", ..) => self.rows = true,
            ("key", _, Some(digest)) => self.keys.push(digest),
            ("key", ..) => self.all_keys = true,
            ("client", Some(id), _) => self.clients.push(id.into()),
            ("client", ..) => self.all_clients = true,
            // of a newer schema, or by hand: better too much than too little
            _ => (self.rows, self.all_clients) = (true, true),
        }
    }
}

/// Runs a connection; wakes whoever follows when a notification comes, and when it is over.
fn drive(mut driver: Driver) -> Driven {
    let told = Arc::new(Notify::new());
    let tell = told.clone();
    let task = tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| driver.poll_message(context)).await
        {
            if let AsyncMessage::Notification(_) = message {
                tell.notify_one();
            }
        }
        // the client side learns of it when the driver goes
        drop(driver);
        tell.notify_one();
    });
    Driven { task, told }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(changes: &[(&str, Option<&str>)]) -> Look {
        let mut look = Look::default();
        for (kind, subject) in changes {
            look.note(kind, *subject);
        }
        look
    }

    #[test]
    fn changes_are_taken_one_by_one_where_they_name_somebody() {
        let digest = "ab".repeat(32);
        let look = noted(&[("key", Some(&digest)), ("client", Some("acme"))]);
        assert_eq!(
            (look.keys, look.clients),
            (vec![[0xab; 32]], vec!["acme".into()])
        );
        assert!(!look.rows && !look.all_keys && !look.all_clients);
    }

    #[test]
    fn changes_that_name_nobody_mean_everybody() {
        assert!(noted(&[("key", None)]).all_keys);
        assert!(noted(&[("key", Some("garbage"))]).all_keys);
        assert!(noted(&[("client", None)]).all_clients);
        assert!(noted(&[("rows", None)]).rows);
        let unknown = noted(&[("something", Some("new"))]);
        assert!(unknown.rows && unknown.all_clients);
    }
}
