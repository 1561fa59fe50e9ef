//! The three parts of a token as they come, before anything is believed.

use super::strict_json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The longest token; a header line beyond that is nobody's credential.
pub(in crate::auth) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The longest key id; it is only ever compared.
const MAX_KID_BYTES: usize = 512;

/// A token taken apart (RFC 7515, 3.1).
pub(super) struct Parts<'t> {
    /// what was signed: header and payload as they came
    pub(super) message: &'t str,
    /// in base64url
    pub(super) signature: &'t str,
    /// the algorithm's name; not yet known to be acceptable
    pub(super) alg: String,
    /// the key's id, if it says one
    pub(super) kid: Option<String>,
    payload: &'t str,
}

impl<'t> Parts<'t> {
    /// Three parts in base64url without padding, a header that names an algorithm and nothing that
    /// must be understood and is not.
    pub(super) fn of(token: &'t str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        if payload.contains('.') || signature.is_empty() {
            return None;
        }
        let header = strict_json::object(&URL_SAFE_NO_PAD.decode(header).ok()?)?;
        // RFC 7515, 4.1.11: who does not understand what is critical must refuse it; we know none
        if header.contains_key("crit") {
            return None;
        }
        let text = |name: &str| match header.get(name) {
            None => Some(None),
            Some(Value::String(text)) if text.len() <= MAX_KID_BYTES => Some(Some(text.clone())),
            Some(_) => None,
        };
        Some(Parts {
            message,
            signature,
            alg: text("alg")??,
            kid: text("kid")?,
            payload,
        })
    }

    /// The claims; to be asked for once the signature is known to be right.
    pub(super) fn claims(&self) -> Option<Map<String, Value>> {
        strict_json::object(&URL_SAFE_NO_PAD.decode(self.payload).ok()?)
    }
}
