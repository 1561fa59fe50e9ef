//! The keys of `auth`: API keys, tokens, passwords, and when an address has failed too often.

use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span;
use crate::config::model::JwtAlgorithm;
use crate::config::notation::{
    ClaimName, HeaderField, HeaderText, SecretText, TimeSpan, WebUrl, Written,
};

/// How clients are recognised.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Auth {
    /// API keys.
    pub(in crate::config) api_key: ApiKeyAuth,
    /// JSON Web Tokens in Authorization: Bearer; without keys and jwks_url they are not looked at.
    pub(in crate::config) jwt: Jwt,
    /// Names and passwords in Authorization: Basic; without htpasswd_file they are not looked at.
    pub(in crate::config) basic: Basic,
    /// How long a request waits for a look-up of its credentials, 10ms to 1m; then 503.
    pub(in crate::config) timeout: Written<TimeSpan>,
    /// Failed authentications tolerated per address, before 429.
    pub(in crate::config) failures: Failures,
}

impl Default for Auth {
    fn default() -> Self {
        Auth {
            api_key: ApiKeyAuth::default(),
            jwt: Jwt::default(),
            basic: Basic::default(),
            timeout: span("1s", Duration::from_secs(1)),
            failures: Failures::default(),
        }
    }
}

/// API keys.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ApiKeyAuth {
    /// The header that carries the key.
    pub(in crate::config) header: Written<HeaderField>,
}

impl Default for ApiKeyAuth {
    fn default() -> Self {
        ApiKeyAuth {
            header: Written::known(
                "X-API-Key",
                HeaderField(HeaderName::from_static("x-api-key")),
            ),
        }
    }
}

/// JSON Web Tokens.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Jwt {
    /// What `iss` must be; null: anything.
    pub(in crate::config) issuer: Option<String>,
    /// What `aud` must be or contain; null: anything.
    pub(in crate::config) audience: Option<String>,
    /// The algorithms that are accepted.
    #[schemars(with = "Vec<JwtAlgorithm>")]
    pub(in crate::config) algorithms: Vec<Option<JwtAlgorithm>>,
    /// Keys that tokens are signed with.
    #[schemars(with = "Vec<JwtKey>")]
    pub(in crate::config) keys: Vec<Option<JwtKey>>,
    /// Where the issuer publishes its keys (a JWK Set); null or empty: nowhere.
    pub(in crate::config) jwks_url: Option<Written<WebUrl>>,
    /// How often they are fetched anew, 10s to 24h; sooner for an unknown key id.
    pub(in crate::config) jwks_refresh: Written<TimeSpan>,
    /// How far the issuer's clock may be off, at most 5m.
    pub(in crate::config) leeway: Written<TimeSpan>,
    /// Which claims say what.
    pub(in crate::config) claims: JwtClaims,
}

impl Default for Jwt {
    fn default() -> Self {
        let algorithms = [
            JwtAlgorithm::RS256,
            JwtAlgorithm::ES256,
            JwtAlgorithm::EdDSA,
        ];
        Jwt {
            issuer: None,
            audience: None,
            algorithms: algorithms.map(Some).to_vec(),
            keys: Vec::new(),
            jwks_url: None,
            jwks_refresh: span("5m", Duration::from_secs(300)),
            leeway: span("30s", Duration::from_secs(30)),
            claims: JwtClaims::default(),
        }
    }
}

/// A key that tokens are signed with: exactly one of pem_file, secret and secret_file.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct JwtKey {
    /// Its id, as in the token's header; null: for tokens with any id or none.
    pub(in crate::config) kid: Option<String>,
    /// A PEM file with a public key: RSA, EC (P-256, P-384) or Ed25519.
    pub(in crate::config) pem_file: Option<String>,
    /// A secret for HS256, HS384, HS512.
    pub(in crate::config) secret: Option<Written<SecretText>>,
    /// A file with such a secret; a line break at its end is not part of it.
    pub(in crate::config) secret_file: Option<String>,
}

/// Which claims say what; a dotted path reaches into nested claims.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct JwtClaims {
    /// The client's id.
    pub(in crate::config) client: Written<ClaimName>,
    /// Its tier, unless file or database name one.
    pub(in crate::config) tier: Written<ClaimName>,
    /// Its scopes: words in one text, or a list of texts.
    pub(in crate::config) scopes: Written<ClaimName>,
}

impl Default for JwtClaims {
    fn default() -> Self {
        let claim = |name: &'static str| Written::known(name, ClaimName(name.to_owned()));
        JwtClaims {
            client: claim("sub"),
            tier: claim("tier"),
            scopes: claim("scope"),
        }
    }
}

/// Names and passwords.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Basic {
    /// A file of htpasswd; null or empty: none.
    pub(in crate::config) htpasswd_file: Option<String>,
    /// What browsers show when they ask for the password.
    pub(in crate::config) realm: Written<HeaderText>,
}

impl Default for Basic {
    fn default() -> Self {
        Basic {
            htpasswd_file: None,
            realm: Written::known("tidegate", HeaderText("tidegate".to_owned())),
        }
    }
}

/// Failed authentications tolerated per address.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Failures {
    /// Failures per period.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(in crate::config) count: u32,
    /// The period, such as 60s.
    pub(in crate::config) period: Written<TimeSpan>,
}

impl Default for Failures {
    fn default() -> Self {
        Failures {
            count: 30,
            period: span("60s", Duration::from_secs(60)),
        }
    }
}
