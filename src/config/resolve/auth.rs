//! How clients are recognised: each key given in one way, and each of use to an accepted algorithm.

use std::path::PathBuf;
use std::time::Duration;

use super::Review;
use crate::config::model::{Auth, Basic, FailureGuard, Jwt, JwtAlgorithm, JwtKey, JwtKeySource};
use crate::config::place::Place;
use crate::config::raw;

/// How long a request may wait for somebody else's answer.
pub(super) const WAITS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(60)];
const REFRESHES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(86_400)];
const LEEWAYS: [Duration; 2] = [Duration::ZERO, Duration::from_secs(300)];
/// The most keys; each may be tried for a token without a key id.
const MOST_KEYS: usize = 32;
/// Secrets shorter than the digest can be guessed from one token (RFC 7518, 3.2).
const SHORT_SECRET_BYTES: usize = 32;

pub(super) fn resolve(raw: raw::Auth, place: &Place<'_>, review: &mut Review<'_>) -> Auth {
    let failures = place.then("failures");
    let period = review.positive(&raw.failures.period, &failures.then("period"));
    Auth {
        api_key_header: raw.api_key.header.value.0,
        jwt: jwt(raw.jwt, &place.then("jwt"), review),
        basic: basic(raw.basic),
        timeout: review.between(&raw.timeout, WAITS, &place.then("timeout")),
        failures: FailureGuard {
            count: raw.failures.count,
            period,
        },
    }
}

fn basic(raw: raw::Basic) -> Option<Basic> {
    Some(Basic {
        htpasswd_file: raw.htpasswd_file.filter(|file| !file.is_empty())?.into(),
        realm: raw.realm.value.0,
    })
}

/// Absent without keys and without a URL to fetch them from.
fn jwt(raw: raw::Jwt, place: &Place<'_>, review: &mut Review<'_>) -> Option<Jwt> {
    let jwks_refresh = review.between(&raw.jwks_refresh, REFRESHES, &place.then("jwks_refresh"));
    let leeway = review.between(&raw.leeway, LEEWAYS, &place.then("leeway"));
    let algorithms: Vec<JwtAlgorithm> = raw.algorithms.into_iter().flatten().collect();
    let jwks_url = raw.jwks_url.and_then(|url| url.value.0);
    let at = place.then("keys");
    if raw.keys.len() > MOST_KEYS {
        let hint = format!("give at most {MOST_KEYS}, or publish them at `jwks_url`");
        review.error(&at, "there are too many keys", hint);
    }
    let keys: Vec<JwtKey> = raw
        .keys
        .into_iter()
        .enumerate()
        .filter_map(|(index, raw)| key(raw?, &algorithms, &at.then(index), review))
        .collect();
    let nothing = keys.is_empty() && jwks_url.is_none() && !review.is_broken(&at);
    if nothing {
        if raw.issuer.is_some() || raw.audience.is_some() {
            let hint = "give `keys` or `jwks_url`";
            review.warning(
                place,
                "there are no keys, so tokens are not looked at",
                hint,
            );
        }
        return None;
    }
    if algorithms.is_empty() {
        review.error(
            &place.then("algorithms"),
            "the list is empty, so no token would ever be valid",
            "name those that the issuer signs with, such as `[RS256]`",
        );
    }
    Some(Jwt {
        issuer: raw.issuer,
        audience: raw.audience,
        algorithms,
        keys,
        jwks_url,
        jwks_refresh,
        leeway,
        client_claim: raw.claims.client.value.0,
        tier_claim: raw.claims.tier.value.0,
        scopes_claim: raw.claims.scopes.value.0,
    })
}

fn key(
    raw: raw::JwtKey,
    algorithms: &[JwtAlgorithm],
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Option<JwtKey> {
    let secret = raw
        .secret
        .map(|secret| secret.value.0)
        .filter(|secret| !secret.expose().is_empty());
    if let Some(secret) = &secret
        && secret.expose().len() < SHORT_SECRET_BYTES
    {
        let message =
            format!("a secret with fewer than {SHORT_SECRET_BYTES} characters can be guessed");
        let hint = "`openssl rand -hex 32` makes a good one";
        review.warning(&place.then("secret"), message, hint);
    }
    let given = [
        raw.pem_file
            .map(|file| JwtKeySource::PemFile(PathBuf::from(file))),
        secret.map(JwtKeySource::Secret),
        raw.secret_file
            .map(|file| JwtKeySource::SecretFile(PathBuf::from(file))),
    ];
    let mut given = given.into_iter().flatten();
    let source = given.next();
    let (Some(source), None) = (source, given.next()) else {
        review.error(
            place,
            "exactly one of `pem_file`, `secret` and `secret_file` must be given",
            "write `pem_file: /etc/tidegate/jwt.pem` with the issuer's public key, or `secret: ${JWT_SECRET}`",
        );
        return None;
    };
    let symmetric = !matches!(source, JwtKeySource::PemFile(_));
    if !algorithms.is_empty() && !algorithms.iter().any(|one| one.is_symmetric() == symmetric) {
        let (what, add) = match symmetric {
            true => ("a secret", "`HS256`"),
            false => ("a public key", "`RS256`, `ES256` or `EdDSA`"),
        };
        let hint = format!("add {add} to `auth.jwt.algorithms`, or remove the key");
        review.error(place, format!("{what} fits none of `algorithms`"), hint);
    }
    Some(JwtKey {
        kid: raw.kid,
        source,
    })
}

impl JwtAlgorithm {
    /// Is the key that signs the key that verifies?
    pub fn is_symmetric(self) -> bool {
        matches!(
            self,
            JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{errors, loaded, problems};

    #[test]
    fn without_keys_tokens_are_not_looked_at() {
        assert_eq!(loaded("").config.auth.jwt, None);
        assert_eq!(
            loaded("auth: { jwt: { jwks_url: '' } }").config.auth.jwt,
            None
        );
        let found = problems("auth:\n  jwt: { issuer: x }\n");
        assert!(
            found[0].starts_with("2:3: warning: auth.jwt: there are no keys"),
            "{found:?}"
        );
    }

    #[test]
    fn a_key_is_given_in_exactly_one_way() {
        let text = "auth:\n  jwt:\n    algorithms: [HS256, RS256]\n    keys:\n      - {}\n      - { secret: x, pem_file: y }\n";
        let found = errors(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("5:9 auth.jwt.keys[0]: exactly one of"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("6:9 auth.jwt.keys[1]: exactly one of"),
            "{found:?}"
        );
    }

    #[test]
    fn a_key_that_no_algorithm_uses_is_an_error() {
        let found = errors("auth:\n  jwt:\n    keys: [{ kid: a, secret_file: x }]\n");
        assert_eq!(
            found,
            ["3:12 auth.jwt.keys[0]: a secret fits none of `algorithms`"]
        );
        let found = errors("auth: { jwt: { algorithms: [HS256], keys: [{ pem_file: x }] } }");
        assert!(
            found[0].ends_with("a public key fits none of `algorithms`"),
            "{found:?}"
        );
    }

    #[test]
    fn short_secrets_draw_a_warning_and_are_never_repeated() {
        let text = "auth: { jwt: { algorithms: [HS256], keys: [{ secret: hunter2hunter2 }] } }";
        let found = problems(text);
        assert!(found[0].contains("fewer than 32 characters"), "{found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
        assert!(!format!("{:?}", loaded(text).config).contains("hunter2"));
    }

    #[test]
    fn waits_and_leeway_are_bounded() {
        for text in [
            "auth: { timeout: 2m }",
            "auth: { jwt: { leeway: 301s } }",
            "auth: { jwt: { jwks_refresh: 1s } }",
        ] {
            assert_eq!(errors(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn an_algorithm_nobody_should_use_is_none() {
        for name in ["none", "ES512", "hs256"] {
            assert_eq!(
                errors(&format!("auth: {{ jwt: {{ algorithms: [{name}] }} }}")).len(),
                1
            );
        }
    }
}
