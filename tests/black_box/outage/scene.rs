//! Gateways under load before a Redis that has an outage: the story every kind of outage tells.

use super::load::{Caller, Load, Sample, admitted, admitted_in, median};
use crate::gateway::{Gateway, app};
use crate::upstream::Upstream;
use crate::waiting;
use std::time::{Duration, Instant};

/// What a client may spend at `/quota` in an hour.
pub(super) const QUOTA: u64 = 60;

/// What a busy machine may take on top of a deadline.
const SLACK: Duration = Duration::from_millis(225);

/// Counting is shared again this soon after Redis answers again.
const SOON: Duration = Duration::from_secs(1);

const POLICIES: &str = "
routes:
  - { name: local, match: { path: /local }, upstream: app }
  - { name: allow, match: { path: /allow }, upstream: app }
  - { name: deny, match: { path: /deny }, upstream: app }
  - { name: quota, match: { path: /quota }, upstream: app }
  - { name: window, match: { path: /window }, upstream: app }
policies:
  local: { routes: [local], key: [ip], algorithm: token_bucket, quota: { count: 1000000, period: 1h } }
  allow: { routes: [allow], key: [ip], algorithm: token_bucket, quota: { count: 1000000, period: 1h }, on_outage: allow }
  deny: { routes: [deny], key: [ip], algorithm: token_bucket, quota: { count: 1000000, period: 1h }, on_outage: deny }
  quota: { routes: [quota], key: ['header:X-Key'], algorithm: token_bucket, quota: { count: 60, period: 1h } }
  window: { routes: [window], key: ['header:X-Key'], algorithm: sliding_window, quota: { count: 60, period: 1h } }
";

/// Gateways that share a Redis, and the upstream behind them.
pub(super) struct Scene {
    pub(super) gateways: Vec<Gateway>,
    _upstream: Upstream,
    timeout: Duration,
}

/// When what happened.
struct Times {
    strike: Instant,
    degraded: Instant,
    recovery: Instant,
    connected: Instant,
}

impl Scene {
    /// So many gateways with what `redis` says in `store.redis`, with one worker and two in turn;
    /// they know each other.
    pub(super) fn of(gateways: usize, timeout_ms: u64, redis: &str) -> Self {
        let workers: Vec<usize> = (0..gateways).map(|nth| 1 + nth % 2).collect();
        Self::of_workers(&workers, timeout_ms, redis)
    }

    /// A gateway for each number of workers.
    pub(super) fn of_workers(workers: &[usize], timeout_ms: u64, redis: &str) -> Self {
        let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
        let configuration = format!(
            "{}store: {{ redis: {{ {redis}, timeout: {timeout_ms}ms }} }}\n{POLICIES}",
            app(upstream.address)
        );
        let scene = Scene {
            gateways: workers
                .iter()
                .map(|workers| format!("{configuration}server: {{ threads: {workers} }}\n"))
                .map(|configuration| Gateway::start(&configuration))
                .collect(),
            _upstream: upstream,
            timeout: Duration::from_millis(timeout_ms),
        };
        for gateway in &scene.gateways {
            until_connected(gateway);
            waiting::until("the gateways know each other", || {
                gateway.metric("tidegate_store_gateways ") == workers.len() as f64
            });
        }
        scene
    }

    /// Callers of every outage mode, and one who has spent all there is.
    pub(super) fn load(&self) -> Load {
        let calls = [
            ("/local", "x"),
            ("/local", "x"),
            ("/allow", "x"),
            ("/deny", "x"),
            ("/quota", "spent"),
        ];
        let callers: Vec<Caller> = self
            .gateways
            .iter()
            .flat_map(|gateway| {
                calls.map(|(target, key)| Caller {
                    gateway: gateway.address,
                    target,
                    key,
                })
            })
            .collect();
        Load::start(&callers)
    }

    /// What all gateways together admit of so many requests through each.
    pub(super) fn admitted(&self, target: &'static str, key: &str, count: usize) -> u64 {
        let gateways = self.gateways.iter();
        gateways
            .map(|gateway| admitted(gateway.address, target, key, count))
            .sum()
    }

    /// Sums a metric over all gateways.
    pub(super) fn metric(&self, series: &str) -> f64 {
        let gateways = self.gateways.iter();
        gateways.map(|gateway| gateway.metric(series)).sum()
    }

    /// Lets an outage happen under load and checks all that holds for each kind. `kept`: Redis
    /// keeps what it holds.
    pub(super) fn lives_through<R>(
        &self,
        redis: &mut R,
        strike: impl FnOnce(&mut R),
        recover: impl FnOnce(&mut R),
        kept: bool,
    ) {
        let gateways = self.gateways.len() as u64;
        let load = self.load();
        // in turns, so that every gateway has seen the bucket half empty
        let half = ["/quota", "/window"].map(|target| -> u64 {
            let rounds = 0..30 / self.gateways.len();
            rounds.map(|_| self.admitted(target, "half", 1)).sum()
        });
        assert_eq!(half, [30, 30]);
        waiting::pause(Duration::from_millis(300));

        let strike_at = Instant::now();
        strike(redis);
        self.until_degraded();
        let degraded = Instant::now();
        // shares of one gateway each: what is new, what was half spent
        let during = ["/quota", "/window"].map(|target| self.admitted(target, "during", 70));
        let more = ["/quota", "/window"].map(|target| self.admitted(target, "half", 70));
        assert!(
            during
                .iter()
                .all(|units| (QUOTA..=QUOTA + gateways).contains(units)),
            "{during:?}"
        );
        assert!(more.iter().all(|&units| units <= 30 + gateways), "{more:?}");
        self.check_is_out();
        waiting::pause(Duration::from_millis(500));

        let recovery = Instant::now();
        recover(redis);
        let answers = Instant::now();
        self.gateways.iter().for_each(until_connected);
        let connected = Instant::now();
        assert!(
            connected - answers <= SOON,
            "counting is shared {:?} after Redis answers",
            connected - answers
        );
        // what was admitted meanwhile has been charged
        let after = ["/quota", "/window"].map(|target| self.admitted(target, "during", 10));
        assert!(after.iter().all(|&units| units <= 1), "{after:?}");
        let rest = ["/quota", "/window"].map(|target| self.admitted(target, "half", 70));
        let forgotten = if kept { 0 } else { 30 };
        assert!(
            rest.iter().all(|&units| units <= forgotten + 2),
            "after it {rest:?}, during it {more:?}"
        );
        waiting::pause(Duration::from_millis(300));
        let samples = load.stop();
        let times = Times {
            strike: strike_at,
            degraded,
            recovery,
            connected,
        };
        self.check_answers(&samples, &times);
        let spent = admitted_in(&samples, "/quota");
        let most = if kept { QUOTA } else { 2 * QUOTA };
        assert!(
            (QUOTA..=most + 2 * gateways).contains(&spent),
            "admitted {spent}"
        );
        self.check_is_told(1);
        eprintln!(
            "degraded after {:?}, shared again after {:?}; admitted: spent {spent}; during {during:?} then {after:?}; half {more:?} then {rest:?}",
            degraded - strike_at,
            connected - answers
        );
    }

    fn until_degraded(&self) {
        for gateway in &self.gateways {
            waiting::until("the outage is noticed", || {
                gateway.get("/health").json()["status"] == "degraded"
            });
        }
    }

    fn check_is_out(&self) {
        for gateway in &self.gateways {
            let health = gateway.get("/health");
            assert_eq!(health.status, 200);
            let redis = health.json()["redis"].clone();
            assert!(redis == "failing" || redis == "disconnected", "{redis}");
            assert_eq!(gateway.metric("tidegate_store_up "), 0.0);
            assert!(gateway.metric("tidegate_store_outage_total ") > 100.0);
        }
    }

    fn check_answers(&self, samples: &[Sample], times: &Times) {
        for sample in samples {
            let fine = match sample.target {
                "/local" | "/allow" => sample.status == 200,
                "/quota" => matches!(sample.status, 200 | 429),
                _ if sample.at >= times.connected || sample.at + sample.took <= times.strike => {
                    sample.status == 200
                }
                _ if sample.at >= times.degraded && sample.at + sample.took < times.recovery => {
                    sample.explained
                }
                _ => sample.status == 200 || sample.explained,
            };
            let after = sample.at.checked_duration_since(times.strike);
            assert!(fine, "{sample:?}, {after:?} after it began");
        }
        let longest = samples.iter().max_by_key(|sample| sample.took).unwrap();
        assert!(longest.took <= self.timeout + SLACK, "{longest:?}");
        let within = |from: Instant, to: Instant| -> Vec<&Sample> {
            let within = |sample: &&Sample| sample.at >= from && sample.at + sample.took < to;
            samples.iter().filter(within).collect()
        };
        let out = within(times.degraded, times.recovery);
        assert!(out.len() > 50, "only {} requests during it", out.len());
        assert!(median(&out) < self.timeout / 4, "{:?}", median(&out));
        let before = within(samples[0].at, times.strike);
        let between = within(times.strike, times.degraded);
        let longest = |of: &[&Sample]| of.iter().map(|sample| sample.took).max();
        eprintln!(
            "{} requests; median/longest before {:?}/{:?}, until it is noticed {:?}/{:?}, during it {:?}/{:?}",
            samples.len(),
            median(&before),
            longest(&before),
            median(&between),
            longest(&between),
            median(&out),
            longest(&out),
        );
    }

    /// So many outages, each of them told once when it began and once when it was over.
    pub(super) fn check_is_told(&self, outages: usize) {
        for gateway in &self.gateways {
            let text = gateway.stderr.text();
            let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
            assert_eq!(lines("the shared store is out"), outages, "{text}");
            assert_eq!(lines("counting is shared"), outages + 1, "{text}");
            let is_about_redis = |line: &&str| line.contains(" Redis") || line.contains("store");
            let lines = text.lines().filter(is_about_redis).count();
            assert!(lines <= 2 + 6 * outages, "{text}");
            let trips = gateway.metric("tidegate_store_trips_total ");
            assert_eq!(trips, outages as f64, "{text}");
            assert_eq!(gateway.metric("tidegate_store_up "), 1.0);
            assert_eq!(gateway.get("/health").json()["status"], "ok");
            waiting::until("nobody is counted as waiting", || {
                gateway.metric("tidegate_store_waiting ") == 0.0
            });
        }
    }
}

/// Waits until counting is shared.
pub(super) fn until_connected(gateway: &Gateway) {
    waiting::until("counting is shared", || {
        let health = gateway.get("/health").json();
        health["redis"] == "connected" && health["status"] == "ok"
    });
}
