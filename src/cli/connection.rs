//! The database of the configuration, for commands that work on it directly.

use super::run::database::settings;
use super::{Failure, configuration_file, load};
use crate::config::Loaded;
use crate::database::{Database, DatabaseError};
use crate::telemetry::Metrics;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// A database and what drives its connections.
pub(super) struct Connection {
    pub(super) loaded: Loaded,
    database: Arc<Database>,
    runtime: Runtime,
}

/// Reads the configuration; connects when something is asked.
pub(super) fn open(file: Option<PathBuf>) -> Result<Connection, Failure> {
    let loaded = load(file.clone())?;
    let Some(written) = &loaded.config.database else {
        return Err(Failure::Other(format!(
            "{}: database.url is empty: write postgres://user:password@host/name there, or set DATABASE_URL \
             where the file says so",
            configuration_file(file).display()
        )));
    };
    let metrics = Metrics::new().map_err(|error| Failure::Other(error.to_string()))?;
    // the state of a running gateway is none of our business
    let database = Database::new(&settings(written, None), metrics.database.clone());
    let database = database.map_err(|message| {
        let path = ["database".into(), "url".into()];
        Failure::Configuration(vec![loaded.problem(&path, message, None)])
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(Connection {
        loaded,
        database,
        runtime,
    })
}

impl Connection {
    /// Does something and waits for it.
    pub(super) fn run<T, F>(&self, work: impl FnOnce(Arc<Database>) -> F) -> T
    where
        F: Future<Output = T>,
    {
        self.runtime.block_on(work(self.database.clone()))
    }
}

/// An error of the database in the words of the command line.
pub(super) fn told(error: DatabaseError) -> Failure {
    Failure::Other(error.to_string())
}

/// Who is at the command line, for revisions: `cli:ann`.
pub(super) fn who() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty() && name.chars().all(|c| !c.is_control()));
    let user = named.unwrap_or_else(|| match std::fs::metadata("/proc/self") {
        Ok(process) => process.uid().to_string(),
        Err(_) => "unknown".to_owned(),
    });
    format!("cli:{user}")
}
