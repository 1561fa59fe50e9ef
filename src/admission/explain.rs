//! Why a request would pass or not: asked like traffic, but nothing is charged and no failure counts.

mod answer;
mod outcome;
mod question;

pub use answer::{Caller, DefinedIn, Explanation, Outcome, PolicyAnswer, QuotaOf, Routed, Verdict};
pub use question::{BadQuestion, Question, Values};

use super::spend::{Asked, Counting};
use super::{Applied, Located, Rejection, Request, Spent, identifying, is_open, locate};
use crate::auth::forward_auth::ForwardAuth;
use crate::auth::{Found, Identity, Looking};
use crate::config::RouteAuth;
use crate::limit::algorithm::Answer;
use crate::limit::decision::{BucketDecision, Decision, OutageMode, Source};
use crate::policy::{Facts, Policy};
use crate::snapshot::{Route, Running, Snapshot};
use std::sync::Arc;

/// Explains what would happen to a request at `now_us`.
pub async fn explain(
    running: &Running,
    snapshot: &Snapshot,
    request: &Request<'_>,
    now_us: u64,
) -> Explanation {
    let mut explanation = Explanation::about(request);
    let rejection = match routed(running, snapshot, request, &mut explanation) {
        Err(rejection) => Some(rejection),
        Ok((located, route)) => {
            let asked = (located, route);
            identified_and_spent(running, snapshot, request, asked, now_us, &mut explanation)
                .await
                .err()
        }
    };
    if let Some(rejection) = rejection {
        explanation.outcome = outcome::refused(snapshot, &rejection);
    }
    explanation
}

/// Is the gateway serving, and which route takes the request?
fn routed<'s, 'p>(
    running: &Running,
    snapshot: &'s Snapshot,
    request: &Request<'p>,
    explanation: &mut Explanation,
) -> Result<(Located<'p>, &'s Route), Rejection> {
    if running.is_draining() {
        return Err(Rejection::Draining);
    }
    if request.host.is_empty() {
        return Err(Rejection::BadRequest(
            "the host is not a host name or address",
        ));
    }
    let located = locate(snapshot, request)?;
    let found = &located.found;
    let route = snapshot.routes.get(found.index).ok_or(Rejection::NoRoute)?;
    explanation.path = found.path.clone().into_owned();
    explanation.route = Some(Routed::of(snapshot, route));
    is_open(route, request.ip)?;
    Ok((located, route))
}

async fn identified_and_spent(
    running: &Running,
    snapshot: &Snapshot,
    request: &Request<'_>,
    (located, route): (Located<'_>, &Route),
    now_us: u64,
    explanation: &mut Explanation,
) -> Result<(), Rejection> {
    let identity = match located.preflight {
        true => {
            explanation.client = Some(Caller::by_address(
                request.ip,
                "a CORS preflight carries no credentials",
            ));
            Identity::default()
        }
        false => identify(running, snapshot, route, request, now_us, explanation).await?,
    };
    if route.forward_auth.is_some() && !located.preflight {
        explanation
            .not_evaluated
            .push("forward_auth: its URL is asked for traffic only".to_owned());
    }
    let id = identity.client.as_ref().map(|client| client.id.as_str());
    if let Some(routed) = &mut explanation.route {
        routed.is_chosen(snapshot, route, id, request.ip);
    }
    let facts = Facts {
        client: id,
        tier: identity
            .client
            .as_ref()
            .and_then(|client| client.tier.as_deref()),
        ip: request.ip,
        route: &route.name,
        method: request.method,
        host: request.host,
        path: &located.found.path,
        headers: request.headers,
        claims: identity.claims(),
    };
    let mut asked = Asked::of(snapshot, route, &facts, now_us);
    let names_clients = |asked: &Arc<ForwardAuth>| asked.names_clients();
    if !located.preflight && id.is_none() && route.forward_auth.as_ref().is_some_and(names_clients)
    {
        asked = whoever_it_is(snapshot, route, asked, explanation);
    }
    explanation.names_what_does_not_apply(snapshot, route, request.method);
    let spent = peeked(running, snapshot, asked, now_us, explanation).await?;
    explanation.outcome = outcome::admitted(&spent, &explanation.not_evaluated);
    Ok(())
}

/// What holds for every client: whom `forward_auth` would name is not known.
fn whoever_it_is<'s>(
    snapshot: &'s Snapshot,
    route: &Route,
    asked: Asked<'s>,
    explanation: &mut Explanation,
) -> Asked<'s> {
    let why = "it depends on the client, whom forward_auth may name";
    if route.canary.is_some() {
        let which = format!("whether the canary takes the request: {why}");
        explanation.not_evaluated.push(which);
    }
    let policy = |applied: &Applied| snapshot.policies.get(applied.policy);
    let depends = |applied: &Applied| policy(applied).is_some_and(Policy::depends_on_the_client);
    let left_out = asked.applied.iter().filter(|applied| depends(applied));
    let named = left_out.filter_map(policy);
    let lines = named.map(|policy| format!("policy `{}`: {why}", policy.name()));
    explanation.not_evaluated.extend(lines);
    asked.without(depends)
}

/// As traffic is identified, but a failure is not counted against the address.
async fn identify(
    running: &Running,
    snapshot: &Snapshot,
    route: &Route,
    request: &Request<'_>,
    now_us: u64,
    explanation: &mut Explanation,
) -> Result<Identity, Rejection> {
    let anonymous = |why: &str| Some(Caller::by_address(request.ip, why));
    if route.auth == RouteAuth::None {
        explanation.client = anonymous("the route has `auth: none`: credentials are ignored");
        return Ok(Identity::default());
    }
    let mut guarded_us = None;
    let looking = || match running
        .failures
        .check(&snapshot.failures, request.ip, now_us)
    {
        Ok(()) => Looking::Allowed,
        Err(too_many) => {
            guarded_us = Some(too_many.retry_after_us);
            Looking::RememberedOnly
        }
    };
    let authenticator = &snapshot.authenticator;
    let found = match authenticator.identify(request.headers, now_us, looking) {
        Found::Pending(pending) => pending.resolve(authenticator, &running.clock).await,
        found => found,
    };
    match found {
        Found::Known(identity) => {
            explanation.client = match &identity.client {
                Some(client) => Some(Caller::known(snapshot, client, &identity)),
                None => anonymous("there are no credentials"),
            };
            identifying::suits(route, &identity)?;
            Ok(identity)
        }
        Found::Invalid(method) => Err(identifying::invalid(method)),
        Found::NotLookedAt => Err(Rejection::TooManyFailures {
            retry_after_us: guarded_us.unwrap_or(1_000_000),
        }),
        Found::Unavailable(why) => Err(Rejection::IdentityUnavailable(why)),
        Found::Pending(_) => Err(Rejection::Internal),
    }
}

/// What every bucket says now, and what follows from all of them.
async fn peeked(
    running: &Running,
    snapshot: &Snapshot,
    asked: Asked<'_>,
    now_us: u64,
    explanation: &mut Explanation,
) -> Result<Spent, Rejection> {
    let mut decision = Decision {
        allowed: true,
        buckets: Default::default(),
        now_us,
        source: Source::Memory,
    };
    let mut store_answers = true;
    for (charge, applied) in asked.charges.iter().zip(&asked.applied) {
        // one that does not answer is waited for once, not for every policy
        let peeked = match store_answers {
            true => running.limiter.peek(charge, now_us).await.ok(),
            false => None,
        };
        store_answers &= peeked.is_some();
        let bucket = peeked.and_then(|peeked| peeked.buckets.first().copied());
        let known = bucket.is_some_and(|bucket| bucket.counted);
        let bucket = bucket.unwrap_or(match charge.terms.on_outage {
            OutageMode::Deny if charge.enforce => {
                decision.source = Source::Denied;
                BucketDecision {
                    answer: Answer::Refuse {
                        retry_after_us: None,
                    },
                    ..UNKNOWN
                }
            }
            _ => UNKNOWN,
        });
        decision.allowed &= bucket.answer.admits() || !charge.enforce;
        decision.buckets.push(bucket);
        let answer = PolicyAnswer::of(snapshot, applied, charge, &bucket, known);
        if let Some(answer) = answer {
            if !known {
                explanation.not_evaluated.push(format!(
                    "what is left in the bucket of `{}`: the shared store does not answer, so its \
                     `on_outage` decides",
                    answer.policy
                ));
            }
            explanation.policies.push(answer);
        }
    }
    asked
        .judged(snapshot, &decision, None, Counting::No)
        .map_err(|no_room| no_room.1)
}

const UNKNOWN: BucketDecision = BucketDecision {
    answer: Answer::NOW,
    reading: crate::limit::algorithm::Reading {
        remaining: 0,
        reset_after_us: 0,
    },
    counted: false,
};
