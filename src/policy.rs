//! Policies, valid by construction: whom a quota applies to, which bucket it counts in, how it behaves.

mod facts;
mod quota;

pub use facts::Facts;
pub use quota::PolicyQuota;

use crate::config::{self, Algorithm, KeyPart, Mode};
use crate::limit::descriptor::{BucketKey, KeyWriter};
use crate::telemetry::{Metrics, PolicyMetrics};
use std::collections::HashMap;

/// A policy ready to be applied. Policies with `mode: off` are not compiled at all.
pub struct Policy {
    name: String,
    algorithm: Algorithm,
    key: Vec<KeyPart>,
    /// its own quota first, then those of tiers and clients
    quotas: Vec<PolicyQuota>,
    tiers: HashMap<String, usize>,
    /// and when they end to hold, microseconds since the Unix epoch
    overrides: HashMap<String, (usize, u64)>,
    cost: u64,
    enforce: bool,
    methods: Option<Vec<http::Method>>,
    ipv6_prefix: u8,
    status: u16,
    metrics: PolicyMetrics,
}

/// Which of a policy's quotas one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// the policy's own
    Policy,
    /// that of a tier
    Tier(&'a str),
    /// that of a client
    Override(&'a str),
}

/// What is wrong with a policy, and where below it.
#[derive(Debug, PartialEq, Eq)]
pub struct BadPolicy {
    /// keys below the policy, such as `["tiers", "pro"]`
    pub path: Vec<String>,
    /// what is wrong with that
    pub message: String,
}

impl Policy {
    /// Compiles a policy of the configuration; all that is wrong with it at once.
    pub fn compile(source: &config::Policy, metrics: &Metrics) -> Result<Policy, Vec<BadPolicy>> {
        let mut quotas = Vec::new();
        let mut bad = Vec::new();
        let mut add = |path: &[&str], written: &config::Quota| {
            match PolicyQuota::compile(source, written) {
                Ok(quota) => quotas.push(quota),
                Err(error) => bad.push(BadPolicy {
                    path: path
                        .iter()
                        .map(|&key| key.to_owned())
                        .chain([error.field.to_owned()])
                        .collect(),
                    message: error.message,
                }),
            }
            quotas.len().saturating_sub(1)
        };
        add(&["quota"], &source.quota);
        let mut tiers = HashMap::new();
        for (tier, quota) in &source.tiers {
            tiers.insert(tier.clone(), add(&["tiers", tier], quota));
        }
        let mut overrides = HashMap::new();
        for (client, own) in &source.overrides {
            let index = add(&["overrides", client], &own.quota);
            overrides.insert(client.clone(), (index, own.expires_us.unwrap_or(u64::MAX)));
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        let lent = |quota: &PolicyQuota| quota.quota.earned(quota.terms.lease_ttl_us);
        let bound = quotas.iter().map(lent).max().unwrap_or(0);
        if bound > 0 {
            let tally = metrics.store.ahead.leases.number_of(&source.name, bound);
            for quota in &mut quotas {
                quota.terms.tally = tally;
            }
        }
        Ok(Policy {
            name: source.name.clone(),
            algorithm: source.algorithm,
            key: source.key.clone(),
            quotas,
            tiers,
            overrides,
            cost: u64::from(source.cost),
            enforce: source.mode == Mode::Enforce,
            methods: source.methods.clone(),
            ipv6_prefix: source.ipv6_prefix,
            status: source.status,
            metrics: metrics.policy(&source.name),
        })
    }

    /// Its name, unique.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The algorithm's name, for `X-RateLimit-Strategy`.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Units one request takes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The least that any of its quotas can ever hold.
    pub fn smallest_capacity(&self) -> u64 {
        let capacities = self.quotas.iter().map(|quota| quota.quota.capacity());
        capacities.min().unwrap_or(u64::MAX)
    }

    /// Does it refuse, or only report what it would refuse?
    pub fn enforces(&self) -> bool {
        self.enforce
    }

    /// The status of its refusals.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Its counters.
    pub fn metrics(&self) -> &PolicyMetrics {
        &self.metrics
    }

    /// Does it apply to this method? GET implies HEAD.
    pub fn applies_to(&self, method: &http::Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| {
            methods.contains(method)
                || (*method == http::Method::HEAD && methods.contains(&http::Method::GET))
        })
    }

    /// Which quota holds at `now_us`: the client's override, the tier's, or the policy's own.
    pub fn quota_for(&self, client: Option<&str>, tier: Option<&str>, now_us: u64) -> usize {
        let by_client = client
            .filter(|_| !self.overrides.is_empty())
            .and_then(|id| self.overrides.get(id))
            .filter(|(_, expires_us)| now_us < *expires_us)
            .map(|(index, _)| index);
        let by_tier = || {
            tier.filter(|_| !self.tiers.is_empty())
                .and_then(|tier| self.tiers.get(tier))
        };
        by_client.or_else(by_tier).copied().unwrap_or(0)
    }

    /// A quota by the number [`Policy::quota_for`] gave.
    #[allow(
        clippy::indexing_slicing,
        reason = "there is always the policy's own quota, and min keeps the index inside"
    )]
    pub fn quota(&self, index: usize) -> &PolicyQuota {
        &self.quotas[index.min(self.quotas.len() - 1)]
    }

    /// Whose quota the one of this number is.
    pub fn origin(&self, index: usize) -> Origin<'_> {
        // the policy's own comes first, whatever refers to it
        if index == 0 {
            return Origin::Policy;
        }
        let mut overrides = self.overrides.iter();
        let mut tiers = self.tiers.iter();
        let client = overrides.find(|(_, (at, _))| *at == index);
        let mut tier = || tiers.find(|(_, at)| **at == index);
        client
            .map(|(client, _)| Origin::Override(client))
            .or_else(|| tier().map(|(tier, _)| Origin::Tier(tier)))
            .unwrap_or(Origin::Policy)
    }

    /// What its buckets are counted by.
    pub fn key(&self) -> &[KeyPart] {
        &self.key
    }

    /// Does its bucket depend on more than client, address, tier and route?
    pub fn needs_a_request(&self) -> bool {
        let more = |part: &KeyPart| {
            matches!(
                part,
                KeyPart::Method
                    | KeyPart::Host
                    | KeyPart::Path
                    | KeyPart::Header(_)
                    | KeyPart::JwtClaim(_)
            )
        };
        self.key.iter().any(more)
    }

    /// Does it count, or allow, otherwise for another client?
    pub fn depends_on_the_client(&self) -> bool {
        let by_client = |part: &KeyPart| matches!(part, KeyPart::Client | KeyPart::Tier);
        let quotas = !self.tiers.is_empty() || !self.overrides.is_empty();
        quotas || self.key.iter().any(by_client)
    }

    /// The bucket a request counts in.
    pub fn bucket_key(&self, facts: &Facts<'_>) -> BucketKey {
        let mut key = self.key_writer();
        for part in &self.key {
            facts.write(part, self.ipv6_prefix, &mut key);
        }
        key.finish()
    }

    /// The bucket of a timeline's key, for simulation without a request.
    pub fn bucket_key_of(&self, text: &str) -> BucketKey {
        let mut key = self.key_writer();
        key.value(b'k', text.as_bytes());
        key.finish()
    }

    fn key_writer(&self) -> KeyWriter {
        KeyWriter::new(quota::letter(self.algorithm), &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};

    fn compile(policy: &str) -> Result<Policy, Vec<BadPolicy>> {
        let text = format!(
            "tiers: {{ pro: {{}} }}\nclients: {{ acme: {{ tier: pro }} }}\nupstreams: {{ u: {{ peers: [{{ address: 127.0.0.1:1 }}] }} }}\n\
             routes: [{{ name: r, match: {{ path: / }}, upstream: u }}]\npolicies: {{ p: {policy} }}\n"
        );
        let loaded = parse(&text, "test.yaml", &Environment::from_pairs([("", "")]))
            .unwrap_or_else(|e| panic!("{e:?}"));
        Policy::compile(&loaded.config.policies["p"], &Metrics::new().unwrap())
    }

    #[test]
    fn an_override_beats_a_tier_and_a_tier_beats_the_policys_own_quota() {
        let policy = compile(
            "{ key: [client], algorithm: token_bucket, quota: { count: 1, period: 1s }, \
             tiers: { pro: { count: 2, period: 1s } }, overrides: { acme: { count: 3, period: 1s } } }",
        )
        .unwrap_or_else(|e| panic!("{e:?}"));
        let limit = |client, tier| policy.quota(policy.quota_for(client, tier, 0)).limit;
        assert_eq!(limit(Some("acme"), Some("pro")), 3);
        assert_eq!(limit(Some("other"), Some("pro")), 2);
        assert_eq!(limit(Some("other"), Some("unknown")), 1);
        assert_eq!(limit(None, None), 1);
    }

    #[test]
    fn an_override_holds_until_it_expires() {
        let policy = compile(
            "{ key: [client], algorithm: fixed_window, quota: { count: 1, period: 1s }, overrides: \
             { acme: { count: 3, period: 1s, expires: 1970-01-01T00:00:10Z } } }",
        )
        .unwrap_or_else(|e| panic!("{e:?}"));
        let limit = |now_us| {
            policy
                .quota(policy.quota_for(Some("acme"), None, now_us))
                .limit
        };
        assert_eq!([limit(9_999_999), limit(10_000_000)], [3, 1]);
    }

    #[test]
    fn get_implies_head() {
        let policy = compile("{ key: [client], algorithm: fixed_window, quota: { count: 1, period: 1s }, methods: [GET] }")
            .unwrap_or_else(|e| panic!("{e:?}"));
        assert!(policy.applies_to(&http::Method::HEAD));
        assert!(!policy.applies_to(&http::Method::POST));
    }

    #[test]
    fn an_unknown_time_zone_is_named_with_its_place() {
        let bad = compile(
            "{ key: [client], algorithm: fixed_window, quota: { count: 1, calendar: day, time_zone: Mars/Olympus } }",
        )
        .err()
        .unwrap();
        assert_eq!(bad[0].path, ["quota", "time_zone"]);
        assert!(bad[0].message.contains("Mars/Olympus"));
    }
}
