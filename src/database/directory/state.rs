//! What outlives a process: keys and clients in a file, the times of keys' last uses in the database.

use super::Directory;
use super::record::{ClientRecord, KeyRecord, Record};
use super::section::Section;
use crate::database::document::parameter;
use crate::database::failure::{DatabaseError, within};
use crate::database::saved::{self, SavedError, hex};
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_postgres::types::Type;

const NOTE_USES: &str = include_str!("../../../sql/queries/note_uses.sql");

/// Uses noted by one statement.
const USES_AT_ONCE: usize = 1_000;

/// Uses noted at one time; the others are noted when they are used again, and come first then.
const MAX_USES: usize = 20_000;

/// The file's content, read at once: digests only, no secrets.
#[derive(Default, Deserialize)]
struct State {
    keys: Vec<SavedKey>,
    clients: Vec<SavedClient>,
}

#[derive(Serialize, Deserialize)]
struct SavedKey {
    sha256: String,
    id: String,
    client: String,
    tier: Option<String>,
    scopes: Vec<String>,
    expires_at_us: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct SavedClient {
    id: String,
    tier: Option<String>,
}

impl Directory {
    /// Writes what is known to the file, if there is one and something has changed.
    pub(in crate::database) fn save(&self) -> Result<(), SavedError> {
        let shared = &self.shared;
        let Some(file) = &shared.file else {
            return Ok(());
        };
        let has_changed = [shared.keys.take_changed(), shared.clients.take_changed()];
        if has_changed == [false, false] {
            return Ok(());
        }
        let state = Servable {
            keys: Part(&shared.keys),
            clients: Part(&shared.clients),
        };
        saved::save(file, &state).inspect_err(|_| {
            shared.keys.set_changed();
            shared.clients.set_changed();
        })
    }

    /// Reads what an earlier process knew; it serves only while the database does not answer.
    pub(in crate::database) fn load(&self) -> Result<(), SavedError> {
        let shared = &self.shared;
        let Some(file) = &shared.file else {
            return Ok(());
        };
        let state: State = saved::load(file)?.unwrap_or_default();
        for key in state.keys {
            let Some(digest) = unhex(&key.sha256) else {
                continue;
            };
            let record = KeyRecord {
                id: key.id,
                client: key.client,
                tier: key.tier,
                scopes: key.scopes,
                expires_at_us: key.expires_at_us,
            };
            shared.keys.put_saved(digest, record);
        }
        for client in state.clients {
            let id = Arc::from(client.id.as_str());
            let record = ClientRecord {
                id: client.id,
                tier: client.tier,
            };
            shared.clients.put_saved(id, record);
        }
        Ok(())
    }

    /// Notes in the database which keys were used since the last time. Lossy: what fails is noted
    /// when the key is used again.
    pub(in crate::database) async fn note_uses(&self) -> Result<(), DatabaseError> {
        let shared = &self.shared;
        let since_us = shared
            .uses_noted_us
            .swap(shared.clock.now_us(), Ordering::Relaxed);
        let uses = shared.keys.used_since(since_us, MAX_USES);
        let mut uses: Vec<(&str, i64)> = uses
            .iter()
            .map(|(key, us)| (key.id.as_str(), i64::try_from(*us).unwrap_or(i64::MAX)))
            .collect();
        // in one order on all gateways, so that they meet less
        uses.sort_unstable();
        for some in uses.chunks(USES_AT_ONCE) {
            let (ids, times): (Vec<&str>, Vec<i64>) = some.iter().copied().unzip();
            let parameters = [
                parameter(&ids, Type::TEXT_ARRAY),
                parameter(&times, Type::INT8_ARRAY),
            ];
            let mut lease = shared.pool.lease().await?;
            let done = within(shared.pool.timeout(), async {
                let client = lease.client()?;
                Ok(client.query_typed(NOTE_USES, &parameters).await?)
            })
            .await;
            lease.settle(&done);
            done?;
        }
        Ok(())
    }
}

/// What [`State`] is read from, as it is in memory: written piece by piece, never twice there.
#[derive(Serialize)]
struct Servable<'a> {
    keys: Part<'a, KeyRecord>,
    clients: Part<'a, ClientRecord>,
}

struct Part<'a, R: Record>(&'a Section<R>);

impl Serialize for Part<'_, KeyRecord> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shards = (0..self.0.shards()).flat_map(|shard| self.0.servable(shard));
        serializer.collect_seq(shards.map(|(digest, key)| SavedKey {
            sha256: hex(&digest),
            id: key.id.clone(),
            client: key.client.clone(),
            tier: key.tier.clone(),
            scopes: key.scopes.clone(),
            expires_at_us: key.expires_at_us,
        }))
    }
}

impl Serialize for Part<'_, ClientRecord> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shards = (0..self.0.shards()).flat_map(|shard| self.0.servable(shard));
        serializer.collect_seq(shards.map(|(_, client)| SavedClient {
            id: client.id.clone(),
            tier: client.tier.clone(),
        }))
    }
}

/// A SHA-256 in hexadecimal.
pub(in crate::database) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_both_ways() {
        let digest: [u8; 32] = std::array::from_fn(|n| n as u8 * 7);
        assert_eq!(unhex(&hex(&digest)), Some(digest));
        for text in ["", "zz", &"é".repeat(32), &"+1".repeat(32)] {
            assert_eq!(unhex(text), None);
        }
    }
}
