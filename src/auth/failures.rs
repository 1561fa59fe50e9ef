//! The guard against guessing: failed authentications counted per address.

use crate::limit::decision::{Charge, Terms};
use crate::limit::descriptor::{BucketKey, KeyWriter};
use crate::limit::estimate::Estimate;
use crate::limit::quota::{BadQuota, Quota};
use crate::limit::store::memory::MemoryStore;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Addresses counted exactly at once; a spray of more forgets those nearest to zero.
const MAX_ADDRESSES: usize = 100_000;

/// Width of IPv6 networks that count as one address.
const IPV6_PREFIX: u8 = 64;

/// Failed authentications per address in a token bucket.
///
/// An estimator stands before the exact count: it never counts too few, so an address it has not
/// seen has never failed, and the many who never fail cost one look at constant memory.
pub struct FailureGuard {
    exact: MemoryStore,
    seen: Estimate,
    /// has anybody failed since the estimator started over?
    any: AtomicBool,
}

/// A guard's answer: refused for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// microseconds until an attempt is looked at again
    pub retry_after_us: u64,
}

/// `count` failures per `period_us` from one address, then no more attempts.
pub fn quota(count: u32, period_us: u64) -> Result<Quota, BadQuota> {
    Quota::token_bucket(u64::from(count), period_us, None)
}

impl Default for FailureGuard {
    fn default() -> Self {
        FailureGuard {
            exact: MemoryStore::new(MAX_ADDRESSES),
            seen: Estimate::with_slots(16_384),
            any: AtomicBool::new(false),
        }
    }
}

impl FailureGuard {
    /// May a credential from this address be looked at?
    pub fn check(&self, quota: &Quota, address: IpAddr, now_us: u64) -> Result<(), Guarded> {
        if !self.any.load(Ordering::Relaxed) {
            return Ok(());
        }
        let key = key(address);
        if self.seen.of(key) == 0 {
            return Ok(());
        }
        let decision = self.exact.peek(&[charge(quota, key)], now_us);
        match decision.buckets.first().map(|bucket| bucket.answer) {
            Some(crate::limit::algorithm::Answer::Refuse { retry_after_us }) => Err(Guarded {
                retry_after_us: retry_after_us.unwrap_or(1_000_000),
            }),
            _ => Ok(()),
        }
    }

    /// Counts a failure.
    pub fn failed(&self, quota: &Quota, address: IpAddr, now_us: u64) {
        let key = key(address);
        self.any.store(true, Ordering::Relaxed);
        self.seen.count(key, 1);
        self.exact.spend(&[charge(quota, key)], now_us);
    }

    /// Forgets failures that have expired; `turn` grows by one at each call.
    pub fn sweep(&self, turn: usize, now_us: u64) {
        self.exact.sweep(turn, now_us);
        // collisions only ever add up: start over once nobody is counted any more
        if self.any.load(Ordering::Relaxed) && self.exact.is_empty() {
            self.any.store(false, Ordering::Relaxed);
            self.seen.start_over();
        }
    }
}

fn charge(quota: &Quota, key: BucketKey) -> Charge<'_> {
    Charge {
        key,
        quota,
        cost: 1,
        enforce: true,
        terms: Terms::STRICT,
    }
}

fn key(address: IpAddr) -> BucketKey {
    let mut key = KeyWriter::new(b't', "-auth");
    key.address(address, IPV6_PREFIX);
    key.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn after_too_many_failures_an_address_waits_and_others_do_not() {
        let (guard, quota) = (FailureGuard::default(), quota(3, 60_000_000).unwrap());
        for _ in 0..3 {
            assert_eq!(guard.check(&quota, ADDRESS, 5), Ok(()));
            guard.failed(&quota, ADDRESS, 5);
        }
        assert_eq!(
            guard.check(&quota, ADDRESS, 5),
            Err(Guarded {
                retry_after_us: 20_000_000
            })
        );
        assert_eq!(guard.check(&quota, [192, 0, 2, 2].into(), 5), Ok(()));
        assert_eq!(guard.check(&quota, ADDRESS, 20_000_005), Ok(()));
    }

    #[test]
    fn once_all_failures_have_expired_the_estimator_starts_over() {
        let (guard, quota) = (FailureGuard::default(), quota(3, 60_000_000).unwrap());
        guard.failed(&quota, ADDRESS, 5);
        for turn in 0..100 {
            guard.sweep(turn, 60_000_005);
        }
        assert_eq!(guard.seen.of(key(ADDRESS)), 0);
    }
}
