//! Cases, and the files they stand in.
//!
//! A file of `tests/oracle/` holds the cases of a topic. `# case: NAME` begins one, and `# file: NAME` a further file of it: `2.yml`
//! and `3.yml` are merged over the first, any other is there to be read. A text without a line that begins with `services:` is
//! the inside of one service, `web`. In files of refused stacks, `# at: PATH` says where the mistake is.
//!
//! In files of updates, `before.yml` is what was deployed before, `live.json` what somebody did to its services by hand, `registry.json`
//! what the registry says of images, and these lines say more of a case:
//!
//! * `# flags: WORDS`: the command line's, instead of `--resolve-image never`;
//! * `# better: DIFFERENCE`: what we send differs so, on purpose; each such line must come true, and nothing else may differ;
//! * `# refused: REASON`: both fail, we before anything is written, saying that.

use std::path::{Path, PathBuf};

use crate::engine::NO_REGISTRY;

/// The file that was deployed before.
const BEFORE: &str = "before.yml";

/// One stack.
#[derive(Debug, Clone)]
pub struct Case {
    /// `topic: name`.
    pub name: String,
    /// File names and texts; the first is `1.yml`.
    pub files: Vec<(String, String)>,
    /// Where the mistake is, for a stack that is refused.
    pub at: Option<String>,
    /// The command line's flags.
    pub flags: Vec<String>,
    /// How we differ from the CLI on purpose.
    pub better: Vec<String>,
    /// Why both fail, in our words.
    pub refused: Option<String>,
}

/// All cases below `tests/oracle/` + `folder`.
pub fn all(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut cases: Vec<Case> = Vec::new();
    for path in paths {
        let topic = path.file_stem().unwrap().display().to_string();
        read(&topic, &std::fs::read_to_string(&path).unwrap(), &mut cases);
    }
    cases
}

fn read(topic: &str, text: &str, cases: &mut Vec<Case>) {
    // The empty lines between cases belong to none.
    let text = text.replace("\n\n# case: ", "\n# case: ");
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# case: ") {
            cases.push(Case::of(&format!("{topic}: {name}"), [String::new()]));
            continue;
        }
        // What stands before the first case is about the topic.
        let Some(case) = cases.last_mut().filter(|case| case.name.starts_with(&format!("{topic}: "))) else { continue };
        if let Some(path) = line.strip_prefix("# at:") {
            case.at = Some(path.trim().to_owned());
        } else if let Some(words) = line.strip_prefix("# flags: ") {
            case.flags = words.split(' ').map(str::to_owned).collect();
        } else if let Some(difference) = line.strip_prefix("# better: ") {
            case.better.push(difference.to_owned());
        } else if let Some(reason) = line.strip_prefix("# refused: ") {
            case.refused = Some(reason.to_owned());
        } else if let Some(name) = line.strip_prefix("# file: ") {
            case.files.push((name.to_owned(), String::new()));
        } else if let Some((_, text)) = case.files.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
}

impl Case {
    /// A stack of whole files, for the merge.
    pub fn of(name: &str, texts: impl IntoIterator<Item = String>) -> Self {
        let files = texts.into_iter().enumerate().map(|(n, text)| (format!("{}.yml", n + 1), text)).collect();
        let flags = NO_REGISTRY.map(str::to_owned).into();
        Self { name: name.to_owned(), files, at: None, flags, better: Vec::new(), refused: None }
    }

    /// Writes the files into `folder` and gives the paths of those that are to be deployed.
    pub fn write(&self, folder: &Path) -> Vec<PathBuf> {
        let mut stack = Vec::new();
        for (name, text) in &self.files {
            let path = folder.join(name);
            let compose = ["1.yml", "2.yml", "3.yml"].contains(&name.as_str());
            let whole = |text| whole(text, name == "1.yml" || name == BEFORE);
            std::fs::write(&path, if compose || name == BEFORE { whole(text) } else { text.clone() }).unwrap();
            if compose {
                stack.push(path);
            }
        }
        stack
    }

    /// The path of what was deployed before, if that is another file, which [`Case::write`] has written into `folder`.
    pub fn before(&self, folder: &Path) -> Option<PathBuf> {
        self.files.iter().any(|(name, _)| name == BEFORE).then(|| folder.join(BEFORE))
    }

    /// A file of JSON, or the empty object.
    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> T {
        let text = self.files.iter().find(|(file, _)| file == name).map_or("{}", |(_, text)| text);
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{}: {name}: {error}", self.name))
    }

    /// Lines with the case's name in front.
    pub fn named(&self, lines: Vec<String>) -> Vec<String> {
        lines.into_iter().map(|line| format!("{}: {line}", self.name)).collect()
    }

    /// The texts to deploy.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        let yml = self.files.iter().filter(|(name, _)| ["1.yml", "2.yml", "3.yml"].contains(&name.as_str()));
        yml.map(|(name, text)| whole(text, name == "1.yml"))
    }
}

/// The inside of a service as a whole file; the first file names the image.
fn whole(text: &str, first: bool) -> String {
    if text.lines().any(|line| line.starts_with("services:")) {
        return text.to_owned();
    }
    let named = !first || text.lines().any(|line| line.starts_with("image:"));
    let inside = text.replace('\n', "\n    ");
    format!("services:\n  web:\n{}    {}\n", if named { "" } else { "    image: web\n" }, inside.trim_end())
}
