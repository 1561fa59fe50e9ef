//! Four gateways, one key, demand far above the limit: never more than promised, and hardly less.

use super::fleet::{Fleet, is_long, report};
use super::load::{Pace, Samples, Window, demand};
use std::collections::VecDeque;
use std::time::Duration;

const GATEWAYS: usize = 4;
const COUNT: u64 = 300;

/// What may be admitted beyond the quota for leases, seconds of its rate.
const LEASE_TTL: f64 = 0.1;

fn connections() -> usize {
    if is_long() { 64 } else { 16 }
}

/// Greedy demand on all gateways.
fn run(policy: &str, short_s: f64, long_s: f64) -> Samples {
    let fleet = Fleet::start(
        GATEWAYS,
        &format!("  p: {{ key: [global], on_outage: deny, {policy} }}"),
    );
    let leased = policy.contains("leased");
    if leased {
        fleet.until_leasing();
    }
    let length = Duration::from_secs_f64(if is_long() { long_s } else { short_s });
    let samples = demand(&fleet.gateways, connections(), length, |_, _| {
        Some(Pace::GREEDY)
    });
    fleet.assert_no_outage();
    for gateway in &fleet.gateways {
        assert!(gateway.metric("tidegate_store_calls_total ") > 0.0);
    }
    report(&format!(
        "{policy}: {} of {} admitted in {:.3} s; {} from leases, {} refused from memory, {} calls",
        samples.admitted(),
        samples.0.len(),
        samples.seconds(),
        fleet.sum("tidegate_store_lease_served_total "),
        fleet.sum("tidegate_store_remembered_refusals_total "),
        fleet.sum("tidegate_store_calls_total "),
    ));
    assert_eq!(fleet.upstream.requests() as u64, samples.admitted());
    assert!(
        samples.0.len() as u64 > samples.admitted() * 3 / 2,
        "demand was not far above the limit"
    );
    samples
}

/// Greedy demand on so many units a second, and what happened in each second.
fn run_by_windows(algorithm: &str, consistency: &str) -> (Samples, Vec<Window>) {
    let quota = format!("quota: {{ count: {COUNT}, period: 1s }}");
    let samples = run(
        &format!("algorithm: {algorithm}, consistency: {consistency}, {quota}"),
        4.0,
        10.0,
    );
    let windows = samples.windows(1_000_000);
    report(&format!("{windows:?}"));
    assert!(windows.len() >= 2);
    for window in &windows {
        assert!(window.surely <= COUNT, "{window:?}");
    }
    (samples, windows)
}

/// At least 99 % of what the quota allows.
fn assert_nearly_all(samples: &Samples, allowed: u64) {
    let admitted = samples.admitted();
    report(&format!("{admitted} of {allowed} that the quota allows"));
    assert!(admitted * 100 >= allowed * 99, "{admitted} of {allowed}");
    assert!(
        allowed > 2 * COUNT,
        "the machine is too busy for any demand"
    );
}

fn assert_token_bucket(consistency: &str, ahead_s: f64) {
    let (rate, burst) = (COUNT as f64, 150.0);
    let quota = format!("quota: {{ count: {COUNT}, period: 1s, burst: {burst} }}");
    let samples = run(
        &format!("algorithm: token_bucket, consistency: {consistency}, {quota}"),
        6.0,
        10.0,
    );
    let excess = samples.largest_excess(|length_us| burst + rate * length_us as f64 / 1e6);
    report(&format!("largest excess over burst + rate*t: {excess:.2}"));
    assert!(excess <= rate * ahead_s + 1e-6, "{excess}");
    let allowed = samples.ideally(|| {
        let (mut level, mut last_us) = (0.0f64, 0);
        move |now_us| {
            level = (level - (now_us - last_us) as f64 * rate / 1e6).max(0.0);
            last_us = now_us;
            let fits = level + 1.0 <= burst;
            level += f64::from(u8::from(fits));
            fits
        }
    });
    assert_nearly_all(&samples, allowed);
}

#[test]
fn strict_token_bucket() {
    assert_token_bucket("strict", 0.0);
}

#[test]
fn leased_token_bucket() {
    assert_token_bucket("leased", LEASE_TTL);
}

/// Demand ends half a period after a period has begun, so all of that period's units are taken.
fn assert_sliding_window(consistency: &str, count: u64) {
    let quota = format!("quota: {{ count: {count}, period: 2s }}");
    let samples = run(
        &format!("algorithm: sliding_window, consistency: {consistency}, {quota}"),
        5.0,
        11.0,
    );
    let most = samples.most_within(2_000_000);
    report(&format!("most within a period: {most} of {count}"));
    assert!(most <= count);
    // leased units stay in the log for the life of a lease longer
    let period_us = match consistency {
        "leased" => 2_000_000 + 20_000,
        _ => 2_000_000,
    };
    let allowed = samples.ideally(|| {
        let mut log = VecDeque::new();
        move |now_us| {
            while log.front().is_some_and(|date| date + period_us <= now_us) {
                log.pop_front();
            }
            let fits = (log.len() as u64) < count;
            if fits {
                log.push_back(now_us);
            }
            fits
        }
    });
    assert_nearly_all(&samples, allowed);
}

#[test]
fn strict_sliding_window() {
    assert_sliding_window("strict", 2 * COUNT);
}

#[test]
fn leased_sliding_window() {
    // so many that a gateway may lease: a hundredth of the period brings two each
    assert_sliding_window("leased", 1_000);
}

fn assert_fixed_window(consistency: &str) {
    let (samples, windows) = run_by_windows("fixed_window", consistency);
    for window in &windows {
        let allowed = COUNT.min(window.requests);
        assert!(window.perhaps * 100 >= allowed * 99, "{window:?}");
    }
    let worst = |length_us: u64| (COUNT * (length_us / 1_000_000 + 2)) as f64;
    assert!(samples.largest_excess(worst) <= 0.0);
    // the windows that it has touched, and no more
    let (begin, end) = samples.ends();
    let touched = end / 1_000_000 - begin / 1_000_000 + 1;
    assert!(samples.admitted() <= COUNT * touched);
}

#[test]
fn strict_fixed_window() {
    assert_fixed_window("strict");
}

#[test]
fn leased_fixed_window() {
    assert_fixed_window("leased");
}

fn assert_counter(consistency: &str) {
    let (samples, windows) = run_by_windows("sliding_window_counter", consistency);
    let most = samples.most_within(1_000_000);
    report(&format!("most within a period: {most} of {COUNT}"));
    assert!(most <= 2 * COUNT);
    // units come back evenly: those of the time after the last request of a window could not be had
    let allowed: f64 = windows
        .iter()
        .map(|window| COUNT as f64 * (1.0 - window.idle) - 1.0)
        .sum();
    let admitted: u64 = windows.iter().map(|window| window.perhaps).sum();
    assert!(
        admitted as f64 >= 0.99 * allowed,
        "{admitted} of {allowed}: {windows:?}"
    );
}

#[test]
fn strict_sliding_window_counter() {
    assert_counter("strict");
}

#[test]
fn leased_sliding_window_counter() {
    assert_counter("leased");
}
