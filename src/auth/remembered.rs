//! Credentials that were valid a moment ago, by a keyed hash: bounded, cheaper than their SHA-256.

use super::Client;
use hashbrown::HashTable;
use parking_lot::Mutex;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use std::sync::Arc;

const SHARDS: usize = 64;

/// Credentials per shard; beyond that the shard starts over.
const PER_SHARD: usize = 4_096;

/// Valid credentials by a 128-bit hash under a secret of this process.
pub(super) struct Remembered {
    secret: [u8; 16],
    shards: Box<[Mutex<HashTable<Entry>>]>,
}

struct Entry {
    hash: (u64, u64),
    client: Arc<Client>,
}

impl Default for Remembered {
    fn default() -> Self {
        let mut secret = [0; 16];
        if getrandom::fill(&mut secret).is_err() {
            secret = fastrand::u128(..).to_ne_bytes();
        }
        let shards = std::iter::repeat_with(|| Mutex::new(HashTable::new()))
            .take(SHARDS)
            .collect();
        Remembered { secret, shards }
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

    pub(super) fn put(&self, credential: &[u8], client: Arc<Client>) {
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
        let client = Arc::new(Client {
            id: "a".into(),
            tier: None,
        });
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
