//! Whose requests a route takes, by address.

use ipnet::IpNet;
use std::net::IpAddr;

/// Lists of networks; what is denied is denied, also where it is allowed.
#[derive(Debug, Default)]
pub struct Addresses {
    /// absent: all
    allow: Option<Vec<IpNet>>,
    deny: Vec<IpNet>,
}

impl Addresses {
    /// From the configuration's lists.
    pub fn new(allow: Option<Vec<IpNet>>, deny: Vec<IpNet>) -> Self {
        Addresses { allow, deny }
    }

    /// Are requests from here taken?
    pub fn admit(&self, address: IpAddr) -> bool {
        if self.deny.is_empty() && self.allow.is_none() {
            return true;
        }
        let address = address.to_canonical();
        let listed = |list: &[IpNet]| list.iter().any(|network| contains(network, address));
        !listed(&self.deny) && self.allow.as_deref().is_none_or(listed)
    }
}

/// A network of mapped addresses (`::ffff:10.0.0.0/104`) means the IPv4 addresses behind them.
fn contains(network: &IpNet, address: IpAddr) -> bool {
    match (network, address) {
        (IpNet::V6(network), IpAddr::V4(address)) => network.contains(&address.to_ipv6_mapped()),
        _ => network.contains(&address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(allow: Option<&[&str]>, deny: &[&str], address: &str) -> bool {
        let networks = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Addresses::new(allow.map(networks), networks(deny)).admit(address.parse().unwrap())
    }

    #[test]
    fn deny_wins_and_allow_excludes_all_others() {
        assert!(admitted(None, &[], "192.0.2.1"));
        assert!(!admitted(None, &["192.0.2.0/24"], "192.0.2.1"));
        assert!(admitted(None, &["192.0.2.0/24"], "198.51.100.1"));
        let office: Option<&[&str]> = Some(&["10.0.0.0/8", "2001:db8::/32"]);
        assert!(admitted(office, &[], "10.9.8.7"));
        assert!(admitted(office, &[], "2001:db8::1"));
        assert!(!admitted(office, &[], "192.0.2.1"));
        assert!(!admitted(office, &["10.9.0.0/16"], "10.9.8.7"));
    }

    #[test]
    fn mapped_addresses_are_the_ipv4_addresses_behind_them() {
        assert!(!admitted(None, &["192.0.2.0/24"], "::ffff:192.0.2.1"));
        assert!(!admitted(None, &["::ffff:192.0.2.0/120"], "192.0.2.1"));
        assert!(
            admitted(None, &["::/0"], "192.0.2.1")
                != admitted(None, &["::ffff:0:0/96"], "2001:db8::1")
        );
    }
}
