//! The JSON Schema of the configuration: as it stands for the shape check, and widened for editors.

use serde_json::{Map, Value, json};

use super::raw;

/// The JSON Schema (draft 2020-12) for editors: it also accepts `${...}` where a number, a duration or another text
/// with rules of its own is expected.
pub fn json_schema() -> Value {
    let mut schema = of_types();
    widen(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), json!("Tidegate configuration"));
    }
    schema
}

/// The schema exactly as the types say.
pub fn of_types() -> Value {
    let mut schema = schemars::schema_for!(raw::Config).to_value();
    drop_needless_defaults(&mut schema);
    schema
}

/// What must be given has no default; its type in `raw` has one only for serde's sake.
fn drop_needless_defaults(schema: &mut Value) {
    if let Some(required) = schema.get("required").and_then(Value::as_array).cloned() {
        for key in required.iter().filter_map(Value::as_str) {
            if let Some(field) = schema
                .pointer_mut(&format!("/properties/{key}"))
                .and_then(Value::as_object_mut)
            {
                field.remove("default");
            }
        }
    }
    match schema {
        Value::Array(items) => items.iter_mut().for_each(drop_needless_defaults),
        Value::Object(object) => object.values_mut().for_each(drop_needless_defaults),
        _ => {}
    }
}

/// Lets every scalar that is not free text also be a text with a substitution.
fn widen(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(widen),
        Value::Object(object) => {
            for (keyword, value) in object.iter_mut() {
                // These hold values or names, not schemas.
                if !matches!(
                    keyword.as_str(),
                    "default" | "required" | "enum" | "const" | "propertyNames"
                ) {
                    widen(value);
                }
            }
            if needs_alternative(object) {
                add_alternative(object);
            }
        }
        _ => {}
    }
}

fn needs_alternative(object: &Map<String, Value>) -> bool {
    let names = |name: &str| match object.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(several)) => several.iter().any(|one| one == name),
        _ => false,
    };
    let choice = object.get("oneOf").is_some_and(|all| {
        all.as_array()
            .is_some_and(|all| all.iter().all(is_constant))
    });
    names("integer")
        || names("number")
        || names("boolean")
        || choice
        || object.contains_key("pattern")
}

fn is_constant(schema: &Value) -> bool {
    schema.get("const").is_some()
}

/// `{type, ...}` becomes `{description, default, anyOf: [{type, ...}, a text with ${}]}`.
fn add_alternative(object: &mut Map<String, Value>) {
    let mut outer = Map::new();
    for keyword in ["description", "default", "title", "writeOnly"] {
        if let Some(value) = object.remove(keyword) {
            outer.insert(keyword.to_owned(), value);
        }
    }
    let inner = std::mem::take(object);
    outer.insert(
        "anyOf".to_owned(),
        json!([inner, { "type": "string", "pattern": "\\$\\{" }]),
    );
    *object = outer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_for_editors() {
        let schema = json_schema();
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        assert_eq!(schema["title"], "Tidegate configuration");
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema["properties"]["listeners"]["description"].is_string());
    }

    #[test]
    fn substitutions_are_accepted_where_numbers_durations_and_choices_are_expected() {
        let schema = json_schema();
        let quota = &schema["$defs"]["Quota"]["properties"];
        for key in ["count", "burst", "period"] {
            let text = quota[key].to_string();
            assert!(text.contains("\\\\$\\\\{"), "{key}: {text}");
            assert!(quota[key]["description"].is_string());
        }
        assert_eq!(schema["$defs"]["Quota"]["required"], json!(["count"]));
        assert!(schema["$defs"]["Mode"].to_string().contains("\\\\$\\\\{"));
    }
}
