//! API keys, known only by their SHA-256.

use super::Client;
use crate::config;
use hashbrown::HashMap;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap as ById};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Clients by the SHA-256 of their keys. Nobody can choose a key by its digest, so a look-up by
/// digest takes the same time whatever part of a key was guessed right.
#[derive(Default)]
pub struct ApiKeys {
    by_digest: HashMap<[u8; 32], ApiKey, BuildHasherDefault<FirstBytes>>,
}

/// A key that is valid.
pub struct ApiKey {
    /// whose it is
    pub client: Arc<Client>,
    /// the generation of [`super::remembered::Remembered`] that has it
    pub(super) remembered_in: AtomicU32,
}

impl ApiKeys {
    /// Keys by digest.
    pub fn new(keys: impl IntoIterator<Item = ([u8; 32], Arc<Client>)>) -> Self {
        let key = |client| ApiKey {
            client,
            remembered_in: AtomicU32::new(0),
        };
        ApiKeys {
            by_digest: keys
                .into_iter()
                .map(|(digest, client)| (digest, key(client)))
                .collect(),
        }
    }

    /// The keys of the file. A key with scopes has a client of its own, which has them.
    pub fn of(
        written: &BTreeMap<String, config::Client>,
        clients: &ById<String, Arc<Client>>,
    ) -> Self {
        let keys = written.iter().flat_map(|(id, written)| {
            let client = clients.get(id);
            written.api_keys.iter().filter_map(move |key| {
                let client = match (client?, key.scopes.is_empty()) {
                    (client, true) => client.clone(),
                    (client, false) => Arc::new(client.with_scopes(key.scopes.clone())),
                };
                Some((key.digest, client))
            })
        });
        Self::new(keys)
    }

    /// Are these the same keys of the same clients?
    pub(super) fn is_same(&self, other: &ApiKeys) -> bool {
        let has = |(digest, key): (&[u8; 32], &ApiKey)| {
            let known = other.by_digest.get(digest);
            known.is_some_and(|known| known.client == key.client)
        };
        self.by_digest.len() == other.by_digest.len() && self.by_digest.iter().all(has)
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.by_digest.is_empty()
    }

    /// A key by its text.
    pub fn find(&self, key: &[u8]) -> Option<&ApiKey> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        self.by_digest.get(&digest)
    }
}

/// A digest is evenly spread already: its first eight bytes are its hash.
#[derive(Default)]
pub struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
