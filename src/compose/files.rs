//! Secrets and configs: of the top level, as services use them, and the files they come from.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{Naming, naming, with_namespace, without_empty_options};
use super::read::{Ctx, Mistake, undeclared};
use crate::model::{Sensitive, Wanted};
use crate::spec::{ConfigSpec, Driver, FileTarget, Labels, SecretSpec};
use crate::yaml::Field;

/// A longer file is refused; swarm takes 500 KB for a secret and 1000 KB for a config (API 1.48).
pub const FILE_BYTES_MAX: usize = 1_000 << 10;

const FILE_MODE_DEFAULT: u32 = 0o444;

/// Secret or config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Secret,
    Config,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

/// A top-level secret or config.
#[derive(Debug, Clone, Default)]
pub(super) struct FileDef {
    pub naming: Naming,
    pub content: Content,
    pub labels: Labels,
    pub driver: String,
    pub driver_opts: Option<Labels>,
    pub template_driver: String,
}

/// Where the content comes from.
#[derive(Debug, Clone, Default)]
pub(super) enum Content {
    /// The file does not say; a driver may.
    #[default]
    Absent,
    /// It stands here.
    Given(Sensitive<Vec<u8>>),
}

/// A secret or config as a service uses it.
#[derive(Debug, Clone, Default)]
pub(super) struct FileUse {
    /// Where the file says so, for mistakes that only show after merging.
    pub path: String,
    pub source: String,
    pub target: String,
    pub uid: String,
    pub gid: String,
    pub mode: Option<u32>,
}

/// Reads `secrets.<key>` or `configs.<key>`.
pub(super) fn read(key: &str, field: &Field<'_, '_>, kind: Kind, ctx: &Ctx<'_>) -> FileDef {
    let mut r = field.map();
    let mut definition = FileDef {
        naming: naming(&mut r, key, ctx),
        labels: r.take("labels").and_then(|f| ctx.labels(&f)).unwrap_or_default(),
        template_driver: r.take("template_driver").and_then(|f| ctx.text(&f)).unwrap_or_default(),
        ..FileDef::default()
    };
    if kind == Kind::Secret {
        definition.driver = r.take("driver").and_then(|f| ctx.text(&f)).unwrap_or_default();
        let driver_opts = r.take("driver_opts");
        definition.driver_opts = driver_opts.as_ref().and_then(|f| ctx.options(f));
        if let Some(options) = driver_opts.filter(|_| definition.driver.is_empty()) {
            ctx.warn_field(&options, "has no effect without a driver", "");
        }
    }
    let file = r.take("file");
    let environment = if ctx.lenient() { r.take("environment") } else { None };
    let inline = if ctx.lenient() && kind == Kind::Config { r.take("content") } else { None };
    let sources =
        [&file, &environment, &inline].into_iter().flatten().count() + usize::from(!definition.driver.is_empty());
    if sources > 1 && !definition.naming.external {
        field.wrong("the content is given twice", "keep one of file, environment, content and driver");
    }
    if definition.naming.external {
        if let Some(file) = &file {
            ctx.warn_field(file, format!("has no effect: the {} is external", kind.noun()), "");
        }
    } else if let Some(file) = file {
        definition.content = from_file(&file, ctx);
    } else if let Some(variable) = environment {
        definition.content = from_environment(&variable, ctx);
    } else if let Some(inline) = inline {
        definition.content = ctx.text(&inline).map_or(Content::Absent, |text| given(text.into_bytes()));
    }
    ctx.finish(r, &[], &[]);
    definition
}

fn given(content: Vec<u8>) -> Content {
    Content::Given(Sensitive::new(content))
}

/// A mistake has been reported where this gives an empty content, so that it is not missed once more.
fn from_file(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Content {
    let Some(path) = ctx.text(field) else { return given(Vec::new()) };
    let content = read_file(&path, field, true, ctx).unwrap_or_default();
    if content.len() > FILE_BYTES_MAX {
        field.wrong(format!("the file {path} is longer than {FILE_BYTES_MAX} bytes"), "");
    }
    given(content)
}

fn from_environment(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Content {
    let Some(name) = ctx.text(field) else { return given(Vec::new()) };
    let value = ctx.input.environment.get(&name);
    if value.is_none() {
        field.wrong(format!("the variable {name} is not declared"), "");
    }
    given(value.cloned().unwrap_or_default().into_bytes())
}

/// Reads a file that the compose file names; none, and a problem, if that fails.
pub(super) fn read_file(path: &str, field: &Field<'_, '_>, required: bool, ctx: &Ctx<'_>) -> Option<Vec<u8>> {
    let path = resolve(path, ctx);
    match (ctx.input.read_file)(&path) {
        Ok(Some(content)) => return Some(content),
        Ok(None) if !required => {}
        Ok(None) => field.wrong(format!("there is no file {path}"), ""),
        Err(why) => field.wrong(format!("the file {path} cannot be read: {why}"), ""),
    }
    None
}

/// The path as [`super::Input::read_file`] gets it: below the folder of the first file's name, unless absolute.
pub(super) fn resolve(path: &str, ctx: &Ctx<'_>) -> String {
    let folder = ctx.input.files.first().and_then(|file| file.name.rsplit_once('/')).map(|(folder, _)| folder);
    match folder {
        Some(folder) if !path.starts_with('/') => clean(&format!("{folder}/{path}")),
        _ => clean(path),
    }
}

/// The path without `.`, and without `..` where that is possible without looking.
pub(super) fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Reads `secrets` or `configs` of a service.
pub(super) fn read_uses(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<FileUse> {
    let mut uses = Vec::new();
    for item in field.items("a list").unwrap_or_default() {
        if item.node.as_map().is_none() {
            let source = ctx.text(&item);
            uses.extend(source.map(|source| FileUse { path: item.path.clone(), source, ..FileUse::default() }));
            continue;
        }
        let mut r = item.map();
        uses.push(FileUse {
            path: item.path.clone(),
            source: r.required("source").and_then(|f| ctx.text(&f)).unwrap_or_default(),
            target: r.take("target").and_then(|f| ctx.text(&f)).unwrap_or_default(),
            uid: r.take("uid").and_then(|f| ctx.text(&f)).unwrap_or_default(),
            gid: r.take("gid").and_then(|f| ctx.text(&f)).unwrap_or_default(),
            mode: r.take("mode").and_then(|f| mode(&f, ctx)),
        });
        ctx.finish(r, &[], &[]);
    }
    uses
}

/// A number; leniently, the compose-spec's text of octal digits too.
fn mode(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Option<u32> {
    match field.node.as_str() {
        Some(text) if ctx.lenient() => {
            let mode = u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok();
            if mode.is_none() {
                field.wrong(format!("{text:?} is no file mode"), "write octal digits, such as 0440");
            }
            mode
        }
        _ => ctx.cut_number(field),
    }
}

/// Files in a container: the real name of each with where it appears, sorted by name; or the mistakes, by path.
pub(super) fn references(
    kind: Kind,
    uses: &[FileUse],
    definitions: &BTreeMap<String, FileDef>,
    ctx: &Ctx<'_>,
) -> Result<Vec<(String, FileTarget)>, Vec<Mistake>> {
    let (mut references, mut mistakes, mut targets) = (Vec::new(), Vec::new(), BTreeSet::new());
    for used in uses.iter().filter(|used| !used.source.is_empty()) {
        let noun = kind.noun();
        let Some(definition) = definitions.get(&used.source) else {
            let message = undeclared(noun, &used.source, definitions.keys());
            mistakes.push(Mistake { path: used.path.clone(), message });
            continue;
        };
        let target = if used.target.is_empty() { &used.source } else { &used.target };
        if !targets.insert(target) {
            let message = format!("a second {noun} appears at {target:?}");
            mistakes.push(Mistake { path: used.path.clone(), message });
        }
        let or_root = |id: &str| if id.is_empty() { "0".to_owned() } else { id.to_owned() };
        let file = FileTarget {
            name: target.clone(),
            uid: or_root(&used.uid),
            gid: or_root(&used.gid),
            mode: used.mode.unwrap_or(FILE_MODE_DEFAULT),
            ..FileTarget::default()
        };
        references.push((definition.real_name(&used.source, ctx), file));
    }
    references.sort_by(|(a, _), (b, _)| a.cmp(b));
    if mistakes.is_empty() { Ok(references) } else { Err(mistakes) }
}

impl FileDef {
    /// The object's name in the swarm.
    pub fn real_name(&self, key: &str, ctx: &Ctx<'_>) -> String {
        if self.naming.name.is_empty() { ctx.input.stack.scoped(key) } else { self.naming.name.clone() }
    }

    /// The secret to create, or the one that must be there.
    pub fn secret(&self, key: &str, ctx: &Ctx<'_>) -> Result<Wanted<SecretSpec>, String> {
        let name = self.real_name(key, ctx);
        if self.naming.external {
            return Ok(Wanted::External(name));
        }
        let driver = || Driver { name: self.driver.clone(), options: self.driver_opts.clone(), ..Driver::default() };
        let spec = SecretSpec {
            name,
            labels: Some(with_namespace(self.labels.clone(), ctx)),
            driver: (!self.driver.is_empty()).then(driver).map(without_empty_options),
            templating: self.templating(),
            data: self.data(Kind::Secret)?,
            ..SecretSpec::default()
        };
        Ok(Wanted::Own { spec, named: !self.naming.name.is_empty() })
    }

    /// The config to create, or the one that must be there.
    pub fn config(&self, key: &str, ctx: &Ctx<'_>) -> Result<Wanted<ConfigSpec>, String> {
        let name = self.real_name(key, ctx);
        if self.naming.external {
            return Ok(Wanted::External(name));
        }
        let spec = ConfigSpec {
            name,
            labels: Some(with_namespace(self.labels.clone(), ctx)),
            templating: self.templating(),
            data: self.data(Kind::Config)?,
            ..ConfigSpec::default()
        };
        Ok(Wanted::Own { spec, named: !self.naming.name.is_empty() })
    }

    fn templating(&self) -> Option<Driver> {
        let driver = || Driver { name: self.template_driver.clone(), ..Driver::default() };
        (!self.template_driver.is_empty()).then(driver)
    }

    fn data(&self, kind: Kind) -> Result<Sensitive<Vec<u8>>, String> {
        match &self.content {
            Content::Given(data) => Ok(data.clone()),
            Content::Absent if !self.driver.is_empty() => Ok(Sensitive::default()),
            Content::Absent => {
                Err(format!("nothing says where the {}'s content comes from: file or external", kind.noun()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_without_looking() {
        for (path, cleaned) in [
            ("a/./b//c", "a/b/c"),
            ("a/../b", "b"),
            ("../../a", "../../a"),
            ("/a/../../b", "/b"),
            ("./", "."),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), cleaned);
        }
    }
}
