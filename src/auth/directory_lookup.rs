//! Where the database is asked: API keys that the file does not have, and clients' tiers.

use super::pending::{Lookup, Unfound};
use super::recent::{Digest, Recent, digest};
use super::{Authenticator, Client, Looking, Proven, Seen, Unavailable};
use crate::database::{self, ClientRecord, Directory, KeyRecord, Recalled, generated_key};
use crate::telemetry::Method;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// Clients made of records that are remembered, so that a known key costs no allocation.
const MAX_REMEMBERED: usize = 131_072;

/// The database's directory, and the clients made of its records.
pub(super) struct Lookups {
    pub(super) directory: Directory,
    clients: Recent<Arc<Client>>,
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
            Recalled::Unknown if looking == Looking::RememberedOnly => Seen::NotLookedAt,
            Recalled::Unknown => Seen::Unknown(Lookup::Key(digest)),
        }
    }

    /// Asks the database for a key.
    pub(super) async fn find_key(&self, digest: Digest, now_us: u64) -> Result<Proven, Unfound> {
        let Some(lookups) = &self.lookups else {
            return Err(Unfound::Invalid);
        };
        match lookups.directory.find_key(digest, now_us).await {
            Ok(Some(record)) => Ok(self.proven_by(&record, digest, now_us)),
            Ok(None) => Err(Unfound::Invalid),
            Err(why) => Err(Unfound::Unavailable(why.into())),
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
                && client.scopes == record.scopes
                && client.tier.as_deref() == tier.filter(|tier| self.tiers.exists(tier))
        };
        let client = known.filter(same).unwrap_or_else(|| {
            let tier = self.existing(&record.client, tier, now_us);
            let client = Client::new(&record.client, tier.map(str::to_owned));
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
        match lookups.directory.recall_client(&proven.client.id, now_us) {
            Recalled::Known(record) => match seen {
                Seen::Known(proven) => Seen::Known(self.with_tier_of(proven, &record, now_us)),
                other => other,
            },
            // nothing is looked up for an address under guard; what the credential says holds
            Recalled::Absent => seen,
            Recalled::Unknown if looking == Looking::RememberedOnly => seen,
            Recalled::Unknown => match seen {
                Seen::Known(proven) => Seen::Unknown(Lookup::Client(proven)),
                other => other,
            },
        }
    }

    /// Asks the database for a client's tier. While it is away, what the credential says holds.
    pub(super) async fn find_tier(&self, proven: Proven, now_us: u64) -> Result<Proven, Unfound> {
        let Some(lookups) = &self.lookups else {
            return Ok(proven);
        };
        let found = lookups.directory.find_client(&proven.client.id, now_us);
        match found.await {
            Ok(Some(record)) => Ok(self.with_tier_of(proven, &record, now_us)),
            Ok(None) | Err(database::Unavailable::Away) => Ok(proven),
            Err(why) => Err(Unfound::Unavailable(why.into())),
        }
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
            let client = Arc::new(Client::new(&record.id, tier.map(str::to_owned)));
            lookups.clients.put(digest, client.clone());
            client
        });
        Proven { client, ..proven }
    }
}
