//! Credentials that must be looked up: the part of authentication that waits, with a deadline and a bound.

use super::basic::Credential;
use super::jwt::{Unknown, Unproven};
use super::recent::Digest;
use super::{Authenticator, Found, Identity, Proven, Unavailable};
use crate::clock::Clock;
use crate::telemetry::{Method, Outcome};
use std::time::Duration;

/// A request some of whose credentials must be looked up.
#[derive(Debug)]
pub struct Pending {
    identity: Identity,
    lookups: Vec<Lookup>,
}

/// One credential to look up.
pub(super) enum Lookup {
    /// a token that names a key the issuer may have published meanwhile
    Token { text: String, digest: Digest },
    /// a password that must be hashed
    Password(Credential),
    /// an API key of the database
    Key(Digest),
    /// a client, valid already, whose tier the database may know
    Client(Proven),
    /// nothing to look up: it stands here so that credentials are taken in one order, whatever is
    /// remembered
    Done(Proven),
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lookup::Token { .. } => "Token(***)",
            Lookup::Password(_) => "Password(***)",
            Lookup::Key(_) => "Key(***)",
            Lookup::Client(_) => "Client(***)",
            Lookup::Done(_) => "Done(***)",
        })
    }
}

impl Lookup {
    fn method(&self) -> Method {
        match self {
            Lookup::Token { .. } => Method::Jwt,
            Lookup::Password(_) => Method::Basic,
            Lookup::Key(_) => Method::ApiKey,
            Lookup::Client(proven) | Lookup::Done(proven) => proven.method,
        }
    }
}

/// Why a look-up proves nothing.
pub(super) enum Unfound {
    Invalid,
    Unavailable(Unavailable),
}

/// Until when a request waits.
pub(super) struct Deadline<'c> {
    clock: &'c Clock,
    timeout: Duration,
    until_us: u64,
}

impl<'c> Deadline<'c> {
    pub(super) fn new(timeout: Duration, clock: &'c Clock) -> Self {
        let timeout_us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        Deadline {
            clock,
            timeout,
            until_us: clock.now_us().saturating_add(timeout_us),
        }
    }

    /// How long the database may take: half of the time at most, and never all that is left, so that
    /// there is still time for what is known without it.
    pub(super) fn patience(&self) -> Duration {
        let left = Duration::from_micros(self.until_us.saturating_sub(self.clock.now_us()));
        (self.timeout / 2).min(left.saturating_sub(self.timeout / 8))
    }
}

impl Pending {
    pub(super) fn new(identity: Identity, lookups: Vec<Lookup>) -> Self {
        Pending { identity, lookups }
    }

    /// Looks up what is left, one after the other; never [`Found::Pending`].
    pub async fn resolve(self, authenticator: &Authenticator, clock: &Clock) -> Found {
        let mut identity = self.identity;
        let deadline = Deadline::new(authenticator.timeout, clock);
        let all = async {
            for lookup in self.lookups {
                let method = lookup.method();
                let outcome = match authenticator.look_up(lookup, &deadline).await {
                    Ok(proven) => {
                        authenticator.count(method, Outcome::Valid);
                        identity.add(proven)
                    }
                    Err(Unfound::Invalid) => Err(Found::Invalid(method)),
                    Err(Unfound::Unavailable(why)) => {
                        authenticator.count(method, Outcome::Unavailable);
                        Err(Found::Unavailable(why))
                    }
                };
                outcome?;
            }
            Ok(identity)
        };
        match tokio::time::timeout(authenticator.timeout, all).await {
            Ok(Ok(identity)) => Found::Known(identity),
            Ok(Err(found)) => found,
            Err(_) => Found::Unavailable(Unavailable::TimedOut),
        }
    }
}

impl Authenticator {
    async fn look_up(&self, lookup: Lookup, deadline: &Deadline<'_>) -> Result<Proven, Unfound> {
        let clock = deadline.clock;
        let proven = match lookup {
            Lookup::Done(proven) => return Ok(proven),
            Lookup::Key(digest) => {
                let patience = deadline.patience();
                return self.find_key(digest, clock.now_us(), patience).await;
            }
            Lookup::Token { text, digest } => {
                self.token_of_unknown_key(&text, digest, clock).await?
            }
            Lookup::Password(credential) => self.password(credential, clock).await?,
            Lookup::Client(proven) => proven,
        };
        let patience = deadline.patience();
        Ok(self.find_tier(proven, clock.now_us(), patience).await)
    }

    async fn password(&self, credential: Credential, clock: &Clock) -> Result<Proven, Unfound> {
        let Some(passwords) = &self.passwords else {
            return Err(Unfound::Invalid);
        };
        let now_us = clock.now_us();
        let client = self.client(&credential.name, None, now_us);
        passwords
            .verify(credential, client, &self.sources, now_us)
            .await
    }

    /// Waits until the issuer has been asked once more.
    async fn token_of_unknown_key(
        &self,
        text: &str,
        digest: Digest,
        clock: &Clock,
    ) -> Result<Proven, Unfound> {
        let Some(tokens) = &self.tokens else {
            return Err(Unfound::Invalid);
        };
        let Some(jwks) = tokens.verifier.jwks() else {
            return Err(Unfound::Invalid);
        };
        let Ok(_place) = self.sources.waits_for_keys.try_acquire() else {
            return Err(Unfound::Unavailable(Unavailable::Crowded));
        };
        if let Unknown::Wait(mut attempts) = jwks.unknown(clock.now_us()) {
            // an error would mean that nobody fetches any more; then the keys are what they are
            let _ = attempts.changed().await;
        }
        let now_us = clock.now_us();
        let never_fetched = jwks.age_us(now_us).is_none();
        match tokens.verify(self, text, digest, now_us) {
            Ok(proven) => Ok(proven),
            Err(Unproven::UnknownKey) if never_fetched => {
                Err(Unfound::Unavailable(Unavailable::IssuerKeys))
            }
            Err(_) => Err(Unfound::Invalid),
        }
    }
}
