//! Leases through an outage: what a gateway has taken in advance is bounded in it too.

use super::load::{Caller, Load, admitted_in};
use super::scene::until_connected;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::RedisServer;
use crate::upstream::Upstream;
use crate::waiting::{self, pause};
use std::time::Duration;

/// Per second.
const RATE: f64 = 200.0;
const BURST: f64 = 100.0;

#[test]
fn leases_and_an_outage_admit_no_more_than_the_bound_and_one_share() {
    let mut redis = RedisServer::start_persistent();
    let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
    let gateway = Gateway::start(&format!(
        "{}{EVERYTHING}store: {{ redis: {{ url: \"{}\", timeout: 250ms }} }}
policies: {{ p: {{ key: [global], algorithm: token_bucket, quota: {{ count: 2000, period: 10s, burst: 100 }}, consistency: leased }} }}",
        app(upstream.address),
        redis.url()
    ));
    until_connected(&gateway);
    let caller = Caller {
        gateway: gateway.address,
        target: "/",
        key: "x",
    };
    // demand below the rate is leased, demand above it is not
    let light = Load::start(&[caller]);
    waiting::until("requests are served from leases", || {
        gateway.metric("tidegate_store_lease_served_total ") > 20.0
    });
    let heavy = Load::start(&[caller; 6]);
    redis.kill();
    waiting::until("the outage is noticed", || {
        gateway.get("/health").json()["status"] == "degraded"
    });
    pause(Duration::from_secs(1));
    redis.restart_with_data();
    until_connected(&gateway);
    pause(Duration::from_secs(1));
    let mut samples = light.stop();
    samples.extend(heavy.stop());
    samples.sort_by_key(|sample| sample.at);
    let (first, last) = (samples.first().unwrap(), samples.last().unwrap());
    let seconds = (last.at + last.took - first.at).as_secs_f64();
    for sample in &samples {
        assert!(matches!(sample.status, 200 | 429), "{sample:?}");
        assert!(sample.took <= Duration::from_millis(475), "{sample:?}");
    }
    let admitted = admitted_in(&samples, "/") as f64;
    let bound = BURST + RATE * (seconds + 0.1);
    assert!(admitted > bound / 2.0, "the load is no load: {admitted}");
    assert!(
        admitted <= bound + BURST,
        "{admitted} in {seconds} s, at most {bound} and {BURST}"
    );
    eprintln!(
        "{admitted} of {} in {seconds} s; bound {bound}",
        samples.len()
    );
}
