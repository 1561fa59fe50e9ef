//! Units of `concurrency` buckets that requests of this gateway hold in the store: given back when
//! the request ends, however it ends, and kept alive until then.

use super::Shared;
use super::caller::UnderWay;
use crate::limit::descriptor::BucketKey;
use crate::limit::quota::Quota;
use crate::limit::store::redis::link::CallFailed;
use crate::limit::store::redis::wire;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long units stay taken without being renewed: a gateway that was killed gives back what it
/// held after this.
pub(super) const TTL: Duration = Duration::from_secs(5);

/// Most buckets in one call.
const MOST: usize = 128;

/// What one request holds; dropping it gives the units back.
pub struct Permits {
    owner: Arc<Shared>,
    // not in place: every decision has room for permits, few have any
    keys: Vec<(BucketKey, u64)>,
}

impl Drop for Permits {
    fn drop(&mut self) {
        if self.owner.ledger.gives_back(&self.keys) {
            self.owner.give_back_soon();
        }
    }
}

/// What all requests of this gateway hold, and what has yet to be given back.
#[derive(Default)]
pub(super) struct Ledger {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    held: HashMap<BucketKey, u64>,
    owed: HashMap<BucketKey, u64>,
    /// is somebody about to give back what is owed?
    asked: bool,
}

impl Ledger {
    /// Units the store has granted to one request.
    fn takes(&self, keys: &[(BucketKey, u64)]) {
        let mut books = self.books.lock();
        for (key, units) in keys {
            *books.held.entry(*key).or_default() += units;
        }
    }

    /// True: somebody is needed to tell the store.
    fn gives_back(&self, keys: &[(BucketKey, u64)]) -> bool {
        let mut books = self.books.lock();
        for (key, units) in keys {
            if let Some(held) = books.held.get_mut(key) {
                *held = held.saturating_sub(*units);
                if *held == 0 {
                    books.held.remove(key);
                }
            }
            *books.owed.entry(*key).or_default() += units;
        }
        !std::mem::replace(&mut books.asked, true)
    }

    /// What to give back now, and whether there is more.
    fn take_owed(&self, most: usize) -> (Vec<(BucketKey, u64)>, bool) {
        let mut books = self.books.lock();
        let keys: Vec<BucketKey> = books.owed.keys().take(most).copied().collect();
        let taken = keys
            .into_iter()
            .filter_map(|key| books.owed.remove_entry(&key))
            .collect();
        books.asked = !books.owed.is_empty();
        (taken, books.asked)
    }

    /// What could not be given back.
    fn still_owes(&self, owed: &[(BucketKey, u64)]) {
        let mut books = self.books.lock();
        for (key, units) in owed {
            *books.owed.entry(*key).or_default() += units;
        }
    }

    /// All that is held, and nothing of what was owed and is not held any more: the store is about
    /// to be told the whole.
    pub(super) fn held_exactly(&self) -> Vec<(BucketKey, u64)> {
        let mut books = self.books.lock();
        books.asked = false;
        let mut whole = std::mem::take(&mut books.owed);
        whole.values_mut().for_each(|units| *units = 0);
        whole.extend(&books.held);
        whole.into_iter().collect()
    }

    /// What the store was to be told exactly and was not. Buckets in which nothing is held any more
    /// would be forgotten otherwise, and their units would be back only when they expire.
    fn has_not_told(&self, whole: &[(BucketKey, u64)]) {
        let mut books = self.books.lock();
        for (key, _) in whole.iter().filter(|(_, units)| *units == 0) {
            books.owed.entry(*key).or_default();
        }
    }

    /// Nothing is held any more: this gateway stops.
    pub(super) fn lets_go(&self) {
        let mut books = self.books.lock();
        let held = std::mem::take(&mut books.held);
        for key in held.into_keys() {
            books.owed.entry(key).or_default();
        }
    }

    /// The buckets in which anything is held.
    pub(super) fn keys(&self) -> Vec<BucketKey> {
        self.books.lock().held.keys().copied().collect()
    }
}

impl Shared {
    /// The permits of a granted request; `None` where it has taken none.
    pub(super) fn permits<'a>(
        self: &Arc<Self>,
        taken: impl Iterator<Item = (&'a BucketKey, &'a Quota, u64)>,
    ) -> Option<Permits> {
        let keys: Vec<(BucketKey, u64)> = taken
            .filter(|(_, quota, cost)| quota.is_concurrency() && *cost > 0)
            .map(|(key, _, cost)| (*key, cost))
            .collect();
        if keys.is_empty() {
            return None;
        }
        self.ledger.takes(&keys);
        Some(Permits {
            owner: self.clone(),
            keys,
        })
    }

    /// Tells the store in the background. Where that is not done any more, the units come back by
    /// themselves.
    fn give_back_soon(self: &Arc<Self>) {
        self.spawn(self.clone().give_back());
    }

    async fn give_back(self: Arc<Self>) {
        let _under_way = UnderWay::begin(&self);
        // others that end in this turn of the store's runtime go along
        tokio::task::yield_now().await;
        loop {
            let (owed, more) = self.ledger.take_owed(self.at_once(MOST));
            if owed.is_empty() {
                return;
            }
            if let Err(error) = self.release(&owed).await {
                // nobody knows whether it was done: recovery tells the store the whole
                self.ledger.still_owes(&owed);
                return self.trip(&error.to_string());
            }
            if !more {
                return;
            }
        }
    }

    /// Gives back units of `concurrency` buckets.
    async fn release(&self, owed: &[(BucketKey, u64)]) -> Result<(), CallFailed> {
        let prefix = self.prefix_of(owed.first().map(|(key, _)| key));
        let call = wire::release(&self.frame(), &prefix, owed);
        self.link.call(&call).await.map(drop)
    }

    /// Keeps what requests hold from expiring; how much that is, the store has counted itself.
    pub(super) async fn renew(&self) -> Result<(), CallFailed> {
        for keys in self.ledger.keys().chunks(self.at_once(MOST)) {
            let prefix = self.prefix_of(keys.first());
            let call = wire::keep(&self.frame(), &prefix, keys);
            self.link.call(&call).await?;
        }
        Ok(())
    }

    /// Tells the store exactly what requests hold, while it is asked for nothing else.
    pub(super) async fn hold_exactly(&self) -> Result<(), CallFailed> {
        let whole = self.ledger.held_exactly();
        let at_once = self.at_once(MOST);
        for (nth, held) in whole.chunks(at_once).enumerate() {
            let prefix = self.prefix_of(held.first().map(|(key, _)| key));
            let call = wire::renew(&self.frame(), &prefix, held);
            if let Err(error) = self.link.call(&call).await {
                let untold = whole.get(nth * at_once..).unwrap_or_default();
                self.ledger.has_not_told(untold);
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::descriptor::KeyWriter;

    #[test]
    fn what_the_store_could_not_be_told_exactly_is_told_again() {
        let ledger = Ledger::default();
        let [held, ended] = ["held", "ended"].map(|name| KeyWriter::new(b'c', name).finish());
        ledger.takes(&[(held, 2), (ended, 1)]);
        assert!(ledger.gives_back(&[(ended, 1)]), "somebody is needed");
        let sorted = |mut whole: Vec<(BucketKey, u64)>| {
            whole.sort_by_key(|(_, units)| *units);
            whole
        };
        let whole = sorted(ledger.held_exactly());
        assert_eq!(whole, [(ended, 0), (held, 2)]);
        ledger.has_not_told(&whole);
        assert_eq!(sorted(ledger.held_exactly()), whole);
        assert_eq!(ledger.held_exactly(), [(held, 2)], "told once");
    }
}
