//! From credentials to a client: API keys by hash, a guard against guessing.

pub mod api_key;
pub mod failures;
mod remembered;

use api_key::ApiKeys;
use http::{HeaderMap, HeaderValue};
use remembered::Remembered;
use std::sync::Arc;

/// Who is calling.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// its id, visible ASCII
    pub id: String,
    /// the same, ready to be sent upstream
    pub id_header: HeaderValue,
    /// its tier
    pub tier: Option<String>,
}

impl Client {
    /// A client; an id that is not visible ASCII has no header (the configuration has none such).
    pub fn new(id: &str, tier: Option<String>) -> Self {
        let id_header = HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("-"));
        Client {
            id: id.to_owned(),
            id_header,
            tier,
        }
    }
}

/// What a request's credentials say.
#[derive(Debug, PartialEq, Eq)]
pub enum Identity {
    /// a credential that is valid
    Known(Arc<Client>),
    /// no credential at all
    Anonymous,
    /// a credential that is not valid
    Invalid,
    /// a credential never seen before, which nobody looked at (see [`Looking`])
    NotLookedAt,
}

/// Whether an unknown credential may cost a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looking {
    /// hash it and look it up
    Allowed,
    /// too many failures from this address: only credentials that are remembered count
    RememberedOnly,
}

/// Everything needed to recognise a client. Made anew with every snapshot, so what it remembers is
/// forgotten when keys change.
pub struct Authenticator {
    header: http::HeaderName,
    keys: ApiKeys,
    remembered: Remembered,
}

impl Authenticator {
    /// Recognises clients by an API key in `header`.
    pub fn new(header: http::HeaderName, keys: ApiKeys) -> Self {
        Authenticator {
            header,
            keys,
            remembered: Remembered::default(),
        }
    }

    /// The header that carries API keys.
    pub fn api_key_header(&self) -> &http::HeaderName {
        &self.header
    }

    /// Says who a request comes from; two API keys that name different clients are invalid.
    /// `looking` is asked once there is a credential.
    pub fn identify(&self, headers: &HeaderMap, mut looking: impl FnMut() -> Looking) -> Identity {
        let mut found: Option<Arc<Client>> = None;
        for value in headers.get_all(&self.header) {
            let client = match self.recall(value.as_bytes(), &mut looking) {
                Identity::Known(client) => client,
                other => return other,
            };
            if found.as_ref().is_some_and(|first| first.id != client.id) {
                return Identity::Invalid;
            }
            found = Some(client);
        }
        found.map_or(Identity::Anonymous, Identity::Known)
    }

    fn recall(&self, key: &[u8], looking: &mut impl FnMut() -> Looking) -> Identity {
        if looking() == Looking::RememberedOnly {
            return self
                .remembered
                .get(key)
                .map_or(Identity::NotLookedAt, Identity::Known);
        }
        let Some(found) = self.keys.find(key) else {
            return Identity::Invalid;
        };
        self.remembered.put_once(key, found);
        Identity::Known(found.client.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn authenticator() -> Authenticator {
        let client = |id: &str| Arc::new(Client::new(id, None));
        let keys = [
            ("one", client("a")),
            ("uno", client("a")),
            ("two", client("b")),
        ];
        let keys = keys.map(|(key, client)| (<[u8; 32]>::from(Sha256::digest(key)), client));
        Authenticator::new(
            http::HeaderName::from_static("x-api-key"),
            ApiKeys::new(keys),
        )
    }

    fn identify(authenticator: &Authenticator, keys: &[&str], looking: Looking) -> String {
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append("x-api-key", HeaderValue::from_str(key).unwrap());
        }
        match authenticator.identify(&headers, || looking) {
            Identity::Known(client) => client.id.clone(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_recognised_by_their_hash() {
        let authenticator = authenticator();
        assert_eq!(identify(&authenticator, &["one"], Looking::Allowed), "a");
        assert_eq!(
            identify(&authenticator, &["One"], Looking::Allowed),
            "Invalid"
        );
        assert_eq!(identify(&authenticator, &[""], Looking::Allowed), "Invalid");
        assert_eq!(identify(&authenticator, &[], Looking::Allowed), "Anonymous");
    }

    #[test]
    fn two_keys_must_name_the_same_client() {
        let authenticator = authenticator();
        assert_eq!(
            identify(&authenticator, &["one", "uno"], Looking::Allowed),
            "a"
        );
        assert_eq!(
            identify(&authenticator, &["one", "two"], Looking::Allowed),
            "Invalid"
        );
    }

    #[test]
    fn under_guard_only_a_key_that_was_valid_before_is_recognised() {
        let authenticator = authenticator();
        assert_eq!(
            identify(&authenticator, &["one"], Looking::RememberedOnly),
            "NotLookedAt"
        );
        assert_eq!(identify(&authenticator, &["one"], Looking::Allowed), "a");
        assert_eq!(
            identify(&authenticator, &["one"], Looking::RememberedOnly),
            "a"
        );
        assert_eq!(
            identify(&authenticator, &["bad"], Looking::RememberedOnly),
            "NotLookedAt"
        );
    }
}
