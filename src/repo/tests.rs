//! Config Repos in memory, and the sample that the project ships.

use std::time::Duration;

use super::*;
use crate::io::files::{Entry, EntryKind, Folder};
use crate::model::{Adopt, Drift, OnFailure, StackSettings};

/// Files in memory.
struct Repo(BTreeMap<String, String>);

impl Repo {
    fn with(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    fn render(&self) -> ConfigRepo {
        render(self, None, &Options::default()).unwrap()
    }

    /// The mistakes of `stack`, one a line.
    fn mistakes(&self, stack: &str) -> String {
        self.render().stacks[&name(stack)].as_ref().unwrap_err().to_string()
    }

    /// The settings and objects of `stack`.
    fn stack(&self, stack: &str) -> DesiredStack {
        self.render().stacks[&name(stack)].clone().unwrap_or_else(|findings| panic!("{stack}: {findings}"))
    }
}

/// As the real ones resolve `..`.
fn clean(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Files for Repo {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FileError> {
        let outside = || FileError::Outside { path: path.to_owned(), root: "the repo".to_owned() };
        Ok(self.0.get(&clean(path).ok_or_else(outside)?).map(|text| text.as_bytes().to_vec()))
    }

    fn list(&self, folder: &str) -> Result<Option<Vec<Entry>>, FileError> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut entries: Vec<Entry> = Vec::new();
        for rest in self.0.keys().filter_map(|path| path.strip_prefix(&prefix)) {
            let (name, kind) = match rest.split_once('/') {
                Some((folder, _)) => (folder, EntryKind::Folder),
                None => (rest, EntryKind::File),
            };
            entries.push(Entry { name: name.to_owned(), kind });
        }
        entries.sort();
        entries.dedup();
        Ok((!entries.is_empty()).then_some(entries))
    }
}

fn name(text: &str) -> StackName {
    StackName::new(text).unwrap()
}

const COMPOSE: &str = "services:\n  app:\n    image: app:1\n";

fn image(stack: &DesiredStack, service: &str) -> String {
    let container = &stack.objects.services[service].spec.task_template.container_spec;
    container.image.clone()
}

#[test]
fn folders_and_flat_files_are_stacks_and_the_rest_is_not() {
    let repo = Repo::with(&[
        ("README.md", ""),
        ("stacks/a/compose.yml", COMPOSE),
        ("stacks/b/docker-compose.yaml", COMPOSE),
        ("stacks/c/compose.yaml.hbs", COMPOSE),
        ("stacks/d/stack.yml", "compose: ../../shared/d.yml\n"),
        ("stacks/e.yml", COMPOSE),
        ("stacks/f.yaml.hbs", COMPOSE),
        ("stacks/.github/compose.yml", COMPOSE),
        ("stacks/notes.txt", ""),
        ("stacks/scripts/run.sh", ""),
        ("stacks/typo/composer.yml", COMPOSE),
        ("stacks/bad name.yml", COMPOSE),
        ("shared/d.yml", COMPOSE),
    ]);
    let rendered = repo.render();
    let names: Vec<&str> = rendered.stacks.keys().map(StackName::as_str).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f"]);
    assert!(rendered.stacks.values().all(Result::is_ok), "{:?}", rendered.stacks);
    let findings: Vec<String> = rendered.findings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(findings.join("\n"), @r#"
    stacks/bad name.yml: "bad name" cannot be a stack's name: use letters, digits, '-', '_' and '.', begin with a letter or a digit, and stay below 64 characters (rename it)
    stacks/typo: no stack: neither stack.yml nor a compose file (name its compose file compose.yml, or add a stack.yml)
    "#);
}

#[test]
fn a_repo_without_the_folder_says_nothing_about_stacks() {
    let error = render(&Repo::with(&[("README.md", "")]), None, &Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "the repo has no folder stacks (set git.path to the folder of stacks)");
}

#[test]
fn the_root_itself_can_be_the_folder_of_stacks() {
    let repo = Repo::with(&[("web.yml", COMPOSE), ("db/compose.yml", COMPOSE)]);
    for path in ["", ".", "/"] {
        let rendered = render(&repo, None, &Options { path: path.to_owned(), ..Options::default() }).unwrap();
        assert_eq!(rendered.stacks.keys().map(StackName::as_str).collect::<Vec<_>>(), ["db", "web"]);
    }
}

#[test]
fn a_name_with_two_sources_is_a_mistake_of_that_stack_alone() {
    let repo = Repo::with(&[
        ("stacks/web/compose.yml", COMPOSE),
        ("stacks/web.yml", COMPOSE),
        ("stacks/web.yaml", COMPOSE),
        ("stacks/db.yml", COMPOSE),
    ]);
    insta::assert_snapshot!(repo.mistakes("web"), @"several sources of this stack: stacks/web, stacks/web.yaml, stacks/web.yml (keep one of them)");
    repo.stack("db");
}

#[test]
fn several_compose_files_need_to_be_named() {
    let both =
        [("stacks/web/compose.yml", COMPOSE), ("stacks/web/docker-compose.yml", "services: {app: {image: app:2}}")];
    insta::assert_snapshot!(Repo::with(&both).mistakes("web"), @"stacks/web: several compose files: stacks/web/compose.yml, stacks/web/docker-compose.yml (name those that count in stack.yml, with compose:)");
    let named = [both[0], both[1], ("stacks/web/stack.yml", "compose: [compose.yml, docker-compose.yml]")];
    assert_eq!(image(&Repo::with(&named).stack("web"), "app"), "app:2");
}

#[test]
fn the_filter_takes_some_stacks_and_names_those_that_are_not_there() {
    let repo = Repo::with(&[("stacks/a.yml", COMPOSE), ("stacks/b.yml", COMPOSE)]);
    let options = Options { stacks: Some([name("a"), name("z")].into()), ..Options::default() };
    let rendered = render(&repo, None, &options).unwrap();
    assert_eq!(rendered.stacks.keys().collect::<Vec<_>>(), [&name("a")]);
    assert_eq!(rendered.findings[0].to_string(), "the stack z is to be deployed from here and is not in stacks");
}

#[test]
fn stack_yml_sets_what_it_says_and_leaves_the_rest() {
    let repo = Repo::with(&[
        ("stacks/plain/compose.yml", COMPOSE),
        ("stacks/web/compose.yml", COMPOSE),
        (
            "stacks/web/stack.yml",
            "after: plain\nadopt: auto\ndrift: correct\non_failure: rollback-stack\nrecreate: true\nconsul_checks: true\ntimeout: 90s\n",
        ),
    ]);
    assert_eq!(repo.stack("plain").settings, StackSettings::default());
    let expected = StackSettings {
        after: vec![name("plain")],
        adopt: Adopt::Auto,
        removed: false,
        drift: Drift::Correct,
        on_failure: OnFailure::RollbackStack,
        consul_checks: true,
        recreate: true,
        timeout: Duration::from_secs(90),
    };
    assert_eq!(repo.stack("web").settings, expected);
}

#[test]
fn all_mistakes_of_a_stack_are_reported_at_once() {
    let stack = "\
compse: compose.yml
env_file: [missing.env, ../../../outside.env]
values: [1]
after: [1, 'a b']
adopt: yes
drift: corect
timeout: 0s
removed: 'no'
packs:
- pack: wordpress
";
    let repo = Repo::with(&[("stacks/web/stack.yml", stack), ("stacks/web/compose.yml.hbs", "image: {{missing}}")]);
    insta::assert_snapshot!(repo.mistakes("web"), @r#"
    stacks/web/compose.yml.hbs:1:8: there is no value missing (set it in stack.yml under values:, or in a values_file)
    stacks/web/stack.yml:1:1: compse: no such key (did you mean compose?)
    stacks/web/stack.yml:2:12: there is no file stacks/web/missing.env
    stacks/web/stack.yml:2:25: stacks/web/../../../outside.env leads out of the repo: only what lies inside can be read
    stacks/web/stack.yml:3:9: values: found a list, accepted: a map
    stacks/web/stack.yml:4:9: after[0]: found the number 1, accepted: text (put it in quotes)
    stacks/web/stack.yml:4:12: after[1]: "a b" cannot be a stack's name: use letters, digits, '-', '_' and '.', begin with a letter or a digit, and stay below 64 characters
    stacks/web/stack.yml:5:8: adopt: found "yes", accepted: ask, auto
    stacks/web/stack.yml:6:8: drift: found "corect", accepted: report, correct (did you mean correct?)
    stacks/web/stack.yml:7:10: timeout: no rollout ends at once (write a time such as 10m)
    stacks/web/stack.yml:8:10: removed: found the text no, accepted: true or false (write true or false)
    stacks/web/stack.yml:10:3: packs: packs come with a later version (until then, render them into a compose file)
    "#);
}

#[test]
fn the_environment_is_the_declared_one_and_the_nearer_wins() {
    let compose = "services:\n  app:\n    image: ${REGISTRY}/app:${TAG}${PATH}${NONE}\n";
    let repo = Repo::with(&[
        ("stacks/web/compose.yml", compose),
        ("stacks/web/stack.yml", "env_file: ../../env/prod.env\nenv: {TAG: 1.10}\n"),
        ("env/prod.env", "# comment\n\nREGISTRY=registry.example.com:5000\nTAG=2\n"),
    ]);
    let environment = [("REGISTRY", "elsewhere"), ("NONE", "-x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let rendered = render(&repo, None, &Options { environment, ..Options::default() }).unwrap();
    let stack = rendered.stacks[&name("web")].as_ref().unwrap();
    assert_eq!(image(stack, "app"), "registry.example.com:5000/app:1.10-x");
}

#[test]
fn mistakes_in_an_env_file_are_located_and_quote_no_value() {
    let repo = Repo::with(&[
        ("stacks/web/compose.yml", COMPOSE),
        ("stacks/web/stack.yml", "env_file: web.env"),
        ("stacks/web/web.env", "export A=hunter2\nhunter2\n=hunter2\n"),
    ]);
    insta::assert_snapshot!(repo.mistakes("web"), @r"
    stacks/web/web.env:1: the text before = is no variable's name (write KEY=value, without export)
    stacks/web/web.env:2: no KEY=value (a stack sees no other environment that could give a value)
    stacks/web/web.env:3: the text before = is no variable's name (write KEY=value, without export)
    ");
    let quoted = [
        ("stacks/web/compose.yml", COMPOSE),
        ("stacks/web/stack.yml", "env_file: web.env"),
        ("stacks/web/web.env", "A=\"hunter2\"\n"),
    ];
    let warnings = Repo::with(&quoted).stack("web").warnings;
    assert_eq!(warnings[0].to_string(), "stacks/web/web.env:1: the quotes are part of the value of A (leave them out)");
}

#[test]
fn a_template_sees_the_values_and_the_nearer_ones_win() {
    let repo = Repo::with(&[
        (
            "stacks/web/compose.yml.hbs",
            "services:\n{{#each apps}}\n  {{this}}:\n    image: {{../image.name}}:{{../image.tag}}\n{{/each}}\n",
        ),
        ("stacks/web/stack.yml", "values_file: [../../values/base.yml, prod.yml]\nvalues: {image: {tag: 5.10}}\n"),
        ("values/base.yml", "image: {name: app, tag: '1'}\napps: [x, y, z]\n"),
        ("stacks/web/prod.yml", "apps: [a, b]\n"),
    ]);
    let stack = repo.stack("web");
    assert_eq!(stack.objects.services.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(image(&stack, "a"), "app:5.10");
}

#[test]
fn a_mistake_behind_a_template_is_located_in_what_it_renders_to() {
    let repo = Repo::with(&[("stacks/web/compose.yml.hbs", "{{#if x}}\n{{/if}}services:\n  app:\n    image: [1]\n")]);
    let mistakes = repo.mistakes("web");
    assert!(mistakes.starts_with("stacks/web/compose.yml.hbs (rendered):3:"), "{mistakes}");
}

#[test]
fn one_stacks_mistake_stops_no_other() {
    let repo = Repo::with(&[("stacks/bad.yml", "services: ["), ("stacks/good.yml", COMPOSE)]);
    assert!(repo.mistakes("bad").starts_with("stacks/bad.yml:"));
    repo.stack("good");
}

#[test]
fn a_removed_stack_needs_no_compose_file() {
    let repo = Repo::with(&[("stacks/old/stack.yml", "removed: true")]);
    let stack = repo.stack("old");
    assert!(stack.settings.removed && stack.objects.services.is_empty());
    let kept = Repo::with(&[("stacks/old/stack.yml", "adopt: auto")]);
    insta::assert_snapshot!(kept.mistakes("old"), @"stacks/old/stack.yml: stacks/old holds no compose file (add compose.yml, or name the files with compose:)");
}

#[test]
fn after_must_name_what_is_there_and_lead_to_an_end() {
    let repo = Repo::with(&[
        ("stacks/a/stack.yml", "{compose: ../c.yml, after: [b]}"),
        ("stacks/b/stack.yml", "{compose: ../c.yml, after: [c, a]}"),
        ("stacks/c.yml", COMPOSE),
        ("stacks/d/stack.yml", "{compose: ../c.yml, after: [databse, gone, d, c, broken]}"),
        ("stacks/database.yml", COMPOSE),
        ("stacks/gone/stack.yml", "removed: true"),
        ("stacks/broken.yml", "["),
        ("stacks/waits/stack.yml", "{compose: ../c.yml, after: [broken]}"),
        ("stacks/outside-the-circle/stack.yml", "{compose: ../c.yml, after: [a]}"),
    ]);
    assert_eq!(repo.mistakes("a"), "stacks/a/stack.yml: after: waits for itself: a → b → a (cut the circle)");
    assert_eq!(repo.mistakes("b"), "stacks/b/stack.yml: after: waits for itself: b → a → b (cut the circle)");
    insta::assert_snapshot!(repo.mistakes("d"), @r"
    stacks/d/stack.yml: after: no stack databse is deployed from here (did you mean database?)
    stacks/d/stack.yml: after: the stack gone is to be removed (take it out of after)
    stacks/d/stack.yml: after: waits for itself: d → d (cut the circle)
    ");
    repo.stack("waits");
    repo.stack("outside-the-circle");
}

#[test]
fn the_revision_is_the_one_that_was_rendered() {
    let revision = Revision("3c2a9f1d00000000000000000000000000000000".to_owned());
    let repo = Repo::with(&[("stacks/web.yml", COMPOSE)]);
    let rendered = render(&repo, Some(&revision), &Options::default()).unwrap();
    assert_eq!(rendered.stacks[&name("web")].as_ref().unwrap().revision, Some(revision));
}

#[test]
fn the_sample_config_repo_renders_without_a_remark() {
    let folder = Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/stack/config-repo"));
    let rendered = render(&folder, None, &Options::default()).unwrap();
    assert_eq!(rendered.findings, []);
    assert_eq!(rendered.stacks.keys().map(StackName::as_str).collect::<Vec<_>>(), ["backend", "frontend", "hello"]);
    for (name, stack) in &rendered.stacks {
        let stack = stack.as_ref().unwrap_or_else(|findings| panic!("{name}: {findings}"));
        assert_eq!(stack.warnings, [], "{name}");
    }
}

#[test]
fn a_stack_that_does_what_the_policy_does_not_allow_is_a_mistake_of_that_stack_alone() {
    let policy = crate::yaml::parse("swarmkeeper.yml", "'*': {images: ['app*']}").unwrap();
    let problems = Problems::default();
    let permissions = Permissions::read(&crate::yaml::Field::new(&policy, "policy", &problems));
    let repo = Repo::with(&[
        ("stacks/a.yml", COMPOSE),
        ("stacks/b/compose.yml.hbs", "services:\n  app:\n    image: app:{{tag}}\n    cap_add:\n    - {{cap}}\n"),
        ("stacks/b/stack.yml", "values: {tag: 1, cap: ALL}\n"),
        ("stacks/c/compose.yml", COMPOSE),
        ("stacks/c/stack.yml", "removed: true\n"),
    ]);
    let rendered = render(&repo, None, &Options { permissions, ..Options::default() }).unwrap();
    let wrong: Vec<&str> =
        rendered.stacks.iter().filter(|(_, stack)| stack.is_err()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(wrong, ["b"]);
    insta::assert_snapshot!(rendered.stacks[&name("b")].as_ref().unwrap_err(), @r#"stacks/b/compose.yml.hbs (rendered):5:7: services.app.cap_add[0]: found the capability ALL, and the policy allows this stack no capabilities (to allow it, add "ALL" to policy.b.capabilities in swarmkeeper.yml)"#);
}

#[test]
fn an_unknown_word_in_swarmkeeper_ignore_has_its_place() {
    let file =
        "services:\n  api:\n    image: app:1\n    deploy:\n      labels:\n        swarmkeeper.ignore: replicas,nodes\n";
    let repo = Repo::with(&[("stacks/web/compose.yml", file)]);
    insta::assert_snapshot!(repo.mistakes("web"), @r#"stacks/web/compose.yml:6:9: services.api.deploy.labels.swarmkeeper.ignore: found "nodes", accepted: replicas, image, resources, placement, env, env.NAME, labels, labels.NAME"#);
    let listed = Repo::with(&[(
        "stacks/web/compose.yml",
        &file.replace("        swarmkeeper.ignore: replicas,nodes", "        - swarmkeeper.ignore=nodes"),
    )]);
    assert!(listed.mistakes("web").starts_with("stacks/web/compose.yml:5:7: "), "{}", listed.mistakes("web"));
}
