//! The client's address, through trusted proxies only.

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Longest walk along `X-Forwarded-For`.
const MAX_HOPS: usize = 32;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Is this address one of our own proxies?
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// Walks `X-Forwarded-For` from the right past trusted proxies to the first address that is not
/// one. An entry that is no address ends the walk: what lies beyond it, nobody vouches for.
pub(super) fn find(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut address = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(address, trusted) {
        return address;
    }
    let lines = headers.get_all(X_FORWARDED_FOR).into_iter().rev();
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    for entry in entries.take(MAX_HOPS) {
        let Some(hop) = parse(entry) else { break };
        address = hop;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    address
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn found(peer: &str, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "2001:db8:aaaa::/48"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                X_FORWARDED_FOR,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        find(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(found("192.0.2.9", &["203.0.113.1"]), "192.0.2.9");
    }

    #[test]
    fn the_walk_goes_from_the_right_past_trusted_proxies_over_all_lines() {
        assert_eq!(
            found("10.0.0.1", &["203.0.113.1, 198.51.100.2, 10.0.0.2"]),
            "198.51.100.2"
        );
        assert_eq!(
            found("10.0.0.1", &["203.0.113.1", "10.0.0.3,10.0.0.2"]),
            "203.0.113.1"
        );
        assert_eq!(found("10.0.0.1", &["10.0.0.3"]), "10.0.0.3");
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(found("::ffff:10.0.0.1", &["203.0.113.1"]), "203.0.113.1");
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        assert_eq!(found("10.0.0.1", &["203.0.113.1:4711"]), "203.0.113.1");
        assert_eq!(found("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(
            found("10.0.0.1", &["[2001:db8::1], 2001:db8:aaaa::7"]),
            "2001:db8::1"
        );
    }

    #[test]
    fn what_lies_beyond_an_invalid_entry_is_not_believed() {
        assert_eq!(
            found("10.0.0.1", &["203.0.113.1, unknown, 10.0.0.2"]),
            "10.0.0.2"
        );
        assert_eq!(found("10.0.0.1", &["203.0.113.1,,"]), "10.0.0.1");
        assert_eq!(found("10.0.0.1", &["\u{ff}\u{ff}"]), "10.0.0.1");
    }

    #[test]
    fn an_absurd_header_is_walked_32_hops_and_no_further() {
        let absurd = format!("203.0.113.1{}", ", 10.0.0.2".repeat(5_000));
        assert_eq!(found("10.0.0.1", &[&absurd]), "10.0.0.2");
    }
}
