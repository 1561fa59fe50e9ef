//! A second look at a path that is not plain: what is invalid in it, odd, or to be rewritten.

use super::path::{PathProblem, is_pchar, is_unreserved};

/// What was found in a path without an error.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) odd: Option<PathProblem>,
    pub(super) rewrite: bool,
    pub(super) escapes: bool,
    pub(super) parameters: bool,
    /// Escapes that belong to a character of several bytes, checked with its first.
    continuations: usize,
}

impl Findings {
    /// `segments`: a path after its first slash.
    pub(super) fn inspect(&mut self, segments: &str) -> Result<(), PathProblem> {
        let mut segments = segments.split('/').peekable();
        while let Some(segment) = segments.next() {
            match segment {
                "" if segments.peek().is_some() => self.note(PathProblem::EmptySegment),
                "." | ".." => self.rewrite = true,
                _ => self.inspect_segment(segment.as_bytes())?,
            }
        }
        Ok(())
    }

    fn inspect_segment(&mut self, segment: &[u8]) -> Result<(), PathProblem> {
        // Tomcat and others drop `;` and what follows before they resolve dots: `..;` is `..` to them.
        let (dots, after_dots) = leading_dots(segment);
        if (1..=2).contains(&dots) && starts_parameter(after_dots) {
            return Err(PathProblem::HiddenDots);
        }
        let mut rest = segment;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'%' => rest = self.inspect_escape(after)?,
                b';' => self.parameters = true,
                b'\\' => self.note(PathProblem::Backslash),
                _ if is_pchar(byte) => {}
                b' ' | b'?' | b'#' => return Err(PathProblem::RawByte),
                _ if byte.is_ascii_graphic() => self.rewrite = true,
                _ => return Err(PathProblem::RawByte),
            }
        }
        Ok(())
    }

    /// `after`: what follows the percent sign. Ok: what follows the escape.
    fn inspect_escape<'a>(&mut self, after: &'a [u8]) -> Result<&'a [u8], PathProblem> {
        let (byte, rest) = hex_pair(after).ok_or(PathProblem::Escape)?;
        self.escapes = true;
        self.rewrite |= is_unreserved(byte) || after.iter().take(2).any(u8::is_ascii_lowercase);
        match byte {
            b'/' => self.note(PathProblem::EncodedSlash),
            b'\\' => self.note(PathProblem::Backslash),
            b';' => self.parameters = true,
            0x80.. => self.inspect_utf8(byte, rest)?,
            _ if byte.is_ascii_control() => self.note(PathProblem::Control),
            _ => {}
        }
        Ok(rest)
    }

    fn inspect_utf8(&mut self, byte: u8, mut rest: &[u8]) -> Result<(), PathProblem> {
        if self.continuations > 0 {
            self.continuations -= 1;
            return Ok(());
        }
        let mut character = [byte, 0, 0, 0];
        let mut following = 0;
        for slot in character.iter_mut().skip(1) {
            let Some((next, after)) = rest.strip_prefix(b"%").and_then(hex_pair) else {
                break;
            };
            *slot = next;
            following += 1;
            rest = after;
        }
        // A decoder that does not look closely takes `%c0%af` for a slash.
        if let [lead, next, ..] = character
            && (0x80..0xC0).contains(&next)
            && matches!(
                (lead, next),
                (0xC0 | 0xC1 | 0xF8.., _) | (0xE0, ..0xA0) | (0xF0, ..0x90)
            )
        {
            return Err(PathProblem::Overlong);
        }
        let continuations = match byte {
            0xC2..=0xDF => 1,
            0xE0..=0xEF => 2,
            0xF0..=0xF4 => 3,
            _ => 0,
        };
        let bytes = character.get(..=continuations).unwrap_or_default();
        if continuations > following || std::str::from_utf8(bytes).is_err() {
            self.note(PathProblem::NotUtf8);
        } else {
            self.continuations = continuations;
        }
        Ok(())
    }

    fn note(&mut self, problem: PathProblem) {
        self.odd.get_or_insert(problem);
    }
}

/// How many dots a segment begins with, encoded ones too (three at most), and what follows them.
fn leading_dots(segment: &[u8]) -> (usize, &[u8]) {
    let mut rest = segment;
    for dots in 0..3 {
        let dot = |prefix: &[u8]| rest.strip_prefix(prefix);
        match dot(b".").or_else(|| dot(b"%2e")).or_else(|| dot(b"%2E")) {
            Some(after) => rest = after,
            None => return (dots, rest),
        }
    }
    (3, rest)
}

fn starts_parameter(rest: &[u8]) -> bool {
    [b";".as_slice(), b"%3b", b"%3B"]
        .iter()
        .any(|start| rest.starts_with(start))
}

/// The byte of an escape after its percent sign, and what follows.
pub(super) fn hex_pair(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], rest) = bytes.split_first_chunk()?;
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some((digit(high)? << 4 | digit(low)?, rest))
}
