//! From the file and the database's rows to a snapshot; a row that is wrong is left out, not the whole.

use super::{Snapshot, assemble};
use crate::auth::Sources;
use crate::config::{Loaded, Problem, Row, Severity, Source};
use crate::telemetry::Metrics;
use std::collections::HashMap;
use std::sync::Arc;

/// Leaving out a row may make others wrong (a tier they name); each round leaves out at least one,
/// so this many are enough for every chain that people make.
const MOST_ROUNDS: usize = 8;

/// A snapshot and what it was made of.
pub struct Compiled {
    /// the snapshot
    pub snapshot: Snapshot,
    /// the configuration as validated
    pub loaded: Loaded,
    /// the rows that are part of it
    pub rows: Vec<Row>,
    /// what is wrong with the rows that are not
    pub refused: Vec<Problem>,
}

/// Compiles the whole. Where a row is wrong, the last one of its name that was right stands in for it
/// (`last_good`), else the file's. What is wrong with the file itself refuses the whole.
pub fn compile(
    source: &Source,
    rows: Option<&[Row]>,
    last_good: &[Row],
    previous: Option<&Snapshot>,
    metrics: &Metrics,
    sources: &Arc<Sources>,
) -> Result<Compiled, Vec<Problem>> {
    let Some(rows) = rows else {
        let loaded = source.loaded()?;
        let snapshot = assemble(&loaded, metrics, sources, previous)?;
        return Ok(Compiled {
            snapshot,
            loaded,
            rows: Vec::new(),
            refused: Vec::new(),
        });
    };
    let mut rows = rows.to_vec();
    let mut spare = spares(last_good);
    let mut refused = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let problems = match attempt(source, &rows, metrics, sources, previous) {
            Ok((snapshot, loaded)) => {
                return Ok(Compiled {
                    snapshot,
                    loaded,
                    rows,
                    refused,
                });
            }
            Err(problems) => problems,
        };
        if !replace_wrong(&mut rows, &mut spare, problems.as_slice(), &mut refused) {
            return Err(problems);
        }
    }
    // too entangled to be told apart: what was right together before
    let (snapshot, loaded) = attempt(source, last_good, metrics, sources, previous)?;
    Ok(Compiled {
        snapshot,
        loaded,
        rows: last_good.to_vec(),
        refused,
    })
}

fn attempt(
    source: &Source,
    rows: &[Row],
    metrics: &Metrics,
    sources: &Arc<Sources>,
    previous: Option<&Snapshot>,
) -> Result<(Snapshot, Loaded), Vec<Problem>> {
    let loaded = source.with(rows, Severity::Warning)?;
    let snapshot = assemble(&loaded, metrics, sources, previous)?;
    Ok((snapshot, loaded))
}

fn spares(rows: &[Row]) -> HashMap<String, &Row> {
    rows.iter().map(|row| (row.path(), row)).collect()
}

/// Puts the last good row in place of each that has a problem, or nothing. False: no row is to blame.
fn replace_wrong(
    rows: &mut Vec<Row>,
    spare: &mut HashMap<String, &Row>,
    problems: &[Problem],
    refused: &mut Vec<Problem>,
) -> bool {
    let mut blamed: HashMap<&str, &Problem> = HashMap::new();
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    for problem in errors.filter(|problem| problem.is_of_a_row()) {
        for end in problem.path.match_indices(['.', '[']).map(|(at, _)| at) {
            blamed
                .entry(problem.path.get(..end).unwrap_or_default())
                .or_insert(problem);
        }
        blamed.entry(&problem.path).or_insert(problem);
    }
    let mut any = false;
    rows.retain_mut(|row| {
        let path = row.path();
        let Some(&problem) = blamed.get(path.as_str()) else {
            return true;
        };
        any = true;
        if !refused.contains(problem) {
            refused.push(problem.clone());
        }
        // taken out, so that a spare which is wrong by now is not tried again
        match spare.remove(&path) {
            Some(good) if good != row => {
                *row = good.clone();
                true
            }
            _ => false,
        }
    });
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Section};
    use serde_json::{Value, json};

    const FILE: &str = "upstreams: { u: { peers: [{ address: 127.0.0.1:1 }] } }\n\
        routes: [{ name: r, upstream: u }]\n\
        policies: { p: { key: [ip], algorithm: fixed_window, quota: { count: 5, period: 1s } } }\n";

    fn policy(count: u64) -> Value {
        json!({ "key": ["client"], "algorithm": "fixed_window", "quota": { "count": count, "period": "60s" } })
    }

    fn row(section: Section, name: &str, document: Value) -> Row {
        Row {
            section,
            name: name.to_owned(),
            document,
        }
    }

    fn compiled(text: &str, rows: &[Row], last_good: &[Row]) -> Result<Compiled, Vec<Problem>> {
        let source = Source::parse(text, "f", &Environment::default()).unwrap();
        let metrics = Metrics::new().unwrap();
        let sources = Sources::new(metrics.auth.clone(), None);
        compile(&source, Some(rows), last_good, None, &metrics, &sources)
    }

    fn limits(compiled: &Compiled) -> Vec<(String, u64)> {
        let limit =
            |policy: &crate::policy::Policy| (policy.name().to_owned(), policy.quota(0).limit);
        compiled.snapshot.policies.iter().map(limit).collect()
    }

    #[test]
    fn a_wrong_row_is_left_out_and_named_and_all_others_count() {
        let wrong = json!({ "key": ["nobody"], "algorithm": "fixed_window", "quota": { "count": 1, "period": "1s" } });
        let rows = [
            row(Section::Policies, "p", wrong),
            row(Section::Policies, "q", policy(9)),
            row(Section::RouteSettings, "nowhere", json!({})),
        ];
        let compiled = compiled(FILE, &rows, &[]).unwrap();
        assert_eq!(
            limits(&compiled),
            [("p".to_owned(), 5), ("q".to_owned(), 9)]
        );
        let paths: Vec<&str> = compiled
            .refused
            .iter()
            .map(|problem| problem.path.as_str())
            .collect();
        assert_eq!(paths, ["policies.p.key[0]", "routes.nowhere.settings"]);
        assert_eq!(compiled.rows, [rows[1].clone()]);
    }

    #[test]
    fn the_last_good_row_stands_in_for_one_that_became_wrong() {
        let good = [row(Section::Policies, "p", policy(7))];
        let wrong = [row(Section::Policies, "p", json!({ "key": ["client"] }))];
        let compiled = compiled(FILE, &wrong, &good).unwrap();
        assert_eq!(limits(&compiled), [("p".to_owned(), 7)]);
        assert!(!compiled.refused.is_empty());
    }

    #[test]
    fn a_time_zone_that_only_the_compiler_knows_to_be_wrong_is_left_out_too() {
        let calendar = json!({ "key": ["ip"], "algorithm": "fixed_window", "quota": { "count": 1, "calendar": "day", "time_zone": "Mars/Olympus" } });
        let compiled = compiled(FILE, &[row(Section::Policies, "z", calendar)], &[]).unwrap();
        assert_eq!(limits(&compiled), [("p".to_owned(), 5)]);
        assert!(compiled.refused[0].message.contains("Mars/Olympus"));
    }

    #[test]
    fn what_is_wrong_with_the_file_refuses_the_whole() {
        let problems = compiled("routes: [{ name: r, upstream: u }]", &[], &[])
            .err()
            .unwrap();
        assert_eq!(problems[0].path, "routes[0].upstream");
    }

    #[test]
    fn a_cost_that_rows_multiply_beyond_what_a_bucket_holds_is_named_and_takes_nothing_away() {
        let rows = [row(Section::RouteSettings, "r", json!({ "cost": 6 }))];
        let over = compiled(FILE, &rows, &[]).unwrap();
        assert_eq!(over.rows, rows);
        assert_eq!(over.snapshot.conflicts[0].path, "routes.r.settings.cost");
        assert_eq!(
            over.snapshot.conflicts[0].hint.as_deref(),
            Some("write at most 5")
        );
        let rows = [row(Section::RouteSettings, "r", json!({ "cost": 5 }))];
        assert!(
            compiled(FILE, &rows, &[])
                .unwrap()
                .snapshot
                .conflicts
                .is_empty()
        );
        let file = FILE.replace("upstream: u }]", "upstream: u, settings: { cost: 6 } }]");
        assert!(compiled(&file, &[row(Section::Tiers, "t", json!({}))], &[]).is_ok());
        let source = Source::parse(&file, "f", &Environment::default()).unwrap();
        let metrics = Metrics::new().unwrap();
        let sources = Sources::new(metrics.auth.clone(), None);
        let alone = compile(&source, None, &[], None, &metrics, &sources);
        assert_eq!(alone.err().unwrap()[0].path, "routes[0].settings.cost");
    }

    #[test]
    fn a_tier_that_is_gone_takes_no_policy_with_it() {
        let file = format!(
            "database: {{ url: 'postgres://h/d' }}\nclients: {{ a: {{ tier: gold }} }}\n{FILE}"
        );
        let mut document = policy(7);
        document["tiers"] = json!({ "gold": { "count": 9, "period": "1s" } });
        let rows = [row(Section::Policies, "p", document)];
        let compiled = compiled(&file, &rows, &rows).unwrap();
        assert_eq!(limits(&compiled), [("p".to_owned(), 7)]);
        let of_client = compiled.snapshot.clients["a"].tier.as_deref();
        assert_eq!(of_client, Some("gold"), "before what a token claims");
        assert_eq!(
            compiled.loaded.warnings.len(),
            2,
            "{:?}",
            compiled.loaded.warnings
        );
    }
}
