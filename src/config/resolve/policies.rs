//! Policies: what they refer to exists, and the quota follows from the bucket.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::quota::{Frame, resolve as quota};
use super::{Names, Review, by_name, instead_of, no_such_tier, not_empty};
use crate::config::model::{Algorithm, Consistency, KeyPart, Override, Policy, Quota};
use crate::config::notation::{MethodName, Written};
use crate::config::place::Place;
use crate::config::problem::quoted;
use crate::config::raw;

/// The most descriptors a key may have; each lengthens every bucket key.
const MOST_DESCRIPTORS: usize = 16;
/// How long leased units may live: shorter saves no call, longer would miss what is lost for too long.
const LEASES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(10)];

pub(super) fn resolve(
    raw: BTreeMap<String, raw::Policy>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) -> BTreeMap<String, Policy> {
    let place = Place::ROOT.then("policies");
    by_name(raw.into_iter().map(|(name, raw)| {
        let policy = policy(&name, raw, &place.then(&name), names, review);
        (name, policy)
    }))
}

fn policy(
    name: &str,
    raw: raw::Policy,
    place: &Place<'_>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) -> Option<Policy> {
    routes(raw.routes.as_ref(), &place.then("routes"), names, review);
    not_empty(raw.methods.as_ref(), &place.then("methods"), review);
    can_be_leased(&raw, &place.then("consistency"), review);
    only_overrides_expire(&raw, place, review);
    let key = raw.key.map(|raw| {
        raw.into_iter()
            .flatten()
            .map(|part| part.value.0)
            .collect::<Vec<_>>()
    });
    if let Some(key) = &key {
        descriptor(key, &place.then("key"), review);
        quota_follows_key(key, place, review);
    }
    let tiers = place.then("tiers");
    for tier in raw
        .tiers
        .keys()
        .filter(|tier| !names.tiers.contains(tier.as_str()))
    {
        no_such_tier(tier, &quoted(tier), &tiers.then(tier), names, review);
    }
    // a client of the database is looked up when it comes, so nobody knows all of them
    if !names.elsewhere {
        known_clients(
            &place.then("overrides"),
            raw.overrides.keys(),
            &names.clients,
            review,
        );
    }
    let lease_ttl = review.between(&raw.lease_ttl, LEASES, &place.then("lease_ttl"));
    let frame = Frame {
        algorithm: raw.algorithm,
        cost: raw.cost,
    };
    let base = raw
        .quota
        .as_ref()
        .and_then(|raw| quota(raw, frame, &place.then("quota"), review));
    let tiers = quotas(&raw.tiers, frame, &place.then("tiers"), review);
    let overrides = overrides(&raw.overrides, frame, &place.then("overrides"), review);
    Some(Policy {
        name: name.to_owned(),
        routes: raw
            .routes
            .map(|routes| routes.into_iter().flatten().collect()),
        key: key?,
        algorithm: raw.algorithm?,
        quota: base?,
        tiers,
        overrides,
        cost: raw.cost,
        consistency: raw.consistency,
        lease_ttl,
        on_outage: raw.on_outage,
        mode: raw.mode,
        methods: raw.methods.map(given),
        ipv6_prefix: raw.ipv6_prefix,
        status: raw.status,
    })
}

/// The methods that were not pruned.
fn given(methods: Vec<Option<Written<MethodName>>>) -> Vec<http::Method> {
    let methods = methods.into_iter().flatten();
    methods.map(|method| method.value.0).collect()
}

fn routes(
    raw: Option<&Vec<Option<String>>>,
    place: &Place<'_>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) {
    not_empty(raw, place, review);
    for (index, route) in raw.into_iter().flatten().enumerate() {
        if let Some(route) = route
            .as_deref()
            .filter(|route| !names.routes.contains(route))
        {
            let place = place.then(index);
            let message = format!("there is no route {}", review.shown(&place));
            review.error(&place, message, instead_of(route, &names.routes, "routes"));
        }
    }
}

/// Checks that the keys of `overrides` exist.
fn known_clients<'k>(
    place: &Place<'_>,
    ids: impl Iterator<Item = &'k String>,
    known: &HashSet<&str>,
    review: &mut Review<'_>,
) {
    for id in ids.filter(|id| !known.contains(id.as_str())) {
        let message = format!("there is no client {}", quoted(id));
        review.error_even_if_broken(&place.then(id), message, instead_of(id, known, "clients"));
    }
}

fn descriptor(key: &[KeyPart], place: &Place<'_>, review: &mut Review<'_>) {
    if key.is_empty() {
        let hint = "write `[global]` for one bucket for all, or `[client]` for one per client";
        review.error(place, "the key is empty", hint);
    }
    if key.len() > MOST_DESCRIPTORS {
        review.error(
            place,
            "the key is too long",
            format!("name at most {MOST_DESCRIPTORS} descriptors"),
        );
    } else if (1..key.len()).any(|index| key[..index].contains(&key[index])) {
        review.error(place, "the same descriptor occurs twice", "name each once");
    }
    let chosen = |part: &KeyPart| {
        matches!(
            part,
            KeyPart::Header(_) | KeyPart::Method | KeyPart::Host | KeyPart::Path
        )
    };
    if key.iter().any(|part| matches!(part, KeyPart::Header(_))) && key.iter().all(chosen) {
        let hint = "add `client` or `ip`: whoever sends another value gets another bucket";
        review.warning(
            place,
            "the key consists only of what the client chooses",
            hint,
        );
    }
}

/// Two requests that share a bucket must have the same quota.
fn quota_follows_key(key: &[KeyPart], place: &Place<'_>, review: &mut Review<'_>) {
    if review.is_broken(&place.then("key")) {
        return;
    }
    let has = |part| key.contains(&part);
    for (section, allowed, hint) in [
        (
            "tiers",
            has(KeyPart::Client) || has(KeyPart::Tier),
            "add `client` or `tier` to the key, or remove `tiers`",
        ),
        (
            "overrides",
            has(KeyPart::Client),
            "add `client` to the key, or remove `overrides`",
        ),
    ] {
        let steps = place.then(section).steps();
        if !allowed && !review.locator.keys(&steps).is_empty() {
            let message = format!(
                "`{section}` gives several quotas to one bucket: the key does not tell them apart"
            );
            review.error_even_if_broken(&place.then(section), message, hint);
        }
    }
}

fn can_be_leased(raw: &raw::Policy, place: &Place<'_>, review: &mut Review<'_>) {
    let leased = raw.consistency == Consistency::Leased;
    let Some(algorithm) = raw.algorithm.filter(|_| leased) else {
        return;
    };
    let reason = match algorithm {
        Algorithm::LeakyBucket => "every request's delay follows from the one before it",
        Algorithm::Concurrency => "what is in flight is not spent and cannot be taken in advance",
        _ => return,
    };
    let message = format!("{algorithm} is never leased: {reason}");
    review.error(place, message, "write `strict`, or leave it out");
}

fn quotas(
    raw: &BTreeMap<String, raw::Quota>,
    frame: Frame,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> BTreeMap<String, Quota> {
    by_name(
        raw.iter()
            .map(|(name, raw)| (name.clone(), quota(raw, frame, &place.then(name), review))),
    )
}

fn overrides(
    raw: &BTreeMap<String, raw::Quota>,
    frame: Frame,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> BTreeMap<String, Override> {
    by_name(raw.iter().map(|(client, raw)| {
        let expires_us = raw.expires.as_ref().map(|moment| moment.value.0);
        let quota = quota(raw, frame, &place.then(client), review);
        let own = quota.map(|quota| Override { quota, expires_us });
        (client.clone(), own)
    }))
}

fn only_overrides_expire(raw: &raw::Policy, place: &Place<'_>, review: &mut Review<'_>) {
    let hint = "remove it; it belongs to the quotas in `overrides`";
    let mut report = |place: &Place<'_>| {
        review.error(&place.then("expires"), "this quota cannot expire", hint);
    };
    if raw
        .quota
        .as_ref()
        .is_some_and(|quota| quota.expires.is_some())
    {
        report(&place.then("quota"));
    }
    for (tier, quota) in &raw.tiers {
        if quota.expires.is_some() {
            report(&place.then("tiers").then(tier));
        }
    }
}

impl Algorithm {
    /// The quota's keys that this algorithm uses beside `count`.
    pub(super) fn uses(self) -> &'static [&'static str] {
        match self {
            Algorithm::TokenBucket => &["period", "burst"],
            Algorithm::SlidingWindow | Algorithm::SlidingWindowCounter => &["period"],
            Algorithm::FixedWindow => &["period", "calendar", "time_zone"],
            Algorithm::LeakyBucket => &["period", "max_delay"],
            Algorithm::Concurrency => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{errors, loaded, problems, with_policy};

    const BASE: &str = "algorithm: token_bucket\nquota: { count: 5, period: 1s }\n";

    #[test]
    fn references_must_exist() {
        let text = with_policy(&format!(
            "key: [client]\nroutes: [r, x]\n{BASE}tiers: {{ pr: {{ count: 5, period: 1s }} }}\noverrides: {{ acne: {{ count: 5, period: 1s }} }}"
        ));
        assert_eq!(
            problems(&text),
            [
                "8:17: policies.p.routes[1]: there is no route `x`; hint: did you mean `r`?",
                "11:14: policies.p.tiers.pr: there is no tier `pr`; hint: did you mean `pro`?",
                "12:18: policies.p.overrides.acne: there is no client `acne`; hint: did you mean `acme`?",
            ]
        );
    }

    #[test]
    fn the_quota_must_follow_from_the_bucket() {
        let several = "tiers: { pro: { count: 9, period: 1s } }\noverrides: { acme: { count: 9, period: 1s } }";
        let both = errors(&with_policy(&format!("key: [ip]\n{BASE}{several}")));
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(
            both[0].starts_with("10:5 policies.p.tiers: ")
                && both[1].starts_with("11:5 policies.p.overrides: ")
        );
        let one = errors(&with_policy(&format!("key: [tier]\n{BASE}{several}")));
        assert!(
            one.len() == 1 && one[0].contains("policies.p.overrides"),
            "{one:?}"
        );
        assert!(
            errors(&with_policy(&format!(
                "key: [client, route]\n{BASE}{several}"
            )))
            .is_empty()
        );
    }

    #[test]
    fn keys_are_not_empty_and_name_nothing_twice() {
        assert_eq!(
            errors(&with_policy(&format!("key: []\n{BASE}"))),
            ["7:5 policies.p.key: the key is empty"]
        );
        assert!(
            errors(&with_policy(&format!("key: [ip, ip]\n{BASE}")))[0].contains("occurs twice")
        );
    }

    #[test]
    fn a_key_of_headers_only_draws_a_warning() {
        let found = problems(&with_policy(&format!(
            "key: ['header:X-Org', path]\n{BASE}"
        )));
        assert!(
            found[0].starts_with("7:5: warning: policies.p.key"),
            "{found:?}"
        );
        assert!(problems(&with_policy(&format!("key: ['header:X-Org', ip]\n{BASE}"))).is_empty());
        assert!(problems(&with_policy(&format!("key: ['jwt:org']\n{BASE}"))).is_empty());
    }

    #[test]
    fn a_policy_is_read_as_written() {
        let text = with_policy(&format!(
            "key: ['header:X-Org', 'jwt:sub', global]\n{BASE}mode: off\nconsistency: leased\non_outage: deny\ncost: 0\nmethods: [POST]"
        ));
        let config = loaded(&text).config;
        let policy = &config.policies["p"];
        let header = http::HeaderName::from_static("x-org");
        assert_eq!(
            policy.key,
            [
                KeyPart::Header(header),
                KeyPart::JwtClaim("sub".into()),
                KeyPart::Global
            ]
        );
        assert_eq!(
            (policy.mode, policy.cost, policy.status),
            (crate::config::Mode::Off, 0, 429)
        );
        assert_eq!(policy.lease_ttl, Duration::from_millis(100));
        assert_eq!(policy.routes, None);
    }

    #[test]
    fn a_lease_is_short_but_not_too_short() {
        let with = |ttl: &str| {
            problems(&with_policy(&format!(
                "key: [ip]\n{BASE}consistency: leased\nlease_ttl: {ttl}"
            )))
        };
        assert!(with("10ms").is_empty() && with("10s").is_empty());
        for ttl in ["9ms", "10001ms", "0s"] {
            let problem = format!(
                "11:16: policies.p.lease_ttl: `{ttl}` is not allowed; \
                 hint: write a duration from `10ms` to `10s`"
            );
            assert_eq!(with(ttl), [problem]);
        }
    }

    #[test]
    fn what_is_never_leased_says_why() {
        for (lines, reason) in [
            (
                "algorithm: leaky_bucket\nquota: { count: 5, period: 1s }",
                "leaky_bucket is never leased: every request's delay",
            ),
            (
                "algorithm: concurrency\nquota: { count: 5 }",
                "concurrency is never leased: what is in flight",
            ),
        ] {
            let with = |consistency: &str| {
                errors(&with_policy(&format!(
                    "key: [ip]\n{lines}\nconsistency: {consistency}"
                )))
            };
            let found = with("leased");
            assert!(
                found[0].starts_with("10:18 policies.p.consistency: ") && found[0].contains(reason),
                "{found:?}"
            );
            assert!(with("strict").is_empty());
        }
    }

    #[test]
    fn the_algorithms_names_are_those_of_the_file() {
        for name in [
            "token_bucket",
            "sliding_window",
            "sliding_window_counter",
            "fixed_window",
            "leaky_bucket",
        ] {
            let text = with_policy(&format!(
                "key: [ip]\nalgorithm: {name}\nquota: {{ count: 5, period: 1s }}"
            ));
            assert_eq!(loaded(&text).config.policies["p"].algorithm.name(), name);
        }
    }
}
