//! Where a Postgres is: a URL as libpq writes it.

use super::Notation;
use crate::config::model::Secret;

/// A URL of Postgres; empty means none. It may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct PostgresUrl(pub(in crate::config) Secret);

impl Notation for PostgresUrl {
    const FORMAT: &'static str = "tidegate-postgres-url";
    const WHAT: &'static str = "a Postgres URL";
    const HINT: &'static str =
        "write `postgres://user:password@host:5432/name`, with `?sslmode=require` for TLS";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let url = || PostgresUrl(Secret::new(text.to_owned()));
        if text.is_empty() {
            return Ok(url());
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            let hint =
                "a URL has no spaces; write other characters of a password as %20 and the like";
            return Err(Some(hint.to_owned()));
        }
        match text.split_once("://") {
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => Ok(url()),
            _ => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::instead;
    use super::*;

    #[test]
    fn both_schemes_are_taken_and_others_are_not() {
        for text in [
            "",
            "postgres://h/d",
            "postgresql://u:p@h:1/d?sslmode=require",
        ] {
            assert!(PostgresUrl::parse(text).is_ok(), "{text}");
        }
        for text in ["h/d", "redis://h", "postgres://", "postgres:///a b"] {
            instead::<PostgresUrl>(text);
        }
    }
}
