//! A spray of keys: the gateway stays small, and an honest key keeps exactly its rights.

use super::fleet::{Fleet, is_long, report, store};
use crate::client::{Connection, head};
use crate::gateway::{Gateway, app};
use std::time::{Duration, Instant};

/// Most that all tables together may grow for so many keys, KiB: what the store was last seen to hold is kept for
/// outages, at most 200 bytes for each of `max_local_keys`; the rest is the allocator's.
fn growth_kib(keys: usize) -> u64 {
    let local_keys = keys.min(100_000) as u64;
    6 * 1024 + local_keys * 200 / 1024
}

fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A request of each key, which takes a unit, and of every eighth a second one, which is refused. It is the number
/// of keys that counts: many are on their way at once, and none is passed on, for its body is too large.
fn spray(fleet: &Fleet, keys: std::ops::Range<usize>) {
    const CONNECTIONS: usize = 8;
    const AT_ONCE: usize = 32;
    let gateway = &fleet.gateways[0];
    std::thread::scope(|scope| {
        for nth in 0..CONNECTIONS {
            let keys = keys.clone();
            scope.spawn(move || {
                let mut connection = Connection::open(gateway.address);
                let mut own = keys.skip(nth).step_by(CONNECTIONS).peekable();
                while own.peek().is_some() {
                    let some = own.by_ref().take(AT_ONCE);
                    let requests: Vec<(usize, u16)> = some
                        .flat_map(|key| {
                            let again = (key / CONNECTIONS).is_multiple_of(8);
                            [(key, 413), (key, 429)]
                                .into_iter()
                                .take(1 + usize::from(again))
                        })
                        .collect();
                    let head = |(key, _): &(usize, u16)| {
                        head("POST", "/", &[("X-User", &format!("key-{key}"))], 2) + "{}"
                    };
                    let sent: Vec<String> = requests.iter().map(head).collect();
                    connection.send(sent.concat());
                    for (key, expected) in requests {
                        let response = connection.answer();
                        assert_eq!(response.status, expected, "{key}: {response}");
                    }
                }
            });
        }
    });
}

/// What an honest key is admitted, in requests spread over the time until it is told to stop.
fn honest(fleet: &Fleet, stop: &std::sync::atomic::AtomicBool) -> (u64, u64) {
    let mut connections: Vec<_> = fleet
        .gateways
        .iter()
        .map(|gateway| gateway.connect())
        .collect();
    let (mut admitted, mut refused) = (0, 0);
    let mut nth = 0;
    while !stop.load(std::sync::atomic::Ordering::SeqCst) || refused < 20 {
        let gateways = connections.len();
        let response =
            connections[nth % gateways].request("GET", "/", &[("X-User", "honest")], b"");
        match response.status {
            200 => {
                assert_eq!(refused, 0, "admitted again after a refusal");
                admitted += 1;
                assert_eq!(response.number("X-RateLimit-Remaining"), 50 - admitted);
            }
            429 => refused += 1,
            _ => panic!("{response}"),
        }
        nth += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    (admitted, refused)
}

#[test]
fn a_spray_of_keys_fills_nothing_and_takes_nobody_anything() {
    let mut fleet = Fleet::start(0, "");
    let configuration = format!(
        "{}{}routes: [{{ name: app, upstream: app, max_body: 1B }}]\npolicies:\n  \
         spray: {{ key: [\"header:x-user\"], methods: [POST], algorithm: token_bucket, consistency: leased, \
         quota: {{ count: 1, period: 1000h }} }}\n  \
         honest: {{ key: [\"header:x-user\"], methods: [GET], algorithm: sliding_window, \
         quota: {{ count: 50, period: 1000h }} }}",
        store(&fleet.redis),
        app(fleet.upstream.address)
    );
    fleet.gateways = (0..2).map(|_| Gateway::start(&configuration)).collect();
    fleet.until_all_know(2);
    fleet.until_leasing();
    let keys = if is_long() { 1_000_000 } else { 200_000 };
    // what every gateway takes under load
    spray(&fleet, 0..keys / 10);
    let process = fleet.gateways[0].process_id();
    let before = resident_kib(process);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let begin = Instant::now();
    let (mut most_refusals, mut most_leased) = (0.0f64, 0.0f64);
    std::thread::scope(|scope| {
        let honest = scope.spawn(|| honest(&fleet, &stop));
        for tenth in 1..10 {
            spray(&fleet, keys / 10 * tenth..keys / 10 * (tenth + 1));
            let gateway = &fleet.gateways[0];
            most_refusals =
                most_refusals.max(gateway.metric("tidegate_store_remembered_refusals "));
            most_leased = most_leased.max(gateway.metric("tidegate_store_leased_units "));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let (admitted, refused) = honest.join().unwrap();
        assert_eq!(admitted, 50);
        assert!(refused >= 20, "{refused}");
    });
    let after = resident_kib(process);
    report(&format!(
        "{keys} keys in {:?}: resident {before} to {after} KiB, {most_refusals} refusals remembered and \
         {most_leased} units leased at most",
        begin.elapsed()
    ));
    assert!(
        after < before + growth_kib(keys),
        "resident: {before} to {after} KiB"
    );
    // one of the honest key, and a few that the estimate over-counts
    assert!(most_refusals < 100.0, "{most_refusals}");
    assert!(most_leased < 100.0, "{most_leased}");
    let stored: usize = fleet.redis.command(&["DBSIZE"]).parse().unwrap();
    assert!(stored > keys, "{stored} keys in Redis");
    fleet.assert_no_outage();
}
