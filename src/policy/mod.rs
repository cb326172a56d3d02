//! `policy:` of swarmkeeper.yml: what each stack may do to the nodes and to its neighbours, and the judge of a rendered stack. Pure.
//!
//! ```yaml
//! policy:
//!   "*":                          # a stack's name or a glob; a stack may do what all entries that match it allow together
//!     images: ["**"]
//!   shop:
//!     images: ["registry.example.com/shop/**", "nginx:1.*"]
//!     binds: [/srv/shop/**]       # paths of the node, and all that is as good as one, see `sources`
//!     networks: [ingress]         # external ones
//!     secrets: [wildcard_tls]     # external ones
//!     configs: []                 # external ones
//!     volumes: [uploads]          # external ones, and others that are not named `shop_…`
//!     capabilities: [NET_BIND_SERVICE]
//!     host_network: false         # the host's network, and network drivers other than overlay
//! ```
//!
//! # Rules
//!
//! * Without `policy:` everything is allowed. With it, what no entry allows is refused: a stack that no entry matches may run no
//!   image, and so cannot run at all.
//! * What is judged is what would be *sent to the engine*, not how the file spells it: long and short forms, merges, anchors and
//!   templates end in the same specs. Keys without effect in a swarm (`privileged`, `devices`, `network_mode`, `pid`, `ipc`) are
//!   remarks of [`crate::compose`], and cannot do harm.
//! * Patterns are globs: `*` and `?` stop at a `/`, `**` does not, `{a,b}` and `[ab]` choose; `dir/**` is `dir` too.
//! * A stack that is refused is in error as one that cannot be rendered: nothing of it is written, its last good state stays.
//!
//! # Limits
//!
//! Paths are compared as text, `..` and the links that every Linux has (`/var/run`, `/proc/1/root`) resolved; a symbolic link on a
//! node is not seen, so allow no folder in which a stack can make one. Names of a stack's own volumes begin with its name and `_`:
//! `shop` can reach a volume of a stack `shop_x`. Published ports, labels, placement and the log driver are not judged.

mod judge;
mod pattern;
mod read;
mod sources;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::StackName;

use pattern::Pattern;

/// What each stack may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// None without `policy:`.
    entries: Option<Vec<Entry>>,
    /// Where the policy stands, for the mend.
    file: String,
}

/// The texts that a stack was loaded from, by the names of their files in locations.
pub type Texts<'a> = BTreeMap<&'a str, &'a str>;

/// One entry of `policy:`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    stacks: Pattern,
    allowed: BTreeMap<Rule, Vec<Pattern>>,
    host_network: bool,
}

/// A kind of thing that has to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    Binds,
    Images,
    Networks,
    Secrets,
    Configs,
    Volumes,
    Capabilities,
    HostNetwork,
}

impl Rule {
    /// Those with a list of patterns.
    const LISTS: [Self; 7] =
        [Self::Binds, Self::Images, Self::Networks, Self::Secrets, Self::Configs, Self::Volumes, Self::Capabilities];

    /// Its key in the file.
    fn key(self) -> &'static str {
        match self {
            Self::Binds => "binds",
            Self::Images => "images",
            Self::Networks => "networks",
            Self::Secrets => "secrets",
            Self::Configs => "configs",
            Self::Volumes => "volumes",
            Self::Capabilities => "capabilities",
            Self::HostNetwork => "host_network",
        }
    }

    /// What one of its kind is called.
    fn noun(self) -> &'static str {
        match self {
            Self::Binds => "the mount of",
            Self::Images => "the image",
            Self::Networks => "the external network",
            Self::Secrets => "the external secret",
            Self::Configs => "the external config",
            Self::Volumes => "the shared volume",
            Self::Capabilities => "the capability",
            Self::HostNetwork => "the network driver",
        }
    }
}

impl Permissions {
    /// The patterns of `rule` that hold for `stack`.
    fn patterns<'a>(&'a self, stack: &'a StackName, rule: Rule) -> impl Iterator<Item = &'a Pattern> {
        self.matching(stack).filter_map(move |entry| entry.allowed.get(&rule)).flatten()
    }

    fn matching<'a>(&'a self, stack: &'a StackName) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().flatten().filter(|entry| entry.stacks.matches(stack.as_str()))
    }
}
