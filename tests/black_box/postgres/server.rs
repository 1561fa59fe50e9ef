//! A real PostgreSQL server: started, asked, frozen, killed, started again.

use crate::redis::certificates::Certificates;
use crate::redis::ports;
use crate::scratch::Scratch;
use crate::waiting;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// The password of the server's one role, which TCP asks for and the socket does not.
const PASSWORD: &str = "tide'gate";

/// Waits for the end of its standard input, which the test process holds open: it ends with that
/// process, also where no destructor runs. Then the server goes, with its folder. SIGQUIT and not
/// SIGKILL: the server takes its shared memory along.
const WATCHDOG: &str = r#"trap "" TERM INT HUP; read -r _; kill -CONT "$1"; kill -QUIT "$1"
sleep 1; kill -9 "$1"; sleep 0.2; rm -rf "$2""#;

/// One initdb at a time; the others find what it made.
static TEMPLATE: Mutex<()> = Mutex::new(());

/// A PostgreSQL of its own folder and port; gone when the test is over.
pub(crate) struct PostgresServer {
    process: Option<Process>,
    port: u16,
    certificates: Option<Certificates>,
    scratch: Scratch,
}

struct Process {
    child: Child,
    watchdog: Child,
}

impl PostgresServer {
    /// An empty server, on 127.0.0.1 and on a socket in its folder.
    pub(crate) fn start() -> Self {
        Self::launch(false)
    }

    /// The same with TLS, with a certificate for 127.0.0.1 and localhost from the CA in `ca_file`.
    pub(crate) fn start_with_tls() -> Self {
        Self::launch(true)
    }

    fn launch(tls: bool) -> Self {
        let scratch = Scratch::new();
        let template = template();
        let copied = Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(&template)
            .arg(scratch.path().join("database"))
            .status()
            .unwrap();
        assert!(copied.success(), "{} cannot be copied", template.display());
        let certificates = tls.then(|| Certificates::make(scratch.path()));
        if let Some(made) = &certificates {
            // the server refuses a key that others may read
            std::fs::set_permissions(&made.key, PermissionsExt::from_mode(0o600)).unwrap();
            own(&made.key);
        }
        own(scratch.path());
        let mut server = PostgresServer {
            process: None,
            port: 0,
            certificates,
            scratch,
        };
        for _ in 0..ports::ATTEMPTS {
            server.port = ports::probably_free();
            if server.run() {
                return server;
            }
        }
        panic!("no port is free for PostgreSQL: {}", server.log())
    }

    /// Starts the process; false where its port is taken, or what it left behind still is.
    fn run(&mut self) -> bool {
        let mut command = self.command_line();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/install-deps test"));
        let mut process = Process::guard(child, self.scratch.path());
        let mut is_taken = false;
        waiting::until("PostgreSQL answers", || {
            if process.child.try_wait().unwrap().is_some() {
                let log = self.log();
                is_taken = log.contains("Address already in use")
                    || log.contains("is still in use")
                    || log.contains("lock file \"postmaster.pid\" already exists");
                assert!(is_taken, "PostgreSQL ended: {command:?}\n{log}");
            }
            is_taken || self.ask("SELECT 1").is_ok()
        });
        self.process = (!is_taken).then_some(process);
        !is_taken
    }

    fn command_line(&self) -> Command {
        let folder = self.scratch.path();
        let log = File::create(folder.join("postgres.log")).unwrap();
        let mut command = as_server_user("postgres");
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .arg("-D")
            .arg(folder.join("database"))
            .args(["-p", &self.port.to_string()])
            .arg("-k")
            .arg(folder);
        let mut settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            "shared_buffers=8MB".to_owned(),
            "max_connections=60".to_owned(),
            "fsync=off".to_owned(),
            "full_page_writes=off".to_owned(),
            "wal_level=minimal".to_owned(),
            "max_wal_senders=0".to_owned(),
            "autovacuum=off".to_owned(),
            "max_wal_size=64MB".to_owned(),
        ];
        if let Some(made) = &self.certificates {
            settings.push("ssl=on".to_owned());
            settings.push(format!("ssl_cert_file={}", made.cert.display()));
            settings.push(format!("ssl_key_file={}", made.key.display()));
        }
        for setting in settings {
            command.args(["-c", &setting]);
        }
        command
    }

    /// Its URL over TCP, with user and password.
    pub(crate) fn url(&self) -> String {
        let password = PASSWORD.replace('\'', "%27");
        format!(
            "postgres://tide:{password}@127.0.0.1:{}/postgres",
            self.port
        )
    }

    /// Its URL over the socket.
    pub(crate) fn socket_url(&self) -> String {
        format!(
            "host={} port={} user=tide dbname=postgres",
            self.scratch.path().display(),
            self.port
        )
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the CA; of a server with TLS.
    pub(crate) fn ca_file(&self) -> PathBuf {
        let made = self.certificates.as_ref();
        made.expect("a server with TLS").ca.clone()
    }

    /// A folder that goes with the server.
    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// What it has logged since it was started.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("postgres.log")).unwrap_or_default()
    }

    /// Runs SQL over the socket: rows one per line, columns parted by `|`.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.ask(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}\n{}", self.log()))
    }

    /// Runs SQL over the socket, whatever comes of it.
    pub(crate) fn ask(&self, sql: &str) -> Result<String, String> {
        let done = Command::new(program("psql"))
            .env("PGCONNECT_TIMEOUT", "5")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.socket_url()])
            .args(["-c", sql])
            .output()
            .unwrap_or_else(|error| panic!("psql: {error}; run scripts/install-deps test"));
        let [out, err] = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
        if done.status.success() {
            Ok(out.trim_end().to_owned())
        } else {
            Err(err)
        }
    }

    /// Until whoever follows, and has counted so many changes, has heard of all changes so far and acted on
    /// them: an outage in the middle of that makes a gateway forget what it cannot check.
    pub(crate) fn until_heard_of(&self, counted: impl Fn() -> f64) {
        // more than tests change otherwise, so that the count tells these; the second look
        // comes after all that followed from the first
        for look in ["heard of", "acted on"] {
            let enough = counted() + 1_000.0;
            self.sql(
                "INSERT INTO changes (kind, subject) SELECT 'client', 'nobody' FROM generate_series(1, 1000); \
                 NOTIFY tidegate",
            );
            waiting::until(&format!("the changes are {look}"), || counted() >= enough);
        }
    }

    /// Cuts every connection but psql's own; how many there were.
    pub(crate) fn cut_connections(&self) -> usize {
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        self.sql(cut).parse().unwrap()
    }

    /// Stops all of its processes without closing anything (SIGSTOP): connections stay, new ones
    /// are accepted, nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, name: &str) {
        let server = self.process.as_ref().expect("it runs").child.id();
        // the one that starts others first
        signal(name, server);
        for process in children_of(server) {
            signal(name, process);
        }
    }

    /// Ends it at once; connections break, new ones are refused.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port, with what it held.
    pub(crate) fn start_again(&mut self) {
        self.stop();
        waiting::until("the port is free again", || self.run());
    }
}

impl Process {
    fn guard(child: Child, folder: &Path) -> Self {
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(child.id().to_string())
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process { child, watchdog }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // the watchdog first: once the server is gone, its number may be another's
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let server = self.child.id();
        let children = children_of(server);
        for name in ["CONT", "QUIT"] {
            signal(name, server);
        }
        for child in children {
            signal("CONT", child);
        }
        let begin = std::time::Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if begin.elapsed() > waiting::DEADLINE {
                let _ = self.child.kill();
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

/// Sends a signal by name; a process that has just ended needs none.
fn signal(name: &str, process: u32) {
    let kill = format!("kill -{name} {process} 2>/dev/null");
    let _ = Command::new("sh").args(["-c", &kill]).status();
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let is_child = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // the name of the program, in brackets, may hold anything
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        after_name.split(' ').nth(1) == Some(parent.to_string().as_str())
    };
    processes.filter_map(number).filter(is_child).collect()
}

/// A folder that `initdb` made, once for all tests of this build: whoever wants a server copies it.
fn template() -> PathBuf {
    let _one = TEMPLATE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let tests = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let version = Command::new(program("initdb")).arg("--version").output();
    let version = String::from_utf8_lossy(&version.unwrap().stdout).into_owned();
    let number: String = version.chars().filter(char::is_ascii_digit).collect();
    let made = tests.join(format!("postgres-{number}-{}", user()));
    if made.exists() {
        return made;
    }
    // tests are processes of their own: whoever is first renames, the others throw theirs away
    let scratch = Scratch::new();
    let draft = scratch.path().join("database");
    let password = scratch.file("password", PASSWORD);
    own(scratch.path());
    let done = as_server_user("initdb")
        .current_dir(scratch.path())
        .args([
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "--username=tide",
        ])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .args(["--wal-segsize=1", "--pwfile"])
        .arg(password)
        .arg("-D")
        .arg(&draft)
        .output()
        .unwrap_or_else(|error| panic!("initdb: {error}; run scripts/install-deps test"));
    assert!(
        done.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let beside = tests.join(format!("postgres-{:?}", crate::scratch::unique()));
    let moved = Command::new("mv").arg(&draft).arg(&beside).status();
    assert!(moved.unwrap().success());
    if std::fs::rename(&beside, &made).is_err() {
        let _ = std::fs::remove_dir_all(&beside);
    }
    made
}

/// A program of the server's: Debian keeps them outside of PATH, the newest version last.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let mut found: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

/// A program of the server's as a command; never as root, which the server refuses.
fn as_server_user(name: &str) -> Command {
    let program = program(name);
    match user() {
        "" => Command::new(program),
        user => {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={user}"))
                .arg(format!("--regid={}", id("-g", user)))
                .args(["--clear-groups", "--"])
                .arg(program);
            command
        }
    }
}

/// Who runs the server; empty: whoever runs the tests.
fn user() -> &'static str {
    if id("-u", "") != 0 {
        return "";
    }
    let is_there = Command::new("id").arg("postgres").output();
    match is_there.unwrap().status.success() {
        true => "postgres",
        false => "nobody",
    }
}

fn id(what: &str, user: &str) -> u32 {
    let mut command = Command::new("id");
    command
        .arg(what)
        .args([user].iter().filter(|user| !user.is_empty()));
    let output = command.output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// Gives a file or folder to whoever runs the server.
fn own(path: &Path) {
    let user = user();
    if !user.is_empty() {
        chown(path, Some(id("-u", user)), Some(id("-g", user))).unwrap();
    }
}
