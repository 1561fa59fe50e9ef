//! Where the database is asked: API keys that the file does not have, and clients' tiers.

use super::pending::{Deadline, Lookup, Unfound};
use super::recent::{Digest, Recent, digest};
use super::{Authenticator, Client, Looking, Proven, Seen, Unavailable};
use crate::clock::Clock;
use crate::database::{self, ClientRecord, Directory, KeyRecord, Recalled, generated_key};
use crate::telemetry::Method;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Clients made of records that are remembered, so that a known key costs no allocation.
const MAX_REMEMBERED: usize = 131_072;

/// The database's directory, and the clients made of its records.
pub(super) struct Lookups {
    pub(super) directory: Directory,
    pub(super) clients: Recent<Arc<Client>>,
}

impl Lookups {
    pub(super) fn new(directory: Directory) -> Self {
        Lookups {
            directory,
            clients: Recent::new(MAX_REMEMBERED),
        }
    }
}

impl From<database::Unavailable> for Unavailable {
    fn from(why: database::Unavailable) -> Self {
        match why {
            database::Unavailable::Away => Unavailable::Directory,
            database::Unavailable::TooMany => Unavailable::Crowded,
        }
    }
}

impl Authenticator {
    /// What an API key that the file does not have says, without waiting.
    pub(super) fn directory_key(&self, key: &[u8], now_us: u64, looking: Looking) -> Seen {
        let not_found = match looking {
            Looking::Allowed => Seen::Invalid(Method::ApiKey),
            Looking::RememberedOnly => Seen::NotLookedAt,
        };
        let Some(lookups) = self
            .lookups
            .as_ref()
            .filter(|_| generated_key::is_well_formed(key))
        else {
            return not_found;
        };
        let digest = digest(key);
        match lookups.directory.recall_key(&digest, now_us) {
            Recalled::Known(record) => Seen::Known(self.proven_by(&record, digest, now_us)),
            Recalled::Absent => not_found,
            // what was valid before counts, also where the database would be asked again
            Recalled::Unknown if looking == Looking::RememberedOnly => {
                match lookups.directory.recall_old_key(&digest, now_us) {
                    Recalled::Known(record) => Seen::Known(self.proven_by(&record, digest, now_us)),
                    Recalled::Absent | Recalled::Unknown => Seen::NotLookedAt,
                }
            }
            Recalled::Unknown => Seen::Unknown(Lookup::Key(digest)),
        }
    }

    /// Asks the database for a key; if it takes too long, what was known before holds.
    pub(super) async fn find_key(
        &self,
        digest: Digest,
        now_us: u64,
        patience: Duration,
    ) -> Result<Proven, Unfound> {
        let Some(Lookups { directory, .. }) = self.lookups.as_deref() else {
            return Err(Unfound::Invalid);
        };
        let found = tokio::time::timeout(patience, directory.find_key(digest, now_us)).await;
        let recalled = match found {
            Ok(Ok(Some(record))) => Recalled::Known(record),
            Ok(Ok(None)) => Recalled::Absent,
            Ok(Err(why)) => return Err(Unfound::Unavailable(why.into())),
            Err(_) => directory.recall_old_key(&digest, now_us),
        };
        match recalled {
            Recalled::Known(record) => Ok(self.proven_by(&record, digest, now_us)),
            Recalled::Absent => Err(Unfound::Invalid),
            Recalled::Unknown => Err(Unfound::Unavailable(Unavailable::TimedOut)),
        }
    }

    fn proven_by(&self, record: &KeyRecord, digest: Digest, now_us: u64) -> Proven {
        let known = self
            .lookups
            .as_ref()
            .and_then(|lookups| lookups.clients.get(&digest));
        // a key of the database may be that of a client of the file
        let written = self.clients.get(&record.client);
        let of_file = written.and_then(|client| client.tier.as_deref());
        let tier = record.tier.as_deref().or(of_file);
        let same = |client: &Arc<Client>| {
            client.id == record.client
                && client.scopes() == record.scopes
                && client.tier.as_ref() == tier.and_then(|tier| self.tiers.named(tier))
        };
        let client = known.filter(same).unwrap_or_else(|| {
            let tier = self.existing(&record.client, tier, now_us);
            let client = Client::new(&record.client, tier);
            let client = Arc::new(client.with_scopes(record.scopes.clone()));
            if let Some(lookups) = &self.lookups {
                lookups.clients.put(digest, client.clone());
            }
            client
        });
        Proven {
            method: Method::ApiKey,
            client,
            token: None,
        }
    }

    /// The database's word on the tier of a client that a token or a password proves.
    pub(super) fn with_directory_tier(&self, seen: Seen, now_us: u64, looking: Looking) -> Seen {
        let (Seen::Known(proven), Some(lookups)) = (&seen, &self.lookups) else {
            return seen;
        };
        let recalled = match lookups.directory.recall_client(&proven.client.id, now_us) {
            // nothing is looked up for an address under guard
            Recalled::Unknown if looking == Looking::RememberedOnly => lookups
                .directory
                .recall_old_client(&proven.client.id, now_us),
            recalled => recalled,
        };
        match (recalled, seen) {
            (Recalled::Known(record), Seen::Known(proven)) => {
                Seen::Known(self.with_tier_of(proven, &record, now_us))
            }
            (Recalled::Unknown, Seen::Known(proven)) if looking == Looking::Allowed => {
                Seen::Unknown(Lookup::Client(proven))
            }
            (_, seen) => seen,
        }
    }

    /// Asks the database for a client's tier. Who it is has been proven: if the database is away, too
    /// busy or too slow, what was known before holds, or else what the credential says.
    pub(super) async fn find_tier(
        &self,
        proven: Proven,
        now_us: u64,
        patience: Duration,
    ) -> Proven {
        let Some(Lookups { directory, .. }) = self.lookups.as_deref() else {
            return proven;
        };
        let id = &proven.client.id;
        let found = tokio::time::timeout(patience, directory.find_client(id, now_us)).await;
        let record = match found {
            Ok(Ok(record)) => record,
            // nothing older is known either
            Ok(Err(_)) => None,
            Err(_) => match directory.recall_old_client(id, now_us) {
                Recalled::Known(record) => Some(record),
                Recalled::Absent | Recalled::Unknown => None,
            },
        };
        match record {
            Some(record) => self.with_tier_of(proven, &record, now_us),
            None => proven,
        }
    }

    /// A client that `forward_auth` names, with the tier the database has for it; nothing: the database
    /// must be asked.
    pub fn recall_named(&self, client: &Arc<Client>, now_us: u64) -> Option<Arc<Client>> {
        let seen = Seen::Known(named(client.clone()));
        match self.with_directory_tier(seen, now_us, Looking::Allowed) {
            Seen::Known(proven) => Some(proven.client),
            _ => None,
        }
    }

    /// The same, asking the database if need be.
    pub async fn find_named(&self, client: &Arc<Client>, clock: &Clock) -> Arc<Client> {
        let patience = Deadline::new(self.timeout, clock).patience();
        let proven = named(client.clone());
        let found = self.find_tier(proven, clock.now_us(), patience);
        found.await.client
    }

    fn with_tier_of(&self, proven: Proven, record: &ClientRecord, now_us: u64) -> Proven {
        let (Some(tier), Some(lookups)) = (record.tier.as_deref(), &self.lookups) else {
            return proven;
        };
        if proven.client.tier.as_deref() == Some(tier) {
            return proven;
        }
        let mut hash = Sha256::new();
        hash.update((record.id.len() as u64).to_le_bytes());
        hash.update(&record.id);
        hash.update(tier);
        let digest: Digest = hash.finalize().into();
        let client = lookups.clients.get(&digest).unwrap_or_else(|| {
            let tier = self.existing(&record.id, Some(tier), now_us);
            let client = Arc::new(Client::new(&record.id, tier));
            lookups.clients.put(digest, client.clone());
            client
        });
        Proven { client, ..proven }
    }
}

fn named(client: Arc<Client>) -> Proven {
    Proven {
        method: Method::ForwardAuth,
        client,
        token: None,
    }
}
