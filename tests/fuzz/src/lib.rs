//! What holds for every input of the parsers; a panic is a failure.
//!
//! The fuzz targets (`targets/`) look for an input for which it does not hold, with libFuzzer, guided by the coverage of our own code:
//! `run.sh` builds and runs them. That none hangs or eats the memory is libFuzzer's own to watch. Seeds are the files of
//! `tests/oracle/`, and `seeds/`; the tests below hold the properties against all of them.

use std::collections::BTreeMap;

use swarmkeeper::compose::{self, Input, Mode, SourceFile};
use swarmkeeper::image::ImageRef;
use swarmkeeper::model::{Findings, StackName};
use swarmkeeper::yaml;

/// The file that all is read from.
const FILE: &str = "1.yml";

/// Most mistakes told of one input.
const FINDINGS_MAX: usize = 2000;

/// Any bytes are YAML, or it is said where they are not; and values can be looked at in every way.
pub fn yaml(bytes: &[u8]) {
    match yaml::parse_bytes(FILE, bytes) {
        Err(findings) => check(&findings),
        Ok(node) => {
            assert!(!node.to_json().to_string().is_empty());
            look_at(&node);
        }
    }
}

/// Any text is a stack, or it is said where it is not.
///
/// The input is a case as in `tests/oracle/`: `# file: NAME` begins a further file, and a text without a line that begins with
/// `services:` is the inside of one service.
pub fn compose(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (stack, others) = files(text);
    let name = StackName::new("s").expect("a name");
    let environment = BTreeMap::from([("N".to_owned(), "3".to_owned()), ("HOST".to_owned(), "node-1".to_owned())]);
    let read_file = |path: &str| Ok(others.get(path.trim_start_matches("./")).map(|text| text.clone().into_bytes()));
    for (mode, folder) in [(Mode::Strict, Some("/folder")), (Mode::Lenient, None)] {
        let input =
            Input { files: &stack, stack: &name, environment: &environment, read_file: &read_file, folder, mode };
        match compose::load(&input) {
            Err(findings) => check(&findings),
            Ok(loaded) => check(&Findings(loaded.warnings)),
        }
    }
}

/// Any text is a reference to an image, which prints and parses to itself, or is none.
pub fn image(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(image) = ImageRef::parse(text) else { return };
    let again = ImageRef::parse(&image.to_string()).expect("what prints parses");
    assert_eq!(again.to_string(), image.to_string(), "{text:?}");
    assert_eq!((again.domain(), again.path()), (image.domain(), image.path()), "{text:?}");
    assert_eq!(again.digest(), image.digest(), "{text:?}");
    assert!(image.tag().is_none() || again.tag() == image.tag(), "{text:?}");
    let bare = image.without_digest();
    assert_eq!(ImageRef::parse(&bare.to_string()).expect("without its digest it parses").domain(), image.domain());
}

/// Each mistake has a file and a line, and there are not too many to read.
fn check(findings: &Findings) {
    assert!(findings.0.len() <= FINDINGS_MAX, "{} mistakes", findings.0.len());
    for finding in &findings.0 {
        let at = finding.location.as_ref().unwrap_or_else(|| panic!("no place is named: {finding}"));
        assert!(!at.file.is_empty() && at.line > 0, "no line is named: {finding}");
        assert!(!finding.message.is_empty(), "nothing is said");
    }
}

fn look_at(node: &yaml::Node) {
    let (_, _, _) = (node.go_text(), node.kind(), node.spelled());
    node.as_seq().into_iter().flatten().for_each(look_at);
    node.as_map().into_iter().flatten().for_each(|entry| look_at(&entry.value));
}

/// The compose files of a case, and what else there is to read.
fn files(text: &str) -> (Vec<SourceFile>, BTreeMap<&str, String>) {
    let mut files = vec![(FILE, String::new())];
    for line in text.split_inclusive('\n') {
        if let Some(name) = line.strip_prefix("# file: ") {
            files.push((name.trim_end(), String::new()));
        } else if let Some((_, text)) = files.last_mut() {
            text.push_str(line);
        }
    }
    let (stack, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| [FILE, "2.yml"].contains(name));
    let source = |(name, text): (&str, String)| SourceFile { name: name.to_owned(), text: whole(text) };
    (stack.into_iter().map(source).collect(), others.into_iter().collect())
}

fn whole(text: String) -> String {
    if text.lines().any(|line| line.starts_with("services:")) {
        return text;
    }
    format!("services:\n  web:\n    {}", text.replace('\n', "\n    "))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Every file below `folder`, as text.
    fn texts(folder: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                found.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
            }
        }
        found
    }

    #[test]
    fn the_seeds_of_yaml_and_compose_hold() {
        for folder in ["../oracle/same", "../oracle/refused", "../oracle/stricter", "seeds/yaml", "seeds/compose"] {
            for text in texts(folder) {
                super::yaml(text.as_bytes());
                for case in text.split("# case: ") {
                    super::compose(case.split_once('\n').map_or(case, |(_, text)| text).as_bytes());
                }
            }
        }
    }

    #[test]
    fn the_seeds_of_images_hold() {
        for text in texts("seeds/image") {
            super::image(text.trim_end().as_bytes());
        }
    }
}
