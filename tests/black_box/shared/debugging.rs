//! `response_headers: [debug]`: each answer says who has decided.

use super::fleet::Fleet;
use crate::waiting;

#[test]
fn an_answer_says_who_has_decided() {
    let mut fleet = Fleet::start(
        1,
        "  spent: { key: [global], methods: [POST], algorithm: token_bucket, quota: { count: 5, period: 1000h } }
  hot: { key: [global], methods: [GET], algorithm: token_bucket, quota: { count: 1000000, period: 1s }, consistency: leased }
response_headers: [debug]
",
    );
    let decided_by = |fleet: &Fleet, method: &str, status: u16| {
        let answer = fleet.gateways[0].send(method, "/", &[]);
        let by = answer.header("X-Tidegate-Decided-By").map(str::to_owned);
        (answer.status == status).then(|| by.unwrap_or_default())
    };
    let until = |fleet: &Fleet, method: &str, status: u16, by: &str| {
        waiting::until(&format!("{method} is decided by {by}"), || {
            decided_by(fleet, method, status).as_deref() == Some(by)
        });
    };
    assert_eq!(
        decided_by(&fleet, "POST", 200).as_deref(),
        Some("redis"),
        "the first"
    );
    until(&fleet, "POST", 429, "remembered");
    fleet.until_leasing();
    until(&fleet, "GET", 200, "lease");
    fleet.redis.kill();
    until(&fleet, "GET", 200, "outage");
    // no policy applies
    assert_eq!(decided_by(&fleet, "PUT", 200).as_deref(), Some(""));
}
