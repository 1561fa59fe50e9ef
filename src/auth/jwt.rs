//! JSON Web Tokens (RFC 7519): signature, issuer, audience and times; then what the claims say.

mod claims;
mod fetching;
mod jwks;
mod key;
mod parts;
mod signing;
mod strict_json;

pub(in crate::auth) use claims::is_client_id;
pub(in crate::auth) use fetching::with_causes;
pub use jwks::Jwks;
pub(in crate::auth) use jwks::Unknown;
pub(in crate::auth) use parts::MAX_TOKEN_BYTES;
pub use signing::{Wanted, sign};

use super::BadSetting;
use crate::config;
use claims::Expected;
use jsonwebtoken::Algorithm;
use key::Key;
use parts::Parts;
use std::sync::Arc;

/// Keys tried at most for one token that does not say which one it is signed with.
const MOST_TRIED: usize = 8;

/// What a verified token says; nothing else of it is kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Claimed {
    /// the client's id: visible ASCII, 1 to 128 characters
    pub client: String,
    /// its tier, which may not exist
    pub tier: Option<String>,
    /// what it may be used for
    pub scopes: Vec<String>,
    /// claims that policies count by, and what they say
    pub counted: Vec<(Box<str>, Box<str>)>,
    /// when it stops being valid, microseconds since the Unix epoch, leeway included
    pub expires_us: u64,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// it is not valid: for the log, never for the client
    Invalid(&'static str),
    /// nobody knows its key id, but the issuer might by now
    UnknownKey,
}

/// Which tokens are believed.
pub struct Verifier {
    algorithms: Vec<config::JwtAlgorithm>,
    keys: Vec<Key>,
    jwks: Option<Arc<Jwks>>,
    expected: Expected,
}

impl Verifier {
    /// From the configuration; `counted` are the claims that policies count by. All that is wrong
    /// at once.
    pub fn new(
        written: &config::Jwt,
        counted: Vec<String>,
        jwks: Option<Arc<Jwks>>,
    ) -> Result<Self, Vec<BadSetting>> {
        let mut keys = Vec::new();
        let mut bad = Vec::new();
        for (index, written) in written.keys.iter().enumerate() {
            match Key::load(written) {
                Ok(key) => keys.push(key),
                Err(error) => bad.push(BadSetting {
                    path: vec![
                        "jwt".into(),
                        "keys".into(),
                        index.into(),
                        error.field.into(),
                    ],
                    message: error.message,
                    hint: error.hint.to_owned(),
                }),
            }
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(Verifier {
            algorithms: written.algorithms.clone(),
            keys,
            jwks,
            expected: Expected::new(written, counted),
        })
    }

    /// Does it believe the same tokens, and read the same out of them?
    pub(in crate::auth) fn is_same(&self, other: &Verifier) -> bool {
        let same_source = match (&self.jwks, &other.jwks) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (None, None) => true,
            _ => false,
        };
        same_source
            && self.algorithms == other.algorithms
            && self.expected == other.expected
            && self.keys.len() == other.keys.len()
            && self
                .keys
                .iter()
                .zip(&other.keys)
                .all(|(one, another)| one.is_same(another))
    }

    /// Where the issuer's keys come from.
    pub fn jwks(&self) -> Option<&Arc<Jwks>> {
        self.jwks.as_ref()
    }

    /// Grows whenever the issuer's keys change.
    pub fn keys_version(&self) -> u64 {
        self.jwks.as_ref().map_or(0, |jwks| jwks.version())
    }

    /// Believes a token or says why not. Never waits.
    pub fn verify(&self, token: &str, now_us: u64) -> Result<Claimed, Unproven> {
        let parts = Parts::of(token).ok_or(Unproven::Invalid("it is malformed"))?;
        let algorithm = key::by_name(&parts.alg)
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .map(key::named)
            .ok_or(Unproven::Invalid("its algorithm is not accepted"))?;
        self.signature(&parts, algorithm)?;
        let claims = parts
            .claims()
            .ok_or(Unproven::Invalid("its claims are malformed"))?;
        self.expected.of(&claims, now_us).map_err(Unproven::Invalid)
    }

    fn signature(&self, parts: &Parts<'_>, algorithm: Algorithm) -> Result<(), Unproven> {
        let published = self.jwks.as_ref().map(|jwks| jwks.keys());
        let published = published.as_ref().map_or(&[][..], |set| set.keys());
        let all = || self.keys.iter().chain(published);
        let named = |key: &&Key| match (&parts.kid, &key.kid) {
            (Some(wanted), Some(has)) => wanted == has,
            _ => true,
        };
        let mut candidates = all().filter(named).filter(|key| key.fits(algorithm));
        if candidates
            .by_ref()
            .take(MOST_TRIED)
            .any(|key| key.verifies(parts.message, parts.signature, algorithm))
        {
            return Ok(());
        }
        let known = |kid: &String| all().any(|key| key.kid.as_ref() == Some(kid));
        let may_be_new = match &parts.kid {
            Some(kid) => !known(kid),
            // without an id there is nothing to ask for, unless nothing was ever published
            None => published.is_empty(),
        };
        if self.jwks.is_some() && may_be_new {
            return Err(Unproven::UnknownKey);
        }
        Err(Unproven::Invalid("no key made its signature"))
    }
}

#[cfg(test)]
mod tests;
