//! Where the snapshot comes from: the file and the database's rows. A change of either makes a new
//! snapshot, or is refused and leaves the old one.

use super::{LastGood, Running, Seen, compile};
use crate::config::{Config, Environment, Problem, Row, Section, Severity, Shown, Source};
use crate::database::Rows;
use crate::telemetry::Metrics;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The parts a running gateway's snapshot is made of.
pub struct Origins {
    /// the file and the directory whose `.env` counts; absent: a text that does not change
    origin: Option<(PathBuf, PathBuf)>,
    /// where the database's rows are kept; absent: there is no database, or no place
    pub(super) last_good: Option<LastGood>,
    /// what the file looked like before it was read
    pub(super) seen: Option<Seen>,
    /// what listeners, stores and the like were made of at the start
    started_with: Config,
    /// held while a change is taken over: two at once would each lose the other's half. Whoever only looks does
    /// not wait for it.
    changing: Mutex<()>,
    parts: ArcSwap<Parts>,
}

struct Parts {
    source: Arc<Source>,
    /// everything the database has; absent: it has not been read yet, or there is none
    rows: Option<Arc<Vec<Row>>>,
    /// their newest revision; 0: not known
    revision: i64,
    /// the rows that are part of the snapshot
    good: Arc<Vec<Row>>,
    refused: Arc<Vec<Problem>>,
}

/// How a first snapshot came to be.
pub struct Beginning {
    /// the file and the directory whose `.env` counts; absent: a text that does not change
    pub origin: Option<(PathBuf, PathBuf)>,
    /// the file as parsed
    pub source: Source,
    /// the database's rows, as read or as saved; absent: none are known
    pub rows: Option<Vec<Row>>,
    /// what the file looked like before it was read
    pub seen: Option<Seen>,
    /// where they are kept
    pub last_good: Option<LastGood>,
}

impl Origins {
    /// What a first snapshot was made of: `good` rows are part of it, others are `refused`.
    pub fn new(
        beginning: Beginning,
        started_with: Config,
        good: Vec<Row>,
        refused: Vec<Problem>,
    ) -> Self {
        Origins {
            origin: beginning.origin,
            last_good: beginning.last_good,
            seen: beginning.seen,
            started_with,
            changing: Mutex::new(()),
            parts: ArcSwap::from_pointee(Parts {
                source: Arc::new(beginning.source),
                rows: beginning.rows.map(Arc::new),
                revision: 0,
                good: Arc::new(good),
                refused: Arc::new(refused),
            }),
        }
    }

    /// The file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        self.origin.as_ref().map(|(file, _)| file.as_path())
    }

    /// The `.env` that counts.
    pub(super) fn dotenv(&self) -> Option<PathBuf> {
        self.origin.as_ref().map(|(_, folder)| folder.join(".env"))
    }

    /// What is wrong with the rows that are left out.
    pub fn refused(&self) -> Arc<Vec<Problem>> {
        self.parts.load().refused.clone()
    }

    /// The rows that are part of the snapshot, to be kept for a start without the database.
    pub(super) fn good(&self) -> Rows {
        let parts = self.parts.load();
        rows_from(&parts.good, parts.revision)
    }

    /// The newest revision that the snapshot contains; 0: not known.
    pub fn revision(&self) -> i64 {
        self.parts.load().revision
    }
}

/// The database's rows as the configuration takes them.
pub fn rows_of(rows: &Rows) -> Vec<Row> {
    let row = |section, name: &String, document: Value| Row {
        section,
        name: name.clone(),
        document,
    };
    let tiers = rows.tiers.iter();
    let policies = rows.policies.iter();
    let routes = rows.routes.iter();
    tiers
        .map(|name| row(Section::Tiers, name, json!({})))
        .chain(policies.map(|(name, policy)| row(Section::Policies, name, policy.clone())))
        .chain(routes.map(|(name, set)| row(Section::RouteSettings, name, set.clone())))
        .collect()
}

/// The same backwards; clients are never among them.
pub fn rows_from(rows: &[Row], revision: i64) -> Rows {
    let mut known = Rows {
        revision,
        ..Rows::default()
    };
    for row in rows {
        let named = || (row.name.clone(), row.document.clone());
        match row.section {
            Section::Tiers => known.tiers.push(row.name.clone()),
            Section::Policies => known.policies.push(named()),
            Section::RouteSettings => known.routes.push(named()),
            Section::Clients => (),
        }
    }
    known
}

/// What came of a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// warnings and rows left out
    pub remarks: Vec<Problem>,
    /// sections of the file that changed and count at the next start only
    pub at_next_start: Vec<&'static str>,
}

impl Running {
    /// Reads the file again. What is wrong with it leaves everything as it is. It takes as long as
    /// reading and compiling takes: not to be called where requests are served.
    pub fn reload(&self) -> Result<Applied, Vec<Problem>> {
        let Some(origins) = &self.origins else {
            return Ok(Applied::default());
        };
        let Some((file, folder)) = &origins.origin else {
            return Ok(Applied::default());
        };
        let _changing = origins.changing.lock();
        let source = Source::read(file, &Environment::from_process(folder))
            .inspect_err(|_| self.metrics.snapshot.refused.inc())?;
        self.rebuild(origins, Some(source), None)
    }

    /// Takes over what the database has now; the same holds as for [`Running::reload`].
    pub fn apply(&self, rows: &Rows) -> Result<Applied, Vec<Problem>> {
        let Some(origins) = &self.origins else {
            return Ok(Applied::default());
        };
        let _changing = origins.changing.lock();
        self.rebuild(origins, None, Some(rows))
    }

    /// The same for rows that were read beside the watcher, which may have newer ones by now.
    pub fn apply_newer(&self, rows: &Rows) -> Result<Applied, Vec<Problem>> {
        let Some(origins) = &self.origins else {
            return Ok(Applied::default());
        };
        let _changing = origins.changing.lock();
        if rows.revision <= origins.revision() {
            return Ok(Applied::default());
        }
        self.rebuild(origins, None, Some(rows))
    }

    fn rebuild(
        &self,
        origins: &Origins,
        source: Option<Source>,
        rows: Option<&Rows>,
    ) -> Result<Applied, Vec<Problem>> {
        let parts = origins.parts.load_full();
        let source = source.map_or_else(|| parts.source.clone(), Arc::new);
        let revision = rows.map_or(parts.revision, |rows| rows.revision);
        let rows = rows.map(rows_of).map(Arc::new);
        let rows = rows.or_else(|| parts.rows.clone());
        let compiled = compile(
            &source,
            rows.as_deref().map(Vec::as_slice),
            &parts.good,
            Some(&self.snapshot()),
            &self.metrics,
            &self.sources,
        );
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(problems) => {
                self.metrics.snapshot.refused.inc();
                // what the database has now is tried again with the next change of anything
                origins.parts.store(Arc::new(Parts {
                    source: parts.source.clone(),
                    rows,
                    revision: parts.revision,
                    good: parts.good.clone(),
                    refused: parts.refused.clone(),
                }));
                return Err(problems);
            }
        };
        let mut remarks = compiled.loaded.warnings.clone();
        remarks.extend(compiled.refused.iter().cloned());
        remarks.extend(compiled.snapshot.conflicts.iter().cloned());
        let at_next_start = not_taken_over(&origins.started_with, &compiled.loaded.config);
        let metrics = &self.metrics.snapshot;
        metrics.refused_rows.set(compiled.refused.len() as i64);
        origins.parts.store(Arc::new(Parts {
            source,
            rows,
            revision,
            good: Arc::new(compiled.rows),
            refused: Arc::new(compiled.refused),
        }));
        self.publish(compiled.snapshot);
        Ok(Applied {
            remarks,
            at_next_start,
        })
    }

    /// The file alone, as it may be shown.
    pub fn file_shown(&self) -> Shown {
        match &self.origins {
            Some(origins) => origins.parts.load().source.shown(),
            None => self.snapshot().shown.clone(),
        }
    }

    /// Would this stand in the configuration? `None`: would it stand without? What was wrong before
    /// is nobody's fault now.
    pub fn validate(
        &self,
        section: Section,
        name: &str,
        document: Option<&Value>,
    ) -> Result<(), Vec<Problem>> {
        let Some(origins) = &self.origins else {
            return Ok(());
        };
        let parts = origins.parts.load_full();
        let others = parts.good.iter();
        let mut rows: Vec<Row> = others
            .filter(|row| row.section != section || row.name != name)
            .cloned()
            .collect();
        let row = document.map(|document| Row {
            section,
            name: name.to_owned(),
            document: document.clone(),
        });
        rows.extend(row);
        let mut wrong = self.wrong_with(&parts.source, &rows);
        if !wrong.is_empty() {
            let before = self.wrong_with(&parts.source, &parts.good);
            wrong.retain(|problem| !before.contains(problem));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Everything that is wrong with a whole, strictly judged.
    fn wrong_with(&self, source: &Source, rows: &[Row]) -> Vec<Problem> {
        let errors = |mut problems: Vec<Problem>| {
            problems.retain(|problem| problem.severity == Severity::Error);
            problems
        };
        let loaded = match source.with(rows, Severity::Error) {
            Ok(loaded) => loaded,
            Err(problems) => return errors(problems),
        };
        // metrics of its own: a document that is refused leaves no series
        let Ok(metrics) = Metrics::new() else {
            return Vec::new();
        };
        match super::assemble(&loaded, &metrics, &self.sources, Some(&self.snapshot())) {
            Ok(snapshot) => snapshot.conflicts,
            Err(problems) => errors(problems),
        }
    }
}

/// What was made once, at the start.
fn not_taken_over(before: &Config, now: &Config) -> Vec<&'static str> {
    let admin = |config: &Config| {
        let admin = config.admin.as_ref();
        admin.map(|admin| (admin.address, admin.token.clone(), admin.hosts.clone()))
    };
    let changed = [
        (
            "server.threads",
            before.server.threads != now.server.threads,
        ),
        (
            "server.grace_period",
            before.server.grace_period != now.server.grace_period,
        ),
        ("server.watch", before.server.watch != now.server.watch),
        ("listeners", before.listeners != now.listeners),
        ("admin", admin(before) != admin(now)),
        ("store", before.store != now.store),
        ("database", before.database != now.database),
    ];
    let changed = changed.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(section, _)| section).collect()
}
