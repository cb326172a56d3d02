//! Writing YAML that [`crate::yaml`] and Docker's CLI read back as the same texts.
//!
//! The crates that write YAML quote what *their* reader would take for something else. `docker stack deploy` reads with Go's yaml.v3, where
//! `1_000` is a number and `2001-01-01` a date, so here everything is quoted that is not plainly a word; and a `$` is doubled, since
//! values are interpolated.

use std::fmt::Write;

/// A value of a compose file; maps keep the order in which they were made.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Yaml {
    /// Text, whatever it looks like.
    Text(String),
    /// A number or a boolean, written as it is.
    Raw(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

/// Spaces a level.
const INDENT: usize = 2;

/// Words that some reader takes for something else than text.
const RESERVED: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

impl Yaml {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number or a boolean.
    pub fn raw(value: &impl ToString) -> Self {
        Self::Raw(value.to_string())
    }

    /// As a document.
    pub fn document(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, indent: usize) {
        let pad = " ".repeat(indent);
        match self {
            Self::Map(entries) => {
                for (key, value) in entries {
                    let _ = write!(out, "{pad}{}:", scalar(key));
                    value.write_behind(out, indent);
                }
            }
            Self::List(items) => {
                for item in items {
                    let mut text = String::new();
                    match item.inline() {
                        Some(inline) => text = format!("{inline}\n"),
                        None => item.write(&mut text, indent + INDENT),
                    }
                    let _ = write!(out, "{pad}- {}", text.trim_start_matches(' '));
                }
            }
            Self::Text(_) | Self::Raw(_) => _ = writeln!(out, "{pad}{}", self.inline().unwrap_or_default()),
        }
    }

    /// The value of a key.
    fn write_behind(&self, out: &mut String, indent: usize) {
        if let Some(inline) = self.inline() {
            let _ = writeln!(out, " {inline}");
        } else {
            out.push('\n');
            self.write(out, indent + INDENT);
        }
    }

    /// What fits behind a key on its line.
    fn inline(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(scalar(&text.replace('$', "$$"))),
            Self::Raw(raw) => Some(raw.clone()),
            Self::List(items) if items.is_empty() => Some("[]".to_owned()),
            Self::Map(entries) if entries.is_empty() => Some("{}".to_owned()),
            Self::List(_) | Self::Map(_) => None,
        }
    }
}

/// A plain word, or a text in double quotes with JSON's escapes, which are YAML's too.
fn scalar(text: &str) -> String {
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let goes_on_well = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./@:".contains(c));
    let is_reserved = RESERVED.iter().any(|word| word.eq_ignore_ascii_case(text));
    if begins_well && goes_on_well && !is_reserved && !text.ends_with(':') {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // What YAML does not count as printable, or takes for a line break.
            _ if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn every_text_is_read_back_as_it_was() {
        for text in [
            "word",
            "a:b",
            "a:",
            "",
            " ",
            "yes",
            "No",
            "~",
            "null",
            "1_000",
            "0644",
            "2001-01-01",
            ".inf",
            "- a",
            "a: b",
            "a #b",
            "{{.Node.ID}}",
            "\"\\",
            "a\nb\t\u{7}\u{85}\u{2028}é\u{1f980}",
            "<<",
            "*a",
            "&a",
            "!a",
            "%",
            "@a",
            "`a",
        ] {
            let document = Yaml::Map(vec![(format!("k{text}"), Yaml::List(vec![Yaml::text(text)]))]).document();
            let node = yaml::parse("f.yml", &document).unwrap();
            let entry = node.as_map().unwrap().iter().next().unwrap();
            assert_eq!(entry.key, format!("k{text}"), "{document}");
            assert_eq!(entry.value.as_seq().unwrap()[0].as_str(), Some(text), "{document}");
        }
    }

    #[test]
    fn a_document_reads_as_a_person_would_write_it() {
        let ports = Yaml::Map(vec![("target".into(), Yaml::raw(&80)), ("protocol".into(), Yaml::text("tcp"))]);
        let web = vec![
            ("image".into(), Yaml::text("nginx:1.27")),
            ("environment".into(), Yaml::List(vec![Yaml::text("PRICE=5$")])),
            ("ports".into(), Yaml::List(vec![ports])),
            ("networks".into(), Yaml::Map(vec![("default".into(), Yaml::Map(vec![]))])),
        ];
        let document = Yaml::Map(vec![("web".into(), Yaml::Map(web))]).document();
        insta::assert_snapshot!(document, @r#"
        web:
          image: nginx:1.27
          environment:
            - "PRICE=5$$"
          ports:
            - target: 80
              protocol: tcp
          networks:
            default: {}
        "#);
    }
}
