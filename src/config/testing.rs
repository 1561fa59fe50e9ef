//! What the tests of several steps share.

use super::{Environment, Loaded, Severity, parse};

/// The variables of `parse` in tests.
pub(super) fn environment() -> Environment {
    Environment::from_pairs([("SECRET", "s3cret-s3cret-s3cret"), ("NUMBER", "5")])
}

/// Every problem of a text, errors and warnings, as `line:column path: message; hint: ...`.
pub(super) fn problems(text: &str) -> Vec<String> {
    let problems = match parse(text, "f", &environment()) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    problems
        .iter()
        .map(|problem| problem.to_string().trim_start_matches("f:").to_owned())
        .collect()
}

/// Only the errors, as `line:column path: message`.
pub(super) fn errors(text: &str) -> Vec<String> {
    let problems = parse(text, "f", &environment()).err().unwrap_or_default();
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    errors
        .map(|p| format!("{}:{} {}: {}", p.line, p.column, p.path, p.message))
        .collect()
}

/// A text that must load.
pub(super) fn loaded(text: &str) -> Loaded {
    parse(text, "f", &environment()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// A configuration with one route and whatever sections the test adds.
pub(super) fn with_route(rest: &str) -> String {
    format!(
        "upstreams: {{ u: {{ peers: [address: 127.0.0.1:1] }} }}\nroutes: [{{ name: r, upstream: u }}]\n{rest}"
    )
}

/// A configuration whose only policy has these lines.
pub(super) fn with_policy(lines: &str) -> String {
    let lines: String = lines
        .lines()
        .map(|line| format!("    {}\n", line.trim()))
        .collect();
    with_route(&format!(
        "tiers: {{ pro: {{}} }}\nclients: {{ acme: {{}} }}\npolicies:\n  p:\n{lines}"
    ))
}
