//! Who is calling, as far as a request's credentials prove.

use super::{Found, Token};
use crate::telemetry::Method;
use http::HeaderValue;
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
    /// what its API key may be used for
    pub scopes: Vec<String>,
}

impl Client {
    /// A client; an id that is not visible ASCII has no header (the configuration has none such).
    pub fn new(id: &str, tier: Option<String>) -> Self {
        let id_header = HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("-"));
        Client {
            id: id.to_owned(),
            id_header,
            tier,
            scopes: Vec::new(),
        }
    }

    /// The same client with a key that may be used for this.
    pub fn with_scopes(&self, scopes: Vec<String>) -> Self {
        Client {
            id: self.id.clone(),
            id_header: self.id_header.clone(),
            tier: self.tier.clone(),
            scopes,
        }
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
        let by_key = self.client.iter().flat_map(|client| &client.scopes);
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
