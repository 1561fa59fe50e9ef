//! The real binary as a child process: started on free ports, read, signalled, killed.

use crate::client::{Connection, Response};
use crate::scratch::Scratch;
use crate::waiting::{self, DEADLINE};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// `tidegate` as a command whose environment holds nothing that configures it.
pub(crate) fn tidegate(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(directory).env("NO_COLOR", "1");
    for name in [
        "RUST_LOG",
        "TIDEGATE_ADMIN_TOKEN",
        "DEFAULT_LIMIT",
        "DEFAULT_WINDOW",
        "REDIS_URL",
        "DATABASE_URL",
    ] {
        command.env_remove(name);
    }
    command
}

/// What a process has written so far.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<String>>);

impl Output {
    /// Reads a pipe to its end on a thread.
    pub(crate) fn of(pipe: impl std::io::Read + Send + 'static) -> Self {
        let output = Output::default();
        let text = output.0.clone();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(pipe);
            let mut line = Vec::new();
            while lines
                .read_until(b'\n', &mut line)
                .is_ok_and(|bytes| bytes > 0)
            {
                text.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        output
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// The first line that contains this, once it is there.
    pub(crate) fn line_with(&self, part: &str) -> String {
        waiting::find(&format!("a line says {part:?}"), || {
            let text = self.text();
            let mut lines = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            lines.find(|line| line.contains(part)).map(str::to_owned)
        })
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) stderr: Output,
    scratch: Scratch,
    /// what its file begins with
    beginning: String,
}

/// The name of its configuration.
const FILE: &str = "gateway.yaml";

/// Every request goes to the upstream `app`.
pub(crate) const EVERYTHING: &str = "routes: [{ name: app, upstream: app }]\n";

/// The upstream `app` with one peer.
pub(crate) fn app(peer: SocketAddr) -> String {
    format!("upstreams: {{ app: {{ peers: [{{ address: \"{peer}\" }}] }} }}\n")
}

impl Gateway {
    /// Starts it on free ports; `configuration` says the rest.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::start_with_admin("", configuration)
    }

    /// Its listener takes HTTP/2 without TLS too.
    pub(crate) fn start_with_http2(configuration: &str) -> Self {
        Self::start_as(", http2: true", "", &[], configuration)
    }

    /// `admin` is what stands in the admin section beside the address.
    pub(crate) fn start_with_admin(admin: &str, configuration: &str) -> Self {
        Self::start_as("", admin, &[], configuration)
    }

    /// With these variables in its environment.
    pub(crate) fn start_in(environment: &[(&str, &str)], configuration: &str) -> Self {
        Self::start_as("", "", environment, configuration)
    }

    fn start_as(
        listener: &str,
        admin: &str,
        environment: &[(&str, &str)],
        configuration: &str,
    ) -> Self {
        let scratch = Scratch::new();
        let beginning = format!(
            "listeners: [{{ address: 127.0.0.1:0{listener} }}]\nadmin: {{ address: 127.0.0.1:0{admin} }}\n"
        );
        let file = scratch.file(FILE, &format!("{beginning}{configuration}"));
        let mut child = tidegate(scratch.path())
            .args(["run", "-c"])
            .arg(&file)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Output::of(child.stderr.take().unwrap());
        let line = waiting::find("the gateway serves", || {
            let text = stderr.text();
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the gateway ended with {status}: {text}");
            }
            let mut lines = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            lines
                .find(|line| line.contains("serving"))
                .map(str::to_owned)
        });
        Gateway {
            child,
            address: quoted(&line, "listeners"),
            admin: quoted(&line, "admin"),
            stderr,
            scratch,
            beginning,
        }
    }

    /// Writes its file anew; listeners stay as they are.
    pub(crate) fn rewrite(&self, configuration: &str) {
        let text = format!("{}{configuration}", self.beginning);
        self.scratch.file(FILE, &text);
    }

    /// Writes its file anew and has it read.
    pub(crate) fn reload(&self, configuration: &str) {
        self.rewrite(configuration);
        self.signal("HUP");
    }

    /// Lines of its log that contain this.
    pub(crate) fn lines_with(&self, part: &str) -> usize {
        let text = self.stderr.text();
        text.lines().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// One GET on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Response {
        self.send("GET", target, &[])
    }

    pub(crate) fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.send("GET", target, headers)
    }

    /// One request without a body on a connection of its own.
    pub(crate) fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        self.connect().request(method, target, headers, b"")
    }

    /// One GET on the admin listener.
    pub(crate) fn ask_admin(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        Connection::open(self.admin).request("GET", target, headers, b"")
    }

    /// One request without a body on the admin listener.
    pub(crate) fn send_admin(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        Connection::open(self.admin).request(method, target, headers, b"")
    }

    /// The value of a metric; absent is 0.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.ask_admin("/metrics", &[]).text();
        let mut values = text.lines().filter_map(|line| line.strip_prefix(series));
        values
            .next()
            .map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Sends a signal by name: TERM, INT, HUP.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success(), "{kill}");
    }

    /// Waits for the end of the process.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        waiting::find("the gateway has ended", || self.child.try_wait().unwrap())
    }

    pub(crate) fn still_runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let text = self.stderr.text();
        if std::thread::panicking() {
            tell_log(&text);
        } else {
            assert!(!text.contains("panicked"), "the gateway panicked:\n{text}");
        }
    }
}

/// What a gateway has said lately, where a test has failed.
#[allow(clippy::print_stderr, reason = "a failed test says what it saw")]
fn tell_log(text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(20);
    eprintln!("the gateway's log:\n{}", lines[last..].join("\n"));
}

/// `name="127.0.0.1:4711"` in a log line.
fn quoted(line: &str, name: &str) -> SocketAddr {
    let value = line
        .split_once(&format!("{name}=\""))
        .and_then(|(_, rest)| rest.split('"').next());
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no address {name} in {line}"))
}

/// A port that was free a moment ago; whoever uses it tries again with another if it no longer is.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Kills a child when the test is over, however it ends.
pub(crate) struct Reaped(pub(crate) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end: exit code, standard output, standard error.
pub(crate) fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |mut pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text);
            text
        })
    };
    let (out, err) = (read(Box::new(out)), read(Box::new(err)));
    let mut child = Reaped(child);
    let begin = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < DEADLINE, "{command:?} does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    (status.code(), out.join().unwrap(), err.join().unwrap())
}
