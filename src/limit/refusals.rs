//! The memory of refusals: what the store has just refused, this gateway refuses by itself.
//!
//! Kept per enforcing bucket and quota: "cost `c` or more is refused until `t`". An attacker then
//! costs the store one call a second. Only keys that are surely not cold get an entry, so a spray
//! of keys cannot fill the table.

use super::algorithm::{Answer, Reading};
use super::decision::{BucketDecision, Charge, Decision, Source};
use super::descriptor::BucketKey;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest a refusal is remembered, microseconds.
pub const LONGEST_US: u64 = 1_000_000;

/// Shards of the table.
const SHARDS: usize = 16;

/// Most refusals remembered in one shard.
const PER_SHARD: usize = 4_096;

/// Most buckets whose refusals are added up in one shard.
const COUNTED_PER_SHARD: usize = 1_024;

/// Refusals that still hold. Times are microseconds on a clock that never steps.
pub struct Refusals {
    shards: [Mutex<Shard>; SHARDS],
    remembered: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    held: HashMap<BucketKey, Refusal>,
    /// how often buckets have refused since that was last asked for
    counts: HashMap<BucketKey, u64>,
}

impl Shard {
    fn count(&mut self, key: &BucketKey, refusals: u64) {
        if let Some(count) = self.counts.get_mut(key) {
            *count = count.saturating_add(refusals);
        } else if self.counts.len() < COUNTED_PER_SHARD {
            self.counts.insert(*key, refusals);
        }
    }
}

/// What the store said about one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// by which quota
    pub fingerprint: u64,
    /// this cost, or more
    pub cost: u64,
    /// until when
    pub until_us: u64,
    /// when there is room again; `None`: no wait helps
    pub room_at_us: Option<u64>,
    /// what is left
    pub remaining: u64,
    /// when the bucket is whole again
    pub whole_at_us: u64,
}

/// What a request wants to take from one bucket.
#[derive(Clone, Copy)]
pub struct Taking<'a> {
    /// which bucket
    pub key: &'a BucketKey,
    /// by which quota
    pub fingerprint: u64,
    /// how many units
    pub cost: u64,
    /// may it refuse?
    pub enforce: bool,
}

impl<'a> From<&'a Charge<'_>> for Taking<'a> {
    fn from(charge: &'a Charge<'_>) -> Self {
        Taking {
            key: &charge.key,
            fingerprint: charge.terms.fingerprint,
            cost: charge.cost,
            enforce: charge.enforce,
        }
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Refusals {
            shards: std::array::from_fn(|_| Mutex::default()),
            remembered: AtomicUsize::new(0),
        }
    }
}

impl Refusals {
    /// Remembers a refusal; where the table is full, it does not.
    pub fn remember(&self, key: &BucketKey, refusal: Refusal, now_us: u64) {
        let held = &mut self.shard(key).lock().held;
        if held.len() >= PER_SHARD && !held.contains_key(key) {
            let before = held.len();
            held.retain(|_, refusal| refusal.until_us > now_us);
            self.remembered
                .fetch_sub(before - held.len(), Ordering::Relaxed);
            if held.len() >= PER_SHARD {
                return;
            }
        }
        if held.insert(*key, refusal).is_none() {
            self.remembered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The decision about so many requests, if a remembered refusal makes it. `store_us`: the same moment on the
    /// store's clock.
    pub fn decide<'a>(
        &self,
        taken: impl Iterator<Item = Taking<'a>>,
        requests: u64,
        now_us: u64,
        store_us: u64,
    ) -> Option<Decision> {
        if self.remembered.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let refused: SmallVec<[Option<Refusal>; 4]> = taken
            .map(|taking| self.holding(&taking, requests, now_us))
            .collect();
        if refused.iter().all(Option::is_none) {
            return None;
        }
        Some(Decision {
            allowed: false,
            buckets: refused
                .iter()
                .map(|refusal| told(refusal.as_ref(), now_us))
                .collect(),
            now_us: store_us,
            source: Source::Remembered,
        })
    }

    fn holding(&self, taking: &Taking<'_>, requests: u64, now_us: u64) -> Option<Refusal> {
        if !taking.enforce || taking.cost == 0 {
            return None;
        }
        let mut shard = self.shard(taking.key).lock();
        let refusal = *shard.held.get(taking.key)?;
        if refusal.until_us <= now_us || refusal.fingerprint != taking.fingerprint {
            shard.held.remove(taking.key);
            self.remembered.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if taking.cost < refusal.cost {
            return None;
        }
        shard.count(taking.key, requests);
        Some(refusal)
    }

    /// The store has refused so often.
    pub fn count(&self, key: &BucketKey, refusals: u64) {
        self.shard(key).lock().count(key, refusals);
    }

    /// How often buckets have refused since this was last asked: some of them, and the others next
    /// time.
    pub fn take_counts(&self, most: usize) -> Vec<(BucketKey, u64)> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let counts = &mut shard.lock().counts;
            let left = most.saturating_sub(taken.len());
            if counts.len() <= left {
                taken.extend(counts.drain());
            } else {
                let some: Vec<BucketKey> = counts.keys().take(left).copied().collect();
                taken.extend(some.iter().filter_map(|key| counts.remove_entry(key)));
            }
        }
        taken
    }

    /// Forgets the refusals of one bucket: it was reset.
    pub fn forget(&self, key: &BucketKey) {
        if self.shard(key).lock().held.remove(key).is_some() {
            self.remembered.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Forgets everything: policies have changed, or nobody tells of resets any more.
    pub fn clear(&self) {
        for shard in &self.shards {
            let held = &mut shard.lock().held;
            self.remembered.fetch_sub(held.len(), Ordering::Relaxed);
            held.clear();
        }
    }

    /// Forgets what does not hold any more, in one of the shards.
    pub fn sweep(&self, turn: usize, now_us: u64) {
        if let Some(shard) = self.shards.get(turn % SHARDS) {
            let held = &mut shard.lock().held;
            let before = held.len();
            held.retain(|_, refusal| refusal.until_us > now_us);
            self.remembered
                .fetch_sub(before - held.len(), Ordering::Relaxed);
        }
    }

    /// Refusals remembered now.
    pub fn len(&self) -> usize {
        self.remembered.load(Ordering::Relaxed)
    }

    /// Is none remembered?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn shard(&self, key: &BucketKey) -> &Mutex<Shard> {
        let bytes = key.as_bytes();
        let last = bytes.iter().rev().take(8);
        let mixed = last.fold(bytes.len(), |mixed, byte| {
            mixed.wrapping_mul(31).wrapping_add(usize::from(*byte))
        });
        &self.shards[mixed % SHARDS]
    }
}

/// A bucket nobody was asked about has no refusal, and nothing is known of what is left in it.
fn told(refusal: Option<&Refusal>, now_us: u64) -> BucketDecision {
    let Some(refusal) = refusal else {
        return BucketDecision {
            answer: Answer::NOW,
            reading: Reading::default(),
            counted: false,
        };
    };
    BucketDecision {
        answer: Answer::Refuse {
            retry_after_us: refusal
                .room_at_us
                .map(|at| at.saturating_sub(now_us).max(1)),
        },
        reading: Reading {
            remaining: refusal.remaining,
            reset_after_us: refusal.whole_at_us.saturating_sub(now_us),
        },
        counted: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::decision::Terms;
    use crate::limit::descriptor::KeyWriter;
    use crate::limit::quota::Quota;

    fn key(name: &str) -> BucketKey {
        KeyWriter::new(b't', name).finish()
    }

    fn refusal(cost: u64, until_us: u64) -> Refusal {
        Refusal {
            fingerprint: 0,
            cost,
            until_us,
            room_at_us: Some(until_us),
            remaining: cost - 1,
            whole_at_us: 9_000,
        }
    }

    fn charge<'a>(name: &str, quota: &'a Quota, cost: u64) -> Charge<'a> {
        Charge {
            key: key(name),
            quota,
            cost,
            enforce: true,
            terms: Terms::STRICT,
        }
    }

    #[test]
    fn the_same_cost_or_more_is_refused_until_then_and_less_is_not() {
        let quota = Quota::token_bucket(10, 1_000_000, None).unwrap();
        let refusals = Refusals::default();
        refusals.remember(&key("p"), refusal(3, 5_000), 0);
        let ask = |cost, now_us| {
            refusals.decide(
                [charge("p", &quota, cost)].iter().map(Taking::from),
                1,
                now_us,
                77,
            )
        };
        let decision = ask(3, 1_000).unwrap();
        assert!(!decision.allowed);
        assert_eq!(
            decision.buckets[0].answer,
            Answer::Refuse {
                retry_after_us: Some(4_000)
            }
        );
        assert_eq!(decision.buckets[0].reading.reset_after_us, 8_000);
        assert!(ask(2, 1_000).is_none(), "a smaller cost may fit");
        assert!(ask(4, 4_999).is_some());
        assert!(ask(3, 5_000).is_none(), "room again");
        assert!(refusals.is_empty());
    }

    #[test]
    fn refusals_are_added_up_until_somebody_asks_and_never_of_too_many_buckets() {
        let quota = Quota::token_bucket(10, 1_000_000, None).unwrap();
        let refusals = Refusals::default();
        refusals.remember(&key("p"), refusal(1, 5_000), 0);
        let ask = |now_us| {
            let charges = [charge("p", &quota, 1)];
            refusals.decide(charges.iter().map(Taking::from), 1, now_us, 77)
        };
        assert!(ask(1).is_some() && ask(2).is_some() && ask(5_000).is_none());
        refusals.count(&key("p"), 3);
        assert!(refusals.take_counts(0).is_empty());
        assert_eq!(refusals.take_counts(10), [(key("p"), 5)]);
        assert!(refusals.take_counts(10).is_empty());
        for index in 0..50_000 {
            refusals.count(&key(&index.to_string()), 1);
        }
        assert_eq!(refusals.take_counts(100).len(), 100);
        let rest = refusals.take_counts(usize::MAX).len();
        assert!(rest <= SHARDS * COUNTED_PER_SHARD, "{rest}");
    }

    #[test]
    fn one_refused_bucket_refuses_the_request_and_says_nothing_of_the_others() {
        let quota = Quota::token_bucket(10, 1_000_000, None).unwrap();
        let refusals = Refusals::default();
        refusals.remember(&key("p"), refusal(1, 5_000), 0);
        let both = [charge("q", &quota, 1), charge("p", &quota, 1)];
        let decision = refusals
            .decide(both.iter().map(Taking::from), 1, 0, 0)
            .unwrap();
        assert!(decision.buckets[0].answer.admits() && !decision.buckets[0].counted);
        assert!(!decision.buckets[1].answer.admits());
    }

    #[test]
    fn shadow_other_quotas_and_cleared_refusals_do_not_refuse() {
        let quota = Quota::token_bucket(10, 1_000_000, None).unwrap();
        let refusals = Refusals::default();
        refusals.remember(&key("p"), refusal(1, 5_000), 0);
        let mut shadow = charge("p", &quota, 1);
        shadow.enforce = false;
        assert!(
            refusals
                .decide([shadow].iter().map(Taking::from), 1, 0, 0)
                .is_none()
        );
        let mut edited = charge("p", &quota, 1);
        edited.terms.fingerprint = 9;
        assert!(
            refusals
                .decide([edited].iter().map(Taking::from), 1, 0, 0)
                .is_none()
        );
        refusals.remember(&key("p"), refusal(1, 5_000), 0);
        refusals.clear();
        assert!(
            refusals
                .decide([charge("p", &quota, 1)].iter().map(Taking::from), 1, 0, 0)
                .is_none()
        );
    }

    #[test]
    fn the_table_is_bounded_and_expired_refusals_make_room() {
        let refusals = Refusals::default();
        for index in 0..200_000 {
            refusals.remember(&key(&index.to_string()), refusal(1, 10), 0);
        }
        assert!(refusals.len() <= SHARDS * PER_SHARD);
        refusals.remember(&key("0"), refusal(1, 50), 20);
        for turn in 0..SHARDS {
            refusals.sweep(turn, 20);
        }
        assert_eq!(refusals.len(), 1);
    }
}
