//! Keys and their values in the order of the file.

use std::collections::{HashMap, hash_map};

use super::{Kind, Node, Position};

/// A key, where it stands, and its value.
#[derive(Clone)]
pub(in crate::config) struct Entry {
    /// The key's text.
    pub(in crate::config) key: String,
    /// The key's first character.
    pub(in crate::config) key_at: Position,
    /// The value.
    pub(in crate::config) value: Node,
}

impl Entry {
    /// Where a message about the value points: at a scalar itself, otherwise at the key.
    pub(in crate::config) fn at(&self) -> Position {
        match &self.value.kind {
            Kind::Scalar(scalar) if !(scalar.plain && scalar.text.is_empty()) => self.value.at,
            _ => self.key_at,
        }
    }
}

/// Entries in the order of the file, each key once.
#[derive(Clone, Default)]
pub(in crate::config) struct Mapping {
    /// The entries.
    pub(in crate::config) entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

impl Mapping {
    /// The entry of a key.
    pub(in crate::config) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(*self.index.get(key)?)
    }

    /// The value of a key.
    pub(in crate::config) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let index = *self.index.get(key)?;
        self.entries.get_mut(index).map(|entry| &mut entry.value)
    }

    /// Adds an entry in place of the one with the same key.
    pub(in crate::config) fn put(&mut self, entry: Entry) {
        match self
            .index
            .get(&entry.key)
            .and_then(|at| self.entries.get_mut(*at))
        {
            Some(there) => *there = entry,
            None => {
                self.index.insert(entry.key.clone(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// Adds an entry, or gives back the position of the one with the same key.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), Position> {
        match self.index.entry(entry.key.clone()) {
            hash_map::Entry::Occupied(first) => Err(self
                .entries
                .get(*first.get())
                .map_or(entry.key_at, |e| e.key_at)),
            hash_map::Entry::Vacant(free) => {
                free.insert(self.entries.len());
                self.entries.push(entry);
                Ok(())
            }
        }
    }
}
