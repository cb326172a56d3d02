//! Logins for image registries, from files: what the engine is told in `X-Registry-Auth` when it resolves or pulls an image.
//!
//! Two sources, the first one winning:
//!
//! * a folder with one YAML file per registry, named as the registry (`/run/secrets/registries/registry.example.com:5000`), with
//!   `username` and `password` — swarm-sync's;
//! * Docker's `config.json` with `auths`, as `docker login` writes it. Credential helpers are programs of the machine that ran
//!   `docker login`; they are named in a warning and not run.
//!
//! The files are small and few, so they are read anew for every pass: a login that was renewed needs no restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

use crate::model::{Finding, Location, Sensitive};
use crate::yaml::{self, MapReader, Problems};

/// Largest file read.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Docker Hub, by the domain of its images.
const HUB: &str = "docker.io";

/// Docker Hub, as `docker login` writes it.
const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// Names by which logins for Docker Hub are filed.
const HUB_ALIASES: [&str; 4] = [HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// Where logins lie. A folder or a file that is absent is no mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// One file per registry, such as `/run/secrets/registries`.
    pub registries: PathBuf,
    /// The folder of Docker's `config.json` (`DOCKER_CONFIG`, default `~/.docker`); none where there is no home.
    pub docker: Option<PathBuf>,
}

/// Logins by registry.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
}

#[derive(Debug, Clone)]
enum Login {
    Password { username: String, password: Sensitive<String> },
    Token(Sensitive<String>),
}

impl Credentials {
    /// Reads both places. A file with a mistake is left out and named; the others count.
    pub fn load(places: &Places) -> (Self, Vec<Finding>) {
        let problems = Problems::default();
        let mut credentials = Self::default();
        if let Some(folder) = &places.docker {
            credentials.read_docker_config(&folder.join("config.json"), &problems);
        }
        // Second, so that they win.
        credentials.read_folder(&places.registries, &problems);
        (credentials, problems.into_vec())
    }

    /// The value of `X-Registry-Auth` for images of `domain`, such as `docker.io` or `registry.example.com:5000`; none without a login.
    pub fn for_image(&self, domain: &str) -> Option<Sensitive<String>> {
        let domain = registry_of(domain);
        let login = self.logins.get(&domain)?;
        let address = if domain == HUB { HUB_ADDRESS } else { &domain };
        let auth = match login {
            Login::Password { username, password } => {
                json!({ "username": username, "password": password.reveal(), "serveraddress": address })
            }
            Login::Token(token) => json!({ "identitytoken": token.reveal(), "serveraddress": address }),
        };
        // The engine wants the URL-safe alphabet, with padding.
        Some(Sensitive::new(URL_SAFE.encode(auth.to_string())))
    }

    /// The registries for which there is a login.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        self.logins.keys().map(String::as_str)
    }

    fn read_folder(&mut self, folder: &Path, problems: &Problems) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'))
            else {
                continue;
            };
            if let Some(bytes) = read(path, problems)
                && let Some(login) = login_of_yaml(path, &bytes, problems)
            {
                self.logins.insert(registry_of(name), login);
            }
        }
    }

    fn read_docker_config(&mut self, path: &Path, problems: &Problems) {
        let Some(bytes) = read(path, problems) else { return };
        let config: Value = match serde_json::from_slice(&bytes) {
            Ok(config) => config,
            Err(error) => {
                // serde_json's message quotes nothing of the file.
                problems.add(finding(path, "", format!("not JSON: {error}"), "make it anew with docker login"));
                return;
            }
        };
        let helpers = config.get("credHelpers").and_then(Value::as_object);
        let helpers = helpers.into_iter().flatten().map(|(host, helper)| (host.as_str(), helper));
        for (host, helper) in helpers.chain(config.get("credsStore").map(|helper| ("every other registry", helper))) {
            let message = format!(
                "the credential helper {} for {host} is a program of another machine and is not run",
                helper.as_str().unwrap_or("?")
            );
            problems.add(finding(path, "", message, "file the login under registries/<host> instead"));
        }
        for (host, auth) in config.get("auths").and_then(Value::as_object).into_iter().flatten() {
            match login_of_auth(auth) {
                Ok(Some(login)) => {
                    self.logins.insert(registry_of(host), login);
                }
                // `docker login` with a helper leaves an empty object behind.
                Ok(None) => {}
                Err(message) => {
                    problems.add(finding(path, &format!("auths.{host}"), message, "make it anew with docker login"));
                }
            }
        }
    }
}

/// `https://index.docker.io/v1/` → `docker.io`, `https://host:5000/v2/` → `host:5000`.
fn registry_of(address: &str) -> String {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default().to_ascii_lowercase();
    if HUB_ALIASES.contains(&host.as_str()) { HUB.to_owned() } else { host }
}

fn login_of_yaml(path: &Path, bytes: &[u8], problems: &Problems) -> Option<Login> {
    let mend = "write username: and password:, one a line";
    let node = match yaml::parse_bytes(&path.display().to_string(), bytes) {
        Ok(node) if node.as_map().is_some() => node,
        // What stands there may be a password, so nothing of it is quoted.
        Ok(_) => {
            problems.add(finding(path, "", "not a map".to_owned(), mend));
            return None;
        }
        Err(_) => {
            problems.add(finding(path, "", "not YAML".to_owned(), mend));
            return None;
        }
    };
    let mut map = MapReader::new(&node, "", problems);
    // Scalars as they are spelled: a password of digits is a password.
    let username = map.required("username").and_then(|field| field.scalar());
    let password = map.required("password").and_then(|field| field.scalar());
    map.finish();
    Some(Login::Password { username: username?, password: Sensitive::new(password?) })
}

fn login_of_auth(auth: &Value) -> Result<Option<Login>, String> {
    let text = |key: &str| auth.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Login::Token(Sensitive::new(token.to_owned()))));
    }
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Ok(Some(password_login(username, password)));
    }
    let Some(encoded) = text("auth") else { return Ok(None) };
    let bytes = STANDARD.decode(encoded.trim()).map_err(|_| "auth is not base64".to_owned())?;
    let decoded = String::from_utf8(bytes).map_err(|_| "auth is not text".to_owned())?;
    let (username, password) = decoded.split_once(':').ok_or("auth is not username:password")?;
    // Docker's CLI pads with NUL.
    Ok(Some(password_login(username, password.trim_end_matches('\0'))))
}

fn password_login(username: &str, password: &str) -> Login {
    Login::Password { username: username.to_owned(), password: Sensitive::new(password.to_owned()) }
}

/// The file's content; none if it is absent or cannot be read, the latter with a finding.
fn read(path: &Path, problems: &Problems) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            problems.add(finding(path, "", format!("cannot be read: {error}"), ""));
            return None;
        }
    };
    match file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content) {
        Ok(bytes) if bytes as u64 <= FILE_BYTES_MAX => Some(content),
        Ok(_) => {
            problems.add(finding(path, "", format!("larger than the {FILE_BYTES_MAX} bytes that are read"), ""));
            None
        }
        Err(error) => {
            problems.add(finding(path, "", format!("cannot be read: {error}"), ""));
            None
        }
    }
}

fn finding(file: &Path, path: &str, message: String, mend: &str) -> Finding {
    let location = Some(Location::file(file.display().to_string()));
    Finding { location, path: path.to_owned(), message, mend: mend.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn with(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (path, content) in files {
                let path = dir.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Self { dir }
        }

        fn load(&self) -> (Credentials, Vec<String>) {
            let places =
                Places { registries: self.dir.path().join("registries"), docker: Some(self.dir.path().join("docker")) };
            let (credentials, findings) = Credentials::load(&places);
            let root = format!("{}/", self.dir.path().display());
            (credentials, findings.iter().map(|finding| finding.to_string().replace(&root, "")).collect())
        }
    }

    fn check(files: &[(&str, &str)], domain: &str, expected: Option<&Value>) {
        let (credentials, findings) = Fixture::with(files).load();
        let auth = credentials.for_image(domain).map(|auth| {
            let bytes = URL_SAFE.decode(auth.reveal()).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap()
        });
        assert_eq!(auth.as_ref(), expected);
        assert_eq!(findings, Vec::<String>::new());
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }

    #[test]
    fn without_files_there_is_no_login_and_no_complaint() {
        check(&[], "docker.io", None);
    }

    #[test]
    fn a_file_named_as_the_registry_logs_in_to_it() {
        let files = [("registries/registry.example.com:5000", "username: ann\npassword: hunter2>>?\n")];
        let auth = json!({ "username": "ann", "password": "hunter2>>?", "serveraddress": "registry.example.com:5000" });
        check(&files, "registry.example.com:5000", Some(&auth));
        check(&files, "registry.example.com", None);
    }

    #[test]
    fn a_password_of_digits_stays_as_it_is_spelled() {
        let files = [("registries/r", "username: ann\npassword: 0123\n")];
        check(&files, "r", Some(&json!({ "username": "ann", "password": "0123", "serveraddress": "r" })));
    }

    #[test]
    fn dockers_own_login_counts_for_the_hub_under_each_of_its_names() {
        let hub = json!({ "username": "ann", "password": "hun:ter2", "serveraddress": HUB_ADDRESS });
        for name in ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"] {
            let config = json!({ "auths": { name: { "auth": STANDARD.encode("ann:hun:ter2") } } }).to_string();
            check(&[("docker/config.json", &config)], "docker.io", Some(&hub));
        }
    }

    #[test]
    fn an_identity_token_is_sent_as_such() {
        let config = json!({ "auths": { "https://r:5000": { "auth": "", "identitytoken": "t" } } }).to_string();
        let auth = json!({ "identitytoken": "t", "serveraddress": "r:5000" });
        check(&[("docker/config.json", &config)], "r:5000", Some(&auth));
    }

    #[test]
    fn the_folder_beats_dockers_config() {
        let config = json!({ "auths": { "r": { "auth": STANDARD.encode("old:old") } } }).to_string();
        let files = [("docker/config.json", config.as_str()), ("registries/r", "username: ann\npassword: new\n")];
        check(&files, "r", Some(&json!({ "username": "ann", "password": "new", "serveraddress": "r" })));
    }

    #[test]
    fn every_mistake_is_named_and_no_secret_is() {
        let config = json!({
            "auths": { "bad": { "auth": "hunter2 hunter2" }, "helped": {} },
            "credHelpers": { "123.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login" },
            "credsStore": "desktop",
        });
        let fixture = Fixture::with(&[
            ("docker/config.json", &config.to_string()),
            ("registries/a", "hunter2"),
            ("registries/b", "username: ann\npasword: hunter2\n"),
            ("registries/c", "password: [hunter2"),
            ("registries/d", "username: ann\npassword: fine\n"),
        ]);
        let (credentials, findings) = fixture.load();
        assert_eq!(credentials.registries().collect::<Vec<_>>(), ["d"]);
        insta::assert_snapshot!(findings.join("\n"), @r"
        docker/config.json: the credential helper ecr-login for 123.dkr.ecr.eu-west-1.amazonaws.com is a program of another machine and is not run (file the login under registries/<host> instead)
        docker/config.json: the credential helper desktop for every other registry is a program of another machine and is not run (file the login under registries/<host> instead)
        docker/config.json: auths.bad: auth is not base64 (make it anew with docker login)
        registries/a: not a map (write username: and password:, one a line)
        registries/b:1:1: password is missing
        registries/b:2:1: pasword: no such key (did you mean password?)
        registries/c: not YAML (write username: and password:, one a line)
        ");
    }
}
