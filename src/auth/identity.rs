//! Who is calling, as far as a request's credentials prove.

use super::{Found, Token};
use crate::telemetry::Method;
use http::HeaderValue;
use smol_str::SmolStr;
use std::sync::Arc;

/// Who is calling. With the counts of its `Arc` it fills one line of a cache, for each line costs a wait:
/// where thousands of clients call, the next one's are in no cache.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// its id, visible ASCII; up to 23 bytes are kept in place
    pub id: SmolStr,
    /// its tier, a text that clients share
    pub tier: Option<Arc<str>>,
    /// what its API key may be used for
    #[allow(clippy::box_collection, reason = "mostly none, in a third of the room")]
    scopes: Option<Box<Vec<String>>>,
}

/// Bytes of an `Arc`'s two counts.
const COUNTS: usize = 2 * size_of::<usize>();
const _: () = assert!(size_of::<Client>() + COUNTS <= 64, "more than one line");

impl Client {
    /// A client whose key may be used for nothing that needs a scope.
    pub fn new(id: &str, tier: Option<Arc<str>>) -> Self {
        Client {
            id: SmolStr::new(id),
            tier,
            scopes: None,
        }
    }

    /// The same client with a key that may be used for this.
    pub fn with_scopes(&self, scopes: Vec<String>) -> Self {
        Client {
            id: self.id.clone(),
            tier: self.tier.clone(),
            scopes: (!scopes.is_empty()).then(|| Box::new(scopes)),
        }
    }

    /// What its API key may be used for.
    pub fn scopes(&self) -> &[String] {
        self.scopes.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Its id as it is sent upstream, `-` in place of one that is not visible ASCII (the configuration has
    /// none such).
    pub fn id_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.id).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// Who a request comes from, as far as its credentials prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// absent: nobody is authenticated
    pub client: Option<Arc<Client>>,
    /// what a verified token says beside the client
    pub token: Option<Arc<Token>>,
    /// is the API key verified?
    pub api_key_verified: bool,
    /// is what `Authorization` carries verified?
    pub authorization_verified: bool,
}

impl Identity {
    /// Adds what one more credential proves; two that name different clients prove nothing.
    pub(super) fn add(&mut self, proven: Proven) -> Result<(), Found> {
        if let Some(first) = &self.client
            && first.id != proven.client.id
        {
            return Err(Found::Invalid(proven.method));
        }
        match proven.method {
            Method::ApiKey => self.api_key_verified = true,
            Method::Jwt | Method::Basic => self.authorization_verified = true,
            Method::ForwardAuth => (),
        }
        self.token = proven.token.or(self.token.take());
        self.client.get_or_insert(proven.client);
        Ok(())
    }

    /// Is one of the credentials good for this?
    pub fn has_scope(&self, scope: &str) -> bool {
        let by_key = self.client.iter().flat_map(|client| client.scopes());
        let by_token = self.token.iter().flat_map(|token| &token.scopes);
        by_key.chain(by_token).any(|held| held == scope)
    }

    /// Claims of the token that policies count by.
    pub fn claims(&self) -> &[(Box<str>, Box<str>)] {
        self.token.as_ref().map_or(&[], |token| &token.claims)
    }
}

/// What one credential proves.
pub(super) struct Proven {
    pub(super) method: Method,
    pub(super) client: Arc<Client>,
    pub(super) token: Option<Arc<Token>>,
}
