//! The database, where there is one.

use std::path::PathBuf;
use std::time::Duration;

use super::Review;
use super::store::certificates_of;
use crate::config::model::Database;
use crate::config::place::Place;
use crate::config::raw;

/// The bounds of a statement's time.
const TIMEOUTS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(30)];

/// How long revisions may be kept.
const KEPT: [Duration; 2] = [
    Duration::from_secs(3_600),
    Duration::from_secs(87_600 * 3_600),
];

/// The database; absent where no URL is given.
pub(super) fn resolve(
    raw: raw::Database,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Option<Database> {
    let timeout = review.between(&raw.timeout, TIMEOUTS, &place.then("timeout"));
    let keep_revisions = raw
        .keep_revisions
        .map(|kept| review.between(&kept, KEPT, &place.then("keep_revisions")));
    let url = raw.url.map(|url| url.value.0)?;
    if url.expose().is_empty() {
        return None;
    }
    let ca_file = raw
        .ca_file
        .map(|path| certificates_of(path, &place.then("ca_file"), review));
    Some(Database {
        url,
        ca_file,
        pool: raw.pool,
        timeout,
        max_cached: raw.max_cached,
        state_dir: raw.state_dir.map(PathBuf::from),
        keep_revisions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{errors, loaded};

    #[test]
    fn without_a_url_there_is_no_database() {
        for text in ["", "database: { url: null }", "database: { url: '' }"] {
            assert_eq!(loaded(text).config.database, None, "{text}");
        }
    }

    #[test]
    fn every_key_is_read_as_written() {
        let text = "database:\n  url: postgresql://u:p@h:5433/d?sslmode=require\n  pool: 3\n  timeout: 250ms\n  max_cached: 5000\n  state_dir: /x\n  keep_revisions: 8760h\n";
        let database = loaded(text).config.database.unwrap();
        assert_eq!(
            database.url.expose(),
            "postgresql://u:p@h:5433/d?sslmode=require"
        );
        assert_eq!((database.pool, database.max_cached), (3, 5_000));
        assert_eq!(database.timeout, Duration::from_millis(250));
        assert_eq!(database.state_dir, Some(PathBuf::from("/x")));
        assert_eq!(
            database.keep_revisions,
            Some(Duration::from_secs(8_760 * 3_600))
        );
        assert!(!format!("{database:?}").contains("5433"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_showing_the_password() {
        let found = errors(
            "database:\n  url: mysql://u:geheim@h/d\n  timeout: 1ms\n  keep_revisions: 1m\n",
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("2:8 database.url: ") && !found[0].contains("geheim"));
        assert!(found[1].starts_with("3:12 database.timeout: "));
        assert!(found[2].starts_with("4:19 database.keep_revisions: "));
        let missing = "database: { url: 'postgres://h/d', ca_file: /nonexistent.pem }";
        assert!(errors(missing)[0].contains("does not exist"));
    }
}
