//! The database at the start: what it knows, or what it knew when it was last read.

use crate::cli::Failure;
use crate::config::{self, Loaded};
use crate::database::{Database, Rows, Settings};
use crate::snapshot::LastGood;
use crate::telemetry::Metrics;
use sha2::{Digest, Sha256};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long a start waits for the database, beyond the limit of a statement.
const MORE: Duration = Duration::from_millis(500);

/// How long the end of the process waits for the database.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A database that is listened to, and its rows as far as they are known.
pub(super) struct Connected {
    pub(super) database: Arc<Database>,
    pub(super) rows: Option<Rows>,
    /// those that were in force when they were last read
    pub(super) known: Option<Rows>,
    pub(super) last_good: Option<LastGood>,
    /// what drives its connections
    runtime: Option<Runtime>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.database.save();
        if let Some(runtime) = self.runtime.take() {
            // when a key was used last is worth a moment, not a wait
            let noted = runtime.block_on(async {
                tokio::time::timeout(LAST_WORDS, self.database.note_uses()).await
            });
            if !matches!(noted, Ok(Ok(()))) {
                tracing::debug!("uses of keys in the last minute are not noted");
            }
            runtime.shutdown_background();
        }
    }
}

/// Connects, if the configuration names a database. One that does not answer is no failure.
pub(super) fn connect(loaded: &Loaded, metrics: &Metrics) -> Result<Option<Connected>, Failure> {
    let Some(written) = &loaded.config.database else {
        return Ok(None);
    };
    let state_dir = state_dir(written);
    let settings = settings(written, state_dir.clone());
    let database = Database::new(&settings, metrics.database.clone()).map_err(|message| {
        let path = ["database".into(), "url".into()];
        Failure::Configuration(vec![loaded.problem(&path, message, None)])
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("database")
        .enable_all()
        .build()?;
    let last_good = state_dir.as_deref().map(LastGood::in_folder);
    let fresh = runtime.block_on(async {
        database.start();
        tokio::time::timeout(written.timeout + MORE, database.rows()).await
    });
    let known = last_good.as_ref().and_then(LastGood::load);
    let why = match fresh {
        Ok(Ok(rows)) => {
            return Ok(Some(Connected {
                database,
                rows: Some(rows),
                known,
                last_good,
                runtime: Some(runtime),
            }));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the database does not answer".to_owned(),
    };
    match &known {
        Some(rows) => tracing::warn!(
            revision = rows.revision,
            "{why}; starting with what it knew when it was last read"
        ),
        None => tracing::warn!("{why}; starting with the file alone"),
    }
    Ok(Some(Connected {
        database,
        rows: known.clone(),
        known,
        last_good,
        runtime: Some(runtime),
    }))
}

/// The database's settings as the configuration has them.
pub(in crate::cli) fn settings(written: &config::Database, state_dir: Option<PathBuf>) -> Settings {
    Settings {
        url: written.url.expose().to_owned(),
        ca_file: written.ca_file.clone(),
        pool: written.pool,
        timeout: written.timeout,
        max_cached: written.max_cached,
        state_dir,
        keep_revisions: written.keep_revisions,
    }
}

/// A folder for what is known from this very database, made where it is missing; `None`: there is no place for it.
fn state_dir(written: &config::Database) -> Option<PathBuf> {
    let given = written.state_dir.clone();
    let systemd = || std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    let chosen = given.or_else(systemd);
    let candidates = match chosen {
        Some(folder) => vec![folder],
        None => {
            let home = std::env::var_os("HOME").map(PathBuf::from);
            let at_home = home.map(|home| home.join(".local/state/tidegate"));
            let system = PathBuf::from("/var/lib/tidegate");
            [system].into_iter().chain(at_home).collect()
        }
    };
    // another database is another story: its policies must not come up here
    let name = name_of(written.url.expose());
    let mut failure = None;
    for candidate in &candidates {
        match make(&candidate.join(&name)) {
            Ok(folder) => return Some(folder),
            Err(error) => failure = Some((candidate, error)),
        }
    }
    if let Some((folder, error)) = failure {
        tracing::error!(
            "database.state_dir: {}: {error}; a start without the database would know the file alone",
            folder.display()
        );
    }
    None
}

fn name_of(url: &str) -> String {
    // whoever changes the password means the same database
    let place = match url.split_once("://") {
        Some((_, rest)) => rest.rsplit_once('@').map_or(rest, |(_, place)| place),
        None => url,
    };
    let digest = Sha256::digest(place);
    let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    digits.collect()
}

fn make(folder: &Path) -> std::io::Result<PathBuf> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // a folder that is there may still not be writable
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)?;
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_has_one_folder_whoever_logs_in() {
        let name = name_of("postgres://a:b@h:5432/d");
        assert_eq!(name, name_of("postgresql://c@h:5432/d"));
        assert_ne!(name, name_of("postgres://a:b@h:5432/e"));
        assert_eq!(name.len(), 16);
    }
}
