//! What the operator wants registered, and how: registrator's options and ours.

use std::fmt;
use std::time::Duration;

use handlebars::Handlebars;
use serde::Serialize;

/// The operator's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Register every port that a container exposes, at the container's own address (registrator's `-internal`).
    pub internal: bool,
    /// Register only what has a `SERVICE_NAME` (registrator's `-explicit`).
    pub explicit: bool,
    /// A container's label that holds its address (registrator's `-useIpFromLabel`).
    pub ip_from_label: Option<String>,
    /// Tags that every service gets (registrator's `-tags`).
    pub tags: TagTemplate,
    /// Networks to prefer for containers that are on several, the first first.
    pub networks: Vec<String>,
    /// What becomes of a name that two stacks share.
    pub stack_names: StackNames,
    /// When an entry goes whose container has ended (registrator's `-deregister`).
    pub deregister: Deregister,
    /// What a dead agent means for the containers that it spoke for.
    pub agent_loss: AgentLoss,
    /// How often everything is compared although no event says so (registrator's `-resync`).
    pub resync: Duration,
}

/// What becomes of a name that two stacks share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StackNames {
    /// Both stacks' instances answer to it.
    #[default]
    Join,
    /// Every service of a stack is called `<stack>-<name>`, whatever other stacks there are: a name must not change because somebody
    /// else's stack came.
    Apart,
}

/// When an entry goes whose container has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deregister {
    /// At once.
    #[default]
    Always,
    /// At once if it ended with 0 or by a signal; a failed one's entry stays while the engine remembers the container.
    OnSuccess,
}

/// What a dead agent means for the containers that it spoke for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentLoss {
    /// Nothing for a quarter of an hour.
    #[default]
    Keep,
    /// Those with a HEALTHCHECK are critical half a minute later.
    Critical,
}

impl AgentLoss {
    /// How long the verdict of a HEALTHCHECK stands without us, and how often it is repeated.
    pub fn times(self, resync: Duration) -> (Duration, Duration) {
        match self {
            // A crash-looping or updating agent takes nothing out of DNS, and a lost node is the business of serfHealth.
            Self::Keep => (Duration::from_mins(15), Duration::from_mins(5)),
            Self::Critical => super::own::times(resync),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            internal: false,
            explicit: false,
            ip_from_label: None,
            tags: TagTemplate::default(),
            networks: Vec::new(),
            stack_names: StackNames::default(),
            deregister: Deregister::default(),
            agent_loss: AgentLoss::default(),
            resync: super::PASS_INTERVAL,
        }
    }
}

/// Tags as a Handlebars template: `{{stack}},node-{{node}}`. What is empty is no tag, so that a container without a stack has none.
#[derive(Clone, Default)]
pub struct TagTemplate {
    text: String,
    template: Option<Handlebars<'static>>,
}

/// What a tag may say about an instance.
#[derive(Debug, Default, Serialize)]
pub struct TagFacts<'a> {
    /// The service's name in Consul.
    pub name: &'a str,
    /// The node.
    pub node: &'a str,
    /// The container's name.
    pub container: &'a str,
    /// The image as it was asked for.
    pub image: &'a str,
    /// `sha256:…`, if the image names one.
    pub digest: &'a str,
    /// The port inside the container.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'a str,
    /// The stack.
    pub stack: &'a str,
    /// The swarm's service.
    pub service: &'a str,
    /// The task's slot.
    pub slot: &'a str,
    /// The task's ID.
    pub task: &'a str,
}

/// The name that the template goes by.
const TEMPLATE: &str = "tags";

impl TagTemplate {
    /// Reads a template; an error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut template = Handlebars::new();
        template.register_escape_fn(handlebars::no_escape);
        // So that a misspelt name is found at the start and not missed in DNS.
        template.set_strict_mode(true);
        template.register_template_string(TEMPLATE, text).map_err(|error| error.to_string())?;
        template.render(TEMPLATE, &TagFacts::default()).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), template: Some(template) })
    }

    /// The list of tags, split as `SERVICE_TAGS` is. What cannot be rendered for these facts is no tag.
    pub fn render(&self, facts: &TagFacts<'_>) -> String {
        let rendered = self.template.as_ref().and_then(|template| template.render(TEMPLATE, facts).ok());
        rendered.unwrap_or_default()
    }
}

impl PartialEq for TagTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TagTemplate {}

impl fmt::Debug for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_rendered_from_what_an_instance_is() {
        let facts = TagFacts { node: "n1", stack: "shop", port: 80, ..TagFacts::default() };
        let render = |text: &str| TagTemplate::new(text).unwrap().render(&facts);
        assert_eq!(render(""), "");
        assert_eq!(render("{{stack}},node-{{node}},{{#if slot}}slot-{{slot}}{{/if}}"), "shop,node-n1,");
    }

    #[test]
    fn a_template_that_cannot_work_says_why() {
        assert!(TagTemplate::new("{{stack").is_err());
        assert!(TagTemplate::new("{{stak}}").unwrap_err().contains("stak"));
    }
}
