//! With the deadline that gateways have by default.

use super::scene::{Scene, until_connected};
use crate::redis::RedisServer;
use crate::waiting;
use std::time::Duration;

with_one_worker_and_two! {
    nobody_waits_longer_than_the_default_deadline_and_soon_nobody_waits_at_all,
    a_long_silence_costs_the_connection_and_recovery_is_as_quick,
    calls_on_a_connection_that_is_given_up_end_and_their_keys_go_on_with_the_next,
    a_redis_that_answers_within_a_long_deadline_is_no_outage,
    a_client_of_a_slow_redis_does_not_wait_for_the_deadline_again_and_again,
    who_joins_a_call_whose_first_has_left_waits_for_the_own_deadline_only,
}

fn nobody_waits_longer_than_the_default_deadline_and_soon_nobody_waits_at_all(workers: usize) {
    let redis = RedisServer::start();
    let scene = Scene::of_workers(&[workers], 25, &format!("url: \"{}\"", redis.url()));
    let gateway = &scene.gateways[0];
    let load = scene.load();
    waiting::pause(Duration::from_millis(300));
    redis.freeze();
    waiting::until("the outage is noticed", || {
        gateway.get("/health").json()["redis"] == "failing"
    });
    let noticed = std::time::Instant::now();
    waiting::pause(Duration::from_secs(1));
    let over = std::time::Instant::now();
    redis.thaw();
    until_connected(gateway);
    let samples = load.stop();
    let longest = samples.iter().max_by_key(|sample| sample.took).unwrap();
    assert!(longest.took <= Duration::from_millis(250), "{longest:?}");
    let out = |sample: &&super::load::Sample| sample.at >= noticed && sample.at < over;
    let out: Vec<_> = samples.iter().filter(out).collect();
    let median = super::load::median(&out);
    assert!(
        out.len() > 100 && median < Duration::from_millis(12),
        "{median:?}"
    );
    assert!(gateway.metric("tidegate_store_deadlines_total ") >= 5.0);
    eprintln!("longest {:?}, median during it {median:?}", longest.took);
}

fn a_long_silence_costs_the_connection_and_recovery_is_as_quick(workers: usize) {
    let redis = RedisServer::start();
    let wire = crate::redis::Wire::before(redis.address());
    let scene = Scene::of_workers(&[workers], 250, &format!("url: \"{}\"", wire.url()));
    let gateway = &scene.gateways[0];
    let load = scene.load();
    wire.go_silent();
    gateway.stderr.line_with("lost the connection to Redis");
    gateway.stderr.line_with("cannot connect to Redis: ");
    wire.heal();
    let ((), took) = waiting::timed(|| until_connected(gateway));
    assert!(took <= Duration::from_secs(1), "{took:?}");
    let samples = load.stop();
    super::load::assert_fine(&samples);
    for sample in samples {
        assert!(sample.took < Duration::from_millis(475), "{sample:?}");
    }
    scene.check_is_told(1);
    eprintln!("shared again after {took:?}");
}

fn calls_on_a_connection_that_is_given_up_end_and_their_keys_go_on_with_the_next(workers: usize) {
    let redis = RedisServer::start();
    let wire = crate::redis::Wire::before(redis.address());
    let scene = Scene::of_workers(&[workers], 60, &format!("url: \"{}\"", wire.url()));
    let gateway = &scene.gateways[0];
    let mut connection = gateway.connect();
    let mut ask = || super::load::ask(&mut connection, "/local", "x");
    assert_eq!(ask().status, 200);
    wire.lose_connections();
    // its call never ends
    assert_eq!(ask().status, 200);
    gateway.stderr.line_with("lost the connection to Redis");
    until_connected(gateway);
    let alone = gateway.metric("tidegate_store_outage_total ");
    let took: Vec<Duration> = (0..20).map(|_| ask().took).collect();
    let waited = took
        .iter()
        .filter(|took| **took >= Duration::from_millis(55));
    assert_eq!(waited.count(), 0, "{took:?}");
    assert_eq!(gateway.metric("tidegate_store_outage_total "), alone);
    // an error of the old connection that came late has not cost the new one
    assert_eq!(gateway.get("/health").json()["redis"], "connected");
    scene.check_is_told(1);
}

fn a_redis_that_answers_within_a_long_deadline_is_no_outage(workers: usize) {
    let redis = RedisServer::start();
    let wire = crate::redis::Wire::before(redis.address());
    let scene = Scene::of_workers(&[workers], 3_000, &format!("url: \"{}\"", wire.url()));
    wire.delay(Duration::from_millis(300), Duration::from_millis(300));
    let mut connection = scene.gateways[0].connect();
    // for as long as it takes several heartbeats to be answered
    for _ in 0..6 {
        let sample = super::load::ask(&mut connection, "/deny", "x");
        assert_eq!(sample.status, 200, "{sample:?}");
        assert!(sample.took >= Duration::from_millis(600), "{sample:?}");
    }
    wire.cut();
    waiting::until("the outage is noticed", || {
        scene.gateways[0].get("/health").json()["status"] == "degraded"
    });
    until_connected(&scene.gateways[0]);
}

fn a_client_of_a_slow_redis_does_not_wait_for_the_deadline_again_and_again(workers: usize) {
    let redis = RedisServer::start();
    let wire = crate::redis::Wire::before(redis.address());
    let scene = Scene::of_workers(&[workers], 60, &format!("url: \"{}\"", wire.url()));
    wire.delay(Duration::from_millis(60), Duration::from_millis(60));
    let mut connection = scene.gateways[0].connect();
    let took: Vec<Duration> = (0..30)
        .map(|_| super::load::ask(&mut connection, "/local", "x").took)
        .collect();
    // a reply that comes too late is no success: the breaker opens after a few of them
    let waited = took
        .iter()
        .filter(|took| **took >= Duration::from_millis(55));
    assert!(waited.count() <= 10, "{took:?}");
    assert_eq!(scene.gateways[0].get("/health").json()["redis"], "failing");
}

fn who_joins_a_call_whose_first_has_left_waits_for_the_own_deadline_only(workers: usize) {
    let redis = RedisServer::start();
    let wire = crate::redis::Wire::before(redis.address());
    let scene = Scene::of_workers(&[workers], 400, &format!("url: \"{}\"", wire.url()));
    let gateway = &scene.gateways[0];
    let ask = || super::load::ask(&mut gateway.connect(), "/allow", "x");
    assert_eq!(ask().status, 200);
    wire.delay(Duration::ZERO, Duration::from_millis(1_500));
    let [first, second] = std::thread::scope(|scope| {
        let first = scope.spawn(ask);
        waiting::pause(Duration::from_millis(200));
        let second = scope.spawn(ask);
        [first, second].map(|asked| asked.join().unwrap())
    });
    // the reply of the first one's call comes long after the deadlines of both
    for sample in [&first, &second] {
        assert_eq!(sample.status, 200, "{sample:?}");
        let took = sample.took.as_millis();
        assert!((390..1_000).contains(&took), "{sample:?}");
    }
    wire.heal();
    until_connected(gateway);
    let alone = gateway.metric("tidegate_store_outage_total ");
    assert!(alone >= 2.0, "{alone}");
    // the key is counted in Redis again
    assert_eq!(ask().status, 200);
    assert_eq!(gateway.metric("tidegate_store_outage_total "), alone);
    waiting::until("nobody is counted as waiting", || {
        gateway.metric("tidegate_store_waiting ") == 0.0
    });
}
