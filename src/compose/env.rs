//! `environment` and `env_file`.
//!
//! `environment` beats `env_file`. A variable without a value, or with an empty one, takes that of the declared environment if it
//! is declared there, as `docker stack deploy` does.

use super::files::{self, read_file};
use super::read::{Ctx, Mapping};
use crate::model::{Finding, Location};
use crate::yaml::{Field, MapReader};

/// Reads both keys of a service.
pub(super) fn read(reader: &mut MapReader<'_, '_>, ctx: &Ctx<'_>) -> Mapping {
    let mut environment = Mapping::new();
    for file in reader.take("env_file").map(|field| env_files(&field, ctx)).unwrap_or_default() {
        environment.extend(file);
    }
    let mut environment = declared(environment, ctx);
    let own = reader.take("environment").and_then(|field| ctx.mapping(&field)).unwrap_or_default();
    environment.extend(declared(own, ctx));
    environment
}

fn declared(mut variables: Mapping, ctx: &Ctx<'_>) -> Mapping {
    for (name, value) in &mut variables {
        if value.as_deref().unwrap_or_default().is_empty()
            && let Some(declared) = ctx.input.environment.get(name)
        {
            *value = Some(declared.clone());
        }
    }
    variables
}

/// A path, a list of paths, or leniently the compose-spec's list of maps.
fn env_files(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<Mapping> {
    if field.node.as_str().is_some() {
        return env_file(field, true, ctx).into_iter().collect();
    }
    let mut files = Vec::new();
    for item in field.items("a path or a list of paths").unwrap_or_default() {
        if item.node.as_map().is_none() || !ctx.lenient() {
            files.extend(env_file(&item, true, ctx));
            continue;
        }
        let mut r = item.map();
        let required = r.take("required").and_then(|f| ctx.flag(&f)).unwrap_or(true);
        files.extend(r.required("path").and_then(|path| env_file(&path, required, ctx)));
        let raw = "lines are taken as they are, quotes too";
        ctx.finish(r, &[], &[("format", raw)]);
    }
    files
}

fn env_file(field: &Field<'_, '_>, required: bool, ctx: &Ctx<'_>) -> Option<Mapping> {
    let path = ctx.text(field)?;
    let bytes = read_file(&path, field, required, ctx)?;
    let Ok(text) = String::from_utf8(bytes) else {
        field.wrong(format!("the file {path} is not UTF-8"), "");
        return None;
    };
    Some(parse(&files::resolve(&path, ctx), &text, ctx))
}

/// Raw lines: quotes and trailing white space belong to the value, `#` begins a comment only at a line's beginning, and a bare
/// name takes the declared value or is left out.
fn parse(file: &str, text: &str, ctx: &Ctx<'_>) -> Mapping {
    let mut variables = Mapping::new();
    for (n, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, ctx.input.environment.get(line).cloned()),
        };
        // The line itself is not shown: it may hold a password.
        let mistake = if name.is_empty() {
            "no variable's name before the ="
        } else if name.contains(char::is_whitespace) {
            "white space in a variable's name"
        } else {
            if value.is_some() {
                variables.insert(name.to_owned(), value);
            }
            continue;
        };
        ctx.problems.add(Finding {
            location: Some(Location { file: file.to_owned(), line: n + 1, column: 0 }),
            path: String::new(),
            message: mistake.to_owned(),
            mend: "write NAME=value".to_owned(),
        });
    }
    variables
}
