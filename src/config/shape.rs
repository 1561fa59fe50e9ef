//! The JSON Schema of the configuration, reduced to what the shape check needs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::notation::{self, Rules};
use super::problem::listed;

/// What a node may be.
#[derive(Clone)]
pub(super) struct Shape {
    /// What it is when it is not null.
    pub(super) kind: ShapeKind,
    /// Whether it may be null.
    pub(super) nullable: bool,
}

/// The kinds of nodes in the configuration.
#[derive(Clone)]
pub(super) enum ShapeKind {
    /// Fixed keys.
    Fields {
        fields: BTreeMap<String, Shape>,
        required: Vec<String>,
    },
    /// Keys chosen by the operator, with rules for them.
    Named {
        names: Option<Rules>,
        values: Box<Shape>,
    },
    /// A list.
    List(Box<Shape>),
    /// A text, with rules of its own or without.
    Text(Option<Rules>),
    /// A whole number and its range.
    Integer { min: i128, max: i128 },
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(Vec<String>),
}

impl Shape {
    /// What is expected, for a message.
    pub(super) fn expected(&self) -> String {
        let what = match &self.kind {
            ShapeKind::Fields { .. } | ShapeKind::Named { .. } => "a mapping".to_owned(),
            ShapeKind::List(_) => "a list".to_owned(),
            ShapeKind::Text(None) => "text".to_owned(),
            ShapeKind::Text(Some(rules)) => rules.what.to_owned(),
            ShapeKind::Integer { .. } => "a whole number".to_owned(),
            ShapeKind::Bool => "true or false".to_owned(),
            ShapeKind::Choice(words) => {
                format!("one of {}", listed(words.iter().map(String::as_str)))
            }
        };
        if self.nullable {
            format!("{what} or null")
        } else {
            what
        }
    }

    /// Whether the value is a secret, or may be one of its members that stands in the wrong place.
    pub(super) fn secret(&self) -> bool {
        match &self.kind {
            ShapeKind::Text(rules) => rules.is_some_and(|rules| rules.secret),
            ShapeKind::Fields { fields, .. } => {
                let is_secret_text =
                    |field: &Shape| matches!(field.kind, ShapeKind::Text(_)) && field.secret();
                fields.values().any(is_secret_text)
            }
            ShapeKind::List(items) => items.secret(),
            _ => false,
        }
    }
}

/// Reads the schema that `schema::of_types` makes.
pub(super) fn read(schema: &Value) -> Shape {
    let empty = Value::Null;
    node(schema, schema.get("$defs").unwrap_or(&empty))
}

fn node(schema: &Value, definitions: &Value) -> Shape {
    let definition = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|at| at.strip_prefix("#/$defs/"));
    if let Some(definition) = definition.and_then(|name| definitions.get(name)) {
        return node(definition, definitions);
    }
    if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array) {
        // schemars writes `Option<T>` of a named type as "T or null".
        let not_null = alternatives
            .iter()
            .find(|one| one.get("type").and_then(Value::as_str) != Some("null"));
        let shape = node(not_null.unwrap_or(&Value::Null), definitions);
        return Shape {
            nullable: true,
            ..shape
        };
    }
    let (name, nullable) = match schema.get("type") {
        Some(Value::String(name)) => (name.as_str(), false),
        Some(Value::Array(names)) => {
            let name = names
                .iter()
                .filter_map(Value::as_str)
                .find(|name| *name != "null");
            (
                name.unwrap_or_default(),
                names.iter().any(|name| name == "null"),
            )
        }
        _ => ("", false),
    };
    let kind = match (name, choice(schema)) {
        (_, Some(words)) => ShapeKind::Choice(words),
        ("object", _) => mapping(schema, definitions),
        ("array", _) => ShapeKind::List(Box::new(node(
            schema.get("items").unwrap_or(&Value::Null),
            definitions,
        ))),
        ("integer", _) => {
            let bound = |keyword, otherwise| {
                schema
                    .get(keyword)
                    .and_then(Value::as_i64)
                    .map_or(otherwise, i128::from)
            };
            ShapeKind::Integer {
                min: bound("minimum", 0),
                max: bound("maximum", i128::from(u32::MAX)),
            }
        }
        ("boolean", _) => ShapeKind::Bool,
        _ => ShapeKind::Text(format(schema)),
    };
    Shape { kind, nullable }
}

fn format(schema: &Value) -> Option<Rules> {
    notation::by_format(schema.get("format")?.as_str()?)
}

fn mapping(schema: &Value, definitions: &Value) -> ShapeKind {
    if let Some(values) = schema
        .get("additionalProperties")
        .filter(|values| values.is_object())
    {
        let names = schema.get("propertyNames").and_then(format);
        return ShapeKind::Named {
            names,
            values: Box::new(node(values, definitions)),
        };
    }
    let fields = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let required = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    ShapeKind::Fields {
        fields: fields
            .map(|(key, value)| (key.clone(), node(value, definitions)))
            .collect(),
        required: required
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    }
}

/// The words of an enum; schemars writes them as `enum`, or as `oneOf` of constants where they have descriptions.
fn choice(schema: &Value) -> Option<Vec<String>> {
    let words = match schema.get("oneOf") {
        Some(all) => all
            .as_array()?
            .iter()
            .map(|one| one.get("const").or_else(|| one.get("enum")?.get(0)))
            .collect(),
        None => schema
            .get("enum")?
            .as_array()?
            .iter()
            .map(Some)
            .collect::<Option<Vec<_>>>(),
    };
    words?
        .into_iter()
        .map(|word| word.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema;

    fn at<'s>(shape: &'s Shape, path: &[&str]) -> &'s Shape {
        path.iter().fold(shape, |shape, key| match &shape.kind {
            ShapeKind::Fields { fields, .. } => &fields[*key],
            ShapeKind::Named { values, .. } | ShapeKind::List(values) => values,
            _ => panic!("{key}: no children"),
        })
    }

    #[test]
    fn the_shapes_are_those_of_the_types() {
        let root = read(&schema::of_types());
        for (path, expected) in [
            (&["server", "grace_period"][..], "a duration"),
            (&["server", "threads"], "a whole number"),
            (&["admin"], "a mapping or null"),
            (&["admin", "token"], "a token or null"),
            (
                &["response_headers", "0"],
                "one of x-ratelimit, ietf, debug",
            ),
            (&["trusted_proxies", "0"], "a network"),
            (&["clients", "x", "tier"], "text or null"),
            (&["upstreams", "x", "peers"], "a list"),
            (
                &["upstreams", "x", "max_concurrent"],
                "a whole number or null",
            ),
            (&["routes", "0", "auth"], "one of none, optional, required"),
            (&["routes", "0", "match", "methods"], "a list or null"),
            (&["policies", "x", "key", "0"], "a descriptor"),
            (
                &["policies", "x", "algorithm"],
                "one of token_bucket, sliding_window, sliding_window_counter, \
                                               fixed_window, leaky_bucket, concurrency",
            ),
            (
                &["policies", "x", "quota", "calendar"],
                "one of day, week, month or null",
            ),
        ] {
            assert_eq!(at(&root, path).expected(), expected, "{path:?}");
        }
        let ShapeKind::Fields { required, .. } = &at(&root, &["policies", "x"]).kind else {
            panic!("no fields")
        };
        assert_eq!(required, &["key", "algorithm", "quota"]);
        assert!(at(&root, &["clients", "x", "api_keys"]).secret());
        assert!(!at(&root, &["clients", "x"]).secret());
    }

    #[test]
    fn every_number_and_every_text_with_a_format_has_its_rules() {
        fn visit(schema: &Value) {
            if let Some(format) = schema.get("format").and_then(Value::as_str) {
                let number = format.starts_with("uint");
                assert!(number || notation::by_format(format).is_some(), "{format}");
                assert!(
                    !number || schema.get("maximum").is_some(),
                    "no maximum: {schema}"
                );
            }
            match schema {
                Value::Object(object) => object.values().for_each(visit),
                Value::Array(items) => items.iter().for_each(visit),
                _ => {}
            }
        }
        visit(&schema::of_types());
    }
}
