//! Who is calling and whether the route is for them: credentials, scopes, then `forward_auth`.

use super::{BadCredentials, Passed, Refused, Rejection, Request, refused};
use crate::auth::forward_auth::{Answer, Question, Subject};
use crate::auth::{self, Client, Found, Identity, Looking};
use crate::config::RouteAuth;
use crate::snapshot::{Route, Running, Snapshot};
use crate::telemetry::{Method, Outcome};
use std::net::IpAddr;
use std::sync::Arc;

/// Who is calling, by the credentials and by the word of `forward_auth`.
#[derive(Clone, Debug, Default)]
pub struct Identified {
    /// what credentials prove
    pub proven: Identity,
    /// what `forward_auth` said
    pub passed: Option<Arc<Passed>>,
}

impl Identified {
    /// Who is calling; absent: anonymous.
    pub fn client(&self) -> Option<&Arc<Client>> {
        let named = self
            .passed
            .as_ref()
            .and_then(|passed| passed.client.as_ref());
        self.proven.client.as_ref().or(named)
    }
}

/// A request that waits until it is known who is calling.
pub struct Identifying {
    /// index into the snapshot's routes
    pub route: usize,
    /// the normalised path
    pub path: String,
    pub(super) waits: Waits,
}

/// What must be found out.
pub(super) struct Waits {
    credentials: Credentials,
    /// the question for `forward_auth`, if the route has one
    question: Option<Result<Answer, Box<Question>>>,
    ip: IpAddr,
}

enum Credentials {
    Proven(Identity),
    Pending(Box<auth::Pending>),
}

/// How far identification came without waiting.
#[allow(
    clippy::large_enum_variant,
    reason = "moved once; a box would cost an allocation in each request"
)]
pub(super) enum Step {
    Done(Identified),
    Waits(Waits),
}

/// Credentials, then scopes, then `forward_auth`, as far as possible without waiting.
pub(super) fn identify(
    running: &Running,
    snapshot: &Snapshot,
    route: &Route,
    request: &Request<'_>,
    now_us: u64,
) -> Result<Step, Rejection> {
    let credentials = match route.auth {
        RouteAuth::None => Credentials::Proven(Identity::default()),
        _ => credentials(running, snapshot, route, request, now_us)?,
    };
    let question = route.forward_auth.as_ref().map(|asked| {
        let subject = Subject {
            method: request.method,
            scheme: request.scheme,
            host: request.host,
            path: request.path,
            query: request.query,
            ip: request.ip,
            headers: request.headers,
        };
        asked.recall(&subject, now_us)
    });
    match (credentials, question) {
        (Credentials::Proven(identity), None) => Ok(Step::Done(Identified {
            proven: identity,
            passed: None,
        })),
        (Credentials::Proven(identity), Some(Ok(answer))) => {
            answered(identity, answer).map(Step::Done)
        }
        (credentials, question) => Ok(Step::Waits(Waits {
            credentials,
            question,
            ip: request.ip,
        })),
    }
}

impl Identifying {
    /// Finds out who is calling; every wait in it has a deadline.
    pub async fn identified(
        &mut self,
        running: &Running,
        snapshot: &Snapshot,
    ) -> Result<Identified, Box<Refused>> {
        let Some(route) = snapshot.routes.get(self.route) else {
            return Err(refused(None, None, Rejection::NoRoute));
        };
        let nobody = Credentials::Proven(Identity::default());
        let mut client = None;
        let identified = async {
            let credentials = std::mem::replace(&mut self.waits.credentials, nobody);
            let proven = match credentials {
                Credentials::Proven(identity) => identity,
                Credentials::Pending(pending) => {
                    let found = pending
                        .resolve(&snapshot.authenticator, &running.clock)
                        .await;
                    let now_us = running.clock.now_us();
                    match judge(running, snapshot, route, self.waits.ip, found, now_us, None)? {
                        Credentials::Proven(identity) => identity,
                        Credentials::Pending(_) => return Err(Rejection::Internal),
                    }
                }
            };
            client.clone_from(&proven.client);
            let answer = match (self.waits.question.take(), &route.forward_auth) {
                (Some(Ok(answer)), _) => answer,
                (Some(Err(question)), Some(asked)) => asked
                    .ask(question, &snapshot.authenticator, &running.clock)
                    .await
                    .map_err(Rejection::IdentityUnavailable)?,
                _ => {
                    return Ok(Identified {
                        proven,
                        passed: None,
                    });
                }
            };
            answered(proven, answer)
        };
        let identified = identified.await;
        identified.map_err(|rejection| refused(Some(self.route), client, rejection))
    }
}

fn credentials(
    running: &Running,
    snapshot: &Snapshot,
    route: &Route,
    request: &Request<'_>,
    now_us: u64,
) -> Result<Credentials, Rejection> {
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
    let found = snapshot
        .authenticator
        .identify(request.headers, now_us, looking);
    judge(
        running, snapshot, route, request.ip, found, now_us, guarded_us,
    )
}

/// Does a route take whoever the credentials prove?
pub(super) fn suits(route: &Route, identity: &Identity) -> Result<(), Rejection> {
    if identity.client.is_none() {
        return match route.auth {
            RouteAuth::Optional | RouteAuth::None if route.scopes.is_empty() => Ok(()),
            _ => Err(Rejection::Unauthenticated(BadCredentials::Missing)),
        };
    }
    match route.scopes.iter().all(|scope| identity.has_scope(scope)) {
        true => Ok(()),
        false => Err(Rejection::ScopeMissing {
            by_token: identity.token.is_some(),
        }),
    }
}

/// The refusal of a credential that is not valid.
pub(super) fn invalid(method: Method) -> Rejection {
    Rejection::Unauthenticated(match method {
        Method::Jwt => BadCredentials::InvalidToken,
        _ => BadCredentials::Invalid,
    })
}

/// From what the credentials say to whether the route takes them.
fn judge(
    running: &Running,
    snapshot: &Snapshot,
    route: &Route,
    ip: IpAddr,
    found: Found,
    now_us: u64,
    guarded_us: Option<u64>,
) -> Result<Credentials, Rejection> {
    match found {
        Found::Known(identity) => suits(route, &identity).map(|()| Credentials::Proven(identity)),
        Found::Invalid(method) => {
            running.failures.failed(&snapshot.failures, ip, now_us);
            running.metrics.auth_failures.inc();
            running.metrics.auth.count(method, Outcome::Invalid);
            Err(invalid(method))
        }
        Found::NotLookedAt => {
            running.metrics.auth_guarded.inc();
            Err(Rejection::TooManyFailures {
                retry_after_us: guarded_us.unwrap_or(1_000_000),
            })
        }
        Found::Pending(pending) => Ok(Credentials::Pending(pending)),
        Found::Unavailable(why) => Err(Rejection::IdentityUnavailable(why)),
    }
}

/// The word of `forward_auth`; a client it names must be the one the credentials prove.
fn answered(proven: Identity, answer: Answer) -> Result<Identified, Rejection> {
    let passed = match answer {
        Answer::Passed(passed) => passed,
        Answer::Refused(refusal) => return Err(Rejection::ForwardAuthRefused(refusal)),
    };
    if let (Some(proven), Some(named)) = (&proven.client, &passed.client)
        && proven.id != named.id
    {
        return Err(Rejection::Unauthenticated(BadCredentials::Invalid));
    }
    Ok(Identified {
        proven,
        passed: Some(passed),
    })
}
