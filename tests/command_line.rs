//! The binary as people and scripts meet it: exit codes, and where what is printed.

// A test fails by a panic, its helpers too.
#![allow(clippy::unwrap_used)]

use assert_cmd::Command;

/// Runs `line` with this environment and nothing else; gives the exit code, stdout and stderr.
fn run(line: &str, environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("swarmkeeper"));
    command.args(line.split_whitespace()).env_clear().envs(environment.iter().copied()).current_dir("/");
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_wrong_command_line_exits_with_64_so_that_2_means_a_plan_with_changes() {
    for line in [
        "",
        "explode",
        "adopt",
        "status --output yaml",
        "status --colour",
        "restart shop --reason x",
        "pause --all",
        "import",
    ] {
        let (code, stdout, stderr) = run(line, &[]);
        assert_eq!((code, stdout.as_str()), (64, ""), "{line}: {stderr}");
        assert!(!stderr.is_empty(), "{line}");
    }
}

#[test]
fn help_and_version_are_results() {
    for line in ["--help", "--version", "status --help", "history --help", "rollback --help", "restart --help"] {
        let (code, stdout, stderr) = run(line, &[]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
        assert!(!stdout.is_empty(), "{line}");
    }
}

#[test]
fn without_an_agent_the_error_says_what_to_do_next() {
    let (code, stdout, stderr) = run("status --agent http://127.0.0.1:1", &[]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert_eq!(
        stderr,
        "error: GET http://127.0.0.1:1/v1/status: no answer: Connection refused (os error 111)\n\
         next: see that the agent runs on this node, or name another one: --agent http://HOST:7979\n"
    );
}

#[test]
fn every_decision_about_a_stack_goes_to_the_agent() {
    for (line, asked) in [
        ("history shop", "GET /v1/stacks/shop/history"),
        ("rollback shop 77d0e12", "POST /v1/stacks/shop/rollback"),
        ("restart shop/web --reason leak", "POST /v1/stacks/shop/restart"),
        ("pause --all --reason audit", "POST /v1/pause"),
        ("resume --all", "POST /v1/resume"),
    ] {
        let (code, stdout, stderr) = run(&format!("{line} --agent http://127.0.0.1:1"), &[]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{line}");
        let (method, path) = asked.split_once(' ').unwrap();
        let operation = format!("error: {method} http://127.0.0.1:1{path}: no answer");
        assert!(stderr.starts_with(&operation), "{line}: {stderr}");
    }
}

#[test]
fn all_mistakes_of_the_configuration_are_told_at_once() {
    let environment = [("SWARMKEEPER_ROLE", "boss"), ("SWARMKEEPER_CLUSTR", "x")];
    let (code, _, stderr) = run("sync --log-level loud", &environment);
    assert_eq!(code, 1);
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 3, "{stderr}");
}

#[test]
fn doctor_tells_machines_what_it_tells_people() {
    let environment = [("DOCKER_HOST", "unix:///nowhere.sock"), ("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")];
    let (code, stdout, _) = run("doctor --output json", &environment);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 1);
    let engine = checks.iter().find(|check| check["name"] == "engine").unwrap();
    assert_eq!(engine["outcome"], "fail");
    assert!(engine["mend"].as_str().unwrap().contains("docker_host"), "{engine}");
}

#[test]
fn validate_refuses_what_the_policy_does_not_allow() {
    let repo = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = repo.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("stacks/a/compose.yml", "services:\n  web:\n    image: nginx\n    volumes: ['/:/host']\n");
    write("open.yml", "cluster: x\n");
    write("strict.yml", "policy: {'*': {images: [nginx]}}\n");
    let folder = repo.path().display();
    let (code, stdout, _) = run(&format!("validate --config {folder}/open.yml {folder}"), &[]);
    assert_eq!((code, stdout.as_str()), (0, "1 stack well\n"));
    let (code, stdout, _) = run(&format!("validate --config {folder}/strict.yml {folder}"), &[]);
    assert_eq!(code, 1);
    assert!(
        stdout.starts_with("error: stacks/a/compose.yml:4:15: services.web.volumes[0]: found the mount of /, "),
        "{stdout}"
    );
}
