//! Verified tokens, remembered by hash until they expire.

use super::jwt::{MAX_TOKEN_BYTES, Unproven, Verifier};
use super::pending::Lookup;
use super::recent::{Digest, Recent, digest};
use super::{Authenticator, Client, Looking, Proven, Seen};
use crate::telemetry::Method;
use std::sync::Arc;

/// Tokens remembered.
const MAX_REMEMBERED: usize = 65_536;

/// A verified token is verified again after this.
const REMEMBERED_US: u64 = 300_000_000;

/// What is remembered of a verified token.
#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    /// whose it is
    pub client: Arc<Client>,
    /// what it may be used for
    pub scopes: Vec<String>,
    /// claims that policies count by, and what they say
    pub claims: Box<[(Box<str>, Box<str>)]>,
    until_us: u64,
    /// the issuer's keys it was verified with
    keys_version: u64,
}

/// Verifies and remembers.
pub(super) struct Tokens {
    pub(super) verifier: Verifier,
    pub(super) recent: Recent<Arc<Token>>,
}

impl Tokens {
    pub(super) fn new(verifier: Verifier) -> Self {
        Tokens {
            verifier,
            recent: Recent::new(MAX_REMEMBERED),
        }
    }

    /// How many are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.recent.len()
    }

    /// What a token says, without waiting.
    pub(super) fn recall(
        &self,
        authenticator: &Authenticator,
        text: &[u8],
        now_us: u64,
        looking: &mut impl FnMut() -> Looking,
    ) -> Seen {
        // not even hashed
        if text.len() > MAX_TOKEN_BYTES {
            return Seen::Invalid(Method::Jwt);
        }
        let digest = digest(text);
        let version = self.verifier.keys_version();
        let fresh = |token: &Arc<Token>| token.until_us > now_us && token.keys_version == version;
        if let Some(token) = self.recent.get(&digest).filter(fresh) {
            return Seen::Known(proven(token));
        }
        if looking() == Looking::RememberedOnly {
            return Seen::NotLookedAt;
        }
        let Ok(text) = std::str::from_utf8(text) else {
            return Seen::Invalid(Method::Jwt);
        };
        match self.verify(authenticator, text, digest, now_us) {
            Ok(proven) => Seen::Known(proven),
            Err(Unproven::Invalid(_)) => Seen::Invalid(Method::Jwt),
            Err(Unproven::UnknownKey) => Seen::Unknown(Lookup::Token {
                text: text.to_owned(),
                digest,
            }),
        }
    }

    /// Verifies a token, and remembers it if it is valid.
    pub(super) fn verify(
        &self,
        authenticator: &Authenticator,
        text: &str,
        digest: Digest,
        now_us: u64,
    ) -> Result<Proven, Unproven> {
        let keys_version = self.verifier.keys_version();
        let claimed = self.verifier.verify(text, now_us).inspect_err(|unproven| {
            tracing::debug!("a token is refused: {unproven:?}");
        })?;
        let tier = claimed.tier.as_deref();
        let token = Arc::new(Token {
            client: authenticator.client(&claimed.client, tier, now_us),
            scopes: claimed.scopes,
            claims: claimed.counted.into(),
            until_us: claimed.expires_us.min(now_us.saturating_add(REMEMBERED_US)),
            keys_version,
        });
        self.recent.put(digest, token.clone());
        Ok(proven(token))
    }
}

fn proven(token: Arc<Token>) -> Proven {
    Proven {
        method: Method::Jwt,
        client: token.client.clone(),
        token: Some(token),
    }
}
