//! `tidegate migrate`: brings the database to the schema that this version needs.

use super::{Failure, connection};
use std::io::Write;
use std::path::PathBuf;

pub(super) fn migrate(file: Option<PathBuf>) -> Result<(), Failure> {
    let connection = connection::open(file)?;
    let done = connection.run(|database| async move { database.migrate().await });
    let done = done.map_err(connection::told)?;
    let mut out = std::io::stdout().lock();
    for migration in &done.applied {
        writeln!(out, "applied {migration}")?;
    }
    if done.applied.is_empty() {
        writeln!(out, "schema {}: nothing to do", done.to)?;
    } else {
        writeln!(out, "schema {} (it was {})", done.to, done.from)?;
    }
    Ok(())
}
