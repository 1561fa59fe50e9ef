//! Quotas that change while their buckets live: used units stay used, nobody gets a fresh allowance.

use super::fleet::Fleet;
use crate::gateway::Gateway;

const ALGORITHMS: [(&str, &str); 4] = [
    ("token_bucket", "t"),
    ("sliding_window", "s"),
    ("sliding_window_counter", "n"),
    ("fixed_window", "f"),
];

/// One policy per algorithm, told apart by the method; hours, so that nothing comes back meanwhile.
fn policies(consistency: &str, count: u64) -> String {
    let methods = ["GET", "POST", "PUT", "PATCH"];
    let policy = |((algorithm, letter), method): (&(&str, &str), &str)| {
        format!(
            "  {letter}: {{ key: [global], methods: [{method}], algorithm: {algorithm}, \
             consistency: {consistency}, quota: {{ count: {count}, period: 1000h }} }}\n"
        )
    };
    ALGORITHMS.iter().zip(methods).map(policy).collect()
}

/// How many of these requests are admitted, by algorithm, over all gateways in turn.
fn admitted(gateways: &[Gateway], requests: usize) -> [usize; 4] {
    ["GET", "POST", "PUT", "PATCH"].map(|method| {
        let statuses =
            (0..requests).map(|nth| gateways[nth % gateways.len()].send(method, "/", &[]).status);
        let statuses: Vec<u16> = statuses.collect();
        assert!(
            statuses.iter().all(|status| [200, 429].contains(status)),
            "{statuses:?}"
        );
        statuses.iter().filter(|status| **status == 200).count()
    })
}

/// Starts the gateways again on the same Redis with another count.
fn edit(fleet: &mut Fleet, consistency: &str, count: u64) {
    let configuration = fleet.configuration(&policies(consistency, count));
    for gateway in &mut fleet.gateways {
        *gateway = Gateway::start(&configuration);
    }
}

fn assert_edits_keep_what_is_used(consistency: &str) {
    let mut fleet = Fleet::start(2, &policies(consistency, 10));
    assert_eq!(admitted(&fleet.gateways, 6), [6; 4]);
    // lowered, but above what is used
    edit(&mut fleet, consistency, 8);
    assert_eq!(admitted(&fleet.gateways, 5), [2; 4]);
    // raised after exhaustion: the difference, at once
    edit(&mut fleet, consistency, 12);
    assert_eq!(admitted(&fleet.gateways, 9), [4; 4]);
    // lowered below what is used: nothing, and nothing is left
    edit(&mut fleet, consistency, 4);
    assert_eq!(admitted(&fleet.gateways, 3), [0; 4]);
    for method in ["GET", "POST", "PUT", "PATCH"] {
        let refusal = fleet.gateways[0].send(method, "/", &[]);
        assert_eq!(refusal.number("X-RateLimit-Remaining"), 0);
        assert_eq!(refusal.number("X-RateLimit-Limit"), 4);
    }
    // and back: still what was used
    edit(&mut fleet, consistency, 20);
    assert_eq!(admitted(&fleet.gateways, 10), [8; 4]);
    fleet.assert_no_outage();
}

#[test]
fn a_raised_or_lowered_quota_keeps_its_used_units() {
    assert_edits_keep_what_is_used("strict");
}

#[test]
fn a_raised_or_lowered_leased_quota_keeps_its_used_units() {
    assert_edits_keep_what_is_used("leased");
}
