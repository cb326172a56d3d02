//! Splitting a command into words, as docker/cli does.
//!
//! It uses google/shlex, which differs from POSIX and so from the `shell-words` crate: inside double quotes a backslash
//! takes *every* next character for itself, so that `"a\nb"` is `anb`, not `a\nb`. A command that came out differently
//! would restart services on migration, hence these lines.

/// Why a command cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfinished {
    #[error("a quote is opened and not closed")]
    Quote,
    #[error("nothing follows the last backslash")]
    Backslash,
}

/// Words apart by white space; `'…'`, `"…"` and `\` quote, and `#` at the beginning of a word comments out the rest of the line.
pub(super) fn split(command: &str) -> Result<Vec<String>, Unfinished> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' if word.is_none() => while chars.next().is_some_and(|c| c != '\n') {},
            '\\' => word.get_or_insert_default().push(chars.next().ok_or(Unfinished::Backslash)?),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(quote: char, chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), Unfinished> {
    loop {
        match chars.next().ok_or(Unfinished::Quote)? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => word.push(chars.next().ok_or(Unfinished::Backslash)?),
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_split_as_the_cli_splits_them() {
        for (command, words) in [
            ("a  b\tc", vec!["a", "b", "c"]),
            ("", vec![]),
            (r#"sh -c 'echo "$HOME"'"#, vec!["sh", "-c", "echo \"$HOME\""]),
            (r#"a "b\nc" d"#, vec!["a", "bnc", "d"]),
            (r"a\ b", vec!["a b"]),
            ("a '' b", vec!["a", "", "b"]),
            ("a #b c\nd#e", vec!["a", "d#e"]),
            (r#"x"y"'z'"#, vec!["xyz"]),
        ] {
            assert_eq!(split(command).unwrap(), words, "{command:?}");
        }
        assert_eq!(split("a 'b"), Err(Unfinished::Quote));
        assert_eq!(split("a\\"), Err(Unfinished::Backslash));
    }
}
