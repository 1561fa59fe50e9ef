//! Paths in normal form, and regular expressions over them.

use super::Notation;

/// A path in the form in which requests are matched (RFC 3986, section 6.2.2).
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct UrlPath(pub(in crate::config) String);

impl Notation for UrlPath {
    const FORMAT: &'static str = "tidegate-path";
    const WHAT: &'static str = "a path in normal form";
    const HINT: &'static str = "write a path that starts with `/`, without `.`, `..` or empty segments, without `?` \
                                and `#`, and percent-encoded only where needed";
    const PATTERN: Option<&'static str> = Some("^/[^?#]*$");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let normal = normal_form(text);
        if normal == text {
            Ok(UrlPath(normal))
        } else {
            Err(Some(format!("write `{normal}`")))
        }
    }
}

/// The path to write instead of any text.
fn normal_form(text: &str) -> String {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let encoded = encode(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_open = true;
    for segment in encoded.split('/') {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let trailing = if ends_open && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{trailing}", segments.join("/"))
}

/// Decodes what needs no encoding, encodes what may not stand in a path.
fn encode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let escape = bytes
            .get(at..at + 2)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let escape =
            escape.filter(|hex| byte == b'%' && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(hex) = escape else {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            continue;
        };
        at += 2;
        match u8::from_str_radix(hex, 16) {
            Ok(code) if code.is_ascii_alphanumeric() || b"-._~".contains(&code) => {
                out.push(char::from(code))
            }
            _ => out.push_str(&format!("%{hex}")),
        }
    }
    out
}

/// Whether a path lies below a prefix, segment by segment.
pub(in crate::config) fn starts_with_segments(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A regular expression that compiles.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct PathRegex(pub(in crate::config) String);

impl Notation for PathRegex {
    const FORMAT: &'static str = "tidegate-regex";
    const WHAT: &'static str = "a regular expression";
    const HINT: &'static str =
        "write one in the syntax of Rust's regex crate, such as `^/items/[0-9]+$`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() {
            return Err(None);
        }
        if let Err(error) = regex_automata::util::syntax::parse(text) {
            // The error draws the expression over several lines; the last one is the reason.
            let drawn = error.to_string();
            let reason = drawn.lines().last();
            return Err(reason.map(|line| line.trim_start_matches("error: ").to_owned()));
        }
        match regex_automata::meta::Regex::new(text) {
            Ok(_) => Ok(PathRegex(text.to_owned())),
            Err(_) => Err(Some("it is too large once compiled".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::instead;
    use super::*;

    #[test]
    fn paths_in_normal_form_are_accepted() {
        for text in [
            "/",
            "/api",
            "/api/",
            "/a-b_c.~x",
            "/caf%C3%A9",
            "/a%2Fb",
            "/a%2fb",
            "/@:!$&'()*+,;=",
        ] {
            assert!(UrlPath::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn other_paths_are_refused_with_what_to_write_instead() {
        for (text, hint) in [
            ("", "write `/`"),
            ("api", "write `/api`"),
            ("/a//b", "write `/a/b`"),
            ("/a/", ""),
            ("//", "write `/`"),
            ("/a/../b", "write `/b`"),
            ("/a/.", "write `/a/`"),
            ("/../..", "write `/`"),
            ("/a/%2e%2e/b", "write `/b`"),
            ("/%61pi", "write `/api`"),
            ("/a?x=1", "write `/a`"),
            ("/a b", "write `/a%20b`"),
            ("/é", "write `/%C3%A9`"),
            ("/100%", "write `/100%25`"),
            ("/a\\b", "write `/a%5Cb`"),
        ] {
            if hint.is_empty() {
                assert!(UrlPath::parse(text).is_ok());
            } else {
                assert_eq!(instead::<UrlPath>(text), hint, "{text}");
            }
        }
    }

    #[test]
    fn what_is_offered_instead_is_itself_accepted() {
        for text in [
            "%",
            "/%2",
            "a/./..//%7e%zz",
            "/%25%32",
            "///",
            "/a/..",
            "\u{0}é/?",
        ] {
            assert!(
                UrlPath::parse(&normal_form(text)).is_ok(),
                "{text} -> {}",
                normal_form(text)
            );
        }
    }

    #[test]
    fn prefixes_count_whole_segments() {
        assert!(starts_with_segments("/api/search", "/api"));
        assert!(starts_with_segments("/api", "/api/"));
        assert!(starts_with_segments("/x", "/"));
        assert!(!starts_with_segments("/apix", "/api"));
    }

    #[test]
    fn a_bad_regular_expression_says_why() {
        assert!(PathRegex::parse("^/items/[0-9]+$").is_ok());
        assert_eq!(instead::<PathRegex>("(a"), "unclosed group");
        assert!(PathRegex::parse("(a{1000}){1000}{1000}").is_err());
    }
}
