//! Metrics of authentication.

use super::register;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// How somebody shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// an API key
    ApiKey,
    /// a JSON Web Token
    Jwt,
    /// a name and a password
    Basic,
    /// somebody else's word, asked for by URL
    ForwardAuth,
}

/// What came of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// it is valid
    Valid,
    /// it is not
    Invalid,
    /// nobody could say
    Unavailable,
}

const METHODS: [&str; 4] = ["api_key", "jwt", "basic", "forward_auth"];
const OUTCOMES: [&str; 3] = ["valid", "invalid", "unavailable"];

/// Handles; clones count into the same metrics.
#[derive(Clone)]
pub struct AuthMetrics {
    outcomes: [[IntCounter; OUTCOMES.len()]; METHODS.len()],
    /// documents of keys taken
    pub jwks_fetched: IntCounter,
    /// attempts that brought none
    pub jwks_failed: IntCounter,
    /// seconds since the last one came; -1: none has
    pub jwks_age_seconds: IntGauge,
    /// keys known from the issuer
    pub jwks_keys: IntGauge,
    /// clients whose tier does not exist
    pub unknown_tiers: IntCounter,
    /// verified tokens remembered
    pub cached_tokens: IntGauge,
    /// verified passwords remembered
    pub cached_passwords: IntGauge,
    /// answers of forward_auth remembered
    pub cached_answers: IntGauge,
}

impl AuthMetrics {
    /// Registers everything; fails only if two metrics had one name.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let outcomes = IntCounterVec::new(
            Opts::new(
                "tidegate_authentications_total",
                "credentials looked at, by method (api_key, jwt, basic, forward_auth) and outcome (valid, invalid, unavailable)",
            ),
            &["method", "outcome"],
        )?;
        let outcomes = register(registry, outcomes)?;
        let fetches = IntCounterVec::new(
            Opts::new(
                "tidegate_jwks_fetches_total",
                "fetches of an issuer's keys, by outcome (fetched, failed)",
            ),
            &["outcome"],
        )?;
        let fetches = register(registry, fetches)?;
        let cached = IntGaugeVec::new(
            Opts::new(
                "tidegate_auth_cached",
                "what is remembered of credentials, by kind (token, password, forward_auth)",
            ),
            &["kind"],
        )?;
        let cached = register(registry, cached)?;
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help)?);
        Ok(AuthMetrics {
            outcomes: METHODS.map(|method| {
                OUTCOMES.map(|outcome| outcomes.with_label_values(&[method, outcome]))
            }),
            jwks_fetched: fetches.with_label_values(&["fetched"]),
            jwks_failed: fetches.with_label_values(&["failed"]),
            jwks_age_seconds: gauge(
                "tidegate_jwks_age_seconds",
                "seconds since the issuer's keys were last fetched; -1: never",
            )?,
            jwks_keys: gauge("tidegate_jwks_keys", "keys known from the issuer")?,
            unknown_tiers: register(
                registry,
                IntCounter::new(
                    "tidegate_auth_unknown_tiers_total",
                    "clients found with a tier that does not exist, so policies' own quotas hold for them",
                )?,
            )?,
            cached_tokens: cached.with_label_values(&["token"]),
            cached_passwords: cached.with_label_values(&["password"]),
            cached_answers: cached.with_label_values(&["forward_auth"]),
        })
    }

    /// Counts a credential.
    pub fn count(&self, method: Method, outcome: Outcome) {
        if let Some(counter) = self
            .outcomes
            .get(method as usize)
            .and_then(|outcomes| outcomes.get(outcome as usize))
        {
            counter.inc();
        }
    }
}
