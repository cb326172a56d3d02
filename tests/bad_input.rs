//! Files as nobody should write them: each is refused with its file, its line, and the mend, by the binary as people meet it.

// A test fails by a panic, its helpers too.
#![allow(clippy::unwrap_used, clippy::format_push_string)]

use std::path::Path;

use assert_cmd::Command;

/// Runs `line` in `folder`; gives the exit code and all that is said.
fn run(folder: &Path, line: &str) -> (i32, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("swarmkeeper"));
    let output = command.args(line.split_whitespace()).env_clear().current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), format!("{}{}", text(output.stdout), text(output.stderr)))
}

/// Both as a file to deploy and as a stack of a Config Repo, the text is refused with these words, wherever the file lies. Nothing
/// reaches an engine: there is none. `*` stands for a column that depends on how large our own types are.
fn check(text: impl AsRef<[u8]>, words: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("stacks/s")).unwrap();
    std::fs::write(folder.path().join("stacks/s/compose.yml"), text).unwrap();
    for line in ["deploy -c stacks/s/compose.yml s", "validate ."] {
        let (code, said) = run(folder.path(), line);
        assert_eq!(code, 1, "{line}: {said}");
        let is_said = |error: &str| match words.split_once('*') {
            Some((begin, end)) => error.starts_with(begin) && error.contains(end),
            None => error.starts_with(words),
        };
        let mut errors = said.lines().filter_map(|line| line.strip_prefix("error: stacks/s/compose.yml:"));
        assert!(errors.any(is_said), "{line} does not say {words:?}: {said}");
    }
}

#[test]
fn a_thousand_lines_indented_with_tabs() {
    let mut text = String::from("services:\n");
    for n in 0..1000 {
        text.push_str(&format!("\tweb{n}:\n\t\timage: a\n"));
    }
    check(text, "2:1: a tab indents this line, which YAML does not allow (use spaces)");
}

#[test]
fn anchors_that_expand_to_gigabytes() {
    let mut text = String::from("x-a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        text.push_str(&format!("x-a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(",")));
    }
    check(text, "6:12: more than 200000 values, aliases expanded (use fewer aliases)");
    let long = format!("x-a: &a \"{}\"\nx-b: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 1 << 16].join(","));
    check(long, "2:*: anchors and aliases stand for more than 64 MiB (use fewer aliases)");
}

#[test]
fn a_value_inside_itself() {
    check("services: &s\n  web: *s\n", "2:8: this alias stands inside its own anchor (write out what is meant)");
}

#[test]
fn deeper_than_anybody_means() {
    check(format!("services: {}\n", "[".repeat(100_000)), "1:266: nested more than 64 levels deep (nest less)");
}

#[test]
fn bytes_that_are_no_text() {
    check(
        b"services:\n  web:\n    image: \xff\n",
        "3: not UTF-8: the byte at offset 28 begins no character (save the file as UTF-8)",
    );
}

#[test]
fn a_name_of_64_characters() {
    let key = "a".repeat(62);
    check(
        format!("services:\n  {key}:\n    image: a\n"),
        &format!(
            "2:3: services.{key}: the name \"s_{key}\" has 64 characters, and swarm takes 63 (shorten the key or the stack's name)"
        ),
    );
}

#[test]
fn ports_that_are_published_twice() {
    check(
        "services:\n  web:\n    image: a\n    ports: ['80:80', '80:81']\n",
        "4:5: services.web.ports: port 80/tcp is published twice (publish it once)",
    );
    check(
        "services:\n  db:\n    image: a\n    ports: ['80:80']\n  web:\n    image: a\n    ports: ['80:81']\n",
        "7:5: services.web.ports: port 80/tcp is published by the service db too, and both on all nodes (publish another port, \
         or `mode: host`)",
    );
}

#[test]
fn an_env_file_that_is_not_there() {
    check("services:\n  web:\n    image: a\n    env_file: missing.env\n", "4:15: services.web.env_file: ");
}

#[test]
fn a_link_out_of_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("stacks/s")).unwrap();
    std::fs::write(
        folder.path().join("stacks/s/compose.yml"),
        "services:\n  web:\n    image: a\n    configs: [c]\nconfigs:\n  c:\n    file: link\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("stacks/s/link")).unwrap();
    let (code, said) = run(folder.path(), "validate .");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("error: stacks/s/compose.yml:7:11: configs.c.file: "), "{said}");
    assert!(said.contains("only what lies inside can be read"), "{said}");
}

#[test]
fn an_image_that_cannot_be_one() {
    check(
        "services:\n  web:\n    image: registry:port/Name\n",
        "3:12: services.web.image: \"registry:port/Name\" is no image reference: \"registry:port\" is no registry",
    );
}
