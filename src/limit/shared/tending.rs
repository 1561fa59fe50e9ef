//! What keeps the shared store going beside the traffic: the connection, the heartbeat that is also
//! the probe, recovery.

use super::Shared;
use crate::clock::Stopwatch;
use crate::limit::outage::Debt;
use crate::limit::store::redis::link::CallFailed;
use crate::limit::store::redis::wire::{self, Mode, Set, Wanted};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between heartbeats.
const BEAT: Duration = Duration::from_secs(1);

/// Between probes while the breaker is open: recovery is noticed within a second.
const PROBE: Duration = Duration::from_millis(100);

/// A gateway that was silent for so long does not count any more, microseconds.
const GONE_US: u64 = 3_500_000;

/// Longest a heartbeat is awaited.
const PATIENCE: Duration = Duration::from_millis(500);

/// Silent for so many probes, a connection is given up: its other end may be gone without a word.
const SILENT_PROBES: u32 = 6;

/// Buckets charged in one call after an outage.
const SETTLED_AT_ONCE: usize = 64;

impl Shared {
    /// Starts what runs beside the traffic, on the runtime of the caller, and waits for the first
    /// connection, but no longer than `patience`: without one, outage modes decide.
    pub async fn start(self: &Arc<Self>, patience: Duration) {
        if !self.started.swap(true, Ordering::Relaxed) {
            let shared = self.clone();
            tokio::spawn(async move { shared.link.keep().await });
            tokio::spawn(self.clone().tend());
            tokio::spawn(self.clone().end_leases());
            tokio::spawn(self.clone().listen());
        }
        let connected = async {
            while self.breaker.is_open() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(patience, connected).await.is_err() {
            tracing::warn!(
                "the shared store does not answer yet; policies go by their outage mode"
            );
        }
    }

    /// The heartbeat. It writes, so it fails where spending would fail: on a replica, with memory
    /// full.
    async fn tend(self: Arc<Self>) {
        let mut silent = 0;
        loop {
            if !self.link.is_up() {
                self.trip("there is no connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            let watch = Stopwatch::start();
            match tokio::time::timeout(PATIENCE, self.announce()).await {
                Ok(Ok(())) => {
                    silent = 0;
                    if watch.elapsed() <= self.settings.timeout {
                        self.is_well().await;
                    } else {
                        self.failed("the heartbeat was answered too late");
                    }
                }
                Ok(Err(error)) => self.trip_or_count(&error),
                Err(_) => {
                    self.failed("the heartbeat is not answered");
                    silent += 1;
                    if silent >= SILENT_PROBES {
                        silent = 0;
                        self.link.give_up();
                    }
                }
            }
            let pause = if self.breaker.is_open() { PROBE } else { BEAT };
            tokio::select! {
                () = tokio::time::sleep(pause) => (),
                () = self.tripped.notified() => (),
            }
        }
    }

    /// Tells the others that this gateway lives, and learns how many there are.
    async fn announce(&self) -> Result<(), CallFailed> {
        let call = wire::announce(&self.frame(), &self.settings.prefix, GONE_US);
        let reply = self.link.call(&call).await?;
        let (now_us, gateways) = wire::announced(&reply)?;
        self.clock.is_told(now_us);
        self.gateways.store(gateways.max(1), Ordering::Relaxed);
        self.metrics.gateways.set(gateways as i64);
        let _ = self.known_since_us.compare_exchange(
            0,
            self.clock.here_us(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        Ok(())
    }

    async fn is_well(self: &Arc<Self>) {
        if !self.breaker.is_open() {
            if let Err(error) = self.renew().await {
                self.trip_or_count(&error);
            }
            return;
        }
        match self.recover().await {
            Ok(settled) => {
                self.metrics.up.set(1);
                tracing::info!(
                    settled,
                    gateways = self.gateways.load(Ordering::Relaxed),
                    "counting is shared"
                );
            }
            Err(error) => tracing::debug!("the shared store is not well yet: {error}"),
        }
    }

    /// Charges the store with what was admitted without it, then lets requests ask it again.
    async fn recover(self: &Arc<Self>) -> Result<u64, CallFailed> {
        let now_us = self.store_us();
        self.hold_exactly().await?;
        let mut settled = self.settle(self.outage.debts(now_us)).await?;
        self.breaker.close();
        // what was admitted while that went on
        settled += self.settle(self.outage.end(now_us)).await?;
        Ok(settled)
    }

    async fn settle(self: &Arc<Self>, debts: Vec<Debt>) -> Result<u64, CallFailed> {
        let at_once = if self.link.is_cluster() {
            1
        } else {
            SETTLED_AT_ONCE
        };
        let settled = debts.len() as u64;
        let mut left = debts.into_iter().peekable();
        while left.peek().is_some() {
            let some: Vec<Debt> = left.by_ref().take(at_once).collect();
            let sets: Vec<Set> = some.iter().map(forced).collect();
            if let Err(error) = self.spend_in_store(&sets).await {
                let now_us = self.store_us();
                self.outage.still_owes(some.into_iter().chain(left), now_us);
                return Err(error);
            }
        }
        self.metrics.settled.inc_by(settled);
        Ok(settled)
    }
}

/// Units that have been admitted already.
fn forced(debt: &Debt) -> Set {
    let wanted = Wanted {
        key: debt.key,
        quota: debt.quota.clone(),
        cost: debt.units,
        mode: Mode::Force,
    };
    Set {
        buckets: Arc::new(std::iter::once(wanted).collect()),
        requests: 1,
        extra: 0,
        lease_us: 0,
    }
}
