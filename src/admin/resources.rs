//! What all kinds of documents have in common: rows of the database over what the file says.

use super::actor::Actor;
use super::documents;
use super::paging::{Listed, Piece};
use super::precondition::{Conditions, Versions};
use super::problem::Problem;
use super::turn;
use crate::database::{Database, Kind, Page, Stored, Terms, Written};
use crate::snapshot::Running;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// A document and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Resource {
    /// Its name, unique within its kind.
    name: String,
    /// Where it is defined; a row replaces what the file says as a whole.
    source: Source,
    /// As the file would have it.
    #[schema(value_type = Object)]
    document: Value,
    /// Changes whenever the document does; the same as the header, without quotes.
    etag: String,
    /// When it was written (RFC 3339); null: it is in the file.
    changed_at: Option<String>,
    /// Who wrote it last; null: it is in the file.
    changed_by: Option<String>,
}

/// Where something is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// In the configuration file.
    File,
    /// In the database.
    Database,
}

impl Resource {
    fn in_file(name: String, document: Value) -> Self {
        Resource {
            etag: documents::etag_in_file(&document),
            name,
            source: Source::File,
            document,
            changed_at: None,
            changed_by: None,
        }
    }

    fn answer(self, status: StatusCode) -> Response {
        let mut response = (status, Json(&self)).into_response();
        // an ETag of the database is hexadecimal; another could not be sent
        if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", self.etag)) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}

impl From<Stored> for Resource {
    fn from(stored: Stored) -> Self {
        Resource {
            name: stored.name,
            source: Source::Database,
            document: stored.document,
            etag: stored.etag,
            changed_at: Some(stored.changed_at),
            changed_by: Some(stored.changed_by),
        }
    }
}

/// The database, for a write.
pub(super) fn database(running: &Running) -> Result<&Arc<Database>, Problem> {
    running.database.as_ref().ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "No database is configured (database.url), so nothing can be changed here; edit the configuration file.",
        )
    })
}

/// Rows and the file's, by name.
pub(super) async fn list(
    running: &Arc<Running>,
    kind: Kind,
    piece: &Piece,
) -> Result<Listed<Resource>, Problem> {
    let after = piece.after.as_deref();
    if after.is_some_and(|after| !documents::is_name(kind, after)) {
        return Err(Problem::unreadable(
            "The query cannot be used: after is not a name that could be here.",
        ));
    }
    let rows = match &running.database {
        Some(database) => database.list(kind, after, piece.limit).await?,
        None => Page {
            items: Vec::new(),
            next: None,
        },
    };
    let file = documents::of_file(running, kind).await?;
    Ok(merged(rows, file, after, piece.limit))
}

fn merged(
    rows: Page<Stored>,
    file: BTreeMap<String, Value>,
    after: Option<&str>,
    limit: u32,
) -> Listed<Resource> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // behind the last row of a piece there may be rows that nobody has read yet
    let last_row = rows.items.last().map(|row| row.name.clone());
    let read_to = rows.next.as_ref().and(last_row);
    let mut all: BTreeMap<String, Resource> = file
        .into_iter()
        .filter(|(name, _)| after.is_none_or(|after| name.as_str() > after))
        .filter(|(name, _)| read_to.as_ref().is_none_or(|last| name <= last))
        .map(|(name, document)| (name.clone(), Resource::in_file(name, document)))
        .collect();
    let more_rows = rows.next.is_some();
    for row in rows.items {
        all.insert(row.name.clone(), row.into());
    }
    let more = more_rows || all.len() > limit;
    let items: Vec<Resource> = all.into_values().take(limit).collect();
    let next = items.last().map(|last| last.name.clone());
    Listed {
        next: next.filter(|_| more),
        items,
    }
}

/// The row, or what the file says.
pub(super) async fn show(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    conditions: &Conditions,
) -> Result<Response, Problem> {
    let (row, file) = both(running, kind, name).await?;
    let found = row.or(file).ok_or_else(|| absent(kind))?;
    if conditions.has(&found.etag) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    Ok(found.answer(StatusCode::OK))
}

/// Writes a row.
pub(super) async fn put(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    document: &Value,
    conditions: &Conditions,
    by: &Actor,
) -> Result<Response, Problem> {
    let database = database(running)?;
    documents::check_name(kind, name)?;
    let attempt = || try_put(running, kind, name, document, conditions, by);
    let (written, is_in_file) = turn::take(database, attempt).await?;
    let Written {
        created, stored, ..
    } = written;
    let stored = stored.ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "It was deleted in the same moment; nothing is here now.",
        )
    })?;
    let status = match created && !is_in_file {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok(Resource::from(stored).answer(status))
}

/// Also whether the file has it; absent: overtaken.
async fn try_put(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    document: &Value,
    conditions: &Conditions,
    by: &Actor,
) -> Result<Option<(Written, bool)>, Problem> {
    let (row, file) = both(running, kind, name).await?;
    // before its validity: whoever knows an old version has to look first anyway
    let expected = conditions.expected(versions(&row, &file))?;
    let judged_at = documents::validate(running, kind, name, document).await?;
    let terms = Terms {
        expected,
        judged_at,
    };
    let done = database(running)?.put(kind, name, document, &by.0, terms);
    let written = turn::written(done.await)?;
    Ok(written.map(|written| (written, file.is_some())))
}

/// Deletes a row; what the file says holds again.
pub(super) async fn delete(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    conditions: &Conditions,
    by: &Actor,
) -> Result<StatusCode, Problem> {
    let attempt = || try_delete(running, kind, name, conditions, by);
    turn::take(database(running)?, attempt).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn try_delete(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    conditions: &Conditions,
    by: &Actor,
) -> Result<Option<Written>, Problem> {
    let (row, file) = both(running, kind, name).await?;
    let expected = conditions.expected(versions(&row, &file))?;
    if row.is_none() {
        return Err(match file {
            None => absent(kind),
            Some(_) => Problem::new(
                StatusCode::CONFLICT,
                "It is only in the configuration file: remove it there, or replace it with PUT (a policy with `mode: off`).",
            ),
        });
    }
    let judged_at = documents::may_go(running, kind, name).await?;
    let terms = Terms {
        expected,
        judged_at,
    };
    let done = database(running)?.delete(kind, name, &by.0, terms);
    turn::written(done.await)
}

/// The row and what the file says.
pub(super) async fn both(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
) -> Result<(Option<Resource>, Option<Resource>), Problem> {
    if !documents::is_name(kind, name) {
        return Err(absent(kind));
    }
    let row = match &running.database {
        Some(database) => database.get(kind, name).await?.map(Resource::from),
        None => None,
    };
    let file = documents::of_file(running, kind).await?.remove(name);
    let file = file.map(|document| Resource::in_file(name.to_owned(), document));
    if kind == Kind::RouteSettings && file.is_none() {
        return Err(Problem::not_found("There is no such route in the file."));
    }
    Ok((row, file))
}

fn versions<'a>(row: &'a Option<Resource>, file: &'a Option<Resource>) -> Versions<'a> {
    Versions {
        row: row.as_ref().map(|row| row.etag.as_str()),
        file: file.as_ref().map(|file| file.etag.as_str()),
    }
}

fn absent(kind: Kind) -> Problem {
    Problem::not_found(match kind {
        Kind::Policy => "There is no such policy.",
        Kind::Tier => "There is no such tier.",
        Kind::Client => "There is no such client.",
        Kind::RouteSettings => "There is no such route.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Stored {
        Stored {
            name: name.to_owned(),
            document: serde_json::json!({}),
            etag: "1".to_owned(),
            changed_at: String::new(),
            changed_by: String::new(),
        }
    }

    /// Pages through everything, with a database that pages as Postgres does.
    fn all(rows: &[&str], file: &[&str], limit: u32) -> Vec<String> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let left = rows
                .iter()
                .filter(|name| after.as_deref().is_none_or(|after| **name > after));
            let items: Vec<Stored> = left.clone().take(limit as usize).map(|n| row(n)).collect();
            let more = left.count() > items.len();
            let next = items.last().map(|row| row.name.clone()).filter(|_| more);
            let file = file.iter().map(|name| ((*name).to_owned(), Value::Null));
            let page = Page { items, next };
            let listed = merged(page, file.collect(), after.as_deref(), limit);
            assert!(listed.items.len() <= limit as usize);
            found.extend(
                listed
                    .items
                    .iter()
                    .map(|item| format!("{}{}", item.name, u8::from(item.source == Source::File))),
            );
            match listed.next {
                Some(next) => after = Some(next),
                None => return found,
            }
        }
    }

    #[test]
    fn rows_and_the_files_are_one_list_whatever_the_size_of_its_pieces() {
        let rows = ["b", "d", "e", "x"];
        let file = ["a", "b", "c", "y", "z"];
        let expected = ["a1", "b0", "c1", "d0", "e0", "x0", "y1", "z1"];
        for limit in 1..10 {
            assert_eq!(all(&rows, &file, limit), expected, "{limit}");
        }
        assert_eq!(all(&[], &file, 2).len(), 5);
        assert_eq!(all(&rows, &[], 2).len(), 4);
        assert!(all(&[], &[], 2).is_empty());
    }
}
