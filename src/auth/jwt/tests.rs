//! Tokens good and bad, signed with the keys in `tests/keys`.

use super::*;
use crate::config::{Environment, parse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::time::Duration;

const NOW: u64 = 1_900_000_000;
const SECRET: &str = "a-secret-of-at-least-32-characters";

fn key_file(name: &str) -> String {
    format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))
}

fn private(name: &str) -> Vec<u8> {
    std::fs::read(key_file(name)).unwrap()
}

fn signer(algorithm: Algorithm) -> EncodingKey {
    use jsonwebtoken::AlgorithmFamily::*;
    match (algorithm.family(), algorithm) {
        (Hmac, _) => EncodingKey::from_secret(SECRET.as_bytes()),
        (Rsa, _) => EncodingKey::from_rsa_pem(&private("rsa")).unwrap(),
        (Ec, Algorithm::ES384) => EncodingKey::from_ec_pem(&private("p384")).unwrap(),
        (Ec, _) => EncodingKey::from_ec_pem(&private("p256")).unwrap(),
        (Ed, _) => EncodingKey::from_ed_pem(&private("ed25519")).unwrap(),
    }
}

const ALL: &str =
    "[HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]";

fn verifier_of(algorithms: &str, keys: &str) -> Verifier {
    let text = format!(
        "auth:\n  jwt:\n    issuer: https://issuer.example\n    audience: tidegate\n    algorithms: {algorithms}\n    keys: [{keys}]\n    claims: {{ tier: plan.tier }}\n"
    );
    let loaded = parse(&text, "test.yaml", &Environment::from_pairs([("", "")]));
    let jwt = loaded
        .unwrap_or_else(|e| panic!("{e:?}"))
        .config
        .auth
        .jwt
        .unwrap();
    Verifier::new(&jwt, vec!["org".into()], None).unwrap_or_else(|e| panic!("{e:?}"))
}

fn all_keys() -> String {
    let pem = ["rsa", "p256", "p384", "ed25519"].map(|name| {
        format!(
            "{{ kid: {name}, pem_file: {} }}",
            key_file(&format!("{name}.pub"))
        )
    });
    format!("{{ kid: hs, secret: {SECRET} }}, {}", pem.join(", "))
}

fn verifier() -> Verifier {
    verifier_of(ALL, &all_keys())
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "tidegate", "sub": "acme", "exp": NOW + 600,
        "plan": { "tier": "pro" }, "scope": "orders:read orders:write", "org": 7,
    })
}

/// Claims with some of them replaced, or (null) left out.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value.is_null() {
            true => drop(claims.as_object_mut().unwrap().remove(name)),
            false => claims[name] = value.clone(),
        }
    }
    claims
}

fn signed(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let header = Header {
        kid: kid.map(str::to_owned),
        ..Header::new(algorithm)
    };
    encode(&header, claims, &signer(algorithm)).unwrap()
}

/// A token whose header and payload are these texts, signed with the secret.
fn by_hand(header: &str, payload: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(header), part(payload));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn verify(token: &str) -> Result<Claimed, Unproven> {
    verifier().verify(token, NOW * 1_000_000)
}

fn refused(token: &str) -> &'static str {
    match verify(token) {
        Err(Unproven::Invalid(why)) => why,
        other => panic!("{other:?}: {token}"),
    }
}

#[test]
fn every_algorithm_is_verified_and_the_claims_are_read() {
    for (algorithm, kid) in [
        (Algorithm::HS256, "hs"),
        (Algorithm::HS384, "hs"),
        (Algorithm::HS512, "hs"),
        (Algorithm::RS256, "rsa"),
        (Algorithm::RS384, "rsa"),
        (Algorithm::RS512, "rsa"),
        (Algorithm::PS256, "rsa"),
        (Algorithm::PS384, "rsa"),
        (Algorithm::PS512, "rsa"),
        (Algorithm::ES256, "p256"),
        (Algorithm::ES384, "p384"),
        (Algorithm::EdDSA, "ed25519"),
    ] {
        for kid in [Some(kid), None] {
            let claimed = verify(&signed(algorithm, kid, &claims()));
            let claimed = claimed.unwrap_or_else(|why| panic!("{algorithm:?} {kid:?}: {why:?}"));
            assert_eq!(claimed.client, "acme");
            assert_eq!(claimed.tier.as_deref(), Some("pro"));
            assert_eq!(claimed.scopes, ["orders:read", "orders:write"]);
            assert_eq!(claimed.counted, [("org".into(), "7".into())]);
            assert_eq!(claimed.expires_us, (NOW + 630) * 1_000_000);
        }
    }
}

#[test]
fn only_listed_algorithms_are_accepted() {
    let strict = verifier_of("[RS256, HS256]", &all_keys_of_rsa());
    let now_us = NOW * 1_000_000;
    assert!(
        strict
            .verify(&signed(Algorithm::RS256, None, &claims()), now_us)
            .is_ok()
    );
    for algorithm in [Algorithm::RS512, Algorithm::PS256, Algorithm::HS512] {
        let token = signed(algorithm, None, &claims());
        assert_eq!(
            strict.verify(&token, now_us),
            Err(Unproven::Invalid("its algorithm is not accepted"))
        );
    }
}

fn all_keys_of_rsa() -> String {
    format!(
        "{{ kid: hs, secret: {SECRET} }}, {{ kid: rsa, pem_file: {} }}",
        key_file("rsa.pub")
    )
}

#[test]
fn no_algorithm_at_all_is_none_of_ours() {
    let payload = claims().to_string();
    for alg in ["none", "None", "NONE", "", "HS256 ", "hs256"] {
        let token = by_hand(&json!({ "alg": alg }).to_string(), &payload);
        assert_eq!(refused(&token), "its algorithm is not accepted", "{alg}");
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(refused(&format!("{message}.")), "it is malformed", "{alg}");
        assert_eq!(refused(message), "it is malformed", "{alg}");
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let public = std::fs::read(key_file("rsa.pub")).unwrap();
    for text in [public.as_slice(), public.trim_ascii_end()] {
        let forger = EncodingKey::from_secret(text);
        for kid in [Some("rsa".to_owned()), None] {
            let header = Header {
                kid,
                ..Header::new(Algorithm::HS256)
            };
            let token = encode(&header, &claims(), &forger).unwrap();
            assert_eq!(refused(&token), "no key made its signature");
        }
    }
}

#[test]
fn a_key_id_is_only_ever_compared() {
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "hs' OR '1'='1",
        "hs'; DROP TABLE keys; --",
        "hs\0",
        "",
        "https://evil.example/jwks.json",
    ] {
        let token = signed(Algorithm::HS256, Some(kid), &claims());
        assert_eq!(refused(&token), "no key made its signature", "{kid}");
    }
    let long = "k".repeat(513);
    assert_eq!(
        refused(&signed(Algorithm::HS256, Some(&long), &claims())),
        "it is malformed"
    );
}

#[test]
fn keys_that_a_token_brings_along_are_ignored() {
    let jwk = r#"{"kty":"oct","k":"Zm9yZ2Vk"}"#;
    let header = format!(
        r#"{{"alg":"HS256","kid":"new","jwk":{jwk},"jku":"https://evil.example/","x5u":"https://evil.example/"}}"#
    );
    assert_eq!(
        refused(&by_hand(&header, &claims().to_string())),
        "no key made its signature"
    );
}

#[test]
fn what_is_critical_and_not_understood_is_refused() {
    let header = r#"{"alg":"HS256","crit":["exp"]}"#;
    assert_eq!(
        refused(&by_hand(header, &claims().to_string())),
        "it is malformed"
    );
}

#[test]
fn times_are_checked_with_leeway() {
    let at = |changes| verify(&signed(Algorithm::HS256, None, &with(changes)));
    let invalid = |why| Err(Unproven::Invalid(why));
    assert!(at(json!({ "exp": NOW - 29 })).is_ok());
    assert_eq!(at(json!({ "exp": NOW - 30 })), invalid("it has expired"));
    assert_eq!(at(json!({ "exp": 0 })), invalid("it has expired"));
    assert_eq!(at(json!({ "exp": null })), invalid("it never expires"));
    for wrong in [
        json!("1900000600"),
        json!(true),
        json!(-1),
        json!([NOW]),
        json!({}),
    ] {
        assert_eq!(
            at(json!({ "exp": wrong })),
            invalid("its `exp` is no date"),
            "{wrong}"
        );
    }
    assert!(at(json!({ "exp": NOW as f64 + 0.5 })).is_ok());
    assert!(at(json!({ "exp": 1e300 })).is_ok());
    assert!(at(json!({ "nbf": NOW + 30 })).is_ok());
    assert_eq!(
        at(json!({ "nbf": NOW + 31 })),
        invalid("it is not valid yet")
    );
    assert_eq!(
        at(json!({ "nbf": "soon" })),
        invalid("its `nbf` is no date")
    );
}

#[test]
fn issuer_and_audience_are_checked() {
    let at = |changes| verify(&signed(Algorithm::HS256, None, &with(changes)));
    let invalid = |why| Err(Unproven::Invalid(why));
    for issuer in [
        json!(null),
        json!("https://issuer.example/"),
        json!(["https://issuer.example"]),
        json!(1),
    ] {
        assert_eq!(
            at(json!({ "iss": issuer })),
            invalid("it is from another issuer"),
            "{issuer}"
        );
    }
    assert!(at(json!({ "aud": ["other", "tidegate"] })).is_ok());
    for audience in [
        json!(null),
        json!("other"),
        json!(["other"]),
        json!([]),
        json!("tidegate "),
        json!([["tidegate"]]),
    ] {
        assert_eq!(
            at(json!({ "aud": audience })),
            invalid("it is for somebody else"),
            "{audience}"
        );
    }
}

#[test]
fn a_client_is_visible_ascii_of_at_most_128() {
    let at = |sub: Value| {
        verify(&signed(
            Algorithm::HS256,
            None,
            &with(json!({ "sub": sub })),
        ))
    };
    assert_eq!(at(json!("x".repeat(128))).unwrap().client.len(), 128);
    assert_eq!(at(json!(42)).unwrap().client, "42");
    for sub in [
        json!(null),
        json!(""),
        json!("x".repeat(129)),
        json!("a b"),
        json!("a\u{7f}"),
        json!("a\r\nX-Evil: 1"),
        json!("é"),
        json!({ "a": 1 }),
        json!([1]),
        json!(1.5),
    ] {
        assert_eq!(
            at(sub.clone()),
            Err(Unproven::Invalid("it names no client")),
            "{sub}"
        );
    }
}

#[test]
fn duplicated_names_are_refused_in_header_and_claims() {
    let payload = claims().to_string();
    let twice = payload.replacen('{', r#"{"sub":"admin","#, 1);
    assert_eq!(
        refused(&by_hand(r#"{"alg":"HS256"}"#, &twice)),
        "its claims are malformed"
    );
    let escaped = payload.replacen('{', r#"{"\u0073ub":"admin","#, 1);
    assert_eq!(
        refused(&by_hand(r#"{"alg":"HS256"}"#, &escaped)),
        "its claims are malformed"
    );
    assert_eq!(
        refused(&by_hand(r#"{"alg":"none","alg":"HS256"}"#, &payload)),
        "it is malformed"
    );
}

#[test]
fn garbage_of_every_shape_is_refused_and_panics_nowhere() {
    let good = signed(Algorithm::HS256, None, &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let nested = format!("{}{}", "{\"a\":".repeat(2_000), "1");
    let mut bad = vec![
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        "\u{1F980}.\u{1F980}.\u{1F980}".into(),
        format!("{good}.{}", parts[2]),
        format!("{good}="),
        format!(" {good}"),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(40)),
        format!("{}..{}", parts[0], parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        format!("{}.{}.{}", parts[1], parts[0], parts[2]),
        by_hand("[]", "{}"),
        by_hand("{}", "{}"),
        by_hand(r#"{"alg":1}"#, "{}"),
        by_hand(r#"{"alg":"HS256","kid":7}"#, "{}"),
        by_hand(r#"{"alg":"HS256"}"#, "[]"),
        by_hand(r#"{"alg":"HS256"}"#, ""),
        by_hand(r#"{"alg":"HS256"}"#, &nested),
        "x".repeat(1 << 20),
        format!("{}.{}.{}", parts[0], "A".repeat(1 << 20), parts[2]),
    ];
    for cut in 0..good.len() {
        bad.push(good[..cut].to_owned());
    }
    for token in bad {
        refused(&token);
    }
}

#[test]
fn a_changed_byte_anywhere_breaks_the_signature() {
    let good = signed(Algorithm::ES256, None, &claims());
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        // the last character of a base64 text has bits that mean nothing
        assert!(verify(&changed).is_err() || at + 1 == good.len(), "{at}");
    }
}

#[test]
fn files_that_are_no_keys_are_named() {
    for (settings, part) in [
        (
            format!("{{ kid: a, pem_file: {} }}", key_file("rsa")),
            "private key",
        ),
        (
            format!(
                "{{ kid: a, pem_file: {}/Cargo.toml }}",
                env!("CARGO_MANIFEST_DIR")
            ),
            "no public key",
        ),
        (
            "{ kid: a, pem_file: /nonexistent }".to_owned(),
            "cannot be read",
        ),
        (
            "{ kid: a, secret_file: /nonexistent }".to_owned(),
            "cannot be read",
        ),
        ("{ kid: a, secret_file: /dev/null }".to_owned(), "empty"),
    ] {
        let text = format!("auth: {{ jwt: {{ algorithms: [HS256, RS256], keys: [{settings}] }} }}");
        let loaded = parse(&text, "test.yaml", &Environment::from_pairs([("", "")])).unwrap();
        let bad = Verifier::new(&loaded.config.auth.jwt.unwrap(), Vec::new(), None)
            .err()
            .unwrap();
        assert!(bad[0].message.contains(part), "{bad:?}");
    }
}

#[test]
fn a_name_with_dots_comes_before_a_path() {
    let claims = json!({ "a.b": 1, "a": { "b": 2, "c": { "d": 3 } } });
    let claims = claims.as_object().unwrap();
    assert_eq!(super::claims::claim(claims, "a.b"), Some(&json!(1)));
    assert_eq!(super::claims::claim(claims, "a.c.d"), Some(&json!(3)));
    assert_eq!(super::claims::claim(claims, "a.x.d"), None);
    assert_eq!(super::claims::claim(claims, "a.b.d"), None);
}

#[test]
fn an_unknown_key_id_may_have_been_published_meanwhile() {
    let text = "auth: { jwt: { algorithms: [RS256], jwks_url: 'http://issuer/jwks' } }";
    let loaded = parse(text, "test.yaml", &Environment::from_pairs([("", "")])).unwrap();
    let jwks = Arc::new(Jwks::new("http://issuer/jwks", Duration::from_secs(300)));
    let jwt = loaded.config.auth.jwt.unwrap();
    let verifier = Verifier::new(&jwt, Vec::new(), Some(jwks.clone())).unwrap();
    let now_us = NOW * 1_000_000;
    let token = signed(Algorithm::RS256, Some("new"), &claims());
    let without = signed(Algorithm::RS256, None, &claims());
    assert_eq!(verifier.verify(&token, now_us), Err(Unproven::UnknownKey));
    assert_eq!(verifier.verify(&without, now_us), Err(Unproven::UnknownKey));
    let key = EncodingKey::from_rsa_pem(&private("rsa")).unwrap();
    let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
    jwk.common.key_id = Some("new".into());
    jwks.came(json!({ "keys": [jwk] }).to_string().as_bytes(), now_us)
        .unwrap();
    assert!(verifier.verify(&token, now_us).is_ok());
    assert!(verifier.verify(&without, now_us).is_ok());
    let forged = signed(Algorithm::HS256, Some("new"), &claims());
    assert_eq!(
        verifier.verify(&forged, now_us),
        Err(Unproven::Invalid("its algorithm is not accepted"))
    );
    let other = EncodingKey::from_rsa_pem(&private("other-rsa")).unwrap();
    let header = Header {
        kid: Some("new".into()),
        ..Header::new(Algorithm::RS256)
    };
    let token = encode(&header, &claims(), &other).unwrap();
    assert_eq!(
        verifier.verify(&token, now_us),
        Err(Unproven::Invalid("no key made its signature"))
    );
}
