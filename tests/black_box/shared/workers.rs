//! However many workers a gateway has, it counts once.

use super::fleet::Fleet;
use crate::waiting;

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
