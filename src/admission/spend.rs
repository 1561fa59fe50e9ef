//! From the policies of a route to charges, and from the limiter's decision to a rejection.

use super::Rejection;
use crate::limit::algorithm::Answer;
use crate::limit::decision::{BucketDecision, Charge, Decision, Source};
use crate::limit::descriptor::BucketKey;
use crate::limit::limiter;
use crate::limit::shared::{Permits, Waiting};
use crate::policy::{Facts, Policy};
use crate::snapshot::{Route, Running, Snapshot};
use smallvec::SmallVec;

/// What one policy said about a request.
#[derive(Clone, Debug)]
pub struct Applied {
    /// index into the snapshot's policies
    pub policy: usize,
    /// which of the policy's quotas held
    pub quota: usize,
    /// units the request takes
    pub cost: u64,
    /// had the bucket room, and what is left
    pub decision: BucketDecision,
}

/// What all policies said, and what must be given back when the request ends.
#[derive(Default)]
pub struct Spent {
    /// per policy, in the snapshot's order
    pub applied: SmallVec<[Applied; 2]>,
    /// `concurrency` buckets of this process that count this request until it ends, with what it
    /// takes
    pub held: Vec<(BucketKey, u64)>,
    /// the same in the shared store
    pub permits: Option<Permits>,
    /// microseconds to hold the request before it is forwarded
    pub delay_us: u64,
    /// when it was decided, on the store's clock, microseconds since the Unix epoch; 0: nothing
    /// applied
    pub decided_us: u64,
    /// who decided; none: nothing applied
    pub source: Option<Source>,
}

/// The policies that apply to a request and the buckets it wants to take from.
pub(super) struct Asked<'s> {
    pub(super) applied: SmallVec<[Applied; 2]>,
    pub(super) charges: SmallVec<[Charge<'s>; 4]>,
}

/// A request that waits for the shared store.
pub struct Pending {
    applied: SmallVec<[Applied; 2]>,
    /// the buckets it wants to take from, one of each policy
    keys: SmallVec<[BucketKey; 2]>,
    waiting: Waiting,
}

/// Takes the cost from every bucket that applies, or from none.
pub(super) fn spend(
    running: &Running,
    snapshot: &Snapshot,
    route: &Route,
    facts: &Facts<'_>,
    now_us: u64,
) -> Result<Spending, Box<(Spent, Rejection)>> {
    let asked = Asked::of(snapshot, route, facts, now_us);
    if asked.charges.is_empty() {
        return Ok(Spending::Done(Spent::default()));
    }
    match running.limiter.spend(&asked.charges, now_us) {
        limiter::Spending::Decided(decision) => asked
            .judged(snapshot, &decision, None, Counting::Yes)
            .map(Spending::Done),
        limiter::Spending::Waiting(waiting) => Ok(Spending::Pending(Box::new(Pending {
            applied: asked.applied,
            keys: asked.charges.iter().map(|charge| charge.key).collect(),
            waiting,
        }))),
    }
}

/// What came of asking.
#[allow(
    clippy::large_enum_variant,
    reason = "moved once; a box would cost an allocation in each request"
)]
pub enum Spending {
    /// all was taken
    Done(Spent),
    /// the shared store has been asked
    Pending(Box<Pending>),
}

impl Pending {
    /// Waits for the store, no longer than the deadline.
    pub async fn decided(
        mut self: Box<Self>,
        running: &Running,
        snapshot: &Snapshot,
        now_us: u64,
    ) -> Result<Spent, Box<(Spent, Rejection)>> {
        let verdict = self.waiting.verdict().await;
        let Pending { applied, keys, .. } = *self;
        let of_policy = |(applied, key): (&Applied, BucketKey)| {
            let policy = snapshot.policies.get(applied.policy)?;
            Some(charge(policy, applied.quota, applied.cost, key))
        };
        let charges = applied.iter().zip(keys).filter_map(of_policy).collect();
        let asked = Asked { applied, charges };
        let (decision, permits) = running.limiter.decided(verdict, &asked.charges, now_us);
        asked.judged(snapshot, &decision, permits, Counting::Yes)
    }
}

fn charge(policy: &Policy, quota: usize, cost: u64, key: BucketKey) -> Charge<'_> {
    let quota = policy.quota(quota);
    Charge {
        key,
        quota: &quota.quota,
        cost,
        enforce: policy.enforces(),
        terms: quota.terms,
    }
}

/// Does a decision count in metrics?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    /// it was made for a request
    Yes,
    /// somebody only asked
    No,
}

impl<'s> Asked<'s> {
    pub(super) fn of(
        snapshot: &'s Snapshot,
        route: &Route,
        facts: &Facts<'_>,
        now_us: u64,
    ) -> Self {
        let mut asked = Asked {
            applied: SmallVec::new(),
            charges: SmallVec::new(),
        };
        for &index in &route.policies {
            let Some(policy) = snapshot
                .policies
                .get(index)
                .filter(|policy| policy.applies_to(facts.method))
            else {
                continue;
            };
            let quota = policy.quota_for(facts.client, facts.tier, now_us);
            let cost = policy.cost().saturating_mul(route.cost);
            let key = policy.bucket_key(facts);
            asked.charges.push(charge(policy, quota, cost, key));
            asked.applied.push(Applied {
                policy: index,
                quota,
                cost,
                decision: BucketDecision {
                    answer: Answer::NOW,
                    reading: Default::default(),
                    counted: false,
                },
            });
        }
        asked
    }

    /// Leaves out policies.
    pub(super) fn without(mut self, leave_out: impl Fn(&Applied) -> bool) -> Self {
        let kept: SmallVec<[bool; 2]> = self.applied.iter().map(|one| !leave_out(one)).collect();
        let mut of_charges = kept.iter();
        self.charges.retain(|_| of_charges.next() == Some(&true));
        let mut of_applied = kept.iter();
        self.applied.retain(|_| of_applied.next() == Some(&true));
        self
    }

    /// From the limiter's decision to what the request has spent, or why it may not pass.
    pub(super) fn judged(
        self,
        snapshot: &Snapshot,
        decision: &Decision,
        permits: Option<Permits>,
        counting: Counting,
    ) -> Result<Spent, Box<(Spent, Rejection)>> {
        let Asked {
            mut applied,
            charges,
        } = self;
        let mut held = Vec::new();
        let mut delay_us = 0;
        let in_process = permits.is_none() && !decision.source.is_shared();
        for ((applied, bucket), charge) in applied.iter_mut().zip(&decision.buckets).zip(&charges) {
            applied.decision = *bucket;
            let holds = bucket.answer.admits() && charge.quota.is_concurrency();
            if in_process && decision.allowed && holds {
                held.push((charge.key, charge.cost));
            }
            delay_us = delay_us.max(enforced_delay(charge, bucket));
            if counting == Counting::Yes
                && let Some(policy) = snapshot.policies.get(applied.policy)
            {
                count(policy, decision.allowed, bucket.answer);
            }
        }
        let spent = Spent {
            applied,
            held,
            permits,
            delay_us,
            decided_us: decision.now_us,
            source: Some(decision.source),
        };
        if decision.allowed {
            return Ok(spent);
        }
        let rejection = match decision.source {
            Source::Denied => Rejection::StoreUnavailable,
            _ => longest_wait(snapshot, &spent),
        };
        Err(Box::new((spent, rejection)))
    }
}

/// A shadow policy reports a delay but imposes none.
fn enforced_delay(charge: &Charge<'_>, bucket: &BucketDecision) -> u64 {
    match bucket.answer {
        Answer::Admit { delay_us } if charge.enforce => delay_us,
        _ => 0,
    }
}

fn count(policy: &Policy, allowed: bool, answer: Answer) {
    let metrics = policy.metrics();
    match (answer.admits(), policy.enforces()) {
        (true, _) if allowed => metrics.allowed.inc(),
        (true, _) => (),
        (false, true) => metrics.refused.inc(),
        (false, false) => metrics.would_refuse.inc(),
    }
}

/// The refusal that speaks for all: the one with the longest wait. No wait at all that helps is
/// longer than any; requests in flight, of which nobody knows when they end, count as a second.
fn longest_wait(snapshot: &Snapshot, spent: &Spent) -> Rejection {
    let refusals = spent.applied.iter().filter_map(|applied| {
        let policy = snapshot
            .policies
            .get(applied.policy)
            .filter(|policy| policy.enforces())?;
        let Answer::Refuse { retry_after_us } = applied.decision.answer else {
            return None;
        };
        let quota = &policy.quota(applied.quota).quota;
        let soon = quota.is_concurrency() && applied.cost <= quota.capacity();
        let wait = if soon {
            1_000_000
        } else {
            retry_after_us.unwrap_or(u64::MAX)
        };
        Some((
            wait,
            Rejection::OverLimit {
                policy: applied.policy,
                retry_after_us,
                soon,
            },
        ))
    });
    refusals
        .max_by_key(|(wait, _)| *wait)
        .map_or(Rejection::Internal, |(_, rejection)| rejection)
}
