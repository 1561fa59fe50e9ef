//! Asking a URL whether a request may pass, as nginx's `auth_request` does.

use super::flights::{Flights, Waiting};
use super::recent::{Digest, Recent};
use super::{Authenticator, Client, Identity, Sources, Unavailable};
use crate::clock::Stopwatch;
use crate::config;
use crate::telemetry::{Method as Way, Outcome};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers remembered per route.
const MAX_REMEMBERED: usize = 16_384;

/// Questions of one route under way at once; beyond that 503.
const MAX_ASKED: usize = 1_024;

/// Challenges taken from one answer.
const MAX_CHALLENGES: usize = 8;

/// The body of an answer is read this far, and for so long.
const MAX_BODY_BYTES: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_millis(50);

/// One failure in this time is logged.
const LOG_EVERY_US: u64 = 10_000_000;

/// Whom a route asks.
pub struct ForwardAuth {
    settings: config::ForwardAuth,
    route: String,
    cache_us: u64,
    recent: Recent<(u64, Answer)>,
    /// questions whose answer others may use too
    flights: Arc<Flights<Result<Answer, Unavailable>>>,
    /// places for questions: a slow URL takes none from other routes
    places: Arc<Semaphore>,
    sources: Arc<Sources>,
    logged_us: std::sync::atomic::AtomicU64,
}

/// What it said.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 2xx
    Passed(Arc<Passed>),
    /// 401 or 403
    Refused(Arc<Refusal>),
}

/// What goes with a yes.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// the client it names, with the tier it names or the file has
    pub client: Option<Arc<Client>>,
    /// every header that is copied, with the values it sent; without any, the client's own is only
    /// removed
    pub copied: Vec<(HeaderName, Vec<HeaderValue>)>,
}

/// What goes with a no.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 401 or 403
    pub status: u16,
    /// its lines `WWW-Authenticate`
    pub challenges: Vec<HeaderValue>,
}

/// The parts of a request that it is asked about.
pub struct Subject<'a> {
    /// the method
    pub method: &'a Method,
    /// `http` or `https`, as the client used it
    pub scheme: &'a str,
    /// the host
    pub host: &'a str,
    /// the path the upstream will get, before anything is stripped off it
    pub path: &'a str,
    /// the query as it came
    pub query: Option<&'a str>,
    /// the client's address
    pub ip: IpAddr,
    /// all headers
    pub headers: &'a HeaderMap,
}

/// A question, complete: it borrows nothing of the request.
pub struct Question {
    headers: HeaderMap,
    digest: Digest,
    /// those of the request's headers that go with it and were there
    carried: Vec<HeaderName>,
}

impl Question {
    /// Does it carry what may be a credential, and nobody has verified? Whoever sends it may be guessing.
    pub fn may_be_a_guess(&self, authenticator: &Authenticator, proven: &Identity) -> bool {
        self.carried.iter().any(|name| {
            if name == header::AUTHORIZATION {
                !proven.authorization_verified
            } else if name == authenticator.api_key_header() {
                !proven.api_key_verified
            } else {
                true
            }
        })
    }
}

/// Reads the body, which nobody wants, so that the connection can be used again; not for long.
async fn read_away(response: &mut reqwest::Response) {
    let all = async {
        let mut bytes = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes += chunk.len();
            if bytes > MAX_BODY_BYTES {
                break;
            }
        }
    };
    // else the connection is closed, which is no harm
    let _ = tokio::time::timeout(BODY_TIMEOUT, all).await;
}

/// A path with its query so that it fits into a header whatever bytes came: nobody is asked about a request
/// without being told which.
fn visible(uri: &str) -> String {
    let mut text = String::with_capacity(uri.len());
    for byte in uri.bytes() {
        match byte {
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

impl ForwardAuth {
    /// For one route.
    pub fn new(settings: &config::ForwardAuth, route: &str, sources: &Arc<Sources>) -> Self {
        ForwardAuth {
            settings: settings.clone(),
            route: route.to_owned(),
            cache_us: u64::try_from(settings.cache.as_micros()).unwrap_or(u64::MAX),
            recent: Recent::new(MAX_REMEMBERED),
            flights: Flights::new(),
            places: Arc::new(Semaphore::new(MAX_ASKED)),
            sources: sources.clone(),
            logged_us: Default::default(),
        }
    }

    /// The headers that only its answers may set.
    pub fn copied(&self) -> &[HeaderName] {
        &self.settings.copy_headers
    }

    /// Would another one for this route ask the same, and make the same of the answer as long as
    /// clients are named alike?
    pub fn asks_like(&self, settings: &config::ForwardAuth, route: &str) -> bool {
        self.settings == *settings && self.route == route
    }

    /// Forgets all answers.
    pub fn forget(&self) {
        self.recent.clear();
    }

    /// How many answers are remembered.
    pub fn remembered(&self) -> usize {
        self.recent.len()
    }

    /// An answer it gave lately to a request with the same headers, or the question to ask.
    pub fn recall(&self, subject: &Subject<'_>, now_us: u64) -> Result<Answer, Box<Question>> {
        let digest = self.digest(subject.headers);
        if let Some(answer) = self.remembered_answer(&digest, now_us) {
            return Ok(answer);
        }
        let names = self.settings.headers.iter();
        let carried = names.filter(|name| subject.headers.contains_key(*name));
        Err(Box::new(Question {
            headers: self.told(subject),
            digest,
            carried: carried.cloned().collect(),
        }))
    }

    fn remembered_answer(&self, digest: &Digest, now_us: u64) -> Option<Answer> {
        if self.cache_us == 0 {
            return None;
        }
        let (until_us, answer) = self.recent.get(digest)?;
        (until_us > now_us).then_some(answer)
    }

    /// May its answers say who is calling?
    pub fn names_clients(&self) -> bool {
        self.settings.client_header.is_some()
    }

    /// Asks; no longer than the timeout, no more than so many at once, and where answers hold for
    /// others too, once for all who want the same.
    pub async fn ask(
        self: &Arc<Self>,
        question: Box<Question>,
        authenticator: &Arc<Authenticator>,
        now_us: u64,
    ) -> Result<Answer, Unavailable> {
        if self.cache_us == 0 {
            let _place = self.place(now_us)?;
            return self.put(question.headers, authenticator, now_us).await;
        }
        let Question {
            headers, digest, ..
        } = *question;
        let begin = |_: Waiting<_>| {
            let place = self.place(now_us)?;
            let (this, authenticator) = (self.clone(), authenticator.clone());
            let headers = headers.clone();
            Ok::<_, Unavailable>(async move {
                let _place = place;
                // it may have been answered between the look into memory and now
                if let Some(answer) = this.remembered_answer(&digest, now_us) {
                    return Some(Ok(answer));
                }
                let watch = Stopwatch::start();
                let answer = this.put(headers, &authenticator, now_us).await;
                if let Ok(answer) = &answer {
                    let since_us = watch.elapsed_us().saturating_add(this.cache_us);
                    let until_us = now_us.saturating_add(since_us);
                    this.recent.put(digest, (until_us, answer.clone()));
                }
                Some(answer)
            })
        };
        let shared = self.flights.share(digest, begin).await?;
        shared.unwrap_or(Err(Unavailable::ForwardAuth))
    }

    fn place(&self, now_us: u64) -> Result<OwnedSemaphorePermit, Unavailable> {
        let place = self.places.clone().try_acquire_owned();
        place.map_err(|_| self.unavailable(Unavailable::Crowded, now_us, None))
    }

    /// Puts a question.
    async fn put(
        &self,
        headers: HeaderMap,
        authenticator: &Authenticator,
        now_us: u64,
    ) -> Result<Answer, Unavailable> {
        let asked = async {
            let client = self.sources.asking()?;
            let request = client.get(&self.settings.url).headers(headers);
            let response = request.send().await;
            response.map_err(|error| super::jwt::with_causes(&error.without_url()))
        };
        let asked = tokio::time::timeout(self.settings.timeout, asked).await;
        let asked =
            asked.unwrap_or_else(|_| Err(format!("no answer in {:?}", self.settings.timeout)));
        let mut response = asked
            .map_err(|error| self.unavailable(Unavailable::ForwardAuth, now_us, Some(&error)))?;
        let status = response.status().as_u16();
        let answer = match status {
            200..=299 => self.passed(response.headers(), authenticator, now_us)?,
            401 | 403 => {
                let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
                Answer::Refused(Arc::new(Refusal {
                    status,
                    challenges: challenges.iter().take(MAX_CHALLENGES).cloned().collect(),
                }))
            }
            _ => {
                let error = format!("it answers {status}");
                return Err(self.unavailable(Unavailable::ForwardAuth, now_us, Some(&error)));
            }
        };
        read_away(&mut response).await;
        let outcome = match &answer {
            Answer::Passed(_) => Outcome::Valid,
            Answer::Refused(_) => Outcome::Invalid,
        };
        self.sources.metrics.count(Way::ForwardAuth, outcome);
        Ok(answer)
    }

    /// From a yes to what goes with it.
    fn passed(
        &self,
        headers: &HeaderMap,
        authenticator: &Authenticator,
        now_us: u64,
    ) -> Result<Answer, Unavailable> {
        let text = |name: &Option<HeaderName>| {
            let value = headers.get(name.as_ref()?)?;
            value.to_str().ok().filter(|text| !text.is_empty())
        };
        let client = match text(&self.settings.client_header) {
            Some(id) if !super::jwt::is_client_id(id) => {
                let error =
                    "it names a client whose id is not visible ASCII of 1 to 128 characters";
                return Err(self.unavailable(Unavailable::ForwardAuth, now_us, Some(error)));
            }
            Some(id) => Some(authenticator.client(id, text(&self.settings.tier_header), now_us)),
            None => None,
        };
        let values = |name: &HeaderName| headers.get_all(name).iter().cloned().collect();
        let copied = self.settings.copy_headers.iter();
        Ok(Answer::Passed(Arc::new(Passed {
            client,
            copied: copied.map(|name| (name.clone(), values(name))).collect(),
        })))
    }

    /// Counts a failure and, at a bounded rate, logs it.
    fn unavailable(&self, why: Unavailable, now_us: u64, error: Option<&str>) -> Unavailable {
        use std::sync::atomic::Ordering::Relaxed;
        self.sources
            .metrics
            .count(Way::ForwardAuth, Outcome::Unavailable);
        let logged_us = self.logged_us.load(Relaxed);
        let due = logged_us == 0 || now_us.saturating_sub(logged_us) >= LOG_EVERY_US;
        let exchanged = due.then(|| {
            self.logged_us
                .compare_exchange(logged_us, now_us, Relaxed, Relaxed)
        });
        if matches!(exchanged, Some(Ok(_))) {
            tracing::warn!(
                route = self.route,
                url = %config::without_login(&self.settings.url),
                "forward_auth says neither yes nor no: {}",
                error.map_or(why.to_string(), str::to_owned)
            );
        }
        why
    }

    /// Over the headers that carry credentials: name, number of lines, each line with its length.
    fn digest(&self, headers: &HeaderMap) -> Digest {
        let mut hash = Sha256::new();
        for name in &self.settings.headers {
            let lines = headers.get_all(name);
            hash.update((lines.iter().count() as u64).to_le_bytes());
            for line in lines {
                hash.update((line.len() as u64).to_le_bytes());
                hash.update(line.as_bytes());
            }
        }
        hash.finalize().into()
    }

    /// The headers of the question.
    fn told(&self, subject: &Subject<'_>) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        for name in &self.settings.headers {
            for line in subject.headers.get_all(name) {
                headers.append(name, line.clone());
            }
        }
        let uri = match subject.query {
            Some(query) => format!("{}?{query}", subject.path),
            None => subject.path.to_owned(),
        };
        let uri = visible(&uri);
        for (name, text) in [
            ("x-forwarded-method", subject.method.as_str()),
            ("x-forwarded-proto", subject.scheme),
            ("x-forwarded-host", subject.host),
            ("x-forwarded-uri", &uri),
            ("x-forwarded-for", &subject.ip.to_string()),
        ] {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }
}
