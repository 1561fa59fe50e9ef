//! Keys that verify signatures, each bound to the algorithms of its own type.

use crate::config::{JwtAlgorithm, JwtKey, JwtKeySource};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, crypto};
use std::path::Path;

/// The largest file of a key.
pub(super) const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// A key and what it may verify: a public key is never taken for a secret.
pub(super) struct Key {
    /// absent: it is tried for tokens with any id
    pub(super) kid: Option<String>,
    key: DecodingKey,
    /// what the issuer says it is for; absent: all algorithms of its type
    only: Option<Algorithm>,
}

/// A key that cannot be used: which of its settings, why, and what to do.
#[derive(Debug)]
pub(super) struct BadKey {
    pub(super) field: &'static str,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

impl Key {
    /// A key of the configuration.
    pub(super) fn load(written: &JwtKey) -> Result<Key, BadKey> {
        let (key, only) = match &written.source {
            JwtKeySource::PemFile(path) => public(&read(path, "pem_file")?)?,
            source => (DecodingKey::from_secret(&secret_of(source)?), None),
        };
        Ok(Key {
            kid: written.kid.clone(),
            key,
            only,
        })
    }

    /// A key an issuer publishes. Not: secrets (nothing that is published is one), keys for
    /// encryption, types that are not known.
    pub(super) fn published(jwk: &Jwk) -> Option<Key> {
        let public = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) => false,
            AlgorithmParameters::OctetKeyPair(pair) => pair.curve == EllipticCurve::Ed25519,
            AlgorithmParameters::RSA(_) | AlgorithmParameters::EllipticCurve(_) => true,
        };
        let signs = !matches!(
            jwk.common.public_key_use,
            Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_))
        );
        if !public || !signs {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let curve = curve_of(&key);
        let only = match jwk.common.key_algorithm {
            Some(named) => Some(signing(named)?),
            None => curve,
        };
        let fits = only.is_none_or(|only| only.family() == key.family());
        let key = Key {
            kid: jwk.common.key_id.clone(),
            key,
            only,
        };
        fits.then_some(key)
    }

    /// Is this the same key, for the same tokens?
    pub(super) fn is_same(&self, other: &Key) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let same_key = match (self.key.kind(), other.key.kind()) {
            (SecretOrDer(one), SecretOrDer(another)) => one == another,
            (
                RsaModulusExponent { n, e },
                RsaModulusExponent {
                    n: other_n,
                    e: other_e,
                },
            ) => n == other_n && e == other_e,
            _ => false,
        };
        same_key
            && self.key.family() == other.key.family()
            && self.kid == other.kid
            && self.only == other.only
    }

    /// May it verify what claims to be signed with this?
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.key.family() == algorithm.family() && self.only.is_none_or(|only| only == algorithm)
    }

    /// Is this the signature of that message?
    pub(super) fn verifies(&self, message: &str, signature: &str, algorithm: Algorithm) -> bool {
        self.fits(algorithm)
            && crypto::verify(signature, message.as_bytes(), &self.key, algorithm).unwrap_or(false)
    }
}

/// The bytes of a secret; a PEM file has none.
pub(super) fn secret_of(source: &JwtKeySource) -> Result<Vec<u8>, BadKey> {
    let secret = match source {
        JwtKeySource::Secret(secret) => secret.expose().as_bytes().to_vec(),
        JwtKeySource::SecretFile(path) => without_line_break(&read(path, "secret_file")?).to_vec(),
        JwtKeySource::PemFile(_) => Vec::new(),
    };
    match secret.is_empty() {
        false => Ok(secret),
        true => Err(BadKey {
            field: "secret_file",
            message: "the file is empty".to_owned(),
            hint: "`openssl rand -hex 32` makes a good secret",
        }),
    }
}

/// An algorithm by its name in a token's header; `none` and others are none.
pub(super) fn by_name(name: &str) -> Option<JwtAlgorithm> {
    match name {
        "HS256" => Some(JwtAlgorithm::HS256),
        "HS384" => Some(JwtAlgorithm::HS384),
        "HS512" => Some(JwtAlgorithm::HS512),
        "RS256" => Some(JwtAlgorithm::RS256),
        "RS384" => Some(JwtAlgorithm::RS384),
        "RS512" => Some(JwtAlgorithm::RS512),
        "PS256" => Some(JwtAlgorithm::PS256),
        "PS384" => Some(JwtAlgorithm::PS384),
        "PS512" => Some(JwtAlgorithm::PS512),
        "ES256" => Some(JwtAlgorithm::ES256),
        "ES384" => Some(JwtAlgorithm::ES384),
        "EdDSA" => Some(JwtAlgorithm::EdDSA),
        _ => None,
    }
}

/// The same algorithm as the library calls it.
pub(super) fn named(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::HS256 => Algorithm::HS256,
        JwtAlgorithm::HS384 => Algorithm::HS384,
        JwtAlgorithm::HS512 => Algorithm::HS512,
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

fn signing(named: KeyAlgorithm) -> Option<Algorithm> {
    match named {
        KeyAlgorithm::RS256 => Some(Algorithm::RS256),
        KeyAlgorithm::RS384 => Some(Algorithm::RS384),
        KeyAlgorithm::RS512 => Some(Algorithm::RS512),
        KeyAlgorithm::PS256 => Some(Algorithm::PS256),
        KeyAlgorithm::PS384 => Some(Algorithm::PS384),
        KeyAlgorithm::PS512 => Some(Algorithm::PS512),
        KeyAlgorithm::ES256 => Some(Algorithm::ES256),
        KeyAlgorithm::ES384 => Some(Algorithm::ES384),
        KeyAlgorithm::EdDSA => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// The algorithm that belongs to an elliptic curve, which shows in the length of a point on it.
fn curve_of(key: &DecodingKey) -> Option<Algorithm> {
    if key.family() != AlgorithmFamily::Ec {
        return None;
    }
    match key.as_bytes().len() {
        65 => Some(Algorithm::ES256),
        97 => Some(Algorithm::ES384),
        _ => None,
    }
}

/// A public key in PEM.
fn public(pem: &[u8]) -> Result<(DecodingKey, Option<Algorithm>), BadKey> {
    let bad = |message: &str, hint| BadKey {
        field: "pem_file",
        message: message.to_owned(),
        hint,
    };
    let text = String::from_utf8_lossy(pem);
    if text.contains("PRIVATE KEY-----") {
        let hint = "only the issuer needs it; `openssl pkey -in private.pem -pubout` prints the public one";
        return Err(bad("this is a private key", hint));
    }
    if text.contains("BEGIN CERTIFICATE") {
        let hint = "`openssl x509 -in certificate.pem -pubkey -noout` prints its public key";
        return Err(bad("this is a certificate", hint));
    }
    let key = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem));
    let kinds = "give an RSA, EC (P-256 or P-384) or Ed25519 key that begins with `-----BEGIN PUBLIC KEY-----`";
    let key = key.map_err(|_| bad("this is no public key in PEM", kinds))?;
    let curve = curve_of(&key);
    if key.family() == AlgorithmFamily::Ec && curve.is_none() {
        return Err(bad("this is a key on a curve that is not supported", kinds));
    }
    Ok((key, curve))
}

fn read(path: &Path, field: &'static str) -> Result<Vec<u8>, BadKey> {
    let bad = |message: String| BadKey {
        field,
        message,
        hint: "give a file that the gateway may read; a relative path starts at the working directory",
    };
    crate::auth::small_file::read(path, MAX_KEY_FILE_BYTES).map_err(bad)
}

/// Editors and `echo` end files with a line break; nobody's secret does.
fn without_line_break(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}
