//! Timelines decided by the real scripts at times that are given, for simulations.

use super::link::{BadSettings, CallFailed, Link, Settings};
use super::wire::{self, Frame, Set, Wanted};
use crate::limit::decision::{Charge, Decision};
use crate::limit::quota::PERIOD_US;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Buckets of one simulation; their keys share a prefix that no gateway uses, and expire.
pub struct Timeline {
    runtime: tokio::runtime::Runtime,
    link: Arc<Link>,
    prefix: String,
}

/// A timeline that cannot be decided.
#[derive(Debug, thiserror::Error)]
pub enum NoTimeline {
    /// the settings are wrong
    #[error(transparent)]
    Settings(#[from] BadSettings),
    /// no threads, no sockets
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
    /// nobody answers
    #[error("store.redis does not answer")]
    NoAnswer,
}

impl Timeline {
    /// Connects.
    pub fn connect(settings: &Settings, prefix: &str) -> Result<Self, NoTimeline> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let link = Arc::new(Link::new(settings)?);
        let kept = link.clone();
        runtime.spawn(async move { kept.keep().await });
        let up = link.clone();
        let connected = runtime.block_on(async move {
            let is_up = async {
                while !up.is_up() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, is_up).await
        });
        if connected.is_err() {
            return Err(NoTimeline::NoAnswer);
        }
        Ok(Timeline {
            runtime,
            link,
            prefix: format!("{prefix}simulate:{:016x}:", fastrand::u64(..)),
        })
    }

    /// Takes a cost from a bucket, or only looks, at `now_us`.
    pub fn decide(
        &self,
        charge: &Charge<'_>,
        now_us: u64,
        take: bool,
    ) -> Result<Decision, CallFailed> {
        let frame = Frame {
            gateway: "simulate",
            permit_ttl_us: *PERIOD_US.end(),
            gateways: 1,
        };
        let sets = [Set {
            buckets: Arc::new(std::iter::once(Wanted::of(charge)).collect()),
            requests: 1,
            extra: 0,
            lease_us: 0,
        }];
        let ask = |call: wire::Call| self.runtime.block_on(self.link.send(&call.at(now_us)));
        let granted = if take {
            let reply = ask(wire::spend(&frame, &self.prefix, &sets, now_us))?;
            wire::decode(&reply, &sets)?
        } else {
            let reply = ask(wire::peek(&frame, &self.prefix, &sets, now_us))?;
            wire::decode_peek(&reply, &sets)?
        };
        let [set] = &sets;
        let granted = granted.into_iter().next();
        let decision = granted.map(|granted| {
            let mut decision = granted.decision(set, 0);
            // a look takes nothing, and says whether there would be room
            decision.allowed |=
                !take && decision.buckets.iter().all(|bucket| bucket.answer.admits());
            decision
        });
        decision.ok_or(CallFailed::NotConnected)
    }
}
