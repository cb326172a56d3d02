//! Where this machine gets its Debian packages from: reading apt's sources, in both of their forms.

/// Mirrors of Debian itself that the texts name, security mirrors excluded, in order and once each.
///
/// `codename` is this machine's (`bookworm`): what serves another suite is somebody else's repository.
pub(crate) fn mirrors(texts: &[String], codename: &str) -> Vec<String> {
    let mut found = Vec::new();
    for text in texts {
        for source in if text.contains("URIs:") { deb822(text) } else { one_line(text) } {
            let is_debian = source.suites.iter().any(|suite| suite == codename || suite == "stable")
                && source.components.iter().any(|component| component == "main")
                && source.kinds.iter().any(|kind| kind == "deb")
                && source.enabled;
            for uri in source.uris {
                let uri = uri.trim_end_matches('/').to_owned();
                if is_debian && !uri.contains("security") && !found.contains(&uri) {
                    found.push(uri);
                }
            }
        }
    }
    found
}

#[derive(Debug, Default)]
struct Source {
    enabled: bool,
    kinds: Vec<String>,
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
}

/// Stanzas of `Key: values`, parted by empty lines; a line that begins with a blank goes on with the one before.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut source = Source { enabled: true, ..Source::default() };
    let mut key = String::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.push(std::mem::replace(&mut source, Source { enabled: true, ..Source::default() }));
            continue;
        }
        let values = if line.starts_with([' ', '\t']) {
            line
        } else {
            let (name, values) = line.split_once(':').unwrap_or((line, ""));
            key = name.trim().to_ascii_lowercase();
            values
        };
        let words = values.split_whitespace().map(ToOwned::to_owned);
        match key.as_str() {
            "types" => source.kinds.extend(words),
            "uris" => source.uris.extend(words),
            "suites" => source.suites.extend(words),
            "components" => source.components.extend(words),
            "enabled" => source.enabled = !matches!(values.trim(), "no" | "false" | "0"),
            _ => {}
        }
    }
    sources
}

/// Lines of `deb [options] URI suite component…`.
fn one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']').map_or("", |(_, rest)| rest) } else { rest };
        let mut words = rest.split_whitespace().map(ToOwned::to_owned);
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            sources.push(Source {
                enabled: true,
                kinds: vec![kind.to_owned()],
                uris: vec![uri],
                suites: vec![suite],
                components: words.collect(),
            });
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        assert_eq!(mirrors(&[text.to_owned()], "bookworm"), expect);
    }

    #[test]
    fn deb822_stanzas_are_read_without_their_comments() {
        check(
            "Types: deb\n# http://old.example/debian\nURIs: http://one.example/debian/\n http://two.example/debian\n\
             Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n\
             Types: deb\nURIs: http://one.example/debian-security\nSuites: bookworm-security\nComponents: main\n",
            &["http://one.example/debian", "http://two.example/debian"],
        );
    }

    #[test]
    fn somebody_elses_repository_is_no_mirror() {
        check("Types: deb\nURIs: https://node.example/x\nSuites: nodistro\nComponents: main\n", &[]);
        check("deb https://cloud.example/apt cloud-sdk-bookworm main\n", &[]);
        check("Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n", &[]);
        check("Types: deb-src\nURIs: http://src.example/debian\nSuites: bookworm\nComponents: main\n", &[]);
    }

    #[test]
    fn classic_lines_are_read_with_their_options() {
        check(
            "# deb http://off.example/debian bookworm main\n\
             deb [arch=amd64 signed-by=/usr/share/k.gpg] http://one.example/debian bookworm main contrib # ours\n\
             deb http://one.example/debian bookworm-updates main\n\
             deb http://one.example/debian-security bookworm-security main\n\
             deb-src http://src.example/debian bookworm main\n",
            &["http://one.example/debian"],
        );
    }
}
