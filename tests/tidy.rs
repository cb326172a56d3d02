//! The repository's rules, proved on its source: who may touch the network, the environment, the clock and the scheduler, who
//! may know whom, and that the README, the settings and the stack files agree.
//!
//! Comments and in-file test modules are left out, since they run nowhere. An exception is a row with its reason, and an
//! exception that nothing needs any more fails the test too.

// A test fails by a panic, its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use swarmkeeper::config::config_table;
use swarmkeeper::config::settings::SETTINGS;

/// Parts of the product that may not know each other; they meet in `app` and `cli`.
const FEATURES: &[&str] =
    &["compose", "http", "images", "import", "leader", "notify", "registration", "repo", "stacks", "updates"];

/// What every part may use, and which therefore may use no feature.
const SHARED: &[&str] =
    &["config", "image", "io", "log", "model", "policy", "reconcile", "spec", "status", "telemetry", "yaml"];

/// A feature that knows another one, and why.
const ACQUAINTANCES: &[(&str, &str, &str)] =
    &[("repo", "compose", "rendering a stack ends in its compose file; both are pure from there on")];

/// Words that only some files may use.
struct Rule {
    name: &'static str,
    words: &'static [&'static str],
    /// Files, or folders ending in `/`, below `src/`, each with its reason.
    allowed: &'static [(&'static str, &'static str)],
}

const RULES: &[Rule] = &[
    Rule {
        name: "only io talks to the outside",
        words: &[
            "reqwest::",
            "bollard::",
            "git2::",
            "hickory_resolver",
            "tokio::net",
            "std::net::Tcp",
            "std::net::Udp",
        ],
        allowed: &[
            ("io/", "it is what io is for"),
            ("app/", "opens the listeners that http is given"),
            ("http/server.rs", "accepts on listeners that it is given"),
        ],
    },
    Rule {
        name: "only config reads the environment",
        words: &["std::env", "env::var", "env::home_dir"],
        allowed: &[("config/", "it is what config is for")],
    },
    Rule {
        name: "only app spawns",
        words: &["tokio::spawn", "thread::spawn", "task::spawn", "spawn_local", ".spawn("],
        allowed: &[
            ("app/", "it is what app is for"),
            ("http/server.rs", "a connection is a task of a set that the server drains"),
            ("io/", "blocking libraries run beside the scheduler, and are awaited"),
        ],
    },
    Rule {
        name: "only the edges read a clock",
        words: &["SystemTime::now", "now_utc()", "now_local()"],
        allowed: &[
            ("app/", "hands the time to those who decide"),
            ("cli/", "hands the time to what it prints"),
            ("leader/run.rs", "hands the time to the election"),
            ("stacks/deploy.rs", "follows a person's own deploy, with no loop above it that could hand it the time"),
            ("registration/observe.rs", "says since when the engine shall tell events"),
        ],
    },
];

/// What makes a decision depend on more than its arguments.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "now_utc",
    "tokio::",
    "async fn",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "tracing::",
    "println!",
    "reqwest::",
    "rand::",
];

#[test]
fn every_rule_holds_and_every_exception_is_needed() {
    let mut complaints = Vec::new();
    let mut needed = BTreeSet::new();
    for (file, code) in source() {
        for rule in RULES {
            for (line, word) in uses(&code, rule.words) {
                match rule.allowed.iter().find(|(place, _)| is_at(&file, place)) {
                    Some((place, _)) => _ = needed.insert((rule.name, *place)),
                    None => complaints.push(format!("src/{file}:{line}: {word}: {}", rule.name)),
                }
            }
        }
    }
    for rule in RULES {
        for (place, _) in rule.allowed.iter().filter(|(place, _)| !needed.contains(&(rule.name, *place))) {
            if src().join(place).exists() {
                complaints.push(format!("{}: nothing in {place} needs the exception", rule.name));
            }
        }
    }
    none(&complaints);
}

#[test]
fn decisions_depend_on_their_arguments_only() {
    let is_pure = |file: &str| {
        let in_feature = !file.starts_with("cli/");
        let is_plan = file.ends_with("/plan.rs") || file.contains("/plan/");
        (in_feature && is_plan)
            || ["compose/", "import/", "policy/", "yaml/", "image/"].iter().any(|place| is_at(file, place))
            || file == "image.rs"
    };
    let files = source().into_iter().filter(|(file, _)| is_pure(file)).collect::<Vec<_>>();
    assert!(files.len() > 3, "the pure files are not where this test looks for them");
    let complaints = files.iter().flat_map(|(file, code)| {
        uses(code, IMPURE).into_iter().map(move |(line, word)| format!("src/{file}:{line}: {word} in a pure file"))
    });
    none(&complaints.collect::<Vec<_>>());
}

#[test]
fn features_do_not_know_each_other() {
    let mut complaints = Vec::new();
    let mut met = BTreeSet::new();
    for (file, code) in source() {
        let part = part(&file);
        let (is_feature, is_shared) = (FEATURES.contains(&part), SHARED.contains(&part));
        for (line, other) in imports(&code) {
            let excepted = ACQUAINTANCES.iter().any(|(who, whom, _)| *who == part && *whom == other);
            met.insert((part.to_owned(), other.clone()));
            if other != part && FEATURES.contains(&other.as_str()) && (is_feature || is_shared) && !excepted {
                complaints.push(format!("src/{file}:{line}: {part} knows {other}"));
            }
        }
    }
    let strangers =
        ACQUAINTANCES.iter().filter(|(who, whom, _)| !met.contains(&((*who).to_owned(), (*whom).to_owned())));
    complaints
        .extend(strangers.map(|(who, whom, _)| format!("{who} does not know {whom}: the exception is not needed")));
    none(&complaints);
}

#[test]
fn every_part_is_a_feature_or_shared() {
    let parts: BTreeSet<String> = source().iter().map(|(file, _)| part(file).to_owned()).collect();
    let placed = |part: &String| {
        FEATURES.contains(&part.as_str())
            || SHARED.contains(&part.as_str())
            || ["app", "cli", "lib", "main"].contains(&part.as_str())
    };
    let complaints: Vec<_> =
        parts.iter().filter(|part| !placed(part)).map(|part| format!("src/{part} is neither")).collect();
    none(&complaints);
}

#[test]
fn the_readme_shows_every_setting() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- config -->\n").expect("README.md has the marker <!-- config -->");
    let (shown, _) = rest.split_once("<!-- /config -->").expect("README.md has the marker <!-- /config -->");
    let wanted = config_table();
    assert!(shown.trim() == wanted, "README.md's table is not that of the settings; it should be:\n\n{wanted}\n");
}

#[test]
fn stack_files_name_settings_that_exist() {
    let mut known: BTreeSet<String> =
        SETTINGS.iter().flat_map(|setting| [setting.env(), setting.env() + "_FILE"]).collect();
    known.extend(["SWARMKEEPER_CONFIG", "SWARMKEEPER_IMAGE"].map(str::to_owned));
    let mut complaints = Vec::new();
    for path in files_below(&root().join("stack")) {
        let text = fs::read_to_string(&path).unwrap();
        let words = text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
        for word in words.filter(|word| word.starts_with("SWARMKEEPER_") && !known.contains(*word)) {
            complaints.push(format!("{}: {word} is no setting", path.display()));
        }
    }
    none(&complaints);
}

#[test]
fn no_file_is_too_long_to_be_read() {
    const LINES_MAX: usize = 700;
    let long = source().into_iter().map(|(file, code)| (file, code.len())).filter(|(_, lines)| *lines > LINES_MAX);
    none(&long.map(|(file, lines)| format!("src/{file}: {lines} lines, at most {LINES_MAX}")).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let remarks = [["FIX", "ME"], ["XX", "X:"], ["TO", "DO"], ["#[ign", "ore"]].map(|parts| parts.concat());
    let mut complaints = Vec::new();
    for path in files_below(&src()).into_iter().chain(files_below(&root().join("tests"))) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (line, text) in text.lines().enumerate() {
            if let Some(word) = words.iter().chain(&remarks).find(|word| text.contains(word.as_str())) {
                complaints.push(format!("{}:{}: {word}", path.display(), line + 1));
            }
        }
    }
    none(&complaints);
}

/// Every file below `src/` as lines of code: comments, strings' contents aside, and in-file test modules left out.
fn source() -> Vec<(String, Vec<String>)> {
    let is_test = |file: &str| {
        let name = file.rsplit('/').next().unwrap_or(file);
        name.ends_with("tests.rs") || name == "simulation.rs" || file.contains("/tests/")
    };
    let files =
        files_below(&src()).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let named = files.map(|path| (path.strip_prefix(src()).unwrap().to_str().unwrap().to_owned(), path));
    named
        .filter(|(file, _)| !is_test(file))
        .map(|(file, path)| (file, code(&fs::read_to_string(path).unwrap())))
        .collect()
}

/// Lines with their comments blanked, up to the test module.
fn code(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    let without_comment = |line: &&str| match line.split_once("//") {
        // An address in a string is no comment.
        Some((before, _)) if !before.ends_with(':') => before.to_owned(),
        _ => (*line).to_owned(),
    };
    lines[..tests.unwrap_or(lines.len())].iter().map(without_comment).collect()
}

fn uses(code: &[String], words: &'static [&'static str]) -> Vec<(usize, &'static str)> {
    let found = |(index, line): (usize, &String)| {
        words.iter().filter(|word| line.contains(**word)).map(|word| (index + 1, *word)).collect::<Vec<_>>()
    };
    code.iter().enumerate().flat_map(found).collect()
}

/// The parts that a file names as `crate::part`, and as a member of `use crate::{part, …}`.
fn imports(code: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in code.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let group = rest.strip_prefix('{').map_or(rest, |group| group.split('}').next().unwrap_or(group));
            let many = if rest.starts_with('{') { usize::MAX } else { 1 };
            for member in group.split(',').take(many) {
                let name: String = member.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.push((index + 1, name));
            }
        }
    }
    found
}

/// `io` of `io/consul/kv.rs`, `app` of `app.rs`.
fn part(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

fn is_at(file: &str, place: &str) -> bool {
    if place.ends_with('/') { file.starts_with(place) } else { file == place }
}

fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn src() -> PathBuf {
    root().join("src")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
