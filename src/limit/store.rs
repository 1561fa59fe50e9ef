//! Where buckets live: in this process, or in Redis.

pub mod memory;
pub mod redis;
