//! One test for each way in which a single Redis fails.

use super::scene::Scene;
use crate::redis::{RedisServer, Wire};
use std::time::Duration;

/// The deadline in these tests: so long that a busy machine does not miss it without an outage.
const DEADLINE_MS: u64 = 250;

fn before(url: &str, gateways: usize) -> Scene {
    Scene::of(gateways, DEADLINE_MS, &format!("url: \"{url}\""))
}

#[test]
fn redis_is_killed_and_comes_back_with_what_it_held() {
    let mut redis = RedisServer::start_persistent();
    let scene = before(&redis.url(), 2);
    scene.lives_through(
        &mut redis,
        RedisServer::kill,
        RedisServer::restart_with_data,
        true,
    );
}

#[test]
fn redis_is_killed_and_comes_back_empty() {
    let mut redis = RedisServer::start();
    let scene = before(&redis.url(), 1);
    scene.lives_through(&mut redis, RedisServer::kill, RedisServer::restart, false);
}

#[test]
fn redis_freezes_and_goes_on() {
    let mut redis = RedisServer::start();
    let scene = before(&redis.url(), 2);
    scene.lives_through(
        &mut redis,
        |redis| redis.freeze(),
        |redis| redis.thaw(),
        true,
    );
}

#[test]
fn redis_is_slow_for_a_while() {
    let redis = RedisServer::start();
    let mut wire = Wire::before(redis.address());
    let scene = Scene::of(1, 100, &format!("url: \"{}\"", wire.url()));
    scene.lives_through(
        &mut wire,
        |wire| wire.delay(Duration::from_millis(100), Duration::from_millis(100)),
        |wire| wire.heal(),
        true,
    );
}

#[test]
fn the_network_swallows_everything_for_a_while() {
    let redis = RedisServer::start();
    let mut wire = Wire::before(redis.address());
    let scene = before(&wire.url(), 1);
    scene.lives_through(&mut wire, |wire| wire.go_silent(), |wire| wire.heal(), true);
}

#[test]
fn the_network_refuses_connections_for_a_while() {
    let redis = RedisServer::start();
    let mut wire = Wire::before(redis.address());
    let scene = before(&wire.url(), 2);
    scene.lives_through(&mut wire, |wire| wire.refuse(), |wire| wire.heal(), true);
}

#[test]
fn redis_becomes_a_replica_that_cannot_write() {
    let mut redis = RedisServer::start();
    let scene = before(&redis.url(), 1);
    scene.lives_through(
        &mut redis,
        // of nobody: it keeps what it holds
        |redis| drop(redis.command(&["REPLICAOF", "127.0.0.1", "1"])),
        |redis| drop(redis.command(&["REPLICAOF", "NO", "ONE"])),
        true,
    );
}

#[test]
fn redis_has_no_memory_left_for_a_while() {
    let mut redis = RedisServer::start();
    let scene = before(&redis.url(), 1);
    scene.lives_through(
        &mut redis,
        |redis| drop(redis.command(&["CONFIG", "SET", "maxmemory", "1"])),
        |redis| drop(redis.command(&["CONFIG", "SET", "maxmemory", "0"])),
        true,
    );
}

#[test]
fn a_connection_that_breaks_is_made_again() {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    let scene = before(&wire.url(), 1);
    let load = scene.load();
    let before = scene.admitted("/quota", "x", 20);
    for _ in 0..3 {
        wire.cut();
        crate::waiting::pause(Duration::from_millis(400));
    }
    let samples = load.stop();
    super::scene::until_connected(&scene.gateways[0]);
    super::load::assert_fine(&samples);
    let all = before + scene.admitted("/quota", "x", 50);
    assert!((60..=61).contains(&all), "{all}");
}

#[test]
fn scripts_that_redis_has_forgotten_are_no_outage() {
    let redis = RedisServer::start();
    let scene = before(&redis.url(), 2);
    let load = scene.load();
    let mut admitted = 0;
    for _ in 0..10 {
        admitted += scene.admitted("/quota", "x", 5);
        redis.command(&["SCRIPT", "FLUSH"]);
    }
    for sample in load.stop() {
        let fine = sample.status == 200 || (sample.target == "/quota" && sample.status == 429);
        assert!(fine, "{sample:?}");
    }
    assert_eq!(admitted, 60);
    assert_eq!(scene.metric("tidegate_store_outage_total "), 0.0);
    assert_eq!(scene.metric("tidegate_store_errors_total "), 0.0);
    scene.check_is_told(0);
}
