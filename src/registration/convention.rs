//! Registrator's convention, which its users bring along: `SERVICE_<KEY>` and `SERVICE_<port>_<KEY>` as a label or a variable.
//!
//! Source of the rules: gliderlabs/registrator, `bridge/bridge.go` (`newService`), `bridge/util.go` (`serviceMetaData`,
//! `recParseEscapedComma`) and `consul/consul.go` (`buildCheck`). Every key is a row of [`KEYS`]; what is no row goes into Meta.
//!
//! Deviations, all towards a registration that Consul takes: a duration, status or Meta pair that Consul would refuse is left out
//! with a remark, where registrator's whole registration fails; the keys of checks do not go into Meta; a name made from
//! `image@sha256:…` leaves the digest out; where variable and label disagree, the label wins (registrator has had it both ways).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::io::consul::agent::{CheckDefinition, CheckStatus, Probe};
use crate::io::docker::{Container, Port, Protocol};

/// How often Consul looks, unless `CHECK_INTERVAL` says otherwise.
pub const DEFAULT_INTERVAL: &str = "10s";

/// What a key of the convention is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Says what the service is called and how it is found.
    Identity,
    /// Asks for a check of this kind.
    Check(Kind),
    /// Asks for a check of a kind that this version cannot make.
    CheckLater,
    /// Says more about the check.
    Modifier,
    /// Says more about a check of a kind that this version cannot make.
    ModifierLater,
}

/// Kinds of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `CHECK_HTTP=/path`.
    Http,
    /// `CHECK_TCP=true`.
    Tcp,
    /// `CHECK_TTL=30s`.
    Ttl,
}

/// Every key that is not Meta, as it follows `SERVICE_` or `SERVICE_<port>_`. Of several checks the first row wins.
pub const KEYS: [(&str, Use); 19] = [
    ("NAME", Use::Identity),
    ("ID", Use::Identity),
    ("TAGS", Use::Identity),
    ("IGNORE", Use::Identity),
    ("CHECK_HTTP", Use::Check(Kind::Http)),
    ("CHECK_HTTPS", Use::CheckLater),
    ("CHECK_CMD", Use::CheckLater),
    ("CHECK_SCRIPT", Use::CheckLater),
    ("CHECK_TTL", Use::Check(Kind::Ttl)),
    ("CHECK_TCP", Use::Check(Kind::Tcp)),
    ("CHECK_GRPC", Use::CheckLater),
    ("CHECK_INTERVAL", Use::Modifier),
    ("CHECK_TIMEOUT", Use::Modifier),
    ("CHECK_INITIAL_STATUS", Use::Modifier),
    ("CHECK_DEREGISTER_AFTER", Use::Modifier),
    ("CHECK_HTTP_METHOD", Use::Modifier),
    ("CHECK_HTTPS_METHOD", Use::ModifierLater),
    ("CHECK_GRPC_USE_TLS", Use::ModifierLater),
    ("CHECK_TLS_SKIP_VERIFY", Use::ModifierLater),
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

impl Settings {
    /// What `container` says about its port `number`: the port-specific key wins, then the label, then the variable.
    pub fn of(container: &Container, number: u16) -> Self {
        let mut values: BTreeMap<String, Setting> = BTreeMap::new();
        for source in [&container.env, &container.labels] {
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

    /// The service's tags, in order and without repeats; those of UDP end with `udp`.
    pub fn tags(&self, protocol: Protocol) -> Vec<String> {
        let mut tags = Vec::new();
        let udp = (protocol == Protocol::Udp).then(|| "udp".to_owned());
        for tag in split_tags(self.get("TAGS").unwrap_or_default()).into_iter().chain(udp) {
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

    /// The check that the container asks for, of the service `id` at `address`; what cannot be done goes into `remarks`.
    ///
    /// Its ID is the one that Consul gives to a service's only check, since programs that report to a TTL check know it by that.
    pub fn check(&self, id: &str, address: SocketAddr, remarks: &mut Vec<String>) -> Option<CheckDefinition> {
        let (key, what) = KEYS
            .iter()
            .filter(|(_, what)| matches!(what, Use::Check(_) | Use::CheckLater))
            .find(|(key, _)| self.get(key).is_some())?;
        let value = self.get(key)?;
        let Use::Check(kind) = what else {
            remarks.push(format!("SERVICE_{key} is not supported yet: registered without this check"));
            return None;
        };
        let interval = self.duration("CHECK_INTERVAL", remarks).unwrap_or_else(|| DEFAULT_INTERVAL.to_owned());
        let timeout = self.duration("CHECK_TIMEOUT", remarks);
        let (name, probe) = match kind {
            Kind::Http => {
                let slash = if value.starts_with('/') { "" } else { "/" };
                let method = self.get("CHECK_HTTP_METHOD").map(str::to_ascii_uppercase);
                let name = format!("HTTP {} {slash}{value}", method.as_deref().unwrap_or("GET"));
                (name, Probe::Http { url: format!("http://{address}{slash}{value}"), method, interval, timeout })
            }
            Kind::Tcp => (format!("TCP {address}"), Probe::Tcp { address: address.to_string(), interval, timeout }),
            Kind::Ttl => (format!("TTL {value}"), Probe::Ttl { ttl: self.duration("CHECK_TTL", remarks)? }),
        };
        Some(CheckDefinition {
            id: format!("service:{id}"),
            name,
            notes: String::new(),
            status: self.initial_status(remarks),
            probe,
            deregister_critical_service_after: self.duration("CHECK_DEREGISTER_AFTER", remarks),
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
    tags.retain(|tag| !tag.is_empty());
    tags
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
mod tests {
    use super::*;
    use crate::registration::fixture;

    const WEB: &str = "10.0.0.5:8080";

    fn settings(env: &[(&str, &str)], labels: &[(&str, &str)]) -> Settings {
        Settings::of(&fixture::container("web").env(env).labels(labels).done(), 80)
    }

    fn port(text: &str) -> Port {
        text.parse().unwrap()
    }

    // bridge.go, newService: defaultName, isgroup, metadataFromPort["name"].
    #[test]
    fn a_name_is_the_ports_then_the_containers_then_the_images() {
        #[track_caller]
        fn check(labels: &[(&str, &str)], several: bool, expect: &str) {
            assert_eq!(settings(&[], labels).name("hub:5000/team/nginx:1.2@sha256:ab", port("80"), several), expect);
        }
        check(&[], false, "nginx");
        check(&[], true, "nginx-80");
        check(&[("SERVICE_NAME", "shop")], false, "shop");
        check(&[("SERVICE_NAME", "shop")], true, "shop-80");
        check(&[("SERVICE_NAME", "shop"), ("SERVICE_80_NAME", "front")], true, "front");
        check(&[("SERVICE_NAME", "shop"), ("SERVICE_443_NAME", "tls")], true, "shop-80");
        check(&[("SERVICE_NAME", "")], false, "nginx");
    }

    // util.go, serviceMetaData.
    #[test]
    fn the_port_specific_key_wins_then_the_label() {
        #[track_caller]
        fn check(env: &[(&str, &str)], labels: &[(&str, &str)], expect: &str) {
            assert_eq!(settings(env, labels).get("NAME"), Some(expect));
        }
        check(&[("SERVICE_NAME", "env")], &[("SERVICE_NAME", "label")], "label");
        check(&[("SERVICE_80_NAME", "env")], &[("SERVICE_NAME", "label")], "env");
        check(&[("SERVICE_80_NAME", "env")], &[("SERVICE_80_NAME", "label")], "label");
        check(&[("SERVICE_NAME", "env")], &[("SERVICE_443_NAME", "label")], "env");
    }

    // bridge.go, newService: service.ID.
    #[test]
    fn an_id_is_hostname_container_and_port_unless_given() {
        #[track_caller]
        fn check(labels: &[(&str, &str)], of: &str, expect: &str) {
            assert_eq!(settings(&[], labels).id("node1", "web.1", port(of)), expect);
        }
        check(&[], "80/tcp", "node1:web.1:80");
        check(&[], "80/udp", "node1:web.1:80:udp");
        check(&[("SERVICE_ID", "mine")], "80/udp", "mine");
    }

    // util.go, recParseEscapedComma and combineTags.
    #[test]
    fn tags_are_split_at_commas_that_are_not_escaped() {
        #[track_caller]
        fn check(tags: &str, protocol: Protocol, expect: &[&str]) {
            assert_eq!(settings(&[], &[("SERVICE_TAGS", tags)]).tags(protocol), expect);
        }
        check("a,b", Protocol::Tcp, &["a", "b"]);
        check(r"rule=x\,y,b", Protocol::Tcp, &["rule=x,y", "b"]);
        check(",a,,b,", Protocol::Tcp, &["a", "b"]);
        check("", Protocol::Tcp, &[]);
        check("a", Protocol::Udp, &["a", "udp"]);
        check("a,a", Protocol::Tcp, &["a"]);
    }

    // bridge.go, newService: mapDefault(metadata, "ignore", "").
    #[test]
    fn any_value_of_ignore_counts_and_none_does_not() {
        assert!(settings(&[], &[("SERVICE_IGNORE", "false")]).ignored());
        assert!(settings(&[("SERVICE_80_IGNORE", "1")], &[]).ignored());
        assert!(!settings(&[("SERVICE_IGNORE", "")], &[]).ignored());
        assert!(!settings(&[("SERVICE_443_IGNORE", "1")], &[]).ignored());
    }

    // bridge.go, newService: service.Attrs; consul.go, Register: Meta.
    #[test]
    fn anything_else_goes_into_meta_lower_cased_and_clean() {
        #[track_caller]
        fn check(key: &str, value: &str, expect: &[(&str, &str)], remark: &str) {
            let mut remarks = Vec::new();
            let meta = settings(&[], &[(key, value), ("SERVICE_CHECK_TCP", "1")]).meta(&mut remarks);
            let meta: Vec<(&str, &str)> = meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(meta, expect);
            assert_eq!(remarks.is_empty(), remark.is_empty(), "{remarks:?}");
            assert!(remarks.concat().contains(remark), "{remarks:?}");
        }
        check("SERVICE_REGION", "eu", &[("region", "eu")], "");
        check("SERVICE_80_REGION", "eu", &[("region", "eu")], "");
        check("SERVICE_443_REGION", "eu", &[], "");
        check("SERVICE_A.B", "x", &[("a_b", "x")], "letters, digits");
        check("SERVICE_CONSUL-X", "x", &[], "consul takes no such key");
        check("SERVICE_SK-OWNER", "x", &[], "consul takes no such key");
        check("SERVICE_LONG", &"é".repeat(300), &[("long", &"é".repeat(256))], "cut to 512 bytes");
    }

    // consul.go, buildCheck.
    #[test]
    fn of_several_checks_the_first_of_the_table_wins() {
        #[track_caller]
        fn check(labels: &[(&str, &str)], expect: Option<&Probe>, remark: &str) {
            let mut remarks = Vec::new();
            let got = settings(&[], labels).check("id", WEB.parse().unwrap(), &mut remarks);
            assert_eq!(got.as_ref().map(|check| &check.probe), expect);
            assert_eq!(remarks.is_empty(), remark.is_empty(), "{remarks:?}");
            assert!(remarks.concat().contains(remark), "{remarks:?}");
        }
        let http = |url: &str, method: Option<&str>, interval: &str, timeout: Option<&str>| Probe::Http {
            url: url.to_owned(),
            method: method.map(ToOwned::to_owned),
            interval: interval.to_owned(),
            timeout: timeout.map(ToOwned::to_owned),
        };
        let tcp = Probe::Tcp { address: WEB.to_owned(), interval: "10s".to_owned(), timeout: None };
        check(&[], None, "");
        check(&[("SERVICE_CHECK_HTTP", "/up")], Some(&http("http://10.0.0.5:8080/up", None, "10s", None)), "");
        check(
            &[
                ("SERVICE_CHECK_HTTP", "up"),
                ("SERVICE_CHECK_HTTP_METHOD", "head"),
                ("SERVICE_CHECK_INTERVAL", "1m30s"),
                ("SERVICE_CHECK_TIMEOUT", "2s"),
                ("SERVICE_CHECK_TCP", "1"),
            ],
            Some(&http("http://10.0.0.5:8080/up", Some("HEAD"), "1m30s", Some("2s"))),
            "",
        );
        check(
            &[("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_INTERVAL", "10")],
            Some(&tcp),
            "CHECK_INTERVAL=10 is ignored",
        );
        check(&[("SERVICE_CHECK_TTL", "30s")], Some(&Probe::Ttl { ttl: "30s".to_owned() }), "");
        check(&[("SERVICE_CHECK_TTL", "soon")], None, "CHECK_TTL=soon is ignored");
        check(&[("SERVICE_CHECK_HTTPS", "/up"), ("SERVICE_CHECK_TCP", "1")], None, "CHECK_HTTPS is not supported yet");
        check(&[("SERVICE_CHECK_SCRIPT", "x"), ("SERVICE_CHECK_TTL", "1s")], None, "CHECK_SCRIPT is not supported yet");
    }

    #[test]
    fn modifiers_reach_the_check_and_bad_ones_are_named() {
        let mut remarks = Vec::new();
        let labels = [
            ("SERVICE_CHECK_TCP", "1"),
            ("SERVICE_CHECK_INITIAL_STATUS", "passing"),
            ("SERVICE_CHECK_DEREGISTER_AFTER", "10m"),
        ];
        let check = settings(&[], &labels).check("id", WEB.parse().unwrap(), &mut remarks).unwrap();
        assert_eq!((check.id.as_str(), check.status), ("service:id", Some(CheckStatus::Passing)));
        assert_eq!(check.deregister_critical_service_after.as_deref(), Some("10m"));
        let labels = [("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_INITIAL_STATUS", "up")];
        assert_eq!(settings(&[], &labels).check("id", WEB.parse().unwrap(), &mut remarks).unwrap().status, None);
        assert_eq!(remarks, ["SERVICE_CHECK_INITIAL_STATUS=up is ignored: passing, warning or critical"]);
    }

    #[test]
    fn an_ipv6_address_is_bracketed_in_a_check() {
        let address = SocketAddr::new("fd00::5".parse().unwrap(), 80);
        let check = settings(&[], &[("SERVICE_CHECK_HTTP", "/")]).check("id", address, &mut Vec::new()).unwrap();
        assert!(matches!(check.probe, Probe::Http { url, .. } if url == "http://[fd00::5]:80/"));
    }

    #[test]
    fn a_duration_is_what_go_takes() {
        for good in ["10s", "1m30s", "1.5h", "500ms", "100µs"] {
            assert!(is_go_duration(good), "{good}");
        }
        for bad in ["", "10", "0s", "-1s", "s", "10 s", "1d", "1..5s"] {
            assert!(!is_go_duration(bad), "{bad}");
        }
    }

    #[test]
    fn every_key_is_listed_once() {
        let mut keys = KEYS.map(|(key, _)| key).to_vec();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), KEYS.len());
    }
}
