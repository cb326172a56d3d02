//! The merged file into the objects that the engine gets.

use std::collections::{BTreeMap, BTreeSet};

use super::deploy::{Update, legacy_restart};
use super::file::{ComposeFile, lines, unless_blank, unless_empty, with_namespace, without_empty_options};
use super::files::{self, FileDef, FileUse, Kind};
use super::limits;
use super::networks;
use super::order;
use super::read::{Ctx, Mistake};
use super::services::{HealthcheckDef, Service, is_image_id};
use super::volumes;
use crate::image::ImageRef;
use crate::model::{DesiredService, Finding, Location, StackObjects, Wanted};
use crate::spec::{
    ConfigReference, ContainerSpec, CredentialSpec, DnsConfig, EndpointSpec, FileTarget, Healthcheck, LABEL_IMAGE,
    LABEL_NAMESPACE, Labels, Mount, NetworkAttachment, Privileges, RestartPolicy, SecretReference, ServiceSpec,
    TaskTemplate,
};

/// All objects of the stack. Mistakes go to `ctx`; what is given then is not complete.
pub(super) fn objects(file: &ComposeFile, sources: BTreeMap<String, Location>, ctx: &Ctx<'_>) -> StackObjects {
    let mut stack = Stack { file, sources: &sources, ctx, networks_used: BTreeSet::new() };
    let first = order::dependencies(&file.services, ctx).unwrap_or_else(|mistakes| {
        stack.wrong_all(mistakes);
        BTreeMap::new()
    });
    let mut services = BTreeMap::new();
    for (key, service) in &file.services {
        let spec = stack.service(key, service);
        let depends_on = first.get(key).cloned().unwrap_or_default();
        let replicas_given = service.deploy.replicas.is_some();
        services.insert(key.clone(), DesiredService { spec, depends_on, replicas_given });
    }
    if file.services.is_empty() {
        let say = if ctx.lenient() { Stack::wrong } else { Stack::remark };
        say(&stack, "services", "the stack has no service");
    }
    let implicit = networks::NetworkDef::default();
    let network = |key: &String| {
        let definition = file.networks.get(key).unwrap_or(&implicit);
        (key.clone(), definition.wanted(key, ctx))
    };
    let networks = stack.networks_used.iter().map(network).collect();
    let secrets = stack.own("secrets", &file.secrets, |key, definition| definition.secret(key, ctx));
    let configs = stack.own("configs", &file.configs, |key, definition| definition.config(key, ctx));
    stack.name_what_is_unused();
    stack.place_warnings();
    let mut objects = StackObjects { services, networks, secrets, configs, sources: BTreeMap::new() };
    for mistake in limits::check(&objects) {
        let location = stack.place(&mistake.path);
        ctx.problems.add(Finding { location, ..mistake });
    }
    objects.sources = sources;
    objects
}

struct Stack<'a> {
    file: &'a ComposeFile,
    sources: &'a BTreeMap<String, Location>,
    ctx: &'a Ctx<'a>,
    networks_used: BTreeSet<String>,
}

impl Stack<'_> {
    fn service(&mut self, key: &str, service: &Service) -> ServiceSpec {
        let deploy = &service.deploy;
        if deploy.replicas.is_some() && deploy.mode.starts_with("global") {
            let message = format!("replicas do not go with the mode {}: remove them", deploy.mode);
            self.wrong(&format!("services.{key}.deploy"), &message);
        }
        self.name_own_labels(&format!("services.{key}.deploy.labels"), &deploy.labels);
        self.name_own_labels(&format!("services.{key}.labels"), &service.labels);
        let mut labels = with_namespace(deploy.labels.clone(), self.ctx);
        labels.insert(LABEL_IMAGE.to_owned(), service.image.clone());
        let mut ports = service.ports.clone().unwrap_or_default();
        ports.sort_by_key(|port| port.published_port);
        let task_template = TaskTemplate {
            container_spec: self.container(key, service),
            resources: Some(deploy.resource_requirements()),
            restart_policy: self.restart_policy(key, service),
            placement: Some(deploy.placement.clone()),
            networks: unless_empty(self.attachments(key, service)),
            log_driver: service.logging.clone().map(without_empty_options),
            ..TaskTemplate::default()
        };
        let mode = unless_blank(deploy.endpoint_mode.clone()).unwrap_or_default();
        ServiceSpec {
            name: self.ctx.input.stack.scoped(key),
            labels: Some(labels),
            task_template,
            mode: deploy.service_mode(),
            update_config: deploy.update.as_ref().map(Update::spec),
            rollback_config: deploy.rollback.as_ref().map(Update::spec),
            endpoint_spec: Some(EndpointSpec { mode, ports: unless_empty(ports), ..EndpointSpec::default() }),
            ..ServiceSpec::default()
        }
    }

    fn container(&self, key: &str, service: &Service) -> ContainerSpec {
        let (capability_add, capability_drop) = capabilities(&service.cap_add, &service.cap_drop);
        if capability_drop.len() < capabilities(&[], &service.cap_drop).1.len() {
            self.remark(&format!("services.{key}.cap_drop"), "what cap_add adds is not dropped");
        }
        let (credential_spec, credential_config) = self.credential_spec(key, service);
        ContainerSpec {
            image: self.image(key, service),
            labels: Some(with_namespace(service.labels.clone(), self.ctx)),
            command: unless_empty(service.entrypoint.clone()),
            args: unless_empty(service.command.clone()),
            hostname: unless_blank(service.hostname.clone()),
            env: unless_empty(lines(&service.environment)),
            dir: unless_blank(service.working_dir.clone()),
            user: unless_blank(service.user.clone()),
            privileges: Some(Privileges { credential_spec, ..Privileges::default() }),
            init: service.init,
            stop_signal: unless_blank(service.stop_signal.clone()),
            tty: service.tty,
            open_stdin: service.stdin_open,
            read_only: service.read_only,
            mounts: unless_empty(self.mounts(service)),
            stop_grace_period: service.stop_grace_period,
            healthcheck: self.healthcheck(key, service.healthcheck.as_ref()),
            hosts: unless_empty(service.extra_hosts.clone()),
            dns_config: dns_config(service),
            secrets: unless_empty(self.secrets(service)),
            configs: unless_empty(self.configs(service, credential_config)),
            isolation: unless_blank(service.isolation.clone()),
            sysctls: Some(service.sysctls.clone()).filter(|sysctls| !sysctls.is_empty()),
            capability_add: unless_empty(capability_add),
            capability_drop: unless_empty(capability_drop),
            ulimits: unless_empty(service.ulimits.values().cloned().collect()),
            ..ContainerSpec::default()
        }
    }

    /// In familiar form; an image by its ID as it is.
    fn image(&self, key: &str, service: &Service) -> String {
        if service.image.is_empty() {
            let path = format!("services.{key}");
            let build = self.sources.contains_key(&format!("{path}.build"));
            let mend = if build { "build it before, push it, and name it" } else { "name one" };
            // A value that is no text has its mistake already.
            if !self.sources.contains_key(&format!("{path}.image")) {
                self.wrong(&path, &format!("the service has no image: {mend}"));
            }
            return String::new();
        }
        if is_image_id(&service.image) {
            return service.image.clone();
        }
        ImageRef::parse(&service.image).map_or_else(|_| service.image.clone(), |image| image.familiar())
    }

    fn restart_policy(&self, key: &str, service: &Service) -> Option<RestartPolicy> {
        if let Some(policy) = &service.deploy.restart_policy {
            if !service.restart.is_empty() {
                self.remark(&format!("services.{key}.restart"), "has no effect beside deploy.restart_policy");
            }
            return Some(policy.clone());
        }
        legacy_restart(&service.restart).unwrap_or_else(|why| {
            self.wrong(&format!("services.{key}.restart"), &why);
            None
        })
    }

    fn attachments(&mut self, key: &str, service: &Service) -> Vec<NetworkAttachment> {
        let used = &mut self.networks_used;
        let note = |network: &str| {
            used.insert(network.to_owned());
        };
        let attachments = networks::attachments(key, &service.networks, &self.file.networks, note, self.ctx);
        attachments.unwrap_or_else(|undefined| {
            self.wrong_all(undefined);
            Vec::new()
        })
    }

    fn mounts(&self, service: &Service) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for volume in service.volumes.iter().flatten().chain(&service.tmpfs) {
            match volumes::mount(volume, &self.file.volumes, self.ctx) {
                Ok(mount) => mounts.push(mount),
                Err(why) => self.wrong(&volume.path, &why),
            }
        }
        mounts
    }

    fn healthcheck(&self, key: &str, healthcheck: Option<&HealthcheckDef>) -> Option<Healthcheck> {
        let healthcheck = healthcheck?;
        let test = healthcheck.check.test.clone().and_then(unless_empty);
        if !healthcheck.disable {
            let retries = healthcheck.retries.unwrap_or_default();
            return Some(Healthcheck { test, retries, ..healthcheck.check.clone() });
        }
        if test.is_some() {
            self.wrong(&format!("services.{key}.healthcheck"), "disable and test contradict each other");
        }
        if healthcheck.check != Healthcheck::default() || healthcheck.retries.is_some() {
            self.remark(&format!("services.{key}.healthcheck"), "disabled as it is, nothing else has an effect");
        }
        Some(Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() })
    }

    /// What a service uses of one kind, with the names in the swarm.
    fn references(
        &self,
        kind: Kind,
        uses: Option<&[FileUse]>,
        definitions: &BTreeMap<String, FileDef>,
    ) -> Vec<(String, FileTarget)> {
        files::references(kind, uses.unwrap_or_default(), definitions, self.ctx).unwrap_or_else(|mistakes| {
            self.wrong_all(mistakes);
            Vec::new()
        })
    }

    fn secrets(&self, service: &Service) -> Vec<SecretReference> {
        let references = self.references(Kind::Secret, service.secrets.as_deref(), &self.file.secrets);
        let reference =
            |(secret_name, file)| SecretReference { file: Some(file), secret_name, ..SecretReference::default() };
        references.into_iter().map(reference).collect()
    }

    /// The service's configs and, without a file, the one that holds its credential spec; sorted by name.
    fn configs(&self, service: &Service, credential_config: Option<String>) -> Vec<ConfigReference> {
        let references = self.references(Kind::Config, service.configs.as_deref(), &self.file.configs);
        let reference =
            |(config_name, file)| ConfigReference { file: Some(file), config_name, ..ConfigReference::default() };
        let runtime = |config_name| ConfigReference {
            runtime: Some(serde_json::json!({})),
            config_name,
            ..ConfigReference::default()
        };
        let mut configs: Vec<_> = references.into_iter().map(reference).chain(credential_config.map(runtime)).collect();
        configs.sort_by(|a, b| a.config_name.cmp(&b.config_name));
        configs
    }

    /// The credential spec, and the real name of the config that it comes from, if it does. Its `config` is that name until
    /// [`crate::stacks`] puts the ID in.
    fn credential_spec(&self, key: &str, service: &Service) -> (Option<CredentialSpec>, Option<String>) {
        let spec = &service.credential_spec;
        let path = format!("services.{key}.credential_spec");
        let given = [&spec.config, &spec.file, &spec.registry].into_iter().filter(|source| !source.is_empty()).count();
        if given > 1 {
            self.wrong(&path, "a credential spec comes from one of config, file and registry");
        }
        if given != 1 {
            return (None, None);
        }
        if spec.config.is_empty() {
            return (Some(spec.clone()), None);
        }
        let Some(definition) = self.file.configs.get(&spec.config) else {
            self.wrong(&path, &format!("the config {:?} is not declared", spec.config));
            return (None, None);
        };
        let name = definition.real_name(&spec.config, self.ctx);
        (Some(CredentialSpec { config: name.clone(), ..spec.clone() }), Some(name))
    }

    fn own<D, T>(
        &self,
        section: &str,
        definitions: &BTreeMap<String, D>,
        wanted: impl Fn(&str, &D) -> Result<Wanted<T>, String>,
    ) -> BTreeMap<String, Wanted<T>> {
        let mut objects = BTreeMap::new();
        for (key, definition) in definitions {
            match wanted(key, definition) {
                Ok(object) => {
                    objects.insert(key.clone(), object);
                }
                Err(why) => self.wrong(&format!("{section}.{key}"), &why),
            }
        }
        objects
    }

    /// Networks and volumes are made for the services that use them.
    fn name_what_is_unused(&self) {
        for key in self.file.networks.keys().filter(|key| !self.networks_used.contains(*key)) {
            self.remark(&format!("networks.{key}"), "no service joins the network");
        }
        let mounts = |service: &Service| service.volumes.clone().unwrap_or_default();
        let mounted: BTreeSet<_> = self.file.services.values().flat_map(mounts).map(|volume| volume.source).collect();
        for key in self.file.volumes.keys().filter(|key| !mounted.contains(*key)) {
            self.remark(&format!("volumes.{key}"), "no service mounts the volume");
        }
    }

    /// Names the labels that the stack's own replace.
    fn name_own_labels(&self, path: &str, labels: &Labels) {
        for own in [LABEL_NAMESPACE, LABEL_IMAGE].into_iter().filter(|own| labels.contains_key(*own)) {
            self.remark(&format!("{path}.{own}"), "the stack's own label replaces this one");
        }
    }

    fn remark(&self, path: &str, message: &str) {
        self.ctx.warnings.add(Mistake { path: path.to_owned(), message: message.to_owned() }.into());
    }

    fn wrong(&self, path: &str, message: &str) {
        let mistake = Mistake { path: path.to_owned(), message: message.to_owned() };
        self.ctx.problems.add(Finding { location: self.place(path), ..mistake.into() });
    }

    fn wrong_all(&self, mistakes: Vec<Mistake>) {
        for Mistake { path, message } in mistakes {
            self.wrong(&path, &message);
        }
    }

    /// Gives warnings that came up after reading the place of their path.
    fn place_warnings(&self) {
        self.ctx.warnings.place(|path| self.place(path));
    }

    /// The place of `path`, or of the nearest part of the document above it.
    fn place(&self, path: &str) -> Option<Location> {
        let mut path = path;
        loop {
            if let Some(location) = self.sources.get(path) {
                return Some(location.clone());
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end)?,
                None => {
                    return self.ctx.input.files.first().map(|file| Location { line: 1, ..Location::file(&file.name) });
                }
            }
        }
    }
}

fn dns_config(service: &Service) -> Option<DnsConfig> {
    let given = service.dns.is_some() || service.dns_search.is_some();
    given.then(|| DnsConfig {
        nameservers: service.dns.clone().and_then(unless_empty),
        search: service.dns_search.clone().and_then(unless_empty),
        ..DnsConfig::default()
    })
}

/// Upper case, with `CAP_`, unique and sorted; `ALL` stands for all others, and adding beats dropping.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |names: &[String]| -> BTreeSet<String> {
        let names = names.iter().map(|name| name.trim().to_uppercase()).filter(|name| !name.is_empty());
        let names: BTreeSet<String> = names
            .map(|name| if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
            .collect();
        if names.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { names }
    };
    let (add, mut drop) = (normal(add), normal(drop));
    drop.retain(|name| !add.contains(name));
    (add.into_iter().collect(), drop.into_iter().collect())
}
