//! A service's spec → its part of a compose file.

use super::names::{Names, Sections, put_labels, put_map, put_text};
use super::yaml::Yaml;
use crate::image::ImageRef;
use crate::spec::{
    ContainerSpec, FileTarget, Healthcheck, LABEL_IMAGE, Mount, NetworkAttachment, PortConfig, Resources,
    RestartPolicy, ServiceMode, ServiceSpec, UpdateConfig,
};

const FILE_MODE_DEFAULT: u32 = 0o444;

/// The service `key`; what it refers to is declared in `names`.
pub(super) fn yaml(key: &str, spec: &ServiceSpec, names: &mut Names<'_>) -> Yaml {
    let container = &spec.task_template.container_spec;
    let mut map = vec![("image".to_owned(), Yaml::text(image(key, spec, names)))];
    texts(&mut map, "entrypoint", container.command.as_deref());
    texts(&mut map, "command", container.args.as_deref());
    for (key, value) in [
        ("hostname", &container.hostname),
        ("user", &container.user),
        ("working_dir", &container.dir),
        ("stop_signal", &container.stop_signal),
    ] {
        put_text(&mut map, key, value.as_deref().unwrap_or_default());
    }
    let isolation = container.isolation.as_deref().filter(|isolation| *isolation != "default");
    put_text(&mut map, "isolation", isolation.unwrap_or_default());
    for (key, is) in [("tty", container.tty), ("stdin_open", container.open_stdin), ("read_only", container.read_only)]
    {
        if is {
            map.push((key.to_owned(), Yaml::raw(&true)));
        }
    }
    if let Some(init) = container.init {
        map.push(("init".to_owned(), Yaml::raw(&init)));
    }
    if let Some(period) = container.stop_grace_period {
        map.push(("stop_grace_period".to_owned(), duration(period)));
    }
    texts(&mut map, "environment", container.env.as_deref());
    put_labels(&mut map, container.labels.as_ref());
    if let Some(check) = &container.healthcheck {
        map.push(("healthcheck".to_owned(), healthcheck(check)));
    }
    if let Some(hosts) = &container.hosts {
        let host = |line: &String| line.split_once(' ').map_or(line.clone(), |(ip, host)| format!("{host}:{ip}"));
        texts(&mut map, "extra_hosts", Some(&hosts.iter().map(host).collect::<Vec<_>>()));
    }
    if let Some(dns) = &container.dns_config {
        texts(&mut map, "dns", dns.nameservers.as_deref());
        texts(&mut map, "dns_search", dns.search.as_deref());
    }
    texts(&mut map, "cap_add", container.capability_add.as_deref());
    texts(&mut map, "cap_drop", container.capability_drop.as_deref());
    put_map(&mut map, "sysctls", container.sysctls.as_ref());
    ulimits(&mut map, container);
    if let Some(driver) = &spec.task_template.log_driver {
        let mut logging = Vec::new();
        put_text(&mut logging, "driver", &driver.name);
        put_map(&mut logging, "options", driver.options.as_ref());
        map.push(("logging".to_owned(), Yaml::Map(logging)));
    }
    let ports = spec.endpoint_spec.iter().flat_map(|endpoint| endpoint.ports.iter().flatten());
    list(&mut map, "ports", ports.map(port).collect());
    networks(&mut map, key, spec.task_template.networks.as_deref().unwrap_or_default(), names);
    list(&mut map, "volumes", container.mounts.iter().flatten().map(|one| mount(one, names)).collect());
    files(&mut map, container, names);
    credential_spec(&mut map, container, names);
    let deploy = deploy(spec);
    if !deploy.is_empty() {
        map.push(("deploy".to_owned(), Yaml::Map(deploy)));
    }
    Yaml::Map(map)
}

/// The text that the CLI was given, which keeps the digest that lives; without it the image as it lives.
fn image(key: &str, spec: &ServiceSpec, names: &mut Names<'_>) -> String {
    let live = &spec.task_template.container_spec.image;
    let without_digest = live.split_once('@').map_or(live.as_str(), |(name, _)| name);
    let label = spec.labels.as_ref().and_then(|labels| labels.get(LABEL_IMAGE));
    let Some(text) = label.filter(|text| ImageRef::parse(text).is_ok()) else {
        // A stack's service runs by digest anyway, and a text without one can follow its tag.
        return if names.stack().is_some() { without_digest } else { live }.to_owned();
    };
    let familiar = |text: &str| ImageRef::parse(text).map_or_else(|_| text.to_owned(), |image| image.familiar());
    if familiar(text) != familiar(without_digest) && familiar(text) != familiar(live) {
        names.remark(format!(
            "{key} was deployed as {text} and updated by hand to {without_digest}; that is what lives, and stays"
        ));
    }
    text.clone()
}

fn texts(map: &mut Sections, key: &str, texts: Option<&[String]>) {
    list(map, key, texts.unwrap_or_default().iter().map(Yaml::text).collect());
}

fn list(map: &mut Sections, key: &str, items: Vec<Yaml>) {
    if !items.is_empty() {
        map.push((key.to_owned(), Yaml::List(items)));
    }
}

/// Nanoseconds in the largest unit that says them exactly, as Go reads durations.
fn duration(nanos: i64) -> Yaml {
    let units =
        [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    let exact = units.iter().find(|(_, unit)| nanos != 0 && nanos % unit == 0);
    let (unit, nanos) = exact.map_or(("ns", nanos), |(unit, size)| (*unit, nanos / size));
    Yaml::text(if nanos == 0 { "0s".to_owned() } else { format!("{nanos}{unit}") })
}

/// Bytes in the largest unit that says them exactly.
fn bytes(bytes: i64) -> Yaml {
    let units = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    let exact = units.iter().find(|(_, unit)| bytes % unit == 0);
    Yaml::text(exact.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size)))
}

/// CPUs × 10⁹ as a decimal number.
fn cpus(nanos: i64) -> Yaml {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    Yaml::text(text.trim_end_matches('0').trim_end_matches('.'))
}

fn healthcheck(check: &Healthcheck) -> Yaml {
    let mut map = Vec::new();
    match check.test.as_deref() {
        Some([none]) if none == "NONE" => map.push(("disable".to_owned(), Yaml::raw(&true))),
        test => texts(&mut map, "test", test),
    }
    for (key, nanos) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start_period", check.start_period),
        ("start_interval", check.start_interval),
    ] {
        if nanos != 0 {
            map.push((key.to_owned(), duration(nanos)));
        }
    }
    if check.retries != 0 {
        map.push(("retries".to_owned(), Yaml::raw(&check.retries)));
    }
    Yaml::Map(map)
}

fn ulimits(map: &mut Sections, container: &ContainerSpec) {
    let limits = container.ulimits.iter().flatten().map(|limit| {
        let both = vec![("soft".to_owned(), Yaml::raw(&limit.soft)), ("hard".to_owned(), Yaml::raw(&limit.hard))];
        (limit.name.clone(), if limit.soft == limit.hard { Yaml::raw(&limit.soft) } else { Yaml::Map(both) })
    });
    let limits: Sections = limits.collect();
    if !limits.is_empty() {
        map.push(("ulimits".to_owned(), Yaml::Map(limits)));
    }
}

fn port(port: &PortConfig) -> Yaml {
    let mut map = vec![("target".to_owned(), Yaml::raw(&port.target_port))];
    if port.published_port != 0 {
        map.push(("published".to_owned(), Yaml::raw(&port.published_port)));
    }
    for (key, text, default) in [("protocol", &port.protocol, "tcp"), ("mode", &port.publish_mode, "ingress")] {
        if text != default {
            put_text(&mut map, key, text);
        }
    }
    Yaml::Map(map)
}

/// Nothing where the service is on the stack's default network alone, as a file without the key means it.
fn networks(map: &mut Sections, service: &str, attachments: &[NetworkAttachment], names: &mut Names<'_>) {
    let mut uses: Sections = Vec::new();
    for attachment in attachments {
        let Some((key, network)) = names.network(&attachment.target) else {
            names.remark(format!("{service} is on the network {}, which nobody knows", attachment.target));
            continue;
        };
        let mut aliases = attachment.aliases.clone().unwrap_or_default();
        // Deploying adds the service's name again, though not on the engine's own networks.
        let is_predefined = matches!(network.name.as_str(), "host" | "bridge" | "none");
        if names.stack().is_some() && !is_predefined && aliases.last().is_some_and(|last| last == service) {
            aliases.pop();
        }
        let mut details = Vec::new();
        texts(&mut details, "aliases", Some(&aliases));
        put_map(&mut details, "driver_opts", attachment.driver_opts.as_ref());
        uses.push((key, Yaml::Map(details)));
    }
    let plain = Yaml::Map(Vec::new());
    let is_default = matches!(uses.as_slice(), [(key, details)] if key == "default" && *details == plain);
    if is_default || uses.is_empty() {
        return;
    }
    let are_plain = uses.iter().all(|(_, details)| *details == plain);
    let keys = || Yaml::List(uses.iter().map(|(key, _)| Yaml::text(key)).collect());
    map.push(("networks".to_owned(), if are_plain { keys() } else { Yaml::Map(uses) }));
}

fn mount(mount: &Mount, names: &mut Names<'_>) -> Yaml {
    let mut map = vec![("type".to_owned(), Yaml::text(&mount.kind))];
    let is_declared = match mount.kind.as_str() {
        "volume" => !mount.source.is_empty(),
        "cluster" => !mount.source.starts_with("group:"),
        _ => false,
    };
    let source = if is_declared { names.volume(mount) } else { mount.source.clone() };
    put_text(&mut map, "source", &source);
    put_text(&mut map, "target", &mount.target);
    if mount.read_only {
        map.push(("read_only".to_owned(), Yaml::raw(&true)));
    }
    put_text(&mut map, "consistency", &mount.consistency);
    if let Some(propagation) = mount.bind_options.as_ref().map(|bind| &bind.propagation).filter(|p| !p.is_empty()) {
        map.push(("bind".to_owned(), Yaml::Map(vec![("propagation".to_owned(), Yaml::text(propagation))])));
    }
    if let Some(volume) = &mount.volume_options {
        let mut options = Vec::new();
        if volume.no_copy {
            options.push(("nocopy".to_owned(), Yaml::raw(&true)));
        }
        put_text(&mut options, "subpath", &volume.subpath);
        if !options.is_empty() {
            map.push(("volume".to_owned(), Yaml::Map(options)));
        }
    }
    if let Some(tmpfs) = &mount.tmpfs_options {
        let given = [("size", tmpfs.size_bytes), ("mode", i64::from(tmpfs.mode))];
        let given = given.into_iter().filter(|(_, number)| *number != 0);
        let options: Sections = given.map(|(key, number)| (key.to_owned(), Yaml::raw(&number))).collect();
        if !options.is_empty() {
            map.push(("tmpfs".to_owned(), Yaml::Map(options)));
        }
    }
    Yaml::Map(map)
}

/// Secrets and configs.
fn files(map: &mut Sections, container: &ContainerSpec, names: &mut Names<'_>) {
    let secrets = container.secrets.iter().flatten();
    let secrets = secrets.map(|secret| file(names.secret(&secret.secret_name), secret.file.as_ref())).collect();
    list(map, "secrets", secrets);
    // One without a file is a credential spec's.
    let configs = container.configs.iter().flatten().filter(|config| config.file.is_some());
    let configs = configs.map(|config| file(names.config(&config.config_name), config.file.as_ref())).collect();
    list(map, "configs", configs);
}

fn file(key: String, target: Option<&FileTarget>) -> Yaml {
    let mut map = vec![("source".to_owned(), Yaml::text(&key))];
    if let Some(target) = target {
        if target.name != key {
            put_text(&mut map, "target", &target.name);
        }
        for (field, id) in [("uid", &target.uid), ("gid", &target.gid)] {
            if id != "0" {
                put_text(&mut map, field, id);
            }
        }
        if target.mode != FILE_MODE_DEFAULT {
            map.push(("mode".to_owned(), Yaml::raw(&format!("0{:o}", target.mode))));
        }
    }
    if map.len() == 1 { Yaml::text(key) } else { Yaml::Map(map) }
}

fn credential_spec(map: &mut Sections, container: &ContainerSpec, names: &mut Names<'_>) {
    let Some(spec) = container.privileges.as_ref().and_then(|privileges| privileges.credential_spec.as_ref()) else {
        return;
    };
    let mut given = Vec::new();
    put_text(&mut given, "config", &names.config_of_id(&spec.config).unwrap_or_default());
    put_text(&mut given, "file", &spec.file);
    put_text(&mut given, "registry", &spec.registry);
    if !given.is_empty() {
        map.push(("credential_spec".to_owned(), Yaml::Map(given)));
    }
}

fn deploy(spec: &ServiceSpec) -> Sections {
    let mut map = Vec::new();
    mode(&mut map, &spec.mode);
    put_labels(&mut map, spec.labels.as_ref());
    for (key, config) in [("update_config", &spec.update_config), ("rollback_config", &spec.rollback_config)] {
        if let Some(config) = config {
            map.push((key.to_owned(), update(config)));
        }
    }
    if let Some(policy) = &spec.task_template.restart_policy {
        map.push(("restart_policy".to_owned(), restart_policy(policy)));
    }
    if let Some(placement) = &spec.task_template.placement {
        let mut inner = Vec::new();
        texts(&mut inner, "constraints", placement.constraints.as_deref());
        let spreads = placement.preferences.iter().flatten().filter_map(|preference| preference.spread.as_ref());
        let spread = |over: &crate::spec::SpreadOver| vec![("spread".to_owned(), Yaml::text(&over.spread_descriptor))];
        list(&mut inner, "preferences", spreads.map(|over| Yaml::Map(spread(over))).collect());
        if placement.max_replicas != 0 {
            inner.push(("max_replicas_per_node".to_owned(), Yaml::raw(&placement.max_replicas)));
        }
        put(&mut map, "placement", inner);
    }
    if let Some(requirements) = &spec.task_template.resources {
        let mut inner = Vec::new();
        put(&mut inner, "limits", requirements.limits.as_ref().map(resources).unwrap_or_default());
        put(&mut inner, "reservations", requirements.reservations.as_ref().map(resources).unwrap_or_default());
        put(&mut map, "resources", inner);
    }
    let endpoint_mode =
        spec.endpoint_spec.as_ref().map(|endpoint| endpoint.mode.as_str()).filter(|mode| *mode != "vip");
    put_text(&mut map, "endpoint_mode", endpoint_mode.unwrap_or_default());
    map
}

/// Puts a map that is not empty.
fn put(map: &mut Sections, key: &str, inner: Sections) {
    if !inner.is_empty() {
        map.push((key.to_owned(), Yaml::Map(inner)));
    }
}

fn mode(map: &mut Sections, mode: &ServiceMode) {
    let (word, replicas) = match mode {
        ServiceMode { global: Some(_), .. } => ("global", None),
        ServiceMode { global_job: Some(_), .. } => ("global-job", None),
        ServiceMode { replicated_job: Some(job), .. } => ("replicated-job", job.total_completions),
        ServiceMode { replicated, .. } => ("", replicated.as_ref().and_then(|replicated| replicated.replicas)),
    };
    put_text(map, "mode", word);
    if let Some(replicas) = replicas {
        map.push(("replicas".to_owned(), Yaml::raw(&replicas)));
    }
}

fn update(config: &UpdateConfig) -> Yaml {
    let mut map = vec![("parallelism".to_owned(), Yaml::raw(&config.parallelism))];
    for (key, nanos) in [("delay", config.delay), ("monitor", config.monitor)] {
        if nanos != 0 {
            map.push((key.to_owned(), duration(nanos)));
        }
    }
    put_text(&mut map, "failure_action", &config.failure_action);
    if config.max_failure_ratio != 0.0 {
        map.push(("max_failure_ratio".to_owned(), Yaml::raw(&config.max_failure_ratio)));
    }
    put_text(&mut map, "order", &config.order);
    Yaml::Map(map)
}

fn restart_policy(policy: &RestartPolicy) -> Yaml {
    let mut map = Vec::new();
    put_text(&mut map, "condition", &policy.condition);
    if let Some(delay) = policy.delay {
        map.push(("delay".to_owned(), duration(delay)));
    }
    if let Some(attempts) = policy.max_attempts {
        map.push(("max_attempts".to_owned(), Yaml::raw(&attempts)));
    }
    if let Some(window) = policy.window {
        map.push(("window".to_owned(), duration(window)));
    }
    Yaml::Map(map)
}

fn resources(amounts: &Resources) -> Sections {
    let mut map = Vec::new();
    if amounts.nano_cpus != 0 {
        map.push(("cpus".to_owned(), cpus(amounts.nano_cpus)));
    }
    if amounts.memory_bytes != 0 {
        map.push(("memory".to_owned(), bytes(amounts.memory_bytes)));
    }
    if amounts.pids != 0 {
        map.push(("pids".to_owned(), Yaml::raw(&amounts.pids)));
    }
    let generic =
        amounts.generic_resources.iter().flatten().filter_map(|resource| resource.discrete_resource_spec.as_ref());
    let discrete = |resource: &crate::spec::DiscreteResource| {
        let spec =
            vec![("kind".to_owned(), Yaml::text(&resource.kind)), ("value".to_owned(), Yaml::raw(&resource.value))];
        Yaml::Map(vec![("discrete_resource_spec".to_owned(), Yaml::Map(spec))])
    };
    list(&mut map, "generic_resources", generic.map(discrete).collect());
    map
}
