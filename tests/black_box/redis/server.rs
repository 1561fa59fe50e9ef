//! A real Redis server: started, asked, frozen, killed, started again.

use super::certificates::Certificates;
use super::ports;
use super::process::Guarded;
use super::resp::{RedisConnection, Reply};
use crate::scratch::Scratch;
use crate::waiting;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Redis of its own folder and port; gone when the test is over.
pub(crate) struct RedisServer {
    // before the folder that it writes into
    process: Option<Guarded>,
    setup: Setup,
    port: u16,
    certificates: Option<Certificates>,
    scratch: Scratch,
}

/// What makes one server different from another.
#[derive(Default)]
struct Setup {
    /// What stands in its configuration file; only sentinels have one.
    file: Option<String>,
    options: Vec<String>,
    /// A user and a password; the user may be empty.
    login: Option<(String, String)>,
    tls: bool,
    /// Whether its clock can be shifted.
    clock: bool,
}

fn words(options: &[&str]) -> Vec<String> {
    options.iter().map(|&word| word.to_owned()).collect()
}

impl RedisServer {
    /// A server without persistence, on 127.0.0.1 and on a Unix socket.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further options: `["--maxmemory", "3mb"]`.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::launch(Setup {
            options: words(options),
            ..Setup::default()
        })
    }

    /// Keeps what it holds over `restart_with_data`: every write is on the disk before its answer.
    pub(crate) fn start_persistent() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Wants this password (`requirepass`).
    pub(crate) fn start_with_password(password: &str) -> Self {
        Self::launch(Setup {
            options: words(&["--requirepass", password]),
            login: Some((String::new(), password.to_owned())),
            ..Setup::default()
        })
    }

    /// Knows this user alone, who may do what the rules say: `"~tg:* &tg:* +@all"`.
    pub(crate) fn start_with_user(user: &str, password: &str, rules: &str) -> Self {
        let secret = format!(">{password}");
        let mut options = words(&["--user", user, "on", &secret]);
        options.extend(rules.split_whitespace().map(str::to_owned));
        options.extend(words(&["--user", "default", "off"]));
        Self::launch(Setup {
            options,
            login: Some((user.to_owned(), password.to_owned())),
            ..Setup::default()
        })
    }

    /// Speaks TLS on its port, with a certificate for 127.0.0.1 and localhost from the CA in `ca_file`.
    pub(crate) fn start_with_tls() -> Self {
        Self::launch(Setup {
            tls: true,
            ..Setup::default()
        })
    }

    /// Its clock can be shifted.
    pub(crate) fn start_with_clock() -> Self {
        Self::launch(Setup {
            clock: true,
            ..Setup::default()
        })
    }

    /// A sentinel with this configuration file.
    pub(super) fn start_sentinel(file: String) -> Self {
        Self::launch(Setup {
            file: Some(file),
            options: words(&["--sentinel"]),
            ..Setup::default()
        })
    }

    fn launch(setup: Setup) -> Self {
        let scratch = Scratch::new();
        let certificates = setup.tls.then(|| Certificates::make(scratch.path()));
        let mut server = RedisServer {
            process: None,
            setup,
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
        panic!("no port is free for Redis: {}", server.log())
    }

    /// Starts the process; false where its port is taken.
    fn run(&mut self) -> bool {
        let mut command = self.command_line();
        let mut process = Guarded::spawn(&mut command, self.scratch.path());
        let mut taken = false;
        waiting::until("Redis answers", || {
            if process.ended().is_some() {
                let log = self.log();
                taken = log.contains("Address already in use");
                assert!(taken, "Redis ended: {command:?}\n{log}");
            }
            taken
                || self
                    .ask(&["PING"])
                    .is_ok_and(|reply| reply == Reply::Text("PONG".into()))
        });
        self.process = (!taken).then_some(process);
        !taken
    }

    fn command_line(&self) -> Command {
        let (folder, setup) = (self.scratch.path(), &self.setup);
        let mut command = Command::new("redis-server");
        let log = File::create(folder.join("redis.log")).unwrap();
        command
            .current_dir(folder)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if setup.clock {
            self.shift_clock(0.0);
            command
                // the allocator that Redis brings locks up when it asks a faked clock
                .env("LD_PRELOAD", format!("{}:libc.so.6", libfaketime("libfaketime.so.1").display()))
                .env("FAKETIME_TIMESTAMP_FILE", folder.join("clock"))
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        if let Some(file) = &setup.file {
            command.arg(self.scratch.file("sentinel.conf", file));
        }
        let port = self.port.to_string();
        match &self.certificates {
            None => command.args(["--port", &port]),
            Some(made) => command
                .args([
                    "--port",
                    "0",
                    "--tls-port",
                    &port,
                    "--tls-auth-clients",
                    "no",
                ])
                .arg("--tls-cert-file")
                .arg(&made.cert)
                .arg("--tls-key-file")
                .arg(&made.key)
                .arg("--tls-ca-cert-file")
                .arg(&made.ca),
        };
        command.args([
            "--bind",
            "127.0.0.1",
            "--unixsocket",
            "redis.sock",
            "--save",
            "",
        ]);
        command.arg("--dir").arg(folder).args(&setup.options);
        command
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its URL, with the login it wants.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.setup.tls { "rediss" } else { "redis" };
        let login = match &self.setup.login {
            Some((user, password)) => format!("{user}:{password}@"),
            None => String::new(),
        };
        format!("{scheme}://{login}{}", self.address())
    }

    /// Its URL over the Unix socket, with the login it wants.
    pub(crate) fn socket_url(&self) -> String {
        let query = match &self.setup.login {
            Some((user, password)) => format!("?user={user}&pass={password}"),
            None => String::new(),
        };
        format!("unix://{}{query}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.scratch.path().join("redis.sock")
    }

    /// The certificate of the CA; of a server with TLS.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.certificates.as_ref().expect("a server with TLS").ca
    }

    /// The number of its process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// What it has logged since it was started.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("redis.log")).unwrap_or_default()
    }

    /// One command over the Unix socket, as text: lists one element per line, nil as nothing. An error is a panic.
    pub(crate) fn command(&self, command: &[&str]) -> String {
        match self.ask(command) {
            Ok(Reply::Error(error)) => panic!("{command:?}: {error}"),
            Ok(reply) => reply.text(),
            Err(error) => panic!("{command:?}: {error}\n{}", self.log()),
        }
    }

    /// One command over the Unix socket, whatever comes of it.
    pub(crate) fn ask(&self, command: &[&str]) -> std::io::Result<Reply> {
        let mut connection = RedisConnection::open_socket(&self.socket())?;
        if let Some((user, password)) = &self.setup.login {
            let auth = ["AUTH", user, password].into_iter();
            let words: Vec<_> = auth.filter(|word| !word.is_empty()).collect();
            if let error @ Reply::Error(_) = connection.ask(&words)? {
                return Ok(error);
            }
        }
        connection.ask(command)
    }

    /// Ends it at once (SIGKILL); connections break, new ones are refused.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Kills it and starts it on the same port, empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(self.scratch.path().join("appendonlydir"));
        self.restart_with_data();
    }

    /// Kills it and starts it on the same port; a persistent one has its data again.
    pub(crate) fn restart_with_data(&mut self) {
        self.kill();
        // a connection to the old process may hold the port for a moment
        waiting::until("the port is free again", || self.run());
    }

    /// Stops it without closing anything (SIGSTOP): connections stay, new ones are accepted, nothing is answered.
    pub(crate) fn freeze(&self) {
        self.process.as_ref().expect("it runs").signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.process.as_ref().expect("it runs").signal("CONT");
    }

    /// Sets its clock off by some seconds; of a server with such a clock. Timers do not notice, TIME does.
    pub(crate) fn shift_clock(&self, seconds: f64) {
        let folder = self.scratch.path();
        let written = self.scratch.file("clock.new", &format!("{seconds:+}\n"));
        std::fs::rename(written, folder.join("clock")).unwrap();
    }
}

/// The library that fakes the clock of a process, by the name of its file.
pub(crate) fn libfaketime(name: &str) -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    folders
        .map(|folder| folder.path().join("faketime").join(name))
        .find(|path| path.exists())
        .expect("libfaketime is missing; run scripts/install-deps test")
}
