//! Registrator's convention, which its users bring along: `SERVICE_<KEY>` and `SERVICE_<port>_<KEY>` as a label or a variable.
//!
//! Source of the rules: gliderlabs/registrator, `bridge/bridge.go` (`newService`), `bridge/util.go` (`serviceMetaData`,
//! `recParseEscapedComma`) and `consul/consul.go` (`buildCheck`). Every key is a row of [`KEYS`]; what is no row goes into Meta.
//!
//! Deviations, all towards a registration that Consul takes: a duration, status or Meta pair that Consul would refuse is left out
//! with a remark, where registrator's whole registration fails; the keys of checks do not go into Meta; a name made from
//! `image@sha256:…` leaves the digest out; where variable and label disagree, the label wins (registrator has had it both ways);
//! a script goes to a shell, as it did before Consul dropped `script`; blanks around a tag are no part of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::io::consul::agent::{CheckDefinition, CheckStatus, Probe};
use crate::io::docker::{self, Container, Port, Protocol};

/// How often Consul looks, unless `CHECK_INTERVAL` says otherwise.
pub const DEFAULT_INTERVAL: &str = "10s";

/// What a key of the convention is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Says what the service is called and how it is found.
    Identity,
    /// Asks for a check of this kind.
    Check(Kind),
    /// Says more about the check.
    Modifier,
}

/// Kinds of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `CHECK_HTTP=/path`.
    Http,
    /// `CHECK_HTTPS=/path`.
    Https,
    /// `CHECK_CMD=command`, which registrator gives to `check-cmd CONTAINER PORT`, a program on Consul's machine.
    Cmd,
    /// `CHECK_SCRIPT=shell`, with `$SERVICE_IP` and `$SERVICE_PORT`, run on Consul's machine.
    Script,
    /// `CHECK_TTL=30s`.
    Ttl,
    /// `CHECK_TCP=true`.
    Tcp,
    /// `CHECK_GRPC=true`.
    Grpc,
}

/// Every key that is not Meta, as it follows `SERVICE_` or `SERVICE_<port>_`. Of several checks the first row wins.
pub const KEYS: [(&str, Use); 19] = [
    ("NAME", Use::Identity),
    ("ID", Use::Identity),
    ("TAGS", Use::Identity),
    ("IGNORE", Use::Identity),
    ("CHECK_HTTP", Use::Check(Kind::Http)),
    ("CHECK_HTTPS", Use::Check(Kind::Https)),
    ("CHECK_CMD", Use::Check(Kind::Cmd)),
    ("CHECK_SCRIPT", Use::Check(Kind::Script)),
    ("CHECK_TTL", Use::Check(Kind::Ttl)),
    ("CHECK_TCP", Use::Check(Kind::Tcp)),
    ("CHECK_GRPC", Use::Check(Kind::Grpc)),
    ("CHECK_INTERVAL", Use::Modifier),
    ("CHECK_TIMEOUT", Use::Modifier),
    ("CHECK_INITIAL_STATUS", Use::Modifier),
    ("CHECK_DEREGISTER_AFTER", Use::Modifier),
    ("CHECK_HTTP_METHOD", Use::Modifier),
    ("CHECK_HTTPS_METHOD", Use::Modifier),
    ("CHECK_GRPC_USE_TLS", Use::Modifier),
    ("CHECK_TLS_SKIP_VERIFY", Use::Modifier),
];

/// Limits of Consul on Meta; a pair beyond them makes it refuse the whole registration.
pub const META_PAIRS_MAX: usize = 64;
/// Longest Meta key.
pub const META_KEY_BYTES_MAX: usize = 128;
/// Longest Meta value.
pub const META_VALUE_BYTES_MAX: usize = 512;

/// Prefixes of Meta keys that are not the container's to set: Consul's own and ours.
const META_RESERVED: [&str; 2] = ["consul-", "sk-"];

/// What a container says about one of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// By key in upper case, without `SERVICE_` and without the port.
    values: BTreeMap<String, Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    value: String,
    /// True if the key named the port.
    of_port: bool,
}

/// Whose check it is.
#[derive(Debug, Clone, Copy)]
pub struct CheckOf<'a> {
    /// The service's ID.
    pub id: &'a str,
    /// The container's ID.
    pub container: &'a str,
    /// The container's port.
    pub port: Port,
    /// Where the service is.
    pub address: SocketAddr,
    /// True if Consul's agent runs scripts.
    pub runs_scripts: bool,
}

impl Settings {
    /// What is said about port `number` of `container`: the port-specific key wins, then the label of its swarm service (changed without
    /// a restart, so it is the newest word), then its own label, then the variable.
    pub fn of(container: &Container, of_service: &BTreeMap<String, String>, number: u16) -> Self {
        let mut values: BTreeMap<String, Setting> = BTreeMap::new();
        for source in [&container.env, &container.labels, of_service] {
            for (name, value) in source {
                let Some(key) = name.strip_prefix("SERVICE_").map(str::to_ascii_uppercase) else { continue };
                let (key, of_port) = match split_port(&key) {
                    Some((port, key)) if port == u64::from(number) => (key.to_owned(), true),
                    Some(_) => continue,
                    None => (key, false),
                };
                if of_port || values.get(&key).is_none_or(|earlier| !earlier.of_port) {
                    values.insert(key, Setting { value: value.clone(), of_port });
                }
            }
        }
        Self { values }
    }

    /// A value, if it is there and not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|setting| setting.value.as_str()).filter(|value| !value.is_empty())
    }

    /// True if `key` was given for this very port.
    pub fn is_of_port(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|setting| setting.of_port)
    }

    /// True if the port is not to be registered: `IGNORE` with any value.
    pub fn ignored(&self) -> bool {
        self.get("IGNORE").is_some()
    }

    /// The service's name; of several ports each gets its number behind it, unless the name is the port's own.
    pub fn name(&self, image: &str, port: Port, several: bool) -> String {
        let name = self.get("NAME").unwrap_or_else(|| image_base(image));
        if several && !self.is_of_port("NAME") { format!("{name}-{}", port.number) } else { name.to_owned() }
    }

    /// The service's ID.
    pub fn id(&self, hostname: &str, container: &str, port: Port) -> String {
        let suffix = if port.protocol == Protocol::Udp { ":udp" } else { "" };
        let default = || format!("{hostname}:{container}:{}{suffix}", port.number);
        self.get("ID").map_or_else(default, ToOwned::to_owned)
    }

    /// The service's tags, in order and without repeats: its own, then `extra` (a list like its own), and for UDP `udp`.
    pub fn tags(&self, protocol: Protocol, extra: &str) -> Vec<String> {
        let mut tags = Vec::new();
        let udp = (protocol == Protocol::Udp).then(|| "udp".to_owned());
        let own = split_tags(self.get("TAGS").unwrap_or_default());
        for tag in own.into_iter().chain(split_tags(extra)).chain(udp) {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        tags
    }

    /// Everything that is no key of the convention, as Meta that Consul takes; what had to be changed goes into `remarks`.
    pub fn meta(&self, remarks: &mut Vec<String>) -> BTreeMap<String, String> {
        let mut meta = BTreeMap::new();
        let others = self.values.iter().filter(|(key, _)| KEYS.iter().all(|(known, _)| known != key));
        for (key, Setting { value, .. }) in others {
            let name = key.to_ascii_lowercase();
            if name.is_empty()
                || name.len() > META_KEY_BYTES_MAX
                || META_RESERVED.iter().any(|own| name.starts_with(own))
            {
                remarks.push(format!("SERVICE_{key} is left out of Meta: consul takes no such key"));
                continue;
            }
            let clean: String = name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' })
                .collect();
            if clean != name {
                remarks
                    .push(format!("SERVICE_{key} is {clean} in Meta: consul takes letters, digits, '-' and '_' only"));
            }
            let end = value.floor_char_boundary(META_VALUE_BYTES_MAX);
            if end < value.len() {
                remarks.push(format!(
                    "SERVICE_{key} is cut to {META_VALUE_BYTES_MAX} bytes in Meta: consul takes no more"
                ));
            }
            meta.insert(clean, value.get(..end).unwrap_or_default().to_owned());
        }
        meta
    }

    /// The check that the container asks for of one of its services; what cannot be done goes into `remarks`.
    ///
    /// Its ID is the one that Consul gives to a service's only check, since programs that report to a TTL check know it by that.
    pub fn check(&self, of: &CheckOf<'_>, remarks: &mut Vec<String>) -> Option<CheckDefinition> {
        let kinds = KEYS.iter().filter_map(|(key, what)| match what {
            Use::Check(kind) => Some((*key, *kind)),
            Use::Identity | Use::Modifier => None,
        });
        let (key, kind, value) = kinds.into_iter().find_map(|(key, kind)| Some((key, kind, self.get(key)?)))?;
        if matches!(kind, Kind::Cmd | Kind::Script) && !of.runs_scripts {
            remarks.push(format!(
                "SERVICE_{key}: registered without this check: consul's agent runs no scripts; set `enable_script_checks` there"
            ));
            return None;
        }
        let (name, probe) = self.probe(kind, value, of, remarks)?;
        Some(CheckDefinition {
            id: format!("service:{}", of.id),
            name,
            notes: String::new(),
            status: self.initial_status(remarks),
            probe,
            deregister_critical_service_after: self.duration("CHECK_DEREGISTER_AFTER", remarks),
        })
    }

    /// What is looked at, with a name for people.
    fn probe(&self, kind: Kind, value: &str, of: &CheckOf<'_>, remarks: &mut Vec<String>) -> Option<(String, Probe)> {
        let interval = self.duration("CHECK_INTERVAL", remarks).unwrap_or_else(|| DEFAULT_INTERVAL.to_owned());
        let timeout = self.duration("CHECK_TIMEOUT", remarks);
        let address = of.address;
        let tls_skip_verify = self.get("CHECK_TLS_SKIP_VERIFY").is_some();
        let slash = if value.starts_with('/') { "" } else { "/" };
        let http = |scheme: &str, method: Option<&str>, tls_skip_verify| {
            let method = method.map(str::to_ascii_uppercase);
            let name = format!("{} {} {slash}{value}", scheme.to_ascii_uppercase(), method.as_deref().unwrap_or("GET"));
            let url = format!("{scheme}://{address}{slash}{value}");
            let (interval, timeout) = (interval.clone(), timeout.clone());
            (name, Probe::Http { url, method, tls_skip_verify, interval, timeout })
        };
        let shell = |script: String| {
            let args = ["/bin/sh", "-c", &script].map(ToOwned::to_owned).to_vec();
            Probe::Script { args, interval: interval.clone(), timeout: timeout.clone() }
        };
        Some(match kind {
            Kind::Http => http("http", self.get("CHECK_HTTP_METHOD"), false),
            Kind::Https => http("https", self.get("CHECK_HTTPS_METHOD"), tls_skip_verify),
            Kind::Cmd => {
                let script = format!("check-cmd {} {} {value}", docker::short(of.container), of.port.number);
                (format!("Command {value}"), shell(script))
            }
            Kind::Script => {
                let script = value
                    .replace("$SERVICE_IP", &address.ip().to_string())
                    .replace("$SERVICE_PORT", &address.port().to_string());
                (format!("Script {script}"), shell(script))
            }
            Kind::Ttl => (format!("TTL {value}"), Probe::Ttl { ttl: self.duration("CHECK_TTL", remarks)? }),
            Kind::Tcp => (format!("TCP {address}"), Probe::Tcp { address: address.to_string(), interval, timeout }),
            Kind::Grpc => {
                let use_tls = self.get("CHECK_GRPC_USE_TLS").is_some();
                let tls_skip_verify = use_tls && tls_skip_verify;
                let probe = Probe::Grpc { address: address.to_string(), use_tls, tls_skip_verify, interval, timeout };
                (format!("gRPC {address}"), probe)
            }
        })
    }

    fn initial_status(&self, remarks: &mut Vec<String>) -> Option<CheckStatus> {
        match self.get("CHECK_INITIAL_STATUS")? {
            "passing" => Some(CheckStatus::Passing),
            "warning" => Some(CheckStatus::Warning),
            "critical" => Some(CheckStatus::Critical),
            other => {
                remarks.push(format!("SERVICE_CHECK_INITIAL_STATUS={other} is ignored: passing, warning or critical"));
                None
            }
        }
    }

    fn duration(&self, key: &str, remarks: &mut Vec<String>) -> Option<String> {
        let value = self.get(key)?;
        if is_go_duration(value) {
            return Some(value.to_owned());
        }
        remarks.push(format!("SERVICE_{key}={value} is ignored: write a duration such as 10s or 1m30s"));
        None
    }
}

/// `80_NAME` → 80, `NAME`.
fn split_port(key: &str) -> Option<(u64, &str)> {
    let (number, key) = key.split_once('_')?;
    Some((number.parse().ok()?, key))
}

/// `registry:5000/team/web:1@sha256:…` → `web`.
fn image_base(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let base = name.rsplit_once('/').map_or(name, |(_, base)| base);
    base.split_once(':').map_or(base, |(base, _)| base)
}

/// Splits at commas; `\,` is a comma inside a tag. Empty tags do not count.
fn split_tags(text: &str) -> Vec<String> {
    let mut tags = vec![String::new()];
    for part in text.split_inclusive(',') {
        let Some(tag) = tags.last_mut() else { break };
        if let Some(head) = part.strip_suffix("\\,") {
            tag.push_str(head);
            tag.push(',');
        } else if let Some(head) = part.strip_suffix(',') {
            tag.push_str(head);
            tags.push(String::new());
        } else {
            tag.push_str(part);
        }
    }
    let trimmed = tags.iter().map(|tag| tag.trim().to_owned());
    trimmed.filter(|tag| !tag.is_empty()).collect()
}

/// True for what Go's `time.ParseDuration` takes and a check can use: `10s`, `1m30s`, `1.5h`, but not `0s`, `-1s` or `10`.
fn is_go_duration(text: &str) -> bool {
    let mut rest = text;
    let mut more_than_nothing = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let Ok(number) = number.parse::<f64>() else { return false };
        let units = ["ns", "us", "µs", "ms", "s", "m", "h"];
        // `ms` before `m` and `s`: the longest unit is meant.
        let Some(unit) = units.into_iter().filter(|unit| tail.starts_with(unit)).max_by_key(|unit| unit.len()) else {
            return false;
        };
        more_than_nothing |= number > 0.0;
        rest = tail.get(unit.len()..).unwrap_or_default();
    }
    more_than_nothing
}

#[cfg(test)]
mod tests;
