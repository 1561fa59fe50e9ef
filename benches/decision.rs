//! What a decision costs: an API key and two token buckets, with a million live buckets.
//!
//! The first line printed is memory per live bucket: resident set size after filling the store less before, divided by
//! the buckets.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot start should say so and stop"
)]

use http::{HeaderMap, HeaderValue, Method};
use std::net::IpAddr;
use std::sync::OnceLock;
use tidegate::admission::{Request, admit};
use tidegate::auth::Sources;
use tidegate::config::{Environment, parse};
use tidegate::limit::decision::{Charge, Terms};
use tidegate::limit::descriptor::{BucketKey, KeyWriter};
use tidegate::limit::limiter::Limiter;
use tidegate::limit::quota::Quota;
use tidegate::limit::store::memory::MemoryStore;
use tidegate::snapshot::{Running, assemble};
use tidegate::telemetry::Metrics;

/// The same as the gateway's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Clients with a key each.
const CLIENTS: usize = 1_000;

/// Users of each client, named in a header; two policies make two buckets of each.
const USERS: usize = 500;

const NOW_US: u64 = 1_900_000_000_000_000;

fn main() {
    let before = resident_bytes();
    let store = MemoryStore::new(2_000_000);
    let quota = bucket();
    for client in 0..1_000_000 {
        store.spend(&[charge(bucket_key(client), &quota)], NOW_US);
    }
    let used = resident_bytes() - before;
    println!(
        "memory per live token bucket: {} bytes ({} buckets)",
        used / store.len(),
        store.len()
    );
    drop(store);
    divan::main();
}

/// The whole of `admit`: route, API key by its SHA-256, two buckets of a million. A thousand
/// clients, each with five hundred users of its own.
#[divan::bench(sample_count = 2_000, sample_size = 200)]
fn admit_a_thousand_clients(bencher: divan::Bencher) {
    admit_some(bencher, 1_000);
}

/// The same, all of one client's one user: nothing has to be fetched from memory.
#[divan::bench(sample_count = 2_000, sample_size = 200)]
fn admit_one_hot_client(bencher: divan::Bencher) {
    admit_some(bencher, 1);
}

fn admit_some(bencher: divan::Bencher, clients: usize) {
    let running = filled();
    let snapshot = running.snapshot();
    let users = if clients == 1 { 1 } else { USERS };
    // a request's headers have just been read, so they are made just before, not kept in a table
    bencher
        .with_inputs(|| headers_of(fastrand::usize(..clients), fastrand::usize(..users)))
        .bench_refs(|headers| {
            admit(running, &snapshot, &request(headers), NOW_US + 1_000_000).is_ok()
        });
}

/// The store alone: one atomic step over two buckets.
#[divan::bench(sample_count = 2_000, sample_size = 200)]
fn spend_from_two_buckets(bencher: divan::Bencher) {
    static STORE: OnceLock<MemoryStore> = OnceLock::new();
    let quota = bucket();
    let store = STORE.get_or_init(|| {
        let store = MemoryStore::new(2_000_000);
        for client in 0..1_000_000 {
            store.spend(&[charge(bucket_key(client), &quota)], NOW_US);
        }
        store
    });
    bencher
        .with_inputs(|| {
            (
                bucket_key(fastrand::usize(..1_000_000)),
                bucket_key(fastrand::usize(..1_000_000)),
            )
        })
        .bench_values(|(one, two)| {
            store
                .spend(
                    &[charge(one, &quota), charge(two, &quota)],
                    NOW_US + 1_000_000,
                )
                .allowed
        });
}

/// The store alone, one hot pair of buckets.
#[divan::bench(sample_count = 2_000, sample_size = 200)]
fn spend_from_two_hot_buckets(bencher: divan::Bencher) {
    let store = MemoryStore::new(1_000);
    let quota = bucket();
    let (one, two) = (bucket_key(1), bucket_key(2));
    bencher.bench_local(|| {
        store
            .spend(&[charge(one, &quota), charge(two, &quota)], NOW_US)
            .allowed
    });
}

fn bucket() -> Quota {
    Quota::token_bucket(1_000_000, 3_600_000_000, None).expect("a valid quota")
}

fn bucket_key(client: usize) -> BucketKey {
    let mut key = KeyWriter::new(b't', "per-client");
    key.value(b'c', format!("client-{client}").as_bytes());
    key.finish()
}

fn charge(key: BucketKey, quota: &Quota) -> Charge<'_> {
    Charge {
        key,
        quota,
        cost: 1,
        enforce: true,
        terms: Terms::STRICT,
    }
}

/// A gateway's state with two live buckets of every client.
fn filled() -> &'static Running {
    static FILLED: OnceLock<Running> = OnceLock::new();
    FILLED.get_or_init(fill)
}

fn fill() -> Running {
    let clients: String = (0..CLIENTS)
        .map(|n| {
            format!(
                "  client-{n}: {{ api_keys: [{{ plain: {} }}] }}\n",
                key_of(n)
            )
        })
        .collect();
    let text = format!(
        "store: {{ memory: {{ max_keys: 2000000 }} }}\n\
         upstreams: {{ u: {{ peers: [{{ address: 127.0.0.1:1 }}] }} }}\n\
         routes: [{{ name: search, match: {{ path: /api/search }}, upstream: u, auth: required }}]\n\
         policies:\n\
         \x20 users: {{ key: [client, \"header:x-user\"], algorithm: token_bucket, quota: {{ count: 1000000, period: 1h }} }}\n\
         \x20 burst: {{ key: [client, \"header:x-user\"], algorithm: token_bucket, quota: {{ count: 100000, period: 1m }} }}\n\
         clients:\n{clients}"
    );
    let loaded =
        parse(&text, "bench.yaml", &Environment::default()).expect("a valid configuration");
    let metrics = Metrics::new().expect("distinct metrics");
    let sources = Sources::new(metrics.auth.clone(), None);
    let snapshot = assemble(&loaded, &metrics, &sources, None).expect("a snapshot");
    let running = Running::new(snapshot, Limiter::embedded(2_000_000), sources, metrics);
    let snapshot = running.snapshot();
    for (client, user) in (0..CLIENTS).flat_map(|client| (0..USERS).map(move |user| (client, user)))
    {
        let headers = headers_of(client, user);
        let admitted = admit(&running, &snapshot, &request(&headers), NOW_US);
        assert!(admitted.is_ok(), "everybody is admitted");
    }
    assert_eq!(
        running.limiter.memory().len(),
        2 * CLIENTS * USERS,
        "a million buckets are live"
    );
    running
}

fn request(headers: &HeaderMap) -> Request<'_> {
    Request {
        method: &Method::GET,
        scheme: "http",
        host: "localhost",
        path: "/api/search",
        query: None,
        headers,
        ip: IpAddr::from([192, 0, 2, 1]),
    }
}

fn headers_of(client: usize, user: usize) -> HeaderMap {
    let value = |text: String| HeaderValue::try_from(text).expect("visible ASCII");
    HeaderMap::from_iter([
        (
            http::HeaderName::from_static("x-api-key"),
            value(key_of(client)),
        ),
        (
            http::HeaderName::from_static("x-user"),
            value(format!("user-{user}")),
        ),
    ])
}

fn key_of(client: usize) -> String {
    format!("a-key-of-usual-length-{client:09}")
}

/// Resident set size of this process.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    resident.unwrap_or_default() * 4_096
}
