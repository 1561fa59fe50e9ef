//! A child process that ends with the test, however that ends.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Waits for the end of its standard input, which the test process holds open: it ends with that process, also where
/// no destructor runs. Then the process goes, with its folder and what libfaketime keeps for it in shared memory.
const WATCHDOG: &str = r#"trap "" TERM INT HUP; read -r _; kill -9 "$1"; sleep 0.2
rm -rf "$2" "/dev/shm/faketime_shm_$1" "/dev/shm/sem.faketime_sem_$1""#;

/// A process in a folder of its own.
pub(super) struct Guarded {
    child: Child,
    watchdog: Child,
}

impl Guarded {
    pub(super) fn spawn(command: &mut Command, folder: &Path) -> Self {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/install-deps test"));
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(child.id().to_string())
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Guarded { child, watchdog }
    }

    /// Sends a signal by name: STOP, CONT.
    pub(super) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success(), "{kill}");
    }

    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // the watchdog first: once the child is gone, its number may be another's
        for process in [&mut self.watchdog, &mut self.child] {
            let _ = process.kill();
            let _ = process.wait();
        }
        for name in ["faketime_shm", "sem.faketime_sem"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{name}_{}", self.id()));
        }
    }
}
