//! What has to be done now and then: saving, noting uses of keys, pruning, measuring.

use super::directory::Directory;
use super::failure::{DatabaseError, Health, within};
use super::pool::Pool;
use crate::telemetry::DatabaseMetrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks after what has to be done now and then.
const TICK: Duration = Duration::from_secs(1);

/// How often what is known is saved, uses of keys are noted, old changes pruned: in ticks.
const SAVE_EVERY: u64 = 60;
const NOTE_EVERY: u64 = 60;
const PRUNE_EVERY: u64 = 600;

/// Steps of one pruning.
const MAX_PRUNES: usize = 100;

const PRUNE: &str = include_str!("../../sql/queries/prune_changes.sql");

/// What has to be done now and then, for ever.
pub(super) async fn keep_house(
    pool: Arc<Pool>,
    directory: Directory,
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
            tick if tick.is_multiple_of(PRUNE_EVERY) => prune(&pool).await,
            tick if tick.is_multiple_of(NOTE_EVERY) => directory.note_uses().await,
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::debug!("housekeeping in the database: {error}");
        }
    }
}

/// Step by step, so that no step takes long and none holds up whoever writes.
async fn prune(pool: &Pool) -> Result<(), DatabaseError> {
    for _ in 0..MAX_PRUNES {
        let mut lease = pool.lease().await?;
        let work = async { Ok(lease.client()?.execute_typed(PRUNE, &[]).await?) };
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
