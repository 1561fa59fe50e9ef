//! A master, its replica, and three sentinels that watch them.

use super::server::RedisServer;
use crate::waiting;
use std::net::SocketAddr;

const SENTINELS: usize = 3;
const MASTER: &str = "mymaster";
/// Also lets a sentinel on a busy machine trust its clock again after a second instead of half a minute.
const HASTE: [&str; 10] = [
    "SENTINEL",
    "DEBUG",
    "PUBLISH-PERIOD",
    "200",
    "INFO-PERIOD",
    "500",
    "ASK-PERIOD",
    "200",
    "TILT-PERIOD",
    "1000",
];

/// Two servers, one of which is the master, and the sentinels that decide which.
pub(crate) struct RedisSentinel {
    sentinels: Vec<RedisServer>,
    servers: Vec<RedisServer>,
}

impl RedisSentinel {
    /// Starts all of them and waits until every sentinel knows the others and the replica.
    pub(crate) fn start() -> Self {
        // a master waits 5 s for further replicas otherwise
        let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
        let port = master.address().port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
        waiting::until("the replica follows", || {
            let state = replica.command(&["INFO", "replication"]);
            state.contains("master_link_status:up")
        });
        let file = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {MASTER} 300\n\
             sentinel failover-timeout {MASTER} 1000\n"
        );
        let sentinels = (0..SENTINELS)
            .map(|_| RedisServer::start_sentinel(file.clone()))
            .collect::<Vec<_>>();
        for sentinel in &sentinels {
            // they ask each other more often than every 2 s; a Redis before 7 does not know this
            let _ = sentinel.ask(&HASTE);
        }
        let deployment = RedisSentinel {
            sentinels,
            servers: vec![master, replica],
        };
        waiting::until("the sentinels know each other", || {
            deployment.sentinels.iter().all(|sentinel| {
                let state = sentinel.command(&["SENTINEL", "MASTER", MASTER]);
                let lines: Vec<_> = state.lines().collect();
                let is = |pair: [&str; 2]| lines.chunks(2).any(|found| found == pair);
                is(["num-slaves", "1"])
                    && is(["num-other-sentinels", "2"])
                    && is(["flags", "master"])
            })
        });
        deployment
    }

    /// The URLs of the sentinels.
    pub(crate) fn sentinel_urls(&self) -> Vec<String> {
        self.sentinels.iter().map(RedisServer::url).collect()
    }

    /// The name under which they watch the master.
    pub(crate) fn master_name(&self) -> &'static str {
        MASTER
    }

    /// Where the master is, as the first sentinel says.
    pub(crate) fn master_address(&self) -> SocketAddr {
        let reply = self.sentinels[0].command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        let address = reply.replace('\n', ":");
        address
            .parse()
            .unwrap_or_else(|_| panic!("no address: {address}"))
    }

    /// The master, as the first sentinel says.
    pub(crate) fn master(&self) -> &RedisServer {
        let address = self.master_address();
        let mut servers = self.servers.iter();
        servers.find(|server| server.address() == address).unwrap()
    }

    /// Kills the master (SIGKILL); the sentinels make the other one the master.
    pub(crate) fn kill_master(&mut self) {
        let address = self.master_address();
        let mut servers = self.servers.iter_mut();
        servers
            .find(|server| server.address() == address)
            .unwrap()
            .kill();
    }
}
