//! YAML text becomes a tree in which every key and value knows its line and column.

mod mapping;

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::place::{Place, Step};
use super::problem::{Report, quoted};
pub(super) use mapping::{Entry, Mapping};

/// The deepest nesting accepted; the configuration needs eight levels.
const MAX_DEPTH: usize = 64;
/// What anchors may add to the tree, in bytes: enough for a file by hand, too little for a "billion laughs".
const MAX_EXPANSION: usize = 16 << 20;
/// What a node costs of `MAX_EXPANSION` beside its text.
const NODE_BYTES: usize = 64;

/// A place in the file, line and column counted from 1 in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The line from 1.
    pub(super) line: usize,
    /// The column from 1.
    pub(super) column: usize,
}

impl Position {
    /// The first character of the file.
    pub(super) const START: Position = Position { line: 1, column: 1 };
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Position {
        Position {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// A value and where it stands. No `Debug`: its texts may be secrets.
#[derive(Clone)]
pub(super) struct Node {
    /// Its first character.
    pub(super) at: Position,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Clone)]
pub(super) enum Kind {
    /// A text, a number, a boolean or nothing.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// Keys and values.
    Mapping(Mapping),
    /// Something already reported; later steps pass over it in silence.
    Broken,
}

/// A scalar as written, and after substitution.
#[derive(Clone)]
pub(super) struct Scalar {
    /// Its text, with variables substituted.
    pub(super) text: String,
    /// Written without quotes, so that it may be a number, a boolean or nothing.
    pub(super) plain: bool,
    /// The text before substitution, where that differs; messages show this one.
    pub(super) template: Option<String>,
}

/// Parses a text; an empty one is an empty mapping. `None`: the text is not usable as a whole, the report says why.
pub(super) fn parse(text: &str, report: &mut Report) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        text,
        anchors: HashMap::new(),
        expansion_left: MAX_EXPANSION,
        report,
    };
    builder.document()
}

struct Builder<'t, 'r> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    anchors: HashMap<usize, Anchored>,
    expansion_left: usize,
    report: &'r mut Report,
}

/// An anchored node, how deep it is and what a copy costs.
struct Anchored {
    node: Node,
    depth: usize,
    bytes: usize,
}

/// The next event is the root of the whole or of a part; `None` means stop: reported.
impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Option<Node> {
        let mut root = None;
        loop {
            let (event, span) = self.next(&Place::ROOT)?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    let hint = "keep one configuration per file and remove `---`".to_owned();
                    self.error(&span, &Place::ROOT, "a second document starts here", hint);
                    return None;
                }
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                other => root = Some(self.node(other, span, &Place::ROOT, 0)?),
            }
        }
        let empty = || Node {
            at: Position::START,
            kind: Kind::Mapping(Mapping::default()),
        };
        Some(root.unwrap_or_else(empty))
    }

    fn next(&mut self, place: &Place<'_>) -> Option<(Event<'t>, Span)> {
        match self.parser.next_event()? {
            Ok(found) => Some(found),
            Err(error) => {
                let at = Position::from(error.marker());
                let hint = self.syntax_hint(at);
                self.report
                    .error(at, place, format!("not valid YAML: {}", error.info()), hint);
                None
            }
        }
    }

    /// The two mistakes that YAML's own message does not explain.
    fn syntax_hint(&self, at: Position) -> Option<String> {
        let line = self.text.lines().nth(at.line - 1)?;
        if line.contains("${") && line.contains(['{', '[']) {
            return Some(
                "inside `{ }` or `[ ]` YAML cannot hold `${...}`: give each key a line of its own"
                    .to_owned(),
            );
        }
        line.contains('\t')
            .then(|| "indent with spaces, not with tabs".to_owned())
    }

    fn error(&mut self, span: &Span, place: &Place<'_>, message: &str, hint: String) {
        self.report
            .error(Position::from(&span.start), place, message, hint);
    }

    fn node(
        &mut self,
        event: Event<'t>,
        span: Span,
        place: &Place<'_>,
        depth: usize,
    ) -> Option<Node> {
        if depth > MAX_DEPTH {
            let hint = format!("at most {MAX_DEPTH} levels are accepted");
            self.error(&span, place, "nested too deeply", hint);
            return None;
        }
        let at = Position::from(&span.start);
        let (anchor, tag, kind) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                (
                    anchor,
                    tag,
                    Kind::Scalar(Scalar {
                        text: text.into_owned(),
                        plain,
                        template: None,
                    }),
                )
            }
            Event::SequenceStart(anchor, tag) => {
                (anchor, tag, Kind::List(self.list(place, depth)?))
            }
            Event::MappingStart(anchor, tag) => {
                (anchor, tag, Kind::Mapping(self.mapping(place, depth)?))
            }
            Event::Alias(anchor) => return self.alias(anchor, &span, place, depth),
            // Not reachable: the parser has no other event where a node must stand.
            _ => (0, None, Kind::Broken),
        };
        let node = self.untagged(Node { at, kind }, tag, place);
        if anchor > 0 {
            let (depth, bytes) = measure(&node);
            self.charge(bytes, at, place)?;
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    depth,
                    bytes,
                },
            );
        }
        Some(node)
    }

    fn untagged(&mut self, node: Node, tag: Option<Cow<'t, Tag>>, place: &Place<'_>) -> Node {
        if tag.is_none() {
            return node;
        }
        let hint = "remove the tag; put a value in quotes to make it text".to_owned();
        self.report
            .error(node.at, place, "tags (`!...`) are not supported", hint);
        Node {
            at: node.at,
            kind: Kind::Broken,
        }
    }

    fn list(&mut self, place: &Place<'_>, depth: usize) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            let place = place.then(Step::Index(items.len()));
            match self.next(&place)? {
                (Event::SequenceEnd, _) => return Some(items),
                (event, span) => items.push(self.node(event, span, &place, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, place: &Place<'_>, depth: usize) -> Option<Mapping> {
        let mut mapping = Mapping::default();
        loop {
            let (event, span) = self.next(place)?;
            let key_at = Position::from(&span.start);
            let key = match event {
                Event::MappingEnd => return Some(mapping),
                Event::Scalar(text, ..) => text.into_owned(),
                other => {
                    let hint = "write a plain name before the `:`".to_owned();
                    self.error(&span, place, "a key must be a name", hint);
                    self.node(other, span, place, depth + 1)?;
                    let (value, span) = self.next(place)?;
                    self.node(value, span, place, depth + 1)?;
                    continue;
                }
            };
            let (event, span) = self.next(place)?;
            let value = self.node(event, span, &place.then(key.as_str()), depth + 1)?;
            self.add(&mut mapping, Entry { key, key_at, value }, place);
        }
    }

    fn add(&mut self, mapping: &mut Mapping, entry: Entry, place: &Place<'_>) {
        if entry.key == "<<" {
            let hint = "write the keys out, or use an alias for the whole value".to_owned();
            self.report.error(
                entry.key_at,
                place,
                "the merge key `<<` is not supported",
                hint,
            );
            return;
        }
        let (key, key_at) = (entry.key.clone(), entry.key_at);
        if let Err(first) = mapping.add(entry) {
            let hint = format!(
                "it is first given in line {}; remove one of the two",
                first.line
            );
            let message = format!("the key {} occurs twice", quoted(&key));
            self.report
                .error(key_at, &place.then(key.as_str()), message, hint);
        }
    }

    fn alias(
        &mut self,
        anchor: usize,
        span: &Span,
        place: &Place<'_>,
        depth: usize,
    ) -> Option<Node> {
        let at = Position::from(&span.start);
        let Some(known) = self.anchors.get(&anchor) else {
            let hint = "an anchor must be complete before it is used".to_owned();
            self.report
                .error(at, place, "this alias is part of its own anchor", hint);
            return Some(Node {
                at,
                kind: Kind::Broken,
            });
        };
        let (bytes, deepest) = (known.bytes, depth + known.depth);
        if deepest > MAX_DEPTH {
            self.error(
                span,
                place,
                "nested too deeply",
                format!("at most {MAX_DEPTH} levels are accepted"),
            );
            return None;
        }
        self.charge(bytes, at, place)?;
        self.anchors.get(&anchor).map(|known| known.node.clone())
    }

    fn charge(&mut self, bytes: usize, at: Position, place: &Place<'_>) -> Option<()> {
        match self.expansion_left.checked_sub(bytes) {
            Some(left) => {
                self.expansion_left = left;
                Some(())
            }
            None => {
                let hint = "write the values out instead of using anchors".to_owned();
                self.report
                    .error(at, place, "anchors and aliases expand to too much", hint);
                None
            }
        }
    }
}

/// The levels below a node, and what a copy of it costs.
fn measure(node: &Node) -> (usize, usize) {
    let below = |nodes: &mut dyn Iterator<Item = (usize, usize)>| {
        nodes.fold((0, NODE_BYTES), |(depth, bytes), (d, b)| {
            (depth.max(d + 1), bytes + b)
        })
    };
    match &node.kind {
        Kind::Scalar(scalar) => (0, NODE_BYTES + scalar.text.len()),
        Kind::List(items) => below(&mut items.iter().map(measure)),
        Kind::Mapping(mapping) => below(&mut mapping.entries.iter().map(|e| {
            let (depth, bytes) = measure(&e.value);
            (depth, bytes + 2 * e.key.len() + NODE_BYTES)
        })),
        Kind::Broken => (0, NODE_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let mut report = Report::new("f");
        parse(text, &mut report);
        report.problems.iter().map(ToString::to_string).collect()
    }

    fn get<'n>(node: &'n Node, key: &str) -> &'n Entry {
        match &node.kind {
            Kind::Mapping(mapping) => mapping.get(key).unwrap(),
            _ => panic!("not a mapping"),
        }
    }

    #[test]
    fn keys_and_values_know_their_positions_in_characters() {
        let mut report = Report::new("f");
        let root = parse("# é\na:\n  \"ä\": [x, 'ü', y]\n", &mut report).unwrap();
        let inner = get(&get(&root, "a").value, "ä");
        assert_eq!(inner.key_at, Position { line: 3, column: 3 });
        let Kind::List(items) = &inner.value.kind else {
            panic!("not a list")
        };
        assert_eq!(
            items[2].at,
            Position {
                line: 3,
                column: 17
            }
        );
    }

    #[test]
    fn a_duplicate_key_names_the_line_of_the_first() {
        assert_eq!(
            errors("a: 1\nb:\n  c: 1\n  c: 2\n"),
            [
                "f:4:3: b.c: the key `c` occurs twice; hint: it is first given in line 3; remove one of the two"
            ]
        );
    }

    #[test]
    fn a_syntax_error_has_its_position_and_explains_substitution_in_flow_style() {
        assert!(
            errors("a: 1\nb: [1\n")[0].starts_with("f:3:1: "),
            "{:?}",
            errors("a: 1\nb: [1\n")
        );
        assert!(errors("a: { b: ${X:-1} }\n")[0].contains("a line of its own"));
        assert!(errors("a:\n\tb: 1\n")[0].contains("spaces, not with tabs"));
    }

    #[test]
    fn aliases_are_expanded() {
        let mut report = Report::new("f");
        let root = parse("a: &x { k: v }\nb: *x\n", &mut report).unwrap();
        assert!(report.problems.is_empty());
        assert_eq!(
            get(&get(&root, "b").value, "k").value.at,
            Position {
                line: 1,
                column: 12
            }
        );
    }

    #[test]
    fn a_billion_laughs_are_refused() {
        let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for i in 1..12 {
            let list = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        let found = errors(&text);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("expand to too much"), "{found:?}");
    }

    #[test]
    fn what_is_not_supported_says_so() {
        assert!(errors("a: 1\n---\nb: 1\n")[0].contains("second document"));
        assert!(errors("a: !!str 1\n")[0].contains("tags"));
        assert!(errors("a: &x {b: 1}\nc:\n  <<: *x\n")[0].contains("merge key"));
        assert!(errors("? [a]\n: b\n")[0].contains("a key must be a name"));
        assert!(errors("a: &x [*x]\n")[0].contains("its own anchor"));
        assert!(errors(&"[".repeat(200))[0].contains("nested too deeply"));
        assert!(errors(&"[".repeat(50_000))[0].contains("not valid YAML"));
        assert!(errors(&"- ".repeat(5000))[0].contains("nested too deeply"));
        assert!(errors("a: *nowhere\n")[0].contains("not valid YAML"));
    }
}
