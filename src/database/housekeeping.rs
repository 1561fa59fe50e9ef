//! What has to be done now and then: saving, noting uses of keys, pruning, measuring.

use super::directory::Directory;
use super::document::parameter;
use super::failure::{DatabaseError, Health, within};
use super::pool::Pool;
use crate::telemetry::DatabaseMetrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_postgres::types::{ToSql, Type};

/// Between two looks after what has to be done now and then.
const TICK: Duration = Duration::from_secs(1);

/// How often what is known is saved, uses of keys are noted, old changes pruned: in ticks.
const SAVE_EVERY: u64 = 60;
const NOTE_EVERY: u64 = 60;
const PRUNE_EVERY: u64 = 600;

/// Steps of one pruning.
const MAX_PRUNES: usize = 100;

const PRUNE_CHANGES: &str = include_str!("../../sql/queries/prune_changes.sql");
const PRUNE_REVISIONS: &str = include_str!("../../sql/queries/prune_revisions.sql");

/// What has to be done now and then, for ever.
pub(super) async fn keep_house(
    pool: Arc<Pool>,
    directory: Directory,
    keep_revisions: Option<Duration>,
    health: watch::Receiver<Health>,
    metrics: DatabaseMetrics,
) {
    // gateways that were started together need not prune together
    let offset = fastrand::u64(..PRUNE_EVERY);
    for tick in 1_u64.. {
        tokio::time::sleep(TICK).await;
        directory.measure();
        metrics
            .connections
            .set(i64::try_from(pool.size()).unwrap_or(i64::MAX));
        if tick.is_multiple_of(SAVE_EVERY) {
            let directory = directory.clone();
            // a file may take its time; whether it went well is in the log
            let _ = tokio::task::spawn_blocking(move || save(&directory)).await;
        }
        if *health.borrow() != Health::Connected {
            continue;
        }
        let done = match tick + offset {
            tick if tick.is_multiple_of(PRUNE_EVERY) => prune(&pool, keep_revisions).await,
            tick if tick.is_multiple_of(NOTE_EVERY) => directory.note_uses().await,
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::debug!("housekeeping in the database: {error}");
        }
    }
}

/// Deletes what every gateway has long followed, and revisions that have been kept for long enough; without a
/// duration they are kept for ever.
pub(super) async fn prune(
    pool: &Pool,
    keep_revisions: Option<Duration>,
) -> Result<(), DatabaseError> {
    delete(pool, PRUNE_CHANGES, &[]).await?;
    let Some(kept) = keep_revisions else {
        return Ok(());
    };
    let seconds = i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
    delete(pool, PRUNE_REVISIONS, &[parameter(&seconds, Type::INT8)]).await
}

/// Step by step, so that no step takes long and none holds up whoever writes.
async fn delete(
    pool: &Pool,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<(), DatabaseError> {
    for _ in 0..MAX_PRUNES {
        let mut lease = pool.lease().await?;
        let work = async { Ok(lease.client()?.execute_typed(statement, parameters).await?) };
        let done = within(pool.long_timeout(), work).await;
        lease.settle(&done);
        if done? == 0 {
            break;
        }
    }
    Ok(())
}

/// Saves what is known; a failure is said.
pub(super) fn save(directory: &Directory) {
    if let Err(error) = directory.save() {
        tracing::warn!("what is known of keys and clients is not saved: {error}");
    }
}
