//! Where buckets live: in this process.

pub mod memory;
