//! Signals: stop accepting, let requests in flight end, go.

use crate::snapshot::Running;
use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Longest drain after SIGINT: somebody waits at a terminal.
const QUICK: Duration = Duration::from_secs(5);

/// How often a drain looks whether all requests have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits for signals and drains.
///
/// Pingora's own grace period is a blocking sleep even when nothing is in flight, and its SIGQUIT
/// without a successor an outage; so this answers only when the process may end at once.
pub(super) struct StopSignals {
    running: Arc<Running>,
    grace_period: Duration,
    stop_accepting: watch::Sender<bool>,
}

impl StopSignals {
    pub(super) fn new(running: Arc<Running>, grace_period: Duration) -> Self {
        StopSignals {
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
    }
}

#[async_trait]
impl ShutdownSignalWatch for StopSignals {
    async fn recv(&self) -> ShutdownSignal {
        let mut terminate = listen_for(SignalKind::terminate());
        let mut interrupt = listen_for(SignalKind::interrupt());
        let mut quit = listen_for(SignalKind::quit());
        let mut ignored = [SignalKind::hangup(), SignalKind::user_defined2()].map(listen_for);
        let [hangup, upgrade] = &mut ignored;
        let grace_period = loop {
            tokio::select! {
                () = next(&mut terminate) => break self.grace_period,
                () = next(&mut quit) => break self.grace_period,
                () = next(&mut interrupt) => break self.grace_period.min(QUICK),
                () = next(hangup) => tracing::warn!("SIGHUP: this version reads its configuration only at the start"),
                () = next(upgrade) => tracing::warn!("SIGUSR2: this version cannot replace its binary while it runs"),
            }
        };
        tokio::select! {
            () = self.drain(grace_period) => (),
            () = next(&mut terminate) => (),
            () = next(&mut interrupt) => (),
        }
        ShutdownSignal::FastShutdown
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
