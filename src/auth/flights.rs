//! Questions under way by the digest of what they are about: one for all who want the same answer.

use super::api_key::FirstBytes;
use super::recent::Digest;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use tokio::sync::watch;

/// How often somebody boards again who came when the question was just given up.
const MAX_BOARDED: usize = 3;

type Senders<V> = HashMap<Digest, watch::Sender<Option<V>>, BuildHasherDefault<FirstBytes>>;

/// Answers that somebody waits for.
pub(super) struct Flights<V> {
    under_way: Mutex<Senders<V>>,
}

/// Whether anybody still waits for an answer.
pub(super) struct Waiting<V>(watch::Sender<Option<V>>);

impl<V> Waiting<V> {
    /// Returns when nobody does.
    pub(super) async fn nobody(&self) {
        self.0.closed().await;
    }
}

impl<V: Clone + Send + Sync + 'static> Flights<V> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Flights {
            under_way: Mutex::default(),
        })
    }

    /// Joins the question that is under way, or puts the one that `begin` makes. It goes on on a
    /// task of its own, so that whoever stops waiting takes nothing from the others; if it ends with
    /// nothing, it was given up. An error of `begin` is the answer of whoever would have been first.
    pub(super) async fn share<F, E>(
        self: &Arc<Self>,
        digest: Digest,
        mut begin: impl FnMut(Waiting<V>) -> Result<F, E>,
    ) -> Result<Option<V>, E>
    where
        F: Future<Output = Option<V>> + Send + 'static,
    {
        for _ in 0..MAX_BOARDED {
            let mut answer = self.board(digest, &mut begin)?;
            // an error: it was given up, or the runtime that it ran on is no more
            if let Ok(answer) = answer.wait_for(Option::is_some).await {
                return Ok(answer.clone());
            }
        }
        Ok(None)
    }

    fn board<F, E>(
        self: &Arc<Self>,
        digest: Digest,
        begin: &mut impl FnMut(Waiting<V>) -> Result<F, E>,
    ) -> Result<watch::Receiver<Option<V>>, E>
    where
        F: Future<Output = Option<V>> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(sender) = under_way.get(&digest) {
            return Ok(sender.subscribe());
        }
        let (sender, receiver) = watch::channel(None);
        let question = begin(Waiting(sender.clone()))?;
        under_way.insert(digest, sender.clone());
        // a runtime that is no more drops the task at once, which takes this lock
        drop(under_way);
        let flight = Flight {
            flights: self.clone(),
            digest,
        };
        tokio::spawn(async move {
            let answer = question.await;
            // from here on nobody joins; whoever has joined gets the answer
            drop(flight);
            if let Some(answer) = answer {
                sender.send_replace(Some(answer));
            }
        });
        Ok(receiver)
    }
}

/// A question under way; when it is over, however that comes, nobody joins it any more.
struct Flight<V> {
    flights: Arc<Flights<V>>,
    digest: Digest,
}

impl<V> Drop for Flight<V> {
    fn drop(&mut self) {
        self.flights.under_way.lock().remove(&self.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::recent::digest;
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn many_who_want_the_same_answer_are_one_question() {
        let (flights, asked, go) = (
            Flights::new(),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Notify::new()),
        );
        let ask = |about: &'static [u8]| {
            let (flights, asked, go) = (flights.clone(), asked.clone(), go.clone());
            async move {
                let begin = |_: Waiting<usize>| {
                    let (asked, go) = (asked.clone(), go.clone());
                    Ok::<_, Infallible>(async move {
                        go.notified().await;
                        Some(asked.fetch_add(1, Ordering::Relaxed))
                    })
                };
                flights.share(digest(about), begin).await.unwrap()
            }
        };
        let open = async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            go.notify_waiters();
        };
        let (a, b, c, ()) = tokio::join!(ask(b"x"), ask(b"x"), ask(b"y"), open);
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(flights.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn a_question_nobody_waits_for_is_given_up_and_asked_anew_by_whoever_comes() {
        let flights = Flights::<u8>::new();
        let given_up = Arc::new(Notify::new());
        let about = digest(b"x");
        let begin = |waiting: Waiting<u8>| {
            let given_up = given_up.clone();
            Ok::<_, Infallible>(async move {
                waiting.nobody().await;
                given_up.notify_one();
                None
            })
        };
        tokio::select! {
            biased;
            _ = flights.share(about, begin) => panic!("it cannot end"),
            () = std::future::ready(()) => (),
        }
        given_up.notified().await;
        let answer = flights.share(about, |_| Ok::<_, Infallible>(async { Some(7) }));
        assert_eq!(answer.await, Ok(Some(7)));
    }
}
