//! Which ssh hosts are known, from OpenSSH's `known_hosts` format. Pure.
//!
//! libgit2 itself knows `$HOME/.ssh/known_hosts` only, which a container has not. Read here: plain names, `[name]:port`, `*` and `?`,
//! `!` and `@revoked`. Hashed names (`|1|…`) are passed over and counted, for they would need SHA-1 for nothing that `ssh-keyscan HOST`
//! does not give; so is `@cert-authority`, which libssh2 cannot use.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

/// A key that a host has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostKey {
    /// The host as the URL names it.
    pub host: String,
    /// 22 unless the URL says otherwise.
    pub port: u16,
    /// The key in ssh's wire format.
    pub key: Vec<u8>,
}

impl HostKey {
    /// Such as `ssh-ed25519`: the first string of the wire format.
    pub fn kind(&self) -> &str {
        let name = self.key.split_first_chunk::<4>().and_then(|(length, rest)| {
            rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
                .and_then(|name| std::str::from_utf8(name).ok())
        });
        name.unwrap_or("unknown")
    }

    /// As `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&self.key)))
    }

    /// The line that makes it known.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.name(), self.kind(), STANDARD.encode(&self.key))
    }

    fn name(&self) -> String {
        if self.port == 22 { self.host.clone() } else { format!("[{}]:{}", self.host, self.port) }
    }
}

/// What a `known_hosts` says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the host's.
    Known,
    /// The host is known by another key of the same kind: somebody may be in between.
    Changed,
    /// The key is marked `@revoked`.
    Revoked,
    /// Nothing is said about the host.
    Unknown {
        /// Kinds of key by which the host is known, if any.
        other_kinds: Vec<String>,
        /// Lines with hashed names, which may or may not be about it.
        hashed: usize,
    },
}

/// Looks `shown` up in `text`.
pub(super) fn look_up(text: &str, shown: &HostKey) -> Verdict {
    let encoded = STANDARD.encode(&shown.key);
    let (mut known, mut changed, mut hashed, mut other_kinds) = (false, false, 0, Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split_whitespace().peekable();
        let marker = fields.next_if(|field| field.starts_with('@'));
        let (Some(hosts), Some(kind), Some(key)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if hosts.starts_with('|') {
            hashed += 1;
            continue;
        }
        if !names(hosts, &shown.name()) {
            continue;
        }
        match marker {
            Some("@revoked") if key == encoded => return Verdict::Revoked,
            Some(_) => {}
            None if key == encoded => known = true,
            None if kind == shown.kind() => changed = true,
            None => other_kinds.push(kind.to_owned()),
        }
    }
    match (known, changed) {
        (true, _) => Verdict::Known,
        (false, true) => Verdict::Changed,
        (false, false) => Verdict::Unknown { other_kinds, hashed },
    }
}

/// True if a comma list of patterns names `host`; a `!` pattern that does so excludes it.
fn names(patterns: &str, host: &str) -> bool {
    let mut named = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(excluded) if matches(excluded, host) => return false,
            Some(_) => {}
            None => named |= matches(pattern, host),
        }
    }
    named
}

/// `*` is any text, `?` any character; host names know no case.
fn matches(pattern: &str, host: &str) -> bool {
    fn go(pattern: &[u8], host: &[u8]) -> bool {
        match (pattern.split_first(), host.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                go(rest, host) || host.split_first().is_some_and(|(_, host_rest)| go(pattern, host_rest))
            }
            (Some((b'?', rest)), Some((_, host_rest))) => go(rest, host_rest),
            (Some((p, rest)), Some((h, host_rest))) => p.eq_ignore_ascii_case(h) && go(rest, host_rest),
            _ => false,
        }
    }
    go(pattern.as_bytes(), host.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(host: &str, port: u16, kind: &str, rest: &[u8]) -> HostKey {
        let mut key = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        key.extend(kind.as_bytes());
        key.extend(rest);
        HostKey { host: host.to_owned(), port, key }
    }

    fn unknown(other_kinds: &[&str], hashed: usize) -> Verdict {
        Verdict::Unknown { other_kinds: other_kinds.iter().map(ToString::to_string).collect(), hashed }
    }

    #[test]
    fn the_line_we_propose_makes_the_host_known() {
        for port in [22, 2222] {
            let key = shown("git.example.com", port, "ssh-ed25519", b"one");
            assert_eq!(look_up("", &key), unknown(&[], 0));
            assert_eq!(look_up(&format!("# comment\n\n{} a comment\n", key.line()), &key), Verdict::Known);
        }
    }

    #[test]
    fn another_port_is_another_host() {
        let key = shown("git.example.com", 22, "ssh-ed25519", b"one");
        let elsewhere = HostKey { port: 2222, ..key.clone() };
        assert_eq!(look_up(&key.line(), &elsewhere), unknown(&[], 0));
    }

    #[test]
    fn a_changed_key_is_told_from_a_key_of_another_kind() {
        let known = shown("h", 22, "ssh-ed25519", b"one").line();
        assert_eq!(look_up(&known, &shown("h", 22, "ssh-ed25519", b"two")), Verdict::Changed);
        assert_eq!(look_up(&known, &shown("h", 22, "ssh-rsa", b"two")), unknown(&["ssh-ed25519"], 0));
    }

    #[test]
    fn patterns_lists_and_exclusions_are_honoured() {
        let key = shown("git.example.com", 22, "ssh-ed25519", b"one");
        let (_, rest) = key.line().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(look_up(&format!("other,GIT.*.com {rest}"), &key), Verdict::Known);
        assert_eq!(look_up(&format!("g?t.example.com {rest}"), &key), Verdict::Known);
        assert_eq!(look_up(&format!("*.example.com,!git.example.com {rest}"), &key), unknown(&[], 0));
        assert_eq!(look_up(&format!("|1|c2FsdA==|aGFzaA== {rest}"), &key), unknown(&[], 1));
    }

    #[test]
    fn a_revoked_key_is_refused_even_where_it_is_known() {
        let key = shown("h", 22, "ssh-ed25519", b"one");
        assert_eq!(look_up(&format!("{}\n@revoked {}", key.line(), key.line()), &key), Verdict::Revoked);
    }

    #[test]
    fn a_key_that_is_cut_short_has_no_kind() {
        let key = HostKey { host: "h".to_owned(), port: 22, key: vec![0, 0, 0, 9, b'x'] };
        assert_eq!(key.kind(), "unknown");
    }
}
