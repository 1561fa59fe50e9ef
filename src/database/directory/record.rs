//! What is looked up: keys by digest, clients by id.

use crate::database::document::parameter;
use crate::database::failure::DatabaseError;
use std::hash::Hash;
use std::sync::Arc;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

const FIND_KEYS: &str = include_str!("../../../sql/queries/find_keys.sql");
const FIND_CLIENTS: &str = include_str!("../../../sql/queries/find_clients.sql");

/// A key that is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// its id
    pub id: String,
    /// whose
    pub client: String,
    /// the client's tier, as the database says
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

/// A row that is looked up by its id.
pub(super) trait Record: Sized + PartialEq + Send + Sync + 'static {
    /// Does it let somebody in? Then an old answer is only for an outage.
    const IS_CREDENTIAL: bool;

    /// What it is looked up by.
    type Id: Hash + Eq + Clone + Send + Sync + 'static;

    /// Asks for those of these that exist.
    fn find(
        client: &Client,
        ids: &[Self::Id],
    ) -> impl Future<Output = Result<Vec<(Self::Id, Self)>, DatabaseError>> + Send;

    /// Is it too late for it?
    fn has_expired(&self, now_us: u64) -> bool;
}

impl Record for KeyRecord {
    const IS_CREDENTIAL: bool = true;

    type Id = [u8; 32];

    async fn find(
        client: &Client,
        ids: &[Self::Id],
    ) -> Result<Vec<(Self::Id, Self)>, DatabaseError> {
        let digests: Vec<&[u8]> = ids.iter().map(<[u8; 32]>::as_slice).collect();
        let parameters = [parameter(&digests, Type::BYTEA_ARRAY)];
        let mut found = Vec::new();
        for row in client.query_typed(FIND_KEYS, &parameters).await? {
            let digest: &[u8] = row.try_get("sha256")?;
            let expires_us: Option<i64> = row.try_get("expires_us")?;
            let record = KeyRecord {
                id: row.try_get("id")?,
                client: row.try_get("client")?,
                tier: row.try_get("tier")?,
                scopes: row.try_get("scopes")?,
                // before 1970 is over as well
                expires_at_us: expires_us.map(|us| u64::try_from(us).unwrap_or(0)),
            };
            if let Ok(digest) = digest.try_into() {
                found.push((digest, record));
            }
        }
        Ok(found)
    }

    fn has_expired(&self, now_us: u64) -> bool {
        self.expires_at_us.is_some_and(|end| end <= now_us)
    }
}

impl Record for ClientRecord {
    const IS_CREDENTIAL: bool = false;

    type Id = Arc<str>;

    async fn find(
        client: &Client,
        ids: &[Self::Id],
    ) -> Result<Vec<(Self::Id, Self)>, DatabaseError> {
        let names: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
        let parameters = [parameter(&names, Type::TEXT_ARRAY)];
        let mut found = Vec::new();
        for row in client.query_typed(FIND_CLIENTS, &parameters).await? {
            let record = ClientRecord {
                id: row.try_get("id")?,
                tier: row.try_get("tier")?,
            };
            found.push((Arc::from(record.id.as_str()), record));
        }
        Ok(found)
    }

    fn has_expired(&self, _now_us: u64) -> bool {
        false
    }
}
