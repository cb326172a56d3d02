//! What carries a stack's namespace, and is neither in git nor ours: what former deploys left behind. It is told, and left alone.

use super::{Kind, NoteKind, Planner};
use crate::spec::Labels;
use crate::stacks::observe::{Observed, in_namespace};

/// So many names of a kind are told.
const NAMES_MAX: usize = 5;

impl Planner<'_> {
    /// Notes the leftovers. Called when it is known which live objects the stack wants.
    pub(super) fn note_leftovers(&mut self) {
        let found = Kind::ALL.into_iter().map(|kind| (kind, self.leftovers(kind)));
        let words: Vec<String> =
            found.filter(|(_, names)| !names.is_empty()).map(|(kind, names)| words(kind, &names)).collect();
        if !words.is_empty() {
            let text = format!(
                "of the namespace {}, not in git and not ours, so left alone: {}",
                self.input.stack,
                words.join("; ")
            );
            self.note(NoteKind::Leftover, text);
        }
    }

    fn leftovers(&self, kind: Kind) -> Vec<&str> {
        let is_known = |id: &str| {
            self.state.owned.of(kind).values().any(|owned| owned == id)
                || self.foreign.iter().any(|(of, _, foreign)| *of == kind && foreign == id)
                || self.plan.ids.values().any(|named| named == id)
        };
        let is_ours = |labels: Option<&Labels>| in_namespace(labels, self.input.stack.as_str());
        let live = live(self.input.observed.swarm, kind).into_iter();
        live.filter(|(id, _, labels)| is_ours(*labels) && !is_known(id)).map(|(_, name, _)| name).collect()
    }
}

/// Everything of a kind that lives: ID, name and labels.
fn live(swarm: &Observed, kind: Kind) -> Vec<(&str, &str, Option<&Labels>)> {
    match kind {
        Kind::Service => {
            swarm.services.values().map(|s| (s.id.as_str(), s.spec.name.as_str(), s.spec.labels.as_ref())).collect()
        }
        Kind::Network => swarm.networks.values().map(|n| (n.id.as_str(), n.name.as_str(), n.labels.as_ref())).collect(),
        Kind::Secret => {
            swarm.secrets.values().map(|s| (s.id.as_str(), s.spec.name.as_str(), s.spec.labels.as_ref())).collect()
        }
        Kind::Config => {
            swarm.configs.values().map(|c| (c.id.as_str(), c.spec.name.as_str(), c.spec.labels.as_ref())).collect()
        }
    }
}

/// `services shop_old, shop_older`.
fn words(kind: Kind, names: &[&str]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    let shown = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(NAMES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{plural} {shown}{more}", kind.word())
}

#[cfg(test)]
mod tests {
    use crate::stacks::world::{World, shop, stack, with_secret};
    use crate::status::{Command, StackState as Verdict};

    #[test]
    fn what_former_deploys_left_is_told_and_left_alone() {
        let mut world = World::new();
        world.deploy_by_hand(&with_secret(stack("aaa", &["api app:1", "old app:1"]), "old", "hunter2"));
        let desired = stack("bbb", &["api app:1"]);
        let told = "of the namespace shop, not in git and not ours, so left alone: service shop_old; secret shop_db";
        let is_told = |plan: &crate::stacks::Plan| plan.notes.iter().any(|note| note.text == told);
        assert!(is_told(&world.pass(Some(&desired))), "before it is adopted");
        world.command(&Command::Adopt { stack: shop() });
        let plan = world.settle(Some(&desired));
        assert!(plan.is_empty() && plan.verdict == Verdict::Ok && is_told(&plan), "{plan}");
        assert!(world.observed.services.contains_key("shop_old") && world.observed.secrets.contains_key("shop_db"));
    }

    #[test]
    fn what_is_ours_or_named_in_git_is_no_leftover() {
        let mut world = World::new();
        let plan = world.settle(Some(&with_secret(stack("aaa", &["api app:1"]), "api", "hunter2")));
        assert!(plan.notes.is_empty(), "{plan}");
    }
}
