//! Real Redis servers for the tests: alone, as a cluster, behind sentinels, at the end of a bad wire.

pub(crate) mod certificates;
mod cluster;
pub(crate) mod ports;
mod process;
mod resp;
mod sentinel;
mod server;
mod smoke;
mod wire;

pub(crate) use cluster::RedisCluster;
pub(crate) use resp::{RedisConnection, Reply};
pub(crate) use sentinel::RedisSentinel;
pub(crate) use server::{RedisServer, libfaketime};
pub(crate) use wire::Wire;
