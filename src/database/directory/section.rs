//! What is known of keys, or of clients: those that exist and, apart, those that do not.

use super::Recalled;
use super::cache::{Cache, Entry};
use super::record::Record;
use hashbrown::{Equivalent, HashMap};
use parking_lot::Mutex;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::watch;

/// What a look-up ends with; none while it is under way.
pub(super) type Answer<R> = Option<Result<Option<Arc<R>>, super::Unavailable>>;

/// How long an answer is believed before the database is asked again in the background.
const REFRESH_US: u64 = 300_000_000;

/// How long "there is none such" is believed before the database is asked again: for a client in
/// the background, for a key while somebody waits.
const ABSENT_US: u64 = 60_000_000;

/// How long until a refresh that came to nothing is tried again.
const RETRY_US: u64 = 15_000_000;

/// Records by id.
///
/// An entry counts as known while its epoch is the section's; one of an older epoch has to be
/// asked for again, and serves only if the database does not answer. One from below the floor does
/// not serve even then: the database has answered since, and might have said something else. A
/// look-up that began before something was found to have changed must not be remembered: the
/// generation tells.
pub(super) struct Section<R: Record> {
    known: Cache<R::Id, Arc<R>>,
    absent: Cache<R::Id, ()>,
    epoch: AtomicU64,
    floor: AtomicU64,
    generation: AtomicU64,
    /// something that is known to exist is not what was saved
    has_changed: AtomicBool,
    /// where the next look at uses begins
    next_shard: AtomicUsize,
    pub(super) flights: Mutex<HashMap<R::Id, watch::Receiver<Answer<R>>>>,
}

/// What memory says, and whether the database should be asked in the background.
pub(super) struct Recollection<R> {
    pub(super) recalled: Recalled<R>,
    pub(super) is_old: bool,
}

impl<R: Record> Section<R> {
    pub(super) fn new(max_known: usize, max_absent: usize) -> Self {
        Section {
            known: Cache::new(max_known),
            absent: Cache::new(max_absent),
            epoch: AtomicU64::new(1),
            floor: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            has_changed: AtomicBool::new(false),
            next_shard: AtomicUsize::new(0),
            flights: Mutex::new(HashMap::new()),
        }
    }

    /// What is known of it, and notes that it was wanted.
    pub(super) fn recall<Q>(&self, id: &Q, now_us: u64) -> Recollection<R>
    where
        Q: Hash + Equivalent<R::Id> + ?Sized,
    {
        let epoch = self.epoch.load(Ordering::Acquire);
        let known = self.known.with(id, |entry| {
            entry.used_us = now_us;
            let is_old = now_us >= entry.refresh_at_us;
            if is_old {
                entry.refresh_at_us = now_us + RETRY_US;
            }
            let recalled = match entry.epoch == epoch {
                true if entry.value.has_expired(now_us) => Recalled::Absent,
                true => Recalled::Known(entry.value.clone()),
                false => Recalled::Unknown,
            };
            Recollection { recalled, is_old }
        });
        known.unwrap_or_else(|| {
            let absent = self.absent.with(id, |entry| {
                entry.used_us = now_us;
                let is_due = now_us >= entry.refresh_at_us;
                // nobody has to wait for what only lacks a tier
                let is_old = is_due && !R::IS_CREDENTIAL;
                if is_old {
                    entry.refresh_at_us = now_us + RETRY_US;
                }
                let recalled = match entry.epoch == epoch && (!is_due || is_old) {
                    true => Recalled::Absent,
                    false => Recalled::Unknown,
                };
                Recollection { recalled, is_old }
            });
            absent.unwrap_or(Recollection {
                recalled: Recalled::Unknown,
                is_old: false,
            })
        })
    }

    /// What is known of it, however old, unless the database could have said otherwise since.
    pub(super) fn recall_old<Q>(&self, id: &Q, now_us: u64) -> Recalled<R>
    where
        Q: Hash + Equivalent<R::Id> + ?Sized,
    {
        let floor = self.floor.load(Ordering::Acquire);
        let known = self.known.with(id, |entry| {
            (entry.epoch >= floor).then(|| entry.value.clone())
        });
        let is_absent = || self.absent.with(id, |entry| entry.epoch >= floor);
        match known.flatten() {
            Some(value) if value.has_expired(now_us) => Recalled::Absent,
            Some(value) => Recalled::Known(value),
            None if is_absent() == Some(true) => Recalled::Absent,
            None => Recalled::Unknown,
        }
    }

    /// To be asked for before a look-up, and given back with its answer.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Remembers the answer of a look-up; false: something has changed meanwhile.
    pub(super) fn put(
        &self,
        id: &R::Id,
        answer: Option<&Arc<R>>,
        generation: u64,
        now_us: u64,
    ) -> bool {
        let may = || self.generation.load(Ordering::Acquire) == generation;
        let epoch = self.epoch.load(Ordering::Acquire);
        // spread over time, so that what came at once is not asked for again at once
        let spread = fastrand::u64(0..REFRESH_US / 5);
        match answer {
            Some(value) => {
                let floor = self.floor.load(Ordering::Acquire);
                // keeps when it was wanted: a refresh is no use
                let before = self.known.with(id, |entry| {
                    let is_same = entry.epoch >= floor && entry.value == *value;
                    (entry.used_us, is_same)
                });
                let (used_us, is_same) = before.unwrap_or((now_us, false));
                let entry = Entry {
                    value: value.clone(),
                    epoch,
                    refresh_at_us: now_us + REFRESH_US - spread,
                    used_us,
                };
                let done = self.known.put_if(id.clone(), entry, may);
                if done {
                    self.absent.remove(id);
                    self.has_changed.fetch_or(!is_same, Ordering::AcqRel);
                }
                done
            }
            None => {
                let entry = Entry {
                    value: (),
                    epoch,
                    refresh_at_us: now_us + ABSENT_US,
                    used_us: self
                        .absent
                        .with(id, |entry| entry.used_us)
                        .unwrap_or(now_us),
                };
                let done = self.absent.put_if(id.clone(), entry, may);
                if done {
                    let was_known = self.known.remove(id);
                    self.has_changed.fetch_or(was_known, Ordering::AcqRel);
                }
                done
            }
        }
    }

    /// Puts a record that was saved by an earlier process: it serves only if nobody can be asked.
    pub(super) fn put_saved(&self, id: R::Id, value: R) {
        let entry = Entry {
            value: Arc::new(value),
            epoch: 0,
            refresh_at_us: 0,
            used_us: 0,
        };
        self.known.put_if(id, entry, || true);
    }

    /// These have changed: those of them that are in memory, to be asked for again at once.
    pub(super) fn changed(&self, ids: Vec<R::Id>) -> Vec<R::Id> {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let held = |id: &R::Id| {
            self.known.with(id, |_| ()).is_some() || self.absent.with(id, |_| ()).is_some()
        };
        ids.into_iter().filter(held).collect()
    }

    /// Forgets these altogether.
    pub(super) fn forget(&self, ids: &[R::Id]) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        for id in ids {
            let was_known = self.known.remove(id);
            self.absent.remove(id);
            self.has_changed.fetch_or(was_known, Ordering::AcqRel);
        }
    }

    /// Everything may have changed while nobody could tell: until it has been asked for again it
    /// serves where the database does not answer.
    pub(super) fn expire_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Many have changed, nobody knows which: nothing serves until it has been asked for again.
    pub(super) fn distrust_all(&self) {
        self.expire_all();
        self.floor.fetch_max(self.epoch(), Ordering::AcqRel);
        self.set_changed();
    }

    /// To be asked for before everything is asked for again, and given back to
    /// [`Section::settle`].
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Everything has been asked for again: what is still of an older epoch is gone.
    pub(super) fn settle(&self, epoch: u64) {
        self.floor.fetch_max(epoch, Ordering::AcqRel);
        let is_new = |of: u64| of >= epoch;
        let has_changed = self.known.retain(|entry| is_new(entry.epoch));
        self.absent.retain(|entry| is_new(entry.epoch));
        self.has_changed.fetch_or(has_changed, Ordering::AcqRel);
    }

    /// Parts to look at one after the other.
    pub(super) fn shards(&self) -> usize {
        self.known.shards()
    }

    /// Those of a part that are of an older epoch.
    pub(super) fn older_than(&self, epoch: u64, shard: usize) -> Vec<R::Id> {
        self.known
            .of_shard(shard, |id, entry| (entry.epoch < epoch).then(|| id.clone()))
    }

    /// Whether what would be saved has changed since this was last asked.
    pub(super) fn take_changed(&self) -> bool {
        self.has_changed.swap(false, Ordering::AcqRel)
    }

    /// What would be saved is not what was saved.
    pub(super) fn set_changed(&self) {
        self.has_changed.store(true, Ordering::Release);
    }

    /// What of a part may serve in an outage.
    pub(super) fn servable(&self, shard: usize) -> Vec<(R::Id, Arc<R>)> {
        let floor = self.floor.load(Ordering::Acquire);
        self.known.of_shard(shard, |id, entry| {
            (entry.epoch >= floor).then(|| (id.clone(), entry.value.clone()))
        })
    }

    /// At most so many of those that were wanted since then, and when; what was left out comes
    /// first the next time.
    pub(super) fn used_since(&self, since_us: u64, most: usize) -> Vec<(Arc<R>, u64)> {
        let count = self.known.shards();
        let first = self.next_shard.load(Ordering::Relaxed);
        let mut found = Vec::new();
        for shard in (first..first + count).map(|shard| shard % count) {
            found.extend(self.known.of_shard(shard, |_, entry| {
                (entry.used_us >= since_us).then(|| (entry.value.clone(), entry.used_us))
            }));
            if found.len() >= most {
                // this one again, unless it alone was too much
                let next = shard + usize::from(shard == first % count);
                self.next_shard.store(next, Ordering::Relaxed);
                found.truncate(most);
                break;
            }
        }
        found
    }

    /// How many are known to exist, and how many not to.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.known.len(), self.absent.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{ClientRecord, KeyRecord};
    use std::collections::HashSet;

    const SECOND: u64 = 1_000_000;

    fn acme(tier: &str) -> Arc<ClientRecord> {
        Arc::new(ClientRecord {
            id: "acme".to_owned(),
            tier: Some(tier.to_owned()),
        })
    }

    fn section() -> (Section<ClientRecord>, Arc<str>) {
        (Section::new(10, 10), Arc::from("acme"))
    }

    fn recalled(section: &Section<ClientRecord>, now_us: u64) -> Recalled<ClientRecord> {
        section.recall("acme", now_us).recalled
    }

    #[test]
    fn what_was_found_is_known_and_asked_for_again_after_five_minutes() {
        let (section, id) = section();
        assert_eq!(recalled(&section, 0), Recalled::Unknown);
        assert!(section.put(&id, Some(&acme("pro")), section.generation(), 0));
        assert_eq!(recalled(&section, 1), Recalled::Known(acme("pro")));
        assert!(!section.recall("acme", 200 * SECOND).is_old);
        assert!(section.recall("acme", 301 * SECOND).is_old);
        assert!(
            !section.recall("acme", 302 * SECOND).is_old,
            "once is enough"
        );
        assert_eq!(
            recalled(&section, 900 * SECOND),
            Recalled::Known(acme("pro"))
        );
    }

    #[test]
    fn what_does_not_exist_is_asked_for_again_after_a_minute() {
        let (section, id) = section();
        section.put(&id, None, section.generation(), 0);
        assert!(!section.recall("acme", 59 * SECOND).is_old);
        let late = section.recall("acme", 61 * SECOND);
        assert_eq!(late.recalled, Recalled::Absent, "nobody waits");
        assert!(late.is_old && !section.recall("acme", 62 * SECOND).is_old);
        section.expire_all();
        assert_eq!(recalled(&section, 62 * SECOND), Recalled::Unknown);
        assert_eq!(section.recall_old("acme", 0), Recalled::Absent);
        let keys: Section<KeyRecord> = Section::new(10, 10);
        keys.put(&[1; 32], None, keys.generation(), 0);
        let recalled = |now_us| keys.recall(&[1; 32], now_us).recalled;
        assert_eq!(recalled(59 * SECOND), Recalled::Absent);
        assert_eq!(recalled(61 * SECOND), Recalled::Unknown);
    }

    #[test]
    fn an_answer_from_before_a_change_is_not_remembered() {
        let (section, id) = section();
        let generation = section.generation();
        assert!(section.changed(vec![id.clone()]).is_empty());
        assert!(!section.put(&id, Some(&acme("pro")), generation, 0));
        assert_eq!(recalled(&section, 1), Recalled::Unknown);
        section.put(&id, Some(&acme("pro")), section.generation(), 0);
        assert_eq!(section.changed(vec![id.clone()]), std::slice::from_ref(&id));
        section.forget(&[id]);
        assert_eq!(section.recall_old("acme", 0), Recalled::Unknown);
    }

    #[test]
    fn after_everything_may_have_changed_memory_is_only_a_last_resort() {
        let (section, id) = section();
        section.put(&id, Some(&acme("pro")), section.generation(), 0);
        section.expire_all();
        assert_eq!(recalled(&section, 1), Recalled::Unknown);
        assert_eq!(section.recall_old("acme", 1), Recalled::Known(acme("pro")));
        section.put(&id, Some(&acme("free")), section.generation(), 1);
        assert_eq!(recalled(&section, 2), Recalled::Known(acme("free")));
    }

    #[test]
    fn what_nobody_can_vouch_for_any_more_serves_no_more_and_is_not_saved() {
        let (section, id) = section();
        let other: Arc<str> = Arc::from("other");
        section.put(&id, Some(&acme("pro")), section.generation(), 0);
        section.put(&other, Some(&acme("pro")), section.generation(), 0);
        section.expire_all();
        let epoch = section.epoch();
        assert_eq!(section.servable(0).len(), 2);
        assert_eq!(section.older_than(epoch, 0).len(), 2);
        section.put(&id, Some(&acme("pro")), section.generation(), 0);
        assert_eq!(section.older_than(epoch, 0), std::slice::from_ref(&other));
        section.settle(epoch);
        assert_eq!(section.recall_old("other", 1), Recalled::Unknown);
        assert_eq!(recalled(&section, 1), Recalled::Known(acme("pro")));
        section.distrust_all();
        assert_eq!(section.recall_old("acme", 1), Recalled::Unknown);
        assert!(section.servable(0).is_empty());
        assert_eq!(
            section.older_than(section.epoch(), 0),
            std::slice::from_ref(&id)
        );
        section.put(&id, Some(&acme("pro")), section.generation(), 0);
        assert_eq!(section.servable(0).len(), 1);
    }

    #[test]
    fn it_has_changed_only_where_what_would_be_saved_differs() {
        let (section, id) = section();
        let put = |answer: Option<&str>| {
            let answer = answer.map(acme);
            section.put(&id, answer.as_ref(), section.generation(), 0);
            section.take_changed()
        };
        assert!(!put(None));
        assert!(put(Some("pro")) && !put(Some("pro")) && put(Some("free")));
        section.expire_all();
        assert!(!put(Some("free")));
        section.settle(section.epoch());
        assert!(!section.take_changed());
        section.distrust_all();
        assert!(section.take_changed() && put(Some("free")));
        assert!(put(None) && !put(None));
        section.forget(std::slice::from_ref(&id));
        assert!(!section.take_changed());
        put(Some("pro"));
        section.forget(&[id]);
        assert!(section.take_changed());
    }

    #[test]
    fn more_uses_than_are_noted_at_once_are_all_noted_in_turn() {
        for size in [1_000_u32, 10_000] {
            let section: Section<ClientRecord> = Section::new(10_000, 1);
            for n in 0..size {
                let record = ClientRecord {
                    id: n.to_string(),
                    tier: None,
                };
                let id = Arc::from(record.id.as_str());
                section.put(&id, Some(&Arc::new(record)), section.generation(), 7);
            }
            assert!(section.used_since(8, 1_000).is_empty());
            let mut noted = HashSet::new();
            for _ in 0..40 {
                let some = section.used_since(7, 1_500);
                assert!(some.len() <= 1_500 && some.iter().all(|(_, us)| *us == 7));
                noted.extend(some.into_iter().map(|(client, _)| client.id.clone()));
            }
            assert_eq!(noted.len(), section.sizes().0, "{size}");
        }
    }

    #[test]
    fn what_is_absent_now_is_known_no_more_and_the_other_way_round() {
        let (section, id) = section();
        section.put(&id, None, section.generation(), 0);
        section.put(&id, Some(&acme("pro")), section.generation(), 0);
        assert_eq!(section.sizes(), (1, 0));
        section.put(&id, None, section.generation(), 0);
        assert_eq!(section.sizes(), (0, 1));
    }

    #[test]
    fn garbage_does_not_push_out_what_exists() {
        let (section, id) = section();
        section.put(&id, Some(&acme("pro")), section.generation(), 0);
        for n in 0..1_000 {
            section.put(&Arc::from(n.to_string()), None, section.generation(), n);
        }
        assert_eq!(section.sizes(), (1, 10));
        assert_eq!(recalled(&section, 1), Recalled::Known(acme("pro")));
    }
}
