//! From the policies of a route to charges, and from the limiter's decision to a rejection.

use super::Rejection;
use crate::limit::algorithm::Answer;
use crate::limit::decision::{BucketDecision, Charge, Decision};
use crate::limit::descriptor::BucketKey;
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
    /// had the bucket room, and what is left
    pub decision: BucketDecision,
}

/// What all policies said, and what must be given back when the request ends.
#[derive(Debug, Default)]
pub struct Spent {
    /// per policy, in the snapshot's order
    pub applied: SmallVec<[Applied; 2]>,
    /// `concurrency` buckets that count this request until it ends, with what it takes
    pub held: Vec<(BucketKey, u64)>,
    /// microseconds to hold the request before it is forwarded
    pub delay_us: u64,
}

/// Takes the cost from every bucket that applies, or from none.
pub(super) fn spend(
    running: &Running,
    snapshot: &Snapshot,
    route: &Route,
    facts: &Facts<'_>,
    now_us: u64,
) -> Result<Spent, Box<(Spent, Rejection)>> {
    let mut spent = Spent::default();
    let mut charges: SmallVec<[Charge<'_>; 4]> = SmallVec::new();
    for &index in &route.policies {
        let Some(policy) = snapshot
            .policies
            .get(index)
            .filter(|policy| policy.applies_to(facts.method))
        else {
            continue;
        };
        let quota = policy.quota_for(facts.client, facts.tier);
        charges.push(Charge {
            key: policy.bucket_key(facts),
            quota: &policy.quota(quota).quota,
            cost: policy.cost(),
            enforce: policy.enforces(),
        });
        let decision = BucketDecision {
            answer: Answer::NOW,
            reading: Default::default(),
        };
        spent.applied.push(Applied {
            policy: index,
            quota,
            decision,
        });
    }
    if charges.is_empty() {
        return Ok(spent);
    }
    let decision = running.store.spend(&charges, now_us);
    spent.delay_us = enforced_delay(&charges, &decision);
    for ((applied, bucket), charge) in spent
        .applied
        .iter_mut()
        .zip(&decision.buckets)
        .zip(&charges)
    {
        applied.decision = *bucket;
        if decision.allowed && bucket.answer.admits() && charge.quota.is_concurrency() {
            spent.held.push((charge.key, charge.cost));
        }
        if let Some(policy) = snapshot.policies.get(applied.policy) {
            count(policy, decision.allowed, bucket.answer);
        }
    }
    if decision.allowed {
        return Ok(spent);
    }
    let rejection = longest_wait(snapshot, &spent);
    Err(Box::new((spent, rejection)))
}

/// A shadow policy reports a delay but imposes none.
fn enforced_delay(charges: &[Charge<'_>], decision: &Decision) -> u64 {
    let delay = |(charge, bucket): (&Charge<'_>, &BucketDecision)| match bucket.answer {
        Answer::Admit { delay_us } if charge.enforce => delay_us,
        _ => 0,
    };
    charges
        .iter()
        .zip(&decision.buckets)
        .map(delay)
        .max()
        .unwrap_or(0)
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
        let soon = quota.is_concurrency() && policy.cost() <= quota.capacity();
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
