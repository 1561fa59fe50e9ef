//! Credentials that were valid before, by a keyed hash: what still counts while an address is guarded.

use super::Client;
use super::api_key::ApiKey;
use crate::limit::store::memory::random_secret;
use hashbrown::HashTable;
use parking_lot::Mutex;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const SHARDS: usize = 64;

/// Credentials per shard; beyond that the shard starts over.
const PER_SHARD: usize = 16_384;

/// Valid credentials by a 128-bit hash under a secret of this process.
pub(super) struct Remembered {
    secret: [u8; 16],
    /// grows when a shard starts over, so that keys are put again at their next use
    generation: AtomicU32,
    shards: Box<[Mutex<HashTable<Entry>>]>,
}

struct Entry {
    hash: (u64, u64),
    client: Arc<Client>,
}

impl Default for Remembered {
    fn default() -> Self {
        let shards = std::iter::repeat_with(|| Mutex::new(HashTable::new()))
            .take(SHARDS)
            .collect();
        Remembered {
            secret: random_secret(),
            generation: AtomicU32::new(1),
            shards,
        }
    }
}

impl Remembered {
    pub(super) fn get(&self, credential: &[u8]) -> Option<Arc<Client>> {
        let hash = self.hash(credential);
        let shard = self.shard(hash)?.lock();
        shard
            .find(hash.0, |entry| entry.hash == hash)
            .map(|entry| entry.client.clone())
    }

    /// Remembers a valid key, unless that has been done.
    pub(super) fn put_once(&self, credential: &[u8], key: &ApiKey) {
        let generation = self.generation.load(Ordering::Relaxed);
        if key.remembered_in.load(Ordering::Relaxed) != generation {
            key.remembered_in.store(generation, Ordering::Relaxed);
            self.put(credential, key.client.clone());
        }
    }

    /// Forgets everything; whose snapshot is over has no use for it.
    pub(super) fn clear(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        for shard in &self.shards {
            *shard.lock() = HashTable::new();
        }
    }

    fn put(&self, credential: &[u8], client: Arc<Client>) {
        let hash = self.hash(credential);
        let Some(shard) = self.shard(hash) else {
            return;
        };
        let mut shard = shard.lock();
        if shard.find(hash.0, |entry| entry.hash == hash).is_some() {
            return;
        }
        if shard.len() >= PER_SHARD {
            shard.clear();
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
        shard.insert_unique(hash.0, Entry { hash, client }, |entry| entry.hash.0);
    }

    fn shard(&self, hash: (u64, u64)) -> Option<&Mutex<HashTable<Entry>>> {
        self.shards.get(hash.1 as usize % SHARDS)
    }

    fn hash(&self, credential: &[u8]) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write(credential);
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_bounded_whatever_is_remembered() {
        let remembered = Remembered::default();
        let client = Arc::new(Client::new("a", None));
        for n in 0..SHARDS * PER_SHARD + 100_000 {
            remembered.put(&n.to_ne_bytes(), client.clone());
        }
        let held: usize = remembered
            .shards
            .iter()
            .map(|shard| shard.lock().len())
            .sum();
        assert!(held <= SHARDS * PER_SHARD);
        let last = SHARDS * PER_SHARD + 99_999;
        assert!(remembered.get(&last.to_ne_bytes()).is_some());
    }
}
