//! A look-up: one for all who want the same, a bounded number at once, bounded in time.

use super::record::Record;
use super::section::{Answer, Section};
use super::{Recalled, Shared, Unavailable};
use crate::clock::Stopwatch;
use crate::database::failure::{DatabaseError, Health, within};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// A connection that broke while it was idle shows at its next use: then another one is tried.
const ATTEMPTS: usize = 3;

/// How often an answer that something overtook is asked for again.
pub(super) const MAX_OVERTAKEN: usize = 3;

/// Which section of the directory.
pub(super) type Pick<R> = fn(&Shared) -> &Section<R>;

impl Shared {
    /// What memory says, or else the database, or else memory however old.
    pub(super) async fn find<R: Record>(
        self: &Arc<Self>,
        pick: Pick<R>,
        id: R::Id,
        now_us: u64,
    ) -> Result<Option<Arc<R>>, Unavailable> {
        if let Some(answer) = in_memory(pick(self), &id, now_us) {
            return Ok(answer);
        }
        let answer = match self.board(pick, &id, now_us) {
            Ok(flight) => landed(flight).await,
            Err(unavailable) => Err(unavailable),
        };
        match answer {
            Ok(Some(record)) if record.has_expired(now_us) => Ok(None),
            Ok(answer) => Ok(answer),
            // the database is there: a key that was revoked a moment ago must not count
            Err(Unavailable::TooMany) if R::IS_CREDENTIAL => Err(Unavailable::TooMany),
            Err(unavailable) => match pick(self).recall_old(&id, now_us) {
                Recalled::Unknown => Err(unavailable),
                recalled => {
                    self.metrics.stale.inc();
                    match recalled {
                        Recalled::Known(record) => Ok(Some(record)),
                        _ => Ok(None),
                    }
                }
            },
        }
    }

    /// Joins the look-up that is under way, or begins one. It goes on even if nobody waits.
    fn board<R: Record>(
        self: &Arc<Self>,
        pick: Pick<R>,
        id: &R::Id,
        now_us: u64,
    ) -> Result<watch::Receiver<Answer<R>>, Unavailable> {
        if !matches!(
            *self.health.borrow(),
            Health::Connected | Health::Connecting
        ) {
            return Err(Unavailable::Away);
        }
        let mut flights = pick(self).flights.lock();
        if let Some(flight) = flights.get(id) {
            return Ok(flight.clone());
        }
        // one that was under way when memory was asked may have landed since
        if let Some(answer) = in_memory(pick(self), id, now_us) {
            return Ok(watch::channel(Some(Ok(answer))).1);
        }
        let Ok(permit) = self.look_ups.clone().try_acquire_owned() else {
            self.metrics.look_ups_refused.inc();
            return Err(Unavailable::TooMany);
        };
        let (sender, receiver) = watch::channel(None);
        flights.insert(id.clone(), receiver.clone());
        // a runtime that is no more drops the look-up at once, which takes this lock
        drop(flights);
        let flight = Flight {
            shared: self.clone(),
            pick,
            id: id.clone(),
            _permit: permit,
        };
        // not on the threads that serve requests
        match self.pool.runtime() {
            Some(runtime) => runtime.spawn(flight.fly(sender)),
            None => tokio::spawn(flight.fly(sender)),
        };
        Ok(receiver)
    }

    /// Asks until nothing has overtaken the answer.
    async fn ask<R: Record>(
        &self,
        section: &Section<R>,
        id: &R::Id,
    ) -> Result<Option<Arc<R>>, DatabaseError> {
        let ids = std::slice::from_ref(id);
        for _ in 0..MAX_OVERTAKEN {
            let generation = section.generation();
            let found = self.query::<R>(ids).await?.pop();
            let found = found.map(|(_, record)| Arc::new(record));
            if section.put(id, found.as_ref(), generation, self.clock.now_us()) {
                return Ok(found);
            }
        }
        // true when it was asked for, and not remembered
        let found = self.query::<R>(ids).await?.pop();
        Ok(found.map(|(_, record)| Arc::new(record)))
    }

    /// Those of these that exist.
    pub(super) async fn query<R: Record>(
        &self,
        ids: &[R::Id],
    ) -> Result<Vec<(R::Id, R)>, DatabaseError> {
        let mut answer = Err(DatabaseError::Unavailable("not connected".to_owned()));
        for _ in 0..ATTEMPTS {
            let mut lease = self.pool.lease().await?;
            answer = R::find(lease.client()?, ids).await;
            lease.settle(&answer);
            if answer.is_ok() {
                break;
            }
        }
        answer
    }
}

/// What memory says; none: the database has to be asked.
fn in_memory<R: Record>(section: &Section<R>, id: &R::Id, now_us: u64) -> Option<Option<Arc<R>>> {
    match section.recall(id, now_us).recalled {
        Recalled::Known(record) => Some(Some(record)),
        Recalled::Absent => Some(None),
        Recalled::Unknown => None,
    }
}

async fn landed<R: Record>(
    mut flight: watch::Receiver<Answer<R>>,
) -> Result<Option<Arc<R>>, Unavailable> {
    // an error: the runtime that looked it up is no more
    let answer = flight.wait_for(Option::is_some).await;
    answer.map_or(Err(Unavailable::Away), |answer| {
        answer.clone().unwrap_or(Err(Unavailable::Away))
    })
}

/// A look-up under way; when it is over, however that comes, nobody joins it any more.
struct Flight<R: Record> {
    shared: Arc<Shared>,
    pick: Pick<R>,
    id: R::Id,
    _permit: OwnedSemaphorePermit,
}

impl<R: Record> Flight<R> {
    async fn fly(self, sender: watch::Sender<Answer<R>>) {
        let shared = &self.shared;
        let watch = Stopwatch::start();
        shared.metrics.look_ups.inc();
        let section = (self.pick)(shared);
        let answer = within(shared.pool.timeout(), shared.ask(section, &self.id)).await;
        shared
            .metrics
            .look_up_seconds
            .observe(watch.elapsed().as_secs_f64());
        let answer = answer.map_err(|error| {
            tracing::debug!("a look-up failed: {error}");
            shared.metrics.look_ups_failed.inc();
            Unavailable::Away
        });
        sender.send_replace(Some(answer));
    }
}

impl<R: Record> Drop for Flight<R> {
    fn drop(&mut self) {
        (self.pick)(&self.shared).flights.lock().remove(&self.id);
    }
}
