//! `/api/v1/clients/{id}/keys` and `/api/v1/keys/{id}`: API keys, made, listed and revoked; the secret is shown once.

use super::actor::Actor;
use super::paging::{Listed, Piece};
use super::problem::{FieldProblem, Problem};
use super::reading::{Asked, Body, Named, Nothing};
use super::resources;
use crate::database::{Kind, NewKey, StoredKey, is_scope};
use crate::snapshot::Running;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Longest name and longest scope in bytes.
const MAX_TEXT: usize = 128;

/// Most scopes of a key.
const MAX_SCOPES: usize = 64;

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub(super) struct Wanted {
    /// What people call it.
    #[serde(default)]
    #[schema(max_length = 128)]
    name: Option<String>,
    /// What it is good for; routes may ask for some of them.
    #[serde(default)]
    #[schema(max_items = 64)]
    scopes: Vec<String>,
    /// When it ends (RFC 3339); absent: never.
    #[serde(default)]
    #[schema(format = DateTime)]
    expires: Option<String>,
}

/// A key without its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct Key {
    /// The part of its text that may be known.
    id: String,
    /// Whose it is.
    client: String,
    /// What people call it.
    name: Option<String>,
    /// What it is good for.
    scopes: Vec<String>,
    /// When it was made (RFC 3339).
    created_at: String,
    /// When it ends (RFC 3339); null: never.
    expires_at: Option<String>,
    /// When it was revoked (RFC 3339); null: it is valid.
    revoked_at: Option<String>,
    /// When it was last used, to a minute or two (RFC 3339); null: never.
    last_used_at: Option<String>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct Made {
    /// The key itself. It is shown here and never again.
    key: String,
    #[serde(flatten)]
    stored: Key,
}

impl From<StoredKey> for Key {
    fn from(stored: StoredKey) -> Self {
        let StoredKey {
            id,
            client,
            name,
            scopes,
            created_at,
            expires_at,
            revoked_at,
            last_used_at,
        } = stored;
        Key {
            id,
            client,
            name,
            scopes,
            created_at,
            expires_at,
            revoked_at,
            last_used_at,
        }
    }
}

/// List the keys of a client that are in the database
#[utoipa::path(get, path = "/api/v1/clients/{id}/keys", tag = "keys", operation_id = "list_keys",
    params(("id" = String, Path, description = "the client's id"), Piece),
    responses((status = 200, description = "its keys by id, without secrets", body = Listed<Key>,
               headers(("Link" = String, description = "the next piece"))),
              (status = 404, description = "there is no such client")))]
pub(super) async fn list(
    State(running): State<Arc<Running>>,
    Named(id): Named<String>,
    Asked(piece): Asked<Piece>,
) -> Result<Response, Problem> {
    client_exists(&running, &id).await?;
    let path = format!("/api/v1/clients/{}/keys", encoded(&id));
    let listed = match &running.database {
        None => Listed {
            items: Vec::new(),
            next: None,
        },
        Some(database) => {
            let after = piece.after.as_deref();
            if after.is_some_and(|after| !is_key_id(after)) {
                return Err(Problem::unreadable(
                    "The query cannot be used: after is not the id of a key.",
                ));
            }
            let page = database.list_keys(Some(&id), after, piece.limit).await?;
            Listed {
                items: page.items.into_iter().map(Key::from).collect(),
                next: page.next,
            }
        }
    };
    Ok(listed.answer(&path, "after", piece.limit))
}

/// Make a key for a client; the answer is the only one that has its secret
#[utoipa::path(post, path = "/api/v1/clients/{id}/keys", tag = "keys", operation_id = "create_key",
    params(("id" = String, Path, description = "the client's id"),
           ("X-Tidegate-Actor" = Option<String>, Header, description = "on whose behalf, for the revision")),
    request_body = Wanted,
    responses((status = 201, description = "the key", body = Made),
              (status = 404, description = "there is no such client"),
              (status = 409, description = "no database is configured")))]
pub(super) async fn create(
    State(running): State<Arc<Running>>,
    Named(id): Named<String>,
    _: Asked<Nothing>,
    by: Actor,
    Body(wanted): Body<Wanted>,
) -> Result<(StatusCode, Json<Made>), Problem> {
    let database = resources::database(&running)?;
    let client_of_file = client_exists(&running, &id).await?;
    let now_us = running.clock.now_us();
    let new = wanted
        .checked(id, client_of_file, now_us)
        .map_err(Problem::invalid)?;
    let created = database.create_key(&new, &by.0).await?;
    let made = Made {
        key: created.text,
        stored: created.key.into(),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Revoke a key; every gateway refuses it within a second
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = "keys", operation_id = "revoke_key",
    params(("id" = String, Path, description = "the key's id, the second part of its text"),
           ("X-Tidegate-Actor" = Option<String>, Header, description = "on whose behalf, for the revision")),
    responses((status = 204, description = "it is revoked, perhaps since long ago"),
              (status = 404, description = "there is no such key"),
              (status = 409, description = "no database is configured")))]
pub(super) async fn revoke(
    State(running): State<Arc<Running>>,
    Named(id): Named<String>,
    _: Asked<Nothing>,
    by: Actor,
) -> Result<StatusCode, Problem> {
    let database = resources::database(&running)?;
    if !is_key_id(&id) {
        return Err(Problem::not_found("There is no such key."));
    }
    database.revoke_key(&id, &by.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Is it one of the file?
async fn client_exists(running: &Arc<Running>, id: &str) -> Result<bool, Problem> {
    let (row, file) = resources::both(running, Kind::Client, id).await?;
    match (row, file) {
        (None, None) => Err(Problem::not_found("There is no such client.")),
        (_, file) => Ok(file.is_some()),
    }
}

/// An id reads as keys are generated, or it is asked for in vain.
fn is_key_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn encoded(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Wanted {
    fn checked(
        self,
        client: String,
        client_of_file: bool,
        now_us: u64,
    ) -> Result<NewKey, Vec<FieldProblem>> {
        let mut bad = Vec::new();
        let name_fits = |name: &String| {
            (1..=MAX_TEXT).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        if self.name.as_ref().is_some_and(|name| !name_fits(name)) {
            let hint = "write 1 to 128 bytes without control characters";
            bad.push(FieldProblem::new("name", "not a name for a key", hint));
        }
        if self.scopes.len() > MAX_SCOPES {
            let message = format!("more than {MAX_SCOPES} scopes");
            bad.push(FieldProblem::new("scopes", message, "write fewer"));
        }
        for (index, scope) in self.scopes.iter().enumerate().take(MAX_SCOPES) {
            if !is_scope(scope) {
                let hint = "write 1 to 128 visible ASCII characters without spaces, `\"` and `\\`";
                let path = format!("scopes[{index}]");
                bad.push(FieldProblem::new(&path, "not a scope", hint));
            }
        }
        let expires_at_us = match self.expires.as_deref().map(|text| expiry(text, now_us)) {
            None => None,
            Some(Ok(at_us)) => Some(at_us),
            Some(Err(message)) => {
                let hint = "write a time to come, such as `2030-12-31T00:00:00Z`";
                bad.push(FieldProblem::new("expires", message, hint));
                None
            }
        };
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(NewKey {
            client,
            client_of_file,
            name: self.name,
            scopes: self.scopes,
            expires_at_us,
        })
    }
}

fn expiry(text: &str, now_us: u64) -> Result<u64, &'static str> {
    let at: Timestamp = text.parse().map_err(|_| "not a time with a time zone")?;
    let at_us = u64::try_from(at.as_microsecond()).map_err(|_| "it has passed")?;
    match at_us > now_us {
        true => Ok(at_us),
        false => Err("it has passed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_with_a_key_is_told_at_once() {
        let wanted = Wanted {
            name: Some("a\0b".into()),
            scopes: vec!["read".into(), "a b".into(), String::new()],
            expires: Some("2001-01-01T00:00:00Z".into()),
        };
        let bad = wanted.checked("acme".into(), true, 2_000_000_000_000_000);
        let paths: Vec<String> = bad.unwrap_err().into_iter().map(|bad| bad.path).collect();
        assert_eq!(paths, ["name", "scopes[1]", "scopes[2]", "expires"]);
    }

    #[test]
    fn an_expiry_needs_a_zone_and_lies_ahead() {
        assert_eq!(expiry("1970-01-01T00:00:01Z", 5), Ok(1_000_000));
        assert_eq!(expiry("1970-01-01T01:00:01+01:00", 5), Ok(1_000_000));
        for text in [
            "",
            "tomorrow",
            "2030-01-01",
            "2030-01-01T00:00:00",
            "1969-01-01T00:00:00Z",
        ] {
            assert!(expiry(text, 5).is_err(), "{text}");
        }
    }
}
