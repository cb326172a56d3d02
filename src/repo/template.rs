//! Compose files that are Handlebars templates, and the values they see.
//!
//! Values stand at the root: `{{image.tag}}`. Nothing is escaped. A value that is not there is a mistake (`{{missing}}`,
//! `{{#each missing}}`), with one exception that Handlebars makes: a condition takes it for false, `{{#if missing}}` as well as
//! `{{#unless missing}}`. Partials and decorators are refused: there are no files they could name, and an inline partial that calls
//! itself would end the process.
//!
//! No message quotes a value, for values hold secrets.

use std::io;

use handlebars::template::{HelperTemplate, Template, TemplateElement};
use handlebars::{Handlebars, RenderError, RenderErrorReason, TemplateErrorReason};
use serde_json::{Number, Value as Json};

use crate::model::{Finding, Location};
use crate::yaml::{BYTES_MAX, Node, Value};

/// Renders the template `text` of `file`.
pub(super) fn render(file: &str, text: &str, values: &Json) -> Result<String, Finding> {
    const NAME: &str = "template";
    let template = Template::compile(text).map_err(|error| {
        let (line, column) = error.pos().unwrap_or_default();
        let (message, mend) = match error.reason() {
            // The parser's own words are its grammar.
            TemplateErrorReason::InvalidSyntax(_) => {
                ("not Handlebars from here on".to_owned(), "close every {{ and every {{#block}}")
            }
            other => (other.to_string(), ""),
        };
        finding(file, line, column, message, mend)
    })?;
    if let Some((line, column)) = forbidden(&template) {
        let mend =
            "write the text where it is used, or move it into a compose file of its own and list both under compose:";
        return Err(finding(file, line, column, "partials and decorators are not supported".to_owned(), mend));
    }
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    engine.register_escape_fn(handlebars::no_escape);
    // It would write values into our log.
    engine.unregister_helper("log");
    engine.register_template(NAME, template);
    let mut rendered = Bounded(Vec::new());
    engine.render_to_write(NAME, values, &mut rendered).map_err(|error| explain(file, &error))?;
    String::from_utf8(rendered.0)
        .map_err(|_| finding(file, 0, 0, "rendered to something that is no text".to_owned(), ""))
}

/// Lays `over` onto `base`: maps merge, everything else is replaced.
pub(super) fn merge(base: &mut Json, over: Json) {
    match (base, over) {
        (Json::Object(base), Json::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Json::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// A value as a template sees it. A number that would print otherwise than it is spelled stays as it is spelled: the tag `5.10` is not `5.1`.
pub(super) fn value_of(node: &Node) -> Json {
    match &node.value {
        Value::Seq(items) => Json::Array(items.iter().map(value_of).collect()),
        Value::Map(map) => Json::Object(map.iter().map(|entry| (entry.key.clone(), value_of(&entry.value))).collect()),
        Value::Float(float) => {
            let spelled = node.spelled().unwrap_or_default();
            let number = Number::from_f64(*float).filter(|number| number.to_string() == spelled);
            number.map_or_else(|| Json::String(spelled.to_owned()), Json::Number)
        }
        _ => node.to_json(),
    }
}

fn explain(file: &str, error: &RenderError) -> Finding {
    let (line, column) = (error.line_no.unwrap_or(0), error.column_no.unwrap_or(0));
    let (message, mend) = match error.reason() {
        RenderErrorReason::MissingVariable(Some(name)) => {
            (format!("there is no value {name}"), "set it in stack.yml under values:, or in a values_file")
        }
        RenderErrorReason::MissingVariable(None) => {
            ("a value is not there".to_owned(), "set it in stack.yml under values:, or in a values_file")
        }
        RenderErrorReason::HelperNotFound(name) => (format!("there is no helper {name}"), ""),
        RenderErrorReason::IOError(_) => (format!("renders to more than {BYTES_MAX} bytes"), ""),
        // The other reasons are about the template's text; see `no_message_quotes_a_value`.
        other => (other.to_string(), ""),
    };
    finding(file, line, column, message, mend)
}

/// Where the first partial or decorator stands.
fn forbidden(template: &Template) -> Option<(usize, usize)> {
    template.elements.iter().zip(&template.mapping).find_map(|(element, place)| match element {
        TemplateElement::DecoratorExpression(_)
        | TemplateElement::DecoratorBlock(_)
        | TemplateElement::PartialExpression(_)
        | TemplateElement::PartialBlock(_) => Some((place.0, place.1)),
        TemplateElement::HelperBlock(block) => forbidden_in(block),
        _ => None,
    })
}

fn forbidden_in(block: &HelperTemplate) -> Option<(usize, usize)> {
    [&block.template, &block.inverse].into_iter().flatten().find_map(forbidden)
}

fn finding(file: &str, line: usize, column: usize, message: String, mend: &str) -> Finding {
    let location = Some(Location { file: file.to_owned(), line, column });
    Finding { location, path: String::new(), message, mend: mend.to_owned() }
}

/// Takes as many bytes as a YAML file may have.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > BYTES_MAX {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::yaml;

    fn check(template: &str, values: &str, expected: Result<&str, &str>) {
        let values = value_of(&yaml::parse("values.yml", values).unwrap());
        let rendered = render("t.hbs", template, &values).map_err(|finding| finding.to_string());
        assert_eq!(rendered.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn values_are_put_in_as_they_are() {
        check(
            "a: {{image.tag}} {{url}}",
            "{image: {tag: v1}, url: 'http://h/?a=1&b=<\"2\">'}",
            Ok("a: v1 http://h/?a=1&b=<\"2\">"),
        );
        check("{{#each hosts}}{{this}};{{/each}}", "hosts: [a, b]", Ok("a;b;"));
        check("{{#if (gt n 0.4)}}yes{{else}}no{{/if}}", "n: 0.5", Ok("yes"));
    }

    #[test]
    fn a_number_prints_as_it_is_spelled() {
        check("{{tag}} {{n}} {{r}}", "{tag: 5.10, n: 3, r: 0.5}", Ok("5.10 3 0.5"));
    }

    #[test]
    fn a_missing_value_is_named_with_its_place() {
        let mend = "(set it in stack.yml under values:, or in a values_file)";
        check("x\na: {{image.tag}}", "image: {}", Err(&format!("t.hbs:2:4: there is no value image.tag {mend}")));
        check("{{#each hosts}}{{this}}{{/each}}", "{}", Err(&format!("t.hbs:1:1: there is no value hosts {mend}")));
    }

    #[test]
    fn a_condition_takes_a_missing_value_for_false() {
        check("{{#if missing}}yes{{else}}no{{/if}}", "{}", Ok("no"));
    }

    #[test]
    fn a_template_that_does_not_parse_is_located() {
        let mend = "(close every {{ and every {{#block}})";
        check("a\n{{#if x}}", "{}", Err(&format!("t.hbs:2:10: not Handlebars from here on {mend}")));
        check("{{#if x}}{{/each}}", "{}", Err("t.hbs:1:10: helper \"if\" was opened, but \"each\" is closing"));
    }

    #[test]
    fn partials_and_decorators_are_refused() {
        for (template, place) in [
            ("{{> other}}", "1:1"),
            ("{{#*inline \"a\"}}{{> a}}{{/inline}}{{> a}}", "1:1"),
            ("{{#if x}}\n{{#each y}}{{> a}}{{/each}}{{/if}}", "2:12"),
        ] {
            let error = render("t.hbs", template, &json!({})).unwrap_err().to_string();
            assert!(error.starts_with(&format!("t.hbs:{place}: partials")), "{error}");
        }
    }

    #[test]
    fn no_message_quotes_a_value() {
        let values = json!({ "secret": "hunter2", "list": ["hunter2"] });
        for template in [
            "{{secret.deeper}}",
            "{{#each secret}}{{this.x}}{{/each}}",
            "{{#with secret}}{{x}}{{/with}}",
            "{{lookup list secret}}",
            "{{list.[x]}}",
            "{{helper secret}}",
            "{{log secret}}",
            "{{#if}}{{/if}}",
            "{{len secret secret}} {{len missing}}",
            "{{> (lookup this secret)}}",
        ] {
            if let Err(finding) = render("t.hbs", template, &values) {
                assert!(!finding.to_string().contains("hunter2"), "{finding}");
            }
        }
    }

    #[test]
    fn a_template_cannot_render_without_end() {
        let list: Vec<u32> = (0..2000).collect();
        let template = "{{#each l}}{{#each ../l}}xxxxxxxxxx{{/each}}{{/each}}";
        let error = render("t.hbs", template, &json!({ "l": list })).unwrap_err().to_string();
        assert!(error.contains("renders to more than"), "{error}");
    }

    #[test]
    fn maps_merge_and_lists_are_replaced() {
        let mut base = json!({ "a": { "b": 1, "c": [1, 2] }, "d": 1 });
        merge(&mut base, json!({ "a": { "c": [3] }, "d": { "e": 1 }, "f": null }));
        assert_eq!(base, json!({ "a": { "b": 1, "c": [3] }, "d": { "e": 1 }, "f": null }));
    }
}
