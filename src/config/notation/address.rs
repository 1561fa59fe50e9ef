//! Addresses to listen on, addresses of peers, networks and host names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::Notation;

/// An IP address and port to listen on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct ListenAddress(pub(in crate::config) SocketAddr);

impl Notation for ListenAddress {
    const FORMAT: &'static str = "tidegate-listen-address";
    const WHAT: &'static str = "an address to listen on";
    const HINT: &'static str =
        "write an IP address and a port, such as `0.0.0.0:8080` or `[::]:8080`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        text.parse().map(ListenAddress).map_err(|_| {
            if text.parse::<u16>().is_ok() {
                return Some(format!("write `0.0.0.0:{text}` for every interface"));
            }
            if let Ok(ip) = text.parse::<IpAddr>() {
                return Some(format!(
                    "a port is missing: `{}`",
                    SocketAddr::new(ip, 8080)
                ));
            }
            let port = text
                .strip_prefix([':', '*'])
                .map(|rest| rest.trim_start_matches(':'));
            if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
                return Some(format!("write `0.0.0.0:{port}` for every interface"));
            }
            text.strip_prefix("localhost:")
                .map(|port| format!("write `127.0.0.1:{port}`"))
        })
    }
}

/// The host (name or IP) and port of a peer.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct PeerAddress {
    /// A name or an IP, IPv6 without brackets.
    pub(in crate::config) host: String,
    /// Not 0.
    pub(in crate::config) port: u16,
}

impl Notation for PeerAddress {
    const FORMAT: &'static str = "tidegate-peer-address";
    const WHAT: &'static str = "the address of a peer";
    const HINT: &'static str =
        "write host and port, such as `127.0.0.1:9001`, `orders.internal:80` or `[::1]:9001`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if let Some((_, rest)) = text.split_once("://") {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            return Err(Some(format!(
                "leave out the scheme and the path: `{authority}`"
            )));
        }
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Err(Some(format!(
                "an IPv6 address needs brackets and a port: `[{ip}]:80`"
            )));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(is_host(text).then(|| format!("a port is missing: `{text}:80`")));
        };
        let Some(port) = port.parse::<u16>().ok().filter(|port| *port > 0) else {
            return Err(Some("the port is a number from 1 to 65535".to_owned()));
        };
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let valid = match bracketed {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        let host = bracketed.unwrap_or(host).to_owned();
        if valid {
            Ok(PeerAddress { host, port })
        } else {
            Err(None)
        }
    }
}

/// A network, or a single address as a network of one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Network(pub(in crate::config) IpNet);

impl Notation for Network {
    const FORMAT: &'static str = "tidegate-network";
    const WHAT: &'static str = "a network";
    const HINT: &'static str =
        "write an address and the length of its prefix, such as `10.0.0.0/8` or `fd00::/8`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Network(IpNet::from(ip)));
        }
        match text.parse::<IpNet>() {
            Ok(network) if network.trunc() != network => Err(Some(format!(
                "bits are set behind the prefix; write `{}`",
                network.trunc()
            ))),
            Ok(network) => Ok(Network(network)),
            Err(_) => Err(None),
        }
    }
}

/// A host as it is compared: lower case, no port, IPv6 in brackets and in the form of RFC 5952.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct HostName(pub(in crate::config) String);

impl Notation for HostName {
    const FORMAT: &'static str = "tidegate-host";
    const WHAT: &'static str = "a host name";
    const HINT: &'static str =
        "write a name or an IP address without a port, such as `gateway.example.com`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let lower = text.to_ascii_lowercase();
        let literal = lower
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']')?.parse::<Ipv6Addr>().ok());
        if let Some(ip) = literal {
            return Ok(HostName(format!("[{ip}]")));
        }
        if is_host(&lower) {
            return Ok(HostName(lower));
        }
        Err(host_hint(text))
    }
}

/// A host, or `*.` and a domain for all its subdomains.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct HostPattern(pub(in crate::config) String);

impl Notation for HostPattern {
    const FORMAT: &'static str = "tidegate-host-pattern";
    const WHAT: &'static str = "a host";
    const HINT: &'static str =
        "write a name without a port, such as `api.example.com`, or `*.example.com`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text == "*" {
            return Err(Some("leave out `hosts` for every host".to_owned()));
        }
        match text.strip_prefix("*.") {
            Some(domain) if is_host(domain) && domain.parse::<IpAddr>().is_err() => {
                Ok(HostPattern(text.to_ascii_lowercase()))
            }
            Some(_) => Err(None),
            None => HostName::parse(text).map(|host| HostPattern(host.0)),
        }
    }
}

fn host_hint(text: &str) -> Option<String> {
    if !text.is_ascii() {
        return Some("write an international name in its `xn--` form".to_owned());
    }
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        return Some(format!(
            "leave out the scheme: `{}`",
            rest.split(['/', ':']).next().unwrap_or_default()
        ));
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some(format!("write `[{ip}]`"));
    }
    let shorter = text
        .strip_suffix('.')
        .or_else(|| text.rsplit_once(':').map(|(host, _)| host))?;
    is_host(shorter).then(|| format!("write `{shorter}`"))
}

/// An IPv4 address or a name of letters, digits, `-` and `_` (containers have names with `_`).
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        return false;
    }
    // A name whose last label is a number would be taken for an IPv4 address by every resolver.
    let last = text.rsplit('.').next().unwrap_or_default();
    !last.bytes().all(|b| b.is_ascii_digit()) || text.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::instead;
    use super::*;

    #[test]
    fn listen_addresses_are_ip_and_port() {
        assert!(ListenAddress::parse("0.0.0.0:8080").is_ok());
        assert!(ListenAddress::parse("[::]:8080").is_ok());
        for (text, hint) in [
            ("8080", "write `0.0.0.0:8080` for every interface"),
            (":8080", "write `0.0.0.0:8080` for every interface"),
            ("*:8080", "write `0.0.0.0:8080` for every interface"),
            ("localhost:9180", "write `127.0.0.1:9180`"),
            ("::1", "a port is missing: `[::1]:8080`"),
            ("0.0.0.0:99999", ""),
            ("", ""),
        ] {
            assert_eq!(instead::<ListenAddress>(text), hint, "{text}");
        }
    }

    #[test]
    fn peers_are_names_or_ips_with_a_port() {
        let peer = |text: &str| PeerAddress::parse(text).map(|p| (p.host, p.port)).ok();
        assert_eq!(peer("127.0.0.1:9001"), Some(("127.0.0.1".into(), 9001)));
        assert_eq!(peer("[::1]:80"), Some(("::1".into(), 80)));
        assert_eq!(
            peer("orders_v2.internal:80"),
            Some(("orders_v2.internal".into(), 80))
        );
        for (text, hint) in [
            (
                "http://orders:80/x",
                "leave out the scheme and the path: `orders:80`",
            ),
            (
                "redis://:p/w@orders:80?x",
                "leave out the scheme and the path: `orders:80`",
            ),
            ("orders", "a port is missing: `orders:80`"),
            (
                "::1",
                "an IPv6 address needs brackets and a port: `[::1]:80`",
            ),
            ("orders:0", "the port is a number from 1 to 65535"),
            ("300.1.1.1:80", ""),
            ("a b:80", ""),
            (":80", ""),
            ("", ""),
        ] {
            assert_eq!(instead::<PeerAddress>(text), hint, "{text}");
        }
    }

    #[test]
    fn networks_have_no_bits_behind_the_prefix() {
        assert!(Network::parse("10.0.0.0/8").is_ok());
        assert!(Network::parse("::1").is_ok_and(|n| n.0.prefix_len() == 128));
        assert_eq!(
            instead::<Network>("10.1.2.3/8"),
            "bits are set behind the prefix; write `10.0.0.0/8`"
        );
        assert!(Network::parse("10.0.0.0/33").is_err());
    }

    #[test]
    fn hosts_are_lower_case_without_port() {
        assert!(HostPattern::parse("*.Example.COM") == Ok(HostPattern("*.example.com".into())));
        assert!(HostPattern::parse("LOCALHOST") == Ok(HostPattern("localhost".into())));
        assert!(HostPattern::parse("[0:0::1]") == Ok(HostPattern("[::1]".into())));
        assert_eq!(
            instead::<HostPattern>("example.com:8080"),
            "write `example.com`"
        );
        assert_eq!(
            instead::<HostPattern>("example.com."),
            "write `example.com`"
        );
        assert_eq!(
            instead::<HostPattern>("*"),
            "leave out `hosts` for every host"
        );
        assert!(instead::<HostPattern>("bücher.example").contains("xn--"));
        assert!(HostPattern::parse("a.*.com").is_err());
        assert!(HostPattern::parse("*.127.0.0.1").is_err());
    }
}
