//! Certificates for tests: a CA of their own, and what it signs.

// Each test binary that includes this file uses a part of it.
#![allow(dead_code)]
// A test that cannot make its certificates has failed, and says why by panicking.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// A CA with a folder for its files.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Ca {
    /// A new one; its certificate is in `ca.pem`.
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        // With rcgen's name for everything, a certificate looks like its own issuer.
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    /// Where a file of it is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes `<name>.pem` and `<name>.key` for 127.0.0.1, good for servers and clients.
    pub fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let paths = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        self.sign_into(&paths.0, &paths.1);
        paths
    }

    /// The same into files that may be another's.
    pub fn sign_into(&self, cert: &Path, key: &Path) {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned(), "server.dc1.consul".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pair = KeyPair::generate().unwrap();
        std::fs::write(cert, params.signed_by(&pair, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(key, pair.serialize_pem()).unwrap();
    }
}
