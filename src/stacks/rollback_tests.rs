//! History and rollback, on a model of a swarm.

use super::pass::{Held, Pass, plan_all};
use super::plan::{Event, Plan};
use super::state::Image;
use super::world::{World, resolved, shop, stack, with_secret};
use crate::model::{DesiredStack, StackName, Wanted};
use crate::status::{Command, StackState as Verdict};

fn at(revision: &str, tag: &str) -> DesiredStack {
    stack(revision, &[&format!("api app:{tag}"), "web web:1"])
}

/// A world in which these commits came one after the other, each until it converged or failed.
fn after(commits: &[&DesiredStack]) -> World {
    let mut world = World::new();
    for &commit in commits {
        world.commits.push(commit.clone());
        world.settle(Some(commit));
    }
    world
}

/// The history as `revision outcome`, oldest first.
fn history(world: &World) -> Vec<String> {
    let told = |entry: &super::history::Entry| {
        let by = if entry.rollback { " by rollback" } else { "" };
        format!("{} {}{by}", entry.revision.as_ref().unwrap(), entry.outcome.word())
    };
    world.state().history.iter().map(told).collect()
}

fn image_of(world: &World, service: &str) -> String {
    world.observed.services[service].spec.task_template.container_spec.image.clone()
}

fn notes(plan: &Plan) -> String {
    plan.notes.iter().map(|note| note.text.clone()).collect::<Vec<_>>().join("; ")
}

#[test]
fn every_rollout_that_ends_is_remembered_and_nothing_else_is() {
    let mut world = after(&[&at("aaa", "1"), &at("bbb", "2")]);
    world.broken.insert("app:3".into());
    world.settle(Some(&at("ccc", "3")));
    world.settle(Some(&at("ddd", "2")));
    assert_eq!(history(&world), ["aaa0000 ok", "bbb0000 ok", "ccc0000 rolled-back", "ddd0000 ok"]);
    let failed = &world.state().history[2];
    assert_eq!(failed.reason, "shop_api exit 1 on n17");
    assert_eq!(failed.digests["app:3"], resolved("app:3").image.split_once('@').unwrap().1);
    let writes = world.writes;
    world.settle(Some(&at("eee", "2")));
    assert_eq!((world.writes, world.state().history.len()), (writes, 4), "a commit that leaves the stack alone");
}

#[test]
fn a_history_holds_no_content() {
    let world = after(&[&with_secret(at("aaa", "1"), "api", "hunter2")]);
    assert!(!serde_json::to_string(&world.state().history).unwrap().contains("hunter2"));
}

#[test]
fn a_state_from_before_there_was_a_history_begins_one() {
    let mut world = after(&[&at("aaa", "1")]);
    world.observed.states.get_mut(&shop()).unwrap().state.history.clear();
    world.settle(Some(&at("aaa", "1")));
    assert_eq!(history(&world), ["aaa0000 ok"]);
}

#[test]
fn an_adopted_stack_has_a_history() {
    let mut world = World::new();
    world.deploy_by_hand(&at("aaa", "1"));
    world.command(&Command::Adopt { stack: shop() });
    world.settle(Some(&at("aaa", "1")));
    assert_eq!(history(&world), ["aaa0000 ok"]);
    assert_eq!(world.state().history[0].digests.len(), 2);
}

#[test]
fn a_rollback_returns_to_what_ran_before_and_holds() {
    let (first, second) = (at("aaa", "1"), at("bbb", "2"));
    let mut world = after(&[&first, &second]);
    let before = image_of(&world, "shop_web");
    let said = world.go_back(&second, None).unwrap();
    insta::assert_snapshot!(said, @"shop goes back to aaa0000: 1 service changes; it stays there until git changes the stack or `swarmkeeper resume shop`");
    let plan = world.pass(Some(&second));
    insta::assert_snapshot!(plan, @r"
    plan shop   bbb0000 → aaa0000
    ~ shop_api  RESTARTS 1 task, 1 at a time, stop-first
        image  2@6170703a3200 → 1@6170703a3100     (compose.yml:3)
    ! held: rolled back to aaa0000: it leaks
    = 2 unchanged, 2 writes
    ");
    assert_eq!(plan.tells[0].message, "begins to be rolled back to aaa0000: it leaks");
    let plan = world.pass(Some(&second));
    let told: Vec<(Event, &str)> = plan.tells.iter().map(|tell| (tell.event, tell.message.as_str())).collect();
    let message = "rolled back to aaa0000: it leaks; held until git changes the stack or somebody says `resume`";
    assert_eq!(told, [(Event::Converged, message)]);
    let plan = world.settle(Some(&second));
    assert_eq!((plan.verdict, notes(&plan).as_str()), (Verdict::Held, "rolled back to aaa0000: it leaks"));
    assert_eq!(image_of(&world, "shop_api"), resolved("app:1").image);
    assert_eq!(image_of(&world, "shop_web"), before);
    assert_eq!(history(&world), ["aaa0000 ok", "bbb0000 ok", "aaa0000 ok by rollback"]);
    assert_eq!(world.state().history[2].reason, "rolled back to aaa0000: it leaks");
    let writes = world.writes;
    assert_eq!(world.settle(Some(&at("ccc", "2"))).verdict, Verdict::Held, "that commit leaves the stack alone");
    assert_eq!(world.writes, writes);
}

#[test]
fn a_rollback_ends_when_git_changes_the_stack() {
    let mut world = after(&[&at("aaa", "1"), &at("bbb", "2")]);
    world.go_back(&at("bbb", "2"), None).unwrap();
    world.settle(Some(&at("bbb", "2")));
    assert_eq!(world.settle(Some(&at("ccc", "3"))).verdict, Verdict::Ok);
    assert_eq!(image_of(&world, "shop_api"), resolved("app:3").image);
    assert_eq!(world.state().rollback, None);
}

#[test]
fn resume_ends_a_rollback_with_the_digest_that_ran_before_it() {
    let mut world = after(&[&at("aaa", "1"), &at("bbb", "2")]);
    let ran = image_of(&world, "shop_api");
    world.go_back(&at("bbb", "2"), None).unwrap();
    world.settle(Some(&at("bbb", "2")));
    world.images.insert("app:2".into(), Err("asked again".into()));
    world.command(&Command::Resume { stack: shop() });
    assert_eq!(world.settle(Some(&at("bbb", "2"))).verdict, Verdict::Ok);
    assert_eq!(image_of(&world, "shop_api"), ran);
}

/// The same text at two digests: at first `old`, and `retry` resolves it anew.
fn a_moved_tag(adopted: bool) -> (World, DesiredStack, String, String) {
    let (first, mut second) = (stack("aaa", &["api app:main"]), stack("bbb", &["api app:main"]));
    second.objects.services.get_mut("api").unwrap().spec.task_template.container_spec.user = Some("app".into());
    let mut world = World::new();
    world.commits.push(first.clone());
    if adopted {
        world.deploy_by_hand(&first);
        world.command(&Command::Adopt { stack: shop() });
    }
    world.settle(Some(&first));
    let old = image_of(&world, "shop_api");
    let new = format!("app:main@sha256:{}", "9".repeat(64));
    if adopted {
        // The tag has moved, and somebody has pulled it: the live digest is kept and is nobody's choice.
        world.by_hand("shop_api", |spec| spec.task_template.container_spec.image.clone_from(&new));
    } else {
        let moved = Image { image: new.clone(), ..resolved("app:main") };
        world.observed.states.get_mut(&shop()).unwrap().state.images.insert("app:main".into(), moved);
    }
    world.settle(Some(&second));
    assert_eq!(image_of(&world, "shop_api"), new);
    (world, second, old, new)
}

#[test]
fn a_rollback_runs_the_recorded_digest_though_the_tag_has_moved_and_resume_the_later_one() {
    for adopted in [false, true] {
        let (mut world, head, old, new) = a_moved_tag(adopted);
        // A registry that would give yet another digest is not asked.
        world.images.insert("app:main".into(), Err("not to be asked".into()));
        world.go_back(&head, None).unwrap();
        let asked = super::images_to_resolve(&world.commits[0], world.observed.stack(&shop()));
        assert!(asked.is_empty(), "adopted {adopted}: {asked:?}");
        assert_eq!(world.settle(Some(&head)).verdict, Verdict::Held);
        assert_eq!(image_of(&world, "shop_api"), old, "adopted {adopted}");
        world.command(&Command::Resume { stack: shop() });
        assert_eq!(world.settle(Some(&head)).verdict, Verdict::Ok);
        assert_eq!(image_of(&world, "shop_api"), new, "adopted {adopted}");
    }
}

#[test]
fn who_goes_back_twice_goes_further_back() {
    let commits = [at("aaa", "1"), at("bbb", "2"), at("ccc", "3")];
    let mut world = after(&[&commits[0], &commits[1], &commits[2]]);
    for wanted in ["app:2", "app:1"] {
        world.go_back(&commits[2], None).unwrap();
        world.settle(Some(&commits[2]));
        assert_eq!(image_of(&world, "shop_api"), resolved(wanted).image);
    }
    let refused = world.go_back(&commits[2], None).unwrap_err();
    insta::assert_snapshot!(refused, @"the history of stack shop has nothing that ran before aaa0000");
}

#[test]
fn from_a_revision_that_fails_one_goes_back_to_what_ran_last() {
    let mut world = after(&[&at("aaa", "1"), &at("bbb", "2")]);
    world.broken.insert("app:3".into());
    world.settle(Some(&at("ccc", "3")));
    world.go_back(&at("ccc", "3"), None).unwrap();
    assert_eq!(world.settle(Some(&at("ccc", "3"))).verdict, Verdict::Held);
    assert_eq!(image_of(&world, "shop_api"), resolved("app:2").image);
    // Resuming does not try again what failed: that takes `retry`.
    world.command(&Command::Resume { stack: shop() });
    let plan = world.settle(Some(&at("ccc", "3")));
    assert_eq!((plan.verdict, image_of(&world, "shop_api")), (Verdict::Held, resolved("app:2").image));
}

#[test]
fn a_revision_is_named_by_its_first_digits_and_must_have_run() {
    let mut world = after(&[&at("aaaaaaa1", "1"), &at("aaaaaaa2", "2"), &at("bbb", "2")]);
    world.broken.insert("app:3".into());
    world.settle(Some(&at("ccc", "3")));
    let head = at("ccc", "3");
    let mut refused = |wanted: &str| world.go_back(&head, Some(wanted)).unwrap_err();
    insta::assert_snapshot!(refused("ddddddd"), @r#""ddddddd" is not in the history of stack shop; `swarmkeeper history shop` shows it"#);
    insta::assert_snapshot!(refused("aaaaaaa"), @"aaaaaaa is several revisions of stack shop: give more digits");
    insta::assert_snapshot!(refused("ccc0000"), @"ccc0000 never ran as a whole (rolled-back: shop_api exit 1 on n17): only a revision that did can be gone back to");
    assert!(world.go_back(&head, Some("aaaaaaa1")).is_ok());
}

#[test]
fn a_rollback_that_cannot_succeed_is_refused_and_changes_nothing() {
    let (mut first, second) = (at("aaa", "1"), at("bbb", "2"));
    let mut world = after(&[&first, &second]);
    let state = world.state().clone();
    // The registry has lost it.
    let gone = resolved("app:1").image;
    world.images.insert(gone.clone(), Err("manifest unknown".into()));
    let refused = world.go_back(&second, None).unwrap_err();
    assert_eq!(refused, format!("aaa0000 cannot be pulled: {gone}: manifest unknown"));
    world.images.clear();
    // Something of somebody else's that it needs is gone.
    first.objects.secrets.insert("tls".into(), Wanted::External("edge_tls".into()));
    world.commits[0] = first;
    let refused = world.go_back(&second, None).unwrap_err();
    insta::assert_snapshot!(refused, @r#"aaa0000 cannot be deployed now: external secret "edge_tls" does not exist: make it with `docker secret create`, or take `external` away"#);
    // Swarm cannot change a mode.
    world.commits[0] = at("aaa", "1");
    let web = world.commits[0].objects.services.get_mut("web").unwrap();
    web.spec.mode = serde_json::from_str(r#"{"Global":{}}"#).unwrap();
    assert!(world.go_back(&second, None).unwrap_err().contains("swarm cannot change its mode"));
    assert_eq!(*world.state(), state);
}

#[test]
fn a_commit_that_renders_differently_than_it_ran_is_said() {
    let (first, second) = (at("aaa", "1"), at("bbb", "2"));
    let mut world = after(&[&first, &second]);
    let web = world.commits[0].objects.services.get_mut("web").unwrap();
    web.spec.task_template.container_spec.user = Some("elsewhere".into());
    let said = world.go_back(&second, None).unwrap();
    assert!(said.contains("renders differently than it ran then"), "{said}");
    let plan = world.settle(Some(&second));
    insta::assert_snapshot!(notes(&plan), @"rolled back to aaa0000 (it renders differently than it ran then): it leaks");
    // But an image that never ran has no digest to go back to.
    let web = world.commits[0].objects.services.get_mut("web").unwrap();
    web.spec.task_template.container_spec.image = "web:9".into();
    let refused = world.go_back(&second, Some("aaa0000")).unwrap_err();
    insta::assert_snapshot!(refused, @"the history has no digest of image web:9, and a floating tag is not deployed");
}

#[test]
fn a_rollback_takes_away_what_came_later_without_asking_for_approval() {
    let first = stack("aaa", &["a app:1"]);
    let second = stack("bbb", &["a app:2", "b app:1", "c app:1", "d app:1", "e app:1", "f app:1"]);
    let mut world = after(&[&first, &second]);
    world.go_back(&second, None).unwrap();
    assert_eq!(world.settle(Some(&second)).verdict, Verdict::Held);
    assert_eq!(world.observed.services.keys().collect::<Vec<_>>(), ["shop_a"]);
    world.command(&Command::Resume { stack: shop() });
    assert_eq!(world.settle(Some(&second)).verdict, Verdict::Ok);
    assert_eq!(world.observed.services.len(), 6);
}

#[test]
fn a_rollback_ends_a_pause_and_a_pause_may_follow_it() {
    let mut world = after(&[&at("aaa", "1"), &at("bbb", "2")]);
    world.command(&Command::Pause { stack: shop(), reason: "friday".into() });
    let said = world.go_back(&at("bbb", "2"), None).unwrap();
    assert!(said.contains("its pause has ended"), "{said}");
    assert_eq!(world.settle(Some(&at("bbb", "2"))).verdict, Verdict::Held);
    world.command(&Command::Pause { stack: shop(), reason: "friday".into() });
    assert_eq!(world.settle(Some(&at("ccc", "3"))).verdict, Verdict::Paused);
}

#[test]
fn a_rollback_that_fails_is_told_as_a_failure() {
    let mut world = after(&[&at("aaa", "1"), &at("bbb", "2")]);
    world.broken.insert("app:1".into());
    world.go_back(&at("bbb", "2"), None).unwrap();
    let plan = world.settle(Some(&at("bbb", "2")));
    assert_eq!((plan.verdict, notes(&plan).as_str()), (Verdict::Held, "aaa0000 failed: shop_api exit 1 on n17"));
    assert_eq!(history(&world).last().unwrap(), "aaa0000 rolled-back by rollback");
    // Once more, now that the cause is gone: the person's word counts more than the memory of the failure.
    world.broken.clear();
    world.go_back(&at("bbb", "2"), Some("aaa0000")).unwrap();
    world.settle(Some(&at("bbb", "2")));
    assert_eq!(image_of(&world, "shop_api"), resolved("app:1").image);
}

#[test]
fn a_state_with_a_rollback_survives_with_fields_of_a_later_version() {
    let mut world = after(&[&at("aaa", "1"), &at("bbb", "2")]);
    world.go_back(&at("bbb", "2"), None).unwrap();
    let mut state = world.state().clone();
    let later = ("later".to_owned(), serde_json::json!({"x": 1}));
    state.history[0].extra.extend([later.clone()]);
    state.rollback.as_mut().unwrap().extra.extend([later]);
    let back = super::StackState::decode(&state.encode(&shop()).unwrap()).unwrap();
    assert_eq!(back, state);
}

/// Plans the stack in a pass over all; `git` is its form there, or why it has none.
fn in_a_pass(world: &World, git: Result<&DesiredStack, &str>, held: Result<&DesiredStack, &str>) -> Plan {
    let desired: Vec<DesiredStack> = git.into_iter().cloned().collect();
    let broken = git.err().map(|reason| (shop(), reason.to_owned())).into_iter().collect();
    let held: Held = [(shop(), held.cloned().map_err(str::to_owned))].into();
    let mut plans = plan_all(&Pass {
        desired: &desired,
        broken: &broken,
        held: &held,
        observed: &world.observed,
        images: &world.images,
        secrets: &world.secrets,
        key: world.observed.key.as_ref().unwrap(),
        now: world.now,
        policy: &world.policy,
    });
    assert_eq!(plans.iter().map(|plan| plan.stack.clone()).collect::<Vec<StackName>>(), [shop()]);
    plans.remove(0)
}

#[test]
fn a_rollback_works_while_git_has_a_mistake() {
    let (first, second) = (at("aaa", "1"), at("bbb", "2"));
    let mut world = after(&[&first, &second]);
    world.go_back(&second, None).unwrap();
    let plan = in_a_pass(&world, Err("line 3: no such key"), Ok(&first));
    assert_eq!((plan.verdict, plan.steps.len()), (Verdict::Rolling, 1));
}

#[test]
fn a_rollback_whose_commit_cannot_be_rendered_any_more_does_nothing_and_says_so() {
    let (first, second) = (at("aaa", "1"), at("bbb", "2"));
    let mut world = after(&[&first, &second]);
    world.go_back(&second, None).unwrap();
    let plan = in_a_pass(&world, Ok(&second), Err("no such commit"));
    assert!(plan.is_empty() && plan.verdict == Verdict::Error);
    insta::assert_snapshot!(notes(&plan), @"rolled back to aaa0000: it leaks, and nothing is done: no such commit");
    // And git's next change ends it all the same.
    let third = stack("ccc", &["api app:1@sha256:aa", "web web:1"]);
    assert_eq!(in_a_pass(&world, Ok(&third), Err("no such commit")).verdict, Verdict::Rolling);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// What happens to a stack.
    #[derive(Debug, Clone)]
    enum Happening {
        Commit([u8; 3]),
        Rollback,
        Resume,
        Restart,
    }

    fn any_happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            3 => any::<[u8; 3]>().prop_map(Happening::Commit),
            2 => Just(Happening::Rollback),
            1 => Just(Happening::Resume),
            1 => Just(Happening::Restart),
        ]
    }

    /// One to three services with one of three tags each.
    fn commit(number: usize, bytes: [u8; 3]) -> DesiredStack {
        let texts: Vec<String> = bytes
            .iter()
            .enumerate()
            .filter(|(index, byte)| *index == 0 || **byte >= 64)
            .map(|(index, byte)| format!("s{index} app:{}", byte % 3))
            .collect();
        stack(&format!("{number:07x}"), &texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_asked_for_the_plan_after_it_is_empty_and_a_rollback_runs_what_ran(
            happenings in proptest::collection::vec(any_happening(), 1..12)
        ) {
            let mut head = commit(0, [0, 64, 65]);
            let mut world = after(&[&head]);
            world.policy.brake_removes_max = usize::MAX;
            world.policy.brake_restarts_percent_max = 100;
            for (number, happening) in happenings.into_iter().enumerate() {
                let mut gone_back = false;
                match happening {
                    Happening::Commit(bytes) => {
                        head = commit(number + 1, bytes);
                        world.commits.push(head.clone());
                    }
                    // Refused where nothing ran before, or nothing holds.
                    Happening::Rollback => gone_back = world.go_back(&head, None).is_ok(),
                    Happening::Resume if world.state().rollback.is_some() => {
                        world.command(&Command::Resume { stack: shop() });
                    }
                    Happening::Resume => {}
                    Happening::Restart => {
                        let reason = "because".to_owned();
                        world.command(&Command::Restart { stack: shop(), service: "s0".into(), reason });
                    }
                }
                let plan = world.settle(Some(&head));
                let writes = world.writes;
                prop_assert!(world.pass(Some(&head)).is_empty());
                prop_assert_eq!(writes, world.writes);
                let rollback = world.state().rollback.clone();
                prop_assert_eq!(plan.verdict, if rollback.is_some() { Verdict::Held } else { Verdict::Ok });
                let runs = rollback.map_or(&head, |rollback| {
                    world.commits.iter().find(|stack| stack.revision.as_ref() == Some(&rollback.revision)).unwrap()
                });
                prop_assert!(!gone_back || runs.revision != head.revision);
                for (key, service) in &runs.objects.services {
                    let text = &service.spec.task_template.container_spec.image;
                    prop_assert_eq!(image_of(&world, &format!("shop_{key}")), resolved(text).image);
                }
                prop_assert_eq!(world.observed.services.len(), runs.objects.services.len());
            }
        }
    }
}
