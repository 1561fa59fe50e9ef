//! Resources: documents by kind and name, and the rules of reading and replacing them.

use super::document::{self, parameter, rfc3339};
use super::failure::DatabaseError;
use super::revisions;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

const LOCK: &str = include_str!("../../sql/queries/lock.sql");

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// a policy, as in the file
    Policy,
    /// a tier: `{}`
    Tier,
    /// a client: `{"tier": "pro"}`
    Client,
    /// what may be set of a route
    RouteSettings,
}

/// What a writer expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// whatever there is
    Any,
    /// nothing (`If-None-Match: *`)
    Absent,
    /// this very version (`If-Match`)
    Etag(String),
}

/// Under which circumstances something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// what there must be
    pub expected: Expected,
    /// the newest revision of those that the document was judged with; absent: it does not depend
    /// on anything else
    pub judged_at: Option<i64>,
}

impl From<Expected> for Terms {
    fn from(expected: Expected) -> Self {
        Terms {
            expected,
            judged_at: None,
        }
    }
}

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stored {
    /// its name, unique within its kind
    pub name: String,
    /// in exactly the shape of the file
    pub document: Value,
    /// changes whenever the document does; without quotes
    pub etag: String,
    /// RFC 3339
    pub changed_at: String,
    /// whoever wrote it last
    pub changed_by: String,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// the revision that records it
    pub revision: i64,
    /// it did not exist before
    pub created: bool,
    /// as it is now; absent: deleted
    pub stored: Option<Stored>,
}

/// Some of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page<T> {
    /// in order
    pub items: Vec<T>,
    /// what to ask for to get those that follow; absent: these were the last
    pub next: Option<String>,
}

/// A write that is wanted.
pub(super) struct Change<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    /// absent: delete it
    pub(super) document: Option<&'a Value>,
    pub(super) by: &'a str,
    pub(super) terms: Terms,
    pub(super) rolled_back_from: Option<i64>,
}

impl<T> Page<T> {
    /// Of one item more than was asked for, so that the end is known.
    pub(super) fn of(mut items: Vec<T>, limit: u32, name: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| is_more).map(name);
        Page { items, next }
    }
}

/// Reads one document.
pub(super) async fn get(
    client: &impl GenericClient,
    kind: Kind,
    name: &str,
) -> Result<Option<Stored>, DatabaseError> {
    let mut found = select(client, kind, Some(name), None, Some(1)).await?;
    Ok(found.pop())
}

/// Reads documents by name.
pub(super) async fn list(
    client: &impl GenericClient,
    kind: Kind,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<Stored>, DatabaseError> {
    let found = select(client, kind, None, after, Some(i64::from(limit) + 1)).await?;
    Ok(Page::of(found, limit, |stored| stored.name.clone()))
}

async fn select(
    client: &impl GenericClient,
    kind: Kind,
    name: Option<&str>,
    after: Option<&str>,
    limit: Option<i64>,
) -> Result<Vec<Stored>, DatabaseError> {
    let parameters = [
        parameter(&name, Type::TEXT),
        parameter(&after, Type::TEXT),
        parameter(&limit, Type::INT8),
    ];
    let rows = client.query_typed(kind.select(), &parameters).await?;
    rows.iter().map(stored).collect()
}

fn stored(row: &Row) -> Result<Stored, DatabaseError> {
    let document::Document(document) = row.try_get("document")?;
    let changed_us: i64 = row.try_get("changed_us")?;
    Ok(Stored {
        name: row.try_get("name")?,
        etag: document::etag(&document, changed_us),
        document,
        changed_at: rfc3339(changed_us),
        changed_by: row.try_get("changed_by")?,
    })
}

/// Replaces or deletes a document and records that, in one transaction.
pub(super) async fn write(
    client: &mut Client,
    change: Change<'_>,
    timeout: Duration,
) -> Result<Written, DatabaseError> {
    let Change { kind, name, .. } = change;
    kind.check_name(name)?;
    let wanted = change
        .document
        .map(|document| document::normal(kind, document))
        .transpose()?;
    let transaction = begin(client, timeout).await?;
    if let Some(judged_at) = change.terms.judged_at
        && revisions::newest(&transaction).await? != judged_at
    {
        return Err(DatabaseError::Overtaken);
    }
    let before = get(&transaction, kind, name).await?;
    meets(&change.terms.expected, before.as_ref())?;
    let after = match &wanted {
        Some(document) => Some(put(&transaction, kind, name, document, change.by).await?),
        None if before.is_none() => return Err(absent(kind, name)),
        None => {
            let parameters = [parameter(&name, Type::TEXT)];
            transaction.query_typed(kind.delete(), &parameters).await?;
            None
        }
    };
    let revision = revisions::Entry {
        by: change.by,
        kind: kind.name(),
        name,
        before: before.as_ref().map(|stored| &stored.document),
        after: after.as_ref().map(|stored| &stored.document),
        rolled_back_from: change.rolled_back_from,
    };
    let revision = revisions::record(&transaction, revision).await?;
    transaction.commit().await?;
    Ok(Written {
        revision,
        created: before.is_none(),
        stored: after,
    })
}

/// Begins a transaction in which nobody else writes, and which the server ends by itself where
/// nobody waits for it any more.
pub(super) async fn begin<'a>(
    client: &'a mut Client,
    timeout: Duration,
) -> Result<Transaction<'a>, DatabaseError> {
    let transaction = client.transaction().await?;
    let milliseconds = timeout.as_millis().max(1);
    let limits = format!(
        "SET LOCAL statement_timeout = {milliseconds}; SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
    );
    transaction.batch_execute(&limits).await?;
    // with the statements that follow as they are from then on
    transaction.query_typed(LOCK, &[]).await?;
    Ok(transaction)
}

async fn put(
    transaction: &Transaction<'_>,
    kind: Kind,
    name: &str,
    document: &Value,
    by: &str,
) -> Result<Stored, DatabaseError> {
    let all = [
        parameter(&name, Type::TEXT),
        parameter(document, Type::JSONB),
        parameter(&by, Type::TEXT),
    ];
    for &(statement, count) in kind.put() {
        let parameters = all.get(..count).unwrap_or_default();
        transaction.query_typed(statement, parameters).await?;
    }
    let stored = get(transaction, kind, name).await?;
    let stored = stored.ok_or_else(|| absent(kind, name))?;
    // what comes back must be what was put in: nothing is lost without a word
    match document::difference(document, &stored.document) {
        None => Ok(stored),
        Some(key) => Err(DatabaseError::Invalid(format!(
            "{} `{name}`: `{key}` cannot be stored as it is written",
            kind.in_words()
        ))),
    }
}

fn meets(expected: &Expected, found: Option<&Stored>) -> Result<(), DatabaseError> {
    let etag = found.map(|stored| stored.etag.clone());
    let meets = match expected {
        Expected::Any => true,
        Expected::Absent => etag.is_none(),
        Expected::Etag(wanted) => etag.as_ref() == Some(wanted),
    };
    if meets {
        Ok(())
    } else {
        Err(DatabaseError::PreconditionFailed { etag })
    }
}

fn absent(kind: Kind, name: &str) -> DatabaseError {
    DatabaseError::NotFound(format!("{} `{name}`", kind.in_words()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_one_begins_only_if_there_is_one() {
        let page = |count: usize| {
            let page = Page::of((0..count).collect(), 2, ToString::to_string);
            (page.items.len(), page.next)
        };
        assert_eq!(page(0), (0, None));
        assert_eq!(page(2), (2, None));
        assert_eq!(page(3), (2, Some("1".to_owned())));
    }
}
