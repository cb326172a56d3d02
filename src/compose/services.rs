//! A service's keys, as one file says them.

use std::collections::BTreeMap;

use super::deploy::{self, Deploy};
use super::env;
use super::files::{self, FileUse};
use super::networks::{self, NetworkUse};
use super::ports;
use super::read::{Ctx, Ignored, Mapping, duration};
use super::volumes::{self, VolumeUse};
use crate::spec::{CredentialSpec, Driver, Healthcheck, Labels, PortConfig, Ulimit};
use crate::yaml::{Field, MapReader, Value};

/// A service before merging.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub image: String,
    pub command: Vec<String>,
    pub entrypoint: Vec<String>,
    /// With what `env_file`s and the declared environment add.
    pub environment: Mapping,
    pub labels: Labels,
    pub hostname: String,
    pub user: String,
    pub working_dir: String,
    pub stop_signal: String,
    pub isolation: String,
    pub restart: String,
    pub tty: bool,
    pub stdin_open: bool,
    pub read_only: bool,
    pub init: Option<bool>,
    pub stop_grace_period: Option<i64>,
    /// `ip host` lines.
    pub extra_hosts: Vec<String>,
    pub dns: Option<Vec<String>>,
    pub dns_search: Option<Vec<String>>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub sysctls: Labels,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub healthcheck: Option<HealthcheckDef>,
    pub credential_spec: CredentialSpec,
    pub logging: Option<Driver>,
    /// A list that is absent is merged otherwise than an empty one.
    pub ports: Option<Vec<PortConfig>>,
    pub volumes: Option<Vec<VolumeUse>>,
    pub tmpfs: Vec<VolumeUse>,
    pub networks: BTreeMap<String, Option<NetworkUse>>,
    pub secrets: Option<Vec<FileUse>>,
    pub configs: Option<Vec<FileUse>>,
    pub depends_on: Vec<Dependency>,
    pub deploy: Deploy,
}

/// HEALTHCHECK before merging.
#[derive(Debug, Default)]
pub(super) struct HealthcheckDef {
    pub check: Healthcheck,
    pub retries: Option<i64>,
    pub disable: bool,
}

/// A service that goes first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dependency {
    pub service: String,
    /// False if it may be absent.
    pub required: bool,
}

/// Keys that `docker stack deploy` refuses, and what to do instead. They are refused leniently too: a stack without its
/// memory limits, or without the half of it that `extends` brings, is not what the file says.
const FORBIDDEN: &[Ignored] = &[
    ("extends", "write the service out, or merge several files"),
    ("volume_driver", "give the driver in the top-level volumes section"),
    ("volumes_from", "declare the volume at the top level and name it in each service that shares it"),
    ("cpu_quota", "use deploy.resources"),
    ("cpu_shares", "use deploy.resources"),
    ("cpuset", "use deploy.resources"),
    ("mem_limit", "use deploy.resources"),
    ("memswap_limit", "use deploy.resources"),
];

/// Keys that `docker stack deploy` accepts and ignores.
const IGNORED: &[Ignored] = &[
    ("build", "build the image before, and push it"),
    ("cgroup_parent", ""),
    ("cgroupns_mode", ""),
    ("container_name", "the engine names a service's containers; other services reach it by its service name"),
    ("devices", ""),
    ("domainname", ""),
    ("expose", "services of one network reach each other on every port"),
    ("external_links", ""),
    ("ipc", ""),
    ("links", "services of one network reach each other by name"),
    ("mac_address", ""),
    ("network_mode", "use networks; for the host's, an external network named host"),
    ("oom_score_adj", "docker stack deploy does not send it"),
    ("pid", ""),
    ("privileged", "use cap_add"),
    ("security_opt", ""),
    ("shm_size", "mount a tmpfs at /dev/shm"),
    ("tmpfs", "docker stack deploy does not send it; write {type: tmpfs, target: …} under volumes"),
    ("userns_mode", ""),
];

/// Further keys of the compose-spec.
const SPEC_ONLY: &[Ignored] = &[
    ("annotations", ""),
    ("attach", ""),
    ("blkio_config", ""),
    ("cgroup", ""),
    ("cpu_count", "use deploy.resources"),
    ("cpu_percent", "use deploy.resources"),
    ("cpu_period", "use deploy.resources"),
    ("cpu_rt_period", ""),
    ("cpu_rt_runtime", ""),
    ("cpus", "use deploy.resources"),
    ("develop", ""),
    ("device_cgroup_rules", ""),
    ("dns_opt", ""),
    ("driver_opts", ""),
    ("gpus", "use deploy.resources.reservations.generic_resources"),
    ("group_add", ""),
    ("label_file", "write the labels into the file"),
    ("mem_reservation", "use deploy.resources"),
    ("mem_swappiness", ""),
    ("models", ""),
    ("oom_kill_disable", ""),
    ("pids_limit", "use deploy.resources.limits.pids"),
    ("platform", "use deploy.placement.constraints"),
    ("post_start", ""),
    ("pre_stop", ""),
    ("profiles", "the service runs always"),
    ("provider", ""),
    ("pull_policy", ""),
    ("pull_refresh_after", ""),
    ("runtime", ""),
    ("scale", "use deploy.replicas"),
    ("storage_opt", ""),
    ("use_api_socket", ""),
    ("uts", ""),
];

/// Reads `services.<key>`.
pub(super) fn read(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Service {
    let mut map = field.map();
    let r = &mut map;
    refuse_forbidden(r);
    let service = Service {
        image: image(r, ctx),
        command: r.take("command").and_then(|f| ctx.command(&f)).unwrap_or_default(),
        entrypoint: r.take("entrypoint").and_then(|f| ctx.command(&f)).unwrap_or_default(),
        environment: env::read(r, ctx),
        labels: r.take("labels").and_then(|f| ctx.labels(&f)).unwrap_or_default(),
        hostname: text(r, "hostname", ctx),
        user: text(r, "user", ctx),
        working_dir: text(r, "working_dir", ctx),
        stop_signal: text(r, "stop_signal", ctx),
        isolation: text(r, "isolation", ctx),
        restart: text(r, "restart", ctx),
        tty: flag(r, "tty", ctx),
        stdin_open: flag(r, "stdin_open", ctx),
        read_only: flag(r, "read_only", ctx),
        init: r.take("init").and_then(|f| ctx.flag(&f)),
        stop_grace_period: r.take("stop_grace_period").and_then(|f| duration(&f)),
        extra_hosts: r.take("extra_hosts").map(|f| extra_hosts(&f, ctx)).unwrap_or_default(),
        dns: r.take("dns").and_then(|f| ctx.text_or_texts(&f)),
        dns_search: r.take("dns_search").and_then(|f| ctx.text_or_texts(&f)),
        cap_add: r.take("cap_add").and_then(|f| ctx.texts(&f)).unwrap_or_default(),
        cap_drop: r.take("cap_drop").and_then(|f| ctx.texts(&f)).unwrap_or_default(),
        sysctls: r.take("sysctls").and_then(|f| ctx.labels(&f)).unwrap_or_default(),
        ulimits: r.take("ulimits").map(|f| ulimits(&f, ctx)).unwrap_or_default(),
        healthcheck: r.take("healthcheck").map(|f| healthcheck(&f, ctx)),
        credential_spec: r.take("credential_spec").map(|f| credential_spec(&f, ctx)).unwrap_or_default(),
        logging: r.take("logging").map(|f| logging(&f, ctx)),
        ports: r.take("ports").map(|f| ports::read(&f, ctx)),
        volumes: r.take("volumes").map(|f| volumes::read_uses(&f, ctx)),
        tmpfs: if ctx.lenient() { r.take("tmpfs").map(|f| volumes::read_tmpfs(&f, ctx)) } else { None }
            .unwrap_or_default(),
        networks: r.take("networks").map(|f| networks::read_uses(&f, ctx)).unwrap_or_default(),
        secrets: r.take("secrets").map(|f| files::read_uses(&f, ctx)),
        configs: r.take("configs").map(|f| files::read_uses(&f, ctx)),
        depends_on: r.take("depends_on").map(|f| depends_on(&f, ctx)).unwrap_or_default(),
        deploy: r.take("deploy").map(|f| deploy::read(&f, ctx)).unwrap_or_default(),
    };
    ctx.finish(map, IGNORED, SPEC_ONLY);
    service
}

/// Is `key` one that [`read`] refuses, and says what to do instead?
pub(super) fn is_forbidden(key: &str) -> bool {
    FORBIDDEN.iter().any(|(forbidden, _)| *forbidden == key)
}

fn refuse_forbidden(reader: &mut MapReader<'_, '_>) {
    for (key, mend) in FORBIDDEN {
        if let Some(field) = reader.take_any(key) {
            field.wrong(format!("{key} is not supported in a swarm"), *mend);
        }
    }
}

fn text(reader: &mut MapReader<'_, '_>, key: &'static str, ctx: &Ctx<'_>) -> String {
    reader.take(key).and_then(|field| ctx.text(&field)).unwrap_or_default()
}

fn flag(reader: &mut MapReader<'_, '_>, key: &'static str, ctx: &Ctx<'_>) -> bool {
    reader.take(key).and_then(|field| ctx.flag(&field)).unwrap_or_default()
}

fn image(reader: &mut MapReader<'_, '_>, ctx: &Ctx<'_>) -> String {
    let Some(field) = reader.take("image") else { return String::new() };
    let Some(image) = ctx.text(&field) else { return String::new() };
    // An image by its bare ID is no reference, and fine all the same.
    if !is_image_id(&image)
        && let Err(error) = crate::image::ImageRef::parse(&image)
    {
        field.wrong(error.to_string(), "");
    }
    image
}

/// 64 hexadecimal digits, or `sha256:` and 64 of them.
pub(super) fn is_image_id(image: &str) -> bool {
    let id = image.strip_prefix("sha256:").unwrap_or(image);
    id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A map `host: ip`, or a list of `host:ip` or `host=ip`, as lines `ip host`; a map comes out sorted.
fn extra_hosts(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<String> {
    let mut hosts = Vec::new();
    if field.node.as_map().is_some() {
        for (entry, value) in field.entries("a map").unwrap_or_default() {
            match ctx.text(&value) {
                Some(ip) => hosts.push(format!("{}:{ip}", entry.key)),
                None => ctx.warn_field(&value, "a host without an address is left out", ""),
            }
        }
        hosts.sort_unstable();
    } else {
        for item in field.items("a map or a list of host:ip").unwrap_or_default() {
            let Some(host) = ctx.text(&item).map(|text| text.replacen('=', ":", 1)) else { continue };
            if host.contains(':') {
                hosts.push(host);
            } else {
                ctx.warn_field(&item, "a host without an address is left out", "write host:ip");
            }
        }
    }
    hosts.iter().filter_map(|host| host.split_once(':')).map(|(host, ip)| format!("{} {host}", bare(ip))).collect()
}

/// An IPv6 address without brackets.
fn bare(ip: &str) -> &str {
    ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).filter(|ip| !ip.is_empty()).unwrap_or(ip)
}

fn ulimits(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> BTreeMap<String, Ulimit> {
    let mut ulimits = BTreeMap::new();
    for (entry, value) in field.entries("a map").unwrap_or_default() {
        let (soft, hard) = if value.node.as_map().is_some() {
            let mut r = value.map();
            let soft = r.required("soft").and_then(|f| ctx.number(&f));
            let hard = r.required("hard").and_then(|f| ctx.number(&f));
            ctx.finish(r, &[], &[]);
            (soft, hard)
        } else {
            let single = ctx.number(&value);
            (single, single)
        };
        if let (Some(soft), Some(hard)) = (soft, hard) {
            let name = entry.key.clone();
            ulimits.insert(name.clone(), Ulimit { name, hard, soft, ..Ulimit::default() });
        }
    }
    ulimits
}

fn healthcheck(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> HealthcheckDef {
    let mut r = field.map();
    let test = r.take("test").and_then(|f| match &f.node.value {
        Value::String(command) => Some(vec!["CMD-SHELL".to_owned(), command.clone()]),
        _ => ctx.text_or_texts(&f),
    });
    let mut nanos = |key| r.take(key).and_then(|f| duration(&f)).unwrap_or_default();
    let check = Healthcheck {
        test,
        interval: nanos("interval"),
        timeout: nanos("timeout"),
        start_period: nanos("start_period"),
        start_interval: nanos("start_interval"),
        ..Healthcheck::default()
    };
    let retries = r.take("retries").and_then(|f| ctx.cut_number::<u32>(&f)).map(i64::from);
    let disable = r.take("disable").and_then(|f| ctx.flag(&f)).unwrap_or_default();
    ctx.finish(r, &[], &[]);
    HealthcheckDef { check, retries, disable }
}

fn credential_spec(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> CredentialSpec {
    let mut r = field.map();
    let spec = CredentialSpec {
        config: text(&mut r, "config", ctx),
        file: text(&mut r, "file", ctx),
        registry: text(&mut r, "registry", ctx),
        ..CredentialSpec::default()
    };
    ctx.finish(r, &[], &[]);
    spec
}

fn logging(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Driver {
    let mut r = field.map();
    let driver = Driver {
        name: text(&mut r, "driver", ctx),
        options: r.take("options").and_then(|f| ctx.options(&f)),
        ..Driver::default()
    };
    ctx.finish(r, &[], &[]);
    driver
}

/// A list of services, or leniently the compose-spec's map.
fn depends_on(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<Dependency> {
    if field.node.as_map().is_none() || !ctx.lenient() {
        let services = ctx.texts(field).unwrap_or_default();
        return services.into_iter().map(|service| Dependency { service, required: true }).collect();
    }
    let mut dependencies = Vec::new();
    for (entry, value) in field.entries("a map or a list of services").unwrap_or_default() {
        let mut r = value.map();
        let required = r.take("required").and_then(|f| ctx.flag(&f)).unwrap_or(true);
        if let Some(condition) = r.take("condition") {
            ctx.word(&condition, &["service_started", "service_healthy", "service_completed_successfully"]);
        }
        ctx.finish(r, &[], &[("restart", "")]);
        dependencies.push(Dependency { service: entry.key.clone(), required });
    }
    dependencies
}
