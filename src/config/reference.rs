//! Tests that keep `conf/tidegate.yaml` equal to the code, and the examples loadable.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::check_shape::check_shape;
use super::problem::Report;
use super::{Environment, load, parse, raw, schema, shape, substitute, tree};

const REFERENCE: &str = include_str!("../../conf/tidegate.yaml");

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

fn nothing_set() -> Environment {
    Environment::from_pairs::<&str, &str>([])
}

/// The file's values after substitution.
fn values() -> Value {
    let mut report = Report::new("tidegate.yaml");
    let mut root = tree::parse(REFERENCE, &mut report).unwrap();
    substitute::substitute(&mut root, &nothing_set(), &mut report);
    let value = check_shape(&root, &shape::read(&schema::of_types()), &mut report);
    assert_eq!(report.problems, []);
    serde_json::to_value(value).unwrap()
}

/// Whose contents are examples: an operator names them.
const EXAMPLES: [&str; 6] = [
    "tiers",
    "clients",
    "upstreams",
    "routes",
    "policies",
    "api_keys",
];

/// Compares a schema with the file's value at the same place; collects what differs.
fn compare(schema: &Value, root: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let schema = schema["anyOf"].get(0).unwrap_or(schema);
    let definition = schema["$ref"]
        .as_str()
        .map(|at| at.rsplit('/').next().unwrap());
    let schema = definition.map_or(schema, |name| &root["$defs"][name]);
    if let Some(fields) = schema["properties"].as_object() {
        for (key, field) in fields {
            let path = format!("{path}.{key}");
            // what is null as a whole is shown in its comment
            if value.is_null() && REFERENCE.contains(&format!(" {key}: ")) {
                continue;
            }
            let Some(value) = value.get(key) else {
                wrong.push(format!("{path}: not in the file"));
                continue;
            };
            let required = schema["required"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == key));
            let container = field["$ref"].is_string() && value.is_object()
                || field["anyOf"].is_array() && value.is_object();
            let example =
                EXAMPLES.contains(&key.as_str()) && value.as_object().is_none_or(|o| !o.is_empty());
            if !required && !container && !example && field["default"] != *value {
                wrong.push(format!(
                    "{path}: {value} in the file, {} in the code",
                    field["default"]
                ));
            }
            compare(field, root, value, &path, wrong);
        }
    }
    if schema["additionalProperties"].is_object() {
        for (key, value) in value.as_object().into_iter().flatten() {
            compare(
                &schema["additionalProperties"],
                root,
                value,
                &format!("{path}.{key}"),
                wrong,
            );
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        compare(
            &schema["items"],
            root,
            value,
            &format!("{path}[{index}]"),
            wrong,
        );
    }
}

#[test]
fn the_reference_file_has_every_key_with_its_default() {
    let schema = schema::of_types();
    let mut wrong = Vec::new();
    compare(&schema, &schema, &values(), "", &mut wrong);
    let may_differ = [
        // Resolved from null: the default prefix.
        format!(
            ".routes[0].match.path: \"{}\" in the file, null in the code",
            raw::DEFAULT_PATH
        ),
        // What a quota or a key needs beside its count has no default.
        ".policies.per-client.quota.period: \"60000ms\" in the file, null in the code".to_owned(),
        format!(
            ".clients.acme.api_keys[0].sha256: {} in the file, null in the code",
            values()["clients"]["acme"]["api_keys"][0]["sha256"]
        ),
    ];
    assert_eq!(
        wrong
            .into_iter()
            .filter(|one| !may_differ.contains(one))
            .collect::<Vec<_>>(),
        [""; 0]
    );
}

#[test]
fn the_comparison_notices_a_changed_default_and_a_missing_key() {
    let schema = schema::of_types();
    let mut values = values();
    values["upstreams"]["orders"]["retries"] = 2.into();
    values["server"].as_object_mut().unwrap().remove("threads");
    let mut wrong = Vec::new();
    compare(&schema, &schema, &values, "", &mut wrong);
    assert!(
        wrong.contains(&".upstreams.orders.retries: 2 in the file, 1 in the code".to_owned()),
        "{wrong:?}"
    );
    assert!(
        wrong.contains(&".server.threads: not in the file".to_owned()),
        "{wrong:?}"
    );
}

#[test]
fn every_default_is_written_in_its_own_notation() {
    let default = raw::Config::default();
    let text = serde_yaml::to_string(&default).unwrap();
    let loaded = parse(&text, "defaults", &nothing_set()).unwrap_or_else(|e| panic!("{e:?}"));
    let empty = parse("", "empty", &nothing_set()).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(
        format!("{:?}", loaded.config),
        format!("{:?}", empty.config)
    );
    // Defaults inside what an operator names.
    for (defaults, section) in [
        (
            serde_yaml::to_string(&raw::Upstream::default()).unwrap(),
            "upstreams",
        ),
        (
            serde_yaml::to_string(&raw::Policy::default()).unwrap(),
            "policies",
        ),
    ] {
        let indented = defaults
            .lines()
            .filter(|line| !line.ends_with(": null"))
            .fold(String::new(), |text, line| text + "    " + line + "\n");
        let problems = parse(
            &format!("{section}:\n  x:\n{indented}"),
            "f",
            &nothing_set(),
        )
        .unwrap_err();
        let wrong: Vec<_> = problems
            .iter()
            .filter(|problem| !problem.message.ends_with("is missing"))
            .collect();
        assert_eq!(wrong, [&problems[0]; 0], "{section}");
    }
}

#[test]
fn the_reference_and_the_examples_load_without_error_or_warning() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(conf().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.push(conf().join("tidegate.yaml"));
    assert!(files.len() >= 4);
    for file in files {
        let loaded = load(&file, &nothing_set()).unwrap_or_else(|e| panic!("{e:#?}"));
        assert_eq!(loaded.warnings, []);
    }
}

#[test]
fn the_reference_honours_the_known_variables() {
    let env = Environment::from_pairs([
        ("DEFAULT_LIMIT", "7"),
        ("DEFAULT_WINDOW", "2000"),
        ("REDIS_URL", "redis://:p@redis:6379/1"),
    ]);
    let loaded = parse(REFERENCE, "f", &env).unwrap();
    let quota = &loaded.config.policies["per-client"].quota;
    assert_eq!(quota.count, 7);
    assert_eq!(
        quota.window,
        super::Window::Period(std::time::Duration::from_secs(2))
    );
    let redis = loaded.config.store.redis.unwrap();
    assert_eq!(redis.urls[0].expose(), "redis://:p@redis:6379/1");
}

/// Deterministic, so that a failure repeats: every run mutates the same bytes.
#[test]
fn mutated_files_never_panic() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    // Without comments a mutation hits something more often.
    let lines: Vec<&str> = REFERENCE
        .lines()
        .map(|line| line.split(" #").next().unwrap())
        .collect();
    let text = lines.join("\n");
    let pieces: [&[u8]; 14] = [
        b":",
        b"- ",
        b"{",
        b"}",
        b"[",
        b"&a ",
        b"*a",
        b"${",
        b"\n",
        b"\t",
        b"'",
        b"\"",
        b"-1",
        b"\xc3\xa9",
    ];
    for _ in 0..300 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(bytes.splice(at..at, pieces[random(pieces.len())].iter().copied())),
                _ => drop(bytes.drain(at..(at + 1 + random(40)).min(bytes.len()))),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match parse(&text, "f", &nothing_set()) {
            Ok(loaded) => drop(format!("{loaded:?}")),
            Err(problems) => assert!(
                !problems.is_empty() && problems.iter().all(|p| p.line > 0),
                "{text}"
            ),
        }
    }
}
