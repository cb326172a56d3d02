//! Commits that stay readable in our clone, even when the branch is rewritten: those that the stacks run, those of a rollback, and
//! those that the histories name. What no state names any more is let go.

use std::collections::BTreeMap;

use super::Keeper;
use crate::model::{Revision, StackName};
use crate::stacks::{Observed, StackState};

/// The groups of pins, each followed by the stack's name.
const HEALTHY: &str = "healthy";
/// See [`HEALTHY`].
const HISTORY: &str = "history";
/// See [`HEALTHY`].
const HELD: &str = "held";
/// See [`HEALTHY`]. What git had when a rollback was taken: a clone without it is too old to tell whether git has changed.
const WITHHELD: &str = "withheld";

impl Keeper {
    /// Pins and unpins; an unchanged list touches nothing.
    pub(super) fn pin(&mut self, observed: &Observed) {
        let repo = &self.parts.repo;
        let pinned =
            self.memory.pinned.get_or_insert_with(|| tokio::task::block_in_place(|| repo.pins()).unwrap_or_default());
        let wanted = wanted(observed.states.iter().map(|(stack, live)| (stack, &live.state)));
        for (name, revision) in &wanted {
            if pinned.get(name) == Some(revision) {
                continue;
            }
            match tokio::task::block_in_place(|| repo.pin(name, revision)) {
                Ok(()) => drop(pinned.insert(name.clone(), revision.clone())),
                // A clone made after the branch was rewritten does not have it: nothing is lost that was there.
                Err(error) => tracing::debug!(name, %revision, %error, "not pinned"),
            }
        }
        let unreadable: Vec<&str> = observed.bad_states.iter().map(|bad| bad.stack.as_str()).collect();
        for name in surplus(pinned, &wanted, &unreadable) {
            match tokio::task::block_in_place(|| repo.unpin(&name)) {
                Ok(()) => drop(pinned.remove(&name)),
                Err(error) => tracing::debug!(name, %error, "not unpinned"),
            }
        }
    }
}

/// What the states name: pins by their names.
fn wanted<'a>(states: impl Iterator<Item = (&'a StackName, &'a StackState)>) -> BTreeMap<String, Revision> {
    let mut wanted = BTreeMap::new();
    for (stack, state) in states {
        let healthy = state.healthy.as_ref().and_then(|mark| mark.revision.clone());
        wanted.extend(healthy.map(|revision| (format!("{HEALTHY}/{stack}"), revision)));
        let held = state.rollback.as_ref().map(|rollback| rollback.revision.clone());
        wanted.extend(held.map(|revision| (format!("{HELD}/{stack}"), revision)));
        let withheld = state.rollback.as_ref().and_then(|rollback| rollback.git.revision.clone());
        wanted.extend(withheld.map(|revision| (format!("{WITHHELD}/{stack}"), revision)));
        let history = state.history.iter().filter_map(|entry| entry.revision.clone());
        wanted.extend(history.map(|revision| (format!("{HISTORY}/{stack}/{}", revision.as_str()), revision)));
    }
    wanted
}

/// Pins of ours that no state names; those of stacks whose state cannot be read stay.
fn surplus(
    pinned: &BTreeMap<String, Revision>,
    wanted: &BTreeMap<String, Revision>,
    unreadable: &[&str],
) -> Vec<String> {
    let is_ours = |name: &str| {
        let mut parts = name.split('/');
        let group = parts.next().is_some_and(|group| [HEALTHY, HISTORY, HELD, WITHHELD].contains(&group));
        group && parts.next().is_some_and(|stack| !unreadable.contains(&stack))
    };
    pinned.keys().filter(|name| !wanted.contains_key(*name) && is_ours(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::state::Mark;

    fn pins(names: &[&str]) -> BTreeMap<String, Revision> {
        names.iter().map(|name| ((*name).to_owned(), Revision("9f2c1ab".into()))).collect()
    }

    #[test]
    fn a_stack_keeps_what_its_state_names() {
        let mark = Mark { revision: Some(Revision("9f2c1ab".into())), fingerprint: String::new() };
        let state = StackState { healthy: Some(mark), ..StackState::default() };
        let name = StackName::new("shop").unwrap();
        assert_eq!(wanted([(&name, &state)].into_iter()), pins(&["healthy/shop"]));
    }

    #[test]
    fn what_no_state_names_is_let_go_and_what_cannot_be_known_is_kept() {
        let pinned = pins(&["healthy/shop", "history/shop/9f2c1ab", "history/odd/9f2c1ab", "held/shop", "else/shop"]);
        let surplus = surplus(&pinned, &pins(&["healthy/shop"]), &["odd"]);
        assert_eq!(surplus, ["held/shop", "history/shop/9f2c1ab"]);
    }
}
