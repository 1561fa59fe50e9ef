//! A file of names and hashed passwords, as htpasswd writes it.

use super::apr1;
use crate::auth::jwt::is_client_id;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use sha1::{Digest, Sha1};
use std::collections::HashMap;
use subtle::ConstantTimeEq;

/// The most a hash may cost: bcrypt's exponent, rounds of SHA crypt. More would block a thread for
/// seconds at every first sight of a password.
const MAX_BCRYPT_COST: u32 = 16;
const MAX_SHA_CRYPT_ROUNDS: u32 = 1_000_000;

/// Users by name.
pub(super) struct Htpasswd {
    users: HashMap<String, Hash>,
    /// what the password of somebody unknown is compared with
    decoy: Hash,
}

/// A line that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) line: usize,
    pub(super) message: String,
}

#[derive(Clone)]
enum Hash {
    Bcrypt(String),
    Sha512Or256Crypt(String),
    Apr1 { salt: String, text: String },
    Sha1([u8; 20]),
}

impl Htpasswd {
    /// Reads a file's text; every line that is wrong at once.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<BadLine>> {
        let mut users = HashMap::new();
        let mut bad = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = user(line).and_then(|(name, hash)| match users.contains_key(name) {
                true => Err(format!("`{name}` has a line already")),
                false => Ok((name.to_owned(), hash)),
            });
            match entry {
                Ok((name, hash)) => drop(users.insert(name, hash)),
                Err(message) => bad.push(BadLine {
                    line: index + 1,
                    message,
                }),
            }
        }
        let costliest = users.values().max_by_key(|hash: &&Hash| hash.cost());
        let decoy = costliest.cloned().unwrap_or(Hash::Sha1([0; 20]));
        match bad.is_empty() {
            true => Ok(Htpasswd { users, decoy }),
            false => Err(bad),
        }
    }

    /// Is this the password of that user? Takes milliseconds; for somebody unknown as long as for
    /// the one whose hash costs most.
    pub(super) fn verify(&self, name: &str, password: &str) -> bool {
        match self.users.get(name) {
            Some(hash) => hash.verify(password),
            None => {
                std::hint::black_box(self.decoy.verify(password));
                false
            }
        }
    }
}

/// A line `name:hash`, perhaps with more fields.
fn user(line: &str) -> Result<(&str, Hash), String> {
    let Some((name, rest)) = line.split_once(':') else {
        return Err("there is no `:` between name and hash".to_owned());
    };
    if !is_client_id(name) {
        return Err("the name is not 1 to 128 visible ASCII characters".to_owned());
    }
    let hash = rest.split(':').next().unwrap_or_default();
    Ok((name, Hash::parse(hash)?))
}

impl Hash {
    fn parse(text: &str) -> Result<Hash, String> {
        if text.starts_with("$2") {
            let parts: Result<bcrypt::HashParts, _> = text.parse();
            return match parts.map(|parts| parts.get_cost()) {
                Ok(cost) if cost <= MAX_BCRYPT_COST => Ok(Hash::Bcrypt(text.to_owned())),
                Ok(cost) => Err(format!(
                    "bcrypt with cost {cost} takes too long; write at most {MAX_BCRYPT_COST}"
                )),
                Err(_) => Err("this is no hash of bcrypt".to_owned()),
            };
        }
        if text.starts_with("$5$") || text.starts_with("$6$") {
            return sha_crypt(text);
        }
        if let Some(rest) = text.strip_prefix("$apr1$") {
            return match rest.split_once('$') {
                Some((salt, text))
                    if salt.len() <= apr1::MAX_SALT && text.len() == apr1::TEXT_LENGTH =>
                {
                    Ok(Hash::Apr1 {
                        salt: salt.to_owned(),
                        text: text.to_owned(),
                    })
                }
                _ => Err("this is no hash of apr1".to_owned()),
            };
        }
        if let Some(encoded) = text.strip_prefix("{SHA}") {
            let bytes = STANDARD.decode(encoded).ok();
            let digest = bytes.and_then(|bytes| bytes.try_into().ok());
            return digest
                .map(Hash::Sha1)
                .ok_or("this is no SHA-1 in base 64".to_owned());
        }
        // may be a password in plain text: never repeated
        Err("this kind of hash is not supported: use bcrypt (`htpasswd -B`), apr1, {SHA}, or SHA-256 and SHA-512 crypt".to_owned())
    }

    fn verify(&self, password: &str) -> bool {
        match self {
            Hash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Hash::Sha512Or256Crypt(hash) => ShaCrypt::default()
                .verify_password(password.as_bytes(), hash.as_str())
                .is_ok(),
            Hash::Apr1 { salt, text } => {
                let found = apr1::hash(password.as_bytes(), salt.as_bytes());
                found.as_bytes().ct_eq(text.as_bytes()).into()
            }
            Hash::Sha1(digest) => {
                let found: [u8; 20] = Sha1::digest(password).into();
                found.ct_eq(digest).into()
            }
        }
    }

    /// About how long it takes, to find the one that takes longest.
    fn cost(&self) -> u32 {
        match self {
            Hash::Bcrypt(hash) => {
                let parts: Result<bcrypt::HashParts, _> = hash.parse();
                100 + parts.map_or(0, |parts| parts.get_cost())
            }
            Hash::Sha512Or256Crypt(_) => 3,
            Hash::Apr1 { .. } => 2,
            Hash::Sha1(_) => 1,
        }
    }
}

/// `$6$rounds=5000$salt$hash`; the number of rounds may be absent.
fn sha_crypt(text: &str) -> Result<Hash, String> {
    let fields: Vec<&str> = text.split('$').skip(2).collect();
    let rounds = fields
        .first()
        .and_then(|field| field.strip_prefix("rounds="));
    let length = if text.starts_with("$5$") { 43 } else { 86 };
    let complete = fields.len() == 2 + usize::from(rounds.is_some())
        && fields.last().is_some_and(|hash| hash.len() == length);
    if !complete {
        return Err("this is no hash of SHA crypt".to_owned());
    }
    match rounds.map(str::parse::<u32>) {
        None => Ok(Hash::Sha512Or256Crypt(text.to_owned())),
        Some(Ok(rounds)) if (1_000..=MAX_SHA_CRYPT_ROUNDS).contains(&rounds) => {
            Ok(Hash::Sha512Or256Crypt(text.to_owned()))
        }
        Some(_) => Err(format!(
            "the number of rounds is not 1000 to {MAX_SHA_CRYPT_ROUNDS}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of `open sesame`; made with openssl passwd and crypt(3).
    const FILE: &str = "# comment\n\
        bcrypt:$2b$04$Vgj5su0gi1DptC8Fz9OnEu.JWRwY18vg.8iGj3KtH8LL8X6OaW.3a\n\
        apache:$2y$04$Vgj5su0gi1DptC8Fz9OnEu.JWRwY18vg.8iGj3KtH8LL8X6OaW.3a\n\
        \n\
        apr1:$apr1$abcdefgh$T64oOxnD8c28.dQa.2Lty1\n\
        sha1:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=\r\n\
        sha256:$5$abcdefgh$FWXdh6oXOJQkX7oAcP02d0Gnxjct6ra8Fwv29U9RIN2\n\
        sha512:$6$abcdefgh$CkjGkP7IIgZVUCNlt.Vi53LOYJLXZ5KzdpzEYCj01XGruA1hxZYJqccTU2zz68oJwAGsd1iPty5F7dHIatUTy/:gecos\n";

    #[test]
    fn every_kind_of_hash_is_verified() {
        let file = Htpasswd::parse(FILE).unwrap_or_else(|e| panic!("{e:?}"));
        for name in ["bcrypt", "apache", "apr1", "sha1", "sha256", "sha512"] {
            assert!(file.verify(name, "open sesame"), "{name}");
            for wrong in [
                "",
                "open sesam",
                "open sesame ",
                "Open sesame",
                "open\0sesame",
            ] {
                assert!(!file.verify(name, wrong), "{name} {wrong:?}");
            }
        }
        assert!(!file.verify("nobody", "open sesame"));
        assert!(matches!(file.decoy, Hash::Bcrypt(_)));
    }

    #[test]
    fn long_passwords_do_no_harm() {
        let file = Htpasswd::parse(FILE).unwrap_or_else(|e| panic!("{e:?}"));
        for name in ["bcrypt", "apr1", "sha1", "sha256", "sha512", "nobody"] {
            assert!(!file.verify(name, &"x".repeat(1_024)));
        }
    }

    #[test]
    fn lines_that_cannot_be_used_are_all_named_and_never_repeated() {
        let text = "ok:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=\nplain:hunter2\nnobody\n:x\nok:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=\n\
            yes:$y$j9T$abc$def\ndes:rqXexS6ZhobKA\nc:$2y$31$Vgj5su0gi1DptC8Fz9OnEu.JWRwY18vg.8iGj3KtH8LL8X6OaW.3a\n\
            d:$6$rounds=999999999$a$b\ne:$2y$10$short\nf:$apr1$toolongsalt$x\ng:{SHA}x\nh:$6$abc\n";
        let bad = Htpasswd::parse(text).err().unwrap();
        let lines: Vec<usize> = bad.iter().map(|bad| bad.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert!(!format!("{bad:?}").contains("hunter2"));
    }

    #[test]
    fn an_empty_file_lets_nobody_in() {
        let file = Htpasswd::parse("").unwrap_or_else(|e| panic!("{e:?}"));
        assert!(!file.verify("", "") && !file.verify("a", ""));
    }
}
