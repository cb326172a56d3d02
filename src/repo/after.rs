//! `after:` must name stacks that are there, and must lead to an end.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{DesiredStack, Finding, Findings, Location, StackName};
use crate::yaml::nearest;

type Stacks = BTreeMap<StackName, Result<DesiredStack, Findings>>;

/// Turns stacks whose `after:` can never be met into errors.
///
/// `stack_files` tells which file says so.
pub(super) fn check(stacks: &mut Stacks, stack_files: &BTreeMap<StackName, String>) {
    let mistakes: Vec<(StackName, Findings)> = stacks
        .iter()
        .filter_map(|(name, stack)| Some((name, stack.as_ref().ok()?)))
        .filter(|(_, stack)| !stack.settings.removed)
        .filter_map(|(name, stack)| {
            let mut findings: Vec<Finding> =
                stack.settings.after.iter().filter_map(|other| unmeetable(other, stacks)).collect();
            findings.extend(
                cycle(name, stacks).map(|cycle| finding(format!("waits for itself: {cycle}"), "cut the circle")),
            );
            let location = stack_files.get(name).map(Location::file);
            for finding in &mut findings {
                finding.location.clone_from(&location);
            }
            (!findings.is_empty()).then(|| (name.clone(), Findings(findings)))
        })
        .collect();
    for (name, findings) in mistakes {
        stacks.insert(name, Err(findings));
    }
}

fn unmeetable(other: &StackName, stacks: &Stacks) -> Option<Finding> {
    match stacks.get(other) {
        None => {
            let known: Vec<&str> = stacks.keys().map(StackName::as_str).collect();
            let mend = nearest(other.as_str(), &known).map(|near| format!("did you mean {near}?"));
            Some(finding(format!("no stack {other} is deployed from here"), &mend.unwrap_or_default()))
        }
        Some(Ok(stack)) if stack.settings.removed => {
            Some(finding(format!("the stack {other} is to be removed"), "take it out of after"))
        }
        // A stack with a mistake is waited for until it is mended.
        Some(_) => None,
    }
}

/// The way from `start` back to itself, such as `a → b → a`.
fn cycle(start: &StackName, stacks: &Stacks) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start]];
    while let Some(way) = ways.pop() {
        let Some(Ok(stack)) = way.last().and_then(|last| stacks.get(*last)) else { continue };
        for next in &stack.settings.after {
            if next == start {
                let names = way.iter().copied().chain([start]).map(StackName::as_str);
                return Some(names.collect::<Vec<_>>().join(" → "));
            }
            if seen.insert(next) {
                ways.push(way.iter().copied().chain([next]).collect());
            }
        }
    }
    None
}

fn finding(message: String, mend: &str) -> Finding {
    Finding { location: None, path: "after".to_owned(), message, mend: mend.to_owned() }
}
