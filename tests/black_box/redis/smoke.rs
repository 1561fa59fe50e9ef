//! The servers do what the tests that use them rely on.

use super::{RedisCluster, RedisConnection, RedisSentinel, RedisServer, Reply, Wire};
use crate::waiting::{self, timed};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(200);

/// What `redis-cli` prints for a command; it reads every form of URL but sockets.
fn cli(url: &str, options: &[&str], command: &[&str]) -> String {
    let mut cli = Command::new("redis-cli");
    let done = cli.args(["-u", url]).args(options).args(command);
    let done = done.output().unwrap();
    let texts = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
    texts.join("\n").trim().to_owned()
}

fn text(text: &str) -> Reply {
    Reply::Text(text.to_owned())
}

fn ping(address: std::net::SocketAddr) -> std::io::Result<Reply> {
    RedisConnection::open_for(address, SOON)?.ask(&["PING"])
}

#[test]
fn a_server_forgets_everything_when_it_is_restarted() {
    let mut redis = RedisServer::start();
    assert_eq!(redis.command(&["SET", "x", "1"]), "OK");
    assert_eq!(cli(&redis.url(), &[], &["GET", "x"]), "1");
    let (address, process) = (redis.address(), redis.process_id());
    redis.restart();
    assert_eq!(
        (redis.address(), redis.command(&["GET", "x"])),
        (address, String::new())
    );
    assert_ne!(redis.process_id(), process);
    redis.kill();
    let refused = RedisConnection::open(address).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_persistent_server_keeps_its_data_over_a_crash() {
    let mut redis = RedisServer::start_persistent();
    redis.command(&["SET", "x", "1"]);
    redis.restart_with_data();
    assert_eq!(redis.command(&["GET", "x"]), "1");
    redis.restart();
    assert_eq!(redis.command(&["GET", "x"]), "");
}

#[test]
fn a_frozen_server_accepts_but_does_not_answer() {
    let redis = RedisServer::start();
    let mut connection = RedisConnection::open_for(redis.address(), SOON).unwrap();
    redis.freeze();
    assert!(connection.ask(&["PING"]).is_err() && ping(redis.address()).is_err());
    redis.thaw();
    assert_eq!(ping(redis.address()).unwrap(), text("PONG"));
}

#[test]
fn options_and_sockets_and_lists() {
    let redis = RedisServer::start_with(&["--maxmemory", "3mb"]);
    assert_eq!(
        redis.command(&["CONFIG", "GET", "maxmemory"]),
        "maxmemory\n3145728"
    );
    let error = redis.ask(&["GET"]).unwrap();
    assert!(
        matches!(&error, Reply::Error(text) if text.starts_with("ERR ")),
        "{error:?}"
    );
    let socket = redis.socket_url();
    let socket = socket.strip_prefix("unix://").unwrap();
    let reply = Command::new("redis-cli")
        .args(["-s", socket, "PING"])
        .output();
    assert_eq!(reply.unwrap().stdout, b"PONG\n");
}

#[test]
fn servers_want_the_login_that_is_in_their_url() {
    let word = RedisServer::start_with_password("s3cret");
    let user = RedisServer::start_with_user("tidegate", "s3cret", "~tg:* &tg:* +@all -@dangerous");
    for redis in [&word, &user] {
        assert_eq!(redis.command(&["SET", "tg:x", "1"]), "OK");
        assert!(redis.socket_url().ends_with("&pass=s3cret"));
        let mut stranger = RedisConnection::open(redis.address()).unwrap();
        let refusal = stranger.ask(&["GET", "tg:x"]).unwrap().text();
        assert!(refusal.starts_with("NOAUTH"), "{refusal}");
    }
    assert!(word.url().starts_with("redis://:s3cret@127.0.0.1:"));
    assert_eq!(
        cli(&user.url(), &["--no-auth-warning"], &["GET", "tg:x"]),
        "1"
    );
    let refusal = user.ask(&["GET", "other"]).unwrap().text();
    assert!(refusal.starts_with("NOPERM"), "{refusal}");
}

#[test]
fn a_server_with_tls_is_trusted_by_its_ca_alone() {
    let redis = RedisServer::start_with_tls();
    let ca_file = redis.ca_file().to_str().unwrap();
    let url = redis.url();
    assert!(url.starts_with("rediss://127.0.0.1:"));
    assert_eq!(cli(&url, &["--cacert", ca_file], &["PING"]), "PONG");
    assert!(cli(&url, &[], &["PING"]).contains("certificate verify failed"));
    assert_eq!(redis.command(&["PING"]), "PONG");
}

#[test]
fn the_clock_of_a_server_steps_both_ways() {
    let redis = RedisServer::start_with_clock();
    let seconds = || -> i64 {
        let time = redis.command(&["TIME"]);
        time.lines().next().unwrap().parse().unwrap()
    };
    let before = seconds();
    for (shift, least) in [(-100.0, -101), (100.0, 99)] {
        redis.shift_clock(shift);
        let step = seconds() - before;
        assert!((least..least + 12).contains(&step), "{step}");
    }
}

#[test]
fn a_cluster_shares_the_keys_and_lives_on_without_a_node() {
    let mut cluster = RedisCluster::start();
    assert_eq!(cluster.urls().len(), 3);
    let keys: Vec<_> = (0..30).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        assert_eq!(cluster.command(0, &["SET", key, key]), "OK");
        assert_eq!(
            cluster.node(cluster.node_of(key)).command(&["GET", key]),
            *key
        );
    }
    let of = |node| {
        keys.iter()
            .find(|key| cluster.node_of(key) == node)
            .unwrap()
    };
    let keys = [of(0), of(1), of(2)];
    cluster.kill_node(1);
    assert_eq!(cluster.command(0, &["GET", keys[2]]), *keys[2]);
    assert_eq!(cluster.command(2, &["GET", keys[0]]), *keys[0]);
    cluster.restart_node(1);
    waiting::until("the node has its slots again", || {
        cluster
            .node(1)
            .ask(&["GET", keys[1]])
            .is_ok_and(|reply| reply == Reply::Nil)
    });
}

#[test]
fn sentinels_replace_a_dead_master_within_five_seconds() {
    let mut redis = RedisSentinel::start();
    assert_eq!(redis.sentinel_urls().len(), 3);
    let before = redis.master_address();
    let master = redis.master();
    // WAIT is about what its own connection has written
    let mut connection = RedisConnection::open(master.address()).unwrap();
    connection.ask(&["SET", "x", "1"]).unwrap();
    let copies = connection.ask(&["WAIT", "1", "5000"]).unwrap();
    assert_eq!(copies, text("1"));
    let url = redis.sentinel_urls().pop().unwrap();
    let name = redis.master_name();
    let found = cli(&url, &[], &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]);
    assert_eq!(found.replace('\n', ":"), before.to_string());
    let ((), took) = timed(|| {
        redis.kill_master();
        waiting::until("there is another master", || {
            redis.master_address() != before
                && redis.master().command(&["ROLE"]).starts_with("master")
        });
    });
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(redis.master().command(&["GET", "x"]), "1");
}

#[test]
fn a_wire_delays_each_direction() {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    assert_eq!(cli(&wire.url(), &[], &["PING"]), "PONG");
    let mut connection = RedisConnection::open(wire.address).unwrap();
    let mut increase = || timed(|| connection.ask(&["INCR", "x"]).unwrap());
    let (there, back) = (Duration::from_millis(80), Duration::from_millis(40));
    wire.delay(there, back);
    let (reply, took) = increase();
    assert_eq!(reply, text("1"));
    assert!(took >= there + back, "{took:?}");
    // only the answer is late
    wire.delay(Duration::ZERO, Duration::from_secs(3600));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| increase().0);
        waiting::until("the command has arrived", || {
            redis.command(&["GET", "x"]) == "2"
        });
        assert!(!asked.is_finished());
        wire.heal();
        assert_eq!(asked.join().unwrap(), text("2"));
    });
}

#[test]
fn a_silent_wire_keeps_connections_and_what_is_under_way() {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    let mut connection = RedisConnection::open_for(wire.address, SOON).unwrap();
    assert_eq!(connection.ask(&["PING"]).unwrap(), text("PONG"));
    wire.go_silent();
    assert!(connection.ask(&["INCR", "x"]).is_err());
    assert!(ping(wire.address).is_err());
    assert_eq!(
        (wire.accepted(), redis.command(&["GET", "x"])),
        (2, String::new())
    );
    wire.heal();
    waiting::until("the command has arrived", || {
        redis.command(&["GET", "x"]) == "1"
    });
    assert_eq!(ping(wire.address).unwrap(), text("PONG"));
}

#[test]
fn a_wire_breaks_connections_and_refuses_new_ones() {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    let open = || RedisConnection::open(wire.address);
    let mut connection = open().unwrap();
    assert_eq!(connection.ask(&["PING"]).unwrap(), text("PONG"));
    wire.cut();
    assert!(connection.ask(&["PING"]).is_err());
    assert_eq!(open().unwrap().ask(&["PING"]).unwrap(), text("PONG"));
    wire.refuse();
    assert_eq!(
        open().err().unwrap().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    wire.heal();
    assert_eq!(open().unwrap().ask(&["PING"]).unwrap(), text("PONG"));
}
