//! What the text of a scalar means: nothing, a boolean, a number or text, by the core schema of YAML 1.2.

use super::tree::Scalar;

/// A scalar's meaning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Typed<'a> {
    /// `null`, `~` or an empty plain scalar.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A number with a fraction or exponent, or one too large to be exact.
    Fraction,
    /// Anything else, and everything in quotes.
    Text(&'a str),
}

impl Scalar {
    /// What the scalar means.
    pub(super) fn typed(&self) -> Typed<'_> {
        if !self.plain {
            return Typed::Text(&self.text);
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Typed::Null,
            "true" | "True" | "TRUE" => Typed::Bool(true),
            "false" | "False" | "FALSE" => Typed::Bool(false),
            text => number(text).unwrap_or(Typed::Text(text)),
        }
    }
}

/// A decimal number; other bases, `.inf` and `.nan` have no use here and stay text.
fn number(text: &str) -> Option<Typed<'static>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.parse().map_or(Typed::Fraction, Typed::Integer));
    }
    let decimal = digits
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    (decimal && text.parse::<f64>().is_ok()).then_some(Typed::Fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str, plain: bool) -> String {
        format!(
            "{:?}",
            Scalar {
                text: text.into(),
                plain,
                template: None
            }
            .typed()
        )
    }

    #[test]
    fn plain_scalars_are_typed_and_quoted_ones_stay_text() {
        for (text, meaning) in [
            ("", "Null"),
            ("~", "Null"),
            ("True", "Bool(true)"),
            ("-7", "Integer(-7)"),
            ("007", "Integer(7)"),
            ("1.5", "Fraction"),
            ("1e3", "Fraction"),
            ("127.0.0.1", "Text(\"127.0.0.1\")"),
            ("yes", "Text(\"yes\")"),
            ("10s", "Text(\"10s\")"),
            ("-", "Text(\"-\")"),
        ] {
            assert_eq!(typed(text, true), meaning);
            assert_eq!(typed(text, false), format!("Text({text:?})"));
        }
        assert_eq!(typed(&"9".repeat(60), true), "Fraction");
    }
}
