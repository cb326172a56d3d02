//! `swarmkeeper deploy -c FILE STACK`: what `docker stack deploy` does, with our diff, and waiting for it.
//!
//! No state is kept: the namespace label says whose an object is, names carry no hash, services go with `--prune` only. What does not
//! differ is not written. A stack that git manages is refused, unless forced: the leader would undo it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::apply::{ApplyError, Auth, LOG_LINES, apply, bounded};
use super::images::{Resolutions, live_text};
use super::key::Key;
use super::observe::{Observed, ObservedStack, SecretContents, compare_secrets, observe, resolve, unrecorded_secrets};
use super::plan::{Input, Makers, Mode, Plan, Policy, plan};
use super::rollout::{Progress, Window, judge};
use crate::io::swarm::{Error, Swarm};
use crate::model::{DesiredStack, StackName};
use crate::spec::ServiceSpec;
use crate::status::StackState as Verdict;

/// Between two looks at a rollout.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// So many times a plan is made anew because somebody else wrote first.
const ATTEMPTS_MAX: usize = 10;

/// So many looks at a rollout may fail in a row.
const FOLLOW_ERRORS_MAX: usize = 10;

/// `--resolve-image`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolveImage {
    /// Ask the registry about every image.
    #[default]
    Always,
    /// About those whose text has changed.
    Changed,
    /// About none.
    Never,
}

/// The verb's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeployOptions {
    /// Remove services that the file does not have.
    pub prune: bool,
    /// `--resolve-image`.
    pub resolve: ResolveImage,
    /// Deploy a stack that git manages all the same.
    pub force: bool,
}

/// Why a file was not deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The leader would undo it.
    #[error("stack {0} is managed by git: change it there, or say --force")]
    Managed(StackName),
    /// The plan says what is wrong; nothing is written.
    #[error("{}", .0.join("\n"))]
    Unplannable(Vec<String>),
    /// Somebody else writes all the time.
    #[error("stack {0}: somebody else changes its objects at the same time; try again when that has ended")]
    Conflicts(StackName),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] Error),
    /// A step.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Looks, and plans what deploying would do.
pub async fn plan_deploy(
    swarm: &Swarm,
    desired: &DesiredStack,
    options: DeployOptions,
    auth: &Auth<'_>,
    now: OffsetDateTime,
) -> Result<Plan, DeployError> {
    // Registries may be asked about everything before it is known what runs, so both go on at once.
    let (observed, mut images) = tokio::join!(observe(swarm), async {
        match options.resolve {
            ResolveImage::Always => resolve(swarm, images_of(desired, |_| true), auth).await,
            ResolveImage::Changed | ResolveImage::Never => Resolutions::new(),
        }
    });
    let observed = observed?;
    if observed.states.contains_key(&desired.name) && !options.force {
        return Err(DeployError::Managed(desired.name.clone()));
    }
    if options.resolve == ResolveImage::Changed {
        let has_changed = |spec: &ServiceSpec| {
            let live = observed.services.get(&spec.name);
            live.is_none_or(|live| live_text(&live.spec) != live_text(spec))
        };
        images = resolve(swarm, images_of(desired, has_changed), auth).await;
    }
    // Swarm cannot change a secret, and to keep quiet about a changed one would be worse than to fail.
    let unrecorded = unrecorded_secrets(desired, ObservedStack { live: None, ..observed.stack(&desired.name) });
    let secrets = compare_secrets(swarm, &observed, unrecorded).await?;
    Ok(plan_file(desired, &observed, &images, &secrets, options.prune, now))
}

/// Does what `plan` says, unless it says that something is wrong; when somebody else wrote first, such as a removal that still goes on, looks and plans again.
/// Gives the number of writes.
pub async fn deploy(
    mut plan: Plan,
    swarm: &Swarm,
    desired: &DesiredStack,
    options: DeployOptions,
    auth: &Auth<'_>,
) -> Result<usize, DeployError> {
    let mut writes = 0;
    for _ in 0..ATTEMPTS_MAX {
        if plan.verdict == Verdict::Error {
            return Err(DeployError::Unplannable(plan.errors()));
        }
        let outcome = apply(&plan, swarm, auth, &CancellationToken::new()).await;
        writes += outcome.writes;
        match (outcome.error, outcome.conflict) {
            (Some(error), _) => return Err(error.into()),
            (None, false) => return Ok(writes),
            (None, true) => tokio::time::sleep(FOLLOW_EVERY).await,
        }
        plan = plan_deploy(swarm, desired, options, auth, OffsetDateTime::now_utc()).await?;
    }
    Err(DeployError::Conflicts(desired.name.clone()))
}

/// How a service goes, by its name.
pub type Following = Vec<(String, Progress)>;

/// Waits until every service has converged or one has failed, telling `report` at each look.
pub async fn follow(
    swarm: &Swarm,
    services: &BTreeSet<String>,
    window: Window,
    report: &mut (dyn FnMut(&Following) + Send),
) -> Result<Following, Error> {
    let mut errors = 0;
    loop {
        match look(swarm, services, window).await {
            Ok(following) => {
                errors = 0;
                report(&following);
                let is_over = |(_, progress): &(String, Progress)| !matches!(progress, Progress::Going(_));
                let has_failed =
                    |(_, p): &(String, Progress)| !matches!(p, Progress::Going(_) | Progress::Converged(_));
                if following.iter().all(is_over) || following.iter().any(has_failed) {
                    return Ok(following);
                }
            }
            Err(error) if errors >= FOLLOW_ERRORS_MAX => return Err(error),
            Err(_) => errors += 1,
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// The last lines that the failing tasks printed, by their services; a log that cannot be had is left out.
pub async fn logs(swarm: &Swarm, following: &Following) -> BTreeMap<String, Vec<String>> {
    let mut logs = BTreeMap::new();
    for (service, progress) in following {
        let Some(task) = progress.trouble().and_then(|trouble| trouble.task.as_ref()) else { continue };
        if let Ok(lines) = swarm.task_log(task, LOG_LINES).await {
            logs.insert(service.clone(), bounded(lines));
        }
    }
    logs
}

async fn look(swarm: &Swarm, services: &BTreeSet<String>, window: Window) -> Result<Following, Error> {
    let (live, nodes) = tokio::try_join!(swarm.services(), swarm.nodes())?;
    let live: Vec<_> = live.into_iter().filter(|service| services.contains(&service.spec.name)).collect();
    let ids: Vec<&str> = live.iter().map(|service| service.id.as_str()).collect();
    let tasks = if ids.is_empty() { Vec::new() } else { swarm.tasks_of(&ids).await? };
    let observed = Observed::new(live, tasks, Vec::new(), Vec::new(), Vec::new(), nodes);
    let now = OffsetDateTime::now_utc();
    let judged = observed.services.values().map(|service| {
        let tasks = observed.tasks.get(&service.id).map_or(&[][..], Vec::as_slice);
        (service.spec.name.clone(), judge(service, tasks, &observed.nodes, Some(window), now))
    });
    Ok(judged.collect())
}

/// The pure part.
pub fn plan_file(
    desired: &DesiredStack,
    observed: &Observed,
    images: &Resolutions,
    secrets: &SecretContents,
    prune: bool,
    now: OffsetDateTime,
) -> Plan {
    plan(Input {
        stack: &desired.name,
        desired: Some(desired),
        held: false,
        observed: observed.stack(&desired.name),
        images,
        unsettled: &[],
        makers: &Makers::new(),
        secrets,
        key: &Key::default(),
        now,
        policy: &Policy { mode: Mode::Deploy { prune }, ..Policy::default() },
    })
}

/// The images of the services that are `asked` about. Where the file names the digest, the registry still knows the platforms.
fn images_of(desired: &DesiredStack, asked: impl Fn(&ServiceSpec) -> bool) -> BTreeSet<String> {
    let specs = desired.objects.services.values().map(|service| &service.spec).filter(|spec| asked(spec));
    specs.map(|spec| spec.task_template.container_spec.image.clone()).collect()
}
