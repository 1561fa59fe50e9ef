//! What an upstream may take a forwarded path for: decoded, and with its ambiguous parts read one way or another.

use super::inspection::hex_pair;
use super::path::PathProblem;

/// One way to read a path. Servers differ in each of these on their own, so readings are all combinations.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// `%2F` and `%5C` become the characters that they stand for.
    separators: bool,
    /// `\` is a slash.
    backslash: bool,
    /// Empty segments vanish.
    merge: bool,
    controls: Controls,
    parameters: Parameters,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Controls {
    #[default]
    Kept,
    /// The WHATWG URL parser and Python's drop tabs and line ends.
    Dropped,
    /// NUL ends a string of C.
    CutAtNul,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Parameters {
    #[default]
    Kept,
    /// Servlet containers cut `;` and what follows off each segment, then decode.
    CutBeforeDecoding,
    CutAfterDecoding,
}

/// The path with every escape decoded. For normal paths without anything odd.
pub(super) fn decode(path: &str) -> String {
    let everything = Reading {
        separators: true,
        ..Reading::default()
    };
    text(everything.decode(path.as_bytes()))
}

/// As [`decode`], but in `buffer`. None: it does not fit.
pub(super) fn decode_in<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b str> {
    let mut length = 0;
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = hex_pair(after)
            .filter(|_| byte == b'%')
            .unwrap_or((byte, after));
        *buffer.get_mut(length)? = byte;
        length += 1;
        rest = after;
    }
    std::str::from_utf8(buffer.get(..length)?).ok()
}

/// The path with its odd parts kept as they are, and the rest decoded.
pub(super) fn literal(path: &str) -> String {
    text(Reading::default().decode(path.as_bytes()))
}

/// All readings of a normal path that is odd or has parameters. Dots are resolved in it already:
/// a reading that brings further ones to light is an error, whatever they would lead to.
pub(super) fn all(path: &str) -> impl Iterator<Item = Result<String, PathProblem>> + '_ {
    let backslash = path.contains('\\') || path.contains("%5C");
    let separators = choices(path.contains("%2F") || path.contains("%5C"));
    let backslashes = choices(backslash);
    let (controls, parameters): (&[_], &[_]) = (
        &[Controls::Kept, Controls::Dropped, Controls::CutAtNul],
        &[
            Parameters::Kept,
            Parameters::CutBeforeDecoding,
            Parameters::CutAfterDecoding,
        ],
    );
    let has_control = has_encoded_control(path);
    let controls = controls
        .get(..if has_control { 3 } else { 1 })
        .unwrap_or_default();
    let has_parameter = path.contains(';') || path.contains("%3B");
    let parameters = parameters
        .get(..if has_parameter { 3 } else { 1 })
        .unwrap_or_default();

    separators.iter().flat_map(move |&separators| {
        backslashes.iter().flat_map(move |&backslash| {
            [false, true].into_iter().flat_map(move |merge| {
                controls.iter().flat_map(move |&controls| {
                    parameters.iter().map(move |&parameters| {
                        Reading {
                            separators,
                            backslash,
                            merge,
                            controls,
                            parameters,
                        }
                        .read(path)
                    })
                })
            })
        })
    })
}

fn choices(differ: bool) -> &'static [bool] {
    if differ { &[false, true] } else { &[false] }
}

fn has_encoded_control(path: &str) -> bool {
    path.split('%')
        .skip(1)
        .any(|after| hex_pair(after.as_bytes()).is_some_and(|(byte, _)| byte.is_ascii_control()))
}

impl Reading {
    fn read(self, path: &str) -> Result<String, PathProblem> {
        let mut bytes = if self.parameters == Parameters::CutBeforeDecoding {
            self.decode(&without_parameters(path.as_bytes()))
        } else {
            self.decode(path.as_bytes())
        };
        if self.backslash {
            bytes
                .iter_mut()
                .filter(|byte| **byte == b'\\')
                .for_each(|byte| *byte = b'/');
        }
        if bytes.split(|&byte| byte == b'/').any(is_dots) {
            return Err(PathProblem::HiddenDots);
        }
        if self.parameters == Parameters::CutAfterDecoding {
            bytes = without_parameters(&bytes);
        }
        if self.merge {
            bytes.dedup_by(|byte, previous| *byte == b'/' && *previous == b'/');
        }
        Ok(text(bytes))
    }

    fn decode(self, path: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(path.len());
        let mut rest = path;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let Some((decoded, after)) = hex_pair(after).filter(|_| byte == b'%') else {
                out.push(byte);
                continue;
            };
            match decoded {
                b'/' | b'\\' if !self.separators => {
                    out.push(byte);
                    continue;
                }
                0 if self.controls == Controls::CutAtNul => break,
                _ if decoded.is_ascii_control() && self.controls == Controls::Dropped => {}
                _ => out.push(decoded),
            }
            rest = after;
        }
        out
    }
}

fn without_parameters(path: &[u8]) -> Vec<u8> {
    let mut inside = false;
    let keep = |&byte: &u8| {
        inside = byte != b'/' && (inside || byte == b';');
        !inside
    };
    path.iter().copied().filter(keep).collect()
}

/// `.` or `..`, with or without a parameter.
fn is_dots(segment: &[u8]) -> bool {
    matches!(
        segment,
        b"." | b".." | [b'.', b';', ..] | [b'.', b'.', b';', ..]
    )
}

/// Bytes that are not UTF-8 become U+FFFD, which `.` in a regex matches.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(path: &str) -> Vec<String> {
        let mut readings: Vec<_> = all(path).map(Result::unwrap).collect();
        readings.sort();
        readings.dedup();
        readings
    }

    #[test]
    fn each_ambiguity_is_read_both_ways() {
        assert_eq!(readings("/a%2Fb"), ["/a%2Fb", "/a/b"]);
        assert_eq!(readings("/a\\b"), ["/a/b", "/a\\b"]);
        assert_eq!(readings("/a%5Cb"), ["/a%5Cb", "/a/b", "/a\\b"]);
        assert_eq!(readings("/a//b"), ["/a//b", "/a/b"]);
        assert_eq!(readings("/a%00b"), ["/a", "/a\0b", "/ab"]);
        assert_eq!(readings("/a;x/b"), ["/a/b", "/a;x/b"]);
        assert_eq!(readings("/;x/b"), ["//b", "/;x/b", "/b"]);
        assert_eq!(readings("/a;x%2Fb"), ["/a", "/a/b", "/a;x%2Fb", "/a;x/b"]);
        assert_eq!(readings("/%FF%252F"), ["/\u{fffd}%2F"]);
    }

    #[test]
    fn dots_that_come_to_light_are_refused() {
        for path in [
            "/a%2F..",
            "/a%2F.%2Fb",
            "/a\\..\\b",
            "/a/..%5Cb",
            "/.%09./a",
            "/..%00/a",
            "/a%2F..;x",
            "/..%00;/a",
        ] {
            assert!(
                all(path).any(|reading| reading == Err(PathProblem::HiddenDots)),
                "{path}"
            );
        }
    }

    #[test]
    fn decodes_in_a_buffer_that_is_large_enough() {
        assert_eq!(decode_in("/a%20b", &mut [0; 4]), Some("/a b"));
        assert_eq!(decode_in("/a%20b", &mut [0; 3]), None);
        assert_eq!(decode("/a%20b%2F"), "/a b/");
    }
}
