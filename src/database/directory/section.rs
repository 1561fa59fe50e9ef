//! What is known of keys, or of clients: those that exist and, apart, those that do not.

use super::Recalled;
use super::cache::{Cache, Entry};
use super::record::Record;
use hashbrown::{Equivalent, HashMap};
use parking_lot::Mutex;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// What a look-up ends with; none while it is under way.
pub(super) type Answer<R> = Option<Result<Option<Arc<R>>, super::Unavailable>>;

/// How long an answer is believed before the database is asked again in the background.
const REFRESH_US: u64 = 300_000_000;

/// How long "there is none such" is believed before somebody has to wait for the database again.
const ABSENT_US: u64 = 60_000_000;

/// How long until a refresh that came to nothing is tried again.
const RETRY_US: u64 = 15_000_000;

/// Records by id.
///
/// An entry counts as known while its epoch is the section's; one of an older epoch has to be
/// asked for again, and serves only if the database does not answer. A look-up that began before
/// something was found to have changed must not be remembered: the generation tells.
pub(super) struct Section<R: Record> {
    known: Cache<R::Id, Arc<R>>,
    absent: Cache<R::Id, ()>,
    epoch: AtomicU64,
    generation: AtomicU64,
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
            generation: AtomicU64::new(0),
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
            let is_absent = self.absent.with(id, |entry| {
                entry.used_us = now_us;
                entry.epoch == epoch && now_us < entry.refresh_at_us
            });
            let recalled = match is_absent {
                Some(true) => Recalled::Absent,
                _ => Recalled::Unknown,
            };
            Recollection {
                recalled,
                is_old: false,
            }
        })
    }

    /// What is known of it, however old.
    pub(super) fn recall_old<Q>(&self, id: &Q, now_us: u64) -> Recalled<R>
    where
        Q: Hash + Equivalent<R::Id> + ?Sized,
    {
        match self.known.with(id, |entry| entry.value.clone()) {
            Some(value) if value.has_expired(now_us) => Recalled::Absent,
            Some(value) => Recalled::Known(value),
            None if self.absent.with(id, |_| ()).is_some() => Recalled::Absent,
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
                // keeps when it was wanted: a refresh is no use
                let used_us = self.known.with(id, |entry| entry.used_us).unwrap_or(now_us);
                let entry = Entry {
                    value: value.clone(),
                    epoch,
                    refresh_at_us: now_us + REFRESH_US - spread,
                    used_us,
                };
                let done = self.known.put_if(id.clone(), entry, may);
                if done {
                    self.absent.remove(id);
                }
                done
            }
            None => {
                let entry = Entry {
                    value: (),
                    epoch,
                    refresh_at_us: now_us + ABSENT_US,
                    used_us: now_us,
                };
                let done = self.absent.put_if(id.clone(), entry, may);
                if done {
                    self.known.remove(id);
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
            self.known.remove(id);
            self.absent.remove(id);
        }
    }

    /// Everything may have changed.
    pub(super) fn expire_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// How many are known to exist, and how many not to.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.known.len(), self.absent.len())
    }

    /// Looks at every record in memory and when it was last wanted.
    pub(super) fn for_each(&self, mut look: impl FnMut(&R::Id, &R, u64)) {
        self.known
            .for_each(|id, entry| look(id, &entry.value, entry.used_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::ClientRecord;

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
        assert_eq!(recalled(&section, 59 * SECOND), Recalled::Absent);
        assert_eq!(recalled(&section, 61 * SECOND), Recalled::Unknown);
        assert_eq!(section.recall_old("acme", 0), Recalled::Absent);
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
