//! The rate-limit headers of both families, on answers and refusals alike.
//!
//! `X-RateLimit-*` speaks for one policy, in the form most clients know; `RateLimit` and
//! `RateLimit-Policy` list all of them (draft-ietf-httpapi-ratelimit-headers). Where operators ask for
//! it, `X-Tidegate-Decided-By` says who decided.

use super::context::Context;
use super::header_map::valued;
use crate::admission::Applied;
use crate::limit::algorithm::Answer;
use crate::policy::{Policy, PolicyQuota};
use http::{HeaderName, HeaderValue};
use pingora::Result;
use smallvec::SmallVec;

const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const X_RATELIMIT_STRATEGY: HeaderName = HeaderName::from_static("x-ratelimit-strategy");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_TIDEGATE_DECIDED_BY: HeaderName = HeaderName::from_static("x-tidegate-decided-by");

/// Most headers that are added.
pub(super) const ADDED: usize = 7;

/// Room on the stack for the items of a few policies.
type Items = SmallVec<[u8; 128]>;

/// One enforcing policy and what it said.
struct Told<'a> {
    applied: &'a Applied,
    policy: &'a Policy,
    quota: &'a PolicyQuota,
}

/// Puts the headers of all enforcing policies; `refused_by` is the policy a refusal speaks for.
pub(super) fn add(
    ctx: &Context,
    refused_by: Option<usize>,
    mut put: impl FnMut(HeaderName, HeaderValue) -> Result<()>,
) -> Result<()> {
    let (snapshot, spent) = (&ctx.snapshot, &ctx.spent);
    if let Some(source) = spent.source.filter(|_| snapshot.response_headers.debug) {
        let source = HeaderValue::from_static(source.name());
        put(X_TIDEGATE_DECIDED_BY, source)?;
    }
    let told = spent.applied.iter().filter_map(|applied| {
        // where nobody counts, there is nothing to tell
        if !applied.decision.counted {
            return None;
        }
        let policy = snapshot
            .policies
            .get(applied.policy)
            .filter(|policy| policy.enforces())?;
        Some(Told {
            applied,
            policy,
            quota: policy.quota(applied.quota),
        })
    });
    let speaker = match refused_by {
        Some(index) => told.clone().find(|told| told.applied.policy == index),
        None => told.clone().min_by_key(Told::nearest_to_exhaustion),
    };
    let Some(speaker) = speaker else {
        return Ok(());
    };
    if snapshot.response_headers.x_ratelimit {
        let reading = speaker.applied.decision.reading;
        // counted from the decision: a later clock would say a second too much
        let reset_us = ctx
            .spent
            .decided_us
            .saturating_add(speaker.wait_us(reading.reset_after_us));
        put(X_RATELIMIT_LIMIT, speaker.quota.limit_header.clone())?;
        let mut digits = itoa::Buffer::new();
        let remaining = digits.format(reading.remaining);
        put(X_RATELIMIT_REMAINING, valued(remaining.as_bytes())?)?;
        let reset_s = digits.format(reset_us.div_ceil(1_000_000));
        put(X_RATELIMIT_RESET, valued(reset_s.as_bytes())?)?;
        let strategy = HeaderValue::from_static(speaker.policy.algorithm().name());
        put(X_RATELIMIT_STRATEGY, strategy)?;
    }
    if snapshot.response_headers.ietf {
        let mut limits = Items::new();
        for told in told.clone() {
            told.write_limit(&mut limits);
        }
        let usual = ctx.route().filter(|route| {
            let all = spent.applied.len() == route.policies.len();
            let own = |applied: &Applied| applied.quota == 0 && applied.decision.counted;
            all && spent.applied.iter().all(own)
        });
        let announced = match usual.and_then(|route| route.announced.clone()) {
            Some(announced) => announced,
            None => {
                let items: Vec<&str> = told.map(|told| told.quota.announced.as_str()).collect();
                valued(items.join(", ").as_bytes())?
            }
        };
        put(RATELIMIT_POLICY, announced)?;
        put(RATELIMIT, valued(&limits)?)?;
    }
    Ok(())
}

impl Told<'_> {
    /// Fewest further requests first; of equals the one whole again last.
    fn nearest_to_exhaustion(&self) -> (u64, std::cmp::Reverse<u64>) {
        let reading = self.applied.decision.reading;
        let further = reading
            .remaining
            .checked_div(self.applied.cost)
            .unwrap_or(u64::MAX);
        (further, std::cmp::Reverse(reading.reset_after_us))
    }

    /// Nobody knows when requests in flight end: a refusal says a second.
    fn wait_us(&self, reset_after_us: u64) -> u64 {
        let refused = matches!(self.applied.decision.answer, Answer::Refuse { .. });
        if refused && self.quota.quota.is_concurrency() {
            1_000_000
        } else {
            reset_after_us
        }
    }

    /// Its item of the `RateLimit` list, such as `"search";r=29;t=2`.
    fn write_limit(&self, limits: &mut Items) {
        let reading = self.applied.decision.reading;
        let mut digits = itoa::Buffer::new();
        if !limits.is_empty() {
            limits.extend_from_slice(b", ");
        }
        limits.push(b'"');
        limits.extend_from_slice(self.policy.name().as_bytes());
        limits.extend_from_slice(b"\";r=");
        limits.extend_from_slice(digits.format(reading.remaining).as_bytes());
        if !self.quota.quota.is_concurrency() {
            limits.extend_from_slice(b";t=");
            let reset_s = digits.format(reading.reset_after_us.div_ceil(1_000_000));
            limits.extend_from_slice(reset_s.as_bytes());
        }
    }
}
