//! Tokens as an issuer would sign them, with the keys in `tests/keys`, and the documents that publish those.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::time::SystemTime;

/// Where a key of `tests/keys` is.
pub(crate) fn key_file(name: &str) -> String {
    format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))
}

fn rsa(name: &str) -> EncodingKey {
    EncodingKey::from_rsa_pem(&std::fs::read(key_file(name)).unwrap()).unwrap()
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Claims that are valid for ten minutes, with these added.
pub(crate) fn claims(more: Value) -> Value {
    let mut claims = json!({ "exp": now() + 600 });
    let more = more.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    claims
}

/// `Bearer` and a token by an RSA key of `tests/keys` (RS256).
pub(crate) fn by_rsa(key: &str, kid: &str, more: Value) -> String {
    let header = Header {
        kid: Some(kid.to_owned()),
        ..Header::new(Algorithm::RS256)
    };
    format!(
        "Bearer {}",
        encode(&header, &claims(more), &rsa(key)).unwrap()
    )
}

/// `Bearer` and a token by a secret (HS256).
pub(crate) fn by_secret(secret: &str, more: Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    format!(
        "Bearer {}",
        encode(&Header::default(), &claims(more), &key).unwrap()
    )
}

/// A document that publishes RSA keys of `tests/keys` under these ids.
pub(crate) fn published(keys: &[(&str, &str)]) -> String {
    let keys = keys.iter().map(|(name, kid)| {
        let mut jwk = Jwk::from_encoding_key(&rsa(name), Algorithm::RS256).unwrap();
        jwk.common.key_id = Some((*kid).to_owned());
        jwk
    });
    json!({ "keys": keys.collect::<Vec<Jwk>>() }).to_string()
}
