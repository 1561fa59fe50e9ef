//! Names and passwords (RFC 7617): hashed on threads of their own, remembered once they were right.

mod apr1;
mod htpasswd;

use super::flights::{Flights, Waiting};
use super::pending::{Lookup, Unfound};
use super::recent::{Digest, Recent, digest};
use super::{BadSetting, Client, Looking, Proven, Seen, Sources, Unavailable, small_file};
use crate::config;
use crate::telemetry::Method;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use htpasswd::Htpasswd;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

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
    file: Htpasswd,
    /// of the file's bytes
    file_digest: Digest,
    pub(super) recent: Recent<(u64, Arc<Client>)>,
    flights: Arc<Flights<bool>>,
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
        let file_digest = digest(&bytes);
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
            file,
            file_digest,
            recent: Recent::new(MAX_REMEMBERED),
            flights: Flights::new(),
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

    /// Is this the same file, byte for byte?
    pub(super) fn is_same(&self, other: &Passwords) -> bool {
        self.file_digest == other.file_digest
    }

    /// Finds out whether a password is right: one hash for all who send the same at once. `client`
    /// is whose it would be.
    pub(super) async fn verify(
        self: &Arc<Self>,
        credential: Credential,
        client: Arc<Client>,
        sources: &Sources,
        now_us: u64,
    ) -> Result<Proven, Unfound> {
        let digest = credential.digest;
        let credential = Arc::new(credential);
        let begin = |waiting: Waiting<bool>| {
            // only whoever has it hashed takes a place
            let Ok(place) = sources.passwords.clone().try_acquire_owned() else {
                return Err(Unfound::Unavailable(Unavailable::Crowded));
            };
            let turn = sources.hashing.clone().acquire_owned();
            let (this, credential, client) = (self.clone(), credential.clone(), client.clone());
            Ok(async move {
                let _place = place;
                let turn = tokio::select! {
                    turn = turn => turn.ok()?,
                    () = waiting.nobody() => return None,
                };
                this.hash(turn, credential, client, now_us).await
            })
        };
        match self.flights.share(digest, begin).await? {
            Some(true) => Ok(Proven {
                method: Method::Basic,
                client,
                token: None,
            }),
            Some(false) => Err(Unfound::Invalid),
            None => Err(Unfound::Unavailable(Unavailable::TimedOut)),
        }
    }

    /// Hashes a password on a thread that may block, and remembers a right one.
    async fn hash(
        self: Arc<Self>,
        turn: OwnedSemaphorePermit,
        credential: Arc<Credential>,
        client: Arc<Client>,
        now_us: u64,
    ) -> Option<bool> {
        let digest = credential.digest;
        // it may have been hashed between the look into memory and this turn
        if self.remembered_as(&digest, now_us).is_some() {
            return Some(true);
        }
        let this = self.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let right = this.file.verify(&credential.name, &credential.password);
            // held to the end, also when nobody waits any more
            drop(turn);
            right
        });
        let right = hashed.await.ok()?;
        if right {
            let until_us = now_us.saturating_add(REMEMBERED_US);
            self.recent.put(digest, (until_us, client));
        }
        Some(right)
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
