//! From the entries of a descriptor to a bucket key: typed, percent-encoded, at most 40 bytes.

use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Longest bucket key in bytes; a longer one is replaced by 128 bits of its SHA-256.
pub const MAX_KEY: usize = 40;

/// The name of one bucket, the same on every gateway: `t:search:c:acme`, or `#` and 32 hex digits
/// where that would exceed [`MAX_KEY`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketKey {
    length: u8,
    bytes: [u8; MAX_KEY],
}

impl BucketKey {
    /// A key as it was written; `None` where it cannot be one.
    pub fn read(written: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_KEY];
        bytes.get_mut(..written.len())?.copy_from_slice(written);
        let visible = written.iter().all(u8::is_ascii_graphic);
        (visible && !written.is_empty()).then_some(BucketKey {
            length: written.len() as u8,
            bytes,
        })
    }

    /// The key as bytes, all of them visible ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or(&self.bytes)
    }
}

/// Buckets that live together in a cluster, from the narrowest scope to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// of one client or address
    Client,
    /// of nothing else: the bucket stands alone
    Alone,
    /// of one route
    Route,
    /// of everybody
    Global,
}

impl BucketKey {
    /// The hash tag by which a cluster keeps buckets together, and its scope: the client's or
    /// address's entry of the key, else the route's, else the whole key.
    pub fn group(&self) -> (Scope, &str) {
        let text = std::str::from_utf8(self.as_bytes()).unwrap_or_default();
        // letter and policy come first; a hashed key says nothing more
        let entries = text.splitn(3, ':').nth(2).unwrap_or_default();
        if entries == "g" {
            return (Scope::Global, entries);
        }
        let of_kind = |wanted: &[&str]| {
            let mut rest = entries;
            while !rest.is_empty() {
                let (kind, behind) = rest.split_once(':').unwrap_or((rest, ""));
                if kind == "g" {
                    rest = behind;
                    continue;
                }
                let end = behind.find(':').unwrap_or(behind.len());
                if wanted.contains(&kind) {
                    return rest.get(..kind.len() + 1 + end);
                }
                rest = behind.get(end + 1..).unwrap_or_default();
            }
            None
        };
        if let Some(tag) = of_kind(&["c", "i"]) {
            return (Scope::Client, tag);
        }
        match of_kind(&["r"]) {
            Some(tag) => (Scope::Route, tag),
            None => (Scope::Alone, text),
        }
    }
}

impl fmt::Display for BucketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for BucketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes an address in dots, part by part: the formatting machinery would cost more than a decision.
pub fn write_ipv4(address: Ipv4Addr, mut write: impl FnMut(&str)) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            write(".");
        }
        write(itoa::Buffer::new().format(octet));
    }
}

/// Writes a bucket key entry by entry. Every value carries its type and is percent-encoded, so no
/// value reads like another type's or reaches into the next entry.
pub struct KeyWriter {
    length: usize,
    bytes: [u8; MAX_KEY],
    /// the whole text once it is longer than a key may be
    long: Vec<u8>,
}

impl KeyWriter {
    /// Begins the key of a bucket of `policy`; `letter` stands for the algorithm, so that another
    /// algorithm is another bucket.
    pub fn new(letter: u8, policy: &str) -> Self {
        let mut writer = KeyWriter {
            length: 0,
            bytes: [0; MAX_KEY],
            long: Vec::new(),
        };
        writer.push(&[letter, b':']);
        writer.push(policy.as_bytes());
        writer
    }

    /// Adds a typed value.
    pub fn value(&mut self, kind: u8, value: &[u8]) {
        self.push(&[b':', kind, b':']);
        if value.iter().all(is_plain) {
            return self.push(value);
        }
        for &byte in value {
            match is_plain(&byte) {
                true => self.push(&[byte]),
                false => self.push(&[b'%', hex(byte >> 4), hex(byte & 15)]),
            }
        }
    }

    /// Adds an address: IPv4 in dots, IPv6 as the hex digits of its first `ipv6_prefix` bits.
    pub fn address(&mut self, address: IpAddr, ipv6_prefix: u8) {
        self.push(b":i:");
        match address.to_canonical() {
            IpAddr::V4(v4) => write_ipv4(v4, |part| self.push(part.as_bytes())),
            IpAddr::V6(v6) => {
                let prefix = u32::from(ipv6_prefix.min(128));
                let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
                let bits = v6.to_bits() & mask;
                for digit in 0..prefix.div_ceil(4) {
                    self.push(&[hex((bits >> (124 - 4 * digit)) as u8 & 15)]);
                }
            }
        }
    }

    /// Adds the one entry that everybody shares.
    pub fn global(&mut self) {
        self.push(b":g");
    }

    fn push(&mut self, part: &[u8]) {
        if self.long.is_empty() {
            let end = self.length + part.len();
            if let Some(room) = self.bytes.get_mut(self.length..end) {
                room.copy_from_slice(part);
                self.length = end;
                return;
            }
            let written = self.bytes.get(..self.length).unwrap_or_default();
            self.long.extend_from_slice(written);
        }
        self.long.extend_from_slice(part);
    }

    /// The finished key.
    pub fn finish(mut self) -> BucketKey {
        if !self.long.is_empty() {
            let digest = Sha256::digest(&self.long);
            let digits = digest
                .iter()
                .take(16)
                .flat_map(|byte| [hex(byte >> 4), hex(byte & 15)]);
            // as if it had been read: two that are equal have no bytes left of what was written before
            (self.length, self.bytes) = (0, [0; MAX_KEY]);
            for (room, byte) in self
                .bytes
                .iter_mut()
                .zip(std::iter::once(b'#').chain(digits))
            {
                *room = byte;
                self.length += 1;
            }
        }
        BucketKey {
            length: self.length as u8,
            bytes: self.bytes,
        }
    }
}

/// Does a byte stand for itself in a key?
fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(write: impl FnOnce(&mut KeyWriter)) -> String {
        let mut writer = KeyWriter::new(b't', "p");
        write(&mut writer);
        writer.finish().to_string()
    }

    #[test]
    fn buckets_of_one_client_or_one_route_live_together() {
        let group = |text: &str| {
            let key = BucketKey::read(text.as_bytes()).unwrap();
            let (scope, tag) = key.group();
            (scope, tag.to_owned())
        };
        for (key, scope, tag) in [
            ("t:p:c:acme", Scope::Client, "c:acme"),
            ("s:q:r:search:c:acme", Scope::Client, "c:acme"),
            ("t:p:i:10.0.0.1:r:search", Scope::Client, "i:10.0.0.1"),
            ("t:p:h:x:r:search", Scope::Route, "r:search"),
            ("t:p:g:r:search", Scope::Route, "r:search"),
            ("t:p:g", Scope::Global, "g"),
            ("t:p:h:c", Scope::Alone, "t:p:h:c"),
            ("#0123", Scope::Alone, "#0123"),
        ] {
            assert_eq!(group(key), (scope, tag.to_owned()), "{key}");
        }
    }

    #[test]
    fn values_are_typed_and_encoded_so_none_reads_like_another() {
        assert_eq!(key(|w| w.value(b'c', b"acme")), "t:p:c:acme");
        assert_eq!(
            key(|w| w.value(b'h', b"x:i:1.2.3.4{}")),
            "t:p:h:x%3ai%3a1.2.3.4%7b%7d"
        );
        assert_ne!(
            key(|w| w.value(b'h', b"127.0.0.1")),
            key(|w| w.address([127, 0, 0, 1].into(), 64))
        );
    }

    #[test]
    fn ipv6_is_counted_by_its_prefix_and_mapped_ipv4_as_ipv4() {
        let one: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
        let two: IpAddr = "2001:db8:1:2:ffff::5".parse().unwrap();
        assert_eq!(key(|w| w.address(one, 64)), "t:p:i:20010db800010002");
        assert_eq!(key(|w| w.address(one, 64)), key(|w| w.address(two, 64)));
        assert_ne!(key(|w| w.address(one, 128)), key(|w| w.address(two, 128)));
        assert_eq!(
            key(|w| w.address("::ffff:10.0.0.255".parse().unwrap(), 64)),
            "t:p:i:10.0.0.255"
        );
        assert_eq!(key(|w| w.address(one, 1)), "t:p:i:0");
    }

    #[test]
    fn a_key_that_is_read_is_the_one_that_was_written() {
        for parts in [vec![3], vec![40], vec![20, 9], vec![29, 30], vec![34, 90]] {
            let mut writer = KeyWriter::new(b't', "p");
            for length in parts {
                writer.value(b'h', &vec![b'a'; length]);
            }
            let written = writer.finish();
            assert_eq!(BucketKey::read(written.as_bytes()), Some(written));
        }
    }

    #[test]
    fn a_long_key_becomes_128_bits_and_stays_distinct() {
        let one = key(|w| w.value(b'h', &[b'a'; 100]));
        let two = key(|w| w.value(b'h', &[b'a'; 101]));
        assert_eq!(one.len(), 33);
        assert!(one.starts_with('#') && one != two);
        assert_eq!(key(|w| w.value(b'h', &[b'a'; MAX_KEY - 6])).len(), MAX_KEY);
    }
}
