//! What keeps the shared store going beside the traffic: the connection, the heartbeat that is also
//! the probe, recovery.

use super::{NO_CONNECTION, Shared};
use crate::clock::Stopwatch;
use crate::limit::outage::Debt;
use crate::limit::store::redis::link::CallFailed;
use crate::limit::store::redis::wire::{self, Mode, Set, Wanted};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;

/// Between heartbeats.
const BEAT: Duration = Duration::from_secs(1);

/// Between probes while the breaker is open: recovery is noticed within a second.
const PROBE: Duration = Duration::from_millis(100);

/// A gateway that was silent for so long does not count any more, microseconds.
const GONE_US: u64 = 3_500_000;

/// Longest a heartbeat is awaited, beyond the deadline of requests.
const PATIENCE: Duration = Duration::from_millis(475);

/// Silent for so many probes, a connection is given up: its other end may be gone without a word.
const SILENT_PROBES: u32 = 6;

/// Longest wait for the ends of calls that were made before an outage.
const LATE_ONES: Duration = Duration::from_millis(200);

/// Buckets whose refusals are told with one heartbeat.
const COUNTED_AT_ONCE: usize = 256;

/// Buckets charged in one call after an outage.
const SETTLED_AT_ONCE: usize = 64;

impl Shared {
    /// Starts what runs beside the traffic, on the runtime of the caller. The connection is driven
    /// there, and calls are made there, whichever thread the requests are on.
    pub fn start(self: &Arc<Self>) {
        let here = (Handle::current(), std::thread::current().id());
        if self.runtime.set(here).is_err() {
            return;
        }
        let shared = self.clone();
        tokio::spawn(async move { shared.link.keep().await });
        tokio::spawn(self.clone().tend());
        tokio::spawn(self.clone().end_leases());
        tokio::spawn(self.clone().listen());
    }

    /// Waits for the first connection, but no longer than `patience`: without one, outage modes
    /// decide. Is there one?
    pub async fn first_connection(&self, patience: Duration) -> bool {
        let connected = async {
            while self.breaker.is_open() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(patience, connected).await.is_ok()
    }

    /// Does something for the store on its runtime. Before the start nothing is done, and nothing is asked
    /// for: the breaker is open until the first connection. Once the runtime has ended, so has the process.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some((runtime, _)) = self.runtime.get() {
            runtime.spawn(task);
        }
    }

    /// Is this thread the one the store's runtime is on? Not if requests are served by several.
    pub(super) fn is_here(&self) -> bool {
        let here = std::thread::current().id();
        self.runtime
            .get()
            .is_some_and(|(_, thread)| *thread == here)
    }

    /// The heartbeat. It writes, so it fails where spending would fail: on a replica, with memory
    /// full.
    async fn tend(self: Arc<Self>) {
        let mut silent = 0;
        loop {
            if !self.link.is_up() {
                self.trip(NO_CONNECTION);
                silent = 0;
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            let watch = Stopwatch::start();
            match tokio::time::timeout(self.settings.timeout + PATIENCE, self.announce()).await {
                Ok(Ok(())) => {
                    silent = 0;
                    if watch.elapsed() <= self.settings.timeout {
                        self.is_well().await;
                    } else {
                        self.failed("the heartbeat was answered too late");
                    }
                }
                Ok(Err(error)) => {
                    silent = 0;
                    self.trip_or_count(&error);
                }
                Err(_) => {
                    self.failed("the heartbeat is not answered");
                    silent += 1;
                    if silent >= SILENT_PROBES {
                        silent = 0;
                        tracing::warn!("lost the connection to Redis: it was silent for too long");
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

    /// Tells the others that this gateway lives and which buckets have refused, and learns how many
    /// gateways there are. What is told in vain is lost: it is for statistics.
    async fn announce(&self) -> Result<(), CallFailed> {
        let refused = self.refusals.take_counts(COUNTED_AT_ONCE);
        let call = wire::announce(&self.frame(), &self.settings.prefix, GONE_US, &refused);
        let reply = self.link.call(&call).await?;
        let (now_us, gateways) = wire::announced(&reply)?;
        self.clock.is_told(now_us);
        self.counted(gateways);
        let _ = self.known_since_us.compare_exchange(
            0,
            self.clock.here_us(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        Ok(())
    }

    /// The number of gateways as the store knows it. After an outage it has forgotten those that
    /// have not announced themselves again, so for that long the number only grows.
    fn counted(&self, gateways: u64) {
        let known = self.gateways.load(Ordering::Relaxed);
        let well_since_us = self.well_since_us.load(Ordering::Relaxed);
        let settling = self.breaker.is_open() || self.clock.here_us() < well_since_us + GONE_US;
        // before the first contact, the number is only what was expected
        let gateways = if settling && well_since_us > 0 {
            gateways.max(known)
        } else {
            gateways.max(1)
        };
        self.gateways.store(gateways, Ordering::Relaxed);
        self.metrics.gateways.set(gateways as i64);
    }

    async fn is_well(self: &Arc<Self>) {
        let told = if self.breaker.is_open() {
            self.recover().await.map(|settled| {
                self.metrics.up.set(1);
                self.reasons.lock().clear();
                tracing::info!(
                    settled,
                    gateways = self.gateways.load(Ordering::Relaxed),
                    "counting is shared"
                );
            })
        } else {
            self.look_after().await
        };
        if let Err(error) = told {
            self.trip_or_count(&error);
        }
    }

    /// While all is well: what requests hold is kept, and what a few were admitted with at their
    /// deadline is charged.
    async fn look_after(self: &Arc<Self>) -> Result<(), CallFailed> {
        self.renew().await?;
        if self.outage.owes() {
            self.settle_rest().await?;
        }
        Ok(())
    }

    /// Charges the store with what was admitted without it, then lets requests ask it again.
    async fn recover(self: &Arc<Self>) -> Result<u64, CallFailed> {
        self.late_ones_end().await;
        self.hold_exactly().await?;
        let mut settled = 0;
        let mut debts = self.outage.debts(self.store_us()).into_iter().peekable();
        while debts.peek().is_some() {
            let some: Vec<Debt> = debts.by_ref().take(self.at_once(SETTLED_AT_ONCE)).collect();
            self.charge_with(&some).await?;
            settled += some.len() as u64;
            self.outage.settled(some);
        }
        self.well_since_us
            .store(self.clock.here_us(), Ordering::Relaxed);
        self.breaker.close();
        // what was admitted while that went on
        settled += self.settle_rest().await?;
        Ok(settled)
    }

    /// What was granted too late is handed back before debts are charged, for a bucket is never
    /// charged beyond its capacity.
    pub(super) async fn late_ones_end(&self) {
        let ended = async {
            while self.under_way.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // a call to a node that is gone may never end
        let _ = tokio::time::timeout(LATE_ONES, ended).await;
    }

    /// Charges what local buckets hold now, and ends them.
    async fn settle_rest(self: &Arc<Self>) -> Result<u64, CallFailed> {
        let mut debts = self.outage.end(self.store_us()).into_iter().peekable();
        let mut settled = 0;
        while debts.peek().is_some() {
            let some: Vec<Debt> = debts.by_ref().take(self.at_once(SETTLED_AT_ONCE)).collect();
            if let Err(error) = self.charge_with(&some).await {
                self.outage.still_owes(some.into_iter().chain(debts));
                return Err(error);
            }
            settled += some.len() as u64;
        }
        Ok(settled)
    }

    async fn charge_with(self: &Arc<Self>, debts: &[Debt]) -> Result<(), CallFailed> {
        let sets: Vec<Set> = debts.iter().map(forced).collect();
        let granted = self.spend_in_store(&sets).await?;
        self.saw(&sets, &granted);
        self.metrics.settled.inc_by(debts.len() as u64);
        Ok(())
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
