//! Settings of a route: off, in maintenance, elsewhere, for some clients elsewhere, impatient, bounded, dearer.

use crate::gateway::{Gateway, app};
use crate::upstream::{Then, Upstream};
use crate::waiting;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A route `r` at `/r` with these settings, and one for everything else.
fn with(upstream: &Upstream, settings: &str, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "{}routes:\n  - {{ name: r, match: {{ path: /r }}, upstream: app, settings: {settings} }}\n  - {{ name: all, upstream: app }}\n{rest}",
        app(upstream.address)
    ))
}

fn named(name: &'static str) -> Upstream {
    Upstream::scripted(move |exchange| exchange.answer(name))
}

#[test]
fn a_route_that_is_off_is_not_served_by_another_one() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "{ enabled: false }", "");
    assert_eq!(gateway.get("/r/x").status, 404);
    assert_eq!(gateway.get("/other").status, 200);
}

#[test]
fn maintenance_is_503_with_retry_after_and_charges_nothing() {
    let upstream = Upstream::echo();
    let policy = "policies: { p: { key: [ip], algorithm: fixed_window, quota: { count: 1, period: 1h } } }\n";
    let gateway = with(&upstream, "{ maintenance: true }", policy);
    for _ in 0..3 {
        let answer = gateway.get("/r");
        assert_eq!(answer.status, 503);
        assert!(answer.number("retry-after") >= 1);
        assert!(
            answer.json()["detail"]
                .as_str()
                .unwrap()
                .contains("maintenance")
        );
    }
    assert_eq!(gateway.get("/other").status, 200, "nothing was charged");
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn another_upstream_takes_the_routes_place() {
    let (upstream, other) = (named("old"), named("new"));
    let more = format!(
        "  new: {{ peers: [{{ address: \"{}\" }}] }}\n",
        other.address
    );
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ peers: [{{ address: \"{}\" }}] }}\n{more}routes: [{{ name: r, upstream: app, settings: {{ upstream: new }} }}]\n",
        upstream.address
    ));
    assert_eq!(gateway.get("/").text(), "new");
}

#[test]
fn a_canary_takes_its_share_of_the_clients_and_each_client_stays_where_it_is() {
    let (upstream, canary) = (named("old"), named("new"));
    let gateway = Gateway::start(&format!(
        "trusted_proxies: [127.0.0.1]\nupstreams:\n  app: {{ peers: [{{ address: \"{}\" }}] }}\n  new: {{ peers: [{{ address: \"{}\" }}] }}\n\
         routes: [{{ name: r, upstream: app, settings: {{ canary: {{ upstream: new, weight: 30 }} }} }}]\n",
        upstream.address, canary.address
    ));
    let mut connection = gateway.connect();
    let mut ask = |client: u32| {
        let address = format!("10.0.{}.{}", client / 256, client % 256);
        connection
            .request("GET", "/", &[("X-Forwarded-For", &address)], b"")
            .text()
    };
    let first: Vec<String> = (0..1_000).map(&mut ask).collect();
    let taken = first.iter().filter(|body| *body == "new").count();
    // three standard deviations of a binomial distribution are 43
    assert!((250..350).contains(&taken), "{taken}");
    let again: Vec<String> = (0..1_000).map(&mut ask).collect();
    assert_eq!(first, again);
}

#[test]
fn a_routes_timeout_takes_the_place_of_the_upstreams() {
    let upstream = Upstream::scripted(|exchange| {
        waiting::pause(Duration::from_millis(600));
        exchange.answer("late")?;
        Ok(Then::Close)
    });
    let gateway = with(&upstream, "{ timeout: 100ms }", "");
    let (answer, took) = waiting::timed(|| gateway.get("/r"));
    assert_eq!(answer.status, 504);
    assert!(took < Duration::from_millis(550), "{took:?}");
    assert_eq!(gateway.get("/other").status, 200);
}

#[test]
fn a_route_takes_so_many_requests_at_once() {
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let upstream = Upstream::scripted(move |exchange| {
        while !released.load(Ordering::SeqCst) {
            waiting::pause(Duration::from_millis(2));
        }
        exchange.answer("done")?;
        Ok(Then::Keep)
    });
    let gateway = with(&upstream, "{ max_concurrent: 2 }", "");
    std::thread::scope(|scope| {
        let two: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| gateway.get("/r").status))
            .collect();
        waiting::until("two are under way", || upstream.requests() == 2);
        let third = gateway.get("/r");
        assert_eq!(third.status, 503);
        assert!(third.number("retry-after") >= 1);
        release.store(true, Ordering::SeqCst);
        for one in two {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
    assert_eq!(gateway.get("/r").status, 200, "places come back");
}

#[test]
fn a_cost_multiplies_that_of_every_policy() {
    let upstream = Upstream::echo();
    let policy = "policies: { p: { key: [ip], algorithm: fixed_window, quota: { count: 10, period: 1h }, cost: 2 } }\n";
    let gateway = with(&upstream, "{ cost: 3 }", policy);
    assert_eq!(gateway.get("/r").number("x-ratelimit-remaining"), 4);
    assert_eq!(gateway.get("/other").number("x-ratelimit-remaining"), 2);
    assert_eq!(gateway.get("/r").status, 429);
    let free = with(&upstream, "{ cost: 0 }", policy);
    for _ in 0..20 {
        assert_eq!(free.get("/r").status, 200);
    }
    assert_eq!(free.get("/other").number("x-ratelimit-remaining"), 8);
}
