//! The declared environment, from the files that `env_file:` of `stack.yml` names.

use std::collections::BTreeMap;

use crate::model::{Finding, Location};
use crate::yaml::Problems;

/// Reads `KEY=value` lines into `env`, later ones winning; blank lines and those that begin with `#` are nothing.
///
/// Values are taken raw, as Docker takes those of an `env_file`, quotes included; a quoted one gets a remark.
pub(super) fn read(
    file: &str,
    text: &str,
    env: &mut BTreeMap<String, String>,
    warnings: &mut Vec<Finding>,
    problems: &Problems,
) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line may hold a secret, so no message quotes more of it than a key.
        let finding = |message: String, mend: &str| Finding {
            location: Some(Location { file: file.to_owned(), line: number + 1, column: 0 }),
            path: String::new(),
            message,
            mend: mend.to_owned(),
        };
        let Some((key, value)) = line.split_once('=') else {
            problems
                .add(finding("no KEY=value".to_owned(), "a stack sees no other environment that could give a value"));
            continue;
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            problems
                .add(finding("the text before = is no variable's name".to_owned(), "write KEY=value, without export"));
            continue;
        }
        if ['"', '\''].iter().any(|quote| value.len() > 1 && value.starts_with(*quote) && value.ends_with(*quote)) {
            warnings.push(finding(format!("the quotes are part of the value of {key}"), "leave them out"));
        }
        env.insert(key.to_owned(), value.to_owned());
    }
}
