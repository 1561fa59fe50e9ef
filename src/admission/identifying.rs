//! Who is calling and whether the route is for them: credentials, scopes, then `forward_auth`.

use super::{BadCredentials, Passed, Refused, Rejection, Request, refused};
use crate::auth::forward_auth::{Answer, ForwardAuth, Question, Subject};
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
    /// the client it names, where credentials prove none, with the tier the database has for it
    pub named: Option<Arc<Client>>,
}

impl Identified {
    /// Who is calling; absent: anonymous.
    pub fn client(&self) -> Option<&Arc<Client>> {
        self.proven.client.as_ref().or(self.named.as_ref())
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

/// Credentials, then scopes, then `forward_auth`, as far as possible without waiting. `path` is the
/// normalised one: whoever is asked must judge what the upstream will get.
pub(super) fn identify(
    running: &Running,
    snapshot: &Snapshot,
    route: &Route,
    request: &Request<'_>,
    path: &str,
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
            path,
            query: request.query,
            ip: request.ip,
            headers: request.headers,
        };
        asked.recall(&subject, now_us)
    });
    let guarding = Guarding {
        running,
        snapshot,
        ip: request.ip,
    };
    let waits = |credentials, question| {
        Step::Waits(Waits {
            credentials,
            question,
            ip: request.ip,
        })
    };
    match (credentials, question) {
        (Credentials::Proven(proven), None) => Ok(Step::Done(Identified {
            proven,
            ..Identified::default()
        })),
        (Credentials::Proven(proven), Some(Ok(answer))) => {
            let passed = guarding.agreed(&proven, answer.clone(), now_us)?;
            let named = passed.client.as_ref().filter(|_| proven.client.is_none());
            let recalled = named.map(|named| snapshot.authenticator.recall_named(named, now_us));
            Ok(match recalled {
                Some(None) => waits(Credentials::Proven(proven), Some(Ok(answer))),
                recalled => Step::Done(Identified {
                    proven,
                    passed: Some(passed),
                    named: recalled.flatten(),
                }),
            })
        }
        (Credentials::Proven(proven), Some(Err(question))) => {
            if question.may_be_a_guess(&snapshot.authenticator, &proven) {
                guarding.check(now_us)?;
            }
            Ok(waits(Credentials::Proven(proven), Some(Err(question))))
        }
        (credentials, question) => Ok(waits(credentials, question)),
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
        let guarding = Guarding {
            running,
            snapshot,
            ip: self.waits.ip,
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
                    match guarding.judge(route, found, now_us, None)? {
                        Credentials::Proven(identity) => identity,
                        Credentials::Pending(_) => return Err(Rejection::Internal),
                    }
                }
            };
            client.clone_from(&proven.client);
            match (self.waits.question.take(), &route.forward_auth) {
                (Some(question), Some(asked)) => guarding.answered(proven, question, asked).await,
                _ => Ok(Identified {
                    proven,
                    ..Identified::default()
                }),
            }
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
    let guarding = Guarding {
        running,
        snapshot,
        ip: request.ip,
    };
    guarding.judge(route, found, now_us, guarded_us)
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

/// Judges what came of credentials from one address, and counts against it what was wrong.
struct Guarding<'g> {
    running: &'g Running,
    snapshot: &'g Snapshot,
    ip: IpAddr,
}

impl Guarding<'_> {
    /// May a credential be looked at that may be a guess?
    fn check(&self, now_us: u64) -> Result<(), Rejection> {
        let guard = &self.running.failures;
        let checked = guard.check(&self.snapshot.failures, self.ip, now_us);
        checked.map_err(|guarded| self.guarded(guarded.retry_after_us))
    }

    fn guarded(&self, retry_after_us: u64) -> Rejection {
        self.running.metrics.auth_guarded.inc();
        Rejection::TooManyFailures { retry_after_us }
    }

    fn failed(&self, now_us: u64) {
        let guard = &self.running.failures;
        guard.failed(&self.snapshot.failures, self.ip, now_us);
        self.running.metrics.auth_failures.inc();
    }

    /// From what the credentials say to whether the route takes them.
    fn judge(
        &self,
        route: &Route,
        found: Found,
        now_us: u64,
        guarded_us: Option<u64>,
    ) -> Result<Credentials, Rejection> {
        match found {
            Found::Known(identity) => {
                suits(route, &identity).map(|()| Credentials::Proven(identity))
            }
            Found::Invalid(method) => {
                self.failed(now_us);
                self.running.metrics.auth.count(method, Outcome::Invalid);
                Err(invalid(method))
            }
            Found::NotLookedAt => Err(self.guarded(guarded_us.unwrap_or(1_000_000))),
            Found::Pending(pending) => Ok(Credentials::Pending(pending)),
            Found::Unavailable(why) => Err(Rejection::IdentityUnavailable(why)),
        }
    }

    /// Asks `forward_auth` unless it has answered, and then who the client is that it names.
    async fn answered(
        &self,
        proven: Identity,
        question: Result<Answer, Box<Question>>,
        asked: &Arc<ForwardAuth>,
    ) -> Result<Identified, Rejection> {
        let authenticator = &self.snapshot.authenticator;
        let clock = &self.running.clock;
        let answer = match question {
            Ok(answer) => answer,
            Err(question) => {
                let may_be_a_guess = question.may_be_a_guess(authenticator, &proven);
                let answer = asked.ask(question, authenticator, clock.now_us()).await;
                let answer = answer.map_err(Rejection::IdentityUnavailable)?;
                if may_be_a_guess && matches!(&answer, Answer::Refused(no) if no.status == 401) {
                    self.failed(clock.now_us());
                }
                answer
            }
        };
        let passed = self.agreed(&proven, answer, clock.now_us())?;
        let named = match &passed.client {
            Some(named) if proven.client.is_none() => {
                Some(authenticator.find_named(named, clock).await)
            }
            _ => None,
        };
        Ok(Identified {
            proven,
            passed: Some(passed),
            named,
        })
    }

    /// The word of `forward_auth`; a client it names must be the one the credentials prove.
    fn agreed(
        &self,
        proven: &Identity,
        answer: Answer,
        now_us: u64,
    ) -> Result<Arc<Passed>, Rejection> {
        let passed = match answer {
            Answer::Passed(passed) => passed,
            Answer::Refused(refusal) => return Err(Rejection::ForwardAuthRefused(refusal)),
        };
        if let (Some(proven), Some(named)) = (&proven.client, &passed.client)
            && proven.id != named.id
        {
            self.failed(now_us);
            return Err(Rejection::Unauthenticated(BadCredentials::Invalid));
        }
        Ok(passed)
    }
}
