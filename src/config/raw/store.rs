//! The keys of the store.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span;
use crate::config::notation::{KeyPrefix, MasterName, RedisUrl, TimeSpan, Written};

/// Where buckets live.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Store {
    /// The Redis that gateways share; null, or no URL: buckets live in this process.
    pub(in crate::config) redis: Option<Redis>,
    /// Buckets in this process.
    pub(in crate::config) memory: Memory,
    /// Keys counted exactly in this process while Redis does not answer.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(in crate::config) max_local_keys: usize,
    /// Gateways that share the quotas, until the live number is known from Redis.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) expected_gateways: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            redis: Some(Redis::default()),
            memory: Memory::default(),
            max_local_keys: 100_000,
            expected_gateways: 1,
        }
    }
}

/// Buckets in this process.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Memory {
    /// Keys held at most; when full, the key nearest to empty goes.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(in crate::config) max_keys: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            max_keys: 1_000_000,
        }
    }
}

/// The Redis that gateways share.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Redis {
    /// Where it is: redis://[user[:password]@]host[:port][/db], rediss:// for TLS, unix:///path for a socket;
    /// null or empty: buckets live in this process.
    pub(in crate::config) url: Option<Written<RedisUrl>>,
    /// Several instead of url: nodes of the cluster, or sentinels.
    #[schemars(with = "Vec<Written<RedisUrl>>")]
    pub(in crate::config) urls: Vec<Option<Written<RedisUrl>>>,
    /// How its servers work together.
    pub(in crate::config) mode: Mode,
    /// The name under which the sentinels watch the master; with mode sentinel only.
    pub(in crate::config) master: Option<Written<MasterName>>,
    /// A request's deadline, from its arrival, 1ms to 10s; later it is decided by the policy's on_outage.
    pub(in crate::config) timeout: Written<TimeSpan>,
    /// Requests that wait for Redis at most; beyond that, one is decided by the policy's on_outage at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) max_waiting: usize,
    /// What every key in Redis starts with.
    pub(in crate::config) prefix: Written<KeyPrefix>,
    /// Certificates to trust instead of the system's, in PEM; with rediss:// only.
    pub(in crate::config) ca_file: Option<String>,
}

impl Default for Redis {
    fn default() -> Self {
        Redis {
            url: None,
            urls: Vec::new(),
            mode: Mode::Single,
            master: None,
            timeout: span("25ms", Duration::from_millis(25)),
            max_waiting: 1024,
            prefix: Written::known("tg:", KeyPrefix("tg:".to_owned())),
            ca_file: None,
        }
    }
}

/// How the servers of a Redis work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RedisMode")]
pub(in crate::config) enum Mode {
    /// One server, or a proxy that looks like one.
    Single,
    /// The URLs are those of sentinels.
    Sentinel,
    /// The URLs are those of some nodes of a Redis Cluster.
    Cluster,
}
