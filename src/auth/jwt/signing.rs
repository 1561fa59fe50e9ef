//! Signing tokens for development, with a secret of the configuration or a private key from a file.

use super::key::{named, secret_of};
use crate::config::{self, JwtKeySource};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header, encode};
use serde_json::{Map, Value};
use std::path::Path;

/// What a token is to say.
pub struct Wanted<'a> {
    /// the client's id
    pub client: &'a str,
    /// its tier
    pub tier: Option<&'a str>,
    /// what it may be used for
    pub scopes: &'a [String],
    /// further claims; they replace those that follow from the rest
    pub claims: &'a [(String, Value)],
    /// the file of a private key; absent: the first secret of the configuration
    pub key_file: Option<&'a Path>,
    /// the key's id; absent: that of the configured secret
    pub kid: Option<&'a str>,
    /// when it is signed and when it expires, seconds since the epoch
    pub now: u64,
    /// when it expires, seconds since the epoch
    pub expires: u64,
}

/// Signs a token that the configuration accepts; otherwise what to do.
pub fn sign(written: &config::Jwt, wanted: &Wanted<'_>) -> Result<String, String> {
    let (key, algorithm, kid) = match wanted.key_file {
        Some(path) => from_file(written, path).map(|(key, algorithm)| (key, algorithm, None))?,
        None => from_secret(written)?,
    };
    let header = Header {
        kid: wanted.kid.map(str::to_owned).or(kid),
        ..Header::new(algorithm)
    };
    encode(&header, &claims(written, wanted), &key)
        .map_err(|error| format!("the token cannot be signed: {error}"))
}

fn claims(written: &config::Jwt, wanted: &Wanted<'_>) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("iat".to_owned(), wanted.now.into());
    claims.insert("exp".to_owned(), wanted.expires.into());
    for (name, value) in [("iss", &written.issuer), ("aud", &written.audience)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value.as_str().into());
        }
    }
    put(&mut claims, &written.client_claim, wanted.client.into());
    if let Some(tier) = wanted.tier {
        put(&mut claims, &written.tier_claim, tier.into());
    }
    if !wanted.scopes.is_empty() {
        put(
            &mut claims,
            &written.scopes_claim,
            wanted.scopes.join(" ").into(),
        );
    }
    for (name, value) in wanted.claims {
        claims.insert(name.clone(), value.clone());
    }
    claims
}

/// A claim by its name, nested where that is a dotted path; names that are URLs stay whole.
fn put(claims: &mut Map<String, Value>, path: &str, value: Value) {
    let nested = path.split_once('.').filter(|_| !path.contains("://"));
    let Some((first, rest)) = nested else {
        claims.insert(path.to_owned(), value);
        return;
    };
    let inner = claims
        .entry(first.to_owned())
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(inner) = inner.as_object_mut() {
        put(inner, rest, value);
    }
}

type Signer = (EncodingKey, Algorithm, Option<String>);

fn from_secret(written: &config::Jwt) -> Result<Signer, String> {
    let is_secret = |key: &&config::JwtKey| !matches!(key.source, JwtKeySource::PemFile(_));
    let key = written.keys.iter().find(is_secret).ok_or(
        "auth.jwt.keys has no secret to sign with; give the issuer's private key with --key FILE",
    )?;
    let algorithm = written.algorithms.iter().find(|one| one.is_symmetric());
    let algorithm = algorithm.ok_or("auth.jwt.algorithms has none for secrets; add HS256")?;
    let secret = secret_of(&key.source).map_err(|bad| bad.message)?;
    Ok((
        EncodingKey::from_secret(&secret),
        named(*algorithm),
        key.kid.clone(),
    ))
}

fn from_file(written: &config::Jwt, path: &Path) -> Result<(EncodingKey, Algorithm), String> {
    let pem = crate::auth::small_file::read(path, super::key::MAX_KEY_FILE_BYTES)?;
    // the library takes a public key for a private one until it is to sign
    let is_private = String::from_utf8_lossy(&pem).contains("PRIVATE KEY-----");
    let key = EncodingKey::from_rsa_pem(&pem)
        .or_else(|_| EncodingKey::from_ec_pem(&pem))
        .or_else(|_| EncodingKey::from_ed_pem(&pem))
        .ok()
        .filter(|_| is_private)
        .ok_or_else(|| {
            format!(
                "`{}` is no private key in PKCS #8; `openssl pkcs8 -topk8 -nocrypt -in key.pem` makes one",
                path.display()
            )
        })?;
    let signs = |algorithm: &Algorithm| {
        let fits = algorithm.family() == key.family();
        // a key on another curve shows only when it is used
        fits && (key.family() != AlgorithmFamily::Ec
            || jsonwebtoken::crypto::sign(b"", &key, *algorithm).is_ok())
    };
    let algorithms = written.algorithms.iter().copied().map(named);
    let algorithm = algorithms.into_iter().find(signs).ok_or_else(|| {
        format!(
            "none of auth.jwt.algorithms is for the kind of key in `{}`",
            path.display()
        )
    })?;
    Ok((key, algorithm))
}
