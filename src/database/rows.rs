//! Everything of the database that belongs in the snapshot.

use super::document::{Document, parameter};
use super::failure::DatabaseError;
use super::resources::Kind;
use super::revisions;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, IsolationLevel, Transaction};

/// Documents by name, as they are: rows written by hand may be wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// policies in the file's shape, by name
    pub policies: Vec<(String, Value)>,
    /// names of tiers
    pub tiers: Vec<String>,
    /// settings of routes, by the route's name
    pub routes: Vec<(String, Value)>,
    /// the newest revision they contain
    pub revision: i64,
}

/// Reads everything as it is at one moment.
pub(super) async fn read(client: &mut Client) -> Result<Rows, DatabaseError> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let tiers = documents(&transaction, Kind::Tier).await?;
    let rows = Rows {
        policies: documents(&transaction, Kind::Policy).await?,
        tiers: tiers.into_iter().map(|(name, _)| name).collect(),
        routes: documents(&transaction, Kind::RouteSettings).await?,
        revision: revisions::newest(&transaction).await?,
    };
    transaction.commit().await?;
    Ok(rows)
}

async fn documents(
    transaction: &Transaction<'_>,
    kind: Kind,
) -> Result<Vec<(String, Value)>, DatabaseError> {
    let none: Option<&str> = None;
    let all: Option<i64> = None;
    let parameters = [
        parameter(&none, Type::TEXT),
        parameter(&none, Type::TEXT),
        parameter(&all, Type::INT8),
    ];
    let rows = transaction.query_typed(kind.select(), &parameters).await?;
    rows.iter()
        .map(|row| {
            let Document(document) = row.try_get("document")?;
            Ok((row.try_get("name")?, document))
        })
        .collect()
}
