//! One shard: a hash table of bucket states, bounded, that forgets what is empty again.

use super::{Hash, Put};
use crate::limit::algorithm::{Answer, Reading};
use crate::limit::quota::{Quota, State};
use hashbrown::HashTable;

/// Buckets looked at to find the one nearest to empty.
const SAMPLE: usize = 16;

/// Buckets looked at, at each insertion, to find some that have expired.
const STRIDE: usize = 4;

/// A bucket's place in the table until the table changes; `None`: not there.
pub(super) type Slot = Option<usize>;

struct Entry {
    hash: Hash,
    /// when the state equals the empty one
    empty_at_us: u64,
    state: State,
}

pub(super) struct Shard {
    table: HashTable<Entry>,
    max_keys: usize,
    /// where the search for expired buckets goes on
    cursor: usize,
    evicted: u64,
}

impl Shard {
    pub(super) fn new(max_keys: usize) -> Self {
        Shard {
            table: HashTable::new(),
            max_keys,
            cursor: 0,
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn find(&self, hash: Hash) -> Slot {
        self.table
            .find_bucket_index(hash.0, |entry| entry.hash == hash)
    }

    pub(super) fn answer(&self, slot: Slot, quota: &Quota, now_us: u64, cost: u64) -> Answer {
        match slot.and_then(|index| self.table.get_bucket(index)) {
            Some(entry) => quota.answer(&entry.state, now_us, cost),
            None => quota.answer(&quota.empty(), now_us, cost),
        }
    }

    pub(super) fn reading(&self, slot: Slot, hash: Hash, quota: &Quota, now_us: u64) -> Reading {
        let slot = self.still_there(slot, hash);
        match slot.and_then(|index| self.table.get_bucket(index)) {
            Some(entry) => quota.reading(&entry.state, now_us),
            None => quota.reading(&quota.empty(), now_us),
        }
    }

    /// A slot found earlier, or found again: another charge of the same request, or
    /// another state that was set with it, may have moved the table since.
    fn still_there(&self, slot: Slot, hash: Hash) -> Slot {
        match slot.and_then(|index| self.table.get_bucket(index)) {
            Some(entry) if entry.hash == hash => slot,
            _ => self.find(hash),
        }
    }

    /// Takes `cost` units.
    pub(super) fn charge(
        &mut self,
        slot: Slot,
        hash: Hash,
        quota: &Quota,
        now_us: u64,
        cost: u64,
    ) -> Reading {
        let slot = self.still_there(slot, hash);
        if let Some(entry) = slot.and_then(|index| self.table.get_bucket_mut(index)) {
            quota.charge(&mut entry.state, now_us, cost);
            entry.empty_at_us = quota.empty_at_us(&entry.state);
            return quota.reading_after(&entry.state, now_us, entry.empty_at_us);
        }
        let mut state = quota.empty();
        quota.charge(&mut state, now_us, cost);
        let reading = quota.reading(&state, now_us);
        self.insert(hash, quota, state, now_us);
        reading
    }

    pub(super) fn state(&self, hash: Hash) -> Option<&State> {
        let entry = self.table.find(hash.0, |entry| entry.hash == hash)?;
        Some(&entry.state)
    }

    pub(super) fn put(&mut self, slot: Slot, hash: Hash, put: Put<'_>) {
        let slot = self.still_there(slot, hash);
        match slot.and_then(|index| self.table.get_bucket_mut(index)) {
            Some(entry) => {
                entry.empty_at_us = put.quota.empty_at_us(&put.state);
                entry.state = put.state;
            }
            None => self.insert(hash, put.quota, put.state, put.now_us),
        }
    }

    pub(super) fn forget(&mut self, hash: Hash) {
        if let Ok(found) = self.table.find_entry(hash.0, |entry| entry.hash == hash) {
            found.remove();
        }
    }

    fn insert(&mut self, hash: Hash, quota: &Quota, state: State, now_us: u64) {
        self.make_room(now_us);
        let empty_at_us = quota.empty_at_us(&state);
        self.table.insert_unique(
            hash.0,
            Entry {
                hash,
                empty_at_us,
                state,
            },
            |entry| entry.hash.0,
        );
    }

    pub(super) fn release(&mut self, hash: Hash, cost: u64) {
        if let Ok(mut found) = self.table.find_entry(hash.0, |entry| entry.hash == hash)
            && let State::InFlight(in_flight) = &mut found.get_mut().state
        {
            *in_flight = in_flight.saturating_sub(cost);
            if *in_flight == 0 {
                found.remove();
            }
        }
    }

    /// Forgets everything that is empty again and gives memory back after a flood.
    pub(super) fn sweep_all(&mut self, now_us: u64) {
        self.table.retain(|entry| entry.empty_at_us > now_us);
        if self.table.capacity() > 64 && self.table.len() < self.table.capacity() / 4 {
            self.table
                .shrink_to(self.table.len() * 2, |entry| entry.hash.0);
        }
    }

    /// Forgets a few that are empty again once the shard is half full (before that, the sweep is
    /// enough); if it is full all the same, the one of a sample that would be empty soonest. Requests in flight are never forgotten: there are no more of
    /// them than requests.
    fn make_room(&mut self, now_us: u64) {
        if self.table.len() >= self.max_keys / 2 {
            self.look_at(STRIDE, |entry| entry.empty_at_us <= now_us);
        }
        if self.table.len() < self.max_keys {
            return;
        }
        let mut soonest = u64::MAX;
        let start = self.cursor;
        self.look_at(SAMPLE, |entry| {
            soonest = soonest.min(entry.empty_at_us);
            false
        });
        self.cursor = start;
        let mut left = u64::from(soonest < u64::MAX);
        self.evicted += left;
        self.look_at(SAMPLE, |entry| {
            let found = left > 0 && entry.empty_at_us == soonest;
            left -= u64::from(found);
            found
        });
    }

    /// Moves the cursor over `entries` buckets that are there and removes those for which `remove`
    /// says so. In a table that has become sparse it gives up early: the sweep will shrink it.
    fn look_at(&mut self, entries: usize, mut remove: impl FnMut(&Entry) -> bool) {
        let slots = self.table.num_buckets();
        let mut seen = 0;
        for _ in 0..slots.min(entries * 32) {
            if seen == entries {
                return;
            }
            self.cursor = if self.cursor + 1 < slots {
                self.cursor + 1
            } else {
                0
            };
            if let Ok(found) = self.table.get_bucket_entry(self.cursor) {
                seen += 1;
                if remove(found.get()) {
                    found.remove();
                }
            }
        }
    }
}
