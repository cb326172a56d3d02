//! What can go wrong between us and a git server, classified by what happens next.

use std::time::Duration;

use git2::{ErrorClass, ErrorCode};

/// Why git did not give what was asked. No message holds a credential: URLs are cleaned before they get here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address cannot be understood. It is not shown, for it may hold a token.
    #[error("git url: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// No answer, or one that a server gives on a bad day.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// The repo.
        url: String,
        /// What happened instead.
        reason: String,
    },
    /// It was reached and then stopped to answer.
    #[error("{url} gave no sign for {} s; given up after {} s", silent.as_secs(), after.as_secs())]
    TimedOut {
        /// The repo.
        url: String,
        /// Since its last sign.
        silent: Duration,
        /// Since the beginning.
        after: Duration,
    },
    /// Earlier attempts hang in the network and cannot be ended from here.
    #[error("{url} is not asked: {attempts} earlier attempts still hang; restart the agent if its server is well")]
    Hung {
        /// The repo.
        url: String,
        /// How many.
        attempts: usize,
    },
    /// The server does not let us in.
    #[error("{url} lets us not in: {reason}")]
    Auth {
        /// The repo.
        url: String,
        /// What was tried, and the mend.
        reason: String,
    },
    /// The server's ssh key is not known to be its own.
    #[error("{reason}")]
    HostKey {
        /// Whose key, which one, and the mend.
        reason: String,
    },
    /// The server's TLS certificate is not valid.
    #[error(
        "{url} shows a certificate that is not trusted: {reason}; put its CA into /etc/ssl/certs/ca-certificates.crt or set SSL_CERT_FILE"
    )]
    Certificate {
        /// The repo.
        url: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// There is no such repo, or none that we may see.
    #[error("{url} is no repo that we can see: {reason}; check the URL, and that the credentials may read it")]
    NoSuchRepo {
        /// The repo.
        url: String,
        /// The server's words.
        reason: String,
    },
    /// The repo has no such branch.
    #[error("{url} has no branch {branch:?}; {}", branches(there))]
    NoSuchBranch {
        /// The repo.
        url: String,
        /// As configured.
        branch: String,
        /// Those it has, at most [`super::BRANCHES_NAMED_MAX`].
        there: Vec<String>,
    },
    /// The branch's history was rewritten and `require_fast_forward` is set.
    #[error(
        "{branch} was forced from {from} to {to}, which does not contain it; push a descendant of {from}, or turn require_fast_forward off"
    )]
    Forced {
        /// The branch.
        branch: String,
        /// The commit we keep to.
        from: String,
        /// The commit that is there.
        to: String,
    },
    /// The clone's disk is full.
    #[error("no space left on the device of {path}: free some, or put the clone elsewhere")]
    DiskFull {
        /// The clone.
        path: String,
    },
    /// The clone cannot be used.
    #[error("the clone in {path} cannot be used: {reason}")]
    Clone {
        /// The clone.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The clone is damaged; the next fetch makes it anew.
    #[error("the clone in {path} is damaged: {reason}; the next fetch makes it anew")]
    Damaged {
        /// The clone.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The clone does not hold this commit.
    #[error("{revision} is not in the clone")]
    NoSuchRevision {
        /// As asked for.
        revision: String,
    },
}

impl Error {
    /// True if trying again changes nothing: a person has to change something first.
    pub fn stalls(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Hung { .. } | Self::Damaged { .. } => false,
            Self::Address { .. }
            | Self::Auth { .. }
            | Self::HostKey { .. }
            | Self::Certificate { .. }
            | Self::NoSuchRepo { .. }
            | Self::NoSuchBranch { .. }
            | Self::Forced { .. }
            | Self::DiskFull { .. }
            | Self::Clone { .. }
            | Self::NoSuchRevision { .. } => true,
        }
    }
}

/// How libgit2 says that there is no repo, where it has no code for it: locally, over git's own protocol, over ssh.
const NO_REPO: [&str; 3] = ["failed to resolve path", "remote error", "could not read refs"];

/// An error of the conversation with the server. libgit2 has few codes, so its words are read where they are all there is.
pub(super) fn of_server(error: &git2::Error, url: &str, path: &str) -> Error {
    let (url, reason) = (url.to_owned(), error.message().to_owned());
    let status = reason.rsplit_once("status code: ").and_then(|(_, code)| code.trim().parse::<u16>().ok());
    match (error.class(), error.code(), status) {
        _ if is_disk_full(error) => Error::DiskFull { path: path.to_owned() },
        (_, ErrorCode::Certificate, _) => Error::Certificate { url, reason },
        (ErrorClass::Ssl, ..) if reason.contains("certificate") => Error::Certificate { url, reason },
        (_, _, Some(401 | 403)) | (_, ErrorCode::Auth, _) => Error::Auth { url, reason },
        (ErrorClass::Http, ..) if reason.contains("authentication replays") => Error::Auth { url, reason },
        // libssh2 cannot use the key itself: its format, or a passphrase that is missing or wrong.
        (ErrorClass::Ssh, ..) if reason.contains("authenticate") || reason.contains("private key") => {
            let reason = format!("{reason}; check the ssh key and its passphrase");
            Error::Auth { url, reason }
        }
        (_, _, Some(404 | 410))
        | (_, ErrorCode::Owner, _)
        | (ErrorClass::Repository, ErrorCode::NotFound, _)
        // What git-upload-pack says over ssh when the path is wrong arrives as the end of the stream.
        | (ErrorClass::Ssh, ErrorCode::Eof, _) => Error::NoSuchRepo { url, reason },
        (ErrorClass::Os | ErrorClass::Net, ..) if NO_REPO.iter().any(|words| reason.starts_with(words)) => {
            Error::NoSuchRepo { url, reason }
        }
        _ => Error::Unreachable { url, reason },
    }
}

/// An error of our own clone.
pub(super) fn of_clone(error: &git2::Error, path: &str) -> Error {
    let (path, reason) = (path.to_owned(), error.message().to_owned());
    match error.class() {
        _ if is_disk_full(error) => Error::DiskFull { path },
        // Nobody else writes here, so a lock that is taken was left by a process that was killed.
        _ if error.code() == ErrorCode::Locked => Error::Damaged { path, reason },
        ErrorClass::Os => Error::Clone { path, reason },
        _ => Error::Damaged { path, reason },
    }
}

fn is_disk_full(error: &git2::Error) -> bool {
    error.message().contains("No space left on device")
}

fn branches(there: &[String]) -> String {
    if there.is_empty() {
        "it has none: push one first".to_owned()
    } else {
        format!("it has {}: push that branch, or set another", there.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(class: ErrorClass, code: ErrorCode, message: &str, stalls: bool) -> Error {
        let error = of_server(&git2::Error::new(code, class, message), "https://h/r", "/clone");
        assert_eq!(error.stalls(), stalls, "{error}");
        error
    }

    #[test]
    fn a_bad_day_is_tried_again_and_a_mistake_is_not() {
        use ErrorClass::{Http, Net, Os, Ssh, Ssl};
        use ErrorCode::{Auth, Certificate, Eof, GenericError};
        check(Net, GenericError, "failed to resolve address for h: Name or service not known", false);
        check(Os, GenericError, "failed to connect to h: Connection refused", false);
        check(Http, GenericError, "unexpected http status code: 503", false);
        check(Ssh, GenericError, "failed to start SSH session: Failed getting banner", false);
        check(Http, GenericError, "unexpected http status code: 404", true);
        check(Http, GenericError, "unexpected http status code: 403", true);
        check(Http, Auth, "remote authentication required but no callback set", true);
        check(Http, GenericError, "too many redirects or authentication replays", true);
        check(Ssl, Certificate, "the SSL certificate is invalid", true);
        check(Ssh, Eof, "early EOF", true);
        check(Os, GenericError, "failed to resolve path '/nowhere': No such file or directory", true);
    }

    #[test]
    fn a_full_disk_names_the_clone() {
        let error = check(ErrorClass::Os, ErrorCode::GenericError, "failed to write: No space left on device", true);
        assert_eq!(error, Error::DiskFull { path: "/clone".to_owned() });
    }
}
