//! What differs between kinds of documents: their names and their SQL.

use super::failure::DatabaseError;
use super::resources::Kind;

/// A statement and how many of (name, document, who writes) it takes.
type Statement = (&'static str, usize);

const PUT_POLICY: &[Statement] = &[
    (include_str!("../../sql/queries/put_policy.sql"), 3),
    (include_str!("../../sql/queries/clear_policy_tiers.sql"), 1),
    (include_str!("../../sql/queries/put_policy_tiers.sql"), 2),
    (
        include_str!("../../sql/queries/clear_policy_overrides.sql"),
        1,
    ),
    (
        include_str!("../../sql/queries/put_policy_overrides.sql"),
        2,
    ),
];
const PUT_TIER: &[Statement] = &[(include_str!("../../sql/queries/put_tier.sql"), 3)];
const PUT_CLIENT: &[Statement] = &[(include_str!("../../sql/queries/put_client.sql"), 3)];
const PUT_ROUTE_SETTINGS: &[Statement] =
    &[(include_str!("../../sql/queries/put_route_settings.sql"), 3)];

/// The longest name of anything but a client.
const MAX_NAME: usize = 63;
const MAX_CLIENT_ID: usize = 128;

impl Kind {
    const ALL: [Kind; 4] = [Kind::Policy, Kind::Tier, Kind::Client, Kind::RouteSettings];

    /// Its name in revisions.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Policy => "policy",
            Kind::Tier => "tier",
            Kind::Client => "client",
            Kind::RouteSettings => "route_settings",
        }
    }

    /// The kind of this name in revisions.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name in sentences.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Kind::RouteSettings => "settings of route",
            other => other.name(),
        }
    }

    /// Reads documents: name or none, names after, at most so many.
    pub(super) fn select(self) -> &'static str {
        match self {
            Kind::Policy => include_str!("../../sql/queries/policies.sql"),
            Kind::Tier => include_str!("../../sql/queries/tiers.sql"),
            Kind::Client => include_str!("../../sql/queries/clients.sql"),
            Kind::RouteSettings => include_str!("../../sql/queries/route_settings.sql"),
        }
    }

    /// Writes a document, in this order.
    pub(super) fn put(self) -> &'static [Statement] {
        match self {
            Kind::Policy => PUT_POLICY,
            Kind::Tier => PUT_TIER,
            Kind::Client => PUT_CLIENT,
            Kind::RouteSettings => PUT_ROUTE_SETTINGS,
        }
    }

    /// Deletes a document by name.
    pub(super) fn delete(self) -> &'static str {
        match self {
            Kind::Policy => include_str!("../../sql/queries/delete_policy.sql"),
            Kind::Tier => include_str!("../../sql/queries/delete_tier.sql"),
            Kind::Client => include_str!("../../sql/queries/delete_client.sql"),
            Kind::RouteSettings => include_str!("../../sql/queries/delete_route_settings.sql"),
        }
    }

    /// Is it a name that the database takes? The same rules as in the file.
    pub(super) fn check_name(self, name: &str) -> Result<(), DatabaseError> {
        let (fits, hint) = match self {
            Kind::Client => (
                is_client_id(name),
                "1 to 128 visible ASCII characters without spaces",
            ),
            _ => (
                is_name(name),
                "1 to 63 of `a-z 0-9 _ -`, starting with a letter or digit",
            ),
        };
        if fits {
            return Ok(());
        }
        let shown: String = name.chars().take(MAX_CLIENT_ID).collect();
        Err(DatabaseError::Invalid(format!(
            "{shown:?} is no name of a {}: write {hint}",
            self.name()
        )))
    }
}

fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    name.len() <= MAX_NAME
        && name.bytes().all(fits)
        && name.bytes().next().is_some_and(|b| b != b'_' && b != b'-')
}

pub(super) fn is_client_id(id: &str) -> bool {
    (1..=MAX_CLIENT_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_file() {
        for (name, fits) in [
            ("a", true),
            ("0-_", true),
            ("", false),
            ("-a", false),
            ("A", false),
            ("a b", false),
            ("a'; DROP TABLE tiers; --", false),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(Kind::Policy.check_name(name).is_ok(), fits, "{name}");
        }
        assert!(Kind::Client.check_name("O'Brien;--").is_ok());
        assert!(Kind::Client.check_name("é").is_err());
    }

    #[test]
    fn kinds_are_found_by_the_names_in_revisions() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("key"), None);
    }
}
