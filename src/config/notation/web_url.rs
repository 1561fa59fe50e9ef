//! URLs of services that Tidegate asks over HTTP.

use std::borrow::Cow;

use http::Uri;

use super::Notation;
use crate::config::problem::without_login;

/// An `http` or `https` URL without a login, or nothing.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct WebUrl(pub(in crate::config) Option<String>);

impl Notation for WebUrl {
    const FORMAT: &'static str = "tidegate-web-url";
    const WHAT: &'static str = "a URL";
    const HINT: &'static str = "write `http://host[:port]/path` or `https://host[:port]/path`";

    /// Some services take a token in the query.
    fn masked(text: &str) -> Cow<'_, str> {
        without_login(text)
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() {
            return Ok(WebUrl(None));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Some(
                "the scheme is missing: write `https://...`".to_owned(),
            ));
        };
        if scheme != "http" && scheme != "https" {
            return Err(Some("write `http://` or `https://`".to_owned()));
        }
        if rest
            .split(['/', '?', '#'])
            .next()
            .unwrap_or_default()
            .contains('@')
        {
            return Err(Some("leave out the login in front of `@`".to_owned()));
        }
        if rest.contains('#') {
            return Err(Some("leave out `#` and what follows".to_owned()));
        }
        let valid = text
            .parse::<Uri>()
            .is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if valid {
            Ok(WebUrl(Some(text.to_owned())))
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
    fn urls_are_http_or_https_and_have_a_host_but_no_login() {
        for text in [
            "http://auth:8080/verify?x=1",
            "https://issuer.example/.well-known/jwks.json",
            "http://[::1]:80/",
            "http://127.0.0.1:9",
        ] {
            assert!(
                WebUrl::parse(text) == Ok(WebUrl(Some(text.to_owned()))),
                "{text}"
            );
        }
        assert!(WebUrl::parse("") == Ok(WebUrl(None)));
        for (text, hint) in [
            (
                "issuer.example/jwks",
                "the scheme is missing: write `https://...`",
            ),
            ("ftp://issuer.example", "write `http://` or `https://`"),
            (
                "https://user:pass@issuer.example",
                "leave out the login in front of `@`",
            ),
            (
                "https://issuer.example/#a",
                "leave out `#` and what follows",
            ),
            ("https://", ""),
            ("https:///path", ""),
            ("https://a b/", ""),
        ] {
            assert_eq!(instead::<WebUrl>(text), hint, "{text}");
        }
    }
}
