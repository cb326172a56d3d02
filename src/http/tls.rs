//! The API's certificate, and who may ask by showing one; both are read again while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::model::Sensitive;

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, with those that lead to its CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA of those who may ask without a token.
    pub client_ca: Option<PathBuf>,
}

/// What connections are secured with.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    now: RwLock<(Contents, Arc<ServerConfig>)>,
}

/// A certificate that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct Error {
    /// The setting and its file.
    file: String,
    /// What is wrong with it, without its content.
    reason: String,
}

/// What the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Sensitive<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    pub fn new(files: Files) -> Result<Self, Error> {
        let contents = files.read()?;
        let config = files.configure(&contents)?;
        Ok(Self { files, now: RwLock::new((contents, config)) })
    }

    /// Reads the files again; true if the connections from now on are secured with something new.
    pub fn renew(&self) -> Result<bool, Error> {
        let contents = self.files.read()?;
        if self.now.read().unwrap_or_else(PoisonError::into_inner).0 == contents {
            return Ok(false);
        }
        let config = self.files.configure(&contents)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = (contents, config);
        Ok(true)
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).1))
    }
}

impl Files {
    fn read(&self) -> Result<Contents, Error> {
        Ok(Contents {
            cert: read("tls.cert_file", &self.cert)?,
            key: Sensitive::new(read("tls.key_file", &self.key)?),
            client_ca: self.client_ca.as_ref().map(|path| read("tls.client_ca_file", path)).transpose()?,
        })
    }

    fn configure(&self, contents: &Contents) -> Result<Arc<ServerConfig>, Error> {
        let wrong = |setting: &str, path: &Path, reason: &str| Error {
            file: format!("{setting} {}", path.display()),
            reason: reason.to_owned(),
        };
        let bad_cert = |reason: &str| wrong("tls.cert_file", &self.cert, reason);
        let chain = certificates(&contents.cert).ok_or_else(|| bad_cert("there is no certificate in it"))?;
        // The error's own words could repeat what stands in the file.
        let key = PrivateKeyDer::from_pem_slice(contents.key.reveal())
            .map_err(|_| wrong("tls.key_file", &self.key, "there is no unencrypted private key in it"))?;
        // An error means that the process has a provider already, which is all we ask.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients = match (&contents.client_ca, &self.client_ca) {
            (Some(ca), Some(path)) => {
                let bad = |reason: &str| wrong("tls.client_ca_file", path, reason);
                let mut roots = RootCertStore::empty();
                let found = certificates(ca).ok_or_else(|| bad("there is no certificate in it"))?;
                roots.add_parsable_certificates(found);
                // Who shows no certificate may still have a token.
                let verifier = WebPkiClientVerifier::builder(roots.into()).allow_unauthenticated().build();
                verifier.map_err(|error| bad(&error.to_string()))?
            }
            _ => Arc::new(NoClientAuth),
        };
        let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key);
        let mut config = config.map_err(|error| bad_cert(&error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config.into())
    }
}

/// None if there is none, or one that is broken.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!found.is_empty()).then_some(found)
}

/// Blocks for as long as a small local file takes.
fn read(setting: &str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path)
        .map_err(|error| Error { file: format!("{setting} {}", path.display()), reason: error.to_string() })
}
