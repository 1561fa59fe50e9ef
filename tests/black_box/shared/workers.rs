//! However many workers a gateway has, it counts once.

use super::fleet::Fleet;
use crate::client::head;
use crate::waiting;
use std::time::Duration;

/// With one worker the store's connection lives on its thread, with several on a thread of its own.
const WORKERS: [usize; 2] = [1, 3];

fn fleet(workers: usize, policy: &str) -> Fleet {
    Fleet::start(
        2,
        &format!("  p: {{ key: [global], {policy} }}\nserver: {{ threads: {workers} }}\n"),
    )
}

#[test]
fn a_quota_is_one_for_all_workers_of_all_gateways() {
    for workers in WORKERS {
        let mut fleet = fleet(
            workers,
            "algorithm: sliding_window, quota: { count: 30, period: 1h }",
        );
        // each on a connection of its own, so that all workers take part
        let admitted = (0..60)
            .filter(|request| fleet.gateways[request % 2].get("/").status == 200)
            .count();
        assert_eq!(admitted, 30, "{workers} workers");
        assert_eq!(fleet.gateways[0].get("/health").status, 200);
        for gateway in &mut fleet.gateways {
            gateway.signal("TERM");
            assert_eq!(gateway.ended().code(), Some(0), "{workers} workers");
        }
    }
}

#[test]
fn a_permit_comes_back_to_all_workers_of_all_gateways() {
    for workers in WORKERS {
        let fleet = fleet(workers, "algorithm: concurrency, quota: { count: 1 }");
        for request in 0..10 {
            let gateway = &fleet.gateways[request % 2];
            waiting::until("the permit of the request before is back", || {
                gateway.get("/").status == 200
            });
        }
    }
}

#[test]
fn a_client_that_leaves_takes_no_call_of_others_along_and_its_unit_goes_back() {
    for workers in WORKERS {
        let fleet = fleet(
            workers,
            "algorithm: fixed_window, quota: { count: 100, period: 24h }",
        );
        let gateway = &fleet.gateways[0];
        assert_eq!(gateway.get("/").status, 200);
        let calls = || gateway.metric("tidegate_store_calls_total ");
        let alone = gateway.metric("tidegate_store_outage_total ");
        let before = calls();
        fleet.redis.freeze();
        let mut leaves = gateway.connect();
        leaves.send(head("GET", "/", &[], 0));
        waiting::until("its call is made", || calls() > before);
        let mut stays = gateway.connect();
        stays.send(head("GET", "/", &[], 0));
        waiting::pause(Duration::from_millis(50));
        drop(leaves);
        waiting::pause(Duration::from_millis(50));
        fleet.redis.thaw();
        assert_eq!(stays.answer().status, 200, "{workers} workers");
        let units = || fleet.redis.command(&["GET", "tg:f:p:g"]);
        waiting::until("the unit of who has left is back", || {
            units().starts_with("2:")
        });
        let outage = gateway.metric("tidegate_store_outage_total ");
        assert_eq!(outage, alone, "{workers} workers");
    }
}
