//! What was found out lately, by the SHA-256 of what it was found out about: bounded, oldest first to go.

use super::api_key::FirstBytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::hash::BuildHasherDefault;

/// A SHA-256: a look-up by it takes the same time whatever part of a credential was guessed right.
pub(super) type Digest = [u8; 32];

/// The digest of a credential.
pub(super) fn digest(credential: &[u8]) -> Digest {
    Sha256::digest(credential).into()
}

const SHARDS: usize = 16;

type Map<V> = HashMap<Digest, V, BuildHasherDefault<FirstBytes>>;

/// Values by digest in two generations: when the young one is full it becomes the old one, and what
/// nobody asked for since the last time is forgotten.
pub(super) struct Recent<V> {
    shards: Box<[Mutex<Generations<V>>]>,
    /// entries of one generation of one shard
    most: usize,
}

struct Generations<V> {
    young: Map<V>,
    old: Map<V>,
}

impl<V: Clone> Recent<V> {
    /// Holds at most about so many values.
    pub(super) fn new(most: usize) -> Self {
        let generations = || {
            Mutex::new(Generations {
                young: Map::default(),
                old: Map::default(),
            })
        };
        Recent {
            shards: std::iter::repeat_with(generations).take(SHARDS).collect(),
            most: (most / SHARDS / 2).max(1),
        }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<V> {
        let mut shard = self.shard(digest)?.lock();
        if let Some(value) = shard.young.get(digest) {
            return Some(value.clone());
        }
        let value = shard.old.remove(digest)?;
        shard.put(*digest, value.clone(), self.most);
        Some(value)
    }

    pub(super) fn put(&self, digest: Digest, value: V) {
        if let Some(shard) = self.shard(&digest) {
            shard.lock().put(digest, value, self.most);
        }
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            (shard.young, shard.old) = Default::default();
        }
    }

    pub(super) fn len(&self) -> usize {
        let held = |shard: &Mutex<Generations<V>>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(held).sum()
    }

    /// By the last byte: the first eight choose the place within a shard.
    fn shard(&self, digest: &Digest) -> Option<&Mutex<Generations<V>>> {
        self.shards.get(usize::from(digest[31]) % SHARDS)
    }
}

impl<V> Generations<V> {
    fn put(&mut self, digest: Digest, value: V, most: usize) {
        if self.young.len() >= most && !self.young.contains_key(&digest) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_bounded_and_what_is_asked_for_stays() {
        let recent = Recent::new(1_024);
        let often = digest(b"often");
        recent.put(often, 0);
        for n in 0..100_000_u32 {
            recent.put(digest(&n.to_ne_bytes()), n);
            assert_eq!(recent.get(&often), Some(0), "after {n}");
        }
        assert!(recent.len() <= 1_024, "{}", recent.len());
        assert_eq!(recent.get(&digest(&99_999_u32.to_ne_bytes())), Some(99_999));
        assert_eq!(recent.get(&digest(&1_u32.to_ne_bytes())), None);
    }
}
