//! Ways into Redis: passwords, users, TLS, a Unix socket, and what is said where one is closed.

use super::load::admitted;
use super::scene::until_connected;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::RedisServer;
use crate::upstream::Upstream;
use crate::waiting::{pause, timed};
use std::time::Duration;

/// What a user needs to be allowed.
const RULES: &str = "~tg:* &tg:* +@all -@dangerous";

fn gateway(upstream: &Upstream, redis: &str) -> Gateway {
    Gateway::start(&format!(
        "{}{EVERYTHING}store: {{ redis: {{ {redis}, timeout: 200ms }} }}
policies: {{ p: {{ key: [global], algorithm: token_bucket, quota: {{ count: 5, period: 1h }} }} }}",
        app(upstream.address)
    ))
}

fn url(url: &str) -> String {
    format!("url: \"{url}\"")
}

/// Two gateways that get in share five units.
fn counts(redis: &str) {
    let upstream = Upstream::echo();
    let gateways = [gateway(&upstream, redis), gateway(&upstream, redis)];
    gateways.iter().for_each(until_connected);
    let admitted = gateways.each_ref().map(|gateway| {
        let admitted = admitted(gateway.address, "/", "", 3);
        assert!(!gateway.stderr.text().contains("s3cret"));
        admitted
    });
    assert_eq!(admitted, [3, 2]);
}

/// A gateway that does not get in decides alone and says why, once and without the password.
fn says_why(redis: &str, why: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream, redis);
    let health = gateway.get("/health").json();
    assert_eq!(health["status"], "degraded");
    assert_ne!(health["redis"], "connected");
    assert_eq!(admitted(gateway.address, "/", "", 7), 5);
    gateway.stderr.line_with(why);
    // several attempts later it is still said once
    pause(Duration::from_millis(700));
    let text = gateway.stderr.text();
    assert_eq!(text.matches(why).count(), 1, "{text}");
    assert!(text.lines().count() <= 6, "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    (upstream, gateway)
}

#[test]
fn a_password() {
    counts(&url(&RedisServer::start_with_password("s3cret").url()));
}

#[test]
fn a_user_with_a_password() {
    let redis = RedisServer::start_with_user("tidegate", "s3cret", RULES);
    counts(&url(&redis.url()));
}

#[test]
fn a_unix_socket() {
    counts(&url(&RedisServer::start().socket_url()));
}

#[test]
fn a_unix_socket_with_a_user() {
    let redis = RedisServer::start_with_user("tidegate", "s3cret", RULES);
    counts(&url(&redis.socket_url()));
}

#[test]
fn a_database_of_its_own() {
    let redis = RedisServer::start();
    counts(&url(&format!("{}/3", redis.url())));
    assert!(redis.command(&["INFO", "keyspace"]).contains("db3:"));
}

#[test]
fn tls_with_the_file_of_its_ca() {
    let redis = RedisServer::start_with_tls();
    let ca_file = redis.ca_file().display();
    counts(&format!("{}, ca_file: \"{ca_file}\"", url(&redis.url())));
}

#[test]
fn tls_with_the_file_of_another_ca() {
    let (redis, other) = (RedisServer::start_with_tls(), RedisServer::start_with_tls());
    let ca_file = other.ca_file().display();
    let settings = format!("{}, ca_file: \"{ca_file}\"", url(&redis.url()));
    says_why(&settings, "certificate");
}

#[test]
fn tls_whose_ca_the_system_does_not_know() {
    says_why(&url(&RedisServer::start_with_tls().url()), "certificate");
}

#[test]
fn no_tls_where_tls_is_spoken() {
    let redis = RedisServer::start_with_tls();
    let plain = redis.url().replace("rediss:", "redis:");
    says_why(&url(&plain), "cannot connect to Redis: ");
}

#[test]
fn a_wrong_password_until_it_is_right() {
    let redis = RedisServer::start_with_password("right");
    let wrong = redis.url().replace(":right@", ":s3cret@");
    let (_upstream, gateway) = says_why(
        &url(&wrong),
        "it does not accept the user or password of store.redis.url",
    );
    redis.command(&["CONFIG", "SET", "requirepass", "s3cret"]);
    let ((), took) = timed(|| until_connected(&gateway));
    assert!(took <= Duration::from_secs(1), "{took:?}");
    // what was admitted alone has been charged
    assert_eq!(admitted(gateway.address, "/", "", 3), 0);
}

#[test]
fn no_password_where_one_is_wanted() {
    let redis = RedisServer::start_with_password("right");
    let address = redis.address();
    says_why(&url(&format!("redis://{address}")), "NOAUTH");
}

#[test]
fn a_user_who_may_not_run_scripts() {
    let rules = "~tg:* &tg:* +@all -@scripting";
    let redis = RedisServer::start_with_user("tidegate", "s3cret", rules);
    says_why(&url(&redis.url()), "NOPERM");
}

#[test]
fn a_user_who_may_not_touch_the_keys() {
    let rules = "~other:* &tg:* +@all";
    let redis = RedisServer::start_with_user("tidegate", "s3cret", rules);
    says_why(
        &url(&redis.url()),
        "NOPERM this user has no permissions to access",
    );
}

#[test]
fn a_replica() {
    let redis = RedisServer::start();
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    says_why(&url(&redis.url()), "read only replica");
}

#[test]
fn a_server_without_memory() {
    let redis = RedisServer::start_with(&["--maxmemory", "1"]);
    says_why(&url(&redis.url()), "maxmemory");
}

#[test]
fn something_that_is_no_redis() {
    let other = Upstream::echo();
    says_why(
        &url(&format!("redis://{}", other.address)),
        "cannot connect to Redis: ",
    );
}
