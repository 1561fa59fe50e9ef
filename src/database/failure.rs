//! Why the database did not do what it was asked for, and how it is.

use std::fmt;
use std::time::Duration;

/// What is said where nothing came back.
const SILENCE: &str = "no answer in time";

/// A schema this version does not work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// what the database has; 0: nothing of ours
    pub found: u32,
    /// what this version needs
    pub needed: u32,
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SchemaVersion { found, needed } = self;
        if found < needed {
            write!(
                f,
                "schema {found} in the database, this version needs {needed}: run `tidegate migrate`"
            )
        } else {
            write!(
                f,
                "schema {found} in the database, this version knows {needed}: run a newer version of tidegate"
            )
        }
    }
}

/// Why a call did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// no connection, no answer in time, or an error that is not the caller's
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// `tidegate migrate`, or a newer tidegate, is wanted
    #[error("{0}")]
    Schema(SchemaVersion),
    /// there is no such thing
    #[error("{0} does not exist")]
    NotFound(String),
    /// it is not what the caller expected it to be
    #[error("{}", precondition(.etag))]
    PreconditionFailed {
        /// what it is now; absent: it does not exist
        etag: Option<String>,
    },
    /// somebody else wrote after it was judged: it is to be judged anew
    #[error("others write at the same time")]
    Overtaken,
    /// it cannot be stored as it is
    #[error("{0}")]
    Invalid(String),
}

fn precondition(etag: &Option<String>) -> String {
    match etag {
        Some(etag) => format!("it has changed meanwhile: its ETag is {etag} now"),
        None => "it does not exist any more".to_owned(),
    }
}

/// How the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// nobody knows yet
    Connecting,
    /// all is well
    Connected,
    /// there is no answer, and why
    Unavailable(String),
    /// it answers, but its schema is older or newer than this version's
    Schema(SchemaVersion),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Health::Connecting => f.write_str("connecting"),
            Health::Connected => f.write_str("connected"),
            Health::Unavailable(_) => f.write_str("unavailable"),
            Health::Schema(version) => version.fmt(f),
        }
    }
}

impl DatabaseError {
    /// Was there no answer at all, not even a broken connection?
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, DatabaseError::Unavailable(reason) if reason == SILENCE)
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return DatabaseError::Unavailable(with_causes(&error));
        };
        // the detail of an error repeats rows, digests of keys among them: only its message is told
        let message = said.message().to_owned();
        match said.code().code().get(..2) {
            // a value that is none, a constraint that does not hold
            Some("22" | "23") => DatabaseError::Invalid(format!("it cannot be stored: {message}")),
            _ => DatabaseError::Unavailable(message),
        }
    }
}

/// An error and what it comes from, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Does not wait longer than this.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(DatabaseError::Unavailable(SILENCE.to_owned())))
}
