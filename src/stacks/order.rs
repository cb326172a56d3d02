//! The order that dependencies ask for.

use std::collections::{BTreeMap, BTreeSet};

/// Sorts keys into layers: a key's dependencies stand in earlier layers. Keys in a circle stand together in the last one, so that
/// nothing is lost; `compose` reports circles.
pub fn layers<'a>(depends_on: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    let mut layers = Vec::new();
    while placed.len() < depends_on.len() {
        // What is no key of ours was not asked about, and holds nothing up.
        let is_ready = |needs: &BTreeSet<&str>| needs.iter().all(|n| placed.contains(n) || !depends_on.contains_key(n));
        let left = || depends_on.iter().filter(|(key, _)| !placed.contains(*key));
        let mut layer: Vec<&str> = left().filter(|(_, needs)| is_ready(needs)).map(|(key, _)| *key).collect();
        if layer.is_empty() {
            layer = left().map(|(key, _)| *key).collect();
        }
        placed.extend(&layer);
        layers.push(layer);
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[(&'static str, &[&'static str])], wanted: &[&[&str]]) {
        let edges = edges.iter().map(|(key, needs)| (*key, needs.iter().copied().collect())).collect();
        assert_eq!(layers(&edges), wanted);
    }

    #[test]
    fn what_is_depended_on_goes_first() {
        check(
            &[("api", &["db", "cache"]), ("cache", &[]), ("db", &[]), ("web", &["api"])],
            &[&["cache", "db"], &["api"], &["web"]],
        );
    }

    #[test]
    fn a_circle_loses_nothing_and_strangers_hold_nothing_up() {
        check(&[("a", &["b"]), ("b", &["a"]), ("c", &["elsewhere"])], &[&["c"], &["a", "b"]]);
    }
}
