//! Documents on their way in and out: JSON in one normal form, its ETag, what was lost of it.

use super::failure::DatabaseError;
use super::resources::Kind;
use super::saved::hex;
use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::error::Error;
use tokio_postgres::types::{FromSql, ToSql, Type};

/// Bytes of a document's hash in its ETag.
const ETAG_BYTES: usize = 8;

/// Maps of a policy that are absent where they are empty: rows of other tables hold them.
const MAPS: [&str; 2] = ["tiers", "overrides"];

/// A document as it comes; null where it is JSON but too wild for us (a number of 400 digits), so
/// that one bad row does not hide the others.
pub(super) struct Document(pub(super) Value);

impl<'a> FromSql<'a> for Document {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        // the first byte of a jsonb is the version of its form
        let text = raw.get(1..).unwrap_or_default();
        Ok(Document(
            serde_json::from_slice(text).unwrap_or(Value::Null),
        ))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::JSONB
    }
}

/// A parameter of a statement that is sent together with it, unnamed: a pooler between us and
/// Postgres may give every transaction another connection.
pub(super) fn parameter(value: &(dyn ToSql + Sync), of: Type) -> (&(dyn ToSql + Sync), Type) {
    (value, of)
}

/// RFC 3339 of microseconds since the Unix epoch.
pub(super) fn rfc3339(us: i64) -> String {
    // Postgres' timestamps reach further than a calendar of four digits
    let time = Timestamp::from_microsecond(us).unwrap_or(Timestamp::MAX);
    time.to_string()
}

/// Changes with the document, and with every time it is written.
pub(super) fn etag(document: &Value, changed_us: i64) -> String {
    let digest = Sha256::new()
        .chain_update(changed_us.to_be_bytes())
        .chain_update(document.to_string())
        .finalize();
    hex(digest.get(..ETAG_BYTES).unwrap_or_default())
}

/// The document as it will be read again: without nulls and empty maps, with times in UTC.
pub(super) fn normal(kind: Kind, document: &Value) -> Result<Value, DatabaseError> {
    let Value::Object(given) = document else {
        return Err(DatabaseError::Invalid(format!(
            "a {} is an object: write {{}} at least",
            kind.name()
        )));
    };
    let mut normal = without_nulls(given);
    if kind == Kind::Policy {
        for name in MAPS {
            if normal.get(name) == Some(&Value::Object(Map::new())) {
                normal.remove(name);
            }
        }
        if let Some(Value::Object(overrides)) = normal.get_mut("overrides") {
            for (client, quota) in overrides {
                settle_expiry(client, quota)?;
            }
        }
    }
    Ok(Value::Object(normal))
}

fn without_nulls(map: &Map<String, Value>) -> Map<String, Value> {
    let kept = map.iter().filter(|(_, value)| !value.is_null());
    kept.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn settle_expiry(client: &str, quota: &mut Value) -> Result<(), DatabaseError> {
    let Value::Object(quota) = quota else {
        return Ok(());
    };
    let time: Option<Timestamp> = match quota.get("expires") {
        None => return Ok(()),
        Some(Value::Null) => None,
        Some(written) => Some(
            written
                .as_str()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| {
                    DatabaseError::Invalid(format!(
                        "overrides: {client}: `expires` is {written}: write RFC 3339 such as \
                         \"2026-12-31T00:00:00Z\""
                    ))
                })?,
        ),
    };
    match time {
        None => quota.remove("expires"),
        // Postgres keeps microseconds
        Some(time) => quota.insert("expires".to_owned(), rfc3339(time.as_microsecond()).into()),
    };
    Ok(())
}

/// The first key that is not the same in both.
pub(super) fn difference(wanted: &Value, found: &Value) -> Option<String> {
    if same(wanted, found) {
        return None;
    }
    let (Value::Object(wanted), Value::Object(found)) = (wanted, found) else {
        return Some("document".to_owned());
    };
    let differs = |key: &&String| match (wanted.get(*key), found.get(*key)) {
        (Some(one), Some(other)) => !same(one, other),
        _ => true,
    };
    wanted.keys().chain(found.keys()).find(differs).cloned()
}

/// Equal, whatever way a number is written in: Postgres writes 1e3 as 1000.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, one)| other.get(key).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_normal_form_has_no_nulls_and_its_times_are_in_utc() {
        let given = json!({
            "routes": null, "key": ["client"], "tiers": {}, "cost": 1,
            "overrides": { "a": { "count": 1, "expires": "2026-12-31T02:00:00.1000004+02:00" }, "b": { "expires": null } },
        });
        let normal = normal(Kind::Policy, &given).unwrap();
        let wanted = json!({
            "key": ["client"], "cost": 1,
            "overrides": { "a": { "count": 1, "expires": "2026-12-31T00:00:00.1Z" }, "b": {} },
        });
        assert_eq!(normal, wanted);
    }

    #[test]
    fn a_time_that_is_none_is_named() {
        let given = json!({ "overrides": { "acme": { "expires": "tomorrow" } } });
        let error = normal(Kind::Policy, &given).unwrap_err().to_string();
        assert!(
            error.contains("acme") && error.contains("2026-12-31T00:00:00Z"),
            "{error}"
        );
        assert!(normal(Kind::Tier, &json!([])).is_err());
    }

    #[test]
    fn what_was_lost_is_named() {
        let wanted = json!({ "a": 1, "b": [1e3] });
        assert_eq!(difference(&wanted, &json!({ "b": [1000], "a": 1 })), None);
        let lost = |found| difference(&wanted, &found);
        assert_eq!(lost(json!({ "a": 1 })), Some("b".to_owned()));
        assert_eq!(lost(json!({ "a": "1", "b": [1000] })), Some("a".to_owned()));
        assert_eq!(
            lost(json!({ "a": 1, "b": [1000], "c": 0 })),
            Some("c".to_owned())
        );
    }

    #[test]
    fn etags_follow_the_document_and_the_writing() {
        let etag = |document: Value, at| super::etag(&document, at);
        assert_eq!(etag(json!({}), 1), etag(json!({}), 1));
        assert_ne!(etag(json!({}), 1), etag(json!({}), 2));
        assert_ne!(etag(json!({}), 1), etag(json!({ "a": 1 }), 1));
    }
}
