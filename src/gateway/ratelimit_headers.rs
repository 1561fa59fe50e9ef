//! The rate-limit headers of both families, on answers and refusals alike.
//!
//! `X-RateLimit-*` speaks for one policy, in the form most clients know; `RateLimit` and
//! `RateLimit-Policy` list all of them (draft-ietf-httpapi-ratelimit-headers). Where operators ask for
//! it, `X-Tidegate-Decided-By` says who decided.

use super::context::Context;
use crate::admission::Applied;
use crate::limit::algorithm::Answer;
use crate::policy::{Policy, PolicyQuota};
use http::HeaderValue;
use pingora::Result;
use pingora::http::ResponseHeader;

/// Room for the items of a few policies, so that a header is written in one allocation.
const ROOM: usize = 96;

/// One enforcing policy and what it said.
struct Told<'a> {
    applied: &'a Applied,
    policy: &'a Policy,
    quota: &'a PolicyQuota,
}

/// Adds the headers of all enforcing policies; `refused_by` is the policy a refusal speaks for.
pub(super) fn add(
    response: &mut ResponseHeader,
    ctx: &Context,
    refused_by: Option<usize>,
) -> Result<()> {
    let (snapshot, spent) = (&ctx.snapshot, &ctx.spent);
    add_source(response, ctx)?;
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
        response.insert_header("X-RateLimit-Limit", speaker.quota.limit_header.clone())?;
        let mut digits = itoa::Buffer::new();
        response.insert_header("X-RateLimit-Remaining", digits.format(reading.remaining))?;
        response.insert_header(
            "X-RateLimit-Reset",
            digits.format(reset_us.div_ceil(1_000_000)),
        )?;
        let strategy = HeaderValue::from_static(speaker.policy.algorithm().name());
        response.insert_header("X-RateLimit-Strategy", strategy)?;
    }
    if snapshot.response_headers.ietf {
        let mut limits = String::with_capacity(ROOM);
        for told in told.clone() {
            told.write_limit(&mut limits);
        }
        let usual = ctx.route().filter(|route| {
            let all = spent.applied.len() == route.policies.len();
            let own = |applied: &Applied| applied.quota == 0 && applied.decision.counted;
            all && spent.applied.iter().all(own)
        });
        match usual.and_then(|route| route.announced.clone()) {
            Some(announced) => response.insert_header("RateLimit-Policy", announced)?,
            None => {
                let items: Vec<&str> = told.map(|told| told.quota.announced.as_str()).collect();
                response.insert_header("RateLimit-Policy", items.join(", "))?;
            }
        }
        response.insert_header("RateLimit", limits)?;
    }
    Ok(())
}

/// Who decided, where operators ask for it.
fn add_source(response: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    let wanted = ctx.snapshot.response_headers.debug;
    match ctx.spent.source.filter(|_| wanted) {
        Some(source) => {
            let name = HeaderValue::from_static(source.name());
            response.insert_header("X-Tidegate-Decided-By", name)
        }
        None => Ok(()),
    }
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
    fn write_limit(&self, limits: &mut String) {
        let reading = self.applied.decision.reading;
        let mut digits = itoa::Buffer::new();
        if !limits.is_empty() {
            limits.push_str(", ");
        }
        limits.push('"');
        limits.push_str(self.policy.name());
        limits.push_str("\";r=");
        limits.push_str(digits.format(reading.remaining));
        if !self.quota.quota.is_concurrency() {
            limits.push_str(";t=");
            limits.push_str(digits.format(reading.reset_after_us.div_ceil(1_000_000)));
        }
    }
}
