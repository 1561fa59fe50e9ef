//! The limiter: quotas, bucket keys, decisions, and the stores that keep the buckets.
//!
//! `limit` knows neither HTTP nor Pingora nor Postgres. A request becomes a list of
//! [`Charge`](decision::Charge)s; a store spends all of them in one atomic step or none, and says
//! so in a [`Decision`](decision::Decision). The arithmetic is in [`algorithm`], pure functions of
//! quota, state and time.

pub mod algorithm;
pub mod batch;
#[cfg(test)]
mod bounds;
pub mod breaker;
pub mod calendar;
pub mod decision;
pub mod descriptor;
pub mod estimate;
pub mod lease;
pub mod limiter;
pub mod outage;
pub mod quota;
pub mod rate;
pub mod refusals;
mod share;
pub mod shared;
pub mod store;
