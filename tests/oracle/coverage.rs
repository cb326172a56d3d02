//! Which keys of the schema the cases use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use swarmkeeper::compose::{SECTIONS, Section};
use swarmkeeper::yaml::{self, Node, join};

/// Keys, by their place in the schema, with the number of cases that use each.
pub struct Coverage(BTreeMap<String, usize>);

impl Coverage {
    /// Nothing so far.
    pub fn new() -> Self {
        let paths = SECTIONS.iter().flat_map(|section| section.keys().map(|(key, _)| join(section.path, key)));
        Self(paths.map(|path| (path, 0)).collect())
    }

    /// Counts the keys of a case.
    pub fn add(&mut self, texts: impl Iterator<Item = String>) {
        let mut used = BTreeSet::new();
        for text in texts {
            // A text that does not parse has its complaint where it is loaded.
            if let Ok(node) = yaml::parse("case", &text) {
                walk(&node, "", &mut used);
            }
        }
        for path in used {
            if let Some(count) = self.0.get_mut(&path) {
                *count += 1;
            }
        }
    }

    /// Keys that no case uses.
    pub fn missing(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, count)| **count == 0).map(|(path, _)| path.as_str()).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in SECTIONS {
            let counts = section.keys().map(|(key, _)| format!("{key} {}", self.0[&join(section.path, key)]));
            let place = if section.path.is_empty() { "the file" } else { section.path };
            writeln!(f, "{place}: {}", counts.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

fn walk(node: &Node, pattern: &str, used: &mut BTreeSet<String>) {
    for entry in node.as_map().into_iter().flatten() {
        let fixed = Section::at(pattern).is_some();
        let pattern = join(pattern, if fixed { &entry.key } else { "*" });
        walk(&entry.value, &pattern, used);
        used.insert(pattern);
    }
    for item in node.as_seq().into_iter().flatten() {
        walk(item, &format!("{pattern}[]"), used);
    }
}
