//! `${VARIABLES}`: in values, never in keys; `$V ${V} ${V:-default} ${V-default} ${V:?message} ${V?message} $$`.
//!
//! An unset variable is empty, and a warning. Defaults are taken as they are: there is no nesting.
//!
//! A value that a substitution changed becomes a number or a boolean where the schema wants one (docker/cli's list of paths
//! below); text that was written as text stays text.

use std::collections::BTreeMap;

use super::read::Ctx;
use crate::yaml::{Entry, Map, Node, Value, join};

/// More text than this is not made of one stack's variables: a long value may be named very often.
pub(super) const BYTES_MAX: usize = 16 << 20;

/// The tree with all variables replaced.
pub(super) fn tree(node: &Node, ctx: &Ctx<'_>) -> Node {
    walk(node, &mut Vec::new(), "", ctx)
}

fn walk<'n>(node: &'n Node, keys: &mut Vec<&'n str>, path: &str, ctx: &Ctx<'_>) -> Node {
    let value = match &node.value {
        // The version decides how the rest is read, and so comes first.
        Value::String(_) if *keys == ["version"] => return node.clone(),
        Value::String(text) => return scalar(node, text, keys, path, ctx),
        Value::Seq(items) => {
            keys.push("[]");
            let item = |(n, item)| walk(item, keys, &format!("{path}[{n}]"), ctx);
            let items = items.iter().enumerate().map(item).collect();
            keys.pop();
            Value::Seq(items)
        }
        Value::Map(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for entry in map {
                keys.push(&entry.key);
                let value = walk(&entry.value, keys, &join(path, &entry.key), ctx);
                keys.pop();
                let (key, key_location) = (entry.key.clone(), entry.key_location.clone());
                entries.push(Entry { key, key_is_text: entry.key_is_text, key_location, value });
            }
            Value::Map(Map::from(entries))
        }
        _ => return node.clone(),
    };
    Node { location: node.location.clone(), value, source: None }
}

fn scalar(node: &Node, text: &str, keys: &[&str], path: &str, ctx: &Ctx<'_>) -> Node {
    if !text.contains('$') {
        return node.clone();
    }
    let (replaced, remarks) = match substitute(text, ctx.input.environment, ctx.lenient(), ctx.room.get()) {
        Ok((replaced, remarks)) => {
            ctx.room.set(ctx.room.get() - replaced.len());
            (replaced, remarks)
        }
        Err(error) => {
            ctx.problems.add(node.finding(path, error.to_string(), error.mend()));
            return Node { value: Value::Null, ..node.clone() };
        }
    };
    for remark in remarks {
        ctx.warnings.add(node.finding(path, remark.to_string(), remark.mend()));
    }
    let Some(cast) = cast_at(keys).filter(|_| replaced != text) else {
        return Node { value: Value::String(replaced), ..node.clone() };
    };
    if let Some(value) = cast.apply(&replaced) {
        return Node { value, source: Some(replaced), ..node.clone() };
    }
    // The value is not shown: a variable may hold anything.
    ctx.problems.add(node.finding(path, format!("{text:?} does not come out as {}", cast.name()), ""));
    Node { value: Value::Null, ..node.clone() }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Mistake {
    #[error("a $ begins no variable here: {0:?}")]
    Syntax(String),
    #[error("the variable {name} is required and {}: {message}", if *.unset { "not declared" } else { "empty" })]
    Required { name: String, unset: bool, message: String },
    #[error("variables come out as more than {} MiB in this stack", BYTES_MAX >> 20)]
    TooLong,
}

impl Mistake {
    fn mend(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "write $$ for a $",
            Self::Required { .. } => "declare it where the stack's variables are",
            Self::TooLong => "name long values less often",
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Remark {
    #[error("the variable {0} is not declared, so that it is empty here")]
    Unset(String),
    #[error("docker stack deploy takes {0:?} for a variable with an operator")]
    OperatorWithoutBraces(String),
}

impl Remark {
    fn mend(&self) -> String {
        match self {
            Self::Unset(name) => format!("declare it, or write ${{{name}:-}}"),
            Self::OperatorWithoutBraces(_) => "put braces around the variable's name".to_owned(),
        }
    }
}

/// Replaces the variables of `text`. Without braces, `docker stack deploy` reads an operator behind a name (`$V-suffix` is
/// `${V-suffix}`), the compose-spec does not.
fn substitute(
    text: &str,
    environment: &BTreeMap<String, String>,
    lenient: bool,
    room: usize,
) -> Result<(String, Vec<Remark>), Mistake> {
    let (mut out, mut remarks, mut rest) = (String::new(), Vec::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
            continue;
        }
        let syntax = || Mistake::Syntax(text.to_owned());
        let (inside, tail, braced) = match after.strip_prefix('{') {
            Some(inside) => {
                let (inside, tail) = inside.split_once('}').ok_or_else(syntax)?;
                (inside, tail, true)
            }
            None => (after, "", false),
        };
        let name_end = name_length(inside).ok_or_else(syntax)?;
        let (name, operation) = inside.split_at_checked(name_end).ok_or_else(syntax)?;
        let (operation, tail) = match (braced, Operator::parse(operation)) {
            (true, None) if !operation.is_empty() => return Err(syntax()),
            (true, operation) => (operation, tail),
            (false, Some((operator, word))) if !lenient => {
                // The pattern of docker/cli goes on to the next closing brace or the end.
                let end = word.find('}').unwrap_or(word.len());
                let (word, tail) = word.split_at_checked(end).ok_or_else(syntax)?;
                remarks.push(Remark::OperatorWithoutBraces(format!("${name}{}{word}", operator.as_str())));
                (Some((operator, word)), tail)
            }
            (false, _) => (None, operation),
        };
        match resolve(name, operation, environment)? {
            Some(value) if out.len() + value.len() > room => return Err(Mistake::TooLong),
            Some(value) => out.push_str(value),
            None => remarks.push(Remark::Unset(name.to_owned())),
        }
        rest = tail;
    }
    out.push_str(rest);
    if out.len() > room { Err(Mistake::TooLong) } else { Ok((out, remarks)) }
}

fn name_length(text: &str) -> Option<usize> {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    begins.then_some(end)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    DefaultIfEmpty,
    DefaultIfUnset,
    RequiredNotEmpty,
    Required,
}

impl Operator {
    const ALL: [Self; 4] = [Self::DefaultIfEmpty, Self::DefaultIfUnset, Self::RequiredNotEmpty, Self::Required];

    fn as_str(self) -> &'static str {
        match self {
            Self::DefaultIfEmpty => ":-",
            Self::DefaultIfUnset => "-",
            Self::RequiredNotEmpty => ":?",
            Self::Required => "?",
        }
    }

    fn parse(text: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|operator| Some((operator, text.strip_prefix(operator.as_str())?)))
    }
}

/// The value to put in; none for an unset variable without operator.
fn resolve<'v>(
    name: &str,
    operation: Option<(Operator, &'v str)>,
    environment: &'v BTreeMap<String, String>,
) -> Result<Option<&'v str>, Mistake> {
    let value = environment.get(name).map(String::as_str);
    let required = |message: &str| Mistake::Required {
        name: name.to_owned(),
        unset: value.is_none(),
        message: message.to_owned(),
    };
    match operation {
        None => Ok(value),
        Some((Operator::DefaultIfEmpty, default)) => Ok(Some(value.filter(|v| !v.is_empty()).unwrap_or(default))),
        Some((Operator::DefaultIfUnset, default)) => Ok(Some(value.unwrap_or(default))),
        Some((Operator::RequiredNotEmpty, message)) => match value {
            Some(value) if !value.is_empty() => Ok(Some(value)),
            _ => Err(required(message)),
        },
        Some((Operator::Required, message)) => value.map(Some).ok_or_else(|| required(message)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cast {
    Int,
    Float,
    Bool,
}

impl Cast {
    fn apply(self, text: &str) -> Option<Value> {
        match self {
            Self::Int => text.parse::<i64>().ok().map(|i| Value::Int(i.into())),
            Self::Float => text.parse().ok().map(Value::Float),
            Self::Bool => match text.to_ascii_lowercase().as_str() {
                "y" | "yes" | "true" | "on" => Some(Value::Bool(true)),
                "n" | "no" | "false" | "off" => Some(Value::Bool(false)),
                _ => None,
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Bool => "true or false",
        }
    }
}

/// docker/cli's `interpolateTypeCastMapping`: below `services.*`, or from the root.
fn cast_at(keys: &[&str]) -> Option<Cast> {
    match keys {
        ["services", _, rest @ ..] => match rest {
            ["configs" | "secrets", "[]", "mode"]
            | ["healthcheck", "retries"]
            | ["deploy", "replicas"]
            | ["deploy", "update_config" | "rollback_config", "parallelism"]
            | ["deploy", "restart_policy", "max_attempts"]
            | ["deploy", "placement", "max_replicas_per_node"]
            | ["ports", "[]", "target" | "published"]
            | ["ulimits", _]
            | ["ulimits", _, "hard" | "soft"] => Some(Cast::Int),
            ["deploy", "update_config" | "rollback_config", "max_failure_ratio"] => Some(Cast::Float),
            ["healthcheck", "disable"]
            | ["privileged" | "read_only" | "stdin_open" | "tty"]
            | ["volumes", "[]", "read_only"]
            | ["volumes", "[]", "volume", "nocopy"] => Some(Cast::Bool),
            _ => None,
        },
        ["networks", _, "external" | "internal" | "attachable"]
        | ["volumes" | "secrets" | "configs", _, "external"] => Some(Cast::Bool),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, lenient: bool, expected: &str) {
        let declared = [("A", "va"), ("E", ""), ("B", "vb")];
        let environment = declared.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let shown = match substitute(text, &environment, lenient, BYTES_MAX) {
            Ok((text, _)) => text,
            Err(mistake) => format!("error: {mistake}"),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn variables_are_replaced_as_docker_stack_deploy_does() {
        for (text, expected) in [
            ("$A", "va"),
            ("${A}-${B}", "va-vb"),
            ("$AB", ""),
            ("$A:x", "va:x"),
            ("$$A $$$A", "$A $va"),
            ("${U-d}", "d"),
            ("${U:-d}", "d"),
            ("${E-d}", ""),
            ("${E:-d}", "d"),
            ("${A:-x}y", "vay"),
            ("${U:-${A}}", "${A}"),
            ("${U:-a-b}", "a-b"),
            ("${U:-a:?b}", "a:?b"),
            ("${U:-}", ""),
            ("${A?x}", "va"),
            ("${E?x}", ""),
            ("${_x-1}", "1"),
            ("${E:?err}", "error: the variable E is required and empty: err"),
            ("${U?err}", "error: the variable U is required and not declared: err"),
            ("$", "error: a $ begins no variable here: \"$\""),
            ("a$1", "error: a $ begins no variable here: \"a$1\""),
            ("${A", "error: a $ begins no variable here: \"${A\""),
            ("${A b}", "error: a $ begins no variable here: \"${A b}\""),
            ("${A:+x}", "error: a $ begins no variable here: \"${A:+x}\""),
            // Without braces the CLI reads an operator all the same.
            ("$A-x", "va"),
            ("$U-$B", "$B"),
            ("$U:?x", "error: the variable U is required and not declared: x"),
        ] {
            check(text, false, expected);
        }
    }

    #[test]
    fn a_required_variable_fails_even_where_the_cli_forgets_it() {
        check("${U?a} ${A:-b}", false, "error: the variable U is required and not declared: a");
        check("${U:?need-this}", false, "error: the variable U is required and not declared: need-this");
    }

    #[test]
    fn leniently_an_operator_needs_braces() {
        check("$A-x", true, "va-x");
        check("${U-x}", true, "x");
    }
}
