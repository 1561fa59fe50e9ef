//! Upstreams: each has a peer that takes requests.

use std::collections::{BTreeMap, HashMap};

use super::Review;
use crate::config::model::{Peer, Upstream};
use crate::config::place::Place;
use crate::config::raw;

pub(super) fn resolve(
    raw: BTreeMap<String, raw::Upstream>,
    review: &mut Review<'_>,
) -> BTreeMap<String, Upstream> {
    let place = Place::ROOT.then("upstreams");
    raw.into_iter()
        .map(|(name, raw)| {
            let upstream = upstream(raw, &place.then(&name), review);
            (name, upstream)
        })
        .collect()
}

fn upstream(raw: raw::Upstream, place: &Place<'_>, review: &mut Review<'_>) -> Upstream {
    let peers = raw
        .peers
        .map(|raw| peers(raw, &place.then("peers"), review))
        .unwrap_or_default();
    let queue = place.then("queue");
    if raw.queue.size > 0 && raw.max_concurrent.is_none() {
        let hint = "set `max_concurrent`, or leave out the queue";
        review.warning(
            &queue.then("size"),
            "without `max_concurrent` nothing ever waits in the queue",
            hint,
        );
    }
    Upstream {
        peers,
        balance: raw.balance,
        protocol: raw.protocol,
        max_concurrent: raw.max_concurrent,
        queue_size: raw.queue.size,
        queue_timeout: review.positive(&raw.queue.timeout, &queue.then("timeout")),
        connect_timeout: review.positive(&raw.connect_timeout, &place.then("connect_timeout")),
        read_timeout: review.positive(&raw.read_timeout, &place.then("read_timeout")),
        write_timeout: review.positive(&raw.write_timeout, &place.then("write_timeout")),
        idle_timeout: review.positive(&raw.idle_timeout, &place.then("idle_timeout")),
        retries: raw.retries,
    }
}

fn peers(raw: Vec<Option<raw::Peer>>, place: &Place<'_>, review: &mut Review<'_>) -> Vec<Peer> {
    if raw.is_empty() {
        review.error(
            place,
            "there is no peer",
            "give at least one: `- address: 127.0.0.1:9001`",
        );
    }
    let mut first_of = HashMap::new();
    let mut peers: Vec<Peer> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let Some((weight, address)) = raw.and_then(|raw| Some((raw.weight, raw.address?))) else {
            continue;
        };
        let address = address.value;
        if let Some(first) =
            first_of.insert((address.host.to_ascii_lowercase(), address.port), index)
        {
            let place = place.then(index);
            let place = place.then("address");
            let message = format!(
                "{} is a peer already (peers[{first}])",
                review.shown(&place)
            );
            review.error(
                &place,
                message,
                "remove one of the two, and raise the other's `weight` if that was meant",
            );
        }
        peers.push(Peer {
            host: address.host,
            port: address.port,
            weight,
        });
    }
    if !peers.is_empty() && peers.iter().all(|peer| peer.weight == 0) {
        review.error(
            place,
            "every peer has weight 0, so none takes requests",
            "give one of them a weight of 1 or more",
        );
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{errors, loaded};

    #[test]
    fn an_upstream_needs_a_peer_with_weight() {
        assert_eq!(
            errors(
                "upstreams:\n  a: { peers: [] }\n  b: { peers: [{ address: x:1, weight: 0 }] }\n  c:\n    peers:\n"
            ),
            [
                "2:8 upstreams.a.peers: there is no peer",
                "3:8 upstreams.b.peers: every peer has weight 0, so none takes requests",
                "5:5 upstreams.c.peers: there is no peer",
            ]
        );
    }

    #[test]
    fn a_peer_occurs_once() {
        assert_eq!(
            errors("upstreams:\n  a:\n    peers:\n      - address: X:1\n      - address: x:1\n"),
            ["5:18 upstreams.a.peers[1].address: `x:1` is a peer already (peers[0])"]
        );
    }

    #[test]
    fn peers_keep_names_and_ports() {
        let config =
            loaded("upstreams: { a: { peers: [{ address: '[::1]:80', weight: 3 }] } }").config;
        assert_eq!(
            config.upstreams["a"].peers,
            [Peer {
                host: "::1".into(),
                port: 80,
                weight: 3
            }]
        );
    }
}
