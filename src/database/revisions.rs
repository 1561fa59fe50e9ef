//! Revisions: who changed what, when, from what to what.

use super::document::{Document, parameter, rfc3339};
use super::failure::DatabaseError;
use super::resources::Page;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row, Transaction};

const RECORD: &str = include_str!("../../sql/queries/record.sql");
const NEWEST: &str = include_str!("../../sql/queries/newest_revision.sql");
const REVISIONS: &str = include_str!("../../sql/queries/revisions.sql");

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Revision {
    /// grows with time
    pub id: i64,
    /// RFC 3339
    pub at: String,
    /// who
    pub by: String,
    /// `policy`, `tier`, `client`, `route_settings` or `key`
    pub kind: String,
    /// the name, or the id of a client or key
    pub name: String,
    /// the document before; absent: it did not exist
    pub before: Option<Value>,
    /// the document after; absent: it was deleted
    pub after: Option<Value>,
    /// the revision this one took back
    pub rolled_back_from: Option<i64>,
}

/// A change that is to be recorded.
pub(super) struct Entry<'a> {
    pub(super) by: &'a str,
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) before: Option<&'a Value>,
    pub(super) after: Option<&'a Value>,
    pub(super) rolled_back_from: Option<i64>,
}

/// Records a change; its number.
pub(super) async fn record(
    transaction: &Transaction<'_>,
    entry: Entry<'_>,
) -> Result<i64, DatabaseError> {
    let parameters = [
        parameter(&entry.by, Type::TEXT),
        parameter(&entry.kind, Type::TEXT),
        parameter(&entry.name, Type::TEXT),
        parameter(&entry.before, Type::JSONB),
        parameter(&entry.after, Type::JSONB),
        parameter(&entry.rolled_back_from, Type::INT8),
    ];
    let row = transaction.query_typed_one(RECORD, &parameters).await?;
    Ok(row.try_get("id")?)
}

/// The number of the newest revision; 0: there is none.
pub(super) async fn newest(client: &impl GenericClient) -> Result<i64, DatabaseError> {
    let row = client.query_typed_one(NEWEST, &[]).await?;
    Ok(row.try_get("revision")?)
}

/// Revisions from the newest on.
pub(super) async fn list(
    client: &impl GenericClient,
    before: Option<i64>,
    limit: u32,
) -> Result<Page<Revision>, DatabaseError> {
    let found = select(client, None, before, i64::from(limit) + 1).await?;
    Ok(Page::of(found, limit, |revision| revision.id.to_string()))
}

/// One revision.
pub(super) async fn get(
    client: &impl GenericClient,
    id: i64,
) -> Result<Option<Revision>, DatabaseError> {
    Ok(select(client, Some(id), None, 1).await?.pop())
}

async fn select(
    client: &impl GenericClient,
    id: Option<i64>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Revision>, DatabaseError> {
    let parameters = [
        parameter(&id, Type::INT8),
        parameter(&before, Type::INT8),
        parameter(&limit, Type::INT8),
    ];
    let rows = client.query_typed(REVISIONS, &parameters).await?;
    rows.iter().map(revision).collect()
}

fn revision(row: &Row) -> Result<Revision, DatabaseError> {
    let document = |column: &str| -> Result<Option<Value>, DatabaseError> {
        let document: Option<Document> = row.try_get(column)?;
        Ok(document.map(|Document(value)| value))
    };
    Ok(Revision {
        id: row.try_get("id")?,
        at: rfc3339(row.try_get("at_us")?),
        by: row.try_get("by")?,
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        before: document("before")?,
        after: document("after")?,
        rolled_back_from: row.try_get("rolled_back_from")?,
    })
}
