//! What finding a route costs, among ten routes and among ten thousand.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot start should say so and stop"
)]

use divan::{Bencher, black_box};
use http::Method;
use tidegate::route::{PathPattern, RouteMatch, RouteTable};

fn main() {
    divan::main();
}

const ROUTES: &[usize] = &[10, 10_000];

/// Four kinds in turn: prefix on a host of its own, exact, deep prefix on a wildcard, regex.
fn table(routes: usize) -> RouteTable {
    let route = |index: usize| {
        let (host, path) = match index % 4 {
            0 => (
                format!("h{index}.example.com"),
                PathPattern::Prefix("/api".to_owned()),
            ),
            1 => (
                "api.example.com".to_owned(),
                PathPattern::Exact(format!("/v1/items/{index}")),
            ),
            2 => (
                "*.example.org".to_owned(),
                PathPattern::Prefix(format!("/v1/tenant{index}/orders")),
            ),
            // Fifty to a host: the regexes of one host are searched together.
            _ => (
                format!("r{}.example.net", index / 200),
                PathPattern::Regex(format!(r"/r{index}/\d+/[a-z]+")),
            ),
        };
        RouteMatch {
            name: format!("route-{index}"),
            hosts: vec![host],
            path,
            methods: index
                .is_multiple_of(3)
                .then(|| vec![Method::GET, Method::POST]),
            raw_path: false,
        }
    };
    let any = RouteMatch {
        name: "any".to_owned(),
        hosts: Vec::new(),
        path: PathPattern::Prefix("/".to_owned()),
        methods: None,
        raw_path: true,
    };
    let all = (0..routes).map(route).chain([any]).collect();
    RouteTable::build(all).expect("the routes differ")
}

fn find(bencher: Bencher, routes: usize, host: &str, path: &str) {
    let table = table(routes);
    bencher.bench_local(|| {
        table
            .find(black_box(host), black_box(path), &Method::GET)
            .is_ok()
    });
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn exact(bencher: Bencher, routes: usize) {
    find(bencher, routes, "api.example.com", "/v1/items/5");
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn prefix(bencher: Bencher, routes: usize) {
    find(bencher, routes, "h4.example.com", "/api/v1/search");
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn prefix_on_wildcard_host(bencher: Bencher, routes: usize) {
    find(
        bencher,
        routes,
        "eu.shop.example.org:8443",
        "/v1/tenant6/orders/17/lines",
    );
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn regex(bencher: Bencher, routes: usize) {
    find(bencher, routes, "r0.example.net", "/r3/12345/lines");
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn regex_missed(bencher: Bencher, routes: usize) {
    find(bencher, routes, "r0.example.net", "/r4/12345/lines");
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn any_host(bencher: Bencher, routes: usize) {
    find(bencher, routes, "elsewhere.test", "/v1/items/5");
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn escaped_but_normal(bencher: Bencher, routes: usize) {
    find(bencher, routes, "h4.example.com", "/api/caf%C3%A9/a%20b");
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn rewritten(bencher: Bencher, routes: usize) {
    find(bencher, routes, "h4.example.com", "/api/./x/../%61b");
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn raw(bencher: Bencher, routes: usize) {
    find(bencher, routes, "elsewhere.test", "/objects/a%2Fb%2Fc");
}

#[divan::bench(args = ROUTES, sample_size = 1000)]
fn parameter(bencher: Bencher, routes: usize) {
    find(bencher, routes, "h4.example.com", "/api/search;v=1");
}

#[divan::bench(args = ROUTES)]
fn long_64_kib(bencher: Bencher, routes: usize) {
    find(bencher, routes, "h4.example.com", &"/api/v1x".repeat(8192));
}

#[divan::bench(args = ROUTES)]
fn long_8_kib_of_slashes_raw(bencher: Bencher, routes: usize) {
    find(bencher, routes, "elsewhere.test", &"/".repeat(8192));
}

#[divan::bench(args = ROUTES)]
fn long_64_kib_of_dots(bencher: Bencher, routes: usize) {
    find(bencher, routes, "elsewhere.test", &"/a/..".repeat(13_000));
}

#[divan::bench(args = ROUTES)]
fn long_8_kib_worst_readings(bencher: Bencher, routes: usize) {
    find(
        bencher,
        routes,
        "elsewhere.test",
        &"/a%2F\\b%5C%00;".repeat(580),
    );
}

/// Its automaton has more states than memory for them: the worst that a regex can do.
#[divan::bench]
fn long_8_kib_regex_worst(bencher: Bencher) {
    let route = RouteMatch {
        name: "worst".to_owned(),
        hosts: Vec::new(),
        path: PathPattern::Regex("/(a|b)*a(a|b){400}".to_owned()),
        methods: None,
        raw_path: false,
    };
    let table = RouteTable::build(vec![route]).expect("the regex is small enough");
    let mut seed = 1_u32;
    let letters = (0..8000).map(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if seed > u32::MAX / 2 { 'a' } else { 'b' }
    });
    let path: String = std::iter::once('/').chain(letters).collect();
    bencher.bench_local(|| table.find("h", black_box(&path), &Method::GET).is_ok());
}

#[divan::bench(args = ROUTES)]
fn long_8_kib_regex(bencher: Bencher, routes: usize) {
    find(
        bencher,
        routes,
        "r0.example.net",
        &format!("/r3/{}/lines", "1".repeat(8000)),
    );
}
