//! Redis of several servers: a master that is replaced, a node that is lost.

use super::load::Load;
use super::scene::{QUOTA, Scene, until_connected};
use crate::redis::{RedisCluster, RedisConnection, RedisSentinel, Reply};
use crate::waiting::{self, pause, timed};
use std::time::{Duration, Instant};

const KEYS: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

fn urls(urls: &[String]) -> String {
    let quoted: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    format!("urls: [{}]", quoted.join(", "))
}

/// Whatever happened: no errors but by `deny`, and nobody waited beyond the deadline.
fn check_answers(load: Load, longest: Duration) {
    let samples = load.stop();
    super::load::assert_fine(&samples);
    let mut most = Duration::ZERO;
    for sample in &samples {
        assert!(sample.took <= longest, "{sample:?}");
        most = most.max(sample.took);
    }
    eprintln!("{} requests, the longest {most:?}", samples.len());
}

#[test]
fn sentinels_replace_a_master_and_the_new_one_goes_on_counting() {
    let mut redis = RedisSentinel::start();
    let master = redis.master_name();
    let settings = format!(
        "{}, mode: sentinel, master: {master}",
        urls(&redis.sentinel_urls())
    );
    let scene = Scene::of(2, 250, &settings);
    let load = scene.load();
    assert_eq!(scene.admitted("/quota", "some", 10), 20);
    // replication is asynchronous: what is on the replica now is not lost
    let mut connection = RedisConnection::open(redis.master_address()).unwrap();
    connection.ask(&["SET", "probe", "1"]).unwrap();
    assert_eq!(connection.ask(&["WAIT", "1", "5000"]).unwrap().text(), "1");

    let before = redis.master_address();
    let strike = Instant::now();
    redis.kill_master();
    waiting::until("the outage is noticed", || {
        let mut gateways = scene.gateways.iter();
        gateways.all(|gateway| gateway.get("/health").json()["status"] == "degraded")
    });
    waiting::until("there is another master", || {
        redis.master_address() != before && redis.master().command(&["ROLE"]).starts_with("master")
    });
    let there = Instant::now();
    scene.gateways.iter().for_each(until_connected);
    let recovered = there.elapsed();
    assert!(recovered <= Duration::from_secs(1), "{recovered:?}");
    let rest = scene.admitted("/quota", "some", 40);
    assert!(rest <= QUOTA - 20 + 2, "20 before it, {rest} after it");
    pause(Duration::from_millis(300));
    check_answers(load, Duration::from_millis(475));
    scene.check_is_told(1);
    eprintln!(
        "another master after {:?}, shared again {recovered:?} later; {rest} of {} left",
        there - strike,
        QUOTA - 20
    );
}

#[test]
fn a_cluster_loses_the_node_that_has_the_heartbeats() {
    lose_a_node(true);
}

#[test]
fn a_cluster_loses_a_node_that_has_buckets_alone() {
    lose_a_node(false);
}

#[test]
fn a_cluster_has_as_long_to_answer_as_the_deadline_says() {
    let redis = RedisCluster::start();
    let settings = format!("{}, mode: cluster", urls(&redis.urls()));
    let scene = Scene::of(1, 3_000, &settings);
    let has = |node: usize, pattern: &str| !redis.node(node).command(&["KEYS", pattern]).is_empty();
    assert_eq!(scene.admitted("/quota", "a", 1), 1);
    let node = (0..3).find(|&node| has(node, "tg:*quota:h:a")).unwrap();
    // too short for the cluster to give the node up
    redis.node(node).freeze();
    let (admitted, took) = std::thread::scope(|scope| {
        scope.spawn(|| {
            pause(Duration::from_millis(700));
            redis.node(node).thaw();
        });
        timed(|| scene.admitted("/quota", "a", 1))
    });
    assert_eq!(admitted, 1);
    assert!(took >= Duration::from_millis(600), "{took:?}");
    assert_eq!(scene.metric("tidegate_store_outage_total "), 0.0);
    assert_eq!(scene.metric("tidegate_store_errors_total "), 0.0);
    scene.check_is_told(0);
}

/// Of a cluster of three nodes the one with the gateways' heartbeats, or another one.
fn lose_a_node(with_heartbeats: bool) {
    let mut redis = RedisCluster::start();
    let settings = format!("{}, mode: cluster", urls(&redis.urls()));
    let scene = Scene::of(1, 250, &settings);
    let gateway = &scene.gateways[0];
    let load = scene.load();
    for key in KEYS {
        assert_eq!(scene.admitted("/quota", key, 20), 20);
    }
    let has = |node: usize, pattern: &str| !redis.node(node).command(&["KEYS", pattern]).is_empty();
    let (lost, gone) = (0..3)
        .filter(|&node| has(node, "tg:*gateways*") == with_heartbeats)
        .find_map(|node| {
            let mut keys = KEYS.iter();
            Some((
                node,
                *keys.find(|key| has(node, &format!("tg:*quota:h:{key}")))?,
            ))
        })
        .unwrap();
    let mut keys = KEYS.iter();
    let there = keys.find(|key| !has(lost, &format!("tg:*quota:h:{key}")));
    let there = there.unwrap();

    redis.kill_node(lost);
    pause(Duration::from_millis(300));
    let during = [gone, there].map(|key| scene.admitted("/quota", key, 70));
    assert!(
        during.iter().all(|&units| units <= QUOTA - 20 + 1),
        "{during:?}"
    );
    pause(Duration::from_millis(1_700));
    redis.restart_node(lost);
    waiting::until("the node has its slots again", || {
        let reply = redis.node(lost).ask(&["GET", "no such key"]);
        let is_up = |reply: &Reply| !reply.text().starts_with("CLUSTERDOWN");
        let says_ok = |node| {
            redis
                .node(node)
                .command(&["CLUSTER", "INFO"])
                .contains("state:ok")
        };
        reply.is_ok_and(|reply| is_up(&reply)) && (0..3).all(says_ok)
    });
    let ((), recovered) = timed(|| until_connected(gateway));
    let rest = [gone, there].map(|key| scene.admitted("/quota", key, 70));
    let text = gateway.stderr.text();
    let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    eprintln!(
        "{during:?} during it, {rest:?} after it; shared again after {recovered:?}; out {}, lost {}, crate {}",
        lines("the shared store is out"),
        lines("lost the connection"),
        lines("Failed to connect to node") + lines("slot refresh"),
    );
    check_answers(load, Duration::from_millis(475));
    assert!(recovered <= Duration::from_secs(1), "{recovered:?}");
    // the node came back empty: it knows of nothing but what was admitted meanwhile
    assert!(
        during[0] + rest[0] <= QUOTA + 1,
        "{during:?} during it, {rest:?} after it"
    );
    assert!(
        during[1] + rest[1] <= QUOTA - 20 + 1,
        "{during:?} during it, {rest:?} after it"
    );
    let told = text
        .lines()
        .filter(|line| !line.contains("reusable stream"));
    assert!(told.count() <= 20, "{text}");
}
