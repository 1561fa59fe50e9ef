//! Group commit: who waits for the same bucket set shares one call.
//!
//! A set with no call in flight is ready at once; what arrives while its call is in flight gathers
//! into its next one. No timer is involved. This file is the book-keeping only; who makes the calls
//! is told when one is needed.

use super::decision::Decision;
use super::shared::Permits;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Shards of the table of lines.
const SHARDS: usize = 16;

/// Most requests of one set in one call; the rest goes into its next.
const MAX_REQUESTS: usize = 1_024;

/// A bucket set: a keyed hash of its keys, costs and quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u128);

/// What a waiting request is told.
pub enum Verdict {
    /// the store has decided; what the request holds until it ends
    Decided(Decision, Option<Permits>),
    /// there was no answer in time
    Unavailable,
}

/// A request that waits.
pub struct Waiter {
    /// where its verdict goes
    pub answer: oneshot::Sender<Verdict>,
    /// when it stops waiting
    pub deadline: Instant,
}

/// A set whose turn it is, with everybody who has come so far.
pub struct Turn<B> {
    /// which set
    pub id: SetId,
    /// its buckets
    pub buckets: Arc<B>,
    /// who waits, in the order of arrival; none: only a lease is wanted
    pub waiters: Vec<Waiter>,
}

/// Everybody who waits, by bucket set. `B` describes the buckets of a set.
pub struct Lines<B> {
    shards: [Mutex<Table<Line<B>>>; SHARDS],
    ready: Mutex<Ready>,
}

struct Line<B> {
    buckets: Arc<B>,
    waiters: Vec<Waiter>,
}

#[derive(Default)]
struct Ready {
    sets: VecDeque<SetId>,
    /// has a caller been asked for that has not yet taken its turns?
    asked: bool,
}

/// Ids are hashes already.
#[derive(Default)]
pub(super) struct AsItIs(u64);

/// What is kept by set.
pub(super) type Table<V> = HashMap<u128, V, BuildHasherDefault<AsItIs>>;

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

impl<B> Default for Lines<B> {
    fn default() -> Self {
        Lines {
            shards: std::array::from_fn(|_| Mutex::default()),
            ready: Mutex::default(),
        }
    }
}

impl<B> Lines<B> {
    /// Joins the line of a set; without a waiter, only makes sure that a call will be made. True:
    /// a caller is needed.
    pub fn join(&self, id: SetId, buckets: impl FnOnce() -> B, waiter: Option<Waiter>) -> bool {
        let mut shard = self.shard(id).lock();
        if let Some(line) = shard.get_mut(&id.0) {
            line.waiters.extend(waiter);
            return false;
        }
        shard.insert(
            id.0,
            Line {
                buckets: Arc::new(buckets()),
                waiters: waiter.into_iter().collect(),
            },
        );
        drop(shard);
        self.is_ready(id)
    }

    /// The sets whose turn it is, at most `most`, and whether another caller is needed for more.
    pub fn take(&self, most: usize) -> (Vec<Turn<B>>, bool) {
        let (ids, more) = {
            let mut ready = self.ready.lock();
            let taken = most.min(ready.sets.len());
            let ids: Vec<SetId> = ready.sets.drain(..taken).collect();
            ready.asked = !ready.sets.is_empty();
            (ids, ready.asked)
        };
        let turn = |id: SetId| {
            let mut shard = self.shard(id).lock();
            let line = shard.get_mut(&id.0)?;
            // as it is, but for a line that is too long for one call
            let rest = line.waiters.split_off(line.waiters.len().min(MAX_REQUESTS));
            Some(Turn {
                id,
                buckets: line.buckets.clone(),
                waiters: std::mem::replace(&mut line.waiters, rest),
            })
        };
        (ids.into_iter().filter_map(turn).collect(), more)
    }

    /// The call of a set is over. True: others have come meanwhile and a caller is needed.
    pub fn done(&self, id: SetId) -> bool {
        let mut shard = self.shard(id).lock();
        if shard.get(&id.0).is_none_or(|line| line.waiters.is_empty()) {
            shard.remove(&id.0);
            return false;
        }
        drop(shard);
        self.is_ready(id)
    }

    /// Takes those out of a line who have waited long enough.
    pub fn expired(&self, id: SetId, now: Instant) -> Vec<Waiter> {
        let mut shard = self.shard(id).lock();
        let Some(line) = shard.get_mut(&id.0) else {
            return Vec::new();
        };
        let due = line
            .waiters
            .partition_point(|waiter| waiter.deadline <= now);
        line.waiters.drain(..due).collect()
    }

    /// When the first in a line stops waiting.
    pub fn next_deadline(&self, id: SetId) -> Option<Instant> {
        let shard = self.shard(id).lock();
        let first = shard.get(&id.0)?.waiters.first()?;
        Some(first.deadline)
    }

    fn is_ready(&self, id: SetId) -> bool {
        let mut ready = self.ready.lock();
        ready.sets.push_back(id);
        !std::mem::replace(&mut ready.asked, true)
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn shard(&self, id: SetId) -> &Mutex<Table<Line<B>>> {
        &self.shards[(id.0 >> 64) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn waiter(after_ms: u64) -> (Option<Waiter>, oneshot::Receiver<Verdict>) {
        let (answer, receiver) = oneshot::channel();
        let deadline = Instant::now() + Duration::from_millis(after_ms);
        (Some(Waiter { answer, deadline }), receiver)
    }

    fn sizes(turns: &[Turn<&'static str>]) -> Vec<(u128, usize)> {
        turns
            .iter()
            .map(|turn| (turn.id.0, turn.waiters.len()))
            .collect()
    }

    #[test]
    fn what_arrives_during_a_call_gathers_into_the_next_one() {
        let lines = Lines::default();
        assert!(lines.join(SetId(1), || "one", waiter(9).0), "the first");
        assert!(
            !lines.join(SetId(1), || "one", waiter(9).0),
            "already asked"
        );
        assert!(
            !lines.join(SetId(2), || "two", waiter(9).0),
            "the same call"
        );
        let (turns, more) = lines.take(16);
        assert_eq!((sizes(&turns), more), (vec![(1, 2), (2, 1)], false));
        for _ in 0..3 {
            assert!(!lines.join(SetId(1), || "one", waiter(9).0), "in flight");
        }
        assert!(lines.take(16).0.is_empty());
        assert!(!lines.done(SetId(2)), "nobody came");
        assert!(lines.done(SetId(1)));
        assert_eq!(sizes(&lines.take(16).0), [(1, 3)]);
        assert!(!lines.done(SetId(1)));
        assert!(lines.join(SetId(1), || "one", None), "idle again");
        assert_eq!(sizes(&lines.take(16).0), [(1, 0)]);
    }

    #[test]
    fn more_sets_than_fit_one_call_need_another_caller() {
        let lines = Lines::default();
        for id in 0..20 {
            lines.join(SetId(id), || "", waiter(9).0);
        }
        let (turns, more) = lines.take(16);
        assert_eq!((turns.len(), more), (16, true));
        let (turns, more) = lines.take(16);
        assert_eq!((turns.len(), more), (4, false));
    }

    #[test]
    fn who_has_waited_long_enough_leaves_the_line() {
        let lines = Lines::default();
        lines.join(SetId(1), || "", waiter(0).0);
        lines.join(SetId(1), || "", waiter(60_000).0);
        let soon = Instant::now() + Duration::from_millis(1);
        assert_eq!(lines.expired(SetId(1), soon).len(), 1);
        assert!(lines.next_deadline(SetId(1)).unwrap() > soon);
        assert!(lines.expired(SetId(1), soon).is_empty());
    }
}
