//! `If-Match` and `If-None-Match`: a write that knows another version than the one there is refused (RFC 9110, 13).

use super::problem::Problem;
use crate::database::Expected;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};

/// Most tags in a header; nobody means more.
const MAX_TAGS: usize = 64;

/// What a request knows of the resource.
#[derive(Default)]
pub(super) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// `*`, or versions.
enum Tags {
    Any,
    /// strong tags without their quotes; a weak one never matches on a write
    These(Vec<String>),
}

/// The versions there are.
#[derive(Clone, Copy)]
pub(super) struct Versions<'a> {
    /// of the row in the database
    pub(super) row: Option<&'a str>,
    /// of what the file says
    pub(super) file: Option<&'a str>,
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Conditions {
            if_match: tags(&parts.headers, &header::IF_MATCH)?,
            if_none_match: tags(&parts.headers, &header::IF_NONE_MATCH)?,
        })
    }
}

impl Conditions {
    /// What the database is to find when it writes, or that the request knows another version.
    pub(super) fn expected(&self, versions: Versions<'_>) -> Result<Expected, Problem> {
        let now = versions.row.or(versions.file);
        let changed = || Problem::has_changed(now.map(str::to_owned));
        let matches = |tags: &Tags| now.is_some_and(|now| tags.contain(now));
        if self.if_match.as_ref().is_some_and(|tags| !matches(tags))
            || self.if_none_match.as_ref().is_some_and(matches)
        {
            return Err(changed());
        }
        Ok(match (&self.if_match, &self.if_none_match, versions.row) {
            (Some(_), _, Some(row)) => Expected::Etag(row.to_owned()),
            (Some(_), _, None) | (None, Some(Tags::Any), _) => Expected::Absent,
            (None, _, _) => Expected::Any,
        })
    }

    /// Does a reader have this version already?
    pub(super) fn has(&self, etag: &str) -> bool {
        self.if_none_match
            .as_ref()
            .is_some_and(|tags| tags.contain(etag))
    }
}

impl Tags {
    fn contain(&self, etag: &str) -> bool {
        match self {
            Tags::Any => true,
            Tags::These(tags) => tags.iter().any(|tag| tag == etag),
        }
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut found: Option<Vec<String>> = None;
    let bad = || {
        Problem::unreadable(format!(
            "{name} is not `*` or a list of ETags in quotes, such as \"3f2a\"."
        ))
    };
    for line in headers.get_all(name) {
        let line = line.to_str().map_err(|_| bad())?.trim();
        if line == "*" {
            return Ok(Some(Tags::Any));
        }
        let list = found.get_or_insert_default();
        for tag in line.split(',').map(str::trim) {
            let weak = tag.strip_prefix("W/");
            let text = weak
                .unwrap_or(tag)
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .filter(|text| !text.contains('"'))
                .ok_or_else(bad)?;
            if list.len() >= MAX_TAGS {
                return Err(bad());
            }
            if weak.is_none() {
                list.push(text.to_owned());
            }
        }
    }
    Ok(found.map(Tags::These))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(pairs: &[(&'static str, &'static str)]) -> Conditions {
        let headers: HeaderMap = pairs
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        Conditions {
            if_match: tags(&headers, &header::IF_MATCH).unwrap(),
            if_none_match: tags(&headers, &header::IF_NONE_MATCH).unwrap(),
        }
    }

    #[test]
    fn a_write_goes_ahead_only_where_the_writer_knows_what_is_there() {
        let etag = |tag: &str| Some(Expected::Etag(tag.to_owned()));
        for (pairs, row, file, expected) in [
            (&[][..], Some("a"), None, Some(Expected::Any)),
            (&[("if-match", "\"a\"")], Some("a"), Some("f"), etag("a")),
            (&[("if-match", "\"x\", \"a\"")], Some("a"), None, etag("a")),
            (&[("if-match", "\"f\"")], Some("a"), Some("f"), None),
            (
                &[("if-match", "\"f\"")],
                None,
                Some("f"),
                Some(Expected::Absent),
            ),
            (&[("if-match", "W/\"a\"")], Some("a"), None, None),
            (&[("if-match", "\"a\"")], None, None, None),
            (&[("if-match", "*")], None, None, None),
            (&[("if-match", "*")], Some("a"), None, etag("a")),
            (
                &[("if-none-match", "*")],
                None,
                None,
                Some(Expected::Absent),
            ),
            (&[("if-none-match", "*")], Some("a"), None, None),
            (&[("if-none-match", "*")], None, Some("f"), None),
            (
                &[("if-none-match", "\"a\"")],
                Some("b"),
                None,
                Some(Expected::Any),
            ),
        ] {
            let found = conditions(pairs).expected(Versions { row, file });
            assert_eq!(found.ok(), expected, "{pairs:?} {row:?} {file:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for value in ["", "a", "\"a", "\"a\" \"b\"", "a\"", "\"a\",", "*, \"a\""] {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, value.parse().unwrap())]);
            assert!(tags(&headers, &header::IF_MATCH).is_err(), "{value}");
        }
    }
}
