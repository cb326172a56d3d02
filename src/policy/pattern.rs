//! Globs of the policy, and the form in which names are compared with them.

use globset::{GlobBuilder, GlobMatcher};

use super::Rule;
use crate::image::ImageRef;

/// A glob as the operator wrote it.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    globs: Vec<GlobMatcher>,
}

impl PartialEq for Pattern {
    /// The globs follow from the text.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// A pattern for stacks' names.
    pub fn of_stacks(text: &str) -> Result<Self, String> {
        Self::compile(text, text)
    }

    /// A pattern of `rule`, brought to the form that [`path`], [`capability`] and [`image`] give names.
    pub fn new(rule: Rule, text: &str) -> Result<Self, String> {
        match rule {
            Rule::Binds if text.starts_with('/') => {
                let trimmed = if text == "/" { text } else { text.trim_end_matches('/') };
                if clean(trimmed) != trimmed {
                    return Err(format!("{text:?} has empty parts, . or .. in it, and is no plain path"));
                }
                Self::compile(text, &behind_links(trimmed))
            }
            Rule::Binds if is_of_windows(text) => Self::compile(text, &path(text)),
            // Other than a path, such as `nfs:10.0.0.7:/export/**`.
            Rule::Binds if text.contains(':') || text.starts_with('*') => Self::compile(text, text),
            Rule::Binds => Err(format!("{text:?} is no absolute path, and paths of nodes are absolute")),
            Rule::Capabilities => Self::compile(text, &capability(text)),
            _ => Self::compile(text, text),
        }
    }

    fn compile(text: &str, glob: &str) -> Result<Self, String> {
        if glob.is_empty() {
            return Err("an empty pattern matches nothing".to_owned());
        }
        // What allows everything in a folder allows the folder.
        let folder = glob.strip_suffix("/**").map(|folder| if folder.is_empty() { "/" } else { folder });
        let compile = |glob: &str| {
            let built = GlobBuilder::new(glob).literal_separator(true).backslash_escape(false).build();
            built.map(|glob| glob.compile_matcher()).map_err(|error| format!("{text:?} is no glob: {}", error.kind()))
        };
        let globs = [Some(glob), folder].into_iter().flatten().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), globs })
    }

    /// True if `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        self.globs.iter().any(|glob| glob.is_match(name))
    }

    /// As the operator wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What swarm fills in without a stack having a say in it: neither a `/` nor `..` comes of these.
const HARMLESS_TEMPLATES: [&str; 7] =
    [".Service.ID", ".Service.Name", ".Node.ID", ".Node.Hostname", ".Task.ID", ".Task.Name", ".Task.Slot"];

/// True if swarm's templates in `text` can become anything.
pub(super) fn is_unforeseeable(text: &str) -> bool {
    let mut actions = text.split("{{");
    // What stands before the first.
    actions.next();
    actions.any(|action| {
        let inside = action.split_once("}}").map(|(inside, _)| inside.trim_matches('-').trim());
        inside.is_none_or(|inside| !HARMLESS_TEMPLATES.contains(&inside))
    })
}

/// A path of a node as the engine sees it: without `.` and `..`, and with the links followed that every Linux has. One of Windows gets
/// plain slashes, and two of them where it begins with two backslashes, as pipes do. What is no path, such as `nfs:nas:/x`, stays.
pub(super) fn path(text: &str) -> String {
    if text.starts_with('/') {
        return behind_links(&clean(text));
    }
    if !is_of_windows(text) {
        return text.to_owned();
    }
    let lead = if text.starts_with('\\') { "/" } else { "" };
    format!("{lead}{}", clean(&text.replace('\\', "/")))
}

/// `C:…` or `\\…`.
fn is_of_windows(path: &str) -> bool {
    let mut chars = path.chars();
    let (first, second) = (chars.next(), chars.next());
    first == Some('\\') || (first.is_some_and(|c| c.is_ascii_alphabetic()) && second == Some(':'))
}

fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// `/var/run` is `/run` everywhere, and what stands behind a process' links can be anything, the whole root in most cases.
fn behind_links(path: &str) -> String {
    for (link, target) in [("/var/run", "/run"), ("/var/lock", "/run/lock")] {
        if let Some(rest) = path.strip_prefix(link).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            return format!("{target}{rest}");
        }
    }
    let Some(rest) = path.strip_prefix("/proc/") else { return path.to_owned() };
    let mut parts = rest.split('/');
    match parts.find(|part| matches!(*part, "root" | "cwd" | "fd" | "map_files")) {
        Some("root" | "cwd") => behind_links(&format!("/{}", parts.collect::<Vec<_>>().join("/"))),
        Some(_) => "/".to_owned(),
        None => path.to_owned(),
    }
}

/// `CAP_NET_ADMIN` and `net_admin` are `NET_ADMIN`.
pub(super) fn capability(text: &str) -> String {
    let upper = text.trim().to_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

/// The names by which an image may be allowed: its repository, and the whole reference, both as people write them and with their
/// registry. Beside a digest the tag decides nothing, and is left out.
pub(super) fn image(text: &str) -> Vec<String> {
    let Ok(image) = ImageRef::parse(text) else { return vec![text.to_owned()] };
    let version = match (image.digest(), image.tag()) {
        (Some(digest), _) => format!("@{digest}"),
        (None, tag) => format!(":{}", tag.unwrap_or(crate::image::DEFAULT_TAG)),
    };
    let names = [image.familiar_name(), format!("{}/{}", image.domain(), image.path())];
    names.iter().flat_map(|name| [name.clone(), format!("{name}{version}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: Rule, pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = Pattern::new(rule, pattern).unwrap();
        let matches = |name: &&&str| match rule {
            Rule::Binds => glob.matches(&path(name)),
            Rule::Images => image(name).iter().any(|name| glob.matches(name)),
            Rule::Capabilities => glob.matches(&capability(name)),
            _ => glob.matches(name),
        };
        assert_eq!(yes.iter().filter(matches).collect::<Vec<_>>(), yes.iter().collect::<Vec<_>>(), "{pattern}");
        assert_eq!(no.iter().filter(matches).collect::<Vec<_>>(), Vec::<&&str>::new(), "{pattern}");
    }

    #[test]
    fn a_folder_is_allowed_with_all_that_is_in_it_and_nothing_beside_it() {
        let beside = ["/srv", "/srv/shopping", "/srv/shop/../etc", "/srv/shop/../../etc", "/", "srv/shop"];
        check(Rule::Binds, "/srv/shop/**", &["/srv/shop", "/srv/shop/a/b", "//srv/./shop/", "/srv/x/../shop"], &beside);
        check(Rule::Binds, "/srv/*", &["/srv/a"], &["/srv", "/srv/a/b"]);
        check(Rule::Binds, "/srv/shop/", &["/srv/shop"], &["/srv/shop/a"]);
        check(Rule::Binds, "/", &["/", "/..", "/a/.."], &["/etc"]);
        check(Rule::Binds, "/**", &["/", "/etc/x"], &["nfs:nas:/x"]);
        check(Rule::Binds, "**", &["/", "/etc/x", "nfs:nas:/x", r"C:\data"], &[]);
    }

    #[test]
    fn links_that_every_linux_has_are_no_way_around() {
        check(Rule::Binds, "/run/docker.sock", &["/run/docker.sock", "/var/run/docker.sock"], &["/run"]);
        check(Rule::Binds, "/var/run/docker.sock", &["/run/docker.sock", "/var/run/docker.sock"], &["/var/run"]);
        check(Rule::Binds, "/var/**", &["/var/log"], &["/var/run/docker.sock", "/var/run"]);
        let root = ["/proc/1/root", "/proc/1/root/etc", "/proc/self/task/9/cwd/etc", "/proc/1/root/proc/2/root/etc"];
        check(Rule::Binds, "/proc/**", &["/proc", "/proc/1/status"], &root);
    }

    #[test]
    fn windows_paths_and_pipes_are_compared_with_plain_slashes() {
        check(Rule::Binds, r"C:\data\**", &[r"C:\data", r"C:\data\a", "C:/data/a"], &[r"C:\data\..\Windows"]);
        check(Rule::Binds, r"\\.\pipe\docker_engine", &[r"\\.\pipe\docker_engine"], &[r"\\.\pipe\other"]);
    }

    #[test]
    fn an_image_is_allowed_by_its_repository_or_by_its_version() {
        let digest = format!("@sha256:{}", "0a".repeat(32));
        let (pinned, tagged) = (format!("nginx{digest}"), format!("nginx:1.27{digest}"));
        check(
            Rule::Images,
            "nginx",
            &["nginx", "nginx:1.27", "docker.io/library/nginx", &pinned],
            &["evil/nginx", "h:5/nginx"],
        );
        // The digest says what runs.
        check(Rule::Images, "nginx:1.*", &["nginx:1.27"], &["nginx", "nginx:2", &pinned, &tagged]);
        check(Rule::Images, "nginx@sha256:*", &[&pinned, &tagged], &["nginx:1.27"]);
        check(Rule::Images, "registry.example.com/shop/**", &["registry.example.com/shop/a/b:1"], &["shop/a"]);
        check(Rule::Images, "docker.io/**", &["nginx", "grafana/loki:3"], &["ghcr.io/x/y"]);
        check(Rule::Images, "grafana/*", &["grafana/loki"], &["ghcr.io/grafana/loki", "grafana/a/b"]);
        check(Rule::Images, "**", &["nginx", "h:5/a/b:1", &"0a".repeat(32)], &[]);
    }

    #[test]
    fn capabilities_are_compared_without_case_and_prefix() {
        check(Rule::Capabilities, "cap_net_*", &["NET_ADMIN", "CAP_NET_RAW", "net_raw"], &["ALL", "SYS_ADMIN"]);
    }

    #[test]
    fn a_template_that_could_become_anything_is_found() {
        for (text, is) in [
            ("/srv/shop", false),
            ("/srv/{{.Node.Hostname}}/{{ .Task.Slot }}", false),
            ("/srv/shop/{{\"../../etc\"}}", true),
            ("/srv/{{ .Service.Labels.path }}", true),
            ("/srv/{{.Task.Slot}}{{printf \"/..\"}}", true),
            ("/srv/{{", true),
        ] {
            assert_eq!(is_unforeseeable(text), is, "{text}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_mean_anything_is_refused() {
        for (rule, text) in
            [(Rule::Binds, "srv"), (Rule::Binds, "/srv/../etc"), (Rule::Images, "a["), (Rule::Secrets, "")]
        {
            assert!(Pattern::new(rule, text).is_err(), "{text}");
        }
    }
}
