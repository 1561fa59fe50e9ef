//! What a gateway knows without asking: refusals that still hold, units taken in advance.

use super::portions::Scarcity;
use super::{Shared, Wants, lease_ttl_us};
use crate::limit::algorithm::Answer;
use crate::limit::batch::{SetId, Turn, Verdict, Waiter};
use crate::limit::decision::{Charge, Decision, Source};
use crate::limit::lease::{Cap, Lease, Reserved, Served};
use crate::limit::refusals::{LONGEST_US, Refusal, Taking};
use crate::limit::store::redis::link::CallFailed;
use crate::limit::store::redis::wire::{self, Granted, Mode, Set, Wanted};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Seen less often than this since the estimate started over, a key is cold: it gets no lease and
/// no entry in the memory of refusals.
const HANDFUL: u64 = 4;

/// How long a new gateway waits with its first lease: until all others have counted it.
const OTHERS_KNOW_US: u64 = 2_500_000;

/// Between looks for leases that have ended; what is left of them goes back in one call.
const TURN: Duration = Duration::from_millis(100);

/// Units taken in advance: for whom, and what the store said.
pub(super) struct Grant {
    pub(super) set: Set,
    pub(super) granted: Granted,
}

impl Grant {
    fn decision(&self, nth: u64) -> Decision {
        let mut decision = self.granted.decision(&self.set, nth);
        decision.source = Source::Lease;
        decision
    }
}

/// What a call asks for beside its requests.
pub(super) struct Asked {
    pub(super) extra: u64,
    pub(super) reserved: Reserved,
    /// may the set be leased now?
    pub(super) leasing: bool,
    /// longest life of its leases
    pub(super) lease_ttl_us: u64,
    /// resets heard of until then
    resets: u64,
}

impl Shared {
    /// The decision, where it needs no call.
    pub(super) fn known(
        self: &Arc<Self>,
        id: SetId,
        charges: &[Charge<'_>],
        here_us: u64,
    ) -> Option<Decision> {
        let store_us = self.clock.at(here_us)?;
        let ttl_us = lease_ttl_us(charges);
        // units in hand may be had though the bucket has none
        let served = match ttl_us {
            0 => None,
            ttl_us => self.leases.serve(id, here_us, ttl_us),
        };
        let Some(Served {
            nth,
            granted,
            renew,
        }) = served
        else {
            let takings = charges.iter().map(Taking::from);
            let refused = match self.refusals.decide(takings, 1, here_us, store_us) {
                // another bucket may have to wait for a portion, and for longer
                Some(mut refused) => {
                    let pause = self.leases.paused(id, here_us);
                    refused.wait_at_least(pause.map_or(0, |pause| pause.until_us - here_us));
                    refused
                }
                None if ttl_us == 0 => return None,
                None => self.wait_for_portion(id, 1, here_us, store_us)?,
            };
            self.metrics.ahead.refused_here.inc();
            return Some(refused);
        };
        if renew && !self.breaker.is_open() && self.lines.join(id, || Wants::of(charges), None) {
            self.ask();
        }
        self.metrics.ahead.served.inc();
        Some(granted.decision(nth))
    }

    /// Answers those who gathered behind a call, as far as they need no other: from the units it
    /// brought, or because it was refused. Returns the turns of which nobody is left.
    pub(super) fn answer_gathered(
        self: &Arc<Self>,
        turns: &mut Vec<Turn<Wants>>,
        here_us: u64,
    ) -> Vec<Turn<Wants>> {
        let Some(store_us) = self.clock.at(here_us) else {
            return Vec::new();
        };
        let is_answered = |turn: &mut Turn<Wants>| {
            let wants = turn.buckets.clone();
            if wants.lease_ttl_us > 0 && self.answer_from_lease(turn, here_us, store_us) {
                return true;
            }
            let takings = wants.buckets.iter().zip(&wants.terms);
            let takings = takings.map(|(wanted, terms)| Taking {
                key: &wanted.key,
                fingerprint: terms.fingerprint,
                cost: wanted.cost,
                enforce: matches!(wanted.mode, Mode::Enforce),
            });
            let requests = turn.waiters.len() as u64;
            let decided = self.refusals.decide(takings, requests, here_us, store_us);
            let Some(decision) = decided else {
                return false;
            };
            let waiters = std::mem::take(&mut turn.waiters);
            self.waiting.fetch_sub(waiters.len(), Ordering::Relaxed);
            self.metrics.ahead.refused_here.inc_by(waiters.len() as u64);
            for waiter in waiters {
                tell(waiter, decision.clone());
            }
            true
        };
        turns.extract_if(.., is_answered).collect()
    }

    /// Answers from what is in hand, the others by the wait for the next portion; true: nobody is left.
    fn answer_from_lease(
        self: &Arc<Self>,
        turn: &mut Turn<Wants>,
        here_us: u64,
        store_us: u64,
    ) -> bool {
        let ttl_us = turn.buckets.lease_ttl_us;
        let before = turn.waiters.len();
        // who does not listen any more needs no unit
        turn.waiters.retain(|waiter| !waiter.answer.is_closed());
        let in_hand = || self.leases.serve_waiting(turn.id, here_us, ttl_us);
        let served: Vec<(Decision, Arc<Grant>)> = std::iter::from_fn(in_hand)
            .take(turn.waiters.len())
            .map(|(nth, grant)| (grant.decision(nth), grant))
            .collect();
        self.metrics.ahead.served.inc_by(served.len() as u64);
        for (waiter, (decision, grant)) in turn.waiters.drain(..served.len()).zip(served) {
            let verdict = Verdict::Decided(decision, None);
            if waiter.answer.send(verdict).is_err() {
                self.hand_back(&grant.set, &grant.granted, 1);
            }
        }
        let requests = turn.waiters.len() as u64;
        if requests > 0
            && let Some(refused) = self.wait_for_portion(turn.id, requests, here_us, store_us)
        {
            self.metrics.ahead.refused_here.inc_by(requests);
            for waiter in turn.waiters.drain(..) {
                tell(waiter, refused.clone());
            }
        }
        let answered = before - turn.waiters.len();
        self.waiting.fetch_sub(answered, Ordering::Relaxed);
        answered > 0 && turn.waiters.is_empty()
    }

    /// How many units to take in advance in the call that is about to be made.
    pub(super) fn asked(&self, turn: &Turn<Wants>, here_us: u64) -> Asked {
        let resets = self.leases.resets();
        let nothing = Asked {
            extra: 0,
            reserved: Reserved::new(),
            leasing: false,
            lease_ttl_us: turn.buckets.lease_ttl_us,
            resets,
        };
        let wants = &turn.buckets;
        let known_since_us = self.known_since_us.load(Ordering::Relaxed);
        let known = known_since_us > 0 && here_us >= known_since_us + OTHERS_KNOW_US;
        if wants.lease_ttl_us == 0 || !known || self.stopping.load(Ordering::Relaxed) {
            return nothing;
        }
        if self.heat.count(turn.id, turn.waiters.len() as u64) >= HANDFUL {
            self.leases.is_hot(turn.id, here_us);
        }
        let gateways = self.gateways.load(Ordering::Relaxed);
        let buckets = wants.buckets.iter().zip(&wants.terms);
        let caps: SmallVec<[Cap; 4]> = buckets
            .filter(|(wanted, _)| matches!(wanted.mode, Mode::Enforce))
            .map(|(wanted, terms)| Cap {
                key: wanted.key,
                units: cap(wanted, wants.lease_ttl_us, gateways),
                cost: wanted.cost,
                tally: self.metrics.ahead.leases.tally(terms.tally),
            })
            .collect();
        let (extra, reserved) = self
            .leases
            .wish(turn.id, here_us, wants.lease_ttl_us, &caps);
        Asked {
            extra,
            reserved,
            leasing: caps.iter().all(|cap| cap.units >= cap.cost.max(1)),
            lease_ttl_us: wants.lease_ttl_us,
            resets,
        }
    }

    /// Keeps what was granted beyond the requests of the call.
    pub(super) fn lease(
        self: &Arc<Self>,
        turn: &Turn<Wants>,
        asked: Asked,
        scarcity: Scarcity,
        (set, granted): (Set, Granted),
        sent_us: u64,
    ) {
        // what was taken before a reset is neither held nor handed back
        if asked.resets != self.leases.resets() {
            return self.leases.unreserve(&asked.reserved);
        }
        let extra = granted.granted.saturating_sub(set.requests);
        if !asked.leasing && extra == 0 {
            return self.leases.unreserve(&asked.reserved);
        }
        let window_us = windows_end_in(&set, &granted);
        let first = set.requests;
        let granted = Arc::new(Grant { set, granted });
        if asked.leasing {
            self.leases
                .pause(turn.id, scarcity.pause(sent_us, &granted));
        }
        if extra == 0 {
            return self.leases.unreserve(&asked.reserved);
        }
        // what was not granted is not held
        let unused = asked.extra.saturating_sub(extra);
        let per_request = |units: u64| units / asked.extra.max(1);
        let too_much: Reserved = asked
            .reserved
            .iter()
            .map(|(key, units)| (*key, per_request(*units) * unused))
            .collect();
        let reserved: Reserved = asked
            .reserved
            .iter()
            .map(|(key, units)| (*key, per_request(*units) * extra))
            .collect();
        self.leases.unreserve(&too_much);
        self.metrics.ahead.leased_most.set(
            self.metrics
                .ahead
                .leased_most
                .get()
                .max(self.leases.reserved() as i64),
        );
        let lease = Lease {
            size: extra,
            left: extra,
            next: first,
            ends_us: sent_us + turn.buckets.lease_ttl_us.min(window_us),
            reserved,
            granted,
        };
        // what was asked for before this gateway began to stop goes back at once
        let over = match self.stopping.load(Ordering::Relaxed) {
            true => Some(lease),
            false => self.leases.begins(turn.id, lease),
        };
        if let Some(lease) = over {
            self.ends(lease);
        }
    }

    fn ends(self: &Arc<Self>, lease: Lease<Grant>) {
        self.leases.unreserve(&lease.reserved);
        if lease.left > 0 {
            let Grant { set, granted } = lease.granted.as_ref();
            self.hand_back(set, granted, lease.left);
        }
    }

    /// Hands back what is left of leases that have ended.
    pub(super) async fn end_leases(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TURN).await;
            if self.leases.is_empty() {
                continue;
            }
            let ended = self.leases.ended(self.clock.here_us());
            if let Err(error) = self.give_back_leases(ended).await {
                tracing::debug!("what was left of leases is lost: {error}");
            }
        }
    }

    /// Hands back what is left of these leases.
    pub(super) async fn give_back_leases(
        &self,
        leases: Vec<Lease<Grant>>,
    ) -> Result<(), CallFailed> {
        let mut refunds = Vec::new();
        for lease in leases.iter().filter(|lease| lease.left > 0) {
            let Grant { set, granted } = lease.granted.as_ref();
            refunds.extend(wire::refunds(set, granted, lease.left));
            self.metrics.refunded.inc_by(lease.left);
        }
        self.refund(&refunds).await
    }

    /// Remembers which buckets have just refused.
    pub(super) fn remember(
        &self,
        turn: &Turn<Wants>,
        asked: &Asked,
        scarcity: &Scarcity,
        (set, granted): (&Set, &Granted),
        sent_us: u64,
    ) {
        let reset_since = asked.resets != self.leases.resets();
        let deaf = !self.listening.load(Ordering::Relaxed);
        if granted.granted >= set.requests || reset_since || deaf {
            return;
        }
        let now_us = self.clock.here_us();
        let told_us = self.clock.here_at(granted.now_us, sent_us, now_us);
        let wants = &turn.buckets;
        let longest_us = match wants.lease_ttl_us {
            0 => LONGEST_US,
            ttl_us => LONGEST_US.min(ttl_us),
        };
        let decision = granted.decision(set, granted.granted);
        let buckets = set.buckets.iter().zip(&decision.buckets);
        for ((wanted, bucket), terms) in buckets.zip(&wants.terms) {
            let Answer::Refuse { retry_after_us } = bucket.answer else {
                continue;
            };
            let refused = set.requests - granted.granted;
            let enforces = matches!(wanted.mode, Mode::Enforce) && !wanted.quota.is_concurrency();
            if !enforces || self.heat.count(wanted.key, refused) < HANDFUL {
                continue;
            }
            self.refusals.count(&wanted.key, refused);
            let retry_after_us = retry_after_us.map(|after| after.max(scarcity.portion_us));
            let room_us = retry_after_us.unwrap_or(LONGEST_US);
            // the memory ends early rather than late; clients wait from when the store said so
            let refusal = Refusal {
                fingerprint: terms.fingerprint,
                cost: wanted.cost,
                until_us: sent_us + room_us.min(longest_us),
                room_at_us: retry_after_us.map(|after| told_us + after),
                remaining: bucket.reading.remaining,
                whole_at_us: told_us + bucket.reading.reset_after_us,
            };
            self.refusals.remember(&wanted.key, refusal, sent_us);
        }
    }
}

/// A decision that holds nothing.
fn tell(waiter: Waiter, decision: Decision) {
    // who does not listen any more needs no verdict
    let _ = waiter.answer.send(Verdict::Decided(decision, None));
}

/// `rate * ttl / gateways` units, rounded down.
fn cap(wanted: &Wanted, ttl_us: u64, gateways: u64) -> u64 {
    let earned = wanted.quota.earned(ttl_us);
    earned.checked_div(gateways).unwrap_or(0)
}

/// A lease of a window's units ends with the window.
fn windows_end_in(set: &Set, granted: &Granted) -> u64 {
    let ends = set
        .buckets
        .iter()
        .filter_map(|wanted| wanted.quota.window_left(granted.now_us));
    ends.min().unwrap_or(u64::MAX / 2)
}
