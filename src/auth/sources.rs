//! Where identities come from outside of this process, kept when the snapshot changes: issuers' keys, HTTP clients.

use super::jwt::Jwks;
use crate::clock::Clock;
use crate::database::Directory;
use crate::telemetry::AuthMetrics;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The largest document fetched.
pub(super) const MAX_FETCHED_BYTES: usize = 1024 * 1024;

/// Credentials of one kind looked up at once; beyond that 503.
const MAX_LOOKUPS: usize = 64;

/// Requests that wait for an issuer's keys at once. They cost nothing but memory: all wait for one
/// fetch, and fetches have a rate of their own.
const MAX_WAITS_FOR_KEYS: usize = 16_384;

/// Redirects followed for a document.
const MAX_REDIRECTS: usize = 3;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often [`Sources::keep_fresh`] looks whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Outlives snapshots.
pub struct Sources {
    /// those that snapshots use, refused ones too for a moment
    jwks: Mutex<Vec<Weak<Jwks>>>,
    fetching: OnceCell<reqwest::Client>,
    asking: OnceCell<reqwest::Client>,
    /// places for requests that wait for an issuer's keys
    pub(super) waits_for_keys: Semaphore,
    /// places for passwords that wait to be hashed
    pub(super) passwords: Arc<Semaphore>,
    /// threads that hash them
    pub(super) hashing: Arc<Semaphore>,
    /// API keys and clients of the database; absent: there is none
    pub(super) directory: Option<Directory>,
    /// the counters
    pub(super) metrics: AuthMetrics,
}

impl Sources {
    /// Nothing is fetched before [`Sources::keep_fresh`] runs.
    pub fn new(metrics: AuthMetrics, directory: Option<Directory>) -> Arc<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Sources {
            jwks: Mutex::default(),
            fetching: OnceCell::new(),
            asking: OnceCell::new(),
            waits_for_keys: Semaphore::new(MAX_WAITS_FOR_KEYS),
            passwords: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            // hashing must not take the processors away from proxying
            hashing: Arc::new(Semaphore::new((threads / 2).max(1))),
            directory,
            metrics,
        })
    }

    /// The keys published at a URL: those that another snapshot knows already, if one does.
    pub(super) fn jwks_at(&self, url: &str, refresh: Duration) -> Arc<Jwks> {
        let mut known = self.jwks.lock();
        known.retain(|jwks| jwks.strong_count() > 0);
        let same = known
            .iter()
            .filter_map(Weak::upgrade)
            .find(|jwks| jwks.url() == url);
        match same {
            Some(jwks) => {
                jwks.refresh_every(refresh);
                jwks
            }
            None => {
                let jwks = Arc::new(Jwks::new(url, refresh));
                known.push(Arc::downgrade(&jwks));
                jwks
            }
        }
    }

    /// Keeps the keys fresh that the snapshot of the time uses, for ever.
    pub async fn keep_fresh(&self, clock: &Clock, used: impl Fn() -> Option<Arc<Jwks>>) {
        loop {
            let Some(jwks) = used() else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            jwks.keep_fresh(self, clock).await;
            let age_us = jwks.age_us(clock.now_us());
            let age_seconds = age_us.map_or(-1, |age_us| (age_us / 1_000_000) as i64);
            self.metrics.jwks_age_seconds.set(age_seconds);
            self.metrics.jwks_keys.set(jwks.len() as i64);
            jwks.wanted_or(LOOK_EVERY).await;
        }
    }

    /// For documents: follows a few redirects, none from HTTPS to HTTP.
    pub(super) fn fetching(&self) -> Result<&reqwest::Client, String> {
        use reqwest::redirect::Policy;
        let policy = Policy::custom(|attempt| {
            let was_https = attempt.previous().iter().any(|url| url.scheme() == "https");
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("too many redirects")
            } else if was_https && attempt.url().scheme() != "https" {
                attempt.error("a redirect from https to http")
            } else {
                attempt.follow()
            }
        });
        self.fetching.get_or_try_init(|| client(policy))
    }

    /// For questions: follows no redirect.
    pub(super) fn asking(&self) -> Result<&reqwest::Client, String> {
        let none = reqwest::redirect::Policy::none();
        self.asking.get_or_try_init(|| client(none))
    }
}

fn client(redirects: reqwest::redirect::Policy) -> Result<reqwest::Client, String> {
    // an error means that somebody has chosen one already
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(redirects)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .referer(false)
        // the environment is for programs that go out; who may say yes to a request stands in the file
        .no_proxy()
        .build()
        .map_err(|error| super::jwt::with_causes(&error))
}
