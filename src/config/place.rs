//! The path to a node of the configuration, for machines (steps) and for people (text).

use super::problem::without_login;

/// One step from a node of the tree to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// The value of a key.
    Key(&'a str),
    /// An element of a list, from 0.
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Self {
        Step::Key(key)
    }
}

impl<'a> From<&'a String> for Step<'a> {
    fn from(key: &'a String) -> Self {
        Step::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

/// Where a walk through the tree is: a step and, linked, the place it was taken from. Costs nothing until asked for.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    from: Option<(&'a Place<'a>, Step<'a>)>,
}

impl<'a> Place<'a> {
    /// The top of the tree.
    pub(super) const ROOT: Place<'static> = Place { from: None };

    /// The place one step further down.
    pub(super) fn then<'b>(&'b self, step: impl Into<Step<'b>>) -> Place<'b>
    where
        'a: 'b,
    {
        Place {
            from: Some((self, step.into())),
        }
    }

    /// The steps from the top to here.
    pub(super) fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let mut place = *self;
        while let Some((parent, step)) = place.from {
            steps.push(step);
            place = *parent;
        }
        steps.reverse();
        steps
    }

    /// The path as people read it.
    pub(super) fn text(&self) -> String {
        path_text(&self.steps())
    }
}

/// The path as people read it: `routes[0].match.path`, odd keys in quotes.
pub(super) fn path_text(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                let simple = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
                if !key.is_empty() && key.chars().all(simple) {
                    text.push_str(key);
                } else {
                    text.push_str(&format!("{:?}", without_login(key)));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it_and_odd_keys_are_quoted() {
        let routes = Place::ROOT.then("routes");
        let first = routes.then(0);
        assert_eq!(
            first.then("match").then("path").text(),
            "routes[0].match.path"
        );
        assert_eq!(
            path_text(&["clients".into(), "a.b".into(), 3.into()]),
            "clients.\"a.b\"[3]"
        );
        assert_eq!(Place::ROOT.text(), "");
    }
}
