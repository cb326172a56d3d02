//! Services: what is wanted of each, whose doing a difference is, and which may be written now.

use std::collections::{BTreeMap, BTreeSet};

use super::image::{Running, put_platforms};
use super::kept::keep;
use super::objects::Names;
use super::{Action, Change, Mode, NoteKind, Planner, Restart, ServiceWrite, Step};
use crate::model::{DesiredService, DesiredStack, Drift, Field, Ignored, LABEL_IGNORE, Location};
use crate::spec::{Service, ServiceMode, ServiceSpec};
use crate::stacks::diff::{self, Difference, Words};
use crate::stacks::images::{digest, familiar_live_text, live_text};
use crate::stacks::observe::in_namespace;
use crate::stacks::order::layers;
use crate::stacks::rollout::{Progress, has_failed};
use crate::stacks::state::{Baseline, Hold, Kind};

/// A service as wanted, ready to compare.
struct WantedService<'a> {
    key: &'a str,
    spec: ServiceSpec,
    fingerprint: String,
    depends_on: BTreeSet<String>,
    live: Option<&'a Service>,
}

/// A service that shall be written.
struct Write {
    name: String,
    step: Step,
    change: Change,
}

/// Why a write is not done now.
enum NotNow {
    /// It is done in a later pass.
    Later(String),
    /// It is not done before git changes, or a person says something.
    Never(String),
}

impl<'a> Planner<'a> {
    /// Plans all services of the stack.
    pub(super) fn services(&mut self, desired: &'a DesiredStack, names: &Names) {
        let scoped = |key: &str| desired.objects.services.get(key).map(|service| service.spec.name.clone());
        let mut wanted = Vec::new();
        for (key, service) in &desired.objects.services {
            let depends_on = service.depends_on.iter().filter_map(|key| scoped(key)).collect();
            match self.wanted(key, service, depends_on, names) {
                Ok(service) => wanted.push(service),
                Err(error) => {
                    let place = desired.objects.sources.get(&format!("services.{key}.image"));
                    self.errors.push(place.map_or_else(|| error.clone(), |place| format!("{place}: {error}")));
                }
            }
        }
        for service in &wanted {
            self.fingerprints.insert(service.spec.name.clone(), service.fingerprint.clone());
        }
        let edges: BTreeMap<&str, BTreeSet<&str>> = wanted
            .iter()
            .map(|service| (service.spec.name.as_str(), service.depends_on.iter().map(String::as_str).collect()))
            .collect();
        let layers = layers(&edges);
        let layer_of = |name: &str| layers.iter().position(|layer| layer.contains(&name)).unwrap_or_default();
        let writes: Vec<(usize, Write)> = wanted
            .iter()
            .filter_map(|service| {
                let layer = layer_of(&service.spec.name);
                self.service(desired, service, layer).map(|write| (layer, write))
            })
            .collect();
        self.pending.extend(writes.iter().map(|(_, write)| write.name.clone()));
        self.pending.extend(self.rolled_back.iter().cloned());
        self.emit(writes, &edges);
    }

    /// Lets those writes through whose dependencies run.
    fn emit(&mut self, mut writes: Vec<(usize, Write)>, depends_on: &BTreeMap<&str, BTreeSet<&str>>) {
        writes.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name.cmp(&y.name)));
        // Whatever comes after a job that failed does not come, and neither does what comes after that.
        let mut without: BTreeSet<String> = self.failed_jobs.clone();
        for (_, Write { name, step, mut change }) in writes {
            let needs: Vec<&str> = depends_on.get(name.as_str()).into_iter().flatten().copied().collect();
            match self.why_not_now(&name, &needs, &without) {
                None => self.plan.steps.push(step),
                Some(NotNow::Later(reason)) => change.waits = Some(reason),
                Some(NotNow::Never(reason)) => {
                    self.note(NoteKind::Held, format!("{name} {reason}"));
                    self.pending.remove(&name);
                    without.insert(name);
                    change.waits = Some(reason);
                }
            }
            self.plan.changes.push(change);
        }
    }

    /// Why a service is not written in this pass, or not at all.
    fn why_not_now(&self, name: &str, needs: &[&str], without: &BTreeSet<String>) -> Option<NotNow> {
        if !self.manages() {
            return None;
        }
        if let Some(network) = self.network_in_the_way() {
            return Some(NotNow::Later(format!("until network {network} is made anew")));
        }
        if self.kept(name).is_some() && !self.input.observed.swarm.services.contains_key(name) {
            return None;
        }
        if let Some(failed) = needs.iter().find(|need| without.contains(**need)) {
            return Some(NotNow::Never(format!("waits for {failed}, which failed")));
        }
        let unready: Vec<&str> = needs.iter().copied().filter(|need| !self.is_ready(need)).collect();
        (!unready.is_empty()).then(|| NotNow::Later(format!("after {}", unready.join(", "))))
    }

    /// True unless this rollout still has something to do about a service, or waits for its tasks.
    fn is_ready(&self, name: &str) -> bool {
        let in_rollout = self.state.rollout.as_ref().is_some_and(|intent| intent.services.contains(name));
        if self.pending.contains(name) {
            return false;
        }
        !in_rollout || matches!(self.progress_of(name), None | Some(Progress::Converged(_)))
    }

    fn wanted(
        &mut self,
        key: &'a str,
        service: &'a DesiredService,
        depends_on: BTreeSet<String>,
        names: &Names,
    ) -> Result<WantedService<'a>, String> {
        let live = self.input.observed.swarm.services.get(&service.spec.name);
        let ignored = if self.manages() { ignored(&service.spec)? } else { Ignored::default() };
        let kept = self.kept(&service.spec.name).filter(|_| live.is_none()).cloned();
        let text = |live: &ServiceSpec| {
            if self.manages() { familiar_live_text(live) } else { live_text(live).to_owned() }
        };
        let running = live.map(|live| Running::of(&live.spec, text(&live.spec)));
        let running = running.or_else(|| kept.as_ref().map(Running::before));
        let left_to_others = running.as_ref().filter(|_| ignored.has(&Field::Image));
        let choice = match left_to_others {
            Some(running) => running.into(),
            None => self.choose_image(&service.spec, running.as_ref())?,
        };
        if let Some(digest) = digest(&choice.image).filter(|_| left_to_others.is_none()) {
            let text = service.spec.task_template.container_spec.image.clone();
            self.digests.insert(text, digest.to_owned());
        }
        let fingerprint =
            self.input.key.fingerprint("service", &(&service.spec, contents(&service.spec, names), &choice.chosen));
        let mut spec = service.spec.clone();
        self.put_ids(&mut spec, names);
        spec.task_template.container_spec.image = choice.image;
        put_platforms(&mut spec, choice.platforms);
        if let Some(live) = live {
            spec.task_template.force_update = live.spec.task_template.force_update;
            keep_replicas(&mut spec.mode, &live.spec.mode, service.replicas_given);
            keep(&mut spec, &live.spec, &ignored);
        }
        if let Some(kept) = kept {
            spec.task_template.force_update = kept.force_update;
            let replicated = spec.mode.replicated.as_mut();
            let is_live_number = !service.replicas_given || ignored.has(&Field::Replicas);
            if let Some(replicated) = replicated.filter(|_| is_live_number) {
                replicated.replicas = kept.replicas;
            }
        }
        Ok(WantedService { key, spec, fingerprint, depends_on, live })
    }

    /// Puts IDs where the spec names objects; what is still to be made keeps its name.
    fn put_ids(&self, spec: &mut ServiceSpec, names: &Names) {
        let id = |kind: Kind, name: &str| self.plan.ids.get(&(kind, name.to_owned())).cloned();
        for network in spec.task_template.networks.iter_mut().flatten() {
            if let Some(id) = id(Kind::Network, &network.target) {
                network.target = id;
            }
        }
        let container = &mut spec.task_template.container_spec;
        for secret in container.secrets.iter_mut().flatten() {
            secret.secret_name = names.live(Kind::Secret, &secret.secret_name);
            secret.secret_id = id(Kind::Secret, &secret.secret_name).unwrap_or_default();
        }
        for config in container.configs.iter_mut().flatten() {
            config.config_name = names.live(Kind::Config, &config.config_name);
            config.config_id = id(Kind::Config, &config.config_name).unwrap_or_default();
        }
        let credentials = container.privileges.as_mut().and_then(|privileges| privileges.credential_spec.as_mut());
        if let Some(credentials) = credentials.filter(|credentials| !credentials.config.is_empty()) {
            let name = names.live(Kind::Config, &credentials.config);
            credentials.config = id(Kind::Config, &name).unwrap_or(name);
        }
    }

    /// One service: nothing, a write, or the reason why not.
    fn service(&mut self, desired: &DesiredStack, wanted: &WantedService<'_>, layer: usize) -> Option<Write> {
        let name = wanted.spec.name.clone();
        let location = location(desired, wanted.key);
        let baseline =
            Baseline { desired: wanted.fingerprint.clone(), live: None, depends_on: wanted.depends_on.clone() };
        let write = ServiceWrite { spec: Box::new(wanted.spec.clone()), baseline: baseline.clone(), layer };
        let change = |action, differences: Vec<Difference>, restarts| Change {
            kind: Kind::Service,
            name: name.clone(),
            action,
            differences,
            restarts,
            waits: None,
            location: location.clone(),
        };
        let Some(live) = wanted.live else {
            let mut change = change(Action::Create, Vec::new(), None);
            return match self.why_not_created(desired, wanted) {
                None => Some(Write { name: name.clone(), step: Step::ServiceCreate(write), change }),
                Some((kind, reason)) => {
                    self.note(kind, format!("{name}: {reason}"));
                    change.waits = Some(reason);
                    self.plan.changes.push(change);
                    None
                }
            };
        };
        let networks = |id: &str| self.network_name(id);
        let words = Words { key: wanted.key, sources: &desired.objects.sources, networks: &networks };
        let differences = diff::differences(&wanted.spec, &live.spec, words);
        let namespaced = in_namespace(live.spec.labels.as_ref(), self.input.stack.as_str());
        let is_ours = self.owns(Kind::Service, &name, &live.id, namespaced);
        if !is_ours && !namespaced {
            let text = format!(
                "service {name:?} exists and does not belong to stack {}: rename one of them",
                self.input.stack
            );
            self.errors.push(text);
            return None;
        }
        if !is_ours {
            self.foreign.push((Kind::Service, name.clone(), live.id.clone()));
        } else if self.manages() {
            self.state.owned.services.insert(name.clone(), live.id.clone());
        }
        let is_job = is_job(&wanted.spec.mode);
        if is_job && is_ours && self.manages() {
            if let Some(failure) = self.state.service_failure(&name, &wanted.fingerprint) {
                let reason = format!("failed: {}", failure.reason);
                return self.hold_job(change(Action::Update, differences, None), reason);
            }
            if differences.is_empty() && self.is_to_run_again(wanted, live) {
                let change = change(Action::Update, vec![run_again(location.clone())], Some(restart(live, &[])));
                return Some(Write { name, step: again(live, write), change });
            }
        }
        if differences.is_empty() {
            self.plan.unchanged += 1;
            if is_ours && self.manages() {
                self.state.holds.remove(&name);
                self.state.baselines.insert(name.clone(), baseline);
            }
            return None;
        }
        if mode_word(&wanted.spec.mode) != mode_word(&live.spec.mode) {
            self.errors.push(format!(
                "service {name}: swarm cannot change its mode from {} to {}; remove it with `docker service rm {name}` and it is made anew",
                mode_word(&live.spec.mode),
                mode_word(&wanted.spec.mode)
            ));
            return None;
        }
        let restarts =
            (is_job || diff::restarts(&differences)).then(|| restart(live, self.input.observed.tasks(&live.id)));
        let mut change = change(Action::Update, differences, restarts);
        let why_not =
            if is_ours { self.why_not_updated(desired, wanted, live, &change) } else { Some("not ours".to_owned()) };
        if let Some(reason) = why_not {
            change.waits = Some(reason);
            self.plan.changes.push(change);
            return None;
        }
        let step = Step::ServiceUpdate { id: live.id.clone(), version: live.version.index, write };
        Some(Write { name: name.clone(), step, change })
    }

    /// A job that failed is not run again, and holds up what depends on it.
    fn hold_job(&mut self, change: Change, reason: String) -> Option<Write> {
        self.note(NoteKind::Held, format!("{} {reason}", change.name));
        self.failed_jobs.insert(change.name.clone());
        if change.differences.is_empty() {
            self.plan.unchanged += 1;
        } else {
            self.plan.changes.push(Change { waits: Some(reason), ..change });
        }
        None
    }

    /// True if a job lives as wanted and failed, and that is not to be the last word: a person said `retry`, or git came back to it.
    fn is_to_run_again(&self, wanted: &WantedService<'_>, live: &Service) -> bool {
        let baseline = self.state.baselines.get(&wanted.spec.name);
        let is_applied = baseline.is_some_and(|baseline| baseline.desired == wanted.fingerprint);
        !is_applied && has_failed(live, self.input.observed.tasks(&live.id), &self.input.observed.swarm.nodes)
    }

    /// A service that git has and swarm has not: made, unless somebody removed it by hand, or it failed.
    fn why_not_created(&self, desired: &DesiredStack, wanted: &WantedService<'_>) -> Option<(NoteKind, String)> {
        let name = &wanted.spec.name;
        if !self.manages() {
            return None;
        }
        if let Some(failure) = self.state.service_failure(name, &wanted.fingerprint) {
            return Some((NoteKind::Held, format!("failed: {}", failure.reason)));
        }
        if self.kept(name).is_some() {
            return None;
        }
        let same = self.state.baselines.get(name).is_some_and(|baseline| baseline.desired == wanted.fingerprint);
        let removed_by_hand = same && self.state.owned.services.contains_key(name);
        (removed_by_hand && desired.settings.drift == Drift::Report)
            .then(|| (NoteKind::Drift, "removed by hand".to_owned()))
    }

    /// Whose doing the differences are; none if they are git's, or to be corrected.
    fn why_not_updated(
        &mut self,
        desired: &DesiredStack,
        wanted: &WantedService<'_>,
        live: &Service,
        change: &Change,
    ) -> Option<String> {
        if !self.manages() {
            return None;
        }
        let name = &wanted.spec.name;
        if let Some(failure) = self.state.service_failure(name, &wanted.fingerprint) {
            let reason = format!("failed: {}", failure.reason);
            self.note(NoteKind::Held, format!("{name} {reason}"));
            return Some(reason);
        }
        if self.state.holds.get(name).is_some_and(|hold| hold.fingerprint == wanted.fingerprint) {
            return Some(self.hold(name));
        }
        self.state.holds.remove(name);
        let baseline = self.state.baselines.get(name).filter(|baseline| baseline.desired == wanted.fingerprint)?;
        let update = live.update_status.as_ref().map_or("", |update| update.state.as_str());
        if update.starts_with("rollback_") {
            if self.state.rollout.as_ref().is_some_and(|intent| intent.services.contains(name)) {
                self.rolled_back.insert(name.clone());
                return Some("rolled back".to_owned());
            }
            let hold = Hold { fingerprint: wanted.fingerprint.clone(), since: self.input.now };
            self.state.holds.insert(name.clone(), hold);
            self.tell(super::Event::Held, Some(name), "rolled back by hand; left alone until git changes or `resume`");
            return Some(self.hold(name));
        }
        let as_adopted = baseline.live.as_ref() == Some(&self.live_fingerprint(live));
        if !as_adopted && desired.settings.drift == Drift::Correct {
            return None;
        }
        let by_hand = if as_adopted { "as adopted" } else { "by hand" };
        self.note(NoteKind::Drift, format!("{name}: {} {by_hand}", summary(&change.differences)));
        Some(if as_adopted { "was so when adopted".to_owned() } else { "changed by hand".to_owned() })
    }

    fn hold(&mut self, name: &str) -> String {
        self.note(NoteKind::Held, format!("{name} was rolled back by hand"));
        "rolled back by hand".to_owned()
    }

    /// Adoption: what git says now is the baseline, and how the service lives now is no drift to correct.
    pub(super) fn accept_as_it_lives(&mut self, desired: &DesiredStack, name: &str) {
        let Some(live) = self.input.observed.swarm.services.get(name) else { return };
        let scoped = |key: &String| desired.objects.services.get(key).map(|service| service.spec.name.clone());
        let service = desired.objects.services.values().find(|service| service.spec.name == name);
        let baseline = Baseline {
            desired: self.fingerprints.get(name).cloned().unwrap_or_default(),
            live: Some(self.live_fingerprint(live)),
            depends_on: service.into_iter().flat_map(|service| &service.depends_on).filter_map(scoped).collect(),
        };
        self.state.baselines.insert(name.to_owned(), baseline);
    }

    /// A fingerprint of everything git says about the stack.
    pub(super) fn stack_fingerprint(&self, desired: &DesiredStack) -> String {
        let objects = &desired.objects;
        let networks: Vec<_> = objects.networks.values().map(own_network).collect();
        let contents: Vec<_> = self.wanted_contents(desired);
        self.input.key.fingerprint("stack", &(&self.fingerprints, networks, contents))
    }

    fn wanted_contents(&self, desired: &DesiredStack) -> Vec<(String, String)> {
        let mut contents = Vec::new();
        for (key, wanted) in &desired.objects.secrets {
            if let crate::model::Wanted::Own { spec, .. } = wanted {
                contents.push((format!("secret/{key}"), self.input.key.content(spec.data.reveal(), &spec.name)));
            }
        }
        for (key, wanted) in &desired.objects.configs {
            if let crate::model::Wanted::Own { spec, .. } = wanted {
                contents.push((format!("config/{key}"), self.input.key.content(spec.data.reveal(), &spec.name)));
            }
        }
        contents
    }

    /// How a service lives. Restarts do not count: a service that was restarted is still as it was adopted.
    fn live_fingerprint(&self, live: &Service) -> String {
        let mut spec = live.spec.clone();
        spec.task_template.force_update = 0;
        self.input.key.fingerprint("live", &spec)
    }

    fn network_name(&self, id: &str) -> String {
        let networks = &self.input.observed.swarm.networks;
        networks.values().find(|network| network.id == id).map_or_else(|| id.to_owned(), |network| network.name.clone())
    }

    /// Removes services that the file does not have, as `--prune` does.
    pub(super) fn prune_as_the_cli_does(&mut self, desired: &DesiredStack) {
        if self.input.policy.mode != (Mode::Deploy { prune: true }) {
            return;
        }
        let wanted: BTreeSet<&str> =
            desired.objects.services.values().map(|service| service.spec.name.as_str()).collect();
        let services = self.input.observed.services();
        for service in services.filter(|service| !wanted.contains(service.spec.name.as_str())) {
            self.remove(Kind::Service, &service.spec.name, &service.id);
        }
    }
}

fn own_network(wanted: &crate::model::Wanted<crate::spec::NetworkSpec>) -> Option<&crate::spec::NetworkSpec> {
    match wanted {
        crate::model::Wanted::Own { spec, .. } => Some(spec),
        crate::model::Wanted::External(_) => None,
    }
}

/// True for services that run to their end.
pub(super) fn is_job(mode: &ServiceMode) -> bool {
    mode.replicated_job.is_some() || mode.global_job.is_some()
}

fn run_again(location: Option<Location>) -> Difference {
    let new = Some("again, since the last one failed".to_owned());
    Difference { what: "run".to_owned(), old: None, new, location, restarts: true }
}

/// The update that makes swarm run a job of the same spec again.
fn again(live: &Service, mut write: ServiceWrite) -> Step {
    write.spec.task_template.force_update += 1;
    Step::ServiceUpdate { id: live.id.clone(), version: live.version.index, write }
}

fn ignored(spec: &ServiceSpec) -> Result<Ignored, String> {
    Ignored::of(spec).map_err(|error| format!("service {}: label {LABEL_IGNORE}: {error}", spec.name))
}

/// The fingerprints of the contents that a service uses: with them, a changed password is a changed service.
fn contents(spec: &ServiceSpec, names: &Names) -> Vec<String> {
    let container = &spec.task_template.container_spec;
    let secrets = container.secrets.iter().flatten().map(|secret| (Kind::Secret, &secret.secret_name));
    let configs = container.configs.iter().flatten().map(|config| (Kind::Config, &config.config_name));
    secrets.chain(configs).filter_map(|(kind, name)| names.contents.get(&(kind, name.clone())).cloned()).collect()
}

pub(super) fn keep_replicas(mode: &mut ServiceMode, live: &ServiceMode, given: bool) {
    if let (false, Some(wanted), Some(live)) = (given, &mut mode.replicated, &live.replicated) {
        wanted.replicas = live.replicas;
    }
}

fn mode_word(mode: &ServiceMode) -> &'static str {
    if mode.global.is_some() {
        "global"
    } else if mode.global_job.is_some() {
        "global-job"
    } else if mode.replicated_job.is_some() {
        "replicated-job"
    } else {
        "replicated"
    }
}

/// How many tasks an update replaces, and in which way; the new spec's own words on it are in the differences.
pub(super) fn restart(live: &Service, tasks: &[crate::spec::Task]) -> Restart {
    if is_job(&live.spec.mode) {
        let job = live.spec.mode.replicated_job.as_ref();
        let tasks = job.map_or(0, |job| job.total_completions.or(job.max_concurrent).unwrap_or(1));
        let parallelism = job.map_or(0, |job| job.max_concurrent.unwrap_or(1));
        return Restart { tasks, parallelism, order: "stop-first".to_owned(), again: true };
    }
    let running = tasks.iter().filter(|task| task.desired_state == "running").count();
    let config = live.spec.update_config.as_ref();
    Restart {
        tasks: u64::try_from(running).unwrap_or(u64::MAX),
        parallelism: config.map_or(1, |config| config.parallelism),
        order: config
            .map(|config| config.order.clone())
            .filter(|order| !order.is_empty())
            .unwrap_or("stop-first".into()),
        again: false,
    }
}

/// `replicas 3→5`, and how many more.
fn summary(differences: &[Difference]) -> String {
    let Some(first) = differences.first() else { return String::new() };
    // Drift reads from what git wants to what lives.
    let detail = match (&first.new, &first.old) {
        (Some(git), Some(live)) => format!("{} {git}→{live}", first.what),
        _ => first.what.clone(),
    };
    match differences.len() {
        1 => detail,
        more => format!("{detail} and {} more", more - 1),
    }
}

fn location(desired: &DesiredStack, key: &str) -> Option<Location> {
    desired.objects.sources.get(&format!("services.{key}")).cloned()
}
