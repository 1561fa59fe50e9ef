//! Fetching an issuer's keys: in the background, one at a time, never more than a bounded document.

use super::Jwks;
use crate::auth::sources::{MAX_FETCHED_BYTES, Sources};
use crate::clock::Clock;
use std::time::Duration;

/// How long an issuer may take to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

impl Jwks {
    /// Fetches the keys if it is time to; returns when it next may be, or somebody wants them.
    pub(in crate::auth) async fn keep_fresh(&self, sources: &Sources, clock: &Clock) {
        if self.is_due(clock.now_us()) {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch(sources)).await;
            let fetched = fetched.unwrap_or_else(|_| Err("no answer in 5 s".to_owned()));
            let now_us = clock.now_us();
            let taken =
                fetched.and_then(|document| self.came(&document, now_us).map_err(str::to_owned));
            match taken {
                Ok(()) => sources.metrics.jwks_fetched.inc(),
                Err(error) => {
                    sources.metrics.jwks_failed.inc();
                    if self.failed(now_us) {
                        tracing::warn!(
                            url = %crate::config::without_login(&self.url),
                            keys = self.len(),
                            "the issuer's keys cannot be fetched, those known stay: {error}"
                        );
                    }
                }
            }
            self.attempted();
        }
    }

    async fn fetch(&self, sources: &Sources) -> Result<Vec<u8>, String> {
        let client = sources.fetching()?;
        let told = |error: reqwest::Error| with_causes(&error.without_url());
        let mut response = client.get(&self.url).send().await.map_err(told)?;
        if !response.status().is_success() {
            return Err(format!("the issuer answers {}", response.status()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            document.extend_from_slice(&chunk);
            if document.len() > MAX_FETCHED_BYTES {
                return Err(format!(
                    "the document has more than {MAX_FETCHED_BYTES} bytes"
                ));
            }
        }
        Ok(document)
    }
}

/// An error and what caused it, on one line: reqwest's own text says only where.
pub(in crate::auth) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
