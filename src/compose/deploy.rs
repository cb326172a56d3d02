//! `deploy`, and the old `restart`.

use super::file::unless_empty;
use super::read::{Ctx, duration};
use crate::spec::{
    DiscreteResource, Empty, GenericResource, Labels, Placement, PlacementPreference, Replicated, ReplicatedJob,
    ResourceRequirements, Resources, RestartPolicy, ServiceMode, SpreadOver, UpdateConfig,
};
use crate::yaml::{Field, MapReader};

const UPDATE_PARALLELISM_DEFAULT: u64 = 1;

/// `deploy` before merging.
#[derive(Debug, Default)]
pub(super) struct Deploy {
    pub mode: String,
    pub replicas: Option<u64>,
    pub labels: Labels,
    pub update: Option<Update>,
    pub rollback: Option<Update>,
    pub restart_policy: Option<RestartPolicy>,
    pub placement: Placement,
    pub limits: Option<Resources>,
    pub reservations: Option<Resources>,
    pub endpoint_mode: String,
}

/// `update_config` or `rollback_config`; a `parallelism` of 0 is not the same as none.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub parallelism: Option<u64>,
    pub config: UpdateConfig,
}

/// Reads `services.<key>.deploy`.
pub(super) fn read(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Deploy {
    let mut r = field.map();
    let modes = ["replicated", "global", "replicated-job", "global-job"];
    let (limits, reservations) = r.map("resources").map(|r| resources(r, ctx)).unwrap_or_default();
    let deploy = Deploy {
        mode: r.take("mode").and_then(|f| ctx.word(&f, &modes)).unwrap_or_default(),
        replicas: r.take("replicas").and_then(|f| ctx.number(&f)),
        labels: r.take("labels").and_then(|f| ctx.labels(&f)).unwrap_or_default(),
        update: r.map("update_config").map(|r| update(r, ctx)),
        rollback: r.map("rollback_config").map(|r| update(r, ctx)),
        restart_policy: r.map("restart_policy").map(|r| restart_policy(r, ctx)),
        placement: r.map("placement").map(|r| placement(r, ctx)).unwrap_or_default(),
        limits,
        reservations,
        endpoint_mode: r.take("endpoint_mode").and_then(|f| endpoint_mode(&f, ctx)).unwrap_or_default(),
    };
    ctx.finish(r, &[], &[]);
    deploy
}

fn endpoint_mode(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Option<String> {
    let mode = ctx.text(field)?.to_lowercase();
    if matches!(mode.as_str(), "" | "vip" | "dnsrr") {
        return Some(mode);
    }
    field.wrong(format!("found {mode:?}, accepted: vip, dnsrr"), "");
    None
}

fn update(mut r: MapReader<'_, '_>, ctx: &Ctx<'_>) -> Update {
    let parallelism = r.take("parallelism").and_then(|f| ctx.number(&f));
    let actions = ["continue", "pause", "rollback"];
    let config = UpdateConfig {
        delay: r.take("delay").and_then(|f| duration(&f)).unwrap_or_default(),
        failure_action: r.take("failure_action").and_then(|f| ctx.word(&f, &actions)).unwrap_or_default(),
        monitor: r.take("monitor").and_then(|f| duration(&f)).unwrap_or_default(),
        max_failure_ratio: r.take("max_failure_ratio").and_then(|f| ctx.ratio(&f)).unwrap_or_default(),
        order: r.take("order").and_then(|f| ctx.word(&f, &["start-first", "stop-first"])).unwrap_or_default(),
        ..UpdateConfig::default()
    };
    ctx.finish(r, &[], &[]);
    Update { parallelism, config }
}

fn restart_policy(mut r: MapReader<'_, '_>, ctx: &Ctx<'_>) -> RestartPolicy {
    let conditions = ["none", "on-failure", "any"];
    let policy = RestartPolicy {
        condition: r.take("condition").and_then(|f| ctx.word(&f, &conditions)).unwrap_or_default(),
        delay: r.take("delay").and_then(|f| duration(&f)),
        max_attempts: r.take("max_attempts").and_then(|f| ctx.number(&f)),
        window: r.take("window").and_then(|f| duration(&f)),
        ..RestartPolicy::default()
    };
    ctx.finish(r, &[], &[]);
    policy
}

fn placement(mut r: MapReader<'_, '_>, ctx: &Ctx<'_>) -> Placement {
    let constraints = r.take("constraints").and_then(|f| ctx.texts(&f)).unwrap_or_default();
    let preferences = r.take("preferences").and_then(|f| f.items("a list of maps")).unwrap_or_default();
    let spread = |item: &Field<'_, '_>| {
        let mut r = item.map();
        let spread_descriptor = r.take("spread").and_then(|f| ctx.text(&f)).unwrap_or_default();
        ctx.finish(r, &[], &[]);
        let spread = SpreadOver { spread_descriptor, ..SpreadOver::default() };
        PlacementPreference { spread: Some(spread), ..PlacementPreference::default() }
    };
    let placement = Placement {
        constraints: unless_empty(constraints),
        preferences: unless_empty(preferences.iter().map(spread).collect()),
        max_replicas: r.take("max_replicas_per_node").and_then(|f| ctx.number(&f)).unwrap_or_default(),
        ..Placement::default()
    };
    ctx.finish(r, &[], &[]);
    placement
}

/// Limits and reservations.
fn resources(mut r: MapReader<'_, '_>, ctx: &Ctx<'_>) -> (Option<Resources>, Option<Resources>) {
    let limits = r.map("limits").map(|mut r| {
        let (nano_cpus, memory_bytes) = amounts(&mut r, ctx);
        let pids = r.take("pids").and_then(|f| ctx.number(&f)).unwrap_or_default();
        ctx.finish(r, &[], &[]);
        Resources { nano_cpus, memory_bytes, pids, ..Resources::default() }
    });
    let reservations = r.map("reservations").map(|mut r| {
        let (nano_cpus, memory_bytes) = amounts(&mut r, ctx);
        let generic = r.take("generic_resources").map(|f| generic_resources(&f, ctx)).unwrap_or_default();
        let devices = "use generic_resources, and declare them on the engines";
        ctx.finish(r, &[], &[("devices", devices), ("pids", "")]);
        let generic_resources = unless_empty(generic);
        Resources { nano_cpus, memory_bytes, generic_resources, ..Resources::default() }
    });
    ctx.finish(r, &[], &[]);
    (limits, reservations)
}

fn amounts(r: &mut MapReader<'_, '_>, ctx: &Ctx<'_>) -> (i64, i64) {
    let cpus = r.take("cpus").and_then(|f| ctx.nano_cpus(&f)).unwrap_or_default();
    let memory = r.take("memory").and_then(|f| ctx.bytes(&f)).unwrap_or_default();
    (cpus, memory)
}

fn generic_resources(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<GenericResource> {
    let resource = |item: &Field<'_, '_>| {
        let mut r = item.map();
        let discrete = r.map("discrete_resource_spec").map(|mut r| {
            let kind = r.take("kind").and_then(|f| ctx.text(&f)).unwrap_or_default();
            let value = r.take("value").and_then(|f| ctx.cut_number(&f)).unwrap_or_default();
            ctx.finish(r, &[], &[]);
            DiscreteResource { kind, value, ..DiscreteResource::default() }
        });
        ctx.finish(r, &[], &[]);
        GenericResource { discrete_resource_spec: discrete, ..GenericResource::default() }
    };
    field.items("a list of maps").unwrap_or_default().iter().map(resource).collect()
}

impl Deploy {
    /// Replicated unless the file says otherwise.
    pub fn service_mode(&self) -> ServiceMode {
        let replicas = self.replicas;
        match self.mode.as_str() {
            "global" => ServiceMode { global: Some(Empty::default()), ..ServiceMode::default() },
            "global-job" => ServiceMode { global_job: Some(Empty::default()), ..ServiceMode::default() },
            "replicated-job" => {
                let job =
                    ReplicatedJob { max_concurrent: replicas, total_completions: replicas, ..ReplicatedJob::default() };
                ServiceMode { replicated_job: Some(job), ..ServiceMode::default() }
            }
            _ => {
                let replicated = Replicated { replicas, ..Replicated::default() };
                ServiceMode { replicated: Some(replicated), ..ServiceMode::default() }
            }
        }
    }

    /// Always sent, empty too.
    pub fn resource_requirements(&self) -> ResourceRequirements {
        ResourceRequirements {
            limits: self.limits.clone(),
            reservations: self.reservations.clone(),
            ..ResourceRequirements::default()
        }
    }
}

impl Update {
    /// With the CLI's default.
    pub fn spec(&self) -> UpdateConfig {
        UpdateConfig { parallelism: self.parallelism.unwrap_or(UPDATE_PARALLELISM_DEFAULT), ..self.config.clone() }
    }
}

/// The policy that the old `restart` stands for: `no`, `always`, `unless-stopped` or `on-failure[:N]`.
pub(super) fn legacy_restart(restart: &str) -> Result<Option<RestartPolicy>, String> {
    let (name, attempts) = match restart.split_once(':') {
        Some((name, attempts)) => {
            let attempts: u64 = attempts.parse().map_err(|_| format!("{attempts:?} is no number of attempts"))?;
            (name, Some(attempts))
        }
        None => (restart, None),
    };
    let (condition, max_attempts) = match name {
        "" | "no" => return Ok(None),
        "always" | "unless-stopped" => ("any", None),
        "on-failure" => ("on-failure", Some(attempts.unwrap_or_default())),
        _ => return Err(format!("found {name:?}, accepted: no, always, unless-stopped, on-failure[:N]")),
    };
    Ok(Some(RestartPolicy { condition: condition.to_owned(), max_attempts, ..RestartPolicy::default() }))
}
