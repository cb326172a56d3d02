//! `depends_on`: every service named is there (strictly, that is a remark only), and nothing waits for itself.

use std::collections::{BTreeMap, BTreeSet};

use super::read::{Ctx, Mistake, undeclared};
use super::services::Service;

/// What goes first, by service; or the mistakes, by path.
pub(super) fn dependencies(
    services: &BTreeMap<String, Service>,
    ctx: &Ctx<'_>,
) -> Result<BTreeMap<String, Vec<String>>, Vec<Mistake>> {
    let (mut graph, mut mistakes) = (BTreeMap::new(), Vec::new());
    for (key, service) in services {
        let mut first: Vec<String> = Vec::new();
        for dependency in &service.depends_on {
            let known = services.contains_key(&dependency.service);
            if known && !first.contains(&dependency.service) {
                first.push(dependency.service.clone());
            } else if !known && dependency.required {
                let message = undeclared("service", &dependency.service, services.keys());
                let mistake = Mistake { path: format!("services.{key}.depends_on"), message };
                // `docker stack deploy` does not look at the key at all.
                if ctx.lenient() {
                    mistakes.push(mistake);
                } else {
                    ctx.warnings.add(mistake.into());
                }
            }
        }
        graph.insert(key.clone(), first);
    }
    if let Some(cycle) = find_cycle(&graph) {
        let path = format!("services.{}.depends_on", cycle.first().map_or("", |key| key));
        let message = format!("the services wait for each other: {}", cycle.join(" → "));
        mistakes.push(Mistake { path, message });
    }
    if mistakes.is_empty() { Ok(graph) } else { Err(mistakes) }
}

/// A cycle, its first service once more at the end.
fn find_cycle(graph: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    for start in graph.keys() {
        // A path on the heap instead of recursion: a file may chain thousands of services.
        let mut trail: Vec<(&String, std::slice::Iter<'_, String>)> = Vec::new();
        if !done.contains(start) {
            trail.push((start, graph.get(start)?.iter()));
        }
        while let Some((key, next)) = trail.last_mut() {
            match next.next() {
                None => {
                    done.insert(*key);
                    trail.pop();
                }
                Some(next) if done.contains(next) => {}
                Some(next) => {
                    if let Some(at) = trail.iter().position(|(on_trail, _)| *on_trail == next) {
                        let cycle = trail.iter().skip(at).map(|(key, _)| (*key).clone());
                        return Some(cycle.chain([next.clone()]).collect());
                    }
                    trail.push((next, graph.get(next)?.iter()));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[(&str, &[&str])], expected: Option<&str>) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let graph = edges.iter().map(|(key, first)| ((*key).to_owned(), list(first))).collect();
        assert_eq!(find_cycle(&graph).map(|cycle| cycle.join(" → ")).as_deref(), expected);
    }

    #[test]
    fn a_cycle_is_named_and_a_diamond_is_none() {
        check(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])], None);
        check(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])], Some("b → c → b"));
        check(&[("a", &["a"])], Some("a → a"));
    }
}
