//! The in-process store: sharded, bounded, expiring; spends over several buckets at once or not at all.

mod shard;

use crate::limit::algorithm::Reading;
use crate::limit::decision::{BucketDecision, Charge, Decision, Source};
use crate::limit::descriptor::BucketKey;
use crate::limit::quota::{Quota, State};
use parking_lot::{Mutex, MutexGuard};
use shard::{Shard, Slot};
use siphasher::sip128::{Hasher128, SipHasher13};
use smallvec::SmallVec;
use std::hash::Hasher;

/// Most shards; two requests meet on a lock only if their buckets share one of them.
const MAX_SHARDS: usize = 256;

/// Fewest keys a shard is made for: below that, an uneven spread would evict long before the store
/// is full.
const KEYS_PER_SHARD: usize = 1_024;

/// Buckets whose states are set at once, about as many as a processor looks ahead.
const AT_ONCE: usize = 8;

/// Buckets of this process, at most `max_keys` of them.
///
/// A bucket is found by a 128-bit hash of its key under a secret of this process, so nobody can
/// choose keys that fall together. When a shard is full, of sixteen of its buckets the one that
/// would be empty soonest is forgotten.
pub struct MemoryStore {
    secret: [u8; 16],
    shards: Box<[Mutex<Shard>]>,
}

/// The state a bucket is to have.
pub struct Put<'a> {
    /// which bucket
    pub key: &'a BucketKey,
    /// its quota, which says when it will be empty
    pub quota: &'a Quota,
    /// its state
    pub state: State,
    /// what time it is, microseconds
    pub now_us: u64,
}

/// Where a bucket is: the hash of its key and the shard it falls into.
#[derive(Clone, Copy)]
struct Place {
    hash: Hash,
    shard: usize,
}

/// 128 bits of a bucket key; the first half finds the slot, the second the shard.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hash(u64, u64);

impl MemoryStore {
    /// An empty store for at most `max_keys` buckets (at least 1).
    pub fn new(max_keys: usize) -> Self {
        let max_keys = max_keys.max(1);
        let shards = (max_keys / KEYS_PER_SHARD).clamp(1, MAX_SHARDS);
        let shards = if shards.is_power_of_two() {
            shards
        } else {
            shards.next_power_of_two() / 2
        };
        let shard = || Mutex::new(Shard::new((max_keys / shards).max(1)));
        MemoryStore {
            secret: random_secret(),
            shards: std::iter::repeat_with(shard).take(shards).collect(),
        }
    }

    /// Takes every cost from its bucket, or none of them.
    ///
    /// Shadow charges never refuse; they are taken where the request is admitted and they fit.
    /// Keys of one call are distinct (policy names are part of them).
    pub fn spend(&self, charges: &[Charge<'_>], now_us: u64) -> Decision {
        self.decide(charges, now_us, true)
    }

    /// What [`MemoryStore::spend`] would answer, and what is left now; changes nothing.
    pub fn peek(&self, charges: &[Charge<'_>], now_us: u64) -> Decision {
        self.decide(charges, now_us, false)
    }

    fn decide(&self, charges: &[Charge<'_>], now_us: u64, take: bool) -> Decision {
        let places: SmallVec<[Place; 4]> = charges
            .iter()
            .map(|charge| self.place(&charge.key))
            .collect();
        let mut shards = Locked::new(&self.shards, &places);
        // all look-ups before any arithmetic: their cache misses overlap
        let slots: SmallVec<[Slot; 4]> = places
            .iter()
            .map(|place| shards.get(place.shard).find(place.hash))
            .collect();
        let mut buckets: SmallVec<[BucketDecision; 2]> = SmallVec::with_capacity(charges.len());
        let mut allowed = true;
        for ((charge, place), &slot) in charges.iter().zip(&places).zip(&slots) {
            let shard = shards.get(place.shard);
            let answer = shard.answer(slot, charge.quota, now_us, charge.cost);
            allowed &= answer.admits() || !charge.enforce;
            buckets.push(BucketDecision {
                answer,
                reading: Reading::default(),
                counted: true,
            });
        }
        for (((charge, place), slot), bucket) in
            charges.iter().zip(&places).zip(slots).zip(&mut buckets)
        {
            let shard = shards.get(place.shard);
            bucket.reading = if take && allowed && bucket.answer.admits() && charge.cost > 0 {
                shard.charge(slot, place.hash, charge.quota, now_us, charge.cost)
            } else {
                shard.reading(slot, place.hash, charge.quota, now_us)
            };
        }
        Decision {
            allowed,
            buckets,
            now_us,
            source: Source::Memory,
        }
    }

    /// The state of a bucket, if it is held.
    pub fn state(&self, key: &BucketKey) -> Option<State> {
        let place = self.place(key);
        let shard = self.shards.get(place.shard)?.lock();
        shard.state(place.hash).cloned()
    }

    /// Sets the states of buckets.
    pub fn put<'a>(&self, puts: impl Iterator<Item = Put<'a>>) {
        let mut puts = puts.map(|put| (self.place(put.key), put)).fuse();
        loop {
            let some: SmallVec<[_; AT_ONCE]> = puts.by_ref().take(AT_ONCE).collect();
            let places: SmallVec<[Place; AT_ONCE]> = some.iter().map(|(place, _)| *place).collect();
            if places.is_empty() {
                return;
            }
            let mut shards = Locked::new(&self.shards, &places);
            // all look-ups before any change: their cache misses overlap
            let slots: SmallVec<[Slot; AT_ONCE]> = places
                .iter()
                .map(|place| shards.get(place.shard).find(place.hash))
                .collect();
            for ((place, put), slot) in some.into_iter().zip(slots) {
                shards.get(place.shard).put(slot, place.hash, put);
            }
        }
    }

    /// Forgets a bucket.
    pub fn forget(&self, key: &BucketKey) {
        let place = self.place(key);
        if let Some(shard) = self.shards.get(place.shard) {
            shard.lock().forget(place.hash);
        }
    }

    /// Gives back units of a `concurrency` bucket when the request they were taken for has ended.
    pub fn release(&self, key: &BucketKey, cost: u64) {
        let place = self.place(key);
        if let Some(shard) = self.shards.get(place.shard) {
            shard.lock().release(place.hash, cost);
        }
    }

    /// Forgets buckets that are empty again, in one of the shards; call it with a growing `turn`.
    pub fn sweep(&self, turn: usize, now_us: u64) {
        if let Some(shard) = self.shards.get(turn % self.shards.len()) {
            shard.lock().sweep_all(now_us);
        }
    }

    /// Number of shards, the turns of a whole sweep.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Buckets held now.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Is no bucket held?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Buckets forgotten before they were empty, because the store was full.
    pub fn evicted(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().evicted()).sum()
    }

    fn place(&self, key: &BucketKey) -> Place {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write(key.as_bytes());
        let hash = hasher.finish128();
        // a power of two, so the remainder is a mask
        Place {
            hash: Hash(hash.h1, hash.h2),
            shard: hash.h2 as usize & (self.shards.len() - 1),
        }
    }
}

/// The locks of the shards that a request needs, or states that are set at once, taken in ascending order
/// so that two of them never wait for each other.
struct Locked<'a> {
    guards: SmallVec<[(usize, MutexGuard<'a, Shard>); AT_ONCE]>,
}

impl<'a> Locked<'a> {
    fn new(shards: &'a [Mutex<Shard>], places: &[Place]) -> Self {
        let mut needed: SmallVec<[usize; AT_ONCE]> =
            places.iter().map(|place| place.shard).collect();
        needed.sort_unstable();
        needed.dedup();
        let lock = |index: usize| shards.get(index).map(|shard| (index, shard.lock()));
        Locked {
            guards: needed.into_iter().filter_map(lock).collect(),
        }
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "`new` locked every shard a place names"
    )]
    fn get(&mut self, shard: usize) -> &mut Shard {
        let position = self
            .guards
            .iter()
            .position(|(index, _)| *index == shard)
            .unwrap_or(0);
        &mut self.guards[position].1
    }
}

/// A key for keyed hashes that nobody outside this process knows.
pub(crate) fn random_secret() -> [u8; 16] {
    let mut secret = [0; 16];
    if getrandom::fill(&mut secret).is_err() {
        // no system randomness: still differs between processes
        secret = fastrand::u128(..).to_ne_bytes();
    }
    secret
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

    fn charge<'a>(name: &str, quota: &'a Quota, cost: u64) -> Charge<'a> {
        Charge {
            key: key(name),
            quota,
            cost,
            enforce: true,
            terms: Terms::STRICT,
        }
    }

    fn per_minute(count: u64) -> Quota {
        Quota::sliding_window(count, 60_000_000).unwrap()
    }

    #[test]
    fn a_request_takes_from_every_bucket_or_from_none() {
        let store = MemoryStore::new(10_000);
        let (one, five) = (per_minute(1), per_minute(5));
        let both = [charge("one", &one, 1), charge("five", &five, 1)];
        assert!(store.spend(&both, 10).allowed);
        for _ in 0..10 {
            let decision = store.spend(&both, 11);
            assert!(!decision.allowed);
            assert!(decision.buckets[1].answer.admits());
            assert_eq!(
                decision.buckets[1].reading.remaining, 4,
                "a refusal charges nothing"
            );
        }
    }

    #[test]
    fn shadow_never_refuses_and_is_charged_only_with_the_request_and_room() {
        let store = MemoryStore::new(10_000);
        let (one, three) = (per_minute(1), per_minute(3));
        let mut shadow = charge("shadow", &one, 1);
        shadow.enforce = false;
        let both = [shadow, charge("enforced", &three, 1)];
        assert!(store.spend(&both, 1).allowed);
        let second = store.spend(&both, 1);
        assert!(second.allowed && !second.buckets[0].answer.admits());
        assert!(store.spend(&both, 1).allowed);
        assert!(!store.spend(&both, 1).allowed);

        let fresh_shadow = Charge {
            key: key("another"),
            ..shadow
        };
        store.spend(&[fresh_shadow, charge("enforced", &three, 1)], 1);
        let peek = store.peek(&[fresh_shadow], 1);
        assert_eq!(
            peek.buckets[0].reading.remaining, 1,
            "not charged by a refused request"
        );
    }

    #[test]
    fn a_cost_of_nothing_is_always_allowed_and_leaves_no_trace() {
        let store = MemoryStore::new(10_000);
        let one = per_minute(1);
        assert!(store.spend(&[charge("a", &one, 0)], 1).allowed);
        assert_eq!(store.len(), 0);
        store.spend(&[charge("a", &one, 1)], 1);
        assert!(store.spend(&[charge("a", &one, 0)], 1).allowed);
    }

    #[test]
    fn states_are_set_many_at_once_the_last_of_a_bucket_counts() {
        let store = MemoryStore::new(10_000);
        let quota = per_minute(100);
        let name = |nth: usize| key(&(nth % 30).to_string());
        let keys: Vec<BucketKey> = (0..3 * AT_ONCE + 40).map(name).collect();
        let puts = keys.iter().enumerate().map(|(nth, key)| {
            let mut state = quota.empty();
            quota.charge(&mut state, 1, nth as u64);
            Put {
                key,
                quota: &quota,
                state,
                now_us: 1,
            }
        });
        store.put(puts);
        assert_eq!(store.len(), 30);
        for nth in 0..30 {
            let last = keys.iter().rposition(|key| *key == name(nth)).unwrap();
            let used = quota.used(&store.state(&name(nth)).unwrap(), 1);
            assert_eq!(used, last as u64, "bucket {nth}");
        }
    }

    #[test]
    fn states_that_are_set_at_once_push_each_other_out_of_a_full_store() {
        for max_keys in 1..AT_ONCE {
            let store = MemoryStore::new(max_keys);
            let quota = per_minute(100);
            let keys: Vec<BucketKey> = (0..40).map(|nth| key(&(nth % 11).to_string())).collect();
            let used = |nth: usize| 1 + (nth % 11) as u64;
            store.put(keys.iter().enumerate().map(|(nth, key)| {
                let mut state = quota.empty();
                quota.charge(&mut state, 1, used(nth));
                Put {
                    key,
                    quota: &quota,
                    state,
                    now_us: 1,
                }
            }));
            assert_eq!(store.len(), max_keys);
            for (nth, key) in keys.iter().enumerate().take(11) {
                if let Some(state) = store.state(key) {
                    assert_eq!(quota.used(&state, 1), used(nth), "bucket {nth}");
                }
            }
        }
    }

    #[test]
    fn peek_changes_nothing() {
        let store = MemoryStore::new(10_000);
        let one = per_minute(1);
        for _ in 0..3 {
            assert!(store.peek(&[charge("a", &one, 1)], 1).allowed);
        }
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn a_full_store_stays_bounded_and_forgets_what_is_nearest_to_empty() {
        let store = MemoryStore::new(1_000);
        let (short, long) = (
            per_minute(5),
            Quota::sliding_window(5, 3_600_000_000).unwrap(),
        );
        for name in 0..100 {
            assert!(
                store
                    .spend(&[charge(&format!("long-{name}"), &long, 5)], 1)
                    .allowed
            );
        }
        for name in 0..20_000 {
            store.spend(&[charge(&format!("short-{name}"), &short, 1)], 2 + name);
        }
        assert!(store.len() <= 1_000);
        assert!(store.evicted() >= 18_000);
        let kept = (0..100)
            .filter(|name| {
                !store
                    .peek(&[charge(&format!("long-{name}"), &long, 1)], 30_000)
                    .allowed
            })
            .count();
        assert!(
            kept >= 99,
            "{kept} of 100 exhausted buckets survived a spray of 20,000 keys"
        );
    }

    #[test]
    fn buckets_that_are_empty_again_are_forgotten() {
        let store = MemoryStore::new(100_000);
        let quota = per_minute(5);
        for name in 0..5_000 {
            store.spend(&[charge(&name.to_string(), &quota, 1)], 1);
        }
        for turn in 0..store.shards() {
            store.sweep(turn, 60_000_001);
        }
        assert!(store.is_empty());
    }

    #[test]
    fn concurrency_is_held_until_released_and_never_evicted() {
        let store = MemoryStore::new(1);
        let two = Quota::concurrency(2).unwrap();
        let held = charge("held", &two, 1);
        assert!(store.spend(&[held], 1).allowed && store.spend(&[held], 1).allowed);
        assert!(!store.spend(&[held], 1).allowed);
        for name in 0..50 {
            store.spend(&[charge(&name.to_string(), &per_minute(1), 1)], 2);
        }
        assert!(!store.spend(&[held], 3).allowed);
        store.release(&held.key, 1);
        assert!(store.spend(&[held], 4).allowed);
    }

    #[test]
    fn releasing_what_was_never_taken_gives_no_room() {
        let store = MemoryStore::new(10);
        let one = Quota::concurrency(1).unwrap();
        store.release(&key("a"), 5);
        assert!(store.spend(&[charge("a", &one, 1)], 1).allowed);
        assert!(!store.spend(&[charge("a", &one, 1)], 1).allowed);
    }

    #[test]
    fn many_threads_on_one_bucket_take_exactly_the_quota() {
        let store = MemoryStore::new(1_000);
        let (hundred, plenty) = (per_minute(100), per_minute(10_000));
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (store, hundred, plenty) = (&store, &hundred, &plenty);
                    scope.spawn(move || {
                        let own = format!("own-{thread}");
                        (0..500)
                            .filter(|_| {
                                store
                                    .spend(
                                        &[charge("shared", hundred, 1), charge(&own, plenty, 1)],
                                        7,
                                    )
                                    .allowed
                            })
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(admitted, 100);
    }
}
