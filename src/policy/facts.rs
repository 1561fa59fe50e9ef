//! What is known about a request when its descriptors are made.

use crate::config::KeyPart;
use crate::limit::descriptor::KeyWriter;
use http::{HeaderMap, Method};
use std::net::IpAddr;

/// The parts of a request that descriptors are made of.
pub struct Facts<'a> {
    /// the client's id; absent: nobody is authenticated
    pub client: Option<&'a str>,
    /// the client's tier
    pub tier: Option<&'a str>,
    /// the client's address
    pub ip: IpAddr,
    /// the route's name
    pub route: &'a str,
    /// the method
    pub method: &'a Method,
    /// the host as routed
    pub host: &'a str,
    /// the path as routed
    pub path: &'a str,
    /// the request's headers
    pub headers: &'a HeaderMap,
    /// claims of a verified token, by name, and what they say
    pub claims: &'a [(Box<str>, Box<str>)],
}

impl Facts<'_> {
    /// Writes one entry. What is missing counts as the client's address, so leaving it out is no
    /// way around a limit and makes no bucket that strangers share.
    pub(super) fn write(&self, part: &KeyPart, ipv6_prefix: u8, key: &mut KeyWriter) {
        let value = match part {
            KeyPart::Client => self.client.map(|client| (b'c', client.as_bytes())),
            KeyPart::Ip => None,
            KeyPart::JwtClaim(name) => self.claim(name).map(|value| (b'j', value.as_bytes())),
            KeyPart::Route => Some((b'r', self.route.as_bytes())),
            KeyPart::Tier => Some((b't', self.tier.unwrap_or("-").as_bytes())),
            KeyPart::Method => Some((b'm', self.method.as_str().as_bytes())),
            KeyPart::Host => Some((b'o', self.host.as_bytes())),
            KeyPart::Path => Some((b'p', self.path.as_bytes())),
            KeyPart::Header(name) => self.headers.get(name).map(|value| (b'h', value.as_bytes())),
            KeyPart::Global => return key.global(),
        };
        match value {
            Some((kind, value)) => key.value(kind, value),
            None => key.address(self.ip, ipv6_prefix),
        }
    }

    fn claim(&self, name: &str) -> Option<&str> {
        let mut claims = self.claims.iter();
        claims
            .find(|(is, _)| **is == *name)
            .map(|(_, value)| &**value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[KeyPart], change: impl FnOnce(&mut Facts<'_>)) -> String {
        let (method, headers) = (Method::GET, HeaderMap::new());
        let mut facts = Facts {
            client: Some("acme"),
            tier: None,
            ip: [10, 0, 0, 1].into(),
            route: "search",
            method: &method,
            host: "api.example.com",
            path: "/a b",
            headers: &headers,
            claims: &[],
        };
        change(&mut facts);
        let mut writer = KeyWriter::new(b't', "p");
        for part in parts {
            facts.write(part, 64, &mut writer);
        }
        writer.finish().to_string()
    }

    #[test]
    fn a_descriptor_is_an_ordered_tuple() {
        assert_eq!(
            key(&[KeyPart::Client, KeyPart::Route], |_| ()),
            "t:p:c:acme:r:search"
        );
        assert_eq!(
            key(&[KeyPart::Tier, KeyPart::Method], |_| ()),
            "t:p:t:-:m:GET"
        );
        assert_eq!(key(&[KeyPart::Global], |_| ()), "t:p:g");
        assert_eq!(key(&[KeyPart::Path], |_| ()), "t:p:p:%2fa%20b");
    }

    #[test]
    fn the_anonymous_and_those_who_leave_a_header_out_are_counted_by_address() {
        assert_eq!(
            key(&[KeyPart::Client], |facts| facts.client = None),
            "t:p:i:10.0.0.1"
        );
        let header = KeyPart::Header(http::HeaderName::from_static("x-org"));
        assert_eq!(key(&[header], |_| ()), "t:p:i:10.0.0.1");
        assert_eq!(
            key(&[KeyPart::JwtClaim("sub".into())], |_| ()),
            "t:p:i:10.0.0.1"
        );
    }

    #[test]
    fn a_claim_of_the_token_is_a_descriptor() {
        let by = |name: &str| {
            let claims = Box::leak(Box::new([("org".into(), "acme:eu".into())]));
            key(&[KeyPart::JwtClaim(name.into())], |facts| {
                facts.claims = claims;
            })
        };
        assert_eq!(by("org"), "t:p:j:acme%3aeu");
        assert_eq!(by("sub"), "t:p:i:10.0.0.1");
    }
}
