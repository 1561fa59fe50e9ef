//! Asking a URL whether a request may pass, as nginx's `auth_request` does.

use super::recent::{Digest, Recent};
use super::{Authenticator, Client, Sources, Unavailable};
use crate::clock::Clock;
use crate::config;
use crate::telemetry::{Method as Way, Outcome};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Answers remembered per route.
const MAX_REMEMBERED: usize = 16_384;

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
    /// the client it names
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
    /// its `WWW-Authenticate`
    pub challenge: Option<HeaderValue>,
}

/// The parts of a request that it is asked about.
pub struct Subject<'a> {
    /// the method
    pub method: &'a Method,
    /// `http` or `https`, as the client used it
    pub scheme: &'a str,
    /// the host
    pub host: &'a str,
    /// the path as it came
    pub path: &'a str,
    /// the query as it came
    pub query: Option<&'a str>,
    /// the client's address
    pub ip: IpAddr,
    /// all headers
    pub headers: &'a HeaderMap,
}

/// A question, complete: it borrows nothing of the request.
#[derive(Debug)]
pub struct Question {
    headers: HeaderMap,
    digest: Digest,
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

impl ForwardAuth {
    /// For one route.
    pub fn new(settings: &config::ForwardAuth, route: &str, sources: &Arc<Sources>) -> Self {
        ForwardAuth {
            settings: settings.clone(),
            route: route.to_owned(),
            cache_us: u64::try_from(settings.cache.as_micros()).unwrap_or(u64::MAX),
            recent: Recent::new(MAX_REMEMBERED),
            sources: sources.clone(),
            logged_us: Default::default(),
        }
    }

    /// The headers that only its answers may set.
    pub fn copied(&self) -> &[HeaderName] {
        &self.settings.copy_headers
    }

    /// How many answers are remembered.
    pub fn remembered(&self) -> usize {
        self.recent.len()
    }

    /// An answer it gave lately to a request with the same headers, or the question to ask.
    pub fn recall(&self, subject: &Subject<'_>, now_us: u64) -> Result<Answer, Box<Question>> {
        let digest = self.digest(subject.headers);
        if self.cache_us > 0
            && let Some((until_us, answer)) = self.recent.get(&digest)
            && until_us > now_us
        {
            return Ok(answer);
        }
        Err(Box::new(Question {
            headers: self.told(subject),
            digest,
        }))
    }

    /// Asks; no longer than the timeout, and no more than so many at once.
    pub async fn ask(
        &self,
        question: Box<Question>,
        authenticator: &Authenticator,
        clock: &Clock,
    ) -> Result<Answer, Unavailable> {
        let Question { headers, digest } = *question;
        let asked = async {
            let _place = self.sources.asked.try_acquire().map_err(|_| None)?;
            let client = self.sources.asking().map_err(Some)?;
            let request = client.get(&self.settings.url).headers(headers);
            let response = request.send().await;
            response.map_err(|error| Some(super::jwt::with_causes(&error.without_url())))
        };
        let asked = tokio::time::timeout(self.settings.timeout, asked).await;
        let now_us = clock.now_us();
        let mut response = match asked {
            Ok(Ok(response)) => response,
            Ok(Err(None)) => return Err(self.unavailable(Unavailable::Crowded, now_us, None)),
            Ok(Err(Some(error))) => {
                return Err(self.unavailable(Unavailable::ForwardAuth, now_us, Some(&error)));
            }
            Err(_) => {
                let error = format!("no answer in {:?}", self.settings.timeout);
                return Err(self.unavailable(Unavailable::ForwardAuth, now_us, Some(&error)));
            }
        };
        let status = response.status().as_u16();
        let answer = match status {
            200..=299 => self.passed(response.headers(), authenticator, now_us)?,
            401 | 403 => Answer::Refused(Arc::new(Refusal {
                status,
                challenge: response.headers().get(header::WWW_AUTHENTICATE).cloned(),
            })),
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
        if self.cache_us > 0 {
            let until_us = now_us.saturating_add(self.cache_us);
            self.recent.put(digest, (until_us, answer.clone()));
        }
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
                url = self.settings.url,
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
