//! What a mount brings into a container that is not the stack's own: the ways to a node's files, and to other stacks' volumes.
//!
//! | mount | is allowed by |
//! |---|---|
//! | bind, named pipe | `binds: [/path]` |
//! | volume of the local driver with `o: bind`, or `type: none` | `binds: [/path]` |
//! | its option with a path (`o: lowerdir=/etc`) | `binds: [/path]` |
//! | volume on a network file system | `binds: ["nfs:10.0.0.7:/export/**"]`, as `type:addr:device` |
//! | volume on a disk of the node | `binds: ["ext4:/dev/sdb1"]` |
//! | volume of a plugin | `binds: ["plugin:NAME"]`, whatever its options are |
//! | tmpfs, and a volume of the stack | always |
//! | external volume, and one that is named otherwise than the stack's | `volumes: [NAME]` |
//! | content of an image | `images: [NAME]` |

use super::Rule;
use super::pattern;
use crate::model::StackName;
use crate::spec::{Driver, Labels, Mount};

/// Something that has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// By what.
    pub rule: Rule,
    /// As the file says it.
    pub written: String,
    /// The forms of it that a pattern may match; none where nobody can foresee what will come of it.
    pub names: Vec<String>,
    /// True if the top-level definition of the volume brings it, and not its use.
    pub defined: bool,
}

impl Source {
    /// Something that goes by one name.
    pub fn new(rule: Rule, written: impl Into<String>) -> Self {
        let written = written.into();
        let names = match rule {
            _ if pattern::is_unforeseeable(&written) => Vec::new(),
            Rule::Binds => vec![pattern::path(&written)],
            Rule::Images => pattern::image(&written),
            Rule::Capabilities => vec![pattern::capability(&written)],
            _ => vec![written.clone()],
        };
        Self { rule, written, names, defined: false }
    }
}

/// Everything that has to be allowed for `mount` in `stack`.
pub(super) fn of_mount(stack: &StackName, mount: &Mount) -> Vec<Source> {
    match mount.kind.as_str() {
        "tmpfs" => Vec::new(),
        "bind" | "npipe" => vec![Source::new(Rule::Binds, &mount.source)],
        "volume" => {
            let driver = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
            let defined = |source| Source { defined: true, ..source };
            shared(stack, &mount.source)
                .into_iter()
                .chain(driver.into_iter().flat_map(of_driver).map(defined))
                .collect()
        }
        "cluster" => shared(stack, &mount.source),
        "image" => vec![Source::new(Rule::Images, &mount.source)],
        // Whatever a later engine brings.
        other => vec![Source::new(Rule::Binds, format!("{other}:{}", mount.source))],
    }
}

/// A volume belongs to whom its name says, since swarm knows no owner of volumes. One without a name is new.
fn shared(stack: &StackName, volume: &str) -> Vec<Source> {
    let own = volume.is_empty() || volume.starts_with(&stack.scoped(""));
    if own { Vec::new() } else { vec![Source::new(Rule::Volumes, volume)] }
}

fn of_driver(driver: &Driver) -> Vec<Source> {
    if !matches!(driver.name.as_str(), "" | "local") {
        return vec![Source::new(Rule::Binds, format!("plugin:{}", driver.name))];
    }
    let Some(options) = driver.options.as_ref().filter(|options| !options.is_empty()) else { return Vec::new() };
    of_local_options(options)
}

/// The local driver calls `mount(device, …, type, o)` on the node.
fn of_local_options(options: &Labels) -> Vec<Source> {
    // Swarm's templates could turn any option into any other, and its text says so.
    if let Some(template) = options.values().find(|value| pattern::is_unforeseeable(value)) {
        return vec![Source::new(Rule::Binds, template)];
    }
    let option = |name: &str| options.get(name).map_or("", |value| value.trim());
    let (kind, device) = (option("type"), option("device"));
    let flags: Vec<&str> = option("o").split(',').map(str::trim).collect();
    // With one of these the kernel looks at no type.
    let is_bind = flags.contains(&"bind") || flags.contains(&"rbind");
    let mut sources = match kind {
        "" if device.is_empty() && !is_bind => Vec::new(),
        _ if is_bind || matches!(kind, "" | "none" | "bind") => vec![Source::new(Rule::Binds, device)],
        "tmpfs" => Vec::new(),
        _ => vec![of_file_system(kind, device, &flags)],
    };
    // Such as an overlay's `lowerdir=/etc:/srv`.
    let values = flags.iter().filter_map(|flag| flag.split_once('=')).flat_map(|(_, value)| value.split(':'));
    sources.extend(values.filter(|value| value.starts_with('/')).map(|path| Source::new(Rule::Binds, path)));
    sources
}

/// `nfs:10.0.0.7:/export/shop`, whether the address stands in the device or in the flags.
fn of_file_system(kind: &str, device: &str, flags: &[&str]) -> Source {
    let addresses: Vec<&str> = flags.iter().filter_map(|flag| flag.strip_prefix("addr=")).collect();
    // With several only one counts, and which is the engine's affair.
    let address = if addresses.is_empty() { String::new() } else { format!("{}:", addresses.join("+")) };
    let device = if addresses.is_empty() { device } else { device.strip_prefix(':').unwrap_or(device) };
    let source = Source::new(Rule::Binds, format!("{kind}:{address}{device}"));
    // A server may follow it to anywhere.
    if device.split('/').any(|part| part == "..") { Source { names: Vec::new(), ..source } } else { source }
}
