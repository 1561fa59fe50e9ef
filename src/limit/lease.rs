//! Leases: units of a hot bucket set taken in advance, served without asking the store.
//!
//! They are charged in the store already, so the only thing that can go wrong is that the refill
//! earned while they lie here comes back with a refund. The cap on what a gateway holds per bucket
//! bounds that: `rate * ttl / gateways` units, old and renewed leases together.

mod pause;

pub use pause::Pause;

use super::batch::{SetId, Table};
use super::descriptor::BucketKey;
use crate::telemetry::LeaseTally;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shards of the table of sets.
const SHARDS: usize = 16;

/// Most hot sets in one shard.
const PER_SHARD: usize = 1_024;

/// Least time between two calls for the sake of a lease: 15 a second. With those that hand back what
/// is left, of all sets together, a hot set costs 25 calls a second at most.
pub const BETWEEN_US: u64 = 66_000;

/// A set nobody asked for in so long is not hot any more.
const IDLE_US: u64 = 1_000_000;

/// Hot sets and what this gateway holds of them. Times are microseconds on a clock that never steps.
pub struct Leases<G> {
    shards: [Mutex<Table<Hot<G>>>; SHARDS],
    /// units promised to live leases, by bucket
    reserved: Mutex<HashMap<BucketKey, Held>>,
    /// leases, the next to end first
    ends: Mutex<BinaryHeap<Reverse<(u64, SetId)>>>,
    /// counts resets, so that a reply to an older call is recognised
    resets: AtomicU64,
}

/// Units of one bucket that are promised to live leases.
struct Held {
    units: u64,
    tally: Option<LeaseTally>,
}

struct Hot<G> {
    /// oldest first
    leases: SmallVec<[Lease<G>; 2]>,
    /// no more is taken until then
    pause: Option<Pause<G>>,
    /// when a call was last made for it
    asked_us: u64,
    /// requests since `since_us`, and in the time before
    requests: u64,
    since_us: u64,
    before: u64,
    last_us: u64,
}

/// Units taken in advance. `G` is the store's word about them.
pub struct Lease<G> {
    /// requests it was for, when last asked for more
    pub size: u64,
    /// requests that may still be served
    pub left: u64,
    /// the number the next of them has in the store's reply
    pub next: u64,
    /// when it ends
    pub ends_us: u64,
    /// units reserved for it, by bucket
    pub reserved: Reserved,
    /// what the store said
    pub granted: Arc<G>,
}

/// Units by bucket.
pub type Reserved = SmallVec<[(BucketKey, u64); 2]>;

/// A request served from a lease.
pub struct Served<G> {
    /// which of the granted requests it is
    pub nth: u64,
    /// what the store said
    pub granted: Arc<G>,
    /// is it time to ask for more?
    pub renew: bool,
}

/// What a bucket may lend.
#[derive(Clone)]
pub struct Cap {
    /// which bucket
    pub key: BucketKey,
    /// most units this gateway may hold of it
    pub units: u64,
    /// units one request takes
    pub cost: u64,
    /// where those held are added up
    pub tally: Option<LeaseTally>,
}

impl<G> Default for Leases<G> {
    fn default() -> Self {
        Leases {
            shards: std::array::from_fn(|_| Mutex::default()),
            reserved: Mutex::default(),
            ends: Mutex::default(),
            resets: AtomicU64::new(0),
        }
    }
}

impl<G> Leases<G> {
    /// Serves a request of a set, if a lease can.
    pub fn serve(&self, id: SetId, now_us: u64, ttl_us: u64) -> Option<Served<G>> {
        let mut shard = self.shard(id).lock();
        let hot = shard.get_mut(&id.0)?;
        hot.counts(now_us, ttl_us);
        let (nth, granted, nearly_over) = hot.take(now_us, ttl_us)?;
        let renew = nearly_over && now_us.saturating_sub(hot.asked_us) >= BETWEEN_US;
        if renew {
            hot.asked_us = now_us;
        }
        Some(Served {
            nth,
            granted,
            renew,
        })
    }

    /// The same for a request that was counted when it came and has waited since; it asks for no more.
    pub fn serve_waiting(&self, id: SetId, now_us: u64, ttl_us: u64) -> Option<(u64, Arc<G>)> {
        let mut shard = self.shard(id).lock();
        let (nth, granted, _) = shard.get_mut(&id.0)?.take(now_us, ttl_us)?;
        Some((nth, granted))
    }

    /// A set that is not cold: from now on its calls ask for leases.
    pub fn is_hot(&self, id: SetId, now_us: u64) {
        let mut shard = self.shard(id).lock();
        if shard.len() < PER_SHARD {
            shard.entry(id.0).or_insert_with(|| Hot {
                leases: SmallVec::new(),
                pause: None,
                asked_us: 0,
                requests: 1,
                since_us: now_us,
                before: 0,
                last_us: now_us,
            });
        }
    }

    /// How many requests to ask for in a call that is about to be made, and the units that reserves.
    /// About what the set will want in a `ttl_us` beyond what it has, within every bucket's cap.
    pub fn wish(&self, id: SetId, now_us: u64, ttl_us: u64, caps: &[Cap]) -> (u64, Reserved) {
        let mut shard = self.shard(id).lock();
        let Some(hot) = shard.get_mut(&id.0) else {
            return (0, Reserved::new());
        };
        hot.asked_us = now_us;
        let used = hot.keeps_what_is_left();
        let demand = hot.demand(now_us, ttl_us).saturating_sub(hot.left(now_us));
        drop(shard);
        self.unreserve(&used);
        let mut reserved = self.reserved.lock();
        let room = |cap: &Cap| {
            let held = reserved.get(&cap.key).map_or(0, |held| held.units);
            cap.units.saturating_sub(held) / cap.cost.max(1)
        };
        let wish = caps.iter().map(room).min().unwrap_or(0).min(demand);
        if wish == 0 {
            return (0, Reserved::new());
        }
        for cap in caps {
            let held = reserved.entry(cap.key).or_insert_with(|| Held {
                units: 0,
                tally: cap.tally.clone(),
            });
            held.units += wish * cap.cost;
            if let Some(tally) = &held.tally {
                tally.takes(wish * cap.cost, held.units);
            }
        }
        let units = caps.iter().map(|cap| (cap.key, wish * cap.cost));
        (wish, units.collect())
    }

    /// Units that were reserved and are not held any more.
    pub fn unreserve(&self, units: &[(BucketKey, u64)]) {
        if units.is_empty() {
            return;
        }
        let mut reserved = self.reserved.lock();
        for (key, units) in units {
            if let Some(held) = reserved.get_mut(key) {
                let units = held.units.min(*units);
                held.units -= units;
                if let Some(tally) = &held.tally {
                    tally.lets_go(units);
                }
                if held.units == 0 {
                    reserved.remove(key);
                }
            }
        }
    }

    /// A lease begins; it is returned where the set is not hot any more.
    pub fn begins(&self, id: SetId, lease: Lease<G>) -> Option<Lease<G>> {
        let mut shard = self.shard(id).lock();
        let Some(hot) = shard.get_mut(&id.0) else {
            return Some(lease);
        };
        let ends_us = lease.ends_us;
        hot.leases.push(lease);
        drop(shard);
        self.ends.lock().push(Reverse((ends_us, id)));
        None
    }

    /// Leases that have ended. Their reservations are lifted; what is left in them is to be handed
    /// back. Sets nobody wants any more are forgotten.
    pub fn ended(&self, now_us: u64) -> Vec<Lease<G>> {
        let mut ended = Vec::new();
        while let Some(id) = self.next_end(now_us) {
            let mut shard = self.shard(id).lock();
            let Some(hot) = shard.get_mut(&id.0) else {
                continue;
            };
            let (over, live) = std::mem::take(&mut hot.leases)
                .into_iter()
                .partition::<SmallVec<[Lease<G>; 2]>, _>(|lease| lease.ends_us <= now_us);
            hot.leases = live;
            if hot.leases.is_empty() && now_us.saturating_sub(hot.last_us) > IDLE_US {
                shard.remove(&id.0);
            }
            drop(shard);
            for lease in over {
                self.unreserve(&lease.reserved);
                ended.push(lease);
            }
        }
        ended
    }

    fn next_end(&self, now_us: u64) -> Option<SetId> {
        let mut ends = self.ends.lock();
        let Reverse((ends_us, id)) = *ends.peek()?;
        if ends_us > now_us {
            return None;
        }
        ends.pop();
        Some(id)
    }

    /// Drops the leases that hold units of a bucket: it was reset, so there is nothing to hand back,
    /// and more may be taken.
    pub fn forget(&self, key: &BucketKey) {
        self.resets.fetch_add(1, Ordering::Relaxed);
        for shard in &self.shards {
            for hot in shard.lock().values_mut() {
                hot.pause = None;
                hot.leases.retain(|lease| {
                    let holds = lease.reserved.iter().any(|(held, _)| held == key);
                    if holds {
                        self.unreserve(&lease.reserved);
                    }
                    !holds
                });
            }
        }
    }

    /// All leases, to be handed back: this gateway stops.
    pub fn take_all(&self) -> Vec<Lease<G>> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            for hot in shard.lock().values_mut() {
                taken.extend(hot.leases.drain(..));
            }
        }
        for lease in &taken {
            self.unreserve(&lease.reserved);
        }
        taken
    }

    /// How many resets there have been.
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Forgets sets that have no lease and that nobody has asked for lately.
    pub fn sweep(&self, turn: usize, now_us: u64) {
        if let Some(shard) = self.shards.get(turn % SHARDS) {
            shard.lock().retain(|_, hot| {
                !hot.leases.is_empty() || now_us.saturating_sub(hot.last_us) <= IDLE_US
            });
        }
    }

    /// Units held in advance, over all buckets.
    pub fn reserved(&self) -> u64 {
        self.reserved.lock().values().map(|held| held.units).sum()
    }

    /// Is nothing hot?
    pub fn is_empty(&self) -> bool {
        self.ends.lock().is_empty()
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn shard(&self, id: SetId) -> &Mutex<Table<Hot<G>>> {
        &self.shards[(id.0 >> 64) as usize % SHARDS]
    }
}

impl<G> Hot<G> {
    /// A unit in hand, and whether that was of the last lease and this one is nearly over.
    fn take(&mut self, now_us: u64, ttl_us: u64) -> Option<(u64, Arc<G>, bool)> {
        let live = |lease: &Lease<G>| lease.left > 0 && lease.ends_us > now_us;
        let current = self.leases.iter().position(live)?;
        let is_last = current + 1 == self.leases.len();
        let lease = self.leases.get_mut(current)?;
        let nth = lease.next;
        lease.next += 1;
        lease.left -= 1;
        // half of it used, or the other half of its life left
        let nearly_over =
            lease.left * 2 < lease.size || lease.ends_us.saturating_sub(now_us) < ttl_us / 2;
        Some((nth, lease.granted.clone(), is_last && nearly_over))
    }

    fn counts(&mut self, now_us: u64, ttl_us: u64) {
        let elapsed = now_us.saturating_sub(self.since_us);
        if elapsed >= ttl_us {
            self.before = if elapsed < 2 * ttl_us {
                self.requests
            } else {
                0
            };
            self.requests = 0;
            self.since_us = now_us;
        }
        self.requests += 1;
        self.last_us = now_us;
    }

    /// Units that have been served are not held any more: the reservations that can be lifted.
    fn keeps_what_is_left(&mut self) -> Reserved {
        let mut lifted = Reserved::new();
        for lease in &mut self.leases {
            let size = lease.size.max(1);
            for (key, units) in &mut lease.reserved {
                let kept = *units / size * lease.left;
                lifted.push((*key, *units - kept));
                *units = kept;
            }
            lease.size = lease.left;
        }
        lifted
    }

    /// Requests that live leases can still serve.
    fn left(&self, now_us: u64) -> u64 {
        let live = self.leases.iter().filter(|lease| lease.ends_us > now_us);
        live.map(|lease| lease.left).sum()
    }

    /// Requests in a `ttl_us`, judged by the last and the present one, and a quarter more.
    fn demand(&mut self, now_us: u64, ttl_us: u64) -> u64 {
        let elapsed = now_us.saturating_sub(self.since_us).clamp(1, ttl_us);
        // a window that has just begun says nothing yet
        let present = if elapsed * 4 >= ttl_us {
            self.requests * ttl_us / elapsed
        } else {
            self.requests
        };
        let requests = present.max(self.before);
        requests + requests / 4 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::descriptor::KeyWriter;

    const SET: SetId = SetId(7 << 64 | 7);
    const TTL_US: u64 = 100_000;

    fn cap(units: u64) -> Cap {
        Cap {
            key: KeyWriter::new(b't', "p").finish(),
            units,
            cost: 1,
            tally: None,
        }
    }

    fn hot() -> Leases<&'static str> {
        let leases = Leases::default();
        leases.is_hot(SET, 0);
        leases
    }

    fn lease(size: u64, ends_us: u64, reserved: Reserved) -> Lease<&'static str> {
        Lease {
            size,
            left: size,
            next: 3,
            ends_us,
            reserved,
            granted: Arc::new("said"),
        }
    }

    /// As many requests as come in a millisecond, for some time.
    fn demand(leases: &Leases<&'static str>, from_us: u64, milliseconds: u64, each: u64) {
        for millisecond in 0..milliseconds {
            for _ in 0..each {
                leases.serve(SET, from_us + millisecond * 1_000, TTL_US);
            }
        }
    }

    #[test]
    fn a_set_that_pauses_takes_no_more_until_then_or_until_a_reset() {
        let leases = hot();
        let pause = || {
            Some(Pause {
                until_us: 50_000,
                scarce: SmallVec::from_slice(&[true]),
                granted: Arc::new("said"),
            })
        };
        assert!(leases.paused(SET, 0).is_none());
        leases.pause(SET, pause());
        assert_eq!(leases.paused(SET, 49_999).unwrap().until_us, 50_000);
        assert!(leases.paused(SET, 50_000).is_none());
        leases.pause(SET, None);
        assert!(leases.paused(SET, 0).is_none());
        leases.pause(SET, pause());
        leases.forget(&cap(1).key);
        assert!(leases.paused(SET, 0).is_none());
        // of a cold one nothing is kept
        leases.pause(SetId(1), pause());
        assert!(leases.paused(SetId(1), 0).is_none());
    }

    #[test]
    fn who_has_waited_is_served_without_asking_for_more() {
        let leases = hot();
        assert!(leases.serve_waiting(SET, 0, TTL_US).is_none());
        leases.begins(SET, lease(1, TTL_US, Reserved::new()));
        assert_eq!(
            leases.serve_waiting(SET, 90_000, TTL_US),
            Some((3, Arc::new("said")))
        );
        assert!(
            leases.serve_waiting(SET, 90_000, TTL_US).is_none(),
            "used up"
        );
    }

    #[test]
    fn a_cold_set_wishes_nothing_and_a_hot_one_about_what_it_will_want() {
        let leases = Leases::<&'static str>::default();
        assert_eq!(leases.wish(SET, 0, TTL_US, &[cap(1_000)]).0, 0);
        let leases = hot();
        demand(&leases, 0, 300, 2);
        let (wish, _) = leases.wish(SET, 300_000, TTL_US, &[cap(10_000)]);
        assert!(
            (200..=300).contains(&wish),
            "{wish} of 200 in a lease's life"
        );
    }

    #[test]
    fn all_leases_of_a_bucket_together_stay_below_its_cap() {
        let leases = hot();
        demand(&leases, 0, 300, 10);
        let (first, reserved) = leases.wish(SET, 300_000, TTL_US, &[cap(100)]);
        assert_eq!(first, 100);
        assert_eq!(leases.wish(SET, 300_001, TTL_US, &[cap(100)]).0, 0);
        leases.unreserve(&[(cap(0).key, 30)]);
        let (second, more) = leases.wish(SET, 300_002, TTL_US, &[cap(100)]);
        assert_eq!(second, 30);
        leases.unreserve(&more);
        leases.unreserve(&[(cap(0).key, reserved[0].1 - 30)]);
        assert_eq!(leases.reserved(), 0);
    }

    #[test]
    fn requests_are_served_in_order_until_the_lease_is_used_up_or_over() {
        let leases = hot();
        let reserved = Reserved::from_slice(&[(cap(0).key, 4)]);
        assert!(leases.begins(SET, lease(4, 100_000, reserved)).is_none());
        let nth = |now_us| leases.serve(SET, now_us, TTL_US).map(|served| served.nth);
        assert_eq!((nth(1), nth(2)), (Some(3), Some(4)));
        assert_eq!(nth(100_000), None, "it lives to its end, not longer");
        assert_eq!(nth(99_999), Some(5));
        let ended = leases.ended(100_000);
        assert_eq!((ended.len(), ended[0].left), (1, 1));
        assert!(leases.ended(200_000).is_empty() && leases.is_empty());
    }

    #[test]
    fn more_is_asked_for_before_the_end_but_not_more_than_15_times_a_second() {
        let leases = hot();
        let (mut asked, mut next_end) = (0, 0);
        for now_us in (0..1_000_000).step_by(500) {
            leases.ended(now_us);
            let served = leases.serve(SET, now_us, TTL_US);
            if served.as_ref().is_none_or(|served| served.renew) {
                // once it is known how much is wanted
                asked += u64::from(now_us > 2 * TTL_US);
                let (wish, reserved) = leases.wish(SET, now_us, TTL_US, &[cap(1_000_000)]);
                leases.begins(SET, lease(wish, now_us + TTL_US, reserved));
                next_end = now_us + TTL_US;
            }
        }
        assert!(next_end > 1_000_000);
        assert!((8..=13).contains(&asked), "{asked} calls in 800 ms");
    }

    #[test]
    fn a_gateway_that_stops_takes_all_leases_out() {
        let leases = hot();
        let (wish, reserved) = leases.wish(SET, 0, TTL_US, &[cap(10)]);
        assert!(wish > 0 && leases.reserved() == wish);
        leases.begins(SET, lease(wish, 100_000, reserved));
        assert_eq!(leases.take_all().len(), 1);
        assert_eq!(leases.reserved(), 0);
        assert!(leases.serve(SET, 1, TTL_US).is_none() && leases.ended(200_000).is_empty());
    }

    #[test]
    fn what_is_held_is_added_up_by_policy() {
        let metrics = crate::telemetry::Metrics::new().unwrap();
        let by_policy = &metrics.store.ahead.leases;
        let number = by_policy.number_of("p", 100);
        assert_eq!(
            number,
            by_policy.number_of("p", 50),
            "the same after a change"
        );
        let of_p = Cap {
            tally: by_policy.tally(number),
            ..cap(100)
        };
        let leases = hot();
        demand(&leases, 0, 300, 10);
        let (_, first) = leases.wish(SET, 300_000, TTL_US, std::slice::from_ref(&of_p));
        leases.unreserve(&[(first[0].0, 30)]);
        let (_, second) = leases.wish(SET, 300_001, TTL_US, &[of_p]);
        let says = |line: &str| {
            let text = metrics.render().unwrap();
            assert!(text.contains(line), "{line} is not in\n{text}");
        };
        says("tidegate_lease_units{policy=\"p\"} 100\n");
        leases.unreserve(&second);
        says("tidegate_lease_units{policy=\"p\"} 70\n");
        says("tidegate_lease_units_most{policy=\"p\"} 100\n");
        says("tidegate_lease_units_bound{policy=\"p\"} 50\n");
    }

    #[test]
    fn a_reset_drops_the_leases_of_the_bucket() {
        let leases = hot();
        let reserved = Reserved::from_slice(&[(cap(0).key, 4)]);
        leases.begins(SET, lease(4, 100_000, reserved));
        leases.forget(&cap(0).key);
        assert!(leases.serve(SET, 1, TTL_US).is_none());
        assert!(leases.ended(200_000).is_empty(), "nothing to hand back");
    }
}
