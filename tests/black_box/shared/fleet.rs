//! Gateways that share a Redis and an upstream.

use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::RedisServer;
use crate::upstream::Upstream;
use crate::waiting::{self, pause};
use std::time::Duration;

/// A gateway leases only after the others have had this long to count it.
const OTHERS_KNOW: Duration = Duration::from_millis(2_600);

/// Gateways of one configuration. They end before what they talk to.
pub(super) struct Fleet {
    pub(super) gateways: Vec<Gateway>,
    pub(super) redis: RedisServer,
    pub(super) upstream: Upstream,
}

impl Fleet {
    /// So many gateways that all know of each other, before an upstream that answers at once.
    pub(super) fn start(gateways: usize, policies: &str) -> Self {
        let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
        Self::before(upstream, gateways, policies)
    }

    /// The same before an upstream of the test's own.
    pub(super) fn before(upstream: Upstream, gateways: usize, policies: &str) -> Self {
        let mut fleet = Fleet {
            gateways: Vec::new(),
            redis: RedisServer::start(),
            upstream,
        };
        let configuration = fleet.configuration(policies);
        for _ in 0..gateways {
            fleet.gateways.push(Gateway::start(&configuration));
        }
        fleet.until_all_know(gateways);
        fleet
    }

    /// The shared store, the upstream for everything, and policies. The deadline for Redis is one
    /// that a busy machine keeps, so that outage modes do not decide.
    pub(super) fn configuration(&self, policies: &str) -> String {
        format!(
            "{}{}{EVERYTHING}policies:\n{policies}",
            store(&self.redis),
            app(self.upstream.address)
        )
    }

    pub(super) fn until_all_know(&self, gateways: usize) {
        waiting::until("the gateways know of each other", || {
            self.gateways
                .iter()
                .all(|gateway| gateway.metric("tidegate_store_gateways ") == gateways as f64)
        });
    }

    /// From now on they may lease.
    pub(super) fn until_leasing(&self) {
        pause(OTHERS_KNOW);
    }

    /// A metric, added up over the gateways.
    pub(super) fn sum(&self, metric: &str) -> f64 {
        let values = self.gateways.iter().map(|gateway| gateway.metric(metric));
        values.sum()
    }

    /// Every decision was the store's.
    pub(super) fn assert_no_outage(&self) {
        assert_eq!(
            self.sum("tidegate_store_outage_total "),
            0.0,
            "the machine is too busy: outage modes have decided"
        );
    }
}

pub(super) fn store(redis: &RedisServer) -> String {
    format!(
        "store: {{ redis: {{ url: \"{}\", timeout: 5s }} }}\n",
        redis.url()
    )
}

/// The long form of the tests: `TIDEGATE_LONG=1`.
pub(super) fn is_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

/// One line of a test's report, seen with `--no-capture`.
#[allow(clippy::print_stderr, reason = "a test reports its numbers")]
pub(super) fn report(line: &str) {
    eprintln!("{line}");
}
