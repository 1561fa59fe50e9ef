//! Requests in flight, counted over gateways: `count` at most, and a permit comes back however its
//! request ends.

use super::fleet::Fleet;
use crate::client::{Connection, head};
use crate::gateway::Gateway;
use crate::upstream::{Exchange, Then, Upstream};
use crate::waiting::{self, pause};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The time after which permits of a gateway that is gone are back.
const TTL: Duration = Duration::from_secs(5);

/// An upstream that answers `/now` at once and holds everything else until it is released; what ends in
/// `broken` it then does not answer.
struct Held {
    fleet: Fleet,
    released: Arc<Mutex<HashSet<String>>>,
}

impl Held {
    fn start(count: u64) -> Self {
        Self::start_with(count, "")
    }

    /// With further sections of the configuration.
    fn start_with(count: u64, sections: &str) -> Self {
        let released: Arc<Mutex<HashSet<String>>> = Arc::default();
        let script = released.clone();
        let upstream = Upstream::scripted(move |exchange: &mut Exchange| {
            let path = exchange
                .head
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .to_owned();
            while path != "/now" && !script.lock().unwrap().contains(&path) {
                pause(Duration::from_millis(5));
            }
            match path.ends_with("broken") {
                true => Ok(Then::Close),
                false => exchange.answer("done"),
            }
        });
        let policy = format!(
            "  p: {{ key: [global], algorithm: concurrency, quota: {{ count: {count} }} }}\n{sections}"
        );
        Held {
            fleet: Fleet::before(upstream, 2, &policy),
            released,
        }
    }

    fn gateway(&self, index: usize) -> &Gateway {
        &self.fleet.gateways[index]
    }

    /// Sends a request until it is admitted; the upstream holds it. The permit of a request that has just been
    /// answered is on its way back.
    fn hold(&self, gateway: usize, path: &str) -> Connection {
        waiting::find("the upstream holds the request", || {
            let mut connection = self.gateway(gateway).connect();
            connection.send(head("GET", path, &[], 0));
            let stream = connection.stream.try_clone().unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut is_held = false;
            waiting::until("the request is held or refused", || {
                let heads = self.fleet.upstream.heads();
                is_held = heads
                    .iter()
                    .any(|head| head.starts_with(&format!("GET {path} ")));
                is_held || stream.peek(&mut [0]).is_ok()
            });
            stream.set_nonblocking(false).unwrap();
            is_held.then_some(connection)
        })
    }

    fn release(&self, path: &str) {
        self.released.lock().unwrap().insert(path.to_owned());
    }

    fn assert_full(&self) {
        for gateway in &self.fleet.gateways {
            let refusal = gateway.get("/now");
            assert_eq!(refusal.status, 429, "{refusal}");
            assert!(refusal.json()["retry_after_ms"].is_null(), "{refusal}");
            assert_eq!(refusal.header("Retry-After"), Some("1"));
        }
    }

    /// Both gateways see that there is room, soon.
    fn until_room(&self) {
        for gateway in &self.fleet.gateways {
            waiting::until("there is room", || gateway.get("/now").status == 200);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // threads of the upstream end
        let heads = self.fleet.upstream.heads();
        let paths = heads.iter().filter_map(|head| head.split(' ').nth(1));
        self.released
            .lock()
            .unwrap()
            .extend(paths.map(str::to_owned));
    }
}

#[test]
fn a_permit_comes_back_however_its_request_ends() {
    let held = Held::start(4);
    let mut first = held.hold(0, "/first");
    let second = held.hold(0, "/second");
    let mut third = held.hold(1, "/third-broken");
    let _fourth = held.hold(1, "/fourth");
    held.assert_full();
    // it ends
    held.release("/first");
    assert_eq!(first.answer().status, 200);
    held.until_room();
    let _fifth = held.hold(1, "/fifth");
    held.assert_full();
    // its client goes
    drop(second);
    held.until_room();
    let _sixth = held.hold(0, "/sixth");
    held.assert_full();
    // its upstream fails
    held.release("/third-broken");
    assert_eq!(third.answer().status, 502);
    held.until_room();
    let _seventh = held.hold(0, "/seventh");
    held.assert_full();
}

#[test]
fn a_killed_gateway_gives_back_within_the_ttl_and_a_long_request_keeps_its_permit() {
    let held = Held::start(3);
    let long = Instant::now();
    let mut first = held.hold(1, "/long");
    let _lost = [held.hold(0, "/a"), held.hold(0, "/b")];
    held.assert_full();
    held.gateway(0).signal("KILL");
    let killed = Instant::now();
    assert_eq!(held.gateway(1).get("/now").status, 429);
    waiting::until("the permits are back", || {
        held.gateway(1).get("/now").status == 200
    });
    let took = killed.elapsed();
    super::fleet::report(&format!("permits were back after {took:?}"));
    assert!(took <= TTL + Duration::from_secs(1), "{took:?}");
    // two are back, not three: the long request has outlived its permit's first life
    while long.elapsed() < TTL + Duration::from_secs(3) {
        pause(Duration::from_millis(100));
    }
    let _more = [held.hold(1, "/c"), held.hold(1, "/d")];
    assert_eq!(held.gateway(1).get("/now").status, 429);
    held.release("/long");
    assert_eq!(first.answer().status, 200);
    waiting::until("there is room", || {
        held.gateway(1).get("/now").status == 200
    });
}

#[test]
fn a_gateway_that_stops_gives_back_the_permits_of_requests_it_cuts_off() {
    let mut held = Held::start_with(3, "server: { grace_period: 300ms }");
    let _stays = held.hold(1, "/stays");
    let _cut = [held.hold(0, "/a"), held.hold(0, "/b")];
    held.assert_full();
    held.gateway(0).signal("TERM");
    let status = held.fleet.gateways[0].ended();
    assert!(status.success(), "{status}");
    let ((), took) = waiting::timed(|| {
        waiting::until("the permits are back", || {
            held.gateway(1).get("/now").status == 200
        });
    });
    super::fleet::report(&format!("permits were back {took:?} after the end"));
    assert!(took <= Duration::from_millis(500), "{took:?}");
    let _more = [held.hold(1, "/c"), held.hold(1, "/d")];
    assert_eq!(held.gateway(1).get("/now").status, 429);
}

#[test]
fn never_more_than_count_are_in_flight_under_load() {
    const COUNT: usize = 5;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (in_flight, largest) = (now.clone(), most.clone());
    let upstream = Upstream::scripted(move |exchange: &mut Exchange| {
        let count = in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        largest.fetch_max(count, Ordering::SeqCst);
        pause(Duration::from_millis(20));
        in_flight.fetch_sub(1, Ordering::SeqCst);
        exchange.answer("done")
    });
    let policy =
        format!("  p: {{ key: [global], algorithm: concurrency, quota: {{ count: {COUNT} }} }}");
    let fleet = Fleet::before(upstream, 2, &policy);
    let pace = super::load::Pace::every(Duration::from_millis(5));
    let samples = super::load::demand(&fleet.gateways, 8, Duration::from_secs(3), |_, _| {
        Some(pace)
    });
    let admitted = samples.admitted();
    super::fleet::report(&format!(
        "{admitted} of {} admitted, {} in flight at most",
        samples.0.len(),
        most.load(Ordering::SeqCst)
    ));
    assert_eq!(most.load(Ordering::SeqCst), COUNT);
    assert!(admitted > 50, "{admitted}");
    fleet.assert_no_outage();
    // and all of them have come back
    let _all: Vec<_> = (0..COUNT)
        .map(|_| {
            waiting::find("a place is free", || {
                Some(fleet.gateways[0].get("/")).filter(|response| response.status == 200)
            })
        })
        .collect();
    waiting::until("nothing is in flight", || {
        let fields = fleet.redis.command(&["HVALS", "tg:c:p:g"]);
        fields.lines().all(|field| field.starts_with("0:"))
    });
}
