//! The swarm's own random key, and the fingerprints made with it.
//!
//! A bare hash of a short password can be guessed, and fingerprints stand in labels that many may read. So everything that is
//! derived from a secret's content or from a spec (which may hold passwords in its environment) is an HMAC under a random key
//! that lives in the swarm config [`KEY_CONFIG`], readable by managers only.

use std::fmt;
use std::io::Read;

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

/// The swarm config that holds the key.
pub const KEY_CONFIG: &str = "swarmkeeper-key";

/// Length of the key.
const KEY_BYTES: usize = 32;

/// Hexadecimal digits of a fingerprint: 80 bits, plenty against chance, short enough for labels.
const FINGERPRINT_DIGITS: usize = 20;

/// Hexadecimal digits behind the name of a changed secret or config.
const NAME_DIGITS: usize = 8;

/// The key. It prints as `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Key([u8; KEY_BYTES]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// A new key from the kernel.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// As the config's content holds it.
    pub fn encode(&self) -> Vec<u8> {
        hex::encode(self.0).into_bytes()
    }

    /// From the config's content.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let bytes = hex::decode(content.trim_ascii()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// A fingerprint of anything that serialises in a stable order.
    pub fn fingerprint(&self, purpose: &str, value: &impl Serialize) -> String {
        // Serialising plain data into memory cannot fail; should it ever, equal failures compare equal.
        let text = serde_json::to_vec(value).unwrap_or_default();
        self.digits(purpose, &[&text], FINGERPRINT_DIGITS)
    }

    /// A fingerprint of an object's content; `about` holds what else makes it another object, such as its template driver.
    pub fn content(&self, content: &[u8], about: &str) -> String {
        self.digits("content", &[about.as_bytes(), content], FINGERPRINT_DIGITS)
    }

    fn digits(&self, purpose: &str, parts: &[&[u8]], digits: usize) -> String {
        // An HMAC takes a key of any length, so the error cannot happen; the empty text would be a safe answer.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            // Lengths first, so that no two lists of parts run together.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut text = hex::encode(mac.finalize().into_bytes());
        text.truncate(digits);
        text
    }
}

/// `name_<hash8>`: the name of an object whose content has changed.
pub fn hashed_name(name: &str, content: &str) -> String {
    format!("{name}_{}", content.get(..NAME_DIGITS).unwrap_or(content))
}

/// True if `name` is a [`hashed_name`] of `plain`.
pub fn is_hashed_name(name: &str, plain: &str) -> bool {
    let hash = name.strip_prefix(plain).and_then(|rest| rest.strip_prefix('_'));
    hash.is_some_and(|hash| hash.len() == NAME_DIGITS && hash.chars().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_password_has_another_fingerprint_under_another_key() {
        let (ours, theirs) = (Key::random().unwrap(), Key::random().unwrap());
        assert_eq!(ours.content(b"hunter2", ""), ours.content(b"hunter2", ""));
        assert_ne!(ours.content(b"hunter2", ""), theirs.content(b"hunter2", ""));
        assert_ne!(ours.content(b"ab", "c"), ours.content(b"b", "ca"), "parts do not run together");
    }

    #[test]
    fn a_key_survives_its_config_and_prints_as_stars() {
        let key = Key::random().unwrap();
        assert_eq!(Key::decode(&key.encode()), Some(key.clone()));
        assert_eq!(format!("{key:?}"), "***");
        assert_eq!(Key::decode(b"short"), None);
    }

    #[test]
    fn a_hashed_name_is_the_name_and_eight_digits() {
        assert_eq!(hashed_name("shop_db", "5e6f7788990011"), "shop_db_5e6f7788");
        assert!(is_hashed_name("shop_db_5e6f7788", "shop_db"));
        assert!(!is_hashed_name("shop_db_password", "shop_db") && !is_hashed_name("shop_db", "shop_db"));
    }
}
