//! With the deadline that gateways have by default.

use super::scene::{Scene, until_connected};
use crate::redis::RedisServer;
use crate::waiting;
use std::time::Duration;

#[test]
fn nobody_waits_longer_than_the_default_deadline_and_soon_nobody_waits_at_all() {
    let redis = RedisServer::start();
    let scene = Scene::of(1, 25, &format!("url: \"{}\"", redis.url()));
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
    assert!(out.len() > 100 && median < Duration::from_millis(12), "{median:?}");
    assert!(gateway.metric("tidegate_store_deadlines_total ") >= 5.0);
    eprintln!("longest {:?}, median during it {median:?}", longest.took);
}

#[test]
fn a_long_silence_costs_the_connection_and_recovery_is_as_quick() {
    let redis = RedisServer::start();
    let wire = crate::redis::Wire::before(redis.address());
    let scene = Scene::of(1, 100, &format!("url: \"{}\"", wire.url()));
    let gateway = &scene.gateways[0];
    let load = scene.load();
    let accepted = wire.accepted();
    wire.go_silent();
    waiting::until("the connection is given up and another one tried", || {
        wire.accepted() > accepted
    });
    waiting::pause(Duration::from_millis(700));
    wire.heal();
    let ((), took) = waiting::timed(|| until_connected(gateway));
    assert!(took <= Duration::from_secs(1), "{took:?}");
    for sample in load.stop() {
        let fine = match sample.target {
            "/deny" => sample.status == 200 || sample.explained,
            "/quota" => matches!(sample.status, 200 | 429),
            _ => sample.status == 200,
        };
        assert!(fine, "{sample:?}");
        assert!(sample.took < Duration::from_millis(350), "{sample:?}");
    }
    scene.check_is_told(1);
    eprintln!("shared again after {took:?}");
}
