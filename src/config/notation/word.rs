//! Names, identifiers, headers, methods, descriptors and secrets.

use http::{HeaderName, HeaderValue, Method};

use super::Notation;
use crate::config::model::{KeyPart, Secret};
use crate::config::problem::closest;

/// The name of a tier, upstream, route or policy.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct Name(pub(in crate::config) String);

impl Notation for Name {
    const FORMAT: &'static str = "tidegate-name";
    const WHAT: &'static str = "a name";
    const HINT: &'static str = "write 1 to 63 of `a-z 0-9 _ -`, starting with a letter or digit";
    const PATTERN: Option<&'static str> = Some("^[a-z0-9][a-z0-9_-]{0,62}$");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let first = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if first && text.len() <= 63 && text.bytes().all(fits) {
            return Ok(Name(text.to_owned()));
        }
        let mended: String = text.to_ascii_lowercase().replace([' ', '.', '/'], "-");
        let worth_it = mended != text && text.len() <= 63 && Name::parse(&mended).is_ok();
        Err(worth_it.then(|| {
            format!(
                "write `{mended}`: {}",
                Name::HINT.trim_start_matches("write ")
            )
        }))
    }
}

/// The id of a client.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct ClientId;

impl Notation for ClientId {
    const FORMAT: &'static str = "tidegate-client-id";
    const WHAT: &'static str = "a client id";
    const HINT: &'static str = "write 1 to 128 visible ASCII characters without spaces";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits { Ok(ClientId) } else { Err(None) }
    }
}

/// The name of a header.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct HeaderField(pub(in crate::config) HeaderName);

impl Notation for HeaderField {
    const FORMAT: &'static str = "tidegate-header-name";
    const WHAT: &'static str = "the name of a header";
    const HINT: &'static str = "write letters, digits and `-`, such as `X-API-Key`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        HeaderName::from_bytes(text.as_bytes())
            .map(HeaderField)
            .map_err(|_| None)
    }
}

/// The value of a header.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct HeaderText(pub(in crate::config) String);

impl Notation for HeaderText {
    const FORMAT: &'static str = "tidegate-header-value";
    const WHAT: &'static str = "the value of a header";
    const HINT: &'static str = "write visible ASCII characters; `null` sends no such header";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let visible =
            text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') && text.trim() == text;
        if visible && !text.is_empty() && HeaderValue::from_str(text).is_ok() {
            return Ok(HeaderText(text.to_owned()));
        }
        Err(None)
    }
}

/// A request method.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct MethodName(pub(in crate::config) Method);

impl Notation for MethodName {
    const FORMAT: &'static str = "tidegate-method";
    const WHAT: &'static str = "a method";
    const HINT: &'static str = "write it in capitals, such as `GET` or `POST`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let upper = text.to_ascii_uppercase();
        match Method::from_bytes(upper.as_bytes()) {
            Ok(method) if upper == text => Ok(MethodName(method)),
            Ok(_) => Err(Some(format!("methods are case-sensitive: `{upper}`"))),
            Err(_) => Err(None),
        }
    }
}

/// The name of a claim, or a dotted path to a nested one.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct ClaimName(pub(in crate::config) String);

impl Notation for ClaimName {
    const FORMAT: &'static str = "tidegate-claim";
    const WHAT: &'static str = "the name of a claim";
    const HINT: &'static str =
        "write 1 to 128 visible ASCII characters, such as `sub`, or `org.id` for a nested claim";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(ClaimName(text.to_owned()))
        } else {
            Err(None)
        }
    }
}

/// What a credential may be used for (RFC 6749, 3.3).
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct ScopeName(pub(in crate::config) String);

impl Notation for ScopeName {
    const FORMAT: &'static str = "tidegate-scope";
    const WHAT: &'static str = "a scope";
    const HINT: &'static str = "write 1 to 128 visible ASCII characters without spaces, `\"` and `\\`, such as `orders:read`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if (1..=128).contains(&text.len()) && text.bytes().all(fits) {
            Ok(ScopeName(text.to_owned()))
        } else {
            Err(None)
        }
    }
}

/// One entry of a policy's key.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct Descriptor(pub(in crate::config) KeyPart);

impl Notation for Descriptor {
    const FORMAT: &'static str = "tidegate-descriptor";
    const WHAT: &'static str = "a descriptor";
    const HINT: &'static str =
        "one of client, ip, route, tier, method, host, path, header:<name>, jwt:<claim>, global";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        const SIMPLE: [(&str, KeyPart); 8] = [
            ("client", KeyPart::Client),
            ("ip", KeyPart::Ip),
            ("route", KeyPart::Route),
            ("tier", KeyPart::Tier),
            ("method", KeyPart::Method),
            ("host", KeyPart::Host),
            ("path", KeyPart::Path),
            ("global", KeyPart::Global),
        ];
        if let Some((_, part)) = SIMPLE.iter().find(|(name, _)| *name == text) {
            return Ok(Descriptor(part.clone()));
        }
        if let Some(name) = text.strip_prefix("header:") {
            let hint = || Some(format!("after `header:` {}", HeaderField::HINT));
            return HeaderField::parse(name)
                .map(|name| Descriptor(KeyPart::Header(name.0)))
                .map_err(|_| hint());
        }
        if let Some(claim) = text.strip_prefix("jwt:") {
            let fits =
                (1..=128).contains(&claim.len()) && claim.bytes().all(|b| b.is_ascii_graphic());
            let hint =
                || Some("after `jwt:` write the name of a claim, such as `jwt:sub`".to_owned());
            return if fits {
                Ok(Descriptor(KeyPart::JwtClaim(claim.to_owned())))
            } else {
                Err(hint())
            };
        }
        let near = closest(text, SIMPLE.iter().map(|(name, _)| *name));
        Err(near.map(|name| format!("did you mean `{name}`?")))
    }
}

/// What every key in Redis starts with. Braces would move its hash tags.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct KeyPrefix(pub(in crate::config) String);

impl Notation for KeyPrefix {
    const FORMAT: &'static str = "tidegate-key-prefix";
    const WHAT: &'static str = "a prefix of keys";
    const HINT: &'static str =
        "write at most 32 visible ASCII characters without `{`, `}` and spaces, such as `tg:`";
    const PATTERN: Option<&'static str> = Some("^[!-z|~]{0,32}$");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = |b: u8| b.is_ascii_graphic() && b != b'{' && b != b'}';
        if text.len() <= 32 && text.bytes().all(fits) {
            Ok(KeyPrefix(text.to_owned()))
        } else {
            Err(None)
        }
    }
}

/// The name under which sentinels watch a master.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct MasterName(pub(in crate::config) String);

impl Notation for MasterName {
    const FORMAT: &'static str = "tidegate-master-name";
    const WHAT: &'static str = "the name of a master";
    const HINT: &'static str =
        "write the name in the sentinels' `sentinel monitor`, such as `mymaster`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(MasterName(text.to_owned()))
        } else {
            Err(None)
        }
    }
}

/// The name of a time zone; whether it exists is for the one who compiles the policy to say.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct ZoneName(pub(in crate::config) String);

impl Notation for ZoneName {
    const FORMAT: &'static str = "tidegate-time-zone";
    const WHAT: &'static str = "a time zone";
    const HINT: &'static str =
        "write a name of the IANA database, such as `UTC` or `Europe/Berlin`";

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(ZoneName(text.to_owned()))
        } else {
            Err(None)
        }
    }
}

/// A SHA-256 in hexadecimal. Never repeated in messages: it may be a key put into the wrong place.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct Digest(pub(in crate::config) [u8; 32]);

impl Notation for Digest {
    const FORMAT: &'static str = "tidegate-sha256";
    const WHAT: &'static str = "a SHA-256 in hexadecimal";
    const HINT: &'static str =
        "write the 64 hexadecimal digits of `printf %s \"$KEY\" | sha256sum`";
    const PATTERN: Option<&'static str> = Some("^[0-9A-Fa-f]{64}$");
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let mut digest = [0; 32];
        if text.len() != 64 {
            return Err(None);
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let hex = std::str::from_utf8(pair)
                .ok()
                .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = hex
                .and_then(|hex| u8::from_str_radix(hex, 16).ok())
                .ok_or(None)?;
        }
        Ok(Digest(digest))
    }
}

/// An API key in plain text.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct ApiKey(pub(in crate::config) Secret);

impl Notation for ApiKey {
    const FORMAT: &'static str = "tidegate-api-key";
    const WHAT: &'static str = "an API key";
    const HINT: &'static str = "write visible ASCII characters without spaces";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(ApiKey(Secret::new(text.to_owned())))
        } else {
            Err(None)
        }
    }
}

/// A token; empty means none.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct SecretText(pub(in crate::config) Secret);

impl Notation for SecretText {
    const FORMAT: &'static str = "tidegate-secret";
    const WHAT: &'static str = "a token";
    const HINT: &'static str = "write visible ASCII characters without spaces";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let fits = text.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(SecretText(Secret::new(text.to_owned())))
        } else {
            Err(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::instead;
    use super::*;

    #[test]
    fn names_follow_their_pattern() {
        let pattern = regex_automata::meta::Regex::new(Name::PATTERN.unwrap()).unwrap();
        let long = "a".repeat(63);
        for text in [
            "a",
            "0",
            "a_b-c",
            "A",
            "-a",
            "_a",
            "",
            "a b",
            "é",
            long.as_str(),
            &"a".repeat(64),
        ] {
            assert_eq!(Name::parse(text).is_ok(), pattern.is_match(text), "{text}");
        }
        assert!(instead::<Name>("Search API").starts_with("write `search-api`"));
    }

    #[test]
    fn descriptors_are_the_documented_ones() {
        assert!(
            Descriptor::parse("header:X-Org")
                == Ok(Descriptor(KeyPart::Header(HeaderName::from_static(
                    "x-org"
                ))))
        );
        assert!(
            Descriptor::parse("jwt:org_id") == Ok(Descriptor(KeyPart::JwtClaim("org_id".into())))
        );
        assert_eq!(instead::<Descriptor>("clients"), "did you mean `client`?");
        assert!(instead::<Descriptor>("header:a b").starts_with("after `header:`"));
        assert!(instead::<Descriptor>("jwt:").starts_with("after `jwt:`"));
    }

    #[test]
    fn methods_are_capitals() {
        assert!(MethodName::parse("PROPFIND").is_ok());
        assert_eq!(
            instead::<MethodName>("get"),
            "methods are case-sensitive: `GET`"
        );
        assert!(MethodName::parse("").is_err());
    }

    #[test]
    fn digests_are_64_hexadecimal_digits() {
        assert!(Digest::parse(&"aB".repeat(32)).is_ok_and(|digest| digest.0 == [0xab; 32]));
        for text in [
            "",
            "ab",
            &"zz".repeat(32),
            &"+1".repeat(32),
            &"é".repeat(32),
        ] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prefixes_of_keys_follow_their_pattern() {
        let pattern = regex_automata::meta::Regex::new(KeyPrefix::PATTERN.unwrap()).unwrap();
        let long = "a".repeat(32);
        for text in [
            "",
            "tg:",
            "a*?[]^|~",
            &long,
            &long.repeat(2),
            "a b",
            "{a}",
            "a}",
            "é",
            "\t",
        ] {
            assert_eq!(
                KeyPrefix::parse(text).is_ok(),
                pattern.is_match(text),
                "{text}"
            );
        }
        assert!(KeyPrefix::parse("").is_ok() && KeyPrefix::parse("{").is_err());
    }

    #[test]
    fn client_ids_are_visible_ascii() {
        assert!(ClientId::parse("acme.com/eu:1").is_ok());
        assert!(ClientId::parse("a b").is_err() && ClientId::parse("").is_err());
        assert!(ClientId::parse(&"x".repeat(129)).is_err());
    }
}
