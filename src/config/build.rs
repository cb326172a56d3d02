//! Layers of texts → typed values → [`Config`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::settings::{SETTINGS, Setting};
use super::sources::{self, Content, Layer, Notes};
use super::values::{self, Value};
use super::{Brake, Config, Coordination, Disk, Election, Git, Inputs, LogFormat, Orphans, Registration, Role, Tls};
use crate::io::consul;
use crate::model::{Finding, Sensitive};
use crate::policy::Permissions;

/// A configuration in every case: where a value is wrong its default stands in, so that all mistakes are found.
pub(super) fn config(
    layer: Layer,
    file: Option<PathBuf>,
    permissions: Permissions,
    inputs: &Inputs<'_>,
    notes: &mut Notes,
) -> Config {
    let consul_is_named = ["consul.address", "consul.token"].iter().any(|key| layer.contains_key(key));
    let mut values = parse_all(layer, inputs.read, notes);
    let home = inputs.environment.get("HOME").filter(|home| !home.is_empty());
    let config = Config { permissions, consul_is_named, file, ..fill(&mut values, home, notes) };
    debug_assert!(values.0.is_empty(), "settings that nobody uses: {:?}", values.0.keys());
    config
}

/// Every setting's value; a setting without any is absent.
fn parse_all(mut layer: Layer, read: &dyn Fn(&Path) -> io::Result<String>, notes: &mut Notes) -> Values {
    let mut values = Values::default();
    for setting in SETTINGS {
        let default = || {
            let text = Some(setting.default).filter(|text| !text.is_empty())?;
            values::parse(setting, &[text.to_owned()]).ok()
        };
        let parsed = layer.remove(setting.key).and_then(|raw| {
            let parsed = texts(setting, &raw.content, read).and_then(|texts| values::parse(setting, &texts));
            if let (Content::File(path), Ok(_)) = (&raw.content, &parsed) {
                values.1.insert(setting.key, path.clone());
            }
            parsed.map_err(|message| notes.wrong(raw.location, setting.key, message, "")).ok()
        });
        values.0.insert(setting.key, parsed.or_else(default));
    }
    values
}

/// The texts of a value, read from its file if it has one of its own.
fn texts(
    setting: &Setting,
    content: &Content,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Vec<String>, String> {
    let path = match content {
        Content::Texts(texts) => return Ok(texts.clone()),
        Content::File(path) => path,
    };
    let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    match sources::split(setting, text) {
        Content::Texts(texts) => Ok(texts),
        Content::File(_) => Err(format!("{} names another file; put the value itself there", path.display())),
    }
}

/// Values that nobody has taken yet, and the files that values were read from. Each accessor takes one; a kind that does not fit the table is caught by the test that takes all.
#[derive(Debug, Default)]
struct Values(BTreeMap<&'static str, Option<Value>>, BTreeMap<&'static str, PathBuf>);

impl Values {
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).flatten()
    }

    fn secret(&mut self, key: &str) -> Option<Sensitive<String>> {
        if let Some(Value::Text(text)) = self.take(key) { Some(text) } else { None }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.secret(key).map(|text| text.reveal().clone())
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        if let Some(Value::Path(path)) = self.take(key) { Some(path) } else { None }
    }

    fn switch(&mut self, key: &str) -> bool {
        matches!(self.take(key), Some(Value::Switch(true)))
    }

    fn number(&mut self, key: &str) -> u64 {
        if let Some(Value::Number(number)) = self.take(key) { number } else { 0 }
    }

    fn duration(&mut self, key: &str) -> Duration {
        if let Some(Value::Duration(duration)) = self.take(key) { duration } else { Duration::ZERO }
    }

    fn word(&mut self, key: &str) -> &'static str {
        if let Some(Value::Word(word)) = self.take(key) { word } else { "" }
    }
}

/// Everything that the settings say.
fn fill(values: &mut Values, home: Option<&String>, notes: &mut Notes) -> Config {
    Config {
        cluster: values.text("cluster").unwrap_or_default(),
        role: match values.word("role") {
            "manager" => Role::Manager,
            "worker" => Role::Worker,
            _ => Role::Auto,
        },
        git: build_git(values, notes),
        poll_interval: values.duration("poll_interval"),
        stacks: if let Some(Value::Stacks(stacks)) = values.take("stacks") { stacks } else { vec![] },
        orphans: if values.word("orphans") == "remove" { Orphans::Remove } else { Orphans::Keep },
        brake: Brake {
            removes_max: usize::try_from(values.number("brake.removes_max")).unwrap_or(usize::MAX),
            restarts_percent_max: u8::try_from(values.number("brake.restarts_percent_max")).unwrap_or(100),
        },
        permissions: Permissions::default(),
        docker_host: values.text("docker_host").unwrap_or_default(),
        docker_config: values.path("docker_config").or_else(|| home.map(|home| Path::new(home).join(".docker"))),
        registries_dir: values.path("registries_dir").unwrap_or_default(),
        consul: build_consul(values, notes),
        consul_is_named: false,
        coordination: match values.word("coordination") {
            "consul" => Coordination::Consul,
            "swarm" => Coordination::Swarm,
            _ => Coordination::Auto,
        },
        election: match values.word("election") {
            "fast" => Election::Fast,
            "slow" => Election::Slow,
            _ => Election::Default,
        },
        registration: Registration {
            enable: values.switch("registration.enable"),
            internal: values.switch("registration.internal"),
            explicit: values.switch("registration.explicit"),
            ip_from_label: values.text("registration.ip_from_label"),
            tags: values.text("registration.tags").unwrap_or_default(),
            networks: if let Some(Value::Texts(names)) = values.take("registration.networks") { names } else { vec![] },
            stacks_apart: values.word("registration.stack_names") == "apart",
            keep_failed: values.word("registration.deregister") == "on-success",
            critical_without_agent: values.word("registration.agent_loss") == "critical",
            resync: values.duration("registration.resync"),
        },
        drain_wait: values.duration("drain_wait"),
        disk: Disk {
            warning: u8::try_from(values.number("disk.warning")).unwrap_or(100),
            critical: u8::try_from(values.number("disk.critical")).unwrap_or(100),
        },
        bind: if let Some(Value::Bind(bind)) = values.take("bind") { bind } else { vec![] },
        advertise: if let Some(Value::Advertise(address)) = values.take("advertise") { Some(address) } else { None },
        api_token: values.secret("api_token"),
        health_is_open: values.word("health") != "closed",
        tls: build_tls(values, notes),
        webhook_secret: values.secret("webhook_secret"),
        notify: if let Some(Value::Urls(urls)) = values.take("notify") { urls } else { vec![] },
        state_dir: values.path("state_dir").unwrap_or_default(),
        shutdown_grace: values.duration("shutdown_grace"),
        agent_url: values.text("agent_url").unwrap_or_default(),
        log_level: values.word("log_level"),
        log_format: if values.word("log_format") == "json" { LogFormat::Json } else { LogFormat::Text },
        file: None,
    }
}

fn build_consul(values: &mut Values, notes: &mut Notes) -> consul::Options {
    let mut address = values.text("consul.address").unwrap_or_default();
    let is_https = values.switch("consul.https");
    if !address.contains("://") {
        address = format!("{}://{address}", if is_https { "https" } else { "http" });
    }
    let token_file = values.1.get("consul.token").cloned();
    let pair = pair(["consul.cert_file", "consul.key_file"], values, notes);
    let (cert_file, key_file) = pair.unzip();
    let ca_file = values.path("consul.ca_file");
    if (cert_file.is_some() || ca_file.is_some()) && !address.starts_with("https://") {
        let message = format!("certificates are set, and {address} is not reached by https");
        // Consul's own variables may stand in the environment for other programs.
        notes.warnings.push(finding("consul.address", message, "write https://HOST:PORT, or set consul.https"));
    }
    consul::Options { address, token: values.secret("consul.token"), token_file, ca_file, cert_file, key_file }
}

fn build_tls(values: &mut Values, notes: &mut Notes) -> Tls {
    let certificate = pair(["tls.cert_file", "tls.key_file"], values, notes);
    let client_ca_file = values.path("tls.client_ca_file");
    if client_ca_file.is_some() && certificate.is_none() {
        let message = "clients can show a certificate only where the API has one";
        notes.mistakes.push(finding("tls.client_ca_file", message, "set tls.cert_file and tls.key_file"));
    }
    Tls { certificate, client_ca_file, ca_file: values.path("tls.ca_file") }
}

/// A certificate and its key, both or none.
fn pair(keys: [&'static str; 2], values: &mut Values, notes: &mut Notes) -> Option<(PathBuf, PathBuf)> {
    let [cert, key] = keys;
    match (values.path(cert), values.path(key)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (found, _) => {
            let (set, missing) = if found.is_some() { (cert, key) } else { (key, cert) };
            notes.mistakes.push(finding(set, format!("{missing} is missing beside it"), "set both"));
            None
        }
    }
}

fn finding(path: &str, message: impl Into<String>, mend: &str) -> Finding {
    Finding { location: None, path: path.to_owned(), message: message.into(), mend: mend.to_owned() }
}

fn build_git(values: &mut Values, notes: &mut Notes) -> Option<Git> {
    let url = values.text("git.url");
    let git = Git {
        url: url.clone().unwrap_or_default(),
        branch: values.text("git.branch").unwrap_or_default(),
        path: values.text("git.path").unwrap_or_default(),
        username: values.text("git.username"),
        password: values.secret("git.password"),
        ssh_key: values.secret("git.ssh_key").map(|key| Sensitive::new(format!("{}\n", key.reveal().trim_end()))),
        known_hosts: values.text("git.known_hosts"),
        require_fast_forward: values.switch("git.require_fast_forward"),
    };
    if git.ssh_key.as_ref().is_some_and(|key| !key.reveal().contains("PRIVATE KEY-----")) {
        let mend =
            "give the key itself; where it stands in a file, set git.ssh_key_file or SWARMKEEPER_GIT_SSH_KEY_FILE";
        let message = "there is no private key in it (it has no line -----BEGIN … PRIVATE KEY-----)";
        notes.mistakes.push(Finding {
            location: None,
            path: "git.ssh_key".into(),
            message: message.into(),
            mend: mend.into(),
        });
    }
    url.map(|_| without_credentials(git))
}

/// Takes `user:password@` out of an http URL, so that the URL can be shown; what is set on its own wins.
fn without_credentials(mut git: Git) -> Git {
    let Ok(mut url) = Url::parse(&git.url) else { return git };
    if !matches!(url.scheme(), "http" | "https") || (url.username().is_empty() && url.password().is_none()) {
        return git;
    }
    let plain = |text: &str| percent_decode(text);
    let (username, password) = match url.password() {
        Some(password) => (Some(plain(url.username())), Some(plain(password))),
        // A name alone is of no use but as an access token.
        None if git.password.is_none() => (None, Some(plain(url.username()))),
        None => (Some(plain(url.username())), None),
    };
    // Neither can fail for a URL with a host, and https always has one.
    let _ = (url.set_username(""), url.set_password(None));
    git.url = url.to_string();
    git.username = git.username.or(username.filter(|name| !name.is_empty()));
    git.password = git.password.or(password.map(Sensitive::new));
    git
}

/// `%40` → `@`, by way of the decoder that `url` brings for forms, whose own signs mean themselves here.
fn percent_decode(text: &str) -> String {
    let field = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(field.as_bytes()).next().map(|(text, _)| text.into_owned()).unwrap_or_default()
}
