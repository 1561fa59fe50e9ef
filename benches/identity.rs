//! What it costs to know who is calling: an API key of the file, a token that was verified before, one that was not.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot start should say so and stop"
)]

use divan::Bencher;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use tidegate::auth::{Found, Looking, Sources};
use tidegate::config::{Environment, parse};
use tidegate::snapshot::{Snapshot, assemble};
use tidegate::telemetry::Metrics;

/// The same as the gateway's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NOW_US: u64 = 1_900_000_000_000_000;
const SECRET: &str = "a-secret-of-at-least-32-characters";
const KEY: &str = "a-key-of-thirty-two-characters--";

/// Clients in turn, so that no cache line is always warm.
const CLIENTS: usize = 1_000;

fn main() {
    divan::main();
}

fn snapshot() -> Snapshot {
    let clients: String = (0..CLIENTS)
        .map(|n| format!("  c{n}: {{ api_keys: [{{ plain: {KEY}{n} }}] }}\n"))
        .collect();
    let public = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/rsa.pub.pem");
    let text = format!(
        "auth:\n  jwt:\n    issuer: https://issuer.example\n    audience: tidegate\n    algorithms: [HS256, RS256]\n\
         \x20   keys: [{{ kid: hs, secret: {SECRET} }}, {{ kid: rs, pem_file: {public} }}]\n\
         tiers: {{ pro: {{}} }}\nclients:\n{clients}"
    );
    let loaded =
        parse(&text, "bench.yaml", &Environment::default()).expect("a valid configuration");
    let metrics = Metrics::new().expect("distinct metrics");
    let sources = Sources::new(metrics.auth.clone(), None);
    assemble(&loaded, &metrics, &sources, None).expect("a snapshot")
}

fn carrying(name: HeaderName, value: String) -> HeaderMap {
    let value = HeaderValue::try_from(value).expect("visible ASCII");
    HeaderMap::from_iter([(name, value), (header::HOST, HeaderValue::from_static("x"))])
}

/// About 900 bytes with RS256, as issuers make them.
fn token(algorithm: Algorithm, client: usize) -> HeaderMap {
    let claims = json!({
        "iss": "https://issuer.example", "aud": ["tidegate"], "sub": format!("c{client}"),
        "exp": NOW_US / 1_000_000 + 3_600_000, "iat": NOW_US / 1_000_000, "tier": "pro",
        "scope": "openid profile email orders:read orders:write",
        "email": "somebody@example.com", "sid": "2f1f3a0c-4a1c-4c53-9a55-2a8f8d2a3b7e",
    });
    let private = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/rsa.pem");
    let (key, kid) = match algorithm {
        Algorithm::RS256 => {
            let pem = std::fs::read(private).expect("the key of the tests");
            (EncodingKey::from_rsa_pem(&pem).expect("a key"), "rs")
        }
        _ => (EncodingKey::from_secret(SECRET.as_bytes()), "hs"),
    };
    let header = Header {
        kid: Some(kid.to_owned()),
        ..Header::new(algorithm)
    };
    let token = encode(&header, &claims, &key).expect("a token");
    carrying(header::AUTHORIZATION, format!("Bearer {token}"))
}

fn is_known(snapshot: &Snapshot, headers: &HeaderMap, now_us: u64) -> bool {
    let found = snapshot
        .authenticator
        .identify(headers, now_us, || Looking::Allowed);
    matches!(found, Found::Known(identity) if identity.client.is_some())
}

fn in_turn(bencher: Bencher<'_, '_>, requests: Vec<HeaderMap>) {
    let snapshot = snapshot();
    for headers in &requests {
        assert!(is_known(&snapshot, headers, NOW_US), "everybody is known");
    }
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % requests.len();
        requests
            .get(turn)
            .is_some_and(|headers| is_known(&snapshot, headers, NOW_US))
    });
}

#[divan::bench(sample_count = 1_000, sample_size = 500)]
fn nobody(bencher: Bencher) {
    let snapshot = snapshot();
    let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("x"))]);
    bencher.bench_local(|| is_known(&snapshot, &headers, NOW_US));
}

#[divan::bench(sample_count = 1_000, sample_size = 500)]
fn api_key_of_the_file(bencher: Bencher) {
    let name = HeaderName::from_static("x-api-key");
    let request = |n| carrying(name.clone(), format!("{KEY}{n}"));
    in_turn(bencher, (0..CLIENTS).map(request).collect());
}

#[divan::bench(sample_count = 1_000, sample_size = 500)]
fn remembered_token_hs256(bencher: Bencher) {
    let request = |n| token(Algorithm::HS256, n);
    in_turn(bencher, (0..CLIENTS).map(request).collect());
}

#[divan::bench(sample_count = 1_000, sample_size = 500)]
fn remembered_token_rs256(bencher: Bencher) {
    let request = |n| token(Algorithm::RS256, n);
    in_turn(bencher, (0..100).map(request).collect());
}

/// Verified every time: what a token costs at first sight.
#[divan::bench(args = ["HS256", "RS256"], sample_count = 100, sample_size = 20)]
fn token_at_first_sight(bencher: Bencher, algorithm: &str) {
    let algorithm = match algorithm {
        "RS256" => Algorithm::RS256,
        _ => Algorithm::HS256,
    };
    let (snapshot, headers) = (snapshot(), token(algorithm, 1));
    let mut now_us = NOW_US;
    bencher.bench_local(|| {
        // remembered for five minutes
        now_us += 301_000_000;
        assert!(is_known(&snapshot, &headers, now_us), "it has not expired");
    });
}
