//! How clients are recognised.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;

/// How clients are recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The header that carries an API key.
    pub api_key_header: http::HeaderName,
    /// JSON Web Tokens; absent: not looked at.
    pub jwt: Option<Jwt>,
    /// Names and passwords; absent: not looked at.
    pub basic: Option<Basic>,
    /// How long a request waits for a look-up of its credentials.
    pub timeout: Duration,
    /// When an address has failed too often.
    pub failures: FailureGuard,
}

/// Which tokens are believed, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// What `iss` must be; absent: anything.
    pub issuer: Option<String>,
    /// What `aud` must be or contain; absent: anything.
    pub audience: Option<String>,
    /// Algorithms that are accepted; at least one.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Keys of the file, in its order.
    pub keys: Vec<JwtKey>,
    /// Where the issuer publishes its keys; without it there is at least one in `keys`.
    pub jwks_url: Option<String>,
    /// How often they are fetched anew.
    pub jwks_refresh: Duration,
    /// How far the issuer's clock may be off.
    pub leeway: Duration,
    /// The claim with the client's id.
    pub client_claim: String,
    /// The claim with its tier.
    pub tier_claim: String,
    /// The claim with its scopes.
    pub scopes_claim: String,
}

/// An algorithm of signatures (RFC 7518, 3.1 and RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    RS384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    RS512,
    /// RSA PSS with SHA-256.
    PS256,
    /// RSA PSS with SHA-384.
    PS384,
    /// RSA PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// A key that tokens are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    /// Its id; absent: for tokens with any id or none.
    pub kid: Option<String>,
    /// Where the key itself is.
    pub source: JwtKeySource,
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeySource {
    /// A PEM file with a public key.
    PemFile(PathBuf),
    /// A secret, as its text.
    Secret(Secret),
    /// A file whose text is a secret.
    SecretFile(PathBuf),
}

/// Names and passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basic {
    /// The file of htpasswd.
    pub htpasswd_file: PathBuf,
    /// What browsers show when they ask for the password.
    pub realm: String,
}

/// Failed authentications tolerated from one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureGuard {
    /// Failures per period; at least 1.
    pub count: u32,
    /// The period they are counted in.
    pub period: Duration,
}
