//! Sends one request over and over at a fixed rate and says how long the replies took.
//!
//! Open loop: when a request is due does not depend on the replies before it, and its latency
//! counts from that time, not from when it could be sent (no coordinated omission). Every
//! connection has a thread and every nth request; speaks HTTP/1.1 and the protocol of Redis.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: paced --to HOST:PORT|/SOCKET --payload FILE --rate PER_SECOND \
     --seconds N --warm-up N --connections N --expect PREFIX_OF_THE_REPLY";
/// Longer replies than this are not what this tool is for.
const REPLY_MAX_BYTES: usize = 64 * 1024;
/// So that every thread is there before the first request is due.
const HEAD_START: Duration = Duration::from_millis(100);

struct Plan {
    to: String,
    payload: Vec<u8>,
    expect: Vec<u8>,
    connections: u32,
    /// between two requests of all connections together
    interval: Duration,
    warm_up: Duration,
    until: Duration,
}

/// Of one request after the warm-up, both since it was due.
struct Sample {
    sent: Duration,
    answered: Duration,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// The value that follows `name` on the command line.
fn argument(name: &str) -> String {
    std::env::args()
        .skip_while(|argument| argument != name)
        .nth(1)
        .unwrap_or_else(|| stop(&format!("{name} is missing")))
}

fn number(name: &str) -> u32 {
    match argument(name).parse() {
        Ok(number) if number > 0 => number,
        _ => stop(&format!("{name} is not a whole number above 0")),
    }
}

fn stop(reason: &str) -> ! {
    eprintln!("paced: {reason}\n{USAGE}");
    std::process::exit(2);
}

fn connect(to: &str) -> io::Result<Box<dyn Stream>> {
    if to.starts_with('/') {
        return Ok(Box::new(UnixStream::connect(to)?));
    }
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// The bytes of the first reply in `buffer`, once it is complete.
fn reply_bytes(buffer: &[u8]) -> Option<usize> {
    if !buffer.starts_with(b"HTTP/") {
        return redis_reply_bytes(buffer);
    }
    let head_end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..head_end]).ok()?;
    let body_bytes = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse().ok())?
    });
    let end = head_end + body_bytes.unwrap_or(0);
    (buffer.len() >= end).then_some(end)
}

/// A status, a number, an error, or a text.
fn redis_reply_bytes(buffer: &[u8]) -> Option<usize> {
    let line_end = buffer.windows(2).position(|two| two == b"\r\n")? + 2;
    let mut end = line_end;
    if buffer[0] == b'$' {
        let bytes = std::str::from_utf8(&buffer[1..line_end - 2]).ok()?;
        end += bytes.parse().unwrap_or(0) + 2;
    }
    (buffer.len() >= end).then_some(end)
}

fn exchange(stream: &mut dyn Stream, plan: &Plan, buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(&plan.payload)?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(io::Error::other("closed, or too long a reply"));
        }
        filled += read;
        if reply_bytes(&buffer[..filled]).is_some() {
            break;
        }
    }
    if buffer[..filled].starts_with(&plan.expect) {
        return Ok(());
    }
    let reply = String::from_utf8_lossy(&buffer[..filled.min(300)]);
    Err(io::Error::other(format!("unexpected reply: {reply}")))
}

/// Sends what falls to one connection.
fn run(plan: &Plan, connection: u32, start: Instant) -> io::Result<Vec<Sample>> {
    let mut stream = connect(&plan.to)?;
    let mut buffer = vec![0; REPLY_MAX_BYTES];
    let mut samples = Vec::new();
    let mut due = plan.interval * connection;
    while due < plan.until {
        thread::sleep((start + due).saturating_duration_since(Instant::now()));
        let sent = start.elapsed() - due;
        exchange(&mut *stream, plan, &mut buffer)?;
        let answered = start.elapsed() - due;
        if due >= plan.warm_up {
            samples.push(Sample { sent, answered });
        }
        due += plan.interval * plan.connections;
    }
    Ok(samples)
}

/// The duration that `percent` of them do not exceed, in microseconds.
fn micros(sorted: &[Duration], percent: usize) -> f64 {
    let index = sorted.len() * percent / 100;
    sorted[index.min(sorted.len() - 1)].as_secs_f64() * 1e6
}

fn report(samples: &[Sample]) {
    let sorted = |of: fn(&Sample) -> Duration| {
        let mut durations: Vec<_> = samples.iter().map(of).collect();
        durations.sort_unstable();
        durations
    };
    let (answered, sent) = (sorted(|s| s.answered), sorted(|s| s.sent));
    let took = sorted(|s| s.answered.saturating_sub(s.sent));
    println!(
        "{{\"requests\": {}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"max_us\": {:.1}, \
         \"late_p50_us\": {:.1}, \"late_p99_us\": {:.1}, \"since_sent_p50_us\": {:.1}}}",
        samples.len(),
        micros(&answered, 50),
        micros(&answered, 99),
        micros(&answered, 100),
        micros(&sent, 50),
        micros(&sent, 99),
        micros(&took, 50),
    );
}

fn main() {
    // the kernel may wake a sleeper 50 us late unless told otherwise; threads inherit this
    if std::fs::write("/proc/self/timerslack_ns", "1").is_err() {
        eprintln!("paced: the timer slack stays as it is");
    }
    let payload = argument("--payload");
    let seconds = |name| Duration::from_secs(number(name).into());
    let warm_up = seconds("--warm-up");
    let plan = Plan {
        to: argument("--to"),
        payload: std::fs::read(&payload).unwrap_or_else(|e| stop(&format!("{payload}: {e}"))),
        expect: argument("--expect").into_bytes(),
        connections: number("--connections"),
        interval: Duration::from_secs(1) / number("--rate"),
        warm_up,
        until: warm_up + seconds("--seconds"),
    };
    let start = Instant::now() + HEAD_START;
    let plan = &plan;
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.connections)
            .map(|connection| scope.spawn(move || run(plan, connection, start)))
            .collect();
        threads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    let mut samples = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(Ok(of_one)) => samples.extend(of_one),
            Ok(Err(error)) => stop(&format!("{}: {error}", plan.to)),
            Err(_) => stop("a thread panicked"),
        }
    }
    if samples.is_empty() {
        stop("no request was due after the warm-up");
    }
    report(&samples);
}
