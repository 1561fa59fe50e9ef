//! How long a new snapshot takes, and that matching a request does not depend on how much there is.
//!
//! `cargo bench --bench snapshot`

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot start should say so and stop"
)]

use divan::Bencher;
use http::{HeaderMap, Method};
use serde_json::json;
use std::net::IpAddr;
use tidegate::admission::{Request, admit};
use tidegate::auth::Sources;
use tidegate::config::{Environment, Row, Section, Source};
use tidegate::limit::limiter::Limiter;
use tidegate::snapshot::{Running, Snapshot, compile};
use tidegate::telemetry::Metrics;

/// The same as the gateway's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NOW_US: u64 = 1_900_000_000_000_000;

fn main() {
    divan::main();
}

/// A file with this many routes.
fn source(routes: usize) -> Source {
    let routes: String = (0..routes)
        .map(|n| {
            format!("  - {{ name: route-{n}, match: {{ path: /api/v1/r{n} }}, upstream: u }}\n")
        })
        .collect();
    let text =
        format!("upstreams: {{ u: {{ peers: [{{ address: 127.0.0.1:1 }}] }} }}\nroutes:\n{routes}");
    Source::parse(&text, "bench.yaml", &Environment::default()).unwrap_or_else(|e| panic!("{e:?}"))
}

/// So many policies of the database, the same number for each route, with tiers and an override.
fn rows(policies: usize, routes: usize) -> Vec<Row> {
    let tiers = ["free", "pro"].map(|name| Row {
        section: Section::Tiers,
        name: name.to_owned(),
        document: json!({}),
    });
    let policies = (0..policies).map(|n| Row {
        section: Section::Policies,
        name: format!("policy-{n}"),
        document: json!({
            "routes": [format!("route-{}", n % routes)],
            "key": ["client"],
            "algorithm": "token_bucket",
            "quota": { "count": 100_000_000, "period": "60s" },
            "tiers": { "pro": { "count": 200_000_000, "period": "60s" } },
        }),
    });
    tiers.into_iter().chain(policies).collect()
}

fn snapshot(policies: usize, routes: usize) -> (Snapshot, Metrics) {
    let metrics = Metrics::new().expect("distinct metrics");
    let compiled = compile(
        &source(routes),
        Some(&rows(policies, routes)),
        &[],
        None,
        &metrics,
        &Sources::new(metrics.auth.clone(), None),
    )
    .unwrap_or_else(|problems| panic!("{problems:?}"));
    assert!(compiled.refused.is_empty(), "{:?}", compiled.refused);
    (compiled.snapshot, metrics)
}

/// 10,000 policies and 1,000 routes, from the rows as Postgres gives them to a snapshot.
#[divan::bench]
fn build(bencher: Bencher) {
    let (source, rows) = (source(1_000), rows(10_000, 1_000));
    let metrics = Metrics::new().expect("distinct metrics");
    let sources = Sources::new(metrics.auth.clone(), None);
    bencher.bench_local(|| {
        compile(&source, Some(&rows), &[], None, &metrics, &sources).map(|one| one.rows.len())
    });
}

/// A request with ten policies: among 10 in all, and among 10,000.
#[divan::bench(args = [1, 1_000])]
fn decide(bencher: Bencher, routes: usize) {
    let (snapshot, metrics) = snapshot(10 * routes, routes);
    let running = Running::new(
        snapshot,
        Limiter::embedded(1_000_000),
        Sources::new(metrics.auth.clone(), None),
        metrics,
    );
    let snapshot = running.snapshot();
    let headers = HeaderMap::new();
    let path = format!("/api/v1/r{}", routes - 1);
    let request = Request {
        method: &Method::GET,
        host: "localhost",
        path: &path,
        headers: &headers,
        scheme: "http",
        query: None,
        ip: IpAddr::from([192, 0, 2, 1]),
    };
    bencher.bench_local(|| {
        let admitted = admit(&running, &snapshot, &request, NOW_US);
        assert!(admitted.is_ok(), "everybody is admitted");
    });
}
