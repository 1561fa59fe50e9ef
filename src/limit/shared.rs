//! The shared store as requests see it: ask, wait a bounded time, or be decided by outage mode.

mod caller;
mod groups;
mod leasing;
mod permits;
mod portions;
mod resets;
mod stopping;
mod tending;
mod waiting;

pub use permits::Permits;
pub use waiting::Waiting;

use super::batch::{Lines, SetId, Waiter};
use super::breaker::Breaker;
use super::decision::{Charge, Decision, Terms};
use super::descriptor::BucketKey;
use super::estimate::Estimate;
use super::lease::Leases;
use super::outage::Outage;
use super::refusals::Refusals;
use super::store::redis::link::{BadSettings, Link, Settings as LinkSettings};
use super::store::redis::wire::{Buckets, Wanted};
use crate::clock::{Clock, Stopwatch};
use crate::telemetry::StoreMetrics;
use parking_lot::Mutex;
use permits::Ledger;
use siphasher::sip128::{Hasher128, SipHasher13};
use smallvec::SmallVec;
use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use waiting::Calling;

/// How the shared store is reached and what holds without it.
#[derive(Clone)]
pub struct Settings {
    /// where Redis is
    pub link: LinkSettings,
    /// what every key begins with
    pub prefix: String,
    /// how long a request waits for a decision
    pub timeout: Duration,
    /// how many requests wait at once
    pub max_waiting: usize,
    /// buckets kept in process during an outage
    pub max_local_keys: usize,
    /// gateways that are assumed until their number is known
    pub expected_gateways: u64,
}

/// Buckets shared by all gateways.
pub struct Shared {
    link: Link,
    settings: Settings,
    /// names this gateway in the store
    gateway: String,
    secret: [u8; 16],
    lines: Lines<Wants>,
    waiting: AtomicUsize,
    /// several requests were in the call that ended last, or waited when it ended
    in_company: AtomicBool,
    /// calls and refunds whose end is not known yet
    under_way: AtomicUsize,
    breaker: Breaker,
    /// when a request last waited in vain, on our clock
    late_us: AtomicU64,
    /// why it is out, as told in the log
    reasons: Mutex<Vec<String>>,
    /// when counting became shared again, on our clock; 0: not yet
    well_since_us: AtomicU64,
    /// told when the breaker opens
    tripped: Notify,
    outage: Outage,
    refusals: Refusals,
    leases: Leases<leasing::Grant>,
    /// tells hot buckets and sets from cold ones
    heat: Estimate,
    /// since when the others know this gateway, on our clock; 0: they do not
    known_since_us: AtomicU64,
    ledger: Ledger,
    clock: StoreClock,
    gateways: AtomicU64,
    /// where the connection and all that talks to the store live
    runtime: OnceLock<(Handle, ThreadId)>,
    /// told when the subscription to resets is not to be trusted any more
    deaf: Notify,
    /// do we hear of resets?
    listening: AtomicBool,
    /// nothing is taken in advance any more
    stopping: AtomicBool,
    metrics: StoreMetrics,
}

/// How things are, for the health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// counting is shared
    Connected,
    /// there is a connection, but no answer in time
    Failing,
    /// there is no connection
    Disconnected,
}

impl Shared {
    /// Connects to nothing yet; see [`Shared::start`].
    pub fn new(settings: Settings, metrics: StoreMetrics) -> Result<Arc<Self>, BadSettings> {
        Ok(Arc::new(Shared {
            link: Link::new(&settings.link)?,
            gateway: format!("{:016x}", fastrand::u64(..)),
            secret: super::store::memory::random_secret(),
            lines: Lines::default(),
            waiting: AtomicUsize::new(0),
            in_company: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            breaker: Breaker::default(),
            late_us: AtomicU64::new(0),
            reasons: Mutex::default(),
            well_since_us: AtomicU64::new(0),
            tripped: Notify::new(),
            outage: Outage::new(settings.max_local_keys),
            refusals: Refusals::default(),
            leases: Leases::default(),
            heat: Estimate::default(),
            known_since_us: AtomicU64::new(0),
            ledger: Ledger::default(),
            clock: StoreClock::default(),
            gateways: AtomicU64::new(settings.expected_gateways.max(1)),
            runtime: OnceLock::new(),
            deaf: Notify::new(),
            listening: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            settings,
            metrics,
        }))
    }

    /// Asks the store, unless the answer is known.
    pub(super) fn spend(
        self: &Arc<Self>,
        charges: &[Charge<'_>],
        now_us: u64,
    ) -> Result<Waiting, Decision> {
        let here_us = self.clock.here_us();
        let id = self.id_of(charges);
        if let Some(decision) = self.known(id, charges, here_us) {
            return Err(decision);
        }
        if self.breaker.is_open() {
            return Err(self.alone(charges, now_us));
        }
        let already_waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        if already_waiting >= self.settings.max_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.crowded.inc();
            return Err(self.alone(charges, now_us));
        }
        let (answer, verdict) = oneshot::channel();
        let waiter = Waiter {
            answer,
            deadline: Instant::from_std(Stopwatch::start().after(self.settings.timeout)),
        };
        let mut calling = None;
        if self.lines.join(id, || Wants::of(charges), Some(waiter)) {
            let alone = already_waiting == 0 && !self.in_company.load(Ordering::Relaxed);
            if alone && self.is_here() {
                calling = Some(Calling::new(self, self.clone().call()));
            } else {
                self.ask();
            }
        }
        Ok(Waiting::new(verdict, calling))
    }

    /// Decides by outage mode.
    pub(super) fn alone(&self, charges: &[Charge<'_>], now_us: u64) -> Decision {
        self.metrics.outage.inc();
        let gateways = self.gateways.load(Ordering::Relaxed);
        self.outage
            .decide(charges, gateways, self.clock.now_us().unwrap_or(now_us))
    }

    /// Gives back units of a `concurrency` bucket that were taken in process.
    pub(super) fn release_local(&self, key: &BucketKey, cost: u64) {
        self.outage.release(key, cost);
    }

    /// How things are.
    pub fn condition(&self) -> Condition {
        match (self.breaker.is_open(), self.link.is_up()) {
            (false, _) => Condition::Connected,
            (true, true) => Condition::Failing,
            (true, false) => Condition::Disconnected,
        }
    }

    /// Forgets what has expired; `turn` grows by one at each call.
    pub fn sweep(&self, turn: usize, now_us: u64) {
        self.outage
            .sweep(turn, self.clock.now_us().unwrap_or(now_us));
        let here_us = self.clock.here_us();
        self.refusals.sweep(turn, here_us);
        self.leases.sweep(turn, here_us);
        if turn.is_multiple_of(HEAT_TURNS) {
            self.heat.start_over();
        }
        self.metrics
            .ahead
            .remembered
            .set(self.refusals.len() as i64);
        self.metrics.ahead.leased.set(self.leases.reserved() as i64);
        self.metrics.outage_buckets.set(self.outage.len() as i64);
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.metrics.waiting.set(waiting as i64);
    }

    /// Requests with the same buckets, costs and quotas share a call.
    fn id_of(&self, charges: &[Charge<'_>]) -> SetId {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        for charge in charges {
            hasher.write(charge.key.as_bytes());
            hasher.write_u8(u8::from(charge.enforce));
            hasher.write_u64(charge.cost);
            hasher.write_u64(charge.terms.fingerprint);
        }
        let hash = hasher.finish128();
        SetId(u128::from(hash.h1) << 64 | u128::from(hash.h2))
    }

    fn trip(&self, reason: &str) {
        match self.breaker.trip() {
            true => self.tell_trip(reason),
            false => self.tell_reason(reason),
        }
    }

    /// Requests have waited in vain. However many they are, a fifth of a deadline counts as one
    /// failure: a moment in which this process did not get to run is no outage.
    fn was_late(&self) {
        let here_us = self.clock.here_us();
        let one_us = self.settings.timeout.as_micros() as u64 / LATE_PARTS;
        let last_us = self.late_us.load(Ordering::Relaxed);
        if here_us >= last_us + one_us {
            self.late_us.store(here_us, Ordering::Relaxed);
            self.failed("no answer within the deadline");
        }
    }

    fn failed(&self, reason: &str) {
        match self.breaker.failed() {
            true => self.tell_trip(reason),
            false if self.breaker.is_open() => self.tell_reason(reason),
            false => (),
        }
    }

    fn tell_trip(&self, reason: &str) {
        self.metrics.up.set(0);
        // away for long, others may have ceased to count this gateway
        self.known_since_us.store(0, Ordering::Relaxed);
        self.metrics.trips.inc();
        self.outage.begin(self.store_us());
        self.tripped.notify_one();
        self.deaf.notify_one();
        self.reasons.lock().push(reason.to_owned());
        tracing::warn!(
            gateways = self.gateways.load(Ordering::Relaxed),
            "the shared store is out: {reason}; policies go by their outage mode"
        );
    }

    /// Why it still is: each reason once in an outage.
    fn tell_reason(&self, reason: &str) {
        let mut reasons = self.reasons.lock();
        let known = reasons.iter().any(|known| known == reason);
        if reason == NO_CONNECTION || known || reasons.len() >= MAX_REASONS {
            return;
        }
        reasons.push(reason.to_owned());
        tracing::warn!("the shared store is still out: {reason}");
    }
}

/// The reason that tells nothing: why there is none has been said when connecting failed.
const NO_CONNECTION: &str = "not connected";

/// Most reasons told in one outage.
const MAX_REASONS: usize = 8;

/// Parts of a deadline in which late answers count once.
const LATE_PARTS: u64 = 5;

/// Sweeps after which what is hot is counted anew.
const HEAT_TURNS: usize = 256;

/// What the requests of one line want.
pub(super) struct Wants {
    buckets: Arc<Buckets>,
    /// longest life of leases; 0: strict
    lease_ttl_us: u64,
    /// how each bucket may be counted
    terms: SmallVec<[Terms; 2]>,
}

impl Wants {
    fn of(charges: &[Charge<'_>]) -> Self {
        Wants {
            buckets: Arc::new(charges.iter().map(Wanted::of).collect()),
            lease_ttl_us: lease_ttl_us(charges),
            terms: charges.iter().map(|charge| charge.terms).collect(),
        }
    }
}

/// A request is leased only if every policy that enforces on it is; the shortest life holds.
fn lease_ttl_us(charges: &[Charge<'_>]) -> u64 {
    let enforcing = charges.iter().filter(|charge| charge.enforce);
    enforcing
        .map(|charge| charge.terms.lease_ttl_us)
        .min()
        .unwrap_or(0)
}

/// The store's clock as replies tell it, carried forward by our own.
struct StoreClock {
    wall: Clock,
    origin: Stopwatch,
    /// the store's time at `origin`, microseconds; 0: not known yet
    at_origin_us: AtomicU64,
}

impl Default for StoreClock {
    fn default() -> Self {
        StoreClock {
            wall: Clock::new(),
            origin: Stopwatch::start(),
            at_origin_us: AtomicU64::new(0),
        }
    }
}

impl StoreClock {
    /// Microseconds since the Unix epoch; `None` before the first reply.
    fn now_us(&self) -> Option<u64> {
        self.at(self.here_us())
    }

    /// Microseconds since the Unix epoch at a moment on our own clock; `None` before the first reply.
    fn at(&self, here_us: u64) -> Option<u64> {
        match self.at_origin_us.load(Ordering::Relaxed) {
            0 => None,
            at_origin_us => Some(at_origin_us + here_us.saturating_sub(1)),
        }
    }

    /// The moment on our own clock at which the store said what time it is, between two others.
    fn here_at(&self, store_us: u64, from_us: u64, to_us: u64) -> u64 {
        let at_origin_us = self.at_origin_us.load(Ordering::Relaxed);
        let here_us = store_us.saturating_sub(at_origin_us) + 1;
        here_us.clamp(from_us, to_us.max(from_us))
    }

    /// Our own wall clock, for want of the store's.
    fn guess_us(&self) -> u64 {
        self.wall.now_us()
    }

    /// Microseconds on our own clock, which never steps; at least 1.
    fn here_us(&self) -> u64 {
        self.origin.elapsed_us() + 1
    }

    /// A reply says what time it is.
    fn is_told(&self, now_us: u64) {
        let at_origin_us = now_us.saturating_sub(self.origin.elapsed_us()).max(1);
        self.at_origin_us.store(at_origin_us, Ordering::Relaxed);
    }
}
