//! Names and passwords (RFC 7617): hashed on threads of their own, remembered once they were right.

mod apr1;
mod htpasswd;

use super::pending::Lookup;
use super::recent::{Digest, Recent, digest};
use super::{Authenticator, BadSetting, Client, Looking, Proven, Seen, small_file};
use crate::config;
use crate::telemetry::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use htpasswd::Htpasswd;
use std::sync::Arc;

/// The largest file.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// The longest credential, in base 64.
const MAX_CREDENTIAL_BYTES: usize = 2 * 1024;

/// Right passwords remembered.
const MAX_REMEMBERED: usize = 16_384;

/// A right password is hashed again after this.
const REMEMBERED_US: u64 = 300_000_000;

/// Problems of one file that are told.
const MAX_TOLD: usize = 20;

/// Verifies and remembers.
pub(super) struct Passwords {
    file: Arc<Htpasswd>,
    recent: Recent<(u64, Arc<Client>)>,
}

/// A name and what is said to be its password.
pub(super) struct Credential {
    pub(super) name: String,
    pub(super) password: String,
    pub(super) digest: Digest,
}

impl Passwords {
    /// Reads the file.
    pub(super) fn load(written: &config::Basic) -> Result<Self, Vec<BadSetting>> {
        let path = &written.htpasswd_file;
        let bad = |message: String| BadSetting {
            path: vec!["basic".into(), "htpasswd_file".into()],
            message,
            hint: "`htpasswd -B -c FILE NAME` makes one".to_owned(),
        };
        let bytes = small_file::read(path, MAX_FILE_BYTES).map_err(|error| vec![bad(error)])?;
        let text = String::from_utf8(bytes)
            .map_err(|_| vec![bad(format!("`{}` is not text", path.display()))])?;
        let file = Htpasswd::parse(&text).map_err(|lines| {
            let told = lines.into_iter().take(MAX_TOLD);
            told.map(|line| {
                bad(format!(
                    "`{}` line {}: {}",
                    path.display(),
                    line.line,
                    line.message
                ))
            })
            .collect::<Vec<_>>()
        })?;
        Ok(Passwords {
            file: Arc::new(file),
            recent: Recent::new(MAX_REMEMBERED),
        })
    }

    /// How many are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.recent.len()
    }

    /// What a credential says, without waiting.
    pub(super) fn recall(
        &self,
        encoded: &[u8],
        now_us: u64,
        looking: &mut impl FnMut() -> Looking,
    ) -> Seen {
        if encoded.len() > MAX_CREDENTIAL_BYTES {
            return Seen::Invalid(Method::Basic);
        }
        let digest = digest(encoded);
        if let Some(proven) = self.remembered_as(&digest, now_us) {
            return Seen::Known(proven);
        }
        if looking() == Looking::RememberedOnly {
            return Seen::NotLookedAt;
        }
        match credential(encoded, digest) {
            Some(credential) => Seen::Unknown(Lookup::Password(credential)),
            None => Seen::Invalid(Method::Basic),
        }
    }

    /// Whose this credential is, if it was right lately.
    pub(super) fn remembered_as(&self, digest: &Digest, now_us: u64) -> Option<Proven> {
        let (until_us, client) = self.recent.get(digest)?;
        (until_us > now_us).then_some(Proven {
            method: Method::Basic,
            client,
            token: None,
        })
    }

    /// The file, to verify with on a thread that may block.
    pub(super) fn verifier(&self) -> impl FnOnce(&Credential) -> bool + Send + 'static {
        let file = self.file.clone();
        move |credential| file.verify(&credential.name, &credential.password)
    }

    /// A password was right.
    pub(super) fn remember(
        &self,
        authenticator: &Authenticator,
        credential: &Credential,
        now_us: u64,
    ) -> Proven {
        let client = authenticator.client(&credential.name, None, now_us);
        let until_us = now_us.saturating_add(REMEMBERED_US);
        self.recent
            .put(credential.digest, (until_us, client.clone()));
        Proven {
            method: Method::Basic,
            client,
            token: None,
        }
    }
}

/// `name:password` in base 64; the name has no `:`, the password may have any.
fn credential(encoded: &[u8], digest: Digest) -> Option<Credential> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some(Credential {
        name: name.to_owned(),
        password: password.to_owned(),
        digest,
    })
}
