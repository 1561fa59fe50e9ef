//! Decisions while the shared store does not answer: by this gateway alone, and what is owed for
//! them afterwards.
//!
//! With `local`, a bucket holds this gateway's [share](Quota::share) of the quota and starts as
//! full as the store's was last seen. What is admitted meanwhile is kept by name, so that what a
//! bucket still holds when the store is back can be charged to it.

use super::algorithm::{Answer, Reading};
use super::decision::{BucketDecision, Charge, Decision, OutageMode, Source};
use super::descriptor::BucketKey;
use super::estimate::Estimate;
use super::quota::{Quota, State};
use super::store::memory::{MemoryStore, Put};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a policy with `deny` asks clients to wait, microseconds.
const DENIED_US: u64 = 1_000_000;

/// Sweeps after which keys are counted anew.
const CROWD_TURNS: usize = 256;

/// Buckets of this gateway alone.
pub struct Outage {
    /// what the store was last seen to hold
    seen: MemoryStore,
    /// what decides during an outage
    local: MemoryStore,
    books: Mutex<Books>,
    max_keys: usize,
    /// were all exact buckets taken at the last sweep?
    full: AtomicBool,
    /// tells cold keys from others once the exact buckets are all taken
    crowd: Estimate,
}

#[derive(Default)]
struct Books {
    owed: HashMap<BucketKey, Owed>,
}

/// What a bucket held when this gateway began to decide alone, or was last settled. What it holds
/// more by now was admitted without the store.
struct Owed {
    whole: Quota,
    share: Quota,
    /// `None`: it has not decided in this outage yet
    before: Option<State>,
    /// units that were admitted beside the bucket's own count, or could not be settled
    extra: u64,
}

/// Units admitted during an outage that a bucket still holds.
pub struct Debt {
    /// which bucket
    pub key: BucketKey,
    /// by which quota
    pub quota: Quota,
    /// how many units
    pub units: u64,
    /// the bucket at that time
    held: Option<State>,
    /// those of them that no bucket has counted
    extra: u64,
}

impl Books {
    /// Units a share cannot count because one request takes more than it can hold.
    fn owe_extra(&mut self, charge: &Charge<'_>, counted: u64) {
        if charge.cost > counted
            && let Some(owed) = self.owed.get_mut(&charge.key)
        {
            owed.extra = owed.extra.saturating_add(charge.cost - counted);
        }
    }
}

impl Owed {
    /// What the bucket holds more than before.
    fn units(&self, held: Option<&State>, now_us: u64) -> u64 {
        let more = match (held, &self.before) {
            (Some(held), Some(before)) => {
                let before = self.share.used(before, now_us);
                self.share.used(held, now_us).saturating_sub(before)
            }
            _ => 0,
        };
        (more + self.extra).min(self.whole.capacity())
    }
}

impl Outage {
    /// Exact for `max_keys` buckets; of more, those nearest to empty are forgotten.
    pub fn new(max_keys: usize) -> Self {
        Outage {
            seen: MemoryStore::new(max_keys),
            local: MemoryStore::new(max_keys),
            books: Mutex::default(),
            max_keys,
            full: AtomicBool::new(false),
            crowd: Estimate::default(),
        }
    }

    /// Remembers what the store holds for these buckets.
    pub fn saw<'a>(&self, buckets: impl Iterator<Item = Put<'a>>) {
        self.seen
            .put(buckets.filter(|put| !put.quota.is_concurrency()));
    }

    /// Forgets a bucket: it was reset.
    pub fn forget(&self, key: &BucketKey) {
        self.seen.forget(key);
        self.local.forget(key);
        self.books.lock().owed.remove(key);
    }

    /// Decides alone, as one of `gateways`.
    pub fn decide(&self, charges: &[Charge<'_>], gateways: u64, now_us: u64) -> Decision {
        let denied =
            |charge: &Charge<'_>| charge.enforce && charge.terms.on_outage == OutageMode::Deny;
        if charges.iter().any(denied) {
            let mut decision = answered(charges, denied, now_us);
            decision.source = Source::Denied;
            return decision;
        }
        let shares: SmallVec<[Option<Quota>; 4]> = charges
            .iter()
            .map(|charge| {
                let local = charge.terms.on_outage == OutageMode::Local;
                let share = local.then(|| charge.quota.share(gateways))?;
                (!self.is_cold_in_a_crowd(charge, &share)).then_some(share)
            })
            .collect();
        let mut local: SmallVec<[Charge<'_>; 4]> = SmallVec::new();
        for (charge, share) in charges.iter().zip(&shares) {
            if let Some(share) = share {
                self.seed(charge, share, now_us);
                // what the share can never hold, though the whole could, takes all of it
                let cost = if charge.cost <= charge.quota.capacity() {
                    charge.cost.min(share.capacity())
                } else {
                    charge.cost
                };
                local.push(Charge {
                    quota: share,
                    cost,
                    ..*charge
                });
            }
        }
        // one lock for all of it: whoever closes the books has seen a charge, or comes before it
        let mut books = self.books.lock();
        for (charge, share) in charges.iter().zip(&shares) {
            if let Some(share) = share {
                self.open(&mut books, charge, share);
            }
        }
        let decided = self.local.spend(&local, now_us);
        let mut answers = decided.buckets.iter();
        let mut decision = answered(charges, |_| false, now_us);
        decision.allowed = decided.allowed;
        let mut counted = local.iter();
        for ((bucket, charge), share) in decision.buckets.iter_mut().zip(charges).zip(&shares) {
            if share.is_none() {
                continue;
            }
            let (Some(answer), Some(counted)) = (answers.next(), counted.next()) else {
                continue;
            };
            *bucket = *answer;
            if decided.allowed && answer.answer.admits() {
                books.owe_extra(charge, counted.cost);
            }
        }
        decision
    }

    /// Once all exact buckets are taken, a key that was surely not seen often is admitted without
    /// one, so that a spray of keys pushes nobody out; one that may have been gets the place of the
    /// emptiest.
    fn is_cold_in_a_crowd(&self, charge: &Charge<'_>, share: &Quota) -> bool {
        self.full.load(Ordering::Relaxed)
            && self.local.state(&charge.key).is_none()
            && self.crowd.count(charge.key, charge.cost) <= share.capacity()
    }

    /// A bucket starts as full as the store's was seen, and with what this gateway has admitted
    /// without it and the store does not know yet.
    fn seed(&self, charge: &Charge<'_>, share: &Quota, now_us: u64) {
        if self.local.state(&charge.key).is_some() {
            return;
        }
        let books = self.books.lock();
        let owed = books.owed.get(&charge.key).map_or(0, |owed| owed.extra);
        drop(books);
        let seen = self.seen.state(&charge.key);
        if seen.is_none() && owed == 0 {
            return;
        }
        let mut seeded = match seen {
            Some(state) => share.seeded(charge.quota, &state, now_us),
            None => share.empty(),
        };
        share.charge(&mut seeded, now_us, owed);
        self.local.put(std::iter::once(Put {
            key: &charge.key,
            quota: share,
            state: seeded,
            now_us,
        }));
    }

    /// Opens the books of a bucket: what it holds before this gateway admits anything alone.
    fn open(&self, books: &mut Books, charge: &Charge<'_>, share: &Quota) {
        if charge.cost == 0 || charge.quota.is_concurrency() {
            return;
        }
        let full = books.owed.len() >= self.max_keys;
        let owed = match books.owed.entry(charge.key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if full => return,
            Entry::Vacant(new) => new.insert(Owed {
                whole: charge.quota.clone(),
                share: share.clone(),
                before: None,
                extra: 0,
            }),
        };
        if owed.before.is_none() {
            let before = self.local.state(&charge.key);
            owed.before = Some(before.unwrap_or_else(|| share.empty()));
            owed.share = share.clone();
        }
    }

    /// Gives back units of a `concurrency` bucket that were taken during an outage.
    pub fn release(&self, key: &BucketKey, cost: u64) {
        self.local.release(key, cost);
    }

    /// An outage begins. What a bucket was admitted with at a deadline missed before is kept as a
    /// debt; it decides from what the store has since been seen to hold.
    pub fn begin(&self, now_us: u64) {
        let mut books = self.books.lock();
        for (key, owed) in &mut books.owed {
            owed.extra = owed.units(self.local.state(key).as_ref(), now_us);
            owed.before = None;
            self.local.forget(key);
        }
    }

    /// Has anything been admitted without the store?
    pub fn owes(&self) -> bool {
        !self.books.lock().owed.is_empty()
    }

    /// What is still held of the units admitted so far, for the store to be charged with. The
    /// local buckets go on deciding until [`Outage::end`].
    pub fn debts(&self, now_us: u64) -> Vec<Debt> {
        self.debts_in(&self.books.lock(), now_us)
    }

    fn debts_in(&self, books: &Books, now_us: u64) -> Vec<Debt> {
        let debts = books.owed.iter().filter_map(|(key, owed)| {
            let held = self.local.state(key);
            let units = owed.units(held.as_ref(), now_us);
            (units > 0).then(|| Debt {
                key: *key,
                quota: owed.whole.clone(),
                units,
                held,
                extra: owed.extra,
            })
        });
        debts.collect()
    }

    /// The store has been charged with these.
    pub fn settled(&self, debts: Vec<Debt>) {
        let mut books = self.books.lock();
        for debt in debts {
            if let Some(owed) = books.owed.get_mut(&debt.key) {
                owed.before = owed.before.take().and(debt.held);
                owed.extra = owed.extra.saturating_sub(debt.extra);
            }
        }
    }

    /// The outage is over: what was admitted since the debts were settled. The local buckets start
    /// anew next time.
    pub fn end(&self, now_us: u64) -> Vec<Debt> {
        // what is admitted between looking and forgetting would be owed by nobody
        let mut books = self.books.lock();
        let debts = self.debts_in(&books, now_us);
        for key in std::mem::take(&mut books.owed).into_keys() {
            self.local.forget(&key);
        }
        debts
    }

    /// Debts that could not be settled at the end.
    pub fn still_owes(&self, debts: impl Iterator<Item = Debt>) {
        let mut books = self.books.lock();
        for debt in debts {
            let owed = books.owed.entry(debt.key).or_insert_with(|| Owed {
                share: debt.quota.clone(),
                before: None,
                whole: debt.quota,
                extra: 0,
            });
            owed.extra = owed.extra.saturating_add(debt.units);
        }
    }

    /// Buckets held during an outage.
    pub fn len(&self) -> usize {
        self.local.len()
    }

    /// Is none held?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what is empty again, a part at each `turn`.
    pub fn sweep(&self, turn: usize, now_us: u64) {
        self.seen.sweep(turn, now_us);
        self.local.sweep(turn, now_us);
        let full = self.local.len() >= self.max_keys / 8 * 7;
        self.full.store(full, Ordering::Relaxed);
        if turn.is_multiple_of(CROWD_TURNS) {
            self.crowd.start_over();
        }
    }
}

/// Every charge admitted but those that are refused; nobody has counted, so nothing is known of
/// what is left.
fn answered(
    charges: &[Charge<'_>],
    refused: impl Fn(&Charge<'_>) -> bool,
    now_us: u64,
) -> Decision {
    let bucket = |charge: &Charge<'_>| BucketDecision {
        answer: if refused(charge) {
            Answer::Refuse {
                retry_after_us: Some(DENIED_US),
            }
        } else {
            Answer::NOW
        },
        reading: Reading::default(),
        counted: false,
    };
    Decision {
        allowed: !charges.iter().any(&refused),
        buckets: charges.iter().map(bucket).collect(),
        now_us,
        source: Source::Outage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::decision::Terms;
    use crate::limit::descriptor::KeyWriter;

    /// Five units of ten, of which a share among four can hold two.
    fn five(quota: &Quota) -> Charge<'_> {
        Charge {
            key: KeyWriter::new(b't', "p").finish(),
            quota,
            cost: 5,
            enforce: true,
            terms: Terms::STRICT,
        }
    }

    #[test]
    fn what_is_admitted_while_debts_are_being_settled_is_owed_as_well() {
        let quota = Quota::token_bucket(10, 3_600_000_000, None).unwrap();
        let outage = Outage::new(100);
        assert!(outage.decide(&[five(&quota)], 4, 1).allowed);
        let debts = outage.debts(1);
        assert_eq!(debts.iter().map(|debt| debt.units).sum::<u64>(), 5);
        // the share is whole again when the next one comes, the debt is on its way to the store
        let later_us = 4 * 3_600_000_000;
        assert!(outage.decide(&[five(&quota)], 4, later_us).allowed);
        outage.settled(debts);
        let rest = outage.end(later_us);
        assert_eq!(rest.iter().map(|debt| debt.units).sum::<u64>(), 5);
        assert!(!outage.owes() && outage.is_empty());
    }

    #[test]
    fn every_unit_admitted_is_owed_however_often_the_books_are_closed_meanwhile() {
        let quota = Quota::token_bucket(1_000_000, 3_600_000_000, None).unwrap();
        let outage = Outage::new(100);
        let charge = Charge {
            cost: 1,
            ..five(&quota)
        };
        let units = |debts: Vec<Debt>| debts.iter().map(|debt| debt.units).sum::<u64>();
        let mut owed = 0;
        std::thread::scope(|scope| {
            let requests = scope.spawn(|| {
                for _ in 0..20_000 {
                    assert!(outage.decide(&[charge], 1, 1).allowed);
                }
            });
            while !requests.is_finished() {
                owed += units(outage.end(1));
            }
        });
        assert_eq!(owed + units(outage.end(1)), 20_000);
    }
}
