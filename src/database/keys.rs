//! API keys: made, listed, revoked.

use super::document::{parameter, rfc3339};
use super::failure::DatabaseError;
use super::kind::is_client_id;
use super::resources::{Page, begin};
use super::{generated_key, revisions};
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

const KEYS: &str = include_str!("../../sql/queries/keys.sql");
const FIND_CLIENTS: &str = include_str!("../../sql/queries/find_clients.sql");
const INSERT: &str = include_str!("../../sql/queries/insert_key.sql");
const REVOKE: &str = include_str!("../../sql/queries/revoke_key.sql");

/// The kind of keys in revisions.
const KIND: &str = "key";

const MAX_NAME: usize = 128;
const MAX_SCOPES: usize = 64;

/// Longest scope, here and in the file.
const MAX_SCOPE: usize = 128;

/// What a key is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKey {
    /// whose
    pub client: String,
    /// is the client one of the file, so that the database need not know it?
    pub client_of_file: bool,
    /// what people call it
    pub name: Option<String>,
    /// what it is good for
    pub scopes: Vec<String>,
    /// microseconds since the Unix epoch; absent: never
    pub expires_at_us: Option<u64>,
}

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredKey {
    /// the part of its text that may be known
    pub id: String,
    /// whose
    pub client: String,
    /// what people call it
    pub name: Option<String>,
    /// what it is good for
    pub scopes: Vec<String>,
    /// RFC 3339
    pub created_at: String,
    /// RFC 3339; absent: never
    pub expires_at: Option<String>,
    /// RFC 3339; absent: it is valid
    pub revoked_at: Option<String>,
    /// RFC 3339, to a minute or two; absent: never
    pub last_used_at: Option<String>,
}

/// A key that was just made.
pub struct CreatedKey {
    /// the key without its secret
    pub key: StoredKey,
    /// the key itself, to be shown once
    pub text: String,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedKey")
            .field("key", &self.key)
            .field("text", &"***")
            .finish()
    }
}

impl NewKey {
    fn check(&self) -> Result<(), DatabaseError> {
        let invalid = |what: String| Err(DatabaseError::Invalid(what));
        if !is_client_id(&self.client) {
            return invalid(format!(
                "client: {:?} is no id: write 1 to 128 visible ASCII characters without spaces",
                self.client
            ));
        }
        if let Some(name) = &self.name
            && !(1..=MAX_NAME).contains(&name.chars().count())
        {
            return invalid(format!("name: write 1 to {MAX_NAME} characters"));
        }
        if self.scopes.len() > MAX_SCOPES {
            return invalid(format!("scopes: write {MAX_SCOPES} at most"));
        }
        match self.scopes.iter().find(|scope| !is_scope(scope)) {
            Some(scope) => invalid(format!(
                "scopes: {scope:?}: write 1 to {MAX_SCOPE} visible ASCII characters without spaces, `\"` and `\\`"
            )),
            None => Ok(()),
        }
    }
}

/// Is it a scope (RFC 6749, 3.3)?
pub fn is_scope(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=MAX_SCOPE).contains(&text.len()) && text.bytes().all(fits)
}

/// Makes a key and records that.
pub(super) async fn create(
    client: &mut Client,
    new: &NewKey,
    by: &str,
    timeout: Duration,
) -> Result<CreatedKey, DatabaseError> {
    new.check()?;
    let made = generated_key::generate().map_err(DatabaseError::Unavailable)?;
    let digest = generated_key::digest(made.text.as_bytes()).to_vec();
    // nobody else writes: a key must not be made for a client that is just being deleted
    let transaction = begin(client, timeout).await?;
    if !new.client_of_file {
        let ids = vec![new.client.as_str()];
        let ids = [parameter(&ids, Type::TEXT_ARRAY)];
        if transaction
            .query_typed(FIND_CLIENTS, &ids)
            .await?
            .is_empty()
        {
            return Err(DatabaseError::NotFound(format!("client `{}`", new.client)));
        }
    }
    let expires_us = new
        .expires_at_us
        .map(|us| i64::try_from(us).unwrap_or(i64::MAX));
    let parameters = [
        parameter(&made.id, Type::TEXT),
        parameter(&digest, Type::BYTEA),
        parameter(&new.client, Type::TEXT),
        parameter(&new.name, Type::TEXT),
        parameter(&new.scopes, Type::TEXT_ARRAY),
        parameter(&expires_us, Type::INT8),
    ];
    transaction.query_typed(INSERT, &parameters).await?;
    let key = find(&transaction, &made.id).await?;
    record(&transaction, by, None, &key).await?;
    transaction.commit().await?;
    Ok(CreatedKey {
        key,
        text: made.text,
    })
}

/// Keys by id.
pub(super) async fn list(
    client: &impl GenericClient,
    of: Option<&str>,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<StoredKey>, DatabaseError> {
    let found = select(client, None, of, after, i64::from(limit) + 1).await?;
    Ok(Page::of(found, limit, |key| key.id.clone()))
}

/// Revokes a key and records that; one that is revoked already stays as it is.
pub(super) async fn revoke(
    client: &mut Client,
    id: &str,
    by: &str,
    timeout: Duration,
) -> Result<StoredKey, DatabaseError> {
    if !is_client_id(id) {
        return Err(unknown(id));
    }
    let transaction = begin(client, timeout).await?;
    let before = find(&transaction, id).await?;
    if before.revoked_at.is_some() {
        return Ok(before);
    }
    let parameters = [parameter(&id, Type::TEXT)];
    transaction.query_typed(REVOKE, &parameters).await?;
    let after = find(&transaction, id).await?;
    record(&transaction, by, Some(&before), &after).await?;
    transaction.commit().await?;
    Ok(after)
}

async fn find(client: &impl GenericClient, id: &str) -> Result<StoredKey, DatabaseError> {
    let mut found = select(client, Some(id), None, None, 1).await?;
    found.pop().ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> DatabaseError {
    let shown: String = id.chars().take(64).collect();
    DatabaseError::NotFound(format!("key `{shown}`"))
}

async fn select(
    client: &impl GenericClient,
    id: Option<&str>,
    of: Option<&str>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<StoredKey>, DatabaseError> {
    let parameters = [
        parameter(&id, Type::TEXT),
        parameter(&of, Type::TEXT),
        parameter(&after, Type::TEXT),
        parameter(&limit, Type::INT8),
    ];
    let rows = client.query_typed(KEYS, &parameters).await?;
    rows.iter().map(stored).collect()
}

fn stored(row: &Row) -> Result<StoredKey, DatabaseError> {
    let time = |column: &str| -> Result<Option<String>, DatabaseError> {
        let us: Option<i64> = row.try_get(column)?;
        Ok(us.map(rfc3339))
    };
    Ok(StoredKey {
        id: row.try_get("id")?,
        client: row.try_get("client")?,
        name: row.try_get("name")?,
        scopes: row.try_get("scopes")?,
        created_at: time("created_us")?.unwrap_or_default(),
        expires_at: time("expires_us")?,
        revoked_at: time("revoked_us")?,
        last_used_at: time("last_used_us")?,
    })
}

async fn record(
    transaction: &Transaction<'_>,
    by: &str,
    before: Option<&StoredKey>,
    after: &StoredKey,
) -> Result<(), DatabaseError> {
    let document = |key: &StoredKey| {
        let mut key = key.clone();
        // not a change that anybody made
        key.last_used_at = None;
        serde_json::to_value(key).unwrap_or(Value::Null)
    };
    let (before, after_document) = (before.map(document), document(after));
    let entry = revisions::Entry {
        by,
        kind: KIND,
        name: &after.id,
        before: before.as_ref(),
        after: Some(&after_document),
        rolled_back_from: None,
    };
    revisions::record(transaction, entry).await?;
    Ok(())
}
