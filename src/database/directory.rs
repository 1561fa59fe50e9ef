//! API keys and clients on demand: bounded, remembered, one query for one key at a time.

use std::sync::Arc;

/// A key that is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// its id
    pub id: String,
    /// whose
    pub client: String,
    /// the client's tier
    pub tier: Option<String>,
    /// what it is good for
    pub scopes: Vec<String>,
    /// microseconds since the Unix epoch; the directory itself refuses it from then on
    pub expires_at_us: Option<u64>,
}

/// A client of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// its id
    pub id: String,
    /// its tier
    pub tier: Option<String>,
}

/// What is known without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled<T> {
    /// it exists
    Known(Arc<T>),
    /// it does not exist
    Absent,
    /// the database has to be asked
    Unknown,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// no answer from the database
    #[error("the database does not answer")]
    Away,
    /// too many look-ups are under way
    #[error("too many look-ups are under way")]
    TooMany,
}

/// Keys by digest and clients by id.
#[derive(Default)]
pub struct Directory {}

impl Directory {
    /// What is known of a key, without waiting.
    pub fn recall_key(&self, _digest: &[u8; 32], _now_us: u64) -> Recalled<KeyRecord> {
        Recalled::Unknown
    }

    /// Asks the database for a key if need be; absent: there is none such.
    pub async fn find_key(
        &self,
        _digest: [u8; 32],
        _now_us: u64,
    ) -> Result<Option<Arc<KeyRecord>>, Unavailable> {
        Err(Unavailable::Away)
    }

    /// What is known of a client, without waiting.
    pub fn recall_client(&self, _id: &str, _now_us: u64) -> Recalled<ClientRecord> {
        Recalled::Unknown
    }

    /// Asks the database for a client if need be; absent: there is none such.
    pub async fn find_client(
        &self,
        _id: &str,
        _now_us: u64,
    ) -> Result<Option<Arc<ClientRecord>>, Unavailable> {
        Err(Unavailable::Away)
    }
}
