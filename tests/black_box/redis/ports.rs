//! Ports for servers that go down and come back.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;

/// Below those that the system hands out: nobody takes the port while its server is down, and no connection to a
/// dead server meets itself.
const FIRST: u16 = 10_000;
const COUNT: u16 = 10_000;
/// A node of a cluster talks to the others on a port this much higher.
const CLUSTER_BUS: u16 = 10_000;

/// How often a fixture tries another port before it gives up.
pub(crate) const ATTEMPTS: usize = 50;

/// A port that was free a moment ago, and so was the one for the bus of a cluster. Whoever finds it taken tries
/// again with another.
pub(crate) fn probably_free() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..ATTEMPTS {
        let random = RandomState::new().build_hasher().finish();
        let port = FIRST + u16::try_from(random % u64::from(COUNT)).unwrap();
        if free(port) && free(port + CLUSTER_BUS) {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT)
}
