//! What a request is sent with: the token and the certificates, replaced while requests go on.
//!
//! Their files are read again by [`Consul::renew`], which somebody calls every few seconds. A new token or certificate is tried before the
//! old one is dropped: Consul must know it, and it may lack no right that the old one has. What is under way keeps what it began with.
//!
//! Consul's agent goes on using the token that a registration came with. So whoever registers does it again when
//! [`Consul::token_id`] or [`Consul::renewals`] say that the token is another: otherwise what the agent tells the servers would be
//! refused silently once the old token is deleted.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use reqwest::header::{HeaderMap, HeaderValue};

use super::acl::Right;
use super::{CONNECT_TIMEOUT, Consul, Error, Options, causes};
use crate::model::Sensitive;

/// Largest file of a token or of certificates, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What became of a look at the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// They say what they said.
    Unchanged,
    /// What they say now is in use.
    Renewed,
    /// The new token lacks these rights, which the old one has; the old one stays in use.
    Lacking(Vec<Right>),
}

/// How the agent is reached at the moment.
#[derive(Debug)]
pub(super) struct Link {
    options: Options,
    is_https: bool,
    socket: Option<PathBuf>,
    now: RwLock<Connection>,
}

#[derive(Debug, Clone)]
struct Connection {
    http: reqwest::Client,
    secrets: Secrets,
    token_id: TokenId,
    renewals: u64,
}

/// What is known of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TokenId {
    Unknown,
    /// None where Consul runs without ACLs.
    Told(Option<String>),
}

/// What the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Secrets {
    token: Option<Sensitive<String>>,
    ca: Option<Sensitive<Vec<u8>>>,
    /// Certificate and key.
    identity: Option<Sensitive<Vec<u8>>>,
}

impl Link {
    pub fn new(options: Options, is_https: bool, socket: Option<PathBuf>) -> Result<Self, Error> {
        let secrets = match &options.token {
            Some(token) => Secrets { token: Some(token.clone()), ..Secrets::read_certificates(&options)? },
            None => Secrets::read(&options)?,
        };
        Self::with(options, is_https, socket, secrets)
    }

    fn with(options: Options, is_https: bool, socket: Option<PathBuf>, secrets: Secrets) -> Result<Self, Error> {
        let http = client(&options, is_https, socket.as_deref(), &secrets)?;
        let now = RwLock::new(Connection { http, secrets, token_id: TokenId::Unknown, renewals: 0 });
        Ok(Self { options, is_https, socket, now })
    }

    /// What to send a request with.
    pub fn http(&self) -> reqwest::Client {
        self.read(|now| now.http.clone())
    }

    fn read<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Connection)) {
        change(&mut self.now.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Consul {
    /// Looks at the files of token and certificates; what is new is used from now on if it proves as good as the old. `rights` is what
    /// the product needs. An error means that the new cannot be used, and the old one is.
    pub async fn renew(&self, rights: &[Right]) -> Result<Renewal, Error> {
        let options = &self.link.options;
        let secrets = Secrets::read(options)?;
        if self.link.read(|now| now.secrets == secrets) {
            return Ok(Renewal::Unchanged);
        }
        let link = Link::with(options.clone(), self.link.is_https, self.link.socket.clone(), secrets)?;
        let candidate = Self { link: link.into(), base: self.base.clone() };
        let token_id = candidate.token_self().await?;
        let lacking = candidate.rights_missing(rights).await?;
        if !lacking.is_empty() {
            // An old one that does not work any more lacks everything: then any is better.
            let lacked = self.rights_missing(rights).await.unwrap_or_else(|_| rights.to_vec());
            let lost: Vec<Right> = lacking.into_iter().filter(|right| !lacked.contains(right)).collect();
            if !lost.is_empty() {
                return Ok(Renewal::Lacking(lost));
            }
        }
        let Connection { http, secrets, .. } = candidate.link.read(Clone::clone);
        self.link.write(|now| {
            let renewals = now.renewals + 1;
            *now = Connection { http, secrets, token_id: TokenId::Told(token_id), renewals };
        });
        Ok(Renewal::Renewed)
    }

    /// How often [`Self::renew`] has replaced something.
    pub fn renewals(&self) -> u64 {
        self.link.read(|now| now.renewals)
    }

    /// [`Self::token_self`], asked once for each token; none without a token.
    pub async fn token_id(&self) -> Result<Option<String>, Error> {
        let (known, renewals, has_token) =
            self.link.read(|now| (now.token_id.clone(), now.renewals, now.secrets.token.is_some()));
        if !has_token {
            return Ok(None);
        }
        if let TokenId::Told(known) = known {
            return Ok(known);
        }
        let id = self.token_self().await?;
        self.link.write(|now| {
            // Unless it was replaced meanwhile.
            if now.renewals == renewals {
                now.token_id = TokenId::Told(id.clone());
            }
        });
        Ok(id)
    }
}

impl Secrets {
    fn read(options: &Options) -> Result<Self, Error> {
        let token = match &options.token_file {
            Some(path) => Some(read_token(path)?),
            None => options.token.clone(),
        };
        Ok(Self { token, ..Self::read_certificates(options)? })
    }

    fn read_certificates(options: &Options) -> Result<Self, Error> {
        let read_one = |setting, path: &Option<PathBuf>| path.as_ref().map(|path| read(setting, path)).transpose();
        let ca = read_one("consul.ca_file", &options.ca_file)?.map(Sensitive::new);
        let (cert, key) =
            (read_one("consul.cert_file", &options.cert_file)?, read_one("consul.key_file", &options.key_file)?);
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some(Sensitive::new([cert, b"\n".to_vec(), key].concat())),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("consul.cert_file", "consul.key_file is missing beside it")),
            (None, Some(_)) => return Err(wrong("consul.key_file", "consul.cert_file is missing beside it")),
        };
        Ok(Self { token: None, ca, identity })
    }
}

fn client(
    options: &Options,
    is_https: bool,
    socket: Option<&Path>,
    secrets: &Secrets,
) -> Result<reqwest::Client, Error> {
    // An error means that the process has a provider already, which is all we ask.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut http = reqwest::Client::builder()
        .default_headers(headers(secrets)?)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // The agent is node-local: a proxy set for the Config Repo or a registry is not meant for it.
        .no_proxy();
    if let Some(ca) = secrets.ca.as_ref().filter(|_| is_https) {
        let roots = reqwest::Certificate::from_pem_bundle(ca.reveal()).unwrap_or_default();
        if roots.is_empty() {
            return Err(wrong(&named("consul.ca_file", options.ca_file.as_deref()), "there is no certificate in it"));
        }
        http = http.tls_certs_only(roots);
    } else if !is_https {
        // Otherwise building the client fails where no CA roots are installed, as in an image from scratch.
        http = http.tls_certs_only([]);
    }
    if let Some(identity) = secrets.identity.as_ref().filter(|_| is_https) {
        let pair = named("consul.cert_file", options.cert_file.as_deref());
        // The error's own words could repeat what stands in the files.
        let identity = reqwest::Identity::from_pem(identity.reveal()).map_err(|_| {
            wrong(&pair, "there is no certificate in it, or no unencrypted private key in consul.key_file")
        })?;
        http = http.identity(identity);
    }
    if let Some(socket) = socket {
        http = http.unix_socket(socket);
    }
    http.build().map_err(|error| Error::Address { address: options.address.clone(), reason: causes(&error) })
}

fn headers(secrets: &Secrets) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    if let Some(token) = &secrets.token {
        let mut value = HeaderValue::from_str(token.reveal())
            .map_err(|_| wrong("consul.token", "the ACL token has characters that no HTTP header can carry"))?;
        value.set_sensitive(true);
        headers.insert("X-Consul-Token", value);
    }
    Ok(headers)
}

fn read_token(path: &Path) -> Result<Sensitive<String>, Error> {
    let file = named("consul.token_file", Some(path));
    let text = String::from_utf8(read("consul.token_file", path)?).map_err(|_| wrong(&file, "it is no text"))?;
    let token = text.trim_end_matches(['\n', '\r']);
    if token.is_empty() {
        return Err(wrong(&file, "it is empty"));
    }
    Ok(Sensitive::new(token.to_owned()))
}

/// Blocks for as long as a small local file takes.
fn read(setting: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let file = || named(setting, Some(path));
    let bytes = std::fs::read(path).map_err(|error| wrong(&file(), &error.to_string()))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(wrong(&file(), &format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn named(setting: &str, path: Option<&Path>) -> String {
    path.map_or_else(|| setting.to_owned(), |path| format!("{setting} {}", path.display()))
}

fn wrong(file: &str, reason: &str) -> Error {
    Error::Secret { file: file.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client says of these files.
    #[track_caller]
    fn check(cert: &str, key: Option<&str>, expect: &str) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let options = Options {
            address: "https://127.0.0.1:8501".to_owned(),
            cert_file: write("cert.pem", cert),
            key_file: key.and_then(|key| write("key.pem", key)),
            ..Options::default()
        };
        let error = Consul::new(options).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named_without_their_content() {
        check("s3cret", None, "consul.cert_file: consul.key_file is missing");
        check(
            "s3cret",
            Some("-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n"),
            "cert.pem: there is no",
        );
    }
}
