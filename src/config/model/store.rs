//! Where buckets live: in this process, or in a Redis that gateways share.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// Where buckets live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Keys held in process at most; at least 1.
    pub memory_max_keys: usize,
    /// The shared store; absent: buckets live in this process.
    pub redis: Option<Redis>,
    /// Keys counted exactly in process during an outage of Redis; at least 1.
    pub max_local_keys: usize,
    /// Gateways that share a quota while their live number is not known; 1 to 10,000.
    pub expected_gateways: u64,
}

/// The Redis that gateways share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// How its servers work together.
    pub mode: RedisMode,
    /// Where to connect; at least one, exactly one in single mode. All have the same scheme, user, password and
    /// database. Each is `redis://[user[:password]@]host[:port][/db]`, the same with `rediss://`, or
    /// `unix:///path[?db=N&user=U&pass=P]` (also `redis+unix://`).
    pub urls: Vec<Secret>,
    /// A request's deadline, from its arrival; 1 ms to 10 s.
    pub timeout: Duration,
    /// Requests that wait for Redis at most; 1 to 1,000,000.
    pub max_waiting: usize,
    /// What every key starts with: visible ASCII without braces, up to 32 bytes; may be empty.
    pub prefix: String,
    /// A PEM file of certificates to trust instead of the system's; readable when the configuration was loaded.
    /// Only where the URLs are `rediss://`.
    pub ca_file: Option<PathBuf>,
}

/// How the servers of a Redis work together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisMode {
    /// One server, or a proxy that looks like one.
    Single,
    /// The URLs are those of sentinels, which know the present master.
    Sentinel {
        /// The name under which they watch it; never empty.
        master: String,
    },
    /// The URLs are those of some nodes of a Redis Cluster; never a socket, never another database than 0.
    Cluster,
}
