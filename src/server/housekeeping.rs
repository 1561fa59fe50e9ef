//! What happens beside the traffic: expiry, clock, names of peers, issuers' keys, gauges, changes of the
//! configuration.

use crate::snapshot::{Running, Snapshot};
use crate::telemetry::AuthMetrics;
use std::sync::Arc;
use std::time::Duration;

const TICK: Duration = Duration::from_secs(1);

/// Ticks in which the store is swept once.
const SWEEP_TICKS: usize = 16;

/// Shards of the largest store.
const SHARDS: usize = 256;

/// Ticks between look-ups of peers given by name.
const RESOLVE_TICKS: usize = 10;

/// Never ends.
pub(super) async fn keep_house(running: Arc<Running>) {
    let names = resolve_names(running.clone());
    let changes = crate::snapshot::watch(running.clone());
    let keys = running.sources.keep_fresh(&running.clock, || {
        running.snapshot().authenticator.jwks().cloned()
    });
    tokio::join!(names, changes, keys, tick(&running));
}

async fn tick(running: &Running) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn = 0;
    loop {
        ticks.tick().await;
        running.clock.follow_wall();
        let now_us = running.clock.now_us();
        for _ in 0..running
            .limiter
            .memory()
            .shards()
            .max(SHARDS)
            .div_ceil(SWEEP_TICKS)
        {
            running.limiter.sweep(turn, now_us);
            running.failures.sweep(turn, now_us);
            turn = turn.wrapping_add(1);
        }
        observe(&running.snapshot(), &running.metrics.auth);
        running
            .metrics
            .buckets
            .set(running.limiter.memory().len() as u64);
        running
            .metrics
            .evicted
            .set(running.limiter.memory().evicted());
    }
}

/// What is remembered of credentials.
fn observe(snapshot: &Snapshot, metrics: &AuthMetrics) {
    snapshot.authenticator.observe();
    let asked = snapshot
        .routes
        .iter()
        .filter_map(|route| route.forward_auth.as_ref());
    let answers: usize = asked.map(|asked| asked.remembered()).sum();
    metrics.cached_answers.set(answers as i64);
}

/// Peers given by name, in a loop of its own: a slow name server delays nothing else.
async fn resolve_names(running: Arc<Running>) {
    loop {
        for upstream in running
            .snapshot()
            .upstreams
            .iter()
            .filter(|upstream| upstream.has_names())
        {
            upstream.resolve().await;
        }
        tokio::time::sleep(TICK * RESOLVE_TICKS as u32).await;
    }
}
