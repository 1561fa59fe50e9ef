//! apr1, Apache's variant of the MD5 crypt of FreeBSD: what htpasswd writes unless told otherwise.
//!
//! After `apr_md5_encode` in APR (crypto/apr_md5.c): MD5 a thousand times over password and salt.

use md5::{Digest, Md5};

const MAGIC: &[u8] = b"$apr1$";
const ROUNDS: u32 = 1_000;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The longest salt that counts.
pub(super) const MAX_SALT: usize = 8;

/// The characters after the salt.
pub(super) const TEXT_LENGTH: usize = 22;

/// The hash of a password as htpasswd writes it after `$apr1$salt$`.
pub(super) fn hash(password: &[u8], salt: &[u8]) -> String {
    let inner = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut outer = Md5::new()
        .chain_update(password)
        .chain_update(MAGIC)
        .chain_update(salt);
    for at in (0..password.len()).step_by(16) {
        let length = (password.len() - at).min(16);
        outer.update(inner.get(..length).unwrap_or_default());
    }
    let mut bits = password.len();
    while bits > 0 {
        match bits & 1 {
            1 => outer.update([0]),
            _ => outer.update(password.get(..1).unwrap_or_default()),
        }
        bits >>= 1;
    }
    let mut digest: [u8; 16] = outer.finalize().into();
    for round in 0..ROUNDS {
        let mut next = Md5::new();
        let odd = round & 1 == 1;
        next.update(if odd { password } else { &digest });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &digest } else { password });
        digest = next.finalize().into();
    }
    text(&digest)
}

/// The digest in the order and the base 64 of crypt.
fn text(digest: &[u8; 16]) -> String {
    const GROUPS: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let mut text = String::with_capacity(TEXT_LENGTH);
    let mut put = |mut value: u32, characters: usize| {
        for _ in 0..characters {
            text.push(char::from(ALPHABET[(value & 63) as usize]));
            value >>= 6;
        }
    };
    for [high, middle, low] in GROUPS {
        let value = [digest[high], digest[middle], digest[low]];
        put(u32::from_be_bytes([0, value[0], value[1], value[2]]), 4);
    }
    put(u32::from(digest[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_openssl() {
        // openssl passwd -apr1 -salt SALT PASSWORD
        for (password, salt, text) in VECTORS {
            assert_eq!(
                hash(password.as_bytes(), salt.as_bytes()),
                text,
                "{password}"
            );
        }
    }

    const VECTORS: [(&str, &str, &str); 5] = [
        ("", "saltsalt", "a8ml/vK5HEjiZ5oypDWA7/"),
        ("p", "a", "ynJhQ3NY093p7lWegQT8O1"),
        ("password", "r31.....", "ARC3pREO82RIm0aQ2zszC0"),
        (
            "a password of more than sixteen bytes",
            "xxxxxxxx",
            "A2EPZmk/NvGXS.JjzVoVj.",
        ),
        ("päss", "abcd", "DIhvUDMOjHqbCNOILRvKy."),
    ];
}
