//! A steady load: callers on threads, each on a connection that it keeps, every answer measured.

use crate::client::{Connection, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between an answer and the next request of a caller.
const PACE: Duration = Duration::from_millis(6);

/// Somebody who asks for the same thing again and again.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) gateway: SocketAddr,
    pub(super) target: &'static str,
    /// sent as `X-Key`
    pub(super) key: &'static str,
}

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) target: &'static str,
    /// when the request was sent
    pub(super) at: Instant,
    pub(super) took: Duration,
    /// 0: there was none
    pub(super) status: u16,
    /// of a 503: it says when to come again, and why in a problem document
    pub(super) explained: bool,
}

/// Callers at work.
pub(super) struct Load {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Sample>>>,
}

impl Load {
    pub(super) fn start(callers: &[Caller]) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let start = |&caller: &Caller| {
            let stopping = stopping.clone();
            std::thread::spawn(move || {
                let mut samples = Vec::new();
                let mut connection = Connection::open(caller.gateway);
                while !stopping.load(Ordering::Relaxed) {
                    let sample = ask(&mut connection, caller.target, caller.key);
                    if sample.status == 0 {
                        connection = Connection::open(caller.gateway);
                    }
                    samples.push(sample);
                    std::thread::sleep(PACE);
                }
                samples
            })
        };
        Load {
            threads: callers.iter().map(start).collect(),
            stopping,
        }
    }

    /// Everything that was answered, in the order it was asked for.
    pub(super) fn stop(mut self) -> Vec<Sample> {
        self.stopping.store(true, Ordering::Relaxed);
        let threads = self.threads.drain(..);
        let mut samples: Vec<Sample> = threads.flat_map(|each| each.join().unwrap()).collect();
        samples.sort_by_key(|sample| sample.at);
        samples
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// One request on this connection.
pub(super) fn ask(connection: &mut Connection, target: &'static str, key: &str) -> Sample {
    let at = Instant::now();
    connection.send(crate::client::head("GET", target, &[("X-Key", key)], 0));
    let answer = connection.answer_to("GET");
    Sample {
        target,
        at,
        took: at.elapsed(),
        status: answer.as_ref().map_or(0, |answer| answer.status),
        explained: answer.is_ok_and(|answer| is_explained(&answer)),
    }
}

fn is_explained(answer: &Response) -> bool {
    answer.status == 503
        && (1..=60).contains(&answer.number("Retry-After"))
        && answer.header("Content-Type") == Some("application/problem+json")
        && answer.json()["status"] == 503
        && answer.json()["detail"].is_string()
}

/// How many of `count` requests one after the other are admitted.
pub(super) fn admitted(gateway: SocketAddr, target: &'static str, key: &str, count: usize) -> u64 {
    let mut connection = Connection::open(gateway);
    let mut admitted = 0;
    for _ in 0..count {
        let status = ask(&mut connection, target, key).status;
        assert!(matches!(status, 200 | 429), "{target} {key}: {status}");
        admitted += u64::from(status == 200);
    }
    admitted
}

/// No errors, whatever happened: but by `deny`, which says why.
pub(super) fn assert_fine(samples: &[Sample]) {
    for sample in samples {
        let fine = match sample.target {
            "/deny" => sample.status == 200 || sample.explained,
            "/quota" => matches!(sample.status, 200 | 429),
            _ => sample.status == 200,
        };
        assert!(fine, "{sample:?}");
    }
}

/// The one in the middle; of none, nothing.
pub(super) fn median(samples: &[&Sample]) -> Duration {
    let mut took: Vec<Duration> = samples.iter().map(|sample| sample.took).collect();
    took.sort();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

/// How many of them were admitted at this target.
pub(super) fn admitted_in(samples: &[Sample], target: &str) -> u64 {
    let admitted = |sample: &&Sample| sample.target == target && sample.status == 200;
    samples.iter().filter(admitted).count() as u64
}
