//! What outlives a process: keys and clients in a file, the times of keys' last uses in the database.

use super::record::{ClientRecord, KeyRecord};
use super::{Directory, Shared};
use crate::database::document::parameter;
use crate::database::failure::{DatabaseError, within};
use crate::database::saved::{self, SavedError, hex};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_postgres::types::Type;

const NOTE_USES: &str = include_str!("../../../sql/queries/note_uses.sql");

/// Uses noted by one statement.
const USES_AT_ONCE: usize = 1_000;

/// Uses noted at one time; the others are noted when they are used again.
const MAX_USES: usize = 20_000;

/// The file's content: digests only, no secrets.
#[derive(Default, Serialize, Deserialize)]
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
        if !shared.has_changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        saved::save(file, &shared.state()).inspect_err(|_| {
            shared.has_changed.store(true, Ordering::Relaxed);
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
        let mut uses: Vec<(String, i64)> = Vec::new();
        shared.keys.for_each(|_, key, used_us| {
            if used_us >= since_us && uses.len() < MAX_USES {
                uses.push((key.id.clone(), i64::try_from(used_us).unwrap_or(i64::MAX)));
            }
        });
        // in one order on all gateways, so that they meet less
        uses.sort_unstable();
        for some in uses.chunks(USES_AT_ONCE) {
            let (ids, times): (Vec<&str>, Vec<i64>) =
                some.iter().map(|(id, us)| (id.as_str(), *us)).unzip();
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

impl Shared {
    fn state(&self) -> State {
        let mut state = State::default();
        self.keys.for_each(|digest, key, _| {
            state.keys.push(SavedKey {
                sha256: hex(digest),
                id: key.id.clone(),
                client: key.client.clone(),
                tier: key.tier.clone(),
                scopes: key.scopes.clone(),
                expires_at_us: key.expires_at_us,
            });
        });
        self.clients.for_each(|_, client, _| {
            state.clients.push(SavedClient {
                id: client.id.clone(),
                tier: client.tier.clone(),
            });
        });
        state
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
