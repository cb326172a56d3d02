use clap::CommandFactory;

use super::*;
use crate::cli::deploy::{Deploy, ResolveImage};
use crate::cli::plan::{Plan, Subject};
use crate::model::{Finding, Findings, Location};
use crate::status::Command;

/// A verb's arguments alone.
#[derive(Debug, Parser)]
struct Only<T: clap::Args> {
    #[command(flatten)]
    args: T,
}

fn parse<T: clap::Args>(line: &str) -> Result<T, clap::Error> {
    Only::<T>::try_parse_from(std::iter::once("verb").chain(line.split_whitespace())).map(|only| only.args)
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_has_examples() {
    for verb in Cli::command().get_subcommands() {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&format!("swarmkeeper {}", verb.get_name())), "{}: {help}", verb.get_name());
    }
}

#[test]
fn global_flags_may_stand_behind_the_verb_and_become_settings() {
    let line = ["swarmkeeper", "status", "-H", "tcp://h:1", "--agent", "http://a:1", "--config", "/x.yml"];
    let flags = Cli::try_parse_from(line).unwrap().global.flags();
    assert_eq!(flags.config.unwrap().to_str(), Some("/x.yml"));
    assert_eq!(flags.settings["docker_host"], ("--host", "tcp://h:1".to_owned()));
    assert_eq!(flags.settings["agent_url"], ("--agent", "http://a:1".to_owned()));
    assert_eq!(flags.settings.len(), 2);
    for key in flags.settings.keys() {
        assert!(config::settings::setting(key).is_some(), "{key}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    for line in
        ["", "explode", "adopt", "adopt -x", "approve shop", "approve shop 9f2", "approve shop zzzzzzz", "pause shop"]
    {
        let line = std::iter::once("swarmkeeper").chain(line.split_whitespace());
        let error = Cli::try_parse_from(line.clone()).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::DisplayHelp, "{:?}", line.collect::<Vec<_>>());
    }
}

#[test]
fn deploy_takes_what_docker_stack_deploy_takes() {
    let deploy: Deploy =
        parse("-c a.yml,b.yml --compose-file - --prune --with-registry-auth --resolve-image changed shop").unwrap();
    assert_eq!(deploy.files.iter().map(|file| file.to_str().unwrap()).collect::<Vec<_>>(), ["a.yml", "b.yml", "-"]);
    assert!(deploy.prune && deploy.with_registry_auth && !deploy.detach);
    assert_eq!(deploy.resolve_image, ResolveImage::Changed);
    for (line, detach) in [
        ("-c a -d s", true),
        ("-c a --detach s", true),
        ("-c a --detach=false s", false),
        ("-c a --detach=true s", true),
    ] {
        assert_eq!(parse::<Deploy>(line).unwrap().detach, detach, "{line}");
    }
    assert!(parse::<Deploy>("shop").is_err());
}

#[test]
fn plan_takes_stacks_or_files_as_one_stack() {
    let check = |line: &str, expect: &str| {
        let found = parse::<Plan>(line).map_err(|_| ()).map(|plan| match plan.subject() {
            Some(Subject::Repo(stacks)) => format!("repo {}", stacks.len()),
            Some(Subject::Files(files, stack)) => format!("{} as {stack}", files.len()),
            None => "nonsense".to_owned(),
        });
        assert_eq!(found.as_deref().unwrap_or("refused"), expect, "{line}");
    };
    check("", "repo 0");
    check("shop billing", "repo 2");
    check("-c a.yml -c b.yml shop", "2 as shop");
    check("-c a.yml shop billing", "nonsense");
    check("-c a.yml", "refused");
    check("--lenient shop", "refused");
}

#[test]
fn a_persons_decisions_become_commands() {
    let check = |line: &str, expect: &str| {
        let words = std::iter::once("swarmkeeper").chain(line.split_whitespace());
        let found = match Cli::try_parse_from(words).map(|cli| cli.verb) {
            Ok(Verb::Rollback(args)) => format!("{:?}", Command::from(args)),
            Ok(Verb::Restart(args)) => format!("{:?}", Command::from(args)),
            Ok(Verb::Pause(args)) => format!("{:?}", Command::from(args)),
            Ok(Verb::Resume(args)) => format!("{:?}", Command::from(args)),
            Ok(_) => "another verb".to_owned(),
            Err(_) => "refused".to_owned(),
        };
        assert_eq!(found, expect, "{line}");
    };
    let shop = r#"stack: StackName("shop")"#;
    check("rollback shop", &format!("Rollback {{ {shop}, revision: None, reason: \"\" }}"));
    check(
        "rollback shop 77D0E12 --reason lost",
        &format!("Rollback {{ {shop}, revision: Some(\"77d0e12\"), reason: \"lost\" }}"),
    );
    check("rollback shop HEAD~1", "refused");
    check("restart shop/web --reason leak", &format!("Restart {{ {shop}, service: \"web\", reason: \"leak\" }}"));
    for line in ["restart shop --reason leak", "restart shop/ --reason leak", "restart shop/web", "restart shop/a/b"] {
        check(line, "refused");
    }
    check("pause shop --reason night", &format!("Pause {{ {shop}, reason: \"night\" }}"));
    check("pause --all --reason night", "PauseAll { reason: \"night\" }");
    check("resume shop", &format!("Resume {{ {shop} }}"));
    check("resume --all", "ResumeAll");
    for line in
        ["pause --all", "pause --reason night", "pause shop --all --reason night", "resume", "resume shop --all"]
    {
        check(line, "refused");
    }
}

#[test]
fn a_failure_says_what_to_do_next() {
    let plain = |failure: Failure| failure.render(Paint::PLAIN);
    assert_eq!(plain(Failure::new("no leader", "wait")), "error: no leader\nnext: wait");
    let finding = |line, message: &str| Finding {
        location: Some(Location { file: "f.yml".into(), line, column: 0 }),
        path: String::new(),
        message: message.into(),
        mend: String::new(),
    };
    let findings = Findings(vec![finding(1, "a"), finding(2, "b")]);
    assert_eq!(
        plain(Failure::configuration(&findings)),
        "error: f.yml:1: a\nerror: f.yml:2: b\nnext: mend the configuration; `swarmkeeper agent --help` lists every setting"
    );
}
