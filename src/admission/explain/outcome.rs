//! From a rejection, or from none, to what the client would see.

use super::answer::{Outcome, Verdict};
use crate::admission::{BadCredentials, Rejection, Spent, told};
use crate::snapshot::Snapshot;

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
    let row = told::row(rejection, snapshot);
    let mut outcome = Outcome {
        verdict: Verdict::Refused,
        status: Some(row.status),
        detail: described(rejection).unwrap_or_else(|| row.detail.to_owned()),
        retry_after: row.retry_after(),
        ..undecided()
    };
    match rejection {
        Rejection::OverLimit { policy, .. } => {
            let policy = snapshot.policies.get(*policy);
            outcome.policy = policy.map(|policy| policy.name().to_owned());
        }
        Rejection::MethodNotAllowed { allow } => outcome.allow = Some(allow.clone()),
        _ => (),
    }
    outcome
}

/// More than a client is told: an operator asks.
fn described(rejection: &Rejection) -> Option<String> {
    let detail = match rejection {
        Rejection::BadPath(problem) => return Some(format!("the path is refused: {problem}")),
        Rejection::IdentityUnavailable(why) => {
            return Some(format!("nobody can say who is calling: {why}"));
        }
        Rejection::NoRoute => "no route that is enabled takes this host and path",
        Rejection::Maintenance => "the route is in maintenance",
        Rejection::MethodNotAllowed { .. } => {
            "a route takes this host and path, but not with this method"
        }
        Rejection::AddressRefused => "the route does not take requests from this address",
        Rejection::Unauthenticated(BadCredentials::Missing) => {
            "the route wants credentials, and there are none"
        }
        Rejection::Unauthenticated(_) => "the credentials are not valid",
        Rejection::ScopeMissing { .. } => "the credentials lack a scope that the route wants",
        Rejection::TooManyFailures { .. } => {
            "too many wrong credentials came from this address, so these are not looked at"
        }
        Rejection::OverLimit { .. } => "a bucket has no room",
        Rejection::StoreUnavailable => {
            "the shared store does not answer, and a policy refuses without it"
        }
        Rejection::Draining => "the gateway is stopping",
        _ => return None,
    };
    Some(detail.to_owned())
}
