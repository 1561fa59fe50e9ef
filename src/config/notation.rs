//! How texts in the file are written (durations, sizes, addresses, names, ...), each with its parser and its hint.

mod address;
mod moment;
mod path;
mod postgres_url;
mod quantity;
mod redis_url;
mod web_url;
mod word;

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(super) use address::{HostName, HostPattern, ListenAddress, Network, PeerAddress};
pub(super) use moment::Moment;
pub(super) use path::{PathRegex, UrlPath, starts_with_segments};
pub(super) use postgres_url::PostgresUrl;
pub use quantity::duration;
pub(super) use quantity::{Size, TimeSpan, written};
pub(super) use redis_url::{RedisUrl, Transport};
pub(super) use web_url::WebUrl;
pub(super) use word::{
    ApiKey, ClaimName, ClientId, Descriptor, Digest, HeaderField, HeaderText, KeyPrefix,
    MasterName, MethodName, Name, ScopeName, SecretText, ZoneName,
};

/// A text with rules of its own. The name of the rules goes into the JSON Schema as `format`, which is how the shape
/// check finds the parser again: one source for editors, the check and the types.
pub(super) trait Notation: Sized {
    /// The `format` in the JSON Schema.
    const FORMAT: &'static str;
    /// What the text is, with its article: `a duration`.
    const WHAT: &'static str;
    /// What to write, in general.
    const HINT: &'static str;
    /// A regular expression for editors; no stricter than `parse`.
    const PATTERN: Option<&'static str> = None;
    /// Whether messages must not repeat the text.
    const SECRET: bool = false;

    /// The text as it may be shown.
    fn masked(text: &str) -> Cow<'_, str> {
        let hidden = Self::SECRET && !text.is_empty();
        Cow::Borrowed(if hidden { "***" } else { text })
    }

    /// The value, or what to write instead of this very text (`None`: nothing better than `HINT`). What it says of a
    /// secret is told as it stands, so it must not repeat any of it.
    fn parse(text: &str) -> Result<Self, Option<String>>;
}

/// Can a tier, an upstream, a route or a policy be called this?
pub fn is_name(text: &str) -> bool {
    Name::parse(text).is_ok()
}

/// Can it be a client's id?
pub fn is_client_id(text: &str) -> bool {
    ClientId::parse(text).is_ok()
}

/// A value together with the text that it was read from.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Written<T> {
    /// The value.
    pub(super) value: T,
    text: Cow<'static, str>,
}

impl<T> Written<T> {
    /// A default: the value and its text; a test parses every one of them.
    pub(super) fn known(text: &'static str, value: T) -> Written<T> {
        Written {
            value,
            text: Cow::Borrowed(text),
        }
    }
}

impl<T: Notation> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&T::masked(&self.text))
    }
}

impl<'de, T: Notation> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match T::parse(&text) {
            Ok(value) => Ok(Written {
                value,
                text: Cow::Owned(text),
            }),
            Err(_) => Err(de::Error::custom(format_args!("not {}", T::WHAT))),
        }
    }
}

impl<T: Notation> JsonSchema for Written<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed(T::FORMAT)
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "string", "format": T::FORMAT });
        if let Some(pattern) = T::PATTERN {
            schema.insert("pattern".to_owned(), pattern.into());
        }
        if T::SECRET {
            schema.insert("writeOnly".to_owned(), true.into());
        }
        schema
    }
}

impl<T> fmt::Debug for Written<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written(..)") // may be a secret
    }
}

/// A notation without its type, for the shape check.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// The `format` in the JSON Schema.
    format: &'static str,
    /// What the text is, with its article.
    pub(super) what: &'static str,
    /// What to write, in general.
    pub(super) hint: &'static str,
    /// Whether messages must not repeat the text.
    pub(super) secret: bool,
    /// Whether the text follows the rules; if not, what to write instead of it.
    pub(super) check: fn(&str) -> Result<(), Option<String>>,
}

const fn rules<T: Notation>() -> Rules {
    Rules {
        format: T::FORMAT,
        what: T::WHAT,
        hint: T::HINT,
        secret: T::SECRET,
        check: |text| T::parse(text).map(|_| ()),
    }
}

const ALL: [Rules; 27] = [
    rules::<ApiKey>(),
    rules::<ClaimName>(),
    rules::<ClientId>(),
    rules::<Descriptor>(),
    rules::<Digest>(),
    rules::<HeaderField>(),
    rules::<HeaderText>(),
    rules::<HostName>(),
    rules::<HostPattern>(),
    rules::<KeyPrefix>(),
    rules::<ListenAddress>(),
    rules::<MasterName>(),
    rules::<MethodName>(),
    rules::<Moment>(),
    rules::<Name>(),
    rules::<Network>(),
    rules::<PathRegex>(),
    rules::<PeerAddress>(),
    rules::<PostgresUrl>(),
    rules::<RedisUrl>(),
    rules::<ScopeName>(),
    rules::<SecretText>(),
    rules::<Size>(),
    rules::<TimeSpan>(),
    rules::<UrlPath>(),
    rules::<WebUrl>(),
    rules::<ZoneName>(),
];

/// The rules of a `format`.
pub(super) fn by_format(format: &str) -> Option<Rules> {
    ALL.into_iter().find(|rules| rules.format == format)
}

#[cfg(test)]
pub(super) mod testing {
    use super::Notation;

    /// What to write instead of a text that is refused.
    pub(in crate::config) fn instead<T: Notation>(text: &str) -> String {
        match T::parse(text) {
            Ok(_) => panic!("{text:?} was accepted"),
            Err(hint) => hint.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_and_named_once() {
        for rules in ALL {
            assert_eq!(
                ALL.iter()
                    .filter(|other| other.format == rules.format)
                    .count(),
                1,
                "{}",
                rules.format
            );
            assert!(by_format(rules.format).is_some());
        }
    }

    #[test]
    fn secrets_show_neither_in_debug_nor_in_serialised_form() {
        let written: Written<SecretText> = serde_json::from_str("\"s3cret\"").unwrap();
        assert!(!format!("{written:?}").contains("s3cret"));
        assert_eq!(serde_json::to_string(&written).unwrap(), "\"***\"");
    }
}
