//! API keys: made, listed, revoked.

use serde::Serialize;
use std::fmt;

/// What a key is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKey {
    /// whose
    pub client: String,
    /// is the client one of the file, so that the database need not know it?
    pub client_of_file: bool,
    /// what people call it
    pub name: Option<String>,
    /// what it is good for
    pub scopes: Vec<String>,
    /// microseconds since the Unix epoch; absent: never
    pub expires_at_us: Option<u64>,
}

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredKey {
    /// the part of its text that may be known
    pub id: String,
    /// whose
    pub client: String,
    /// what people call it
    pub name: Option<String>,
    /// what it is good for
    pub scopes: Vec<String>,
    /// RFC 3339
    pub created_at: String,
    /// RFC 3339; absent: never
    pub expires_at: Option<String>,
    /// RFC 3339; absent: it is valid
    pub revoked_at: Option<String>,
    /// RFC 3339, to a minute or two; absent: never
    pub last_used_at: Option<String>,
}

/// A key that was just made.
pub struct CreatedKey {
    /// the key without its secret
    pub key: StoredKey,
    /// the key itself, to be shown once
    pub text: String,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedKey")
            .field("key", &self.key)
            .field("text", &"***")
            .finish()
    }
}
