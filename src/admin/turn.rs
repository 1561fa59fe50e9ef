//! Writes that were judged by what nobody has changed since: one after the other, and anew where
//! somebody else was faster.

use super::problem::Problem;
use crate::database::{Database, DatabaseError, Written};
use std::time::Duration;

/// How often a write is judged before it is given up.
const ATTEMPTS: usize = 5;

/// Until it is judged anew, at most.
const REST: Duration = Duration::from_millis(50);

/// Tries until nobody was faster; `attempt` judges and writes, absent: it was overtaken.
pub(super) async fn take<T, Work>(
    database: &Database,
    attempt: impl Fn() -> Work,
) -> Result<T, Problem>
where
    Work: Future<Output = Result<Option<T>, Problem>>,
{
    let _turn = database.turn().await?;
    for _ in 0..ATTEMPTS {
        if let Some(done) = attempt().await? {
            return Ok(done);
        }
        // those of other gateways need not meet again
        tokio::time::sleep(REST.mul_f64(fastrand::f64())).await;
    }
    Err(DatabaseError::Overtaken.into())
}

/// What came of a write; absent: it was overtaken.
pub(super) fn written(done: Result<Written, DatabaseError>) -> Result<Option<Written>, Problem> {
    match done {
        Ok(written) => Ok(Some(written)),
        Err(DatabaseError::Overtaken) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
