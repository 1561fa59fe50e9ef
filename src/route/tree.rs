//! The path patterns of one host, walked segment by segment: cost depends on the path, not on how many there are.

use std::collections::BTreeMap;
use std::iter;

use hashbrown::HashMap;
use regex_automata::meta::{BuildError, Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, PatternID, PatternSet};

use super::methods::Methods;

/// `\w{1,10}` fits, `\w{1,100}` does not.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// All regexes of one host together; also bounds the time of a search that outgrows its automaton.
const MAX_REGEX_SET_BYTES: usize = 4 << 20;

/// A pattern in the form in which equal ones are equal: decoded, as [`super::path::pattern`] gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pattern {
    Exact(String),
    Regex(String),
    Prefix(String),
}

#[derive(Debug)]
pub(super) struct PathTree {
    /// The first is the root, the parent of all first segments.
    nodes: Vec<Node>,
    /// By priority, as in `regex`.
    regex_routes: Vec<Methods>,
    regex: Option<Regex>,
    /// The same regexes, to find all that match. Absent if the first always serves.
    all_regexes: Option<Regex>,
}

/// One segment below its parent.
#[derive(Debug, Default)]
struct Node {
    parent: Option<usize>,
    children: HashMap<Box<str>, usize>,
    exact: Ends,
    prefix: Ends,
}

/// The pattern that ends at a node, `/a`, and the one with a slash after it, `/a/`.
#[derive(Debug, Default)]
struct Ends {
    bare: Methods,
    slash: Methods,
}

/// What a path has beyond the deepest node that it reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Nothing,
    Slash,
    Deeper,
}

impl PathTree {
    /// `name` is a route's name, which decides between regexes of the same length.
    /// Err: the regexes are too large together.
    pub(super) fn build<'n>(
        patterns: BTreeMap<Pattern, Methods>,
        name: impl Fn(usize) -> &'n str,
    ) -> Result<Self, Box<BuildError>> {
        let mut tree = Self {
            nodes: vec![Node::default()],
            regex_routes: Vec::new(),
            regex: None,
            all_regexes: None,
        };
        let mut regexes = Vec::new();
        for (pattern, methods) in patterns {
            match pattern {
                Pattern::Exact(path) => tree.insert(&path, methods, |node| &mut node.exact),
                Pattern::Prefix(path) => tree.insert(&path, methods, |node| &mut node.prefix),
                Pattern::Regex(regex) => {
                    let first_name = methods.routes().map(&name).min().unwrap_or_default();
                    regexes.push((usize::MAX - regex.len(), first_name, regex, methods));
                }
            }
        }
        regexes.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        let (texts, routes): (Vec<_>, Vec<_>) = regexes
            .into_iter()
            .map(|(_, _, regex, methods)| (regex, methods))
            .unzip();
        if !texts.is_empty() {
            tree.regex = Some(compile(
                &texts,
                MatchKind::LeftmostFirst,
                MAX_REGEX_SET_BYTES,
            )?);
            if texts.len() > 1 && !routes.iter().all(Methods::takes_all) {
                tree.all_regexes = Some(compile(&texts, MatchKind::All, MAX_REGEX_SET_BYTES)?);
            }
            tree.regex_routes = routes;
        }
        Ok(tree)
    }

    fn insert(&mut self, path: &str, methods: Methods, ends: impl Fn(&mut Node) -> &mut Ends) {
        let segments = path.strip_prefix('/').unwrap_or(path);
        let (segments, slash) = match segments.strip_suffix('/') {
            Some(segments) => (segments, true),
            None => (segments, segments.is_empty()),
        };
        let mut at = 0;
        for segment in segments.split('/').filter(|segment| !segment.is_empty()) {
            at = self.child(at, segment);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            let ends = ends(node);
            *(if slash {
                &mut ends.slash
            } else {
                &mut ends.bare
            }) = methods;
        }
    }

    fn child(&mut self, parent: usize, segment: &str) -> usize {
        let child = self.nodes.len();
        let Some(node) = self.nodes.get_mut(parent) else {
            return parent;
        };
        if let Some(&known) = node.children.get(segment) {
            return known;
        }
        node.children.insert(segment.into(), child);
        self.nodes.push(Node {
            parent: Some(parent),
            ..Node::default()
        });
        child
    }

    /// The routes of every pattern that matches `path` (decoded), the most specific pattern first.
    pub(super) fn matching<'t>(&'t self, path: &'t str) -> impl Iterator<Item = &'t Methods> {
        self.walk(path).into_iter().flat_map(move |(node, tail)| {
            let exact = match tail {
                Tail::Nothing => Some(&node.exact.bare),
                Tail::Slash => Some(&node.exact.slash),
                Tail::Deeper => None,
            };
            exact
                .into_iter()
                .chain(self.regexes(path))
                .chain(self.prefixes(node, tail))
        })
    }

    pub(super) fn has_regexes(&self) -> bool {
        self.regex.is_some()
    }

    fn walk(&self, path: &str) -> Option<(&Node, Tail)> {
        let mut node = self.nodes.first()?;
        // `OPTIONS *` speaks of the whole host: only the prefix `/` (or a regex) takes it.
        let Some(mut rest) = path.strip_prefix('/') else {
            return Some((node, Tail::Deeper));
        };
        loop {
            if rest.is_empty() {
                return Some((node, Tail::Slash));
            }
            let (segment, after) = match rest.split_once('/') {
                Some((segment, after)) => (segment, Some(after)),
                None => (rest, None),
            };
            let Some(child) = node
                .children
                .get(segment)
                .and_then(|&child| self.nodes.get(child))
            else {
                return Some((node, Tail::Deeper));
            };
            node = child;
            match after {
                Some(after) => rest = after,
                None => return Some((node, Tail::Nothing)),
            }
        }
    }

    fn prefixes<'t>(&'t self, node: &'t Node, tail: Tail) -> impl Iterator<Item = &'t Methods> {
        let up = |(node, _): &(&'t Node, bool)| Some((self.nodes.get(node.parent?)?, true));
        iter::successors(Some((node, tail != Tail::Nothing)), up).flat_map(|(node, slash)| {
            let with_slash = slash.then_some(&node.prefix.slash);
            with_slash.into_iter().chain(iter::once(&node.prefix.bare))
        })
    }

    /// Patterns stand in the order of priority, and a search for the leftmost match prefers the
    /// earliest pattern: one pass without allocation. The others are looked for only if asked for.
    fn regexes<'t>(&'t self, path: &'t str) -> impl Iterator<Item = &'t Methods> {
        let input = Input::new(path).anchored(Anchored::Yes);
        let first = self
            .regex
            .as_ref()
            .and_then(|regex| regex.search_half(&input));
        let first = first.map(|found| found.pattern());
        let others = first
            .into_iter()
            .flat_map(move |first| self.other_regexes(path, first));
        first
            .into_iter()
            .chain(others)
            .filter_map(|id| self.regex_routes.get(id.as_usize()))
    }

    fn other_regexes(&self, path: &str, first: PatternID) -> Vec<PatternID> {
        let Some(regex) = &self.all_regexes else {
            return Vec::new();
        };
        let mut found = PatternSet::new(regex.pattern_len());
        regex.which_overlapping_matches(&Input::new(path).anchored(Anchored::Yes), &mut found);
        found.iter().filter(|&id| id != first).collect()
    }
}

/// Whether a route's regex is well-formed and of bounded size. Err: why not.
pub(super) fn check_regex(regex: &str) -> Result<(), String> {
    // Alone first: `a)|(b` is well-formed only inside the group that is put around it.
    if let Err(error) = syntax::parse(regex) {
        // The lines before the last draw the place; a message has one line.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        return Err(reason.trim_start_matches("error: ").to_owned());
    }
    compile(&[regex], MatchKind::LeftmostFirst, MAX_REGEX_BYTES)
        .map(drop)
        .map_err(|error| match error.size_limit() {
            Some(limit) => format!("compiles to more than {limit} bytes; repeat less"),
            None => "not well-formed inside a group (a comment at its end?)".to_owned(),
        })
}

fn compile<T: AsRef<str>>(
    regexes: &[T],
    kind: MatchKind,
    max_bytes: usize,
) -> Result<Regex, Box<BuildError>> {
    // Without the implicit captures, a search does not say which pattern matched.
    let config = Config::new()
        .match_kind(kind)
        .nfa_size_limit(Some(max_bytes))
        .which_captures(WhichCaptures::Implicit);
    let whole: Vec<_> = regexes
        .iter()
        .map(|regex| format!(r"\A(?:{})\z", regex.as_ref()))
        .collect();
    Regex::builder()
        .configure(config)
        .syntax(syntax::Config::new().dot_matches_new_line(true))
        .build_many(&whole)
        .map_err(Box::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_is_bounded_in_size_and_must_be_well_formed() {
        assert_eq!(check_regex(r"/orders/\d+"), Ok(()));
        for (regex, says) in [
            ("(", "unclosed group"),
            ("a)|(b", "unopened group"),
            (r"(?:\w{1000}){1000}", "compiles to more than"),
            ("(a)\\1", "backreferences are not supported"),
            ("(?x)a # end", "inside a group"),
        ] {
            let reason = check_regex(regex).unwrap_err();
            assert!(reason.contains(says), "{regex}: {reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
    }

    #[test]
    fn prefixes_come_from_the_longest_to_the_shortest() {
        let mut patterns = BTreeMap::new();
        for (route, prefix) in ["/", "/a", "/a/", "/a/b", "/a/b/", "/c"]
            .into_iter()
            .enumerate()
        {
            let methods = patterns
                .entry(Pattern::Prefix(prefix.to_owned()))
                .or_insert_with(Methods::default);
            assert_eq!(methods.insert(None, route), Ok(()));
        }
        let tree = PathTree::build(patterns, |_| "").unwrap();
        let found = |path| {
            tree.matching(path)
                .flat_map(Methods::routes)
                .collect::<Vec<_>>()
        };
        assert_eq!(found("/a/b/c"), [4, 3, 2, 1, 0]);
        assert_eq!(found("/a/b/"), [4, 3, 2, 1, 0]);
        assert_eq!(found("/a/b"), [3, 2, 1, 0]);
        assert_eq!(found("/a"), [1, 0]);
        assert_eq!(found("/ab"), [0]);
        assert_eq!(found("/"), [0]);
        assert_eq!(found("*"), [0]);
    }
}
