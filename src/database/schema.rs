//! The version of the schema: what it is, what is needed, and how to get there.

use super::failure::{DatabaseError, SchemaVersion, with_causes, within};
use super::pool::Pool;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

#[allow(
    clippy::unwrap_used,
    reason = "generated: the names of files that were checked when this was built"
)]
mod embedded {
    refinery::embed_migrations!("sql/migrations");
}

/// The version this code works with: that of the newest migration, as a test checks.
pub(super) const NEEDED: u32 = 1;

const HISTORY: &str = "schema_history";
const EXISTS: &str = include_str!("../../sql/queries/schema_exists.sql");
const VERSION: &str = include_str!("../../sql/queries/schema_version.sql");

/// Two migrations at once wait for each other under this number.
const LOCK: i64 = 0x7469_6465_6761_7465;

/// How long a migration waits for another one.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// How long a whole migration may take: tables may be large.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(1_800);

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// the version before; 0: nothing of ours was there
    pub from: u32,
    /// the version now
    pub to: u32,
    /// what was applied, in order, such as `V1__policies_clients_keys`
    pub applied: Vec<String>,
}

/// The version of the schema; 0: nothing of ours is there.
pub(super) async fn version(client: &Client) -> Result<u32, DatabaseError> {
    let found = client.query_typed_one(EXISTS, &[]).await?;
    if !found.try_get::<_, bool>("found")? {
        return Ok(0);
    }
    let version = client.query_typed_one(VERSION, &[]).await?;
    let version: i32 = version.try_get("version")?;
    Ok(u32::try_from(version).unwrap_or(0))
}

/// Is it the version that is needed?
pub(super) fn fits(found: u32) -> Result<(), DatabaseError> {
    if found == NEEDED {
        return Ok(());
    }
    Err(DatabaseError::Schema(SchemaVersion {
        found,
        needed: NEEDED,
    }))
}

/// Fails unless the schema is the one that is needed.
pub(super) async fn check(client: &Client) -> Result<(), DatabaseError> {
    fits(version(client).await?)
}

/// Brings the schema to the version that is needed.
pub(super) async fn migrate(pool: &Pool) -> Result<Migrated, DatabaseError> {
    let (mut client, driver) = pool.connect().await?;
    let driver = tokio::spawn(driver);
    let done = migrate_on(&mut client, pool.timeout(), pool.long_timeout()).await;
    // the lock goes with the connection
    driver.abort();
    done
}

async fn migrate_on(
    client: &mut Client,
    timeout: Duration,
    lock_patience: Duration,
) -> Result<Migrated, DatabaseError> {
    within(LOCK_PATIENCE, lock(client))
        .await
        .map_err(|error| match error {
            DatabaseError::Unavailable(reason) => DatabaseError::Unavailable(format!(
                "{reason} (is another `tidegate migrate` at work?)"
            )),
            error => error,
        })?;
    let from = within(timeout, version(client)).await?;
    if from > NEEDED {
        fits(from)?;
    }
    if from == NEEDED {
        // also for a role that may not create tables
        return Ok(Migrated {
            from,
            to: from,
            applied: Vec::new(),
        });
    }
    limit(client, lock_patience).await?;
    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name(HISTORY);
    let migrating = async {
        let report = runner.run_async(client).await;
        report.map_err(|error| DatabaseError::Unavailable(told(&error)))
    };
    let report = tokio::time::timeout(MIGRATION_PATIENCE, migrating).await;
    let report = report.unwrap_or_else(|_| {
        Err(DatabaseError::Unavailable(format!(
            "the migration did not end within {} minutes and was given up; what it had not finished is undone",
            MIGRATION_PATIENCE.as_secs() / 60
        )))
    })?;
    let applied = report.applied_migrations().iter();
    Ok(Migrated {
        from,
        to: NEEDED,
        applied: applied.map(ToString::to_string).collect(),
    })
}

/// The server gives up by itself too: it does not notice at once that nobody waits any more. A table
/// that somebody else holds must not hold up everybody who waits behind the migration.
async fn limit(client: &Client, lock_patience: Duration) -> Result<(), DatabaseError> {
    let limits = format!(
        "SET lock_timeout = {}; SET statement_timeout = {}",
        lock_patience.as_millis().max(1),
        MIGRATION_PATIENCE.as_millis()
    );
    within(lock_patience, async {
        Ok(client.batch_execute(&limits).await?)
    })
    .await
}

async fn lock(client: &Client) -> Result<(), DatabaseError> {
    loop {
        let sql = format!("SELECT pg_try_advisory_lock({LOCK}) AS locked");
        let answer = client.query_typed_one(&sql, &[]).await?;
        if answer.try_get("locked")? {
            return Ok(());
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}

/// An error of a migration, and what to do where that is known.
fn told(error: &refinery::Error) -> String {
    use std::error::Error as _;
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.downcast_ref::<tokio_postgres::Error>();
        if let Some(said) = said.and_then(tokio_postgres::Error::as_db_error) {
            let homeless = [
                SqlState::INSUFFICIENT_PRIVILEGE,
                SqlState::INVALID_SCHEMA_NAME,
            ];
            let hint = match said.code() {
                code if homeless.contains(code) => {
                    "; migrate as a role that may create tables in the first schema of its search_path"
                }
                code if *code == SqlState::LOCK_NOT_AVAILABLE => {
                    "; somebody else holds what is to be changed: see pg_locks, then migrate again"
                }
                _ => "",
            };
            return format!("{}{hint}", said.message());
        }
        cause = error.source();
    }
    with_causes(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_migration_leads_to_the_version_that_is_needed() {
        let runner = embedded::migrations::runner();
        let newest = runner.get_migrations().iter().map(|m| m.version()).max();
        assert_eq!(newest, Some(i32::try_from(NEEDED).unwrap()));
    }

    #[test]
    fn an_older_and_a_newer_schema_are_told_apart() {
        let said = |found| fits(found).unwrap_err().to_string();
        assert!(said(NEEDED - 1).contains("run `tidegate migrate`"));
        assert!(said(NEEDED + 1).contains("newer version of tidegate"));
        assert!(fits(NEEDED).is_ok());
    }
}
