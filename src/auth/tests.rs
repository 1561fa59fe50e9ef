//! Who is recognised by which credential, in which order, and what is remembered of it.

use super::*;
use crate::config::{Environment, parse};
use crate::telemetry::Metrics;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

const NOW_US: u64 = 1_900_000_000_000_000;
const SECRET: &str = "a-secret-of-at-least-32-characters";

const CLIENTS: &str = "tiers: { free: {}, pro: {} }
clients:
  a: { api_keys: [{ plain: one }, { plain: uno, scopes: ['orders:read'] }] }
  b: { tier: free, api_keys: [{ plain: two }] }
";

const TOKENS: &str = "auth: { jwt: { algorithms: [HS256], keys: [{ secret: a-secret-of-at-least-32-characters }] } }\n";

struct Fixture {
    authenticator: Authenticator,
    metrics: Metrics,
}

fn fixture(auth: &str) -> Fixture {
    let metrics = Metrics::new().unwrap();
    let sources = Sources::new(metrics.auth.clone(), None);
    let authenticator = compiled(&format!("{CLIENTS}{auth}"), &sources, None);
    Fixture {
        authenticator,
        metrics,
    }
}

fn compiled(text: &str, sources: &Arc<Sources>, previous: Option<&Authenticator>) -> Authenticator {
    let loaded = parse(text, "test.yaml", &Environment::from_pairs([("", "")]));
    let config = loaded.unwrap_or_else(|e| panic!("{e:?}")).config;
    let client = |(id, written): (&String, &config::Client)| {
        (
            id.clone(),
            Arc::new(Client::new(id, written.tier.as_deref().map(Arc::from))),
        )
    };
    let clients = config.clients.iter().map(client).collect();
    let authenticator = Authenticator::compile(&config, &clients, sources, previous);
    authenticator.unwrap_or_else(|e| panic!("{e:?}"))
}

fn token(claims: Value) -> String {
    let mut all = json!({ "exp": NOW_US / 1_000_000 + 3_600 });
    all.as_object_mut()
        .unwrap()
        .extend(claims.as_object().unwrap().clone());
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    format!("Bearer {}", encode(&Header::default(), &all, &key).unwrap())
}

impl Fixture {
    fn found(&self, headers: &[(&str, &str)], looking: Looking, now_us: u64) -> Found {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        self.authenticator.identify(&map, now_us, || looking)
    }

    fn identity(&self, headers: &[(&str, &str)]) -> Identity {
        match self.found(headers, Looking::Allowed, NOW_US) {
            Found::Known(identity) => identity,
            other => panic!("{other:?}"),
        }
    }

    /// The client's id, or what else was found.
    fn who(&self, headers: &[(&str, &str)], looking: Looking) -> String {
        match self.found(headers, looking, NOW_US) {
            Found::Known(identity) => identity
                .client
                .map_or("Anonymous".to_owned(), |client| client.id.to_string()),
            Found::Invalid(_) => "Invalid".to_owned(),
            other => format!("{other:?}"),
        }
    }
}

fn keys<'k>(keys: &[&'k str]) -> Vec<(&'static str, &'k str)> {
    keys.iter().map(|key| ("x-api-key", *key)).collect()
}

#[test]
fn keys_are_recognised_by_their_hash() {
    let fixture = fixture("");
    let who = |key| fixture.who(&keys(&[key]), Looking::Allowed);
    assert_eq!(
        [who("one"), who("One"), who("")],
        ["a", "Invalid", "Invalid"]
    );
    assert_eq!(fixture.who(&[], Looking::Allowed), "Anonymous");
}

#[test]
fn two_keys_must_name_the_same_client() {
    let fixture = fixture("");
    let who = |two: [&str; 2]| fixture.who(&keys(&two), Looking::Allowed);
    assert_eq!(who(["one", "uno"]), "a");
    assert_eq!(who(["one", "two"]), "Invalid");
}

#[test]
fn under_guard_only_what_was_valid_before_is_recognised() {
    let fixture = fixture(TOKENS);
    let (token, other) = (token(json!({ "sub": "x" })), token(json!({ "sub": "y" })));
    let credentials = |text: &str| match text.starts_with("Bearer") {
        true => vec![("authorization".to_owned(), text.to_owned())],
        false => vec![("x-api-key".to_owned(), text.to_owned())],
    };
    let who = |text: &str, looking| {
        let headers = credentials(text);
        let headers: Vec<_> = headers
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        fixture.who(&headers, looking)
    };
    for (credential, client) in [("one", "a"), (&token, "x")] {
        assert_eq!(who(credential, Looking::RememberedOnly), "NotLookedAt");
        assert_eq!(who(credential, Looking::Allowed), client);
        assert_eq!(who(credential, Looking::RememberedOnly), client);
    }
    assert_eq!(who("bad", Looking::RememberedOnly), "NotLookedAt");
    assert_eq!(who(&other, Looking::RememberedOnly), "NotLookedAt");
    assert_eq!(who("Bearer x.y.z", Looking::RememberedOnly), "NotLookedAt");
}

#[test]
fn a_key_and_a_token_must_name_the_same_client_and_the_key_comes_first() {
    let fixture = fixture(TOKENS);
    let (of_a, of_b) = (
        token(json!({ "sub": "a", "tier": "pro", "scope": "x" })),
        token(json!({ "sub": "b" })),
    );
    let both = |token: &str| {
        let headers = [("authorization", token), ("x-api-key", "one")];
        fixture.who(&headers, Looking::Allowed)
    };
    assert_eq!([both(&of_a), both(&of_b)], ["a", "Invalid"]);
    assert_eq!(both("Bearer nonsense"), "Invalid");
    assert_eq!(both("bearer"), "Invalid");
    // another scheme is not ours
    assert_eq!(both("Basic eDp5"), "a");
    let identity = fixture.identity(&[("authorization", &of_a), ("x-api-key", "uno")]);
    assert!(identity.api_key_verified && identity.authorization_verified);
    assert!(identity.has_scope("x") && identity.has_scope("orders:read"));
    assert!(!identity.has_scope("orders"));
    assert_eq!(
        identity.client.unwrap().tier,
        None,
        "the key's, not the token's"
    );
}

#[test]
fn without_tokens_in_the_configuration_authorization_is_not_looked_at() {
    let fixture = fixture("");
    let identity = fixture.identity(&[("authorization", "Bearer x")]);
    assert_eq!(identity, Identity::default());
}

#[test]
fn the_files_tier_beats_the_claim_and_a_tier_that_does_not_exist_is_none() {
    let fixture = fixture(TOKENS);
    let tier = |claims: Value| {
        let identity = fixture.identity(&[("authorization", &token(claims))]);
        identity.client.unwrap().tier.clone()
    };
    assert_eq!(
        tier(json!({ "sub": "b", "tier": "pro" })).as_deref(),
        Some("free")
    );
    assert_eq!(
        tier(json!({ "sub": "a", "tier": "pro" })).as_deref(),
        Some("pro")
    );
    assert_eq!(
        tier(json!({ "sub": "new", "tier": "pro" })).as_deref(),
        Some("pro")
    );
    assert_eq!(tier(json!({ "sub": "new" })), None);
    assert_eq!(fixture.metrics.auth.unknown_tiers.get(), 0);
    assert_eq!(tier(json!({ "sub": "new", "tier": "platinum" })), None);
    assert_eq!(tier(json!({ "sub": "new", "tier": ["pro"] })), None);
    assert_eq!(fixture.metrics.auth.unknown_tiers.get(), 1);
}

#[test]
fn a_remembered_token_expires_all_the_same() {
    let fixture = fixture(TOKENS);
    let token = token(json!({ "sub": "x", "exp": NOW_US / 1_000_000 + 60 }));
    let headers = [("authorization", token.as_str())];
    let at = |seconds: u64| fixture.found(&headers, Looking::Allowed, NOW_US + seconds * 1_000_000);
    assert!(matches!(at(0), Found::Known(_)));
    assert!(matches!(at(89), Found::Known(_)));
    assert!(matches!(at(90), Found::Invalid(Method::Jwt)));
}

#[test]
fn tokens_beyond_8_kib_are_not_even_hashed() {
    let fixture = fixture(TOKENS);
    let huge = format!("Bearer {}", "x".repeat(1 << 20));
    assert_eq!(
        fixture.who(&[("authorization", &huge)], Looking::Allowed),
        "Invalid"
    );
}

#[test]
fn the_challenge_names_what_is_configured() {
    let challenge = |auth| fixture(auth).authenticator.challenge().clone();
    assert_eq!(challenge(""), "ApiKey realm=\"tidegate\"");
    assert_eq!(
        challenge(TOKENS),
        "ApiKey realm=\"tidegate\", Bearer realm=\"tidegate\""
    );
}

#[test]
fn what_is_remembered_outlives_a_change_of_the_snapshot_unless_it_depends_on_it() {
    let before = fixture(TOKENS);
    let token = token(json!({ "sub": "x" }));
    let credentials = [("authorization", token.as_str())];
    assert_eq!(before.who(&credentials, Looking::Allowed), "x");
    assert_eq!(before.who(&keys(&["one"]), Looking::Allowed), "a");
    let after = |text: &str| {
        let sources = &before.authenticator.sources;
        let fixture = Fixture {
            authenticator: compiled(text, sources, Some(&before.authenticator)),
            metrics: Metrics::new().unwrap(),
        };
        [credentials.to_vec(), keys(&["one"])]
            .map(|headers| fixture.who(&headers, Looking::RememberedOnly) != "NotLookedAt")
    };
    let with = |text: &str| after(&format!("{CLIENTS}{text}"));
    let policy = "policies: { p: { key: [client], algorithm: token_bucket, quota: { count: 1, period: 1h } } }\n";
    assert_eq!(with(TOKENS), [true, true]);
    assert_eq!(with(&format!("{TOKENS}{policy}")), [true, true]);
    let counted = policy.replace("[client]", "['jwt:org']");
    assert_eq!(with(&format!("{TOKENS}{counted}")), [false, true]);
    assert_eq!(with(&TOKENS.replace("a-secret", "b-secret")), [false, true]);
    assert_eq!(
        with(&TOKENS.replace("HS256]", "HS256], issuer: x")),
        [false, true]
    );
    let with_clients =
        |from: &str, to: &str| after(&format!("{CLIENTS}{TOKENS}").replace(from, to));
    assert_eq!(with_clients("pro: {}", "gold: {}"), [false, true]);
    assert_eq!(with_clients("tier: free, ", ""), [false, false]);
    assert_eq!(with_clients("plain: two", "plain: three"), [true, false]);
}

#[test]
fn a_snapshot_that_is_over_forgets_what_the_next_one_has_not_taken_over() {
    let before = fixture(TOKENS);
    let token = token(json!({ "sub": "x" }));
    before.who(&[("authorization", &token)], Looking::Allowed);
    before.who(&keys(&["one"]), Looking::Allowed);
    let sources = &before.authenticator.sources;
    let held = || {
        let tokens = before.authenticator.tokens.as_ref().unwrap();
        let key = before.authenticator.remembered.get(b"one");
        (tokens.remembered(), key.is_some())
    };
    let same = compiled(
        &format!("{CLIENTS}{TOKENS}"),
        sources,
        Some(&before.authenticator),
    );
    before.authenticator.forget_what_is_not_in(&same);
    assert_eq!(held(), (1, true));
    let other = compiled(CLIENTS, sources, Some(&before.authenticator));
    before.authenticator.forget_what_is_not_in(&other);
    assert_eq!(held(), (0, true));
    let other = compiled(TOKENS, sources, Some(&before.authenticator));
    before.authenticator.forget_what_is_not_in(&other);
    assert_eq!(held(), (0, false));
}
