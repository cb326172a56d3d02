//! `policy:` as YAML → [`Permissions`]; all mistakes at once.

use std::collections::BTreeMap;

use super::{Entry, Pattern, Permissions, Rule};
use crate::model::StackName;
use crate::yaml::Field;

/// What makes a stack's name a glob.
const GLOB_SIGNS: [char; 6] = ['*', '?', '[', ']', '{', '}'];

impl Permissions {
    /// Reads the value of `policy:`; mistakes are problems of `field`.
    pub fn read(field: &Field<'_, '_>) -> Self {
        let file = field.node.location.file.clone();
        if field.node.is_null() {
            let mend = "write {} to allow nothing, or take the key away to allow everything";
            field.wrong("found nothing, accepted: a map from stacks to what they may do", mend);
        }
        let entries = field.entries("a map from stacks to what they may do").unwrap_or_default();
        let entries = entries.iter().filter_map(|(entry, field)| read_entry(&entry.key, field)).collect();
        Self { entries: Some(entries), file }
    }
}

fn read_entry(stacks: &str, field: &Field<'_, '_>) -> Option<Entry> {
    let mut map = field.map();
    let allowed: BTreeMap<Rule, Vec<Pattern>> =
        Rule::LISTS.into_iter().filter_map(|rule| Some((rule, read_patterns(rule, &map.take(rule.key())?)))).collect();
    let host_network = map.bool(Rule::HostNetwork.key()).unwrap_or(false);
    map.finish();
    if !stacks.contains(GLOB_SIGNS)
        && let Err(error) = StackName::new(stacks)
    {
        field.wrong(error.to_string(), "");
    }
    match Pattern::of_stacks(stacks) {
        Ok(stacks) => Some(Entry { stacks, allowed, host_network }),
        Err(why) => {
            field.wrong(why, "write a stack's name, or a glob such as shop-*");
            None
        }
    }
}

fn read_patterns(rule: Rule, field: &Field<'_, '_>) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for item in field.items("a list of globs").unwrap_or_default() {
        match item.string().map(|text| Pattern::new(rule, &text)) {
            Some(Ok(pattern)) => patterns.push(pattern),
            Some(Err(why)) => item.wrong(why, ""),
            None => {}
        }
    }
    patterns
}
