//! Waits for changes of the file and the database, and takes them over one after the other.

use super::Running;
use crate::config::Problem;
use crate::database::{Rows, saved};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A database that does not answer is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Problems written to the log for one change.
const MOST_LINES: usize = 20;

/// What the database knew when it was last read, for a start without it.
#[derive(Clone)]
pub struct LastGood(PathBuf);

impl LastGood {
    /// Kept in this folder.
    pub fn in_folder(folder: &Path) -> Self {
        LastGood(folder.join("snapshot"))
    }

    /// Reads it; what cannot be read is said and counts as nothing.
    pub fn load(&self) -> Option<Rows> {
        saved::load(&self.0)
            .inspect_err(|error| tracing::error!("the saved snapshot cannot be used: {error}"))
            .ok()
            .flatten()
    }

    /// Writes it; a failure is said.
    pub fn save(&self, rows: &Rows) {
        if let Err(error) = saved::save(&self.0, rows) {
            tracing::error!("a start without the database would not know its policies: {error}");
        }
    }
}

/// Takes over changes until the process ends.
pub async fn watch(running: Arc<Running>) {
    let Some(origins) = &running.origins else {
        return;
    };
    let files = origins
        .file()
        .map(Path::to_owned)
        .zip(origins.dotenv())
        .filter(|_| running.watches_file);
    let mut look = Look::at(files, origins.seen);
    let database = running.database.as_ref();
    let mut changed = database.map(|database| database.changed());
    // once more: what changed between the first reading and now was told to nobody
    let mut owed = database.is_some();
    loop {
        tokio::select! {
            () = running.reload_wanted.notified() => reload(&running, "SIGHUP").await,
            () = look.change() => reload(&running, "the file changed").await,
            () = next(&mut changed) => owed = !read(&running, origins.last_good.as_ref()).await,
            () = tokio::time::sleep(ASK_AGAIN), if owed => {
                owed = !read(&running, origins.last_good.as_ref()).await;
            }
        }
    }
}

async fn next(changed: &mut Option<watch::Receiver<u64>>) {
    let gone = match changed {
        Some(changed) => changed.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending::<()>().await;
    }
}

async fn reload(running: &Arc<Running>, why: &str) {
    let task = running.clone();
    let done = tokio::task::spawn_blocking(move || task.reload()).await;
    match done {
        Ok(Ok(applied)) => {
            say(&applied.remarks);
            if !applied.at_next_start.is_empty() {
                let sections = applied.at_next_start.join(", ");
                tracing::warn!("changed, but taken over at the next start only: {sections}");
            }
            tracing::info!("configuration reloaded: {why}");
        }
        Ok(Err(problems)) => {
            say(&problems);
            tracing::error!("{why}, but the configuration is refused and the old one stays");
        }
        Err(error) => tracing::error!("the configuration was not reloaded: {error}"),
    }
}

/// Reads the database and takes over what it says. False: it did not answer.
async fn read(running: &Arc<Running>, last_good: Option<&LastGood>) -> bool {
    let Some(database) = &running.database else {
        return true;
    };
    // why it does not answer is said by the database itself
    let Ok(rows) = database.rows().await else {
        return false;
    };
    let task = running.clone();
    let last_good = last_good.cloned();
    let done = tokio::task::spawn_blocking(move || {
        let applied = task.apply(&rows);
        if let (Ok(_), Some(last_good), Some(origins)) = (&applied, last_good, &task.origins) {
            last_good.save(&origins.good());
        }
        (applied, rows)
    });
    match done.await {
        Ok((Ok(applied), rows)) => {
            say(&applied.remarks);
            tracing::info!(
                revision = rows.revision,
                policies = rows.policies.len(),
                tiers = rows.tiers.len(),
                routes = rows.routes.len(),
                "policies of the database taken over"
            );
        }
        Ok((Err(problems), _)) => {
            say(&problems);
            tracing::error!("policies of the database are refused and the old ones stay");
        }
        Err(error) => tracing::error!("policies of the database were not taken over: {error}"),
    }
    true
}

fn say(problems: &[Problem]) {
    for problem in problems.iter().take(MOST_LINES) {
        tracing::warn!("{problem}");
    }
    if problems.len() > MOST_LINES {
        tracing::warn!("and {} more", problems.len() - MOST_LINES);
    }
}

/// Looks at a file and `.env` now and then. Not by inotify: a file may be on a network, a link that is turned
/// (as Kubernetes does), or replaced by an editor.
struct Look {
    files: Option<(PathBuf, PathBuf)>,
    taken_over: Seen,
    last: Seen,
}

/// What tells the file and `.env` from themselves at another time: when it was changed, its size, which file it is.
pub type Seen = [Option<(std::time::SystemTime, u64, u64)>; 2];

impl Look {
    fn at(files: Option<(PathBuf, PathBuf)>, taken_over: Option<Seen>) -> Self {
        let taken_over = taken_over.unwrap_or_default();
        Look {
            files,
            taken_over,
            last: taken_over,
        }
    }

    /// Ends when one of the files has changed and stayed so for one look: whoever writes is done.
    async fn change(&mut self) {
        let Some(files) = self.files.clone() else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = seen(&files.0, &files.1);
            let settled = now == self.last;
            self.last = now;
            if settled && now != self.taken_over {
                self.taken_over = now;
                return;
            }
        }
    }
}

/// What the file and `.env` look like now.
pub fn seen(file: &Path, dotenv: &Path) -> Seen {
    [file, dotenv].map(|path| {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    })
}
