//! A stack as people are shown it: pure, from what git says, what lives, and the plan.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use super::observe::ObservedStack;
use super::plan::{Note, NoteKind, Plan};
use super::rollback::ROLLED_BACK;
use super::rollout::{Count, Progress, judge, last_failure};
use crate::model::{DesiredStack, Revision};
use crate::spec::Service;
use crate::status::{ServiceStatus, StackState, StackStatus};

/// Failures older than this are history.
const RECENT: Duration = Duration::minutes(10);

/// A stack's status; `error` is what hindered the last pass, if anything did.
pub fn status(
    desired: Option<&DesiredStack>,
    observed: ObservedStack<'_>,
    plan: &Plan,
    error: Option<&str>,
    now: OffsetDateTime,
) -> StackStatus {
    let services = services(desired, observed, now);
    let behind = services.iter().filter(|service| service.running < service.wanted);
    let behind: Vec<&ServiceStatus> = behind.collect();
    let state = match (error, plan.verdict) {
        (Some(_), StackState::Ok | StackState::Rolling) => StackState::Error,
        (None, StackState::Ok) if !behind.is_empty() => StackState::Waiting,
        (_, verdict) => verdict,
    };
    let revision = match state {
        StackState::Rolling => plan.to.clone(),
        // What runs was made by the healthy revision, even if git has gone on with files that this stack does not use.
        _ => healthy(plan).or_else(|| plan.to.clone()),
    };
    StackStatus {
        name: plan.stack.clone(),
        state,
        revision,
        note: note(plan, error, &services, &behind),
        next: next(plan, state),
        services,
        notes: plan.notes.iter().map(|note| note.text.clone()).collect(),
        log: log(plan, state),
        warnings: desired.map(|stack| stack.warnings.iter().map(ToString::to_string).collect()).unwrap_or_default(),
    }
}

/// The end of the failing task's log, while its failure is what holds the stack.
fn log(plan: &Plan, state: StackState) -> Vec<String> {
    let is_told = state == StackState::Held && plan.notes.iter().any(is_failure);
    let failure = plan.state.as_ref().filter(|_| is_told).and_then(|state| state.failed.last());
    failure.map(|failure| failure.log().to_vec()).unwrap_or_default()
}

/// The last healthy revision, this pass included.
fn healthy(plan: &Plan) -> Option<Revision> {
    let now = plan.state.as_ref().and_then(|state| state.healthy.as_ref()).and_then(|mark| mark.revision.clone());
    now.or_else(|| plan.from.clone())
}

/// What git names, and what we own; of a stack not ours yet, what runs under its name.
fn services(desired: Option<&DesiredStack>, observed: ObservedStack<'_>, now: OffsetDateTime) -> Vec<ServiceStatus> {
    let mut names: BTreeMap<&str, Option<&Service>> = BTreeMap::new();
    for service in desired.into_iter().flat_map(|desired| desired.objects.services.values()) {
        names.insert(&service.spec.name, None);
    }
    for name in observed.live.into_iter().flat_map(|live| live.state.owned.services.keys()) {
        names.insert(name, None);
    }
    for service in observed.services() {
        names.insert(&service.spec.name, Some(service));
    }
    for (name, live) in &mut names {
        *live = live.or_else(|| observed.swarm.services.get(*name));
    }
    names.into_iter().map(|(name, live)| service(name, live, observed, now)).collect()
}

fn service(name: &str, live: Option<&Service>, observed: ObservedStack<'_>, now: OffsetDateTime) -> ServiceStatus {
    let Some(live) = live else {
        let problem = Some("does not exist".to_owned());
        return ServiceStatus { name: name.to_owned(), image: String::new(), running: 0, wanted: 1, problem };
    };
    let tasks = observed.tasks(&live.id);
    let nodes = &observed.swarm.nodes;
    let Count { running, wanted } = match judge(live, tasks, nodes, None, now) {
        Progress::Converged(count) | Progress::Going(count) => count,
        Progress::RolledBack(trouble) | Progress::Paused(trouble) | Progress::Failed(trouble) => trouble.count,
    };
    let problem = (running < wanted)
        .then(|| last_failure(tasks, nodes, now - RECENT).unwrap_or_else(|| format!("{running}/{wanted} tasks")));
    let image = live.spec.task_template.container_spec.image.clone();
    ServiceStatus { name: name.to_owned(), image, running, wanted, problem }
}

fn note(plan: &Plan, error: Option<&str>, services: &[ServiceStatus], behind: &[&ServiceStatus]) -> String {
    if let Some(error) = error {
        return error.to_owned();
    }
    // While a rollout is on its way, that is the news; what drifted is told when it has ended.
    let worth = |kind: NoteKind| match plan.verdict {
        StackState::Rolling => kind == NoteKind::Waiting,
        _ => !matches!(kind, NoteKind::Remark | NoteKind::Leftover),
    };
    // The one that the verdict comes from is told first.
    let notes: Vec<&Note> = plan.notes.iter().filter(|note| worth(note.kind)).collect();
    if let Some(first) = notes.iter().find(|note| note.kind.verdict() == Some(plan.verdict)).or(notes.first()) {
        let more = notes.len() - 1;
        return if more == 0 { first.text.clone() } else { format!("{}; {more} more", first.text) };
    }
    let well = services.len() - behind.len();
    let count = format!("{well}/{} services", services.len());
    match behind.first() {
        None => count,
        Some(service) => {
            let problem = service.problem.as_deref().unwrap_or_default();
            format!("{count}: {} {problem}", service.name)
        }
    }
}

fn next(plan: &Plan, state: StackState) -> Option<String> {
    let stack = &plan.stack;
    let command = match state {
        StackState::Ok | StackState::Rolling | StackState::Waiting => return None,
        StackState::Adopt => format!("swarmkeeper adopt {stack}"),
        StackState::Approve => {
            let revision = plan.to.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("swarmkeeper approve {stack} {revision}")
        }
        StackState::Held if plan.notes.iter().any(is_failure) => format!("swarmkeeper retry {stack}"),
        StackState::Held | StackState::Paused => format!("swarmkeeper resume {stack}"),
        StackState::Orphan => format!("swarmkeeper remove {stack}"),
        StackState::Drift | StackState::Error => format!("swarmkeeper plan {stack}"),
    };
    Some(command)
}

/// A failure, and not a person's words about one.
fn is_failure(note: &Note) -> bool {
    note.text.contains("failed") && !note.text.starts_with(ROLLED_BACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::world::{World, shop, stack};
    use crate::status::Command;

    fn check(world: &World, desired: Option<&DesiredStack>, error: Option<&str>, wanted: &str) {
        let (name, plan) = (shop(), world.plan(desired));
        let status = status(desired, world.observed.stack(&name), &plan, error, world.now);
        let revision = status.revision.map(|revision| revision.to_string()).unwrap_or_default();
        let next = status.next.unwrap_or_default();
        assert_eq!(format!("{:?} {revision}: {} [{next}]", status.state, status.note), wanted);
    }

    #[test]
    fn a_stack_is_told_in_one_word_one_line_and_one_command() {
        let at = |revision: &str, tag: &str| stack(revision, &[&format!("api app:{tag}"), "web app:1"]);
        let mut world = World::new();
        world.settle(Some(&at("aaa", "1")));
        // A commit that changes nothing of the stack is not its revision: else every commit would be news of every stack.
        check(&world, Some(&at("bbb", "1")), None, "Ok aaa0000: 2/2 services []");
        check(&world, Some(&at("aaa", "1")), Some("no quorum"), "Error aaa0000: no quorum [swarmkeeper plan shop]");
        check(
            &world,
            None,
            None,
            "Orphan aaa0000: not in git any more; its 2 services are kept [swarmkeeper remove shop]",
        );
        world.broken.insert("app:2".into());
        world.pass(Some(&at("ccc", "2")));
        world.settle(Some(&at("ccc", "2")));
        let held = "Held aaa0000: ccc0000 failed: shop_api exit 1 on n17 [swarmkeeper retry shop]";
        check(&world, Some(&at("ccc", "2")), None, held);
        world.command(&Command::Pause { stack: shop(), reason: "night".into() });
        check(&world, Some(&at("ccc", "2")), None, "Paused aaa0000: paused: night [swarmkeeper resume shop]");
    }

    #[test]
    fn what_a_person_must_decide_is_told_before_what_drifted() {
        let at = |revision: &str, tag: &str| {
            stack(revision, &[&format!("a app:{tag}"), &format!("b app:{tag}"), "c app:1", "d app:1"])
        };
        let mut world = World::new();
        world.settle(Some(&at("aaa", "1")));
        world.by_hand("shop_c", |spec| spec.task_template.container_spec.user = Some("root".into()));
        let braked =
            "Approve aaa0000: would restart 2 of 4 services, more than 30 %; 1 more [swarmkeeper approve shop ccc0000]";
        check(&world, Some(&at("ccc", "2")), None, braked);
    }

    #[test]
    fn a_service_that_fails_after_its_rollout_is_named_with_its_error() {
        let desired = stack("aaa", &["api app:1", "web app:1"]);
        let mut world = World::new();
        world.settle(Some(&desired));
        world.broken.insert("app:1".into());
        world.make_tasks("shop_api");
        check(&world, Some(&desired), None, "Waiting aaa0000: 1/2 services: shop_api exit 1 on n17 []");
    }
}
