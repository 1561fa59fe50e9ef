//! The path of a request target -> its one normal form (RFC 3986, 6.2.2), or why there is none.

use std::borrow::Cow;

use super::inspection::{Findings, hex_pair};

/// Longer paths are refused, which bounds the work that one request can ask for.
pub const MAX_PATH_BYTES: usize = 64 * 1024;

/// As [`MAX_PATH_BYTES`], for paths of which every reading has to be tried, and on hosts with
/// regexes: one that outgrows its automaton takes microseconds per byte. nginx stops there too.
pub const MAX_COSTLY_PATH_BYTES: usize = 8 * 1024;

/// What is wrong with a path; always a 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    #[error("it does not begin with a slash")]
    NoSlash,
    #[error("it is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    #[error(
        "it is longer than {MAX_COSTLY_PATH_BYTES} bytes, and ambiguous or on a host with regexes"
    )]
    CostlyTooLong,
    #[error("`*` goes with OPTIONS only")]
    Asterisk,
    #[error("a space, `?`, `#`, control character or non-ascii byte is not percent-encoded")]
    RawByte,
    #[error("`%` is not followed by two hexadecimal digits")]
    Escape,
    #[error("overlong utf-8")]
    Overlong,
    #[error("`..` leads above the root")]
    AboveRoot,
    #[error("a dot segment is hidden behind a parameter or an escape")]
    HiddenDots,
    #[error("upstreams may read it as a path of another route")]
    Ambiguous,
    #[error("path parameters (`;`) take no part in matching")]
    Parameter,
    #[error("an encoded control character")]
    Control,
    #[error("an encoded slash")]
    EncodedSlash,
    #[error("a backslash")]
    Backslash,
    #[error("an empty segment")]
    EmptySegment,
    #[error("escapes that are not utf-8")]
    NotUtf8,
}

/// A path in normal form, and what is left in it that upstreams read differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normal<'p> {
    pub path: Cow<'p, str>,
    /// Something that only a route with `raw_path` may accept.
    pub odd: Option<PathProblem>,
    pub(super) escapes: bool,
    pub(super) parameters: bool,
}

/// Decodes unreserved characters, encodes those that no URI may contain, removes dot segments.
/// Reserved characters keep their spelling. An empty path is `/`; `*` stays.
pub fn normalise(path: &str) -> Result<Normal<'_>, PathProblem> {
    let plain = |path| Normal {
        path: Cow::Borrowed(path),
        odd: None,
        escapes: false,
        parameters: false,
    };
    if path.is_empty() {
        return Ok(plain("/"));
    }
    if path == "*" {
        return Ok(plain(path));
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(PathProblem::TooLong);
    }
    let segments = path.strip_prefix('/').ok_or(PathProblem::NoSlash)?;
    if is_plain(path) {
        return Ok(plain(path));
    }
    let mut findings = Findings::default();
    findings.inspect(segments)?;
    let path = if findings.rewrite {
        Cow::Owned(rewrite(segments)?)
    } else {
        Cow::Borrowed(path)
    };
    // Encoding makes it longer, and what is forwarded must be acceptable here too.
    if path.len() > MAX_PATH_BYTES {
        return Err(PathProblem::TooLong);
    }
    Ok(Normal {
        path,
        odd: findings.odd,
        escapes: findings.escapes,
        parameters: findings.parameters,
    })
}

/// A pattern as it is compared with decoded paths. People write patterns with spaces and letters as they are.
pub(super) fn pattern(pattern: &str) -> Result<String, PathProblem> {
    let mut encoded = String::with_capacity(pattern.len());
    for byte in pattern.bytes() {
        if byte == b' ' || !byte.is_ascii() {
            push_escape(&mut encoded, byte);
        } else {
            encoded.push(char::from(byte));
        }
    }
    if !encoded.starts_with('/') {
        return Err(PathProblem::NoSlash);
    }
    let normal = normalise(&encoded)?;
    match normal.odd {
        Some(odd) => Err(odd),
        None if normal.parameters => Err(PathProblem::Parameter),
        None => Ok(super::reading::decode(&normal.path)),
    }
}

/// The common case in one pass: nothing that could need a second look.
fn is_plain(path: &str) -> bool {
    let mut after_slash = false;
    path.bytes().all(|byte| {
        let class = CLASSES
            .get(usize::from(byte))
            .copied()
            .unwrap_or(Class::Special);
        let plain = class == Class::Plain || !after_slash && class != Class::Special;
        after_slash = byte == b'/';
        plain
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    /// A slash or a dot: plain, unless a slash is before it.
    NotAfterSlash,
    Special,
}

/// A look-up costs a third of the comparisons.
static CLASSES: [Class; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which would refuse it"
)]
const fn classes() -> [Class; 256] {
    let mut classes = [Class::Special; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        classes[byte as usize] = match byte {
            b'/' | b'.' => Class::NotAfterSlash,
            b';' => Class::Special,
            _ if is_pchar(byte) => Class::Plain,
            _ => Class::Special,
        };
        byte += 1;
    }
    classes
}

/// What RFC 3986 allows in a segment, escapes apart.
pub(super) const fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `segments`: an inspected path after its first slash.
fn rewrite(segments: &str) -> Result<String, PathProblem> {
    let mut out = String::with_capacity(segments.len() + 1);
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        let before = out.len();
        out.push('/');
        push_segment(&mut out, segment.as_bytes());
        let above = match out.get(before..) {
            Some("/.") => before,
            Some("/..") => out
                .get(..before)
                .and_then(|parent| parent.rfind('/'))
                .ok_or(PathProblem::AboveRoot)?,
            _ => continue,
        };
        out.truncate(above);
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

fn push_segment(out: &mut String, mut segment: &[u8]) {
    while let Some((&byte, after)) = segment.split_first() {
        segment = after;
        match hex_pair(after).filter(|_| byte == b'%') {
            Some((decoded, rest)) => {
                segment = rest;
                if is_unreserved(decoded) {
                    out.push(char::from(decoded));
                } else {
                    push_escape(out, decoded);
                }
            }
            None if is_pchar(byte) || byte == b'\\' => out.push(char::from(byte)),
            None => push_escape(out, byte),
        }
    }
}

fn push_escape(out: &mut String, byte: u8) {
    let digit = |value: u8| {
        char::from_digit(value.into(), 16)
            .unwrap_or_default()
            .to_ascii_uppercase()
    };
    out.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gives_one_form_to_all_spellings() {
        for (path, normal) in [
            ("", "/"),
            ("*", "*"),
            ("/", "/"),
            ("/%61dmin", "/admin"),
            ("/a/../admin", "/admin"),
            ("/a/%2e%2E/admin", "/admin"),
            ("/a/.%2e/admin", "/admin"),
            ("/./admin", "/admin"),
            ("/admin/.", "/admin/"),
            ("/admin/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../..", "/"),
            ("/.", "/"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/%7euser/%c3%a9", "/~user/%C3%A9"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/a%3ab@%40", "/a%3Ab@%40"),
            ("/{a}|\"<>^`", "/%7Ba%7D%7C%22%3C%3E%5E%60"),
        ] {
            let found = normalise(path).unwrap();
            assert_eq!((found.path.as_ref(), found.odd), (normal, None), "{path}");
        }
    }

    #[test]
    fn refuses_what_has_no_normal_form() {
        use PathProblem::*;
        for (path, problem) in [
            ("admin", NoSlash),
            ("**", NoSlash),
            ("/..", AboveRoot),
            ("/a/../../b", AboveRoot),
            ("/%2e%2e/b", AboveRoot),
            ("/%zz", Escape),
            ("/%2", Escape),
            ("/%", Escape),
            ("/%+1a", Escape),
            ("/%%61", Escape),
            ("/%é", Escape),
            ("/a b", RawByte),
            ("/a\0", RawByte),
            ("/a\n", RawByte),
            ("/a\u{7f}", RawByte),
            ("/é", RawByte),
            ("/a?b", RawByte),
            ("/a#b", RawByte),
            ("/..;/admin", HiddenDots),
            ("/a/..;x=1/admin", HiddenDots),
            ("/a/.;/../admin", HiddenDots),
            ("/a/%2e.%3B/admin", HiddenDots),
            ("/%c0%af", Overlong),
            ("/%c1%9c", Overlong),
            ("/%e0%80%af", Overlong),
            ("/%f0%80%80%af", Overlong),
            ("/%f8%80%80%80%af", Overlong),
        ] {
            assert_eq!(normalise(path), Err(problem), "{path}");
        }
    }

    #[test]
    fn leaves_odd_parts_to_routes_with_raw_path() {
        use PathProblem::*;
        for (path, normal, odd) in [
            ("//", "//", EmptySegment),
            ("//admin", "//admin", EmptySegment),
            ("/a//", "/a//", EmptySegment),
            ("/a//../b", "/a/b", EmptySegment),
            ("/admin%2f..", "/admin%2F..", EncodedSlash),
            ("/admin\\", "/admin\\", Backslash),
            ("/admin%5c", "/admin%5C", Backslash),
            ("/a%00", "/a%00", Control),
            ("/a%0d%0a", "/a%0D%0A", Control),
            ("/a%7f", "/a%7F", Control),
            ("/%ff", "/%FF", NotUtf8),
            ("/caf%e9", "/caf%E9", NotUtf8),
            ("/%c3", "/%C3", NotUtf8),
            ("/%c3/%a9", "/%C3/%A9", NotUtf8),
            ("/%ed%a0%80", "/%ED%A0%80", NotUtf8),
            ("/%a9", "/%A9", NotUtf8),
        ] {
            let found = normalise(path).unwrap();
            assert_eq!(
                (found.path.as_ref(), found.odd),
                (normal, Some(odd)),
                "{path}"
            );
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        let long = "/abc".repeat(MAX_PATH_BYTES / 4);
        for path in [
            "/",
            "*",
            "",
            "/a/b/",
            "/.well-known/x",
            "/a%20b/%C3%A9",
            "/a;v=1",
            "/..a/.b./...",
            &long,
        ] {
            assert!(
                matches!(normalise(path).unwrap().path, Cow::Borrowed(_)),
                "{path}"
            );
        }
    }

    #[test]
    fn long_paths_are_taken_up_to_the_limit() {
        let down_and_up = format!("{}{}", "/a".repeat(10_000), "/..".repeat(10_000));
        assert_eq!(normalise(&down_and_up).unwrap().path, "/");
        assert_eq!(
            normalise(&"/..".repeat(10_000)),
            Err(PathProblem::AboveRoot)
        );
        assert_eq!(
            normalise(&"/".repeat(MAX_PATH_BYTES)).unwrap().odd,
            Some(PathProblem::EmptySegment)
        );
        assert_eq!(
            normalise(&"/".repeat(MAX_PATH_BYTES + 1)),
            Err(PathProblem::TooLong)
        );
    }

    #[test]
    fn encoding_may_not_outgrow_the_limit() {
        let braces = format!("/{}", "{".repeat(MAX_PATH_BYTES / 2));
        assert_eq!(normalise(&braces), Err(PathProblem::TooLong));
    }

    #[test]
    fn patterns_are_decoded_and_must_be_able_to_match() {
        assert_eq!(pattern("/caf%c3%a9/a b"), Ok("/café/a b".to_owned()));
        assert_eq!(pattern("/café/a%20b"), Ok("/café/a b".to_owned()));
        assert_eq!(pattern("/100%25"), Ok("/100%".to_owned()));
        assert_eq!(pattern("/a//b"), Err(PathProblem::EmptySegment));
        assert_eq!(pattern("/a;v"), Err(PathProblem::Parameter));
        assert_eq!(pattern("/100%"), Err(PathProblem::Escape));
        assert_eq!(pattern(""), Err(PathProblem::NoSlash));
        assert_eq!(pattern("*"), Err(PathProblem::NoSlash));
    }

    const PARTS: &[&str] = &[
        "/", "/", "/", "//", ".", "..", "%2e", "%2E", "a", "b", "%61", ";", "%3b", "%2f", "%5C",
        "\\", "%00", "%25", "%c3%a9", "%ff", "%c3", "%", "|", " ", "%7c", "%40", "é",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn normalising_twice_changes_nothing(parts in prop::collection::vec(prop::sample::select(PARTS), 0..12)) {
            let path = format!("/{}", parts.concat());
            if let Ok(once) = normalise(&path) {
                let twice = normalise(&once.path);
                prop_assert_eq!(twice.as_ref().map(|twice| &twice.path), Ok(&once.path));
                prop_assert!(once.odd.is_some() || twice.unwrap().odd.is_none());
                prop_assert!(once.path.parse::<http::uri::PathAndQuery>().is_ok());
                prop_assert!(once.path.is_ascii());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = normalise(&text);
            let _ = normalise(&format!("/{text}"));
            let _ = pattern(&format!("/{text}"));
        }
    }
}
