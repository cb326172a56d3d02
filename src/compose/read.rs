//! What the readers of all sections share: typed values, as strict as the mode says, and the two lists of findings.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::{Input, Loaded, Mode, interpolate, shell, units};
use crate::model::{Finding, Findings, Location, StackObjects};
use crate::yaml::{Entry, Field, MapReader, Problems, Value, join};

/// A key that may stand in a file without having an effect, and why; empty where "in a swarm" says it.
pub(super) type Ignored = (&'static str, &'static str);

/// A list or map read as key → value; none is a key without value.
pub(super) type Mapping = BTreeMap<String, Option<String>>;

/// A mistake that shows only after merging: its place is that of its path.
#[derive(Debug, PartialEq)]
pub(super) struct Mistake {
    pub path: String,
    pub message: String,
}

impl From<Mistake> for Finding {
    fn from(Mistake { path, message }: Mistake) -> Self {
        Self { location: None, path, message, mend: String::new() }
    }
}

/// What is being loaded and what was found so far.
pub(super) struct Ctx<'a> {
    pub input: &'a Input<'a>,
    pub problems: Problems,
    pub warnings: Problems,
    /// Bytes that variables may still come out as.
    pub room: Cell<usize>,
}

impl<'a> Ctx<'a> {
    pub fn new(input: &'a Input<'a>) -> Self {
        Self {
            input,
            problems: Problems::default(),
            warnings: Problems::default(),
            room: Cell::new(interpolate::BYTES_MAX),
        }
    }

    pub fn lenient(&self) -> bool {
        self.input.mode == Mode::Lenient
    }

    pub fn into_result(self, objects: StackObjects) -> Result<Loaded, Findings> {
        self.problems.into_result(())?;
        Ok(Loaded { objects, warnings: self.warnings.into_vec() })
    }

    pub fn warn(&self, location: &Location, path: &str, message: impl Into<String>, mend: impl Into<String>) {
        let (path, message, mend) = (path.to_owned(), message.into(), mend.into());
        self.warnings.add(Finding { location: Some(location.clone()), path, message, mend });
    }

    pub fn warn_field(&self, field: &Field<'_, '_>, message: impl Into<String>, mend: impl Into<String>) {
        self.warn(&field.node.location, &field.path, message, mend);
    }

    /// Names the keys that have no effect.
    ///
    /// `ignored` are known to `docker stack deploy`, `spec_only` to the compose-spec only. Strictly, `schema` has refused what
    /// nobody knows, and what is left may stand there; leniently it is refused here, but for `x-*`, which is everybody's own.
    pub fn finish(&self, mut reader: MapReader<'_, '_>, ignored: &[Ignored], spec_only: &[Ignored]) {
        let spec_only = if self.lenient() { spec_only } else { &[] };
        let known = || ignored.iter().chain(spec_only);
        for entry in reader.rest() {
            match known().find(|(key, _)| *key == entry.key) {
                Some((_, why)) => self.without_effect(entry, &reader, why),
                None if self.lenient() || entry.key.starts_with("x-") => {}
                None => self.without_effect(entry, &reader, ""),
            }
        }
        if self.lenient() {
            reader.know(known().map(|(key, _)| *key));
            reader.finish_except(|key| key.starts_with("x-"));
        }
    }

    fn without_effect(&self, entry: &Entry, reader: &MapReader<'_, '_>, why: &str) {
        let path = join(&reader.this().path, &entry.key);
        self.warn(&entry.key_location, &path, "has no effect in a swarm", why);
    }

    /// Text; leniently, a number or a boolean too, as Go prints it.
    pub fn text(&self, field: &Field<'_, '_>) -> Option<String> {
        if self.lenient() && !matches!(field.node.value, Value::Seq(_) | Value::Map(_)) {
            return field.node.go_text();
        }
        field.string()
    }

    /// A boolean; leniently, its text too.
    pub fn flag(&self, field: &Field<'_, '_>) -> Option<bool> {
        match field.node.as_str() {
            Some("true") if self.lenient() => Some(true),
            Some("false") if self.lenient() => Some(false),
            _ => field.bool(),
        }
    }

    /// A whole number, also spelled as a float (`3.0`); leniently, its text too.
    pub fn number<T: TryFrom<i128>>(&self, field: &Field<'_, '_>) -> Option<T> {
        let whole = match &field.node.value {
            Value::Float(f) => whole(*f),
            Value::String(text) if self.lenient() => text.parse().ok(),
            Value::String(text) if text.parse::<i128>().is_ok() => {
                field.wrong("found text, accepted: a whole number", "remove the quotes");
                return None;
            }
            _ => return field.integer(),
        };
        let Some(whole) = whole else {
            field.expected("a whole number");
            return None;
        };
        let number = T::try_from(whole).ok();
        if number.is_none() {
            field.wrong(format!("the number {whole} is out of range"), "");
        }
        number
    }

    /// A whole number; a fraction is cut off, as the CLI does where its schema says "number".
    pub fn cut_number<T: TryFrom<i128>>(&self, field: &Field<'_, '_>) -> Option<T> {
        let Value::Float(f) = field.node.value else { return self.number(field) };
        let Some(cut) = whole(f.trunc()).filter(|_| f > 0.0 && f.fract() != 0.0) else { return self.number(field) };
        self.warn_field(field, format!("the fraction is cut off: {cut}"), "write a whole number");
        T::try_from(cut).ok()
    }

    /// A ratio between 0 and 1.
    pub fn ratio(&self, field: &Field<'_, '_>) -> Option<f32> {
        let ratio: Option<f32> = match &field.node.value {
            Value::Int(_) | Value::Float(_) => field.node.spelled().and_then(|text| text.parse().ok()),
            Value::String(text) if self.lenient() => text.parse().ok(),
            _ => None,
        };
        let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() && !field.node.is_null() {
            field.expected("a number between 0 and 1");
        }
        ratio
    }

    /// An amount of memory in bytes.
    pub fn bytes(&self, field: &Field<'_, '_>) -> Option<i64> {
        let text = self.text(field)?;
        let bytes = units::ram_bytes(&text);
        if bytes.is_none() {
            field.wrong(format!("{text:?} is no amount of memory"), "write a number and its unit, such as 64M or 1g");
        }
        bytes
    }

    /// CPUs × 10⁹.
    pub fn nano_cpus(&self, field: &Field<'_, '_>) -> Option<i64> {
        let text = self.text(field).filter(|text| !text.is_empty())?;
        let cpus = units::nano_cpus(&text);
        if cpus.is_none() {
            let mend = "write a number with at most nine digits after the point, such as '0.5'";
            field.wrong(format!("{text:?} is no number of CPUs"), mend);
        }
        cpus
    }

    /// A list of texts.
    pub fn texts(&self, field: &Field<'_, '_>) -> Option<Vec<String>> {
        Some(field.items("a list of texts")?.iter().filter_map(|item| self.text(item)).collect())
    }

    /// A text, or a list of texts.
    pub fn text_or_texts(&self, field: &Field<'_, '_>) -> Option<Vec<String>> {
        match &field.node.value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Seq(_) => self.texts(field),
            Value::Null => None,
            _ => {
                field.expected("text or a list of texts");
                None
            }
        }
    }

    /// A command: a text that is split as a shell would, or a list taken as it is.
    pub fn command(&self, field: &Field<'_, '_>) -> Option<Vec<String>> {
        let Some(text) = field.node.as_str() else { return self.text_or_texts(field) };
        match shell::split(text) {
            Ok(words) => Some(words),
            Err(error) => {
                field.wrong(error.to_string(), "");
                None
            }
        }
    }

    /// A map of texts, numbers and nulls, or a list of `key=value`.
    pub fn mapping(&self, field: &Field<'_, '_>) -> Option<Mapping> {
        if field.node.as_seq().is_some() {
            let split = |text: String| match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            return Some(self.texts(field)?.into_iter().map(split).collect());
        }
        let entries = field.entries("a map or a list of key=value")?;
        let value = |(entry, field): &(&Entry, Field<'_, '_>)| (entry.key.clone(), self.map_value(field));
        Some(entries.iter().map(value).collect())
    }

    fn map_value(&self, field: &Field<'_, '_>) -> Option<String> {
        match &field.node.value {
            Value::Bool(b) if !self.lenient() => {
                field.wrong(format!("found the boolean {b}, accepted: text, a number or nothing"), "put it in quotes");
                None
            }
            Value::Seq(_) | Value::Map(_) => {
                field.expected("text, a number or nothing");
                None
            }
            _ => field.node.go_text(),
        }
    }

    /// Labels and the like: a key without value has an empty one.
    pub fn labels(&self, field: &Field<'_, '_>) -> Option<BTreeMap<String, String>> {
        let mapping = self.mapping(field)?;
        Some(mapping.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
    }

    /// A map of options; a list is none.
    pub fn options(&self, field: &Field<'_, '_>) -> Option<BTreeMap<String, String>> {
        if field.node.as_map().is_some() {
            return self.labels(field);
        }
        if !field.node.is_null() {
            field.expected("a map");
        }
        None
    }

    /// One of some words, checked here because the engine would refuse any other without saying where it stands. An empty
    /// text is the engine's default.
    pub fn word(&self, field: &Field<'_, '_>, words: &[&str]) -> Option<String> {
        let text = self.text(field)?;
        if text.is_empty() || words.contains(&text.as_str()) {
            return Some(text);
        }
        let mend = crate::yaml::nearest(&text, words).map_or_else(String::new, |near| format!("did you mean {near}?"));
        field.wrong(format!("found {text:?}, accepted: {}", words.join(", ")), mend);
        None
    }
}

/// A duration as Go writes it, in nanoseconds.
pub(super) fn duration(field: &Field<'_, '_>) -> Option<i64> {
    let mend = "write a number and its unit, such as 90s or 1m30s";
    if field.node.as_str().is_none() && !field.node.is_null() {
        field.wrong(format!("found {}, accepted: a duration", field.node.kind()), mend);
        return None;
    }
    let text = field.string()?;
    let nanos = units::go_duration(&text);
    if nanos.is_none() {
        field.wrong(format!("{text:?} is no duration"), mend);
    }
    nanos
}

/// That a name is not declared, and which one may be meant.
pub(super) fn undeclared<'k>(noun: &str, name: &str, declared: impl Iterator<Item = &'k String>) -> String {
    let declared: Vec<_> = declared.map(String::as_str).collect();
    let near = crate::yaml::nearest(name, &declared).map_or_else(String::new, |near| format!(", did you mean {near}?"));
    format!("the {noun} {name:?} is not declared{near}")
}

fn whole(f: f64) -> Option<i128> {
    // Within ±2⁵³ every whole float is exactly an integer.
    #[allow(clippy::cast_possible_truncation)]
    (f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0).then_some(f as i128)
}
