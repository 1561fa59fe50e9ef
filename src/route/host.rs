//! The Host header -> the name that routes are looked up by.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::Ipv6Addr;

/// RFC 1035 2.3.4, in text form.
const MAX_HOST_BYTES: usize = 253;

/// Lower case, without port and trailing dot; IPv6 literals in brackets and in the form of RFC 5952.
/// What is no host at all gives the empty string, which only routes for any host match.
pub fn normalise(host: &str) -> Cow<'_, str> {
    // what a request usually has, and what this function returns, in one pass
    if is_name(host) && !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Borrowed(host);
    }
    if host.starts_with('[') {
        return ipv6(host).unwrap_or_default();
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return Cow::Borrowed(""),
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if !is_name(name) {
        return Cow::Borrowed("");
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

fn is_port(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Underscores are in no host name by the book, but in many inside a company.
fn is_name(name: &str) -> bool {
    let mut label_bytes = 0;
    for byte in name.bytes() {
        match byte {
            b'.' if label_bytes == 0 => return false,
            b'.' => label_bytes = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label_bytes += 1,
            _ => return false,
        }
    }
    label_bytes > 0 && name.len() <= MAX_HOST_BYTES
}

fn ipv6(host: &str) -> Option<Cow<'_, str>> {
    let close = host.find(']')?;
    let (literal, port) = host.split_at_checked(close + 1)?;
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return None;
    }
    let address: Ipv6Addr = literal.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
    // Written on the stack, so that a literal that is normal already costs no allocation.
    let mut buffer = [0_u8; 48];
    let mut unused = buffer.as_mut_slice();
    write!(unused, "[{address}]").ok()?;
    let unused_bytes = unused.len();
    let canonical = buffer.get(..buffer.len() - unused_bytes)?;
    if canonical == literal.as_bytes() {
        Some(Cow::Borrowed(literal))
    } else {
        Some(Cow::Owned(format!("[{address}]")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn drops_port_case_and_trailing_dot() {
        for (host, normal) in [
            ("example.com", "example.com"),
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("EXAMPLE.com.:443", "example.com"),
            ("example.com:", "example.com"),
            ("my_host-1", "my_host-1"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[0:0::1]", "[::1]"),
            ("[2001:DB8::A]:443", "[2001:db8::a]"),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
        ] {
            assert_eq!(normalise(host), normal, "{host}");
        }
    }

    #[test]
    fn garbage_is_no_host() {
        let long = "a.".repeat(127) + "abc";
        for host in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a:b",
            "a:80:80",
            "user@a",
            "é.com",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[x]",
            "[]",
            "::1",
            "a\0",
            "example.com..",
            "a:999999",
            "*",
            "*.example.com",
            &long,
        ] {
            assert_eq!(normalise(host), "", "{host}");
        }
    }

    #[test]
    fn a_normal_host_is_borrowed() {
        for host in [
            "api.example.com",
            "[::1]:8080",
            "[2001:db8::a]",
            "10.0.0.1",
            "a.example.com.:80",
        ] {
            assert!(matches!(normalise(host), Cow::Borrowed(_)), "{host}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(host in "[aA.:\\[\\]0-9é*_-]{0,20}|\\PC{0,20}") {
            let once = normalise(&host);
            prop_assert_eq!(normalise(&once), once.as_ref());
        }
    }
}
