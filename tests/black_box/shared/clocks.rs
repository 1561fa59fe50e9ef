//! Gateways whose clocks are ten minutes off decide by the clock of the store.

use super::fleet::{report, store};
use crate::client::Response;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::{RedisServer, libfaketime};
use crate::upstream::Upstream;
use crate::waiting;

/// How far the clocks of gateways are off, seconds: beside the true one.
const OFF: i64 = 600;

/// A gateway whose clock is off.
struct Skewed {
    gateway: Gateway,
}

impl Skewed {
    fn start(seconds: i64, configuration: &str) -> Self {
        let shift = format!("{seconds:+}");
        let library = libfaketime("libfaketimeMT.so.1");
        let environment = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME", shift.as_str()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let gateway = Gateway::start_in(&environment, configuration);
        Skewed { gateway }
    }
}

impl Drop for Skewed {
    fn drop(&mut self) {
        // what libfaketime keeps for a process in shared memory
        let process = self.gateway.process_id();
        for name in ["faketime_shm", "sem.faketime_sem"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{name}_{process}"));
        }
    }
}

/// Two gateways whose clocks differ from the store's by ten minutes either way, and one from the first's by
/// twenty.
struct Clocks {
    gateways: [Skewed; 2],
    redis: RedisServer,
    _upstream: Upstream,
    /// what the clock of the store was set off by
    shift: i64,
}

impl Clocks {
    /// `shift`: what the store's clock is off by.
    fn start(shift: i64, policy: &str) -> Self {
        let redis = RedisServer::start_with_clock();
        redis.shift_clock(shift as f64);
        let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
        let configuration = format!(
            "{}{}{EVERYTHING}policies:\n  p: {{ key: [global], {policy} }}",
            store(&redis),
            app(upstream.address)
        );
        let gateways = [shift + OFF, shift - OFF].map(|off| Skewed::start(off, &configuration));
        let clocks = Clocks {
            gateways,
            redis,
            _upstream: upstream,
            shift,
        };
        clocks.assert_off();
        clocks
    }

    /// Their clocks are really off: the Date of an answer says so.
    fn assert_off(&self) {
        for (skewed, off) in self
            .gateways
            .iter()
            .zip([self.shift + OFF, self.shift - OFF])
        {
            let text = skewed.gateway.stderr.text();
            let time = text.split_whitespace().next().unwrap_or_default();
            report(&format!("a gateway off by {off} s says it is {time}"));
            let expected = seconds_of_day(now() + off);
            let logged = logged_seconds_of_day(time);
            let difference = (logged - expected).rem_euclid(86_400);
            assert!(
                !(60..86_400 - 60).contains(&difference),
                "{time}: the clock is not off by {off} s"
            );
        }
    }

    fn get(&self, gateway: usize) -> Response {
        let response = self.gateways[gateway].gateway.get("/");
        assert!([200, 429].contains(&response.status), "{response}");
        response
    }

    /// Exactly so many are admitted, over both in turn, and every answer's reset is at this time of the store's.
    fn assert_admit(&self, admitted: u64, reset_at: impl Fn(u64) -> std::ops::RangeInclusive<i64>) {
        for nth in 0..admitted + 4 {
            let response = self.get(nth as usize % 2);
            assert_eq!(response.status == 200, nth < admitted, "{nth}: {response}");
            let reset = response.number("X-RateLimit-Reset") as i64;
            let used = (nth + 1).min(admitted);
            let range = reset_at(used);
            assert!(
                range.contains(&reset),
                "{reset} is not in {range:?}: {response}"
            );
        }
    }

    fn store_now(&self) -> i64 {
        now() + self.shift
    }

    fn step(&mut self, seconds: i64) {
        self.shift += seconds;
        self.redis.shift_clock(self.shift as f64);
    }

    /// Refusals from before the step are remembered for a second at most.
    fn until_both_admit(&self) {
        for gateway in 0..2 {
            waiting::until("the store's clock has stepped over the wait", || {
                self.get(gateway).status == 200
            });
        }
    }

    fn assert_both_refuse(&self) {
        // also what the store says, not the memory of the gateway alone
        waiting::pause(std::time::Duration::from_millis(1_200));
        for gateway in 0..2 {
            assert_eq!(self.get(gateway).status, 429);
        }
    }

    fn assert_no_outage(&self) {
        for skewed in &self.gateways {
            assert_eq!(skewed.gateway.metric("tidegate_store_outage_total "), 0.0);
        }
    }
}

/// Seconds since 1970, true.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs() as i64
}

fn seconds_of_day(time: i64) -> i64 {
    time.rem_euclid(86_400)
}

/// Of `2026-11-20T19:55:50.123456Z`.
fn logged_seconds_of_day(time: &str) -> i64 {
    let clock = time
        .split('T')
        .nth(1)
        .unwrap_or_else(|| panic!("no time: {time}"));
    let mut parts = clock
        .split([':', '.'])
        .map(|part| part.parse::<i64>().unwrap_or(0));
    let mut next = || parts.next().unwrap();
    next() * 3_600 + next() * 60 + next()
}

#[test]
fn a_token_bucket_refills_by_the_stores_clock() {
    let mut clocks = Clocks::start(
        0,
        "algorithm: token_bucket, quota: { count: 10, period: 1000s }",
    );
    let begin = clocks.store_now();
    // a unit each 100 seconds: at a gateway's own clock six would be back, or none for long
    clocks.assert_admit(10, |used| {
        let whole = begin + 100 * used as i64;
        whole - 2..=whole + 10
    });
    clocks.step(50);
    clocks.assert_both_refuse();
    clocks.step(160);
    clocks.until_both_admit();
    clocks.assert_both_refuse();
    clocks.assert_no_outage();
}

#[test]
fn a_sliding_window_forgets_by_the_stores_clock() {
    let mut clocks = Clocks::start(
        0,
        "algorithm: sliding_window, quota: { count: 10, period: 300s }",
    );
    let begin = clocks.store_now();
    clocks.assert_admit(10, |_| begin + 298..=begin + 312);
    clocks.step(250);
    clocks.assert_both_refuse();
    clocks.step(60);
    clocks.until_both_admit();
    clocks.assert_no_outage();
}

#[test]
fn a_fixed_window_ends_by_the_stores_clock() {
    // windows of five minutes; the store is 100 seconds before the end of one
    let shift = 200 - now().rem_euclid(300);
    let mut clocks = Clocks::start(
        shift,
        "algorithm: fixed_window, quota: { count: 10, period: 300s }",
    );
    let end = (clocks.store_now() / 300 + 1) * 300;
    clocks.assert_admit(10, |_| end..=end);
    clocks.step(50);
    clocks.assert_both_refuse();
    clocks.step(60);
    clocks.until_both_admit();
    // two have been admitted at least
    let rest = (0..20)
        .filter(|nth| clocks.get(nth % 2).status == 200)
        .count();
    assert!(rest <= 8, "{rest}");
    clocks.assert_both_refuse();
    clocks.assert_no_outage();
}

#[test]
fn a_calendar_day_ends_by_the_stores_clock() {
    // at the store it is five to midnight: for one gateway five past, for the other a quarter past half eleven
    let midnight = (now() / 86_400 + 1) * 86_400;
    let mut clocks = Clocks::start(
        midnight - 300 - now(),
        "algorithm: fixed_window, quota: { count: 10, calendar: day, time_zone: UTC }",
    );
    clocks.assert_admit(10, |_| midnight..=midnight);
    clocks.step(200);
    clocks.assert_both_refuse();
    clocks.step(200);
    clocks.until_both_admit();
    let rest = (0..20)
        .filter(|nth| clocks.get(nth % 2).status == 200)
        .count();
    assert!(rest <= 8, "{rest}");
    assert_eq!(
        clocks.get(0).number("X-RateLimit-Reset") as i64,
        midnight + 86_400
    );
    clocks.assert_both_refuse();
    clocks.assert_no_outage();
}
