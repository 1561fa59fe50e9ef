//! A bounded map in shards: when a shard is full, of some of its entries the least recently used goes.

use hashbrown::{DefaultHashBuilder, Equivalent, HashMap};
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash};

/// Most shards; two look-ups meet on a lock only if their entries share one of them.
const MAX_SHARDS: usize = 64;

/// Fewest entries a shard is made for: below that, an uneven spread would evict long before the
/// cache is full.
const PER_SHARD: usize = 1_024;

/// Entries looked at for the one that goes.
const SAMPLE: usize = 8;

/// Entries by id, at most so many.
pub(super) struct Cache<K, V> {
    hasher: DefaultHashBuilder,
    shards: Box<[Mutex<Shard<K, V>>]>,
}

/// A value and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Entry<V> {
    pub(super) value: V,
    /// when it was asked for: see [`super::section::Section`]
    pub(super) epoch: u64,
    /// from then on it should be asked for again
    pub(super) refresh_at_us: u64,
    /// when it was last wanted
    pub(super) used_us: u64,
}

struct Shard<K, V> {
    places: HashMap<K, usize>,
    slots: Vec<(K, Entry<V>)>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// An empty cache for at most `capacity` entries (at least 1).
    pub(super) fn new(capacity: usize) -> Self {
        let count = (capacity / PER_SHARD).clamp(1, MAX_SHARDS);
        let shard = || {
            Mutex::new(Shard {
                places: HashMap::new(),
                slots: Vec::new(),
                capacity: (capacity / count).max(1),
            })
        };
        Cache {
            hasher: DefaultHashBuilder::default(),
            shards: std::iter::repeat_with(shard).take(count).collect(),
        }
    }

    /// Looks at an entry, under its shard's lock.
    pub(super) fn with<Q, T>(&self, id: &Q, look: impl FnOnce(&mut Entry<V>) -> T) -> Option<T>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let mut shard = self.shard(id)?.lock();
        let place = *shard.places.get(id)?;
        shard.slots.get_mut(place).map(|(_, entry)| look(entry))
    }

    /// Puts an entry, if `may` still says so under the shard's lock.
    pub(super) fn put_if(&self, id: K, entry: Entry<V>, may: impl FnOnce() -> bool) -> bool {
        let Some(shard) = self.shard(&id) else {
            return false;
        };
        let mut shard = shard.lock();
        if !may() {
            return false;
        }
        shard.put(id, entry);
        true
    }

    /// Forgets an entry; whether there was one.
    pub(super) fn remove<Q: Hash + Equivalent<K> + ?Sized>(&self, id: &Q) -> bool {
        let Some(shard) = self.shard(id) else {
            return false;
        };
        let mut shard = shard.lock();
        let place = shard.places.get(id).copied();
        if let Some(place) = place {
            shard.remove(place);
        }
        place.is_some()
    }

    /// Forgets the entries that are not to be kept, one shard after the other; whether there were
    /// any.
    pub(super) fn retain(&self, keep: impl Fn(&Entry<V>) -> bool) -> bool {
        let mut has_changed = false;
        for shard in &self.shards {
            let mut shard = shard.lock();
            // from the end on: what moves to a free place has been looked at
            for place in (0..shard.slots.len()).rev() {
                let goes = shard
                    .slots
                    .get(place)
                    .is_some_and(|(_, entry)| !keep(entry));
                if goes {
                    shard.remove(place);
                    has_changed = true;
                }
            }
        }
        has_changed
    }

    /// Entries there are.
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().slots.len())
            .sum()
    }

    /// Shards there are.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What `look` makes of a shard's entries, beginning anywhere: what takes long is to be done
    /// with them afterwards, not under the lock.
    pub(super) fn of_shard<T>(
        &self,
        shard: usize,
        look: impl Fn(&K, &Entry<V>) -> Option<T>,
    ) -> Vec<T> {
        let Some(shard) = self.shards.get(shard) else {
            return Vec::new();
        };
        let shard = shard.lock();
        let (end, begin) = shard.slots.split_at(fastrand::usize(..=shard.slots.len()));
        let slots = begin.iter().chain(end);
        slots.filter_map(|(id, entry)| look(id, entry)).collect()
    }

    fn shard<Q: Hash + ?Sized>(&self, id: &Q) -> Option<&Mutex<Shard<K, V>>> {
        // the upper half: the map within a shard takes the lower one
        let hash = (self.hasher.hash_one(id) >> 32) as usize;
        self.shards.get(hash % self.shards.len())
    }
}

impl<K: Hash + Eq + Clone, V> Shard<K, V> {
    fn put(&mut self, id: K, entry: Entry<V>) {
        if let Some(slot) = self.places.get(&id).and_then(|&at| self.slots.get_mut(at)) {
            slot.1 = entry;
            return;
        }
        if self.slots.len() >= self.capacity {
            self.evict();
        }
        self.places.insert(id.clone(), self.slots.len());
        self.slots.push((id, entry));
    }

    fn evict(&mut self) {
        let sampled = (0..SAMPLE).map(|_| fastrand::usize(..self.slots.len().max(1)));
        let used = |&place: &usize| self.slots.get(place).map(|(_, entry)| entry.used_us);
        if let Some(oldest) = sampled.min_by_key(used) {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, place: usize) {
        if place >= self.slots.len() {
            return;
        }
        let (id, _) = self.slots.swap_remove(place);
        self.places.remove(&id);
        // the last one has moved here
        if let Some((moved, _)) = self.slots.get(place)
            && let Some(known) = self.places.get_mut(moved)
        {
            *known = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: u32, used_us: u64) -> Entry<u32> {
        Entry {
            value,
            epoch: 0,
            refresh_at_us: 0,
            used_us,
        }
    }

    fn get(cache: &Cache<u32, u32>, id: u32) -> Option<u32> {
        cache.with(&id, |entry| entry.value)
    }

    #[test]
    fn it_never_holds_more_than_its_capacity_and_what_it_holds_is_found() {
        for capacity in [1, 10, 5_000, 100_000] {
            let cache = Cache::new(capacity);
            for n in 0..20_000_u32 {
                assert!(cache.put_if(n, entry(n, n.into()), || true));
            }
            assert!(cache.len() <= capacity);
            let mut held = Vec::new();
            for shard in 0..cache.shards() {
                held.extend(cache.of_shard(shard, |&id, entry| Some((id, entry.value))));
            }
            assert_eq!(held.len(), cache.len());
            assert!(
                held.iter()
                    .all(|&(id, value)| get(&cache, id) == Some(value) && id == value)
            );
            assert_eq!(get(&cache, 19_999), Some(19_999));
        }
    }

    #[test]
    fn what_is_in_use_stays_while_garbage_comes_and_goes() {
        let cache = Cache::new(1_000);
        for id in 0..100_u32 {
            cache.put_if(id, entry(id, u64::MAX), || true);
        }
        for id in 100..50_000_u32 {
            cache.put_if(id, entry(id, id.into()), || true);
        }
        assert_eq!(
            (0..100).filter(|&id| get(&cache, id).is_some()).count(),
            100
        );
    }

    #[test]
    fn removing_moves_nothing_out_of_sight() {
        let cache = Cache::new(100);
        for id in 0..50_u32 {
            cache.put_if(id, entry(id, 0), || true);
        }
        for id in (0..50_u32).step_by(2) {
            cache.remove(&id);
        }
        for id in 0..50 {
            assert_eq!(get(&cache, id), (id % 2 == 1).then_some(id));
        }
        assert!(cache.retain(|entry| entry.value < 40 && entry.value != 9));
        for id in 0..50 {
            let stays = id % 2 == 1 && id < 40 && id != 9;
            assert_eq!(get(&cache, id), stays.then_some(id));
        }
        assert!(!cache.retain(|_| true));
        assert!(cache.remove(&5) && !cache.remove(&5));
        assert!(!cache.put_if(7, entry(8, 0), || false));
        assert_eq!(get(&cache, 7), Some(7));
    }
}
