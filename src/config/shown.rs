//! The configuration as it may be shown: in the file's shape, every default written out, secrets masked.

use std::sync::Arc;

use serde_json::Value;

use super::check_shape::check_shape;
use super::load::shape;
use super::locator::Locator;
use super::overlay::Overlaid;
use super::place::{Step, path_text};
use super::problem::Report;
use super::raw;

/// A configuration, kept to be shown.
#[derive(Debug, Clone)]
pub struct Shown {
    locator: Arc<Locator>,
    overlaid: Arc<Overlaid>,
}

impl Shown {
    pub(super) fn new(locator: Arc<Locator>, overlaid: Arc<Overlaid>) -> Shown {
        Shown { locator, overlaid }
    }

    /// All of it. Made anew at each call: it is rarely asked for and may be large.
    pub fn json(&self) -> Value {
        // the same steps as when it was loaded, so there is nothing new to report
        let mut report = Report::new("");
        let value = check_shape(self.locator.root(), shape(), &mut report);
        let raw = serde_yaml::from_value::<raw::Config>(value).ok();
        raw.and_then(|raw| serde_json::to_value(raw).ok())
            .unwrap_or_default()
    }

    /// Does what stands at this path come from the database?
    pub fn is_row(&self, path: &[Step<'_>]) -> bool {
        self.overlaid.has(&path_text(path))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{environment, with_route};

    #[test]
    fn defaults_are_written_out_and_secrets_are_not() {
        let text = with_route(
            "admin: { token: top-secret }\nstore: { redis: { url: \"redis://me:hush@10.0.0.1:6379/2\" } }\n\
             clients: { acme: { api_keys: [{ plain: plain-key-of-acme }] } }\n\
             auth: { jwt: { issuer: i, audience: a, algorithms: [HS256], keys: [{ secret: signing-key-0123456789-0123456789 }] } }\n\
             database: { url: \"postgres://me:whisper@127.0.0.1/tide\" }\n",
        );
        let loaded = crate::config::parse(&text, "f", &environment()).unwrap();
        let shown = loaded.shown().json();
        assert_eq!(shown["admin"]["token"], "***");
        assert_eq!(shown["admin"]["address"], "127.0.0.1:9180");
        assert_eq!(
            shown["store"]["redis"]["url"],
            "redis://***@10.0.0.1:6379/2"
        );
        assert_eq!(shown["clients"]["acme"]["api_keys"][0]["plain"], "***");
        assert_eq!(shown["server"]["grace_period"], "30s");
        for secret in ["top-secret", "hush", "plain-key", "signing-key", "whisper"] {
            assert!(!shown.to_string().contains(secret), "{secret}");
        }
    }
}
