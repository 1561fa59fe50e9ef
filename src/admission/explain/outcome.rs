//! From a rejection, or from none, to what the client would see.

use super::answer::{Outcome, Verdict};
use crate::admission::{BadCredentials, Rejection, Spent};
use crate::snapshot::Snapshot;

const SECOND_US: u64 = 1_000_000;

pub(super) fn undecided() -> Outcome {
    Outcome {
        verdict: Verdict::Unknown,
        status: None,
        detail: String::new(),
        policy: None,
        retry_after: None,
        allow: None,
        delay_ms: 0,
    }
}

/// It passes, as far as could be found out.
pub(super) fn admitted(spent: &Spent, not_evaluated: &[String]) -> Outcome {
    let (verdict, detail) = match not_evaluated {
        [] => (Verdict::Allowed, "it is forwarded to the upstream"),
        _ => (
            Verdict::Unknown,
            "nothing that could be found out stands against it",
        ),
    };
    Outcome {
        verdict,
        detail: detail.to_owned(),
        delay_ms: spent.delay_us.div_ceil(1_000),
        ..undecided()
    }
}

pub(super) fn refused(snapshot: &Snapshot, rejection: &Rejection) -> Outcome {
    let mut outcome = Outcome {
        verdict: Verdict::Refused,
        retry_after: retry_after_us(rejection).map(|micros| micros.div_ceil(SECOND_US).max(1)),
        ..undecided()
    };
    let (status, detail) = match rejection {
        Rejection::OverLimit { policy, .. } => {
            let policy = snapshot.policies.get(*policy);
            outcome.policy = policy.map(|policy| policy.name().to_owned());
            (
                policy.map_or(429, |policy| policy.status()),
                "a bucket has no room".to_owned(),
            )
        }
        Rejection::MethodNotAllowed { allow } => {
            outcome.allow = Some(allow.clone());
            (
                405,
                "a route takes this host and path, but not with this method".to_owned(),
            )
        }
        other => described(other),
    };
    outcome.status = Some(status);
    outcome.detail = detail;
    outcome
}

fn retry_after_us(rejection: &Rejection) -> Option<u64> {
    match rejection {
        Rejection::TooManyFailures { retry_after_us } => Some(*retry_after_us),
        Rejection::OverLimit {
            retry_after_us,
            soon,
            ..
        } => retry_after_us.or(soon.then_some(SECOND_US)),
        Rejection::StoreUnavailable | Rejection::Draining => Some(SECOND_US),
        _ => None,
    }
}

fn described(rejection: &Rejection) -> (u16, String) {
    let (status, detail) = match rejection {
        Rejection::BadPath(problem) => return (400, format!("the path is refused: {problem}")),
        Rejection::BadRequest(why) => (400, *why),
        Rejection::NoRoute => (404, "no route that is enabled takes this host and path"),
        Rejection::Maintenance => (503, "the route is under maintenance"),
        Rejection::Unauthenticated(BadCredentials::Missing) => {
            (401, "the route wants credentials, and there are none")
        }
        Rejection::Unauthenticated(_) => (401, "the credentials are not valid"),
        Rejection::ScopeMissing { .. } => (403, "the credentials lack a scope the route wants"),
        Rejection::AddressRefused => (403, "the route does not take requests from this address"),
        Rejection::IdentityUnavailable(why) => {
            return (503, format!("nobody can say who is calling: {why}"));
        }
        Rejection::TooManyFailures { .. } => (
            429,
            "too many wrong credentials came from this address, so these are not looked at",
        ),
        Rejection::StoreUnavailable => (
            503,
            "the shared store does not answer, and a policy refuses without it",
        ),
        Rejection::Draining => (503, "the gateway is stopping"),
        _ => (500, "it cannot be decided"),
    };
    (status, detail.to_owned())
}
