//! From credentials to a client: API keys, tokens and passwords in that order, and a guard against guessing.

pub mod api_key;
mod basic;
mod carrying;
mod directory_lookup;
pub mod failures;
mod flights;
pub mod forward_auth;
mod identity;
pub mod jwt;
mod pending;
mod recent;
mod remembered;
mod small_file;
pub mod sources;
mod tiers;
mod tokens;

pub use identity::{Client, Identity};
pub use pending::Pending;
pub use sources::Sources;
pub use tokens::Token;

use crate::config::{self, KeyPart, Step};
use crate::telemetry::{Method, Outcome};
use api_key::ApiKeys;
use basic::Passwords;
use directory_lookup::Lookups;
use http::{HeaderMap, HeaderValue, header};
use identity::Proven;
use jwt::Verifier;
use pending::Lookup;
use remembered::Remembered;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tiers::Tiers;
use tokens::Tokens;

/// What a request's credentials say.
#[derive(Debug)]
pub enum Found {
    /// they are valid, or there are none
    Known(Identity),
    /// one is not valid, or two disagree
    Invalid(Method),
    /// one that nobody has seen before, which nobody looked at (see [`Looking`])
    NotLookedAt,
    /// one that must be looked up first
    Pending(Box<Pending>),
    /// nobody can say now
    Unavailable(Unavailable),
}

/// Why nobody can say now whether a credential is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// the issuer's keys have never been fetched
    #[error("the issuer's keys are not known")]
    IssuerKeys,
    /// too many look-ups are under way
    #[error("too many look-ups of credentials are under way")]
    Crowded,
    /// the look-up took too long
    #[error("the look-up of a credential took too long")]
    TimedOut,
    /// the URL of `forward_auth` did not answer, or not with 2xx, 401 or 403
    #[error("forward_auth got no answer that says yes or no")]
    ForwardAuth,
    /// the database does not answer and nothing is known without it
    #[error("the database does not answer")]
    Directory,
}

/// Whether an unknown credential may cost a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looking {
    /// hash it and look it up
    Allowed,
    /// too many failures from this address: only credentials that are remembered count
    RememberedOnly,
}

/// What one credential says, without waiting.
enum Seen {
    Known(Proven),
    Invalid(Method),
    NotLookedAt,
    Unknown(Lookup),
}

/// A setting that only whoever uses it can judge: where below `auth`, what is wrong, what to do.
#[derive(Debug)]
pub struct BadSetting {
    /// below `auth`
    pub path: Vec<Step<'static>>,
    /// what is wrong
    pub message: String,
    /// what to do about it
    pub hint: String,
}

/// Everything needed to recognise a client. Made anew with every snapshot; what it remembers is
/// handed on to the next one while nothing changes that it depends on (see [`carrying`]).
pub struct Authenticator {
    header: http::HeaderName,
    keys: Arc<ApiKeys>,
    remembered: Arc<Remembered>,
    tokens: Option<Arc<Tokens>>,
    passwords: Option<Arc<Passwords>>,
    lookups: Option<Arc<Lookups>>,
    tiers: Tiers,
    /// those of the file, by id
    clients: HashMap<String, Arc<Client>>,
    timeout: Duration,
    challenge: HeaderValue,
    sources: Arc<Sources>,
}

impl Authenticator {
    /// From the configuration; all that is wrong with it at once. What `previous` remembers stays, as
    /// far as it is still true.
    pub fn compile(
        config: &config::Config,
        clients: &HashMap<String, Arc<Client>>,
        sources: &Arc<Sources>,
        previous: Option<&Authenticator>,
    ) -> Result<Self, Vec<BadSetting>> {
        let auth = &config.auth;
        let verifier = auth.jwt.as_ref().map(|jwt| {
            let url = jwt.jwks_url.as_deref();
            let jwks = url.map(|url| sources.jwks_at(url, jwt.jwks_refresh));
            Verifier::new(jwt, counted_claims(config), jwks)
        });
        let passwords = auth.basic.as_ref().map(Passwords::load);
        let (verifier, passwords) = match (verifier.transpose(), passwords.transpose()) {
            (Ok(verifier), Ok(passwords)) => (verifier, passwords),
            (verifier, passwords) => {
                let bad = [verifier.err(), passwords.err()];
                return Err(bad.into_iter().flatten().flatten().collect());
            }
        };
        let keys = ApiKeys::of(&config.clients, clients);
        let mut authenticator = Authenticator {
            challenge: challenge(auth, !keys.is_empty() || sources.directory.is_some()),
            header: auth.api_key_header.clone(),
            keys: Arc::new(keys),
            remembered: Arc::default(),
            tokens: verifier.map(|verifier| Arc::new(Tokens::new(verifier))),
            passwords: passwords.map(Arc::new),
            lookups: sources.directory.clone().map(Lookups::new).map(Arc::new),
            tiers: Tiers::new(config.tiers.iter().cloned()),
            clients: clients.clone(),
            timeout: auth.timeout,
            sources: sources.clone(),
        };
        if let Some(previous) = previous {
            authenticator.carry_over(previous);
        }
        Ok(authenticator)
    }

    /// The header that carries API keys.
    pub fn api_key_header(&self) -> &http::HeaderName {
        &self.header
    }

    /// The keys of the issuer, if they are fetched.
    pub fn jwks(&self) -> Option<&Arc<jwt::Jwks>> {
        self.tokens.as_ref()?.verifier.jwks()
    }

    /// `WWW-Authenticate`: what a client may prove itself with.
    pub fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// Says who a request comes from, without waiting. `looking` is asked once there is a
    /// credential.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        now_us: u64,
        mut looking: impl FnMut() -> Looking,
    ) -> Found {
        let mut identity = Identity::default();
        let mut lookups = Vec::new();
        let mut take = |seen: Seen| match seen {
            // one that waits keeps its place before those that do not
            Seen::Known(proven) if !lookups.is_empty() => {
                lookups.push(Lookup::Done(proven));
                Ok(())
            }
            Seen::Known(proven) => {
                self.count(proven.method, Outcome::Valid);
                identity.add(proven)
            }
            Seen::Unknown(lookup) => {
                lookups.push(lookup);
                Ok(())
            }
            Seen::Invalid(method) => Err(Found::Invalid(method)),
            Seen::NotLookedAt => Err(Found::NotLookedAt),
        };
        for value in headers.get_all(&self.header) {
            if let Err(found) = take(self.api_key(value.as_bytes(), now_us, &mut looking)) {
                return found;
            }
        }
        if self.tokens.is_some() || self.passwords.is_some() {
            for value in headers.get_all(header::AUTHORIZATION) {
                let Some(seen) = self.authorization(value.as_bytes(), now_us, &mut looking) else {
                    continue;
                };
                if let Err(found) = take(seen) {
                    return found;
                }
            }
        }
        match lookups.is_empty() {
            true => Found::Known(identity),
            false => Found::Pending(Box::new(Pending::new(identity, lookups))),
        }
    }

    fn api_key(&self, key: &[u8], now_us: u64, looking: &mut impl FnMut() -> Looking) -> Seen {
        let known = |client| {
            Seen::Known(Proven {
                method: Method::ApiKey,
                client,
                token: None,
            })
        };
        let looking = looking();
        if looking == Looking::RememberedOnly {
            return match self.remembered.get(key) {
                Some(client) => known(client),
                None => self.directory_key(key, now_us, looking),
            };
        }
        match self.keys.find(key) {
            Some(found) => {
                self.remembered.put_once(key, found);
                known(found.client.clone())
            }
            None => self.directory_key(key, now_us, looking),
        }
    }

    /// What `Authorization` carries; absent: a scheme that is not ours.
    fn authorization(
        &self,
        value: &[u8],
        now_us: u64,
        looking: &mut impl FnMut() -> Looking,
    ) -> Option<Seen> {
        let (scheme, rest) = scheme(value);
        let seen = if scheme.eq_ignore_ascii_case(b"bearer") {
            let tokens = self.tokens.as_ref()?;
            tokens.recall(self, rest, now_us, looking)
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            let passwords = self.passwords.as_ref()?;
            passwords.recall(rest, now_us, looking)
        } else {
            return None;
        };
        match self.lookups.is_some() {
            true => Some(self.with_directory_tier(seen, now_us, looking())),
            false => Some(seen),
        }
    }

    /// A client by an id that a credential proves. The tier of the file beats the one the credential
    /// claims; one that does not exist is none.
    fn client(&self, id: &str, claimed_tier: Option<&str>, now_us: u64) -> Arc<Client> {
        let written = self.clients.get(id);
        if let Some(client) = written
            && (client.tier.is_some() || claimed_tier.is_none())
        {
            return client.clone();
        }
        let tier = self.existing(id, claimed_tier, now_us);
        Arc::new(Client::new(id, tier))
    }

    /// A tier if it exists; said at a bounded rate if not.
    fn existing(&self, client: &str, tier: Option<&str>, now_us: u64) -> Option<Arc<str>> {
        let tier = tier?;
        let exists = self.tiers.named(tier).cloned();
        if exists.is_none() {
            self.tiers
                .missing(client, tier, now_us, &self.sources.metrics);
        }
        exists
    }

    fn count(&self, method: Method, outcome: Outcome) {
        self.sources.metrics.count(method, outcome);
    }

    /// Sets the gauges.
    pub fn observe(&self) {
        let tokens = self.tokens.as_ref().map_or(0, |tokens| tokens.remembered());
        let passwords = self
            .passwords
            .as_ref()
            .map_or(0, |passwords| passwords.remembered());
        self.sources.metrics.cached_tokens.set(tokens as i64);
        self.sources.metrics.cached_passwords.set(passwords as i64);
    }
}

/// `Bearer abc` as its two parts.
fn scheme(value: &[u8]) -> (&[u8], &[u8]) {
    let value = value.trim_ascii();
    let end = value.iter().position(|&byte| byte == b' ');
    match end.and_then(|end| value.split_at_checked(end)) {
        Some((scheme, rest)) => (scheme, rest.trim_ascii_start()),
        None => (value, b""),
    }
}

/// Claims that policies count by.
fn counted_claims(config: &config::Config) -> Vec<String> {
    let parts = config.policies.values().flat_map(|policy| &policy.key);
    let claims = parts.filter_map(|part| match part {
        KeyPart::JwtClaim(name) => Some(name.clone()),
        _ => None,
    });
    claims.collect::<BTreeSet<String>>().into_iter().collect()
}

/// One challenge for each way that is configured, on one line (RFC 9110, 11.6.1).
fn challenge(auth: &config::Auth, keys: bool) -> HeaderValue {
    let mut ways = Vec::new();
    if keys || (auth.jwt.is_none() && auth.basic.is_none()) {
        ways.push("ApiKey realm=\"tidegate\"".to_owned());
    }
    if auth.jwt.is_some() {
        ways.push("Bearer realm=\"tidegate\"".to_owned());
    }
    if let Some(basic) = &auth.basic {
        let realm = basic.realm.replace(['"', '\\'], "");
        ways.push(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
    }
    let text = ways.join(", ");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("ApiKey realm=\"tidegate\""))
}

#[cfg(test)]
mod tests;
