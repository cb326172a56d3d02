//! One pass over all stacks: who is planned, and who waits for whom.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use super::images::Resolutions;
use super::key::Key;
use super::observe::{Observed, SecretContents};
use super::plan::{Input, Makers, Plan, Policy, plan, plan_broken};
use crate::model::{DesiredStack, StackName, Wanted};

/// Stacks that a person's rollback holds, as their commits have them, or why they cannot be rendered.
pub type Held = BTreeMap<StackName, Result<DesiredStack, String>>;

/// Everything that a pass over all stacks looks at.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// The stacks that git has.
    pub desired: &'a [DesiredStack],
    /// Stacks that git has and that cannot be rendered, with the reason: left alone, and no orphans.
    pub broken: &'a BTreeMap<StackName, String>,
    /// Stacks that a rollback holds, over or not.
    pub held: &'a Held,
    /// What lives.
    pub observed: &'a Observed,
    /// What registries said.
    pub images: &'a Resolutions,
    /// What the engine said about the secrets of stacks that are about to be adopted.
    pub secrets: &'a SecretContents,
    /// What fingerprints are made with.
    pub key: &'a Key,
    /// The moment.
    pub now: OffsetDateTime,
    /// What is allowed.
    pub policy: &'a Policy,
}

/// A pass with what is the same for all its stacks.
struct Round<'a> {
    pass: &'a Pass<'a>,
    makers: Makers,
}

/// Plans every stack that git has, or that we own something of, by name.
pub fn plan_all(pass: &Pass<'_>) -> Vec<Plan> {
    let round = Round { pass, makers: makers(pass.desired) };
    let desired: BTreeMap<&StackName, &DesiredStack> = pass.desired.iter().map(|stack| (&stack.name, stack)).collect();
    let mut plans = BTreeMap::new();
    for name in desired.keys() {
        plan_with_predecessors(&round, &desired, name, &mut plans, &mut BTreeSet::new());
    }
    let orphans =
        pass.observed.states.keys().filter(|name| !desired.contains_key(name) && !pass.broken.contains_key(name));
    for name in orphans {
        plans.insert(name.clone(), plan_one(&round, name, None, &[]));
    }
    for (name, reason) in pass.broken {
        plans.insert(name.clone(), plan_one_broken(&round, name, reason));
    }
    plans.into_values().collect()
}

/// Every stack as it shall be: as git has it, or as the commit has it at which a rollback holds it.
pub fn targets<'a>(
    desired: &'a [DesiredStack],
    held: &'a Held,
    observed: &Observed,
    key: &Key,
) -> Vec<&'a DesiredStack> {
    let in_git = desired.iter().filter_map(|head| match target(Some(head), &head.name, held, observed, key) {
        Target::Git => Some(head),
        Target::Held(stack) => Some(stack),
        Target::Unknown(_) => None,
    });
    let names: BTreeSet<&StackName> = desired.iter().map(|stack| &stack.name).collect();
    let broken = held.iter().filter(|(name, _)| !names.contains(name)).filter_map(|(_, stack)| stack.as_ref().ok());
    in_git.chain(broken).collect()
}

/// What a stack shall be.
enum Target<'a> {
    /// As git has it.
    Git,
    /// As this commit has it.
    Held(&'a DesiredStack),
    /// A rollback holds it at a commit that cannot be rendered.
    Unknown(String),
}

/// What a stack shall be; `git` is git's, none where git's cannot be rendered.
fn target<'a>(
    git: Option<&DesiredStack>,
    name: &StackName,
    held: &'a Held,
    observed: &Observed,
    key: &Key,
) -> Target<'a> {
    let rollback = observed.states.get(name).and_then(|live| live.state.rollback.as_ref());
    let Some(rollback) = rollback.filter(|rollback| git.is_none_or(|git| !rollback.is_over(git, key))) else {
        return Target::Git;
    };
    match held.get(name) {
        Some(Ok(stack)) => Target::Held(stack),
        Some(Err(reason)) => Target::Unknown(format!("{}, and nothing is done: {reason}", rollback.in_words())),
        None => Target::Unknown(format!("{}, and that commit was not rendered", rollback.in_words())),
    }
}

/// Plans a stack after those it waits for. In a circle everyone waits for the others, and says so.
fn plan_with_predecessors<'a>(
    round: &Round<'a>,
    desired: &BTreeMap<&StackName, &'a DesiredStack>,
    name: &'a StackName,
    plans: &mut BTreeMap<StackName, Plan>,
    visiting: &mut BTreeSet<&'a StackName>,
) {
    let Some(stack) = desired.get(name).copied() else { return };
    if plans.contains_key(name) || !visiting.insert(name) {
        return;
    }
    for before in &stack.settings.after {
        plan_with_predecessors(round, desired, before, plans, visiting);
    }
    let is_settled = |before: &&StackName| plans.get(*before).is_some_and(|plan| plan.settled);
    let unsettled: Vec<StackName> = stack.settings.after.iter().filter(|before| !is_settled(before)).cloned().collect();
    let plan = plan_one(round, name, Some(stack), &unsettled);
    plans.insert(name.clone(), plan);
    visiting.remove(name);
}

fn plan_one(round: &Round<'_>, name: &StackName, desired: Option<&DesiredStack>, unsettled: &[StackName]) -> Plan {
    // What git no longer has at all is an orphan, rolled back or not.
    let Some(head) = desired else { return plan(input(round, name, None, unsettled)) };
    match target(Some(head), name, round.pass.held, round.pass.observed, round.pass.key) {
        Target::Git => plan(input(round, name, Some(head), unsettled)),
        Target::Held(stack) => plan(Input { held: true, ..input(round, name, Some(stack), unsettled) }),
        Target::Unknown(reason) => plan_broken(input(round, name, None, unsettled), &reason),
    }
}

/// A stack that cannot be rendered: nothing is planned for it, unless a rollback holds it elsewhere.
fn plan_one_broken(round: &Round<'_>, name: &StackName, reason: &str) -> Plan {
    match target(None, name, round.pass.held, round.pass.observed, round.pass.key) {
        Target::Git => plan_broken(input(round, name, None, &[]), reason),
        Target::Held(stack) => plan(Input { held: true, ..input(round, name, Some(stack), &[]) }),
        Target::Unknown(held) => plan_broken(input(round, name, None, &[]), &format!("{held}; git has: {reason}")),
    }
}

fn input<'a>(
    round: &'a Round<'a>,
    stack: &'a StackName,
    desired: Option<&'a DesiredStack>,
    unsettled: &'a [StackName],
) -> Input<'a> {
    let pass = round.pass;
    Input {
        stack,
        desired,
        held: false,
        observed: pass.observed.stack(stack),
        images: pass.images,
        unsettled,
        makers: &round.makers,
        secrets: pass.secrets,
        key: pass.key,
        now: pass.now,
        policy: pass.policy,
    }
}

/// The networks that the stacks of git make.
fn makers(desired: &[DesiredStack]) -> Makers {
    let mut makers = Makers::new();
    for stack in desired.iter().filter(|stack| !stack.settings.removed) {
        for network in stack.objects.networks.values() {
            if let Wanted::Own { spec, .. } = network {
                makers.entry(spec.name.clone()).or_insert_with(|| stack.name.clone());
            }
        }
    }
    makers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::world::{World, stack};
    use crate::status::StackState as Verdict;

    /// Stacks as `name: after,…`; gives each stack's verdict.
    fn check(stacks: &[(&str, &[&str])], wanted: &[(&str, Verdict)]) {
        let name = |name: &&str| StackName::new(*name).unwrap();
        let desired: Vec<DesiredStack> = stacks
            .iter()
            .map(|(this, after)| {
                let mut desired = stack("aaa", &["api app:1@sha256:aa"]);
                desired.name = name(this);
                desired.settings.after = after.iter().map(name).collect();
                desired
            })
            .collect();
        let world = World::new();
        let broken = [(StackName::new("broken").unwrap(), "line 3: no such pack".to_owned())].into();
        let plans = plan_all(&Pass {
            desired: &desired,
            broken: &broken,
            held: &Held::new(),
            observed: &world.observed,
            images: &world.images,
            secrets: &world.secrets,
            key: &Key::default(),
            now: world.now,
            policy: &world.policy,
        });
        let found: Vec<(&str, Verdict)> = plans.iter().map(|plan| (plan.stack.as_str(), plan.verdict)).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_stack_waits_for_its_predecessors_and_a_broken_one_is_no_orphan() {
        check(
            &[("app", &["base"]), ("base", &[])],
            &[("app", Verdict::Waiting), ("base", Verdict::Rolling), ("broken", Verdict::Error)],
        );
    }

    #[test]
    fn stacks_in_a_circle_or_after_nobody_wait() {
        check(
            &[("a", &["b"]), ("b", &["a"]), ("c", &["nobody"])],
            &[("a", Verdict::Waiting), ("b", Verdict::Waiting), ("broken", Verdict::Error), ("c", Verdict::Waiting)],
        );
    }
}
