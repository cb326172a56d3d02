//! Where the repo is, told apart from the secrets that people put into URLs.

use super::{Credentials, Error};
use crate::model::Sensitive;

/// A repo's address without secrets: it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// What libgit2 is given.
    pub url: String,
    /// How it is reached.
    pub transport: Transport,
}

/// How a repo is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    /// `http://` and `https://`.
    Http {
        /// Credentials are for this host alone, whatever a redirect says.
        host: String,
    },
    /// `ssh://` and `user@host:path`.
    Ssh {
        /// The host whose key must be known.
        host: String,
        /// Its port.
        port: u16,
    },
    /// `file://` and paths.
    Local,
}

const SSH_PORT: u16 = 22;

/// Takes a URL apart. A username or password in it goes into `credentials`, unless those are set already.
pub(super) fn parse(url: &str, credentials: &mut Credentials) -> Result<Address, Error> {
    let url = url.trim();
    if url.contains("://") { parse_url(url, credentials) } else { parse_short(url) }
}

fn parse_url(text: &str, credentials: &mut Credentials) -> Result<Address, Error> {
    // The text itself may hold a token, so it appears in no message.
    let mut url = url::Url::parse(text).map_err(|reason| Error::Address { reason: reason.to_string() })?;
    let host = || match url.host_str() {
        // The brackets of an IPv6 address belong to the URL.
        Some(host) if !host.is_empty() => Ok(host.trim_matches(['[', ']']).to_owned()),
        _ => Err(Error::Address { reason: "it names no host".to_owned() }),
    };
    let transport = match url.scheme() {
        "http" | "https" => Transport::Http { host: host()? },
        "ssh" => Transport::Ssh { host: host()?, port: url.port().unwrap_or(SSH_PORT) },
        "file" => Transport::Local,
        other => {
            let reason = format!("{other}:// is not supported; use https://, ssh://, http://, file:// or a path");
            return Err(Error::Address { reason });
        }
    };
    let username = percent_decoded(url.username());
    let password = url.password().map(percent_decoded);
    if matches!(transport, Transport::Http { .. }) && !username.is_empty() {
        // `https://TOKEN@host/` is a habit too, so the username goes as well.
        let _ = url.set_username("");
        if credentials.password.is_none() {
            credentials.username = Some(username);
            credentials.password = Some(Sensitive::new(password.clone().unwrap_or_default()));
        }
    }
    if let Some(password) = password {
        let _ = url.set_password(None);
        credentials.password.get_or_insert(Sensitive::new(password));
    }
    Ok(Address { url: url.to_string(), transport })
}

/// `user@host:path`, or a path.
fn parse_short(text: &str) -> Result<Address, Error> {
    let address = |transport| Ok(Address { url: text.to_owned(), transport });
    if text.starts_with(['/', '.']) {
        return address(Transport::Local);
    }
    match text.split_once(':') {
        Some((place, path)) if !place.contains('/') && !path.is_empty() => {
            let host = place.rsplit('@').next().unwrap_or(place);
            address(Transport::Ssh { host: host.to_owned(), port: SSH_PORT })
        }
        _ => Err(Error::Address {
            reason: "it is neither a URL, nor user@host:path, nor a path that begins with / or .".to_owned(),
        }),
    }
}

/// `%40` → `@`; bytes that are no UTF-8 afterwards are replaced, and the server refuses them.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| first == b'%').and_then(|digits| hex::decode(digits).ok());
        let (byte, after) = match digits.as_deref() {
            Some([byte]) => (*byte, tail.get(2..).unwrap_or_default()),
            _ => (first, tail),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, clean: &str, transport: &Transport, login: Option<(&str, &str)>) {
        let mut credentials = Credentials::default();
        let address = parse(url, &mut credentials).unwrap();
        assert_eq!(address.url, clean);
        assert_eq!(&address.transport, transport);
        let found =
            credentials.password.as_ref().map(|p| (credentials.username.as_deref().unwrap(), p.reveal().as_str()));
        assert_eq!(found, login);
    }

    fn ssh(host: &str, port: u16) -> Transport {
        Transport::Ssh { host: host.to_owned(), port }
    }

    #[test]
    fn secrets_leave_the_url() {
        let http = Transport::Http { host: "h".to_owned() };
        check("https://h/r.git", "https://h/r.git", &http, None);
        check("https://u:p%40ss@h/r.git", "https://h/r.git", &http, Some(("u", "p@ss")));
        check("https://token@h:8443/r", "https://h:8443/r", &http, Some(("token", "")));
    }

    #[test]
    fn ssh_has_a_host_and_a_port() {
        check("ssh://git@h:2222/r.git", "ssh://git@h:2222/r.git", &ssh("h", 2222), None);
        check("git@h:team/r.git", "git@h:team/r.git", &ssh("h", 22), None);
        check("ssh://git@[::1]/r", "ssh://git@[::1]/r", &ssh("::1", 22), None);
    }

    #[test]
    fn paths_are_local() {
        check("/srv/git/r.git", "/srv/git/r.git", &Transport::Local, None);
        check("file:///srv/git/r.git", "file:///srv/git/r.git", &Transport::Local, None);
    }

    #[test]
    fn a_login_that_is_set_beats_the_urls() {
        let mut credentials = Credentials {
            username: Some("deploy".to_owned()),
            password: Some(Sensitive::new("right".to_owned())),
            ..Credentials::default()
        };
        parse("https://u:wrong@h/r", &mut credentials).unwrap();
        assert_eq!(credentials.username.as_deref(), Some("deploy"));
        assert_eq!(credentials.password.unwrap().reveal(), "right");
    }

    #[test]
    fn a_bad_address_is_refused_without_showing_it() {
        for url in ["ftp://u:hunter2@h/r", "https://u:hunter2@/r", "hunter2", "https://u:hunter2@h:port/r"] {
            let error = parse(url, &mut Credentials::default()).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
