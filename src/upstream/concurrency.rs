//! At most so many requests in flight towards an upstream; a bounded queue for the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The gate before an upstream. Places are given in the order of arrival.
pub struct Admission {
    places: Option<Arc<Semaphore>>,
    max_concurrent: Option<u32>,
    waiting: AtomicU32,
    queue_size: u32,
    queue_timeout: Duration,
}

/// A place at an upstream, free again when dropped. `None`: there is no bound.
pub type Place = Option<OwnedSemaphorePermit>;

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// as many wait as may
    QueueFull,
    /// the wait was too long
    TimedOut,
}

impl Admission {
    /// `max_concurrent` at once (absent: any number), `queue_size` waiting for at most `queue_timeout`.
    pub fn new(max_concurrent: Option<u32>, queue_size: u32, queue_timeout: Duration) -> Self {
        let places = max_concurrent.map(|places| Arc::new(Semaphore::new(places as usize)));
        Admission {
            places,
            max_concurrent,
            waiting: AtomicU32::new(0),
            queue_size,
            queue_timeout,
        }
    }

    /// Gets a place that is free.
    pub fn enter_now(&self) -> Option<Place> {
        match &self.places {
            None => Some(None),
            Some(places) => places.clone().try_acquire_owned().ok().map(Some),
        }
    }

    /// Gets a place, waiting in the queue if there is one.
    pub async fn enter(&self) -> Result<Place, NoPlace> {
        if let Some(place) = self.enter_now() {
            return Ok(place);
        }
        let Some(places) = &self.places else {
            return Ok(None);
        };
        let _waiting = self.wait().ok_or(NoPlace::QueueFull)?;
        match tokio::time::timeout(self.queue_timeout, places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) | Err(_) => Err(NoPlace::TimedOut),
        }
    }

    /// Requests at once; absent: any number.
    pub fn max_concurrent(&self) -> Option<u32> {
        self.max_concurrent
    }

    /// Requests waiting now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How long the longest wait may be, for `Retry-After`.
    pub fn queue_timeout(&self) -> Duration {
        self.queue_timeout
    }

    fn wait(&self) -> Option<Waiting<'_>> {
        let room = |waiting: u32| (waiting < self.queue_size).then_some(waiting + 1);
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .ok()
            .map(|_| Waiting(&self.waiting))
    }
}

/// Counts one waiting request for as long as it lives, also if its client leaves.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn the_queue_is_bounded_and_served_in_order() {
        let gate = Arc::new(Admission::new(Some(1), 1, LONG));
        let first = gate.enter().await.unwrap();
        let second = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await.is_ok() }
        });
        while gate.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(gate.enter().await, Err(NoPlace::QueueFull)));
        drop(first);
        assert!(second.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_timeout() {
        let gate = Admission::new(Some(1), 1, LONG);
        let _first = gate.enter().await.unwrap();
        assert!(matches!(gate.enter().await, Err(NoPlace::TimedOut)));
        assert_eq!(gate.waiting(), 0);
    }

    #[tokio::test]
    async fn a_client_that_leaves_the_queue_frees_its_place_in_it() {
        let gate = Admission::new(Some(1), 1, LONG);
        let _first = gate.enter().await.unwrap();
        {
            let mut leaves = Box::pin(gate.enter());
            assert!(still_waits(&mut leaves).await);
            assert_eq!(gate.waiting(), 1);
        }
        assert_eq!(gate.waiting(), 0);
    }

    /// Polls once; true: still waiting.
    async fn still_waits<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }

    #[tokio::test]
    async fn without_a_bound_everybody_enters() {
        let gate = Admission::new(None, 0, LONG);
        for _ in 0..1_000 {
            assert!(gate.enter().await.unwrap().is_none());
        }
    }
}
