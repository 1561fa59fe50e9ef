//! Rows of the database laid over the tree of the file: validated together, by the same code.

use std::collections::HashMap;

use serde_json::Value;

use super::notation::{ClientId, Name, Notation};
use super::place::{Step, path_text};
use super::problem::{Problem, Severity};
use super::tree::{Entry, Kind, Mapping, Node, Position, Scalar};

/// How problems of rows name their origin.
pub(super) const ORIGIN: &str = "database";

/// The part of the configuration a row stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// `policies.<name>`
    Policies,
    /// `tiers.<name>`
    Tiers,
    /// `clients.<id>`
    Clients,
    /// `settings` of the route of that name
    RouteSettings,
}

/// A part of the configuration that does not come from the file: it replaces the file's as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it belongs.
    pub section: Section,
    /// Its name; a client's id.
    pub name: String,
    /// What the file would have there, in JSON.
    pub document: Value,
}

impl Row {
    /// Its place as problems show it: `policies.search`, `routes.search.settings`.
    pub fn path(&self) -> String {
        let name = Step::from(&self.name);
        match self.section {
            Section::Policies => path_text(&["policies".into(), name]),
            Section::Tiers => path_text(&["tiers".into(), name]),
            Section::Clients => path_text(&["clients".into(), name]),
            Section::RouteSettings => path_text(&["routes".into(), name, "settings".into()]),
        }
    }

    /// Does a problem speak about this row?
    pub fn has(&self, problem: &Problem) -> bool {
        problem.is_of_a_row() && is_below(&problem.path, &self.path())
    }

    /// Something wrong with this row.
    fn problem(&self, message: impl Into<String>, hint: String) -> Problem {
        Problem {
            severity: Severity::Error,
            file: ORIGIN.to_owned(),
            line: 0,
            column: 0,
            path: self.path(),
            message: message.into(),
            hint: Some(hint),
        }
    }
}

fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Which places of the tree come from rows: from the place's path to the row's.
#[derive(Default, Debug)]
pub(super) struct Overlaid(HashMap<String, String>);

impl Overlaid {
    /// Is there none?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is there a row at this very path?
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Gives a problem that a row has the row's origin in place of the file's.
    pub(super) fn attribute(&self, problem: &mut Problem) {
        if self.0.is_empty() {
            return;
        }
        let path = &problem.path;
        let tops = path.match_indices(['.', '[']).map(|(at, _)| at);
        let top = tops
            .chain([path.len()])
            .find_map(|end| Some((end, self.0.get(path.get(..end)?)?)));
        if let Some((end, shown)) = top {
            problem.path = format!("{shown}{}", path.get(end..).unwrap_or_default());
            ORIGIN.clone_into(&mut problem.file);
            (problem.line, problem.column) = (0, 0);
        }
    }
}

/// Lays rows over a tree. What cannot be laid anywhere is a problem.
pub(super) fn lay<'r>(
    root: &mut Node,
    rows: impl IntoIterator<Item = &'r Row>,
    problems: &mut Vec<Problem>,
) -> Overlaid {
    let routes = route_positions(root);
    let mut overlaid = Overlaid::default();
    for row in rows {
        let laid = match row.section {
            Section::Policies => named(root, "policies", row),
            Section::Tiers => named(root, "tiers", row),
            Section::Clients => named(root, "clients", row),
            Section::RouteSettings => settings(root, &routes, row),
        };
        match laid {
            Ok(path) => {
                overlaid.0.insert(path, row.path());
            }
            Err(problem) => problems.push(*problem),
        }
    }
    overlaid
}

/// Puts a row under its name into a section; gives back its path in the tree.
fn named(root: &mut Node, section: &str, row: &Row) -> Result<String, Box<Problem>> {
    let (fits, hint) = match row.section {
        Section::Clients => (ClientId::parse(&row.name).is_ok(), ClientId::HINT),
        _ => (Name::parse(&row.name).is_ok(), Name::HINT),
    };
    if !fits {
        return Err(Box::new(
            row.problem("the name is not allowed", hint.to_owned()),
        ));
    }
    if let Some(mapping) = mapping_in(root, section) {
        mapping.put(entry(&row.name, &row.document));
    }
    Ok(path_text(&[section.into(), (&row.name).into()]))
}

fn settings(
    root: &mut Node,
    routes: &HashMap<String, usize>,
    row: &Row,
) -> Result<String, Box<Problem>> {
    let Some(&index) = routes.get(&row.name) else {
        let hint = "routes are those of the file; remove the settings, or add the route";
        return Err(Box::new(
            row.problem("there is no such route", hint.to_owned()),
        ));
    };
    let section = child(root, "routes");
    if let Some(Kind::List(items)) = section.map(|node| &mut node.kind)
        && let Some(Kind::Mapping(route)) = items.get_mut(index).map(|item| &mut item.kind)
    {
        route.put(entry("settings", &row.document));
    }
    Ok(path_text(&[
        "routes".into(),
        index.into(),
        "settings".into(),
    ]))
}

/// The first route of each name.
fn route_positions(root: &mut Node) -> HashMap<String, usize> {
    let mut positions = HashMap::new();
    let Some(Kind::List(items)) = child(root, "routes").map(|node| &mut node.kind) else {
        return positions;
    };
    for (index, item) in items.iter_mut().enumerate() {
        if let Some(Kind::Scalar(name)) = child(item, "name").map(|node| &mut node.kind) {
            positions.entry(name.text.clone()).or_insert(index);
        }
    }
    positions
}

fn child<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    match &mut node.kind {
        Kind::Mapping(mapping) => mapping.get_mut(key),
        _ => None,
    }
}

/// The mapping under a key of the root, made where the file has none.
fn mapping_in<'n>(root: &'n mut Node, key: &str) -> Option<&'n mut Mapping> {
    let Kind::Mapping(top) = &mut root.kind else {
        return None;
    };
    let empty = match top.get(key).map(|entry| &entry.value.kind) {
        None => true,
        Some(Kind::Scalar(scalar)) => scalar.plain && matches!(&*scalar.text, "" | "~" | "null"),
        Some(_) => false,
    };
    if empty {
        top.put(entry(key, &Value::Object(serde_json::Map::new())));
    }
    match &mut top.get_mut(key)?.kind {
        Kind::Mapping(mapping) => Some(mapping),
        _ => None,
    }
}

fn entry(key: &str, value: &Value) -> Entry {
    Entry {
        key: key.to_owned(),
        key_at: Position::START,
        value: node(value),
    }
}

/// JSON as the tree holds it.
fn node(value: &Value) -> Node {
    let scalar = |text: String, plain| {
        Kind::Scalar(Scalar {
            text,
            plain,
            template: None,
        })
    };
    let kind = match value {
        Value::Null => scalar("null".to_owned(), true),
        Value::Bool(value) => scalar(value.to_string(), true),
        Value::Number(value) => scalar(value.to_string(), true),
        Value::String(text) => scalar(text.clone(), false),
        Value::Array(items) => Kind::List(items.iter().map(node).collect()),
        Value::Object(entries) => {
            let mut mapping = Mapping::default();
            for (key, value) in entries {
                mapping.put(entry(key, value));
            }
            Kind::Mapping(mapping)
        }
    };
    Node {
        at: Position::START,
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{environment, with_route};
    use crate::config::{Mode, Source};
    use serde_json::json;

    fn source(rest: &str) -> Source {
        Source::parse(&with_route(rest), "f", &environment()).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn row(section: Section, name: &str, document: Value) -> Row {
        Row {
            section,
            name: name.to_owned(),
            document,
        }
    }

    fn policy(count: u64) -> Value {
        json!({ "key": ["client"], "algorithm": "token_bucket", "quota": { "count": count, "period": "60s" } })
    }

    const FILE: &str =
        "policies:\n  p: { key: [ip], algorithm: concurrency, quota: { count: 5 } }\n";

    #[test]
    fn a_row_replaces_the_files_policy_as_a_whole_and_others_are_added() {
        let rows = [
            row(Section::Policies, "p", policy(7)),
            row(Section::Policies, "q", policy(9)),
        ];
        let config = source(FILE).with(&rows, Severity::Error).unwrap().config;
        assert_eq!(config.policies["p"].quota.count, 7);
        assert_eq!(config.policies["q"].quota.count, 9);
        assert_eq!(config.policies["p"].mode, Mode::Enforce);
        assert_eq!(
            source("")
                .with(&rows, Severity::Error)
                .unwrap()
                .config
                .policies
                .len(),
            2
        );
        assert_eq!(
            source(FILE).loaded().unwrap().config.policies["p"]
                .quota
                .count,
            5
        );
    }

    #[test]
    fn settings_of_a_route_are_laid_over_the_route() {
        let rows = [row(
            Section::RouteSettings,
            "r",
            json!({ "maintenance": true, "cost": 3 }),
        )];
        let config = source("").with(&rows, Severity::Error).unwrap().config;
        let settings = &config.routes[0].settings;
        assert!(settings.maintenance && settings.enabled);
        assert_eq!(settings.cost, 3);
    }

    #[test]
    fn problems_of_rows_name_the_row_and_those_of_the_file_the_file() {
        let rows = [
            row(
                Section::Policies,
                "p",
                json!({ "key": [], "algorithm": "token_bucket", "quota": { "count": "x" } }),
            ),
            row(
                Section::RouteSettings,
                "r",
                json!({ "upstream": "nowhere" }),
            ),
            row(Section::RouteSettings, "s", json!({})),
            row(Section::Tiers, "No Tier", json!({})),
            row(Section::Policies, "t", json!({ "kee": 1 })),
        ];
        let problems = source(FILE).with(&rows, Severity::Error).unwrap_err();
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for expected in [
            "database: policies.p.key: the key is empty",
            "database: policies.p.quota.count: ",
            "database: routes.r.settings.upstream: there is no upstream `nowhere`",
            "database: routes.s.settings: there is no such route",
            "database: tiers.\"No Tier\": the name is not allowed",
            "database: policies.t.kee: ",
        ] {
            assert!(
                texts.iter().any(|text| text.starts_with(expected)),
                "{expected}: {texts:#?}"
            );
        }
        for row in &rows {
            assert!(problems.iter().any(|problem| row.has(problem)), "{row:?}");
        }
        assert!(
            problems
                .iter()
                .all(|problem| rows.iter().any(|row| row.has(problem)))
        );
    }

    #[test]
    fn references_are_checked_against_the_whole() {
        let mut document = policy(1);
        document["tiers"] = json!({ "gold": { "count": 9, "period": "1s" } });
        let rows = [
            row(Section::Policies, "p", document),
            row(Section::Tiers, "gold", json!({})),
        ];
        assert!(source("").with(&rows, Severity::Error).is_ok());
        let problems = source("").with(&rows[..1], Severity::Error).unwrap_err();
        assert!(
            problems[0]
                .to_string()
                .starts_with("database: policies.p.tiers.gold: there is no tier")
        );
    }

    #[test]
    fn with_a_database_a_tier_or_client_may_live_there() {
        let text = "database: { url: 'postgres://h/d' }\nclients: { a: { tier: gold } }\npolicies:\n  p: { key: [client], algorithm: fixed_window, \
             quota: { count: 1, period: 1s }, overrides: { nobody: { count: 1, period: 1s, expires: 2030-01-01T00:00:00Z } } }\n";
        let alone = source(text).loaded().unwrap();
        assert_eq!(alone.warnings.len(), 1, "{:?}", alone.warnings);
        assert!(alone.warnings[0].message.contains("no tier `gold`"));
        assert!(source(text).with(&[], Severity::Error).is_err());
        let config = source(text)
            .with(&[row(Section::Tiers, "gold", json!({}))], Severity::Error)
            .unwrap()
            .config;
        assert_eq!(
            config.policies["p"].overrides["nobody"].expires_us,
            Some(1_893_456_000_000_000)
        );
    }
}
