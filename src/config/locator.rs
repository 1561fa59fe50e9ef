//! Finds the line and column of a place in the configuration, also for checks made elsewhere.

use std::fmt;

use super::place::Step;
use super::tree::{Kind, Node, Position};

/// The tree of a loaded file.
pub(super) struct Locator {
    root: Node,
}

impl Locator {
    pub(super) fn new(root: Node) -> Locator {
        Locator { root }
    }

    /// The whole tree.
    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Where a message about a path points: at its node, or at the nearest one above it that exists.
    pub(super) fn position(&self, path: &[Step<'_>]) -> Position {
        let (mut node, mut at) = (&self.root, Position::START);
        for step in path {
            match child(node, *step) {
                Some((next, position)) => (node, at) = (next, position),
                None => break,
            }
        }
        at
    }

    /// The node at exactly this path.
    pub(super) fn node(&self, path: &[Step<'_>]) -> Option<&Node> {
        path.iter().try_fold(&self.root, |node, step| {
            child(node, *step).map(|(next, _)| next)
        })
    }

    /// The scalar at a path as a message shows it.
    pub(super) fn shown(&self, path: &[Step<'_>]) -> String {
        match self.node(path).map(|node| &node.kind) {
            Some(Kind::Scalar(scalar)) => scalar.shown(),
            _ => "this".to_owned(),
        }
    }

    /// The keys of a mapping in the order of the file, also those whose values are wrong.
    pub(super) fn keys(&self, path: &[Step<'_>]) -> Vec<&str> {
        match self.node(path).map(|node| &node.kind) {
            Some(Kind::Mapping(mapping)) => mapping
                .entries
                .iter()
                .map(|entry| entry.key.as_str())
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn child<'n>(node: &'n Node, step: Step<'_>) -> Option<(&'n Node, Position)> {
    match (&node.kind, step) {
        (Kind::Mapping(mapping), Step::Key(key)) => {
            mapping.get(key).map(|entry| (&entry.value, entry.at()))
        }
        (Kind::List(items), Step::Index(index)) => items.get(index).map(|item| (item, item.at)),
        _ => None,
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locator(..)") // the tree holds secrets
    }
}
