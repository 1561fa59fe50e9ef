//! Buckets in Redis, shared by all gateways: the connection, the scripts, what is sent and what comes back.

pub mod link;
pub mod script;
pub mod timeline;
pub mod wire;

#[cfg(test)]
mod equality;
