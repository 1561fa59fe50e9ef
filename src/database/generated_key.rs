//! Keys as Tidegate makes them: `tg_<id>_<secret>`, with a checksum that tells garbage from keys.

use sha2::{Digest, Sha256};
use std::fmt;

/// What every key begins with.
const PREFIX: &[u8] = b"tg_";

/// Characters of an id; 12 of 32 are 60 bits.
const ID: usize = 12;

/// Characters of the secret's random part: 160 bits.
const RANDOM: usize = 32;

/// Characters of the checksum: 30 bits of a SHA-256 of everything before it.
const CHECKSUM: usize = 6;

/// Characters of a whole key.
const LENGTH: usize = PREFIX.len() + ID + 1 + RANDOM + CHECKSUM;

/// Crockford's base 32 in lower case: no `i`, `l`, `o`, `u`, which people misread.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A key that was just made.
pub struct GeneratedKey {
    /// the part that may be known
    pub id: String,
    /// the whole key
    pub text: String,
}

impl fmt::Debug for GeneratedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratedKey")
            .field("id", &self.id)
            .field("text", &"***")
            .finish()
    }
}

/// Makes a key from the randomness of the operating system; fails where there is none.
pub fn generate() -> Result<GeneratedKey, String> {
    let mut random = [0; ID + RANDOM];
    getrandom::fill(&mut random)
        .map_err(|error| format!("the operating system has no randomness: {error}"))?;
    let letters: String = random.iter().map(|&byte| letter(byte.into())).collect();
    let (id, secret) = letters.split_at(ID);
    let mut text = format!("tg_{id}_{secret}");
    text.extend(checksum(text.as_bytes()));
    Ok(GeneratedKey {
        id: id.to_owned(),
        text,
    })
}

/// Could it be a key of ours? Garbage never reaches the database.
pub fn is_well_formed(text: &[u8]) -> bool {
    if text.len() != LENGTH {
        return false;
    }
    let (body, sum) = text.split_at(LENGTH - CHECKSUM);
    let Some(rest) = body.strip_prefix(PREFIX) else {
        return false;
    };
    let (id, secret) = rest.split_at(ID);
    let Some(secret) = secret.strip_prefix(b"_") else {
        return false;
    };
    let fits = |part: &[u8]| part.iter().all(|byte| ALPHABET.contains(byte));
    fits(id) && fits(secret) && checksum(body).eq(sum.iter().map(|&byte| char::from(byte)))
}

/// The SHA-256 of a key's whole text: what is stored and looked up.
pub fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn checksum(body: &[u8]) -> impl Iterator<Item = char> + use<> {
    let digest = digest(body);
    let bits = digest
        .iter()
        .take(8)
        .fold(0_u64, |bits, &byte| (bits << 8) | u64::from(byte));
    (0..CHECKSUM).map(move |place| letter((bits >> (5 * place)) as usize))
}

/// Five bits as a letter.
fn letter(bits: usize) -> char {
    ALPHABET.get(bits % 32).map_or('0', |&byte| byte.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_well_formed_and_never_the_same() {
        let one = generate().unwrap();
        let other = generate().unwrap();
        assert!(is_well_formed(one.text.as_bytes()), "{}", one.text);
        assert!(one.text.starts_with(&format!("tg_{}_", one.id)));
        assert_eq!((one.id.len(), one.text.len()), (12, 54));
        assert!(one.text != other.text && one.id != other.id);
        assert!(!format!("{one:?}").contains(&one.text));
    }

    #[test]
    fn a_changed_character_anywhere_is_noticed() {
        let key = generate().unwrap().text.into_bytes();
        for place in 0..key.len() {
            for byte in [b'0', b'z', b'_', 0, 0xff] {
                let mut garbled = key.clone();
                if std::mem::replace(&mut garbled[place], byte) != byte {
                    assert!(!is_well_formed(&garbled), "{place} {byte}");
                }
            }
        }
        assert!(!is_well_formed(&key[1..]) && !is_well_formed(b""));
        assert!(!is_well_formed(&[key.as_slice(), b"0"].concat()));
        assert!(!is_well_formed(&key.to_ascii_uppercase()));
    }
}
