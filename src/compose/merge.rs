//! Several files into one, by the rules of `docker stack deploy`:
//!
//! * services merge key by key; top-level networks, volumes, secrets and configs are replaced whole
//! * maps merge; a command or an entrypoint is replaced if it is not empty; other lists append
//! * ports are keyed by published port, volumes by target, secrets and configs by source, each sorted by its key; but where
//!   the files before have no such list at all, it stays as it is
//! * a zero value (empty text, `false`, `0s`) overrides nothing, except `replicas`, `parallelism`, `max_attempts` and `retries`
//!
//! Where these rules lose something that a reader of both files would not expect to lose, a warning says so.

use std::collections::BTreeMap;

use super::deploy::{Deploy, Update};
use super::file::ComposeFile;
use super::networks::NetworkUse;
use super::read::{Ctx, Mapping};
use super::services::{HealthcheckDef, Service};
use crate::model::Finding;
use crate::spec::{Driver, Placement, PortConfig, Resources, RestartPolicy, UpdateConfig};

/// `over` on top of `base`.
pub(super) fn merge(mut base: ComposeFile, over: ComposeFile, ctx: &Ctx<'_>) -> ComposeFile {
    for (key, service) in over.services {
        let merged = match base.services.remove(&key) {
            Some(below) => services(&key, below, service, ctx),
            None => service,
        };
        base.services.insert(key, merged);
    }
    base.networks.extend(over.networks);
    base.volumes.extend(over.volumes);
    base.secrets.extend(over.secrets);
    base.configs.extend(over.configs);
    base
}

fn services(key: &str, base: Service, over: Service, ctx: &Ctx<'_>) -> Service {
    let warn = |what: &str, message: String, mend: &str| {
        let path = format!("services.{key}.{what}");
        ctx.warnings.add(Finding { location: None, path, message, mend: mend.to_owned() });
    };
    Service {
        image: text(base.image, over.image),
        command: replaced(base.command, over.command),
        entrypoint: replaced(base.entrypoint, over.entrypoint),
        environment: environment(base.environment, over.environment),
        labels: map(base.labels, over.labels),
        hostname: text(base.hostname, over.hostname),
        user: text(base.user, over.user),
        working_dir: text(base.working_dir, over.working_dir),
        stop_signal: text(base.stop_signal, over.stop_signal),
        isolation: text(base.isolation, over.isolation),
        restart: text(base.restart, over.restart),
        tty: base.tty || over.tty,
        stdin_open: base.stdin_open || over.stdin_open,
        read_only: base.read_only || over.read_only,
        init: not_zero(base.init, over.init),
        stop_grace_period: not_zero(base.stop_grace_period, over.stop_grace_period),
        extra_hosts: appended(base.extra_hosts, over.extra_hosts),
        dns: appended_if_given(base.dns, over.dns),
        dns_search: appended_if_given(base.dns_search, over.dns_search),
        cap_add: appended(base.cap_add, over.cap_add),
        cap_drop: appended(base.cap_drop, over.cap_drop),
        sysctls: map(base.sysctls, over.sysctls),
        ulimits: map(base.ulimits, over.ulimits),
        healthcheck: both(base.healthcheck, over.healthcheck, |base, over| healthcheck(base, over, &warn)),
        credential_spec: crate::spec::CredentialSpec {
            config: text(base.credential_spec.config, over.credential_spec.config),
            file: text(base.credential_spec.file, over.credential_spec.file),
            registry: text(base.credential_spec.registry, over.credential_spec.registry),
            ..Default::default()
        },
        logging: both(base.logging, over.logging, |base, over| logging(base, over, &warn)),
        ports: ports(base.ports, over.ports, &warn),
        volumes: keyed(base.volumes, over.volumes, |volume| volume.target.clone()),
        tmpfs: appended(base.tmpfs, over.tmpfs),
        networks: networks(base.networks, over.networks),
        secrets: keyed(base.secrets, over.secrets, |secret| secret.source.clone()),
        configs: keyed(base.configs, over.configs, |config| config.source.clone()),
        depends_on: appended(base.depends_on, over.depends_on),
        deploy: deploy(base.deploy, over.deploy),
    }
}

fn text(base: String, over: String) -> String {
    if over.is_empty() { base } else { over }
}

fn replaced<T>(base: Vec<T>, over: Vec<T>) -> Vec<T> {
    if over.is_empty() { base } else { over }
}

fn appended<T>(mut base: Vec<T>, over: Vec<T>) -> Vec<T> {
    base.extend(over);
    base
}

/// An empty list over none is none.
fn appended_if_given<T>(base: Option<Vec<T>>, over: Option<Vec<T>>) -> Option<Vec<T>> {
    both(base, over.filter(|over| !over.is_empty()), appended)
}

fn map<T>(mut base: BTreeMap<String, T>, over: BTreeMap<String, T>) -> BTreeMap<String, T> {
    base.extend(over);
    base
}

fn both<T>(base: Option<T>, over: Option<T>, merge: impl FnOnce(T, T) -> T) -> Option<T> {
    match (base, over) {
        (Some(base), Some(over)) => Some(merge(base, over)),
        (base, over) => over.or(base),
    }
}

/// A zero overrides nothing that is there.
fn not_zero<T: Default + PartialEq>(base: Option<T>, over: Option<T>) -> Option<T> {
    both(base, over, |base, over| if over == T::default() { base } else { over })
}

fn number<T: Default + PartialEq>(base: T, over: T) -> T {
    if over == T::default() { base } else { over }
}

/// A variable without value, or with an empty one, overrides nothing but one without value.
fn environment(mut base: Mapping, over: Mapping) -> Mapping {
    for (name, value) in over {
        let filled = value.as_ref().is_some_and(|value| !value.is_empty());
        match base.get(&name) {
            Some(Some(_)) if !filled => {}
            Some(None) if value.is_none() => {}
            _ => {
                base.insert(name, value);
            }
        }
    }
    base
}

/// The later of two with the same key, sorted by key; a list over none stays as it is.
fn keyed<T, K: Ord>(base: Option<Vec<T>>, over: Option<Vec<T>>, key: impl Fn(&T) -> K) -> Option<Vec<T>> {
    let Some(base) = base else { return over.filter(|over| !over.is_empty()) };
    let items = base.into_iter().chain(over.into_iter().flatten());
    let by_key: BTreeMap<K, T> = items.map(|item| (key(&item), item)).collect();
    Some(by_key.into_values().collect())
}

fn ports(
    base: Option<Vec<PortConfig>>,
    over: Option<Vec<PortConfig>>,
    warn: &impl Fn(&str, String, &str),
) -> Option<Vec<PortConfig>> {
    let Some(base) = base else { return over.filter(|over| !over.is_empty()) };
    let over = over.unwrap_or_default();
    let mut by_published: BTreeMap<u32, PortConfig> = BTreeMap::new();
    for (overriding, port) in
        base.into_iter().map(|port| (false, port)).chain(over.into_iter().map(|port| (true, port)))
    {
        let (published, protocol) = (port.published_port, port.protocol.clone());
        let Some(lost) = by_published.insert(published, port) else { continue };
        if !overriding || lost.protocol != protocol || published == 0 {
            let message = format!(
                "{}/{} is dropped: when files are merged, one port stays for each published one ({published})",
                lost.target_port, lost.protocol
            );
            warn("ports", message, "write all ports in one file and merge none into this service");
        }
    }
    Some(by_published.into_values().collect())
}

fn healthcheck(base: HealthcheckDef, over: HealthcheckDef, warn: &impl Fn(&str, String, &str)) -> HealthcheckDef {
    if base.check.test.is_some() && over.check.test.is_some() {
        let message = "the tests of the files are joined to one command line, as docker stack deploy does";
        warn("healthcheck.test", message.to_owned(), "write the test in one file only");
    }
    HealthcheckDef {
        check: crate::spec::Healthcheck {
            test: appended_if_given(base.check.test, over.check.test),
            interval: number(base.check.interval, over.check.interval),
            timeout: number(base.check.timeout, over.check.timeout),
            start_period: number(base.check.start_period, over.check.start_period),
            start_interval: number(base.check.start_interval, over.check.start_interval),
            ..Default::default()
        },
        retries: over.retries.or(base.retries),
        disable: base.disable || over.disable,
    }
}

/// Another driver replaces all; options of the same one merge, if the first file has any.
fn logging(base: Driver, over: Driver, warn: &impl Fn(&str, String, &str)) -> Driver {
    if !base.name.is_empty() && !over.name.is_empty() && base.name != over.name {
        return over;
    }
    let options = match (base.options, over.options) {
        (Some(base), Some(over)) => Some(map(base, over)),
        (base, over) => {
            if base.is_none() && over.is_some() {
                let message = "the options are lost, since the file before has none to merge them with";
                warn("logging.options", message.to_owned(), "write an option in the first file too");
            }
            base
        }
    };
    Driver { name: text(base.name, over.name), options, ..Driver::default() }
}

/// Aliases are replaced, driver options stay as the first file has them.
fn networks(
    mut base: BTreeMap<String, Option<NetworkUse>>,
    over: BTreeMap<String, Option<NetworkUse>>,
) -> BTreeMap<String, Option<NetworkUse>> {
    for (key, network) in over {
        let below = base.remove(&key).flatten();
        let merged = both(below, network, |below, over| NetworkUse { aliases: over.aliases, ..below });
        base.insert(key, merged);
    }
    base
}

fn deploy(base: Deploy, over: Deploy) -> Deploy {
    Deploy {
        mode: text(base.mode, over.mode),
        replicas: over.replicas.or(base.replicas),
        labels: map(base.labels, over.labels),
        update: both(base.update, over.update, update),
        rollback: both(base.rollback, over.rollback, update),
        restart_policy: both(base.restart_policy, over.restart_policy, |base, over| RestartPolicy {
            condition: text(base.condition, over.condition),
            delay: not_zero(base.delay, over.delay),
            max_attempts: over.max_attempts.or(base.max_attempts),
            window: not_zero(base.window, over.window),
            ..RestartPolicy::default()
        }),
        placement: Placement {
            constraints: appended_if_given(base.placement.constraints, over.placement.constraints),
            preferences: appended_if_given(base.placement.preferences, over.placement.preferences),
            max_replicas: number(base.placement.max_replicas, over.placement.max_replicas),
            ..Placement::default()
        },
        limits: both(base.limits, over.limits, resources),
        reservations: both(base.reservations, over.reservations, resources),
        endpoint_mode: text(base.endpoint_mode, over.endpoint_mode),
    }
}

fn update(base: Update, over: Update) -> Update {
    let ratio =
        if over.config.max_failure_ratio > 0.0 { over.config.max_failure_ratio } else { base.config.max_failure_ratio };
    Update {
        parallelism: over.parallelism.or(base.parallelism),
        config: UpdateConfig {
            delay: number(base.config.delay, over.config.delay),
            failure_action: text(base.config.failure_action, over.config.failure_action),
            monitor: number(base.config.monitor, over.config.monitor),
            max_failure_ratio: ratio,
            order: text(base.config.order, over.config.order),
            ..UpdateConfig::default()
        },
    }
}

fn resources(base: Resources, over: Resources) -> Resources {
    Resources {
        nano_cpus: number(base.nano_cpus, over.nano_cpus),
        memory_bytes: number(base.memory_bytes, over.memory_bytes),
        pids: number(base.pids, over.pids),
        generic_resources: appended_if_given(base.generic_resources, over.generic_resources),
        ..Resources::default()
    }
}
