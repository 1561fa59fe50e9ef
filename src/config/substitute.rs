//! `${VAR}` and `${VAR:-default}` inside parsed scalars are replaced by values of the environment.

use super::environment::Environment;
use super::place::{Place, Step};
use super::problem::{Report, closest};
use super::tree::{Kind, Node, Position, Scalar};

/// Substitutes in every value of the tree; keys stay as they are. A scalar that cannot be completed becomes `Broken`.
///
/// A quoted scalar stays text; a plain one is typed by what it then reads. `$${` stands for `${`.
pub(super) fn substitute(root: &mut Node, environment: &Environment, report: &mut Report) {
    walk(root, &Place::ROOT, environment, report);
}

fn walk(node: &mut Node, place: &Place<'_>, environment: &Environment, report: &mut Report) {
    match &mut node.kind {
        Kind::Scalar(scalar) => {
            if !complete(scalar, node.at, place, environment, report) {
                node.kind = Kind::Broken;
            }
        }
        Kind::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &place.then(Step::Index(index)), environment, report);
            }
        }
        Kind::Mapping(mapping) => {
            for entry in &mut mapping.entries {
                walk(
                    &mut entry.value,
                    &place.then(entry.key.as_str()),
                    environment,
                    report,
                );
            }
        }
        Kind::Broken => {}
    }
}

/// Whether the scalar could be completed; if not, every reason is reported.
fn complete(
    scalar: &mut Scalar,
    at: Position,
    place: &Place<'_>,
    environment: &Environment,
    report: &mut Report,
) -> bool {
    if !scalar.text.contains("${") {
        return true;
    }
    let mut text = String::new();
    let mut whole = true;
    for part in parts(&scalar.text) {
        match part.and_then(|part| value(part, environment)) {
            Ok(value) => text.push_str(&value),
            Err((message, hint)) => {
                report.error(at, place, message, hint);
                whole = false;
            }
        }
    }
    // A plain scalar never has blanks around it; a value from a file of secrets often ends with a line feed.
    let text = if scalar.plain {
        text.trim().to_owned()
    } else {
        text
    };
    scalar.template = Some(std::mem::replace(&mut scalar.text, text));
    whole
}

/// A message and its hint.
type Refusal = (String, String);

/// A piece of a scalar.
#[derive(Clone, Copy)]
enum Part<'a> {
    Literal(&'a str),
    Variable {
        name: &'a str,
        default: Option<&'a str>,
    },
}

fn parts(text: &str) -> Vec<Result<Part<'_>, Refusal>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            parts.push(Ok(Part::Literal(&rest[..start - 1])));
            parts.push(Ok(Part::Literal("${")));
            rest = &rest[start + 2..];
            continue;
        }
        parts.push(Ok(Part::Literal(&rest[..start])));
        let inner = &rest[start + 2..];
        let Some(end) = inner.find('}') else {
            let hint = "close it with `}`, or write `$${` for a literal `${`".to_owned();
            parts.push(Err(("`${` without its `}`".to_owned(), hint)));
            return parts;
        };
        parts.push(variable(&inner[..end]));
        rest = &inner[end + 1..];
    }
    parts.push(Ok(Part::Literal(rest)));
    parts
}

fn variable(inner: &str) -> Result<Part<'_>, Refusal> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let valid = starts && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !valid || default.is_some_and(|default| default.contains("${")) {
        let hint =
            "write `${NAME}` or `${NAME:-default}`, not nested; `$${` stands for a literal `${`"
                .to_owned();
        return Err(("not a variable that can be substituted".to_owned(), hint));
    }
    Ok(Part::Variable { name, default })
}

/// As in a shell, `:-` also replaces an empty value.
fn value(part: Part<'_>, environment: &Environment) -> Result<String, Refusal> {
    let (name, default) = match part {
        Part::Literal(text) => return Ok(text.to_owned()),
        Part::Variable { name, default } => (name, default),
    };
    match (environment.get(name), default) {
        (None | Some(""), Some(default)) => Ok(default.to_owned()),
        (Some(value), _) => Ok(value.to_owned()),
        (None, None) => {
            let near =
                closest(name, environment.names()).map(|near| format!("did you mean `{near}`? "));
            let hint = format!(
                "{}set it, or give a default: `${{{name}:-...}}`",
                near.unwrap_or_default()
            );
            Err((
                format!("the environment variable `{name}` is not set"),
                hint,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    /// The scalar of `v: <yaml>` after substitution, or the problems.
    fn one(yaml: &str) -> Result<Scalar, Vec<String>> {
        let environment =
            Environment::from_pairs([("N", "5"), ("EMPTY", ""), ("LINES", "x\n"), ("NAME", "a")]);
        let mut report = Report::new("f");
        let mut root = tree::parse(&format!("v: {yaml}\n"), &mut report).unwrap();
        substitute(&mut root, &environment, &mut report);
        if !report.problems.is_empty() {
            return Err(report.problems.iter().map(ToString::to_string).collect());
        }
        let Kind::Mapping(mapping) = root.kind else {
            panic!("not a mapping")
        };
        match mapping.get("v").unwrap().value.kind.clone() {
            Kind::Scalar(scalar) => Ok(scalar),
            _ => panic!("not a scalar"),
        }
    }

    fn typed(yaml: &str) -> String {
        format!(
            "{:?}",
            one(yaml).unwrap_or_else(|e| panic!("{e:?}")).typed()
        )
    }

    #[test]
    fn a_plain_scalar_is_typed_after_substitution_and_a_quoted_one_stays_text() {
        assert_eq!(typed("${N}"), "Integer(5)");
        assert_eq!(typed("\"${N}\""), "Text(\"5\")");
        assert_eq!(typed("${EMPTY}"), "Null");
        assert_eq!(typed("'${EMPTY}'"), "Text(\"\")");
        assert_eq!(typed("${LINES}"), "Text(\"x\")");
    }

    #[test]
    fn variables_stand_anywhere_in_a_scalar_and_defaults_replace_unset_and_empty_ones() {
        assert_eq!(typed("${WINDOW:-60000}ms"), "Text(\"60000ms\")");
        assert_eq!(typed("${N:-1}${N}"), "Integer(55)");
        assert_eq!(typed("${EMPTY:-7}"), "Integer(7)");
        assert_eq!(typed("${UNSET:-}"), "Null");
        assert_eq!(
            typed("redis://${HOST:-127.0.0.1:6379}/$0"),
            "Text(\"redis://127.0.0.1:6379/$0\")"
        );
    }

    #[test]
    fn two_dollars_escape() {
        assert_eq!(typed("$${N}"), "Text(\"${N}\")");
        assert_eq!(typed("a$${N}b${N}$"), "Text(\"a${N}b5$\")");
    }

    #[test]
    fn an_unset_variable_without_default_is_an_error_with_its_position() {
        assert_eq!(
            one("x${NAMES}y").err().unwrap(),
            ["f:1:4: v: the environment variable `NAMES` is not set; \
              hint: did you mean `NAME`? set it, or give a default: `${NAMES:-...}`"]
        );
    }

    #[test]
    fn malformed_variables_are_errors() {
        assert!(one("a${N").err().unwrap()[0].contains("without its `}`"));
        assert!(one("a${N-x}").err().unwrap()[0].contains("not a variable"));
        assert!(one("a${}").err().unwrap()[0].contains("not a variable"));
        assert!(one("a${A:-${N}}").err().unwrap()[0].contains("not nested"));
    }
}
