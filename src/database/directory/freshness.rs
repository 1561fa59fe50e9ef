//! Asking again in the background, many at a time: for what was believed for long, and for
//! everything after it may have changed.

use super::look_up::MAX_OVERTAKEN;
use super::record::Record;
use super::section::Section;
use super::{Directory, Shared, Wanted};
use crate::database::failure::{DatabaseError, Health, within};
use hashbrown::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Asked for by one statement.
const AT_ONCE: usize = 500;

/// Until everything is asked for again where that came to nothing.
const RETRY: Duration = Duration::from_secs(1);

impl Directory {
    /// Asks again for what was believed for long, as long as the directory lives.
    pub(in crate::database) async fn keep_fresh(&self) {
        let Some(mut wanted) = self.shared.wanted.lock().take() else {
            return;
        };
        let mut some = Vec::new();
        while wanted.recv_many(&mut some, AT_ONCE).await > 0 {
            let (mut keys, mut clients) = (Vec::new(), Vec::new());
            for one in some.drain(..) {
                match one {
                    Wanted::Key(digest) => keys.push(digest),
                    Wanted::Client(id) => clients.push(id),
                }
            }
            let shared = &self.shared;
            shared.refresh(&shared.keys, &keys).await;
            shared.refresh(&shared.clients, &clients).await;
        }
    }

    /// Asks again for everything whenever it may have changed, so that nothing is left that was
    /// revoked long ago and that nobody has used since.
    pub(in crate::database) async fn keep_checked(&self) {
        let shared = &self.shared;
        let mut health = shared.health.clone();
        loop {
            shared.expired.notified().await;
            loop {
                let is_connected = |health: &Health| *health == Health::Connected;
                if health.wait_for(is_connected).await.is_err() {
                    return;
                }
                match shared.check_everything().await {
                    Ok(()) => break,
                    Err(error) => tracing::debug!("not everything is asked for again: {error}"),
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl Shared {
    async fn refresh<R: Record>(&self, section: &Section<R>, ids: &[R::Id]) {
        if ids.is_empty() || *self.health.borrow() != Health::Connected {
            return;
        }
        if let Err(error) = self.ask_again(section, ids).await {
            // each of them is wanted again in a while
            tracing::debug!("what was believed for long is not asked for again: {error}");
        }
    }

    async fn check_everything(&self) -> Result<(), DatabaseError> {
        self.check(&self.keys).await?;
        self.check(&self.clients).await
    }

    /// What is not asked for again by the end is gone.
    async fn check<R: Record>(&self, section: &Section<R>) -> Result<(), DatabaseError> {
        let epoch = section.epoch();
        for shard in 0..section.shards() {
            for some in section.older_than(epoch, shard).chunks(AT_ONCE) {
                self.ask_again(section, some).await?;
            }
        }
        section.settle(epoch);
        Ok(())
    }

    /// Asks for these and remembers the answers.
    async fn ask_again<R: Record>(
        &self,
        section: &Section<R>,
        ids: &[R::Id],
    ) -> Result<(), DatabaseError> {
        for _ in 0..MAX_OVERTAKEN {
            let generation = section.generation();
            let found = within(self.pool.timeout(), self.query::<R>(ids)).await;
            let found = found.inspect_err(|_| {
                self.metrics.look_ups_failed.inc();
            })?;
            let found: HashMap<R::Id, Arc<R>> = found
                .into_iter()
                .map(|(id, record)| (id, Arc::new(record)))
                .collect();
            let now_us = self.clock.now_us();
            let put = |id: &R::Id| section.put(id, found.get(id), generation, now_us);
            if ids.iter().all(put) {
                return Ok(());
            }
        }
        Err(DatabaseError::Unavailable(
            "something else changes all the time".to_owned(),
        ))
    }
}
