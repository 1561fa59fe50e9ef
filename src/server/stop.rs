//! Signals: stop accepting, let requests in flight end, give back what is held, go.

use crate::snapshot::Running;
use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, watch};

/// Longest drain after SIGINT: somebody waits at a terminal.
const QUICK: Duration = Duration::from_secs(5);

/// From the end of a drain to the end of the process, at most.
const LAST: Duration = Duration::from_secs(5);

/// How often a drain looks whether all requests have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits for signals and drains.
///
/// Pingora's own grace period is a blocking sleep even when nothing is in flight, and its SIGQUIT
/// without a successor an outage; so this answers only when the process may end at once.
pub(super) struct StopSignals {
    signals: Mutex<Signals>,
    running: Arc<Running>,
    grace_period: Duration,
    stop_accepting: watch::Sender<bool>,
}

impl StopSignals {
    pub(super) fn new(signals: Signals, running: Arc<Running>, grace_period: Duration) -> Self {
        StopSignals {
            signals: Mutex::new(signals),
            running,
            grace_period,
            stop_accepting: watch::Sender::new(false),
        }
    }

    /// Turns true when listeners should stop accepting.
    pub(super) fn watch(&self) -> ShutdownWatch {
        self.stop_accepting.subscribe()
    }

    async fn drain(&self, grace_period: Duration) {
        self.running.drain();
        let _ = self.stop_accepting.send(true);
        let in_flight = &self.running.metrics.in_flight;
        tracing::info!(in_flight = in_flight.get(), ?grace_period, "stopping");
        let all_ended = async {
            while in_flight.get() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(grace_period, all_ended).await.is_err() {
            tracing::warn!(
                in_flight = in_flight.get(),
                "the grace period is over, closing what is left"
            );
        }
        self.running.limiter.stop().await;
    }
}

#[async_trait]
impl ShutdownSignalWatch for StopSignals {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = self.signals.lock().await;
        let Signals {
            terminate,
            interrupt,
            quit,
            hangup,
            upgrade,
            ..
        } = &mut *signals;
        let grace_period = loop {
            tokio::select! {
                () = next(terminate) => break self.grace_period,
                () = next(quit) => break self.grace_period,
                () = next(interrupt) => break self.grace_period.min(QUICK),
                () = next(hangup) => self.running.reload_wanted.notify_one(),
                () = next(upgrade) => tracing::warn!("SIGUSR2: this version cannot replace its binary while it runs"),
            }
        };
        tokio::select! {
            () = self.drain(grace_period) => (),
            () = next(terminate) => (),
            () = next(interrupt) => (),
        }
        end_anyway();
        ShutdownSignal::FastShutdown
    }
}

/// Ends the process should one of its threads not end by itself: Pingora waits for each without limit.
fn end_anyway() {
    let watchdog = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(LAST);
        tracing::error!("a thread does not end, the process does");
        std::process::exit(70);
    });
    if let Err(error) = watchdog {
        tracing::warn!("nothing ends the process should a thread not end: {error}");
    }
}

/// The signals a gateway listens for, from before it listens on any port: until a handler is
/// registered, SIGTERM and SIGHUP kill the process.
pub(super) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    quit: Option<Signal>,
    hangup: Option<Signal>,
    upgrade: Option<Signal>,
    /// handlers are registered on a runtime; whichever runs delivers them
    registered_on: Option<Runtime>,
}

impl Drop for Signals {
    /// A runtime must not be dropped where it would block, which is where this ends.
    fn drop(&mut self) {
        if let Some(runtime) = self.registered_on.take() {
            runtime.shutdown_background();
        }
    }
}

impl Signals {
    /// Registers all of them.
    pub(super) fn listen() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let runtime = runtime
            .inspect_err(|error| tracing::error!("no signals: {error}"))
            .ok();
        let entered = runtime.as_ref().map(Runtime::enter);
        let listen = |kind| {
            if entered.is_some() {
                listen_for(kind)
            } else {
                None
            }
        };
        let (terminate, interrupt) = (
            listen(SignalKind::terminate()),
            listen(SignalKind::interrupt()),
        );
        let (quit, hangup) = (listen(SignalKind::quit()), listen(SignalKind::hangup()));
        let upgrade = listen(SignalKind::user_defined2());
        drop(entered);
        Signals {
            terminate,
            interrupt,
            quit,
            hangup,
            upgrade,
            registered_on: runtime,
        }
    }
}

fn listen_for(kind: SignalKind) -> Option<Signal> {
    signal(kind)
        .inspect_err(|error| tracing::error!("cannot listen for signals: {error}"))
        .ok()
}

/// The next arrival of a signal; never, where it cannot be listened for.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
