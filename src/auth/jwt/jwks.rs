//! The keys an issuer publishes (RFC 7517): kept while it is away, asked for anew when a token names an unknown one.

use super::key::Key;
use arc_swap::ArcSwap;
use jsonwebtoken::jwk::Jwk;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Keys taken from one document.
const MAX_KEYS: usize = 64;

/// A fetch for an unknown key id may follow so long after another one, on average.
const UNKNOWN_EVERY_US: u64 = 10_000_000;

/// So many may follow each other at once.
const UNKNOWN_AT_ONCE: u64 = 3;

/// Waits between attempts while the issuer does not answer.
const RETRY_FIRST_US: u64 = 1_000_000;
const RETRY_LAST_US: u64 = 60_000_000;

/// An issuer's keys.
pub struct Jwks {
    pub(super) url: String,
    refresh_us: AtomicU64,
    keys: ArcSwap<Keys>,
    schedule: Mutex<Schedule>,
    /// wakes who fetches
    wanted: Notify,
    /// grows with every attempt that has ended
    attempts: watch::Sender<u64>,
}

/// The keys of one document.
#[derive(Default)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// the document's part that they come from, to see whether another one says the same
    source: Value,
    version: u64,
}

impl Keys {
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }
}

/// When to fetch.
#[derive(Default)]
struct Schedule {
    next_us: u64,
    failures: u32,
    /// when the last document came; 0: none has
    fetched_us: u64,
    /// when the allowance of fetches for unknown ids is whole again (a leaky bucket)
    allowance_us: u64,
}

/// What to do about an unknown key id.
pub(in crate::auth) enum Unknown {
    /// wait for the end of an attempt
    Wait(watch::Receiver<u64>),
    /// the issuer has just been asked: nobody has this key
    Nobody,
}

impl Jwks {
    /// Not fetched yet: that begins with the first look at [`Jwks::is_due`].
    pub fn new(url: &str, refresh: Duration) -> Self {
        let jwks = Jwks {
            url: url.to_owned(),
            refresh_us: AtomicU64::new(0),
            keys: ArcSwap::default(),
            schedule: Mutex::default(),
            wanted: Notify::new(),
            attempts: watch::Sender::new(0),
        };
        jwks.refresh_every(refresh);
        jwks
    }

    /// Where they are published.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes how often they are fetched.
    pub fn refresh_every(&self, refresh: Duration) {
        let micros = u64::try_from(refresh.as_micros()).unwrap_or(u64::MAX);
        self.refresh_us.store(micros, Ordering::Relaxed);
    }

    pub(super) fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// Grows whenever the keys change.
    pub fn version(&self) -> u64 {
        self.keys.load().version
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.load().keys.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Microseconds since the last document came; absent: none has.
    pub fn age_us(&self, now_us: u64) -> Option<u64> {
        let fetched_us = self.schedule.lock().fetched_us;
        (fetched_us > 0).then(|| now_us.saturating_sub(fetched_us))
    }

    /// Is it time for a fetch?
    pub(super) fn is_due(&self, now_us: u64) -> bool {
        self.schedule.lock().next_us <= now_us
    }

    /// A token names a key nobody knows: asks for a fetch, at a bounded rate.
    pub(in crate::auth) fn unknown(&self, now_us: u64) -> Unknown {
        let attempts = self.attempts.subscribe();
        let mut schedule = self.schedule.lock();
        if schedule.next_us <= now_us {
            self.wanted.notify_one();
            return Unknown::Wait(attempts);
        }
        let earlier_us = schedule.allowance_us.max(now_us);
        if earlier_us - now_us > UNKNOWN_EVERY_US * (UNKNOWN_AT_ONCE - 1) {
            return Unknown::Nobody;
        }
        schedule.allowance_us = earlier_us + UNKNOWN_EVERY_US;
        schedule.next_us = now_us;
        self.wanted.notify_one();
        Unknown::Wait(attempts)
    }

    /// A document has come. What is no key, or none of ours, is left out; a document without any
    /// usable key is an error, and the keys stay.
    pub(super) fn came(&self, document: &[u8], now_us: u64) -> Result<(), &'static str> {
        let mut document: Value =
            serde_json::from_slice(document).map_err(|_| "the document is not JSON")?;
        let Some(source @ Value::Array(_)) = document.get_mut("keys").map(Value::take) else {
            return Err("the document has no list `keys`");
        };
        let before = self.keys.load();
        if before.source != source {
            let keys: Vec<Key> = source
                .as_array()
                .into_iter()
                .flatten()
                .take(MAX_KEYS)
                .filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok())
                .filter_map(|jwk| Key::published(&jwk))
                .collect();
            if keys.is_empty() {
                return Err("the document has no key that verifies signatures");
            }
            let version = before.version + 1;
            self.keys.store(Arc::new(Keys {
                keys,
                source,
                version,
            }));
        }
        let mut schedule = self.schedule.lock();
        schedule.failures = 0;
        schedule.fetched_us = now_us;
        schedule.next_us = now_us.saturating_add(self.refresh_us.load(Ordering::Relaxed));
        Ok(())
    }

    /// An attempt has failed: the keys stay, the next attempt comes sooner than a refresh would.
    /// Says whether this is the first failure in a row.
    pub(super) fn failed(&self, now_us: u64) -> bool {
        let mut schedule = self.schedule.lock();
        let wait_us = RETRY_FIRST_US << schedule.failures.min(6);
        let refresh_us = self.refresh_us.load(Ordering::Relaxed);
        schedule.next_us = now_us + wait_us.min(RETRY_LAST_US).min(refresh_us);
        schedule.failures = schedule.failures.saturating_add(1);
        schedule.failures == 1
    }

    /// Waits until somebody wants them, but no longer than this.
    pub(in crate::auth) async fn wanted_or(&self, most: Duration) {
        // either way it is time to look again
        let _ = tokio::time::timeout(most, self.wanted.notified()).await;
    }

    /// Tells who waits that an attempt has ended.
    pub(super) fn attempted(&self) {
        self.attempts.send_modify(|attempts| *attempts += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = r#"{"keys":[{"kty":"RSA","kid":"a","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw","e":"AQAB"}]}"#;

    fn jwks() -> Jwks {
        Jwks::new("http://issuer/jwks", Duration::from_secs(300))
    }

    #[test]
    fn a_document_is_taken_once_and_the_same_again_changes_nothing() {
        let jwks = jwks();
        assert!(jwks.is_due(1));
        assert_eq!(jwks.age_us(5), None);
        jwks.came(RSA.as_bytes(), 1).unwrap();
        assert_eq!((jwks.len(), jwks.version()), (1, 1));
        assert!(!jwks.is_due(2) && jwks.is_due(300_000_001));
        jwks.came(RSA.as_bytes(), 7).unwrap();
        assert_eq!((jwks.version(), jwks.age_us(9)), (1, Some(2)));
        jwks.came(RSA.replace("\"a\"", "\"b\"").as_bytes(), 8)
            .unwrap();
        assert_eq!(jwks.version(), 2);
    }

    #[test]
    fn garbage_secrets_and_keys_for_encryption_replace_nothing() {
        let jwks = jwks();
        jwks.came(RSA.as_bytes(), 1).unwrap();
        for document in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[]}"#,
            r#"{"keys":[1,null,{}]}"#,
            r#"{"keys":[{"kty":"oct","kid":"a","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}"#,
            &RSA.replace("\"kid\"", "\"use\":\"enc\",\"kid\""),
            &RSA.replace("\"kid\"", "\"alg\":\"HS256\",\"kid\""),
            &RSA.replace("\"kid\"", "\"alg\":\"RSA-OAEP\",\"kid\""),
        ] {
            assert!(jwks.came(document.as_bytes(), 2).is_err(), "{document}");
            assert_eq!((jwks.len(), jwks.version()), (1, 1));
        }
    }

    #[test]
    fn an_unknown_id_asks_the_issuer_at_a_bounded_rate() {
        let jwks = jwks();
        let now_us = 1_000_000_000;
        // nothing has been fetched yet: whoever asks waits for the first attempt
        assert!(matches!(jwks.unknown(now_us), Unknown::Wait(_)));
        jwks.came(RSA.as_bytes(), now_us).unwrap();
        for _ in 0..UNKNOWN_AT_ONCE {
            assert!(matches!(jwks.unknown(now_us), Unknown::Wait(_)));
            assert!(jwks.is_due(now_us));
            jwks.came(RSA.as_bytes(), now_us).unwrap();
        }
        assert!(matches!(jwks.unknown(now_us), Unknown::Nobody));
        assert!(!jwks.is_due(now_us));
        let later_us = now_us + UNKNOWN_EVERY_US;
        assert!(matches!(jwks.unknown(later_us), Unknown::Wait(_)));
        jwks.came(RSA.as_bytes(), later_us).unwrap();
        assert!(matches!(jwks.unknown(later_us), Unknown::Nobody));
    }

    #[test]
    fn failures_are_followed_by_attempts_further_and_further_apart() {
        let jwks = jwks();
        let mut waits = Vec::new();
        for turn in 0..9 {
            assert_eq!(jwks.failed(0), turn == 0);
            waits.push(jwks.schedule.lock().next_us / 1_000_000);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
