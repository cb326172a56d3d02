//! `volumes` of services and of the top level, and `tmpfs`, which is read leniently only.

use std::collections::BTreeMap;

use super::file::{Naming, naming, with_namespace, without_empty_options};
use super::files::clean;
use super::read::{Ctx, Ignored, undeclared};
use super::units;
use crate::spec::{BindOptions, Driver, Labels, Mount, TmpfsOptions, VolumeOptions};
use crate::yaml::{Field, join};

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// What of the short form's options has an effect elsewhere, but none in a swarm.
const SHORT_OPTIONS_WITHOUT_EFFECT: [&str; 6] = ["z", "Z", "cached", "delegated", "consistent", "copy"];

/// A top-level volume.
#[derive(Debug, Clone, Default)]
pub(super) struct VolumeDef {
    pub naming: Naming,
    pub driver: String,
    pub driver_opts: Option<Labels>,
    pub labels: Labels,
}

/// A volume as a service uses it.
#[derive(Debug, Clone, Default)]
pub(super) struct VolumeUse {
    /// Where the file says so, for mistakes that only show after merging.
    pub path: String,
    pub kind: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: String,
    pub bind: Option<BindOptions>,
    pub volume: Option<VolumeOptions>,
    pub tmpfs: Option<TmpfsOptions>,
}

/// Reads `volumes.<key>`.
pub(super) fn read(key: &str, field: &Field<'_, '_>, ctx: &Ctx<'_>) -> VolumeDef {
    let mut r = field.map();
    let volume = VolumeDef {
        naming: naming(&mut r, key, ctx),
        driver: r.take("driver").and_then(|f| ctx.text(&f)).unwrap_or_default(),
        driver_opts: r.take("driver_opts").and_then(|f| ctx.options(&f)),
        labels: r.take("labels").and_then(|f| ctx.labels(&f)).unwrap_or_default(),
    };
    let own = !volume.driver.is_empty()
        || volume.driver_opts.as_ref().is_some_and(|o| !o.is_empty())
        || !volume.labels.is_empty();
    if volume.naming.external && own {
        field.wrong("an external volume takes no driver, driver_opts or labels", "remove them, or external");
    }
    let cluster = "create the cluster volume with docker volume create";
    ctx.finish(r, &[("x-cluster-spec", cluster)], &[]);
    volume
}

/// Reads `volumes` of a service, in the file's order.
pub(super) fn read_uses(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<VolumeUse> {
    let mut uses = Vec::new();
    for item in field.items("a list of volumes").unwrap_or_default() {
        let volume = if item.node.as_map().is_some() { long(&item, ctx) } else { short(&item, ctx) };
        uses.extend(volume.and_then(|volume| resolve_bind(volume, &item, ctx)));
    }
    uses
}

/// Reads `tmpfs`: paths, each with options perhaps (`/run:size=64m,mode=1777`).
pub(super) fn read_tmpfs(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<VolumeUse> {
    let texts = ctx.text_or_texts(field).unwrap_or_default();
    let mut uses = Vec::new();
    for text in texts {
        let (target, options) = text.split_once(':').unwrap_or((&text, ""));
        let (mut tmpfs, mut read_only) = (TmpfsOptions::default(), false);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let understood = match option.split_once('=') {
                Some(("size", size)) => units::ram_bytes(size).map(|size| tmpfs.size_bytes = size).is_some(),
                Some(("mode", mode)) => u32::from_str_radix(mode, 8).map(|mode| tmpfs.mode = mode).is_ok(),
                None if option == "ro" || option == "rw" => {
                    read_only = option == "ro";
                    true
                }
                _ => false,
            };
            if !understood {
                ctx.warn_field(field, format!("the option {option} has no effect in a swarm"), "");
            }
        }
        let tmpfs = if tmpfs == TmpfsOptions::default() { None } else { Some(tmpfs) };
        uses.push(VolumeUse {
            path: field.path.clone(),
            kind: "tmpfs".to_owned(),
            target: target.to_owned(),
            read_only,
            tmpfs,
            ..VolumeUse::default()
        });
    }
    uses
}

fn long(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Option<VolumeUse> {
    let mut r = field.map();
    let kinds = ["volume", "bind", "tmpfs", "npipe", "cluster", "image"];
    let kind = r.required("type").and_then(|f| ctx.word(&f, &kinds));
    let volume = VolumeUse {
        path: field.path.clone(),
        kind: kind.clone().unwrap_or_default(),
        source: r.take("source").and_then(|f| ctx.text(&f)).unwrap_or_default(),
        target: r.take("target").and_then(|f| ctx.text(&f)).unwrap_or_default(),
        read_only: r.take("read_only").and_then(|f| ctx.flag(&f)).unwrap_or_default(),
        consistency: r.take("consistency").and_then(|f| ctx.text(&f)).unwrap_or_default(),
        bind: r.take("bind").map(|f| bind_options(&f, ctx)),
        volume: r.take("volume").map(|f| volume_options(&f, ctx)),
        tmpfs: r.take("tmpfs").map(|f| tmpfs_options(&f, ctx)),
    };
    if volume.kind == "volume" && volume.source.is_empty() && volume.volume.is_some() {
        ctx.warn(&field.node.location, &join(&field.path, "volume"), "has no effect on a volume without a name", "");
    }
    if volume.target.is_empty() {
        field.wrong("target is missing", "say where in the container it is mounted");
    }
    ctx.finish(r, &[], &[("image", "")]);
    kind.map(|_| volume)
}

fn bind_options(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> BindOptions {
    let mut r = field.map();
    let propagation = r.take("propagation").and_then(|f| ctx.word(&f, &PROPAGATIONS)).unwrap_or_default();
    let ignored: [Ignored; 3] =
        [("create_host_path", "the folder must be there on every node"), ("selinux", ""), ("recursive", "")];
    ctx.finish(r, &ignored, &[]);
    BindOptions { propagation, ..BindOptions::default() }
}

fn volume_options(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> VolumeOptions {
    let mut r = field.map();
    let no_copy = r.take("nocopy").and_then(|f| ctx.flag(&f)).unwrap_or_default();
    let subpath = r.take("subpath").and_then(|f| ctx.text(&f)).unwrap_or_default();
    ctx.finish(r, &[("labels", "label the volume at the top level")], &[]);
    VolumeOptions { no_copy, subpath, ..VolumeOptions::default() }
}

fn tmpfs_options(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> TmpfsOptions {
    let mut r = field.map();
    let size = r.take("size");
    let size_bytes = match &size {
        // Units are the compose-spec's; strictly it is a number of bytes.
        Some(f) if ctx.lenient() => ctx.bytes(f),
        // The schema wants no negative one, and 63 bits are what the engine has.
        Some(f) => ctx.number::<u64>(f).and_then(|bytes| i64::try_from(bytes).ok()),
        None => None,
    };
    // The CLI does not send the mode; leniently, it means what it says.
    let mut mode = 0;
    let ignored: &[Ignored] = if ctx.lenient() {
        mode = r.take("mode").and_then(|f| ctx.number(&f)).unwrap_or_default();
        &[]
    } else {
        &[("mode", "docker stack deploy does not send it")]
    };
    ctx.finish(r, ignored, &[]);
    TmpfsOptions { size_bytes: size_bytes.unwrap_or_default(), mode, ..TmpfsOptions::default() }
}

/// `[source:]target[:options]`. A letter before the first colon is a Windows drive, as for the CLI.
fn short(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Option<VolumeUse> {
    let text = field.string()?;
    let parts = match split_at_colons(&text) {
        Ok(parts) => parts,
        Err(why) => {
            field.wrong(format!("{text:?} is no volume: {why}"), "write [source:]target[:options]");
            return None;
        }
    };
    let mut parts = parts.into_iter();
    let (first, second, options) = (parts.next()?, parts.next(), parts.next());
    let (source, target) = match second {
        Some(target) => (first, target),
        None => (String::new(), first),
    };
    let kind = if is_path(&source) { "bind" } else { "volume" };
    if source.is_empty() && text.chars().nth(1) == Some(':') {
        let letter = text.get(..1).unwrap_or_default();
        let message = format!("the letter {letter} is read as a Windows drive, not as a volume");
        ctx.warn_field(field, message, "give the volume a longer name");
    }
    let mut volume =
        VolumeUse { path: field.path.clone(), kind: kind.to_owned(), source, target, ..VolumeUse::default() };
    for option in options.iter().flat_map(|options| options.split(',')) {
        match option {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "nocopy" => volume.volume = Some(VolumeOptions { no_copy: true, ..VolumeOptions::default() }),
            _ if PROPAGATIONS.contains(&option) => {
                volume.bind = Some(BindOptions { propagation: option.to_owned(), ..BindOptions::default() });
            }
            _ => {
                let known = SHORT_OPTIONS_WITHOUT_EFFECT.contains(&option);
                let mend = if known { "" } else { "the options are ro, rw, nocopy and those of propagation" };
                ctx.warn_field(field, format!("the option {option:?} has no effect in a swarm"), mend);
            }
        }
    }
    Some(volume)
}

fn split_at_colons(text: &str) -> Result<Vec<String>, &'static str> {
    // One or two characters are a target, whatever they are.
    if text.chars().count() <= 2 {
        return if text.is_empty() { Err("it is empty") } else { Ok(vec![text.to_owned()]) };
    }
    let (mut parts, mut part) = (Vec::new(), String::new());
    for c in text.chars() {
        let drive = part.chars().count() == 1 && part.chars().all(char::is_alphabetic);
        if c == ':' && !drive {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    if parts.iter().any(String::is_empty) {
        return Err("nothing stands between two colons");
    }
    if parts.len() > 3 { Err("there are too many colons") } else { Ok(parts) }
}

/// `/…`, `.…`, `~…`, a Windows drive or a Windows pipe.
fn is_path(source: &str) -> bool {
    let mut chars = source.chars();
    let (first, second) = (chars.next(), chars.next());
    source.starts_with(['/', '.', '~'])
        || source.starts_with(r"\\")
        || (first.is_some_and(char::is_alphabetic) && second == Some(':'))
}

/// Makes the source of a bind mount absolute.
fn resolve_bind(mut volume: VolumeUse, field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Option<VolumeUse> {
    if volume.kind != "bind" {
        return Some(volume);
    }
    if volume.source.is_empty() {
        field.wrong("a bind mount needs a source", "name a path on the nodes");
        return None;
    }
    if volume.source.starts_with('~') {
        let Some(home) = ctx.input.environment.get("HOME") else {
            field.wrong("~ means nothing here: the declared environment has no HOME", "write the path out");
            return None;
        };
        volume.source = volume.source.replacen('~', home, 1);
    }
    if !volume.source.starts_with('/') && !is_absolute_on_windows(&volume.source) {
        let Some(folder) = ctx.input.folder else {
            let message = format!("the relative path {:?} names no folder on the nodes", volume.source);
            field.wrong(message, "write an absolute path, or use a volume or a config");
            return None;
        };
        volume.source = clean(&format!("{folder}/{}", volume.source));
    }
    Some(volume)
}

/// `C:\…` or `\\server\share\…`, with slashes too; a pipe, `\\.\pipe\…`, is not, as for the CLI.
fn is_absolute_on_windows(path: &str) -> bool {
    let slash = ['/', '\\'];
    let mut chars = path.chars();
    if chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':') {
        return chars.as_str().starts_with(slash);
    }
    let Some(unc) = path.strip_prefix(slash).and_then(|rest| rest.strip_prefix(slash)) else { return false };
    let mut parts = unc.splitn(3, slash);
    let named = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && !part.starts_with('.'));
    named(parts.next()) && named(parts.next()) && parts.next().is_some()
}

/// The mount that the engine gets.
pub(super) fn mount(volume: &VolumeUse, volumes: &BTreeMap<String, VolumeDef>, ctx: &Ctx<'_>) -> Result<Mount, String> {
    check_options(volume)?;
    let plain = Mount {
        kind: volume.kind.clone(),
        source: volume.source.clone(),
        target: volume.target.clone(),
        read_only: volume.read_only,
        consistency: volume.consistency.clone(),
        ..Mount::default()
    };
    let defined = || volumes.get(&volume.source).ok_or_else(|| undeclared("volume", &volume.source, volumes.keys()));
    let name = |definition: &VolumeDef| {
        if definition.naming.name.is_empty() {
            ctx.input.stack.scoped(&volume.source)
        } else {
            definition.naming.name.clone()
        }
    };
    match volume.kind.as_str() {
        "volume" if !volume.source.is_empty() => {
            let definition = defined()?;
            let options = volume_mount_options(volume, definition, ctx);
            Ok(Mount { source: name(definition), volume_options: Some(options), ..plain })
        }
        "bind" | "npipe" => Ok(Mount { bind_options: volume.bind.clone(), ..plain }),
        "tmpfs" => Ok(Mount { tmpfs_options: volume.tmpfs.clone(), ..plain }),
        "cluster" => {
            // A group is no volume of the stack and has no name of its own.
            let source = if volume.source.starts_with("group:") { volume.source.clone() } else { name(defined()?) };
            Ok(Mount { source, cluster_options: Some(serde_json::json!({})), ..plain })
        }
        _ => Ok(plain),
    }
}

fn volume_mount_options(volume: &VolumeUse, definition: &VolumeDef, ctx: &Ctx<'_>) -> VolumeOptions {
    let options = volume.volume.clone().unwrap_or_default();
    if definition.naming.external {
        return options;
    }
    let driver =
        || Driver { name: definition.driver.clone(), options: definition.driver_opts.clone(), ..Driver::default() };
    let has_driver = !definition.driver.is_empty() || definition.driver_opts.is_some();
    VolumeOptions {
        labels: Some(with_namespace(definition.labels.clone(), ctx)),
        driver_config: has_driver.then(driver).map(without_empty_options),
        ..options
    }
}

/// Options of one kind do not go with another.
fn check_options(volume: &VolumeUse) -> Result<(), String> {
    let kind = volume.kind.as_str();
    for (given, options, kinds) in [
        (volume.volume.is_some(), "volume", &["volume"][..]),
        (volume.bind.is_some(), "bind", &["bind", "npipe"][..]),
        (volume.tmpfs.is_some(), "tmpfs", &["tmpfs"][..]),
    ] {
        if given && !kinds.contains(&kind) {
            return Err(format!("{options} options do not go with the type {kind}"));
        }
    }
    match kind {
        "tmpfs" if !volume.source.is_empty() => Err("a tmpfs has no source".to_owned()),
        "npipe" | "cluster" if volume.source.is_empty() => Err(format!("a mount of type {kind} needs a source")),
        _ => Ok(()),
    }
}
