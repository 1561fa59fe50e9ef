//! Clients: their tiers exist and no two share an API key.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use super::{Names, Review, no_such_tier};
use crate::config::model::{Client, ClientKey};
use crate::config::place::Place;
use crate::config::raw;

/// Keys shorter than this can be guessed.
const SHORT_KEY_CHARS: usize = 16;

pub(super) fn resolve(
    raw: BTreeMap<String, raw::Client>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) -> BTreeMap<String, Client> {
    let place = Place::ROOT.then("clients");
    let mut owners: HashMap<[u8; 32], String> = HashMap::new();
    let mut clients = BTreeMap::new();
    for (id, raw) in raw {
        let place = place.then(&id);
        if let Some(tier) = raw
            .tier
            .as_deref()
            .filter(|tier| !names.tiers.contains(tier))
        {
            let place = place.then("tier");
            let shown = review.shown(&place);
            no_such_tier(tier, &shown, &place, names, review);
        }
        let place = place.then("api_keys");
        let mut api_keys = Vec::new();
        for (index, key) in raw.api_keys.iter().enumerate() {
            let place = place.then(index);
            let Some(key) = key else { continue };
            let Some(digest) = digest(key, &place, review) else {
                continue;
            };
            match owners.get(&digest) {
                None => {
                    owners.insert(digest, id.clone());
                }
                Some(owner) if *owner == id => {
                    review.error(
                        &place,
                        "this client has the same key twice",
                        "remove one of the two",
                    );
                }
                Some(owner) => {
                    let message = format!("client `{owner}` has the same key");
                    review.error(
                        &place,
                        message,
                        "a key identifies one client: give each its own",
                    );
                }
            }
            let scopes = key.scopes.iter().flatten();
            api_keys.push(ClientKey {
                digest,
                scopes: scopes.map(|scope| scope.value.0.clone()).collect(),
            });
        }
        clients.insert(
            id,
            Client {
                tier: raw.tier,
                api_keys,
            },
        );
    }
    clients
}

fn digest(key: &raw::ClientKey, place: &Place<'_>, review: &mut Review<'_>) -> Option<[u8; 32]> {
    let empty: [u8; 32] = Sha256::digest(b"").into();
    match (&key.sha256, &key.plain) {
        (Some(_), Some(_)) => {
            review.error(
                place,
                "both `sha256` and `plain` are given",
                "keep `sha256`",
            );
            None
        }
        (None, None) => {
            review.error(
                place,
                "no key is given",
                "write `sha256: <hex of the key>` or, for development, `plain: <key>`",
            );
            None
        }
        (Some(digest), None) => {
            if digest.value.0 == empty {
                let hint = "the variable was probably unset when it was computed: make a key and hash it again";
                review.warning(
                    &place.then("sha256"),
                    "this is the SHA-256 of nothing",
                    hint,
                );
            }
            Some(digest.value.0)
        }
        (None, Some(plain)) => {
            let place = place.then("plain");
            let text = plain.value.0.expose();
            if text.len() < SHORT_KEY_CHARS {
                let hint =
                    "use a random key of 20 characters or more; `openssl rand -hex 20` makes one";
                let message = format!(
                    "a plain key with fewer than {SHORT_KEY_CHARS} characters can be guessed"
                );
                review.warning(&place, message, hint);
            } else {
                let hint = "write `sha256:` with the output of `printf %s \"$KEY\" | sha256sum`";
                review.warning(&place, "the key is readable in this file", hint);
            }
            Some(Sha256::digest(text).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{errors, loaded, problems};

    #[test]
    fn a_key_belongs_to_one_client_also_when_one_gives_its_hash() {
        let hash: String = Sha256::digest("a-plain-key-of-some-length")
            .iter()
            .map(|b| format!("{b:02X}"))
            .collect();
        let text = format!(
            "clients:\n  a: {{ api_keys: [plain: a-plain-key-of-some-length] }}\n  b: {{ api_keys: [sha256: {hash}] }}\n"
        );
        assert_eq!(
            errors(&text),
            ["3:19 clients.b.api_keys[0]: client `a` has the same key"]
        );
        let twice = format!("clients: {{ a: {{ api_keys: [sha256: {hash}, sha256: {hash}] }} }}");
        assert!(errors(&twice)[0].ends_with("this client has the same key twice"));
    }

    #[test]
    fn a_key_is_given_in_exactly_one_way() {
        assert_eq!(
            errors("clients: { a: { api_keys: [{}, { plain: null }] } }"),
            [
                "1:28 clients.a.api_keys[0]: no key is given",
                "1:32 clients.a.api_keys[1]: no key is given"
            ]
        );
        let both = format!(
            "clients: {{ a: {{ api_keys: [{{ plain: x, sha256: {} }}] }} }}",
            "0".repeat(64)
        );
        assert!(errors(&both)[0].ends_with("both `sha256` and `plain` are given"));
    }

    #[test]
    fn plain_short_and_empty_keys_draw_warnings() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let text = format!(
            "clients:\n  a:\n    api_keys:\n    - plain: short\n    - plain: long-enough-to-be-safe\n    - sha256: {nothing}\n"
        );
        let found = problems(&text);
        assert!(
            found[0].starts_with("4:14: warning: ")
                && found[0].contains("fewer than 16 characters"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("5:14: warning: ") && found[1].contains("readable"),
            "{found:?}"
        );
        assert!(
            found[2].starts_with("6:15: warning: ") && found[2].contains("SHA-256 of nothing"),
            "{found:?}"
        );
        let expected: [u8; 32] = Sha256::digest("short").into();
        assert_eq!(
            loaded(&text).config.clients["a"].api_keys[0].digest,
            expected
        );
    }

    #[test]
    fn a_tier_must_exist() {
        assert_eq!(
            problems("tiers: { free: {} }\nclients:\n  a: { tier: fre }\n"),
            ["3:14: clients.a.tier: there is no tier `fre`; hint: did you mean `free`?"]
        );
        assert!(problems("clients: { a: { tier: x } }")[0].ends_with("hint: `tiers` defines none"));
    }
}
