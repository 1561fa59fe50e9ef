//! One call to the store for everybody whose turn it is, and what becomes of its reply.

use super::leasing::Asked;
use super::portions::Scarcity;
use super::{Permits, Shared, Wants};
use crate::limit::batch::{Turn, Verdict, Waiter};
use crate::limit::decision::{Charge, Decision};
use crate::limit::store::memory::Put;
use crate::limit::store::redis::link::{CallFailed, Reply};
use crate::limit::store::redis::wire::{self, Call, Frame, Granted, Refund, Set, Wanted};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long an operator's question waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most bucket sets in one call.
const MAX_SETS: usize = 32;

/// Most buckets in one call that hands units back.
const MAX_REFUNDS: usize = 64;

impl Shared {
    /// Makes a call soon.
    pub(super) fn ask(self: &Arc<Self>) {
        // boxed, for a task moves its future several times
        self.spawn(Box::pin(self.clone().call()));
    }

    pub(super) async fn call(self: Arc<Self>) {
        // Where requests run on the store's own runtime, those that are ready now join their lines
        // before. One that is the only one in the whole gateway to wait is sent at once, unless
        // the call before had company: others are about to come then.
        if self.waiting.load(Ordering::Relaxed) != 1 || self.in_company.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        let (mut turns, more) = self.lines.take(self.at_once(MAX_SETS));
        if more {
            self.ask();
        }
        let sent_us = self.clock.here_us();
        let mut over = self.answer_gathered(&mut turns, sent_us);
        over.extend(turns.extract_if(.., |turn| !wants_a_call(turn)));
        self.are_done(over);
        if turns.is_empty() {
            return;
        }
        let asked: Vec<Asked> = turns.iter().map(|turn| self.asked(turn, sent_us)).collect();
        let sets: Vec<Set> = turns
            .iter()
            .zip(&asked)
            .map(|(turn, asked)| set_of(turn, asked))
            .collect();
        let requests: u64 = sets.iter().map(|set| set.requests).sum();
        let _under_way = UnderWay::begin(&self);
        let reply = self.reply_or_deadlines(&sets, &mut turns).await;
        match reply {
            Ok(granted) => {
                if self.clock.here_us() <= sent_us + self.settings.timeout.as_micros() as u64 {
                    self.breaker.succeeded();
                }
                self.hand_out(&mut turns, asked, sets, granted, sent_us);
            }
            Err(error) => {
                self.metrics.errors.inc();
                self.trip_or_count(&error);
                for (turn, asked) in turns.iter_mut().zip(asked) {
                    self.leases.unreserve(&asked.reserved);
                    self.give_up_on(std::mem::take(&mut turn.waiters));
                }
            }
        }
        let in_company = requests > 1 || self.waiting.load(Ordering::Relaxed) > 0;
        self.in_company.store(in_company, Ordering::Relaxed);
        self.are_done(turns);
    }

    /// Hands out what was granted, and keeps what it says of the buckets.
    fn hand_out(
        self: &Arc<Self>,
        turns: &mut [Turn<Wants>],
        asked: Vec<Asked>,
        sets: Vec<Set>,
        granted: Vec<Granted>,
        sent_us: u64,
    ) {
        let answers = sets.iter().zip(&granted);
        let told = turns.iter_mut().zip(&asked).zip(answers);
        let scarcities: SmallVec<[Scarcity; 1]> = told
            .map(|((turn, asked), (set, granted))| {
                let scarcity = self.scarcity(asked, set, granted);
                self.remember(turn, asked, &scarcity, (set, granted), sent_us);
                self.tell(turn, set, granted, scarcity.portion_us);
                scarcity
            })
            .collect();
        self.saw(&sets, &granted);
        let answers = sets.into_iter().zip(granted);
        let known = turns.iter().zip(asked).zip(scarcities);
        for (((turn, asked), scarcity), answer) in known.zip(answers) {
            self.lease(turn, asked, scarcity, answer, sent_us);
        }
    }

    fn are_done(self: &Arc<Self>, turns: Vec<Turn<Wants>>) {
        for turn in turns {
            if self.lines.done(turn.id) {
                self.ask();
            }
        }
    }

    /// Sends the call; who has waited long enough meanwhile is told so, whether in it or behind it.
    async fn reply_or_deadlines(
        self: &Arc<Self>,
        sets: &[Set],
        turns: &mut [Turn<Wants>],
    ) -> Result<Vec<Granted>, CallFailed> {
        let mut call = std::pin::pin!(self.spend_in_store(sets));
        loop {
            let deadline = self.next_deadline(turns);
            tokio::select! {
                biased;
                reply = &mut call => return reply,
                () = tokio::time::sleep_until(deadline) => self.expire(turns),
            }
        }
    }

    pub(super) async fn spend_in_one_call(&self, sets: &[Set]) -> Result<Vec<Granted>, CallFailed> {
        let first = sets.iter().find_map(|set| set.buckets.first());
        let prefix = self.prefix_of(first.map(|wanted| &wanted.key));
        let call = wire::spend(&self.frame(), &prefix, sets, self.store_us());
        self.metrics.calls.inc();
        let timer = self.metrics.call_seconds.start_timer();
        let reply = self.link.call(&call).await?;
        timer.observe_duration();
        let granted = wire::decode(&reply, sets)?;
        if let Some(first) = granted.first() {
            self.clock.is_told(first.now_us);
        }
        Ok(granted)
    }

    /// What is left in a bucket, as the store knows it.
    pub async fn peek(&self, charge: &Charge<'_>) -> Result<Decision, CallFailed> {
        let set = Set {
            buckets: Arc::new(std::iter::once(Wanted::of(charge)).collect()),
            requests: 1,
            extra: 0,
            lease_us: 0,
        };
        let prefix = self.prefix_of(Some(&charge.key));
        let sets = std::slice::from_ref(&set);
        let call = wire::peek(&self.frame(), &prefix, sets, self.store_us());
        let reply = self.call_patiently(&call).await?;
        let granted = wire::decode_peek(&reply, sets)?.into_iter().next();
        granted
            .map(|granted| granted.decision(&set, 0))
            .ok_or(CallFailed::NotConnected)
    }

    /// A call for an operator, who waits longer than a request.
    pub(super) async fn call_patiently(&self, call: &Call) -> Result<Reply, CallFailed> {
        let reply = tokio::time::timeout(PATIENCE, self.link.call(call)).await;
        reply.unwrap_or(Err(CallFailed::NotConnected))
    }

    pub(super) fn frame(&self) -> Frame<'_> {
        Frame {
            gateway: &self.gateway,
            permit_ttl_us: super::permits::TTL.as_micros() as u64,
            gateways: self.gateways.load(Ordering::Relaxed),
        }
    }

    /// The store's clock as we know it, microseconds; before the first reply it is ours.
    pub(super) fn store_us(&self) -> u64 {
        self.clock.now_us().unwrap_or_else(|| self.clock.guess_us())
    }

    fn next_deadline(&self, turns: &[Turn<Wants>]) -> Instant {
        let of_turn = |turn: &Turn<Wants>| match turn.waiters.first() {
            Some(waiter) => Some(waiter.deadline),
            None => self.lines.next_deadline(turn.id),
        };
        let next = turns.iter().filter_map(of_turn).min();
        // who joins a line from now on waits at least until then
        next.unwrap_or_else(|| Instant::now() + self.settings.timeout)
    }

    fn expire(&self, turns: &mut [Turn<Wants>]) {
        let now = Instant::now();
        for turn in turns {
            let due = turn
                .waiters
                .partition_point(|waiter| waiter.deadline <= now);
            let mut waited: Vec<Waiter> = turn.waiters.drain(..due).collect();
            waited.extend(self.lines.expired(turn.id, now));
            if !waited.is_empty() {
                self.metrics.deadlines.inc_by(waited.len() as u64);
                self.was_late();
            }
            self.give_up_on(waited);
        }
    }

    fn give_up_on(&self, waiters: Vec<Waiter>) {
        self.waiting.fetch_sub(waiters.len(), Ordering::Relaxed);
        for waiter in waiters {
            // who does not listen any more needs no verdict
            let _ = waiter.answer.send(Verdict::Unavailable);
        }
    }

    /// Hands the decisions out in the order of arrival; units that nobody takes go back. Who is
    /// refused waits at least `pause_us`.
    fn tell(self: &Arc<Self>, turn: &mut Turn<Wants>, set: &Set, granted: &Granted, pause_us: u64) {
        let waiters = std::mem::take(&mut turn.waiters);
        self.waiting.fetch_sub(waiters.len(), Ordering::Relaxed);
        self.metrics.decided.inc_by(waiters.len() as u64);
        let living = waiters.len() as u64;
        let mut unclaimed = 0;
        for (nth, waiter) in waiters.into_iter().enumerate() {
            let mut decision = granted.decision(set, nth as u64);
            let allowed = decision.allowed;
            if !allowed {
                decision.wait_at_least(pause_us);
            }
            let permits = self.permits_of(set, &decision);
            let verdict = Verdict::Decided(decision, permits);
            if waiter.answer.send(verdict).is_err() && allowed {
                unclaimed += 1;
            }
        }
        // who has given up meanwhile leaves units behind
        let abandoned = living..set.requests.min(granted.granted);
        unclaimed += abandoned.end.saturating_sub(abandoned.start);
        self.release_unclaimed(set, granted, abandoned);
        if unclaimed > 0 {
            self.hand_back(set, granted, unclaimed);
        }
    }

    /// An outage begins with what the store was last seen to hold.
    pub(super) fn saw(&self, sets: &[Set], granted: &[Granted]) {
        let seen = sets.iter().zip(granted).flat_map(|(set, granted)| {
            let buckets = set.buckets.iter().zip(&granted.buckets);
            buckets.map(|(wanted, bucket)| Put {
                key: &wanted.key,
                quota: &wanted.quota,
                state: bucket.state.rebuilt(),
                now_us: granted.now_us,
            })
        });
        self.outage.saw(seen);
    }

    /// Requests in flight that were granted to nobody.
    pub(super) fn release_unclaimed(
        self: &Arc<Self>,
        set: &Set,
        granted: &Granted,
        requests: std::ops::Range<u64>,
    ) {
        for nth in requests {
            drop(self.permits_of(set, &granted.decision(set, nth)));
        }
    }

    fn permits_of(self: &Arc<Self>, set: &Set, decision: &Decision) -> Option<Permits> {
        if !decision.allowed {
            return None;
        }
        let taken = set.buckets.iter().zip(&decision.buckets);
        self.permits(
            taken
                .filter(|(_, bucket)| bucket.answer.admits())
                .map(|(wanted, _)| (&wanted.key, &wanted.quota, wanted.cost)),
        )
    }

    /// Returns the units of the last `requests` of a set in the background. Requests in flight are
    /// not among them: permits return by themselves.
    pub(super) fn hand_back(self: &Arc<Self>, set: &Set, granted: &Granted, requests: u64) {
        let refunds = wire::refunds(set, granted, requests);
        self.metrics.refunded.inc_by(requests);
        let under_way = UnderWay::begin(self);
        self.spawn(async move {
            let shared = &under_way.0;
            if let Err(error) = shared.refund(&refunds).await {
                tracing::debug!("units that nobody claimed are lost: {error}");
            }
        });
    }

    pub(super) async fn refund(&self, refunds: &[Refund]) -> Result<(), CallFailed> {
        for some in refunds.chunks(self.at_once(MAX_REFUNDS)) {
            let prefix = self.prefix_of(some.first().map(|refund| &refund.key));
            let call = wire::refund(&self.frame(), &prefix, some, self.store_us());
            self.metrics.calls.inc();
            self.link.call(&call).await?;
        }
        Ok(())
    }

    /// Without a connection nobody needs to try; another failure is counted. What ended with a
    /// connection says nothing of the next one.
    pub(super) fn trip_or_count(&self, error: &CallFailed) {
        match error {
            CallFailed::NotConnected if self.link.is_up() => (),
            CallFailed::Redis(_) | CallFailed::Reply(_) if self.link.is_up() => {
                self.failed(&error.to_string())
            }
            _ => self.trip(&error.to_string()),
        }
    }
}

/// Counts a call or a refund until it has ended.
pub(super) struct UnderWay(Arc<Shared>);

impl UnderWay {
    pub(super) fn begin(shared: &Arc<Shared>) -> Self {
        shared.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(shared.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody waits, or a lease is to be renewed.
fn wants_a_call(turn: &Turn<Wants>) -> bool {
    !turn.waiters.is_empty() || turn.buckets.lease_ttl_us > 0
}

fn set_of(turn: &Turn<Wants>, asked: &Asked) -> Set {
    Set {
        buckets: turn.buckets.buckets.clone(),
        requests: turn.waiters.len() as u64,
        extra: asked.extra,
        lease_us: if asked.extra > 0 {
            turn.buckets.lease_ttl_us
        } else {
            0
        },
    }
}
