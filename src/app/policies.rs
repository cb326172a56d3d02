//! The smallest ACL policies that work, one for agents that may lead and one for agents that never do; pure.
//!
//! This table is the only place that says what a token needs: `swarmkeeper consul policies` prints it, `consul/policy-*.hcl` are its output
//! for placeholders, `doctor` and the agent ask Consul about each line, and `tests/registration/acl.rs` proves with a real Consul that
//! the lines suffice and that none can be left out.

use std::fmt;

use serde::Serialize;

use crate::config::Config;
use crate::io::consul::acl::Right;
use crate::leader::swarm::slip::Kind;
use crate::leader::{self, Keys};
use crate::registration::own;

/// For whom a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// An agent on a manager, which may lead.
    Keeper,
    /// An agent on a worker, which never does.
    Agent,
}

/// What the policies are about.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The cluster, as in the settings.
    pub cluster: String,
    /// Consul's name of the one node the token is for; none: any node.
    pub node: Option<String>,
    /// What the names of the services may begin with that containers bring along; empty: anything.
    pub services: Vec<String>,
    /// True if the leader's lock is in the swarm, and Consul is there for registration only.
    pub lock_in_swarm: bool,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name in Consul.
    pub name: String,
    /// For people.
    pub description: String,
    /// Its lines.
    pub rules: Vec<Rule>,
}

/// One line of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// As in Consul's language: `key_prefix`.
    pub resource: &'static str,
    /// Which of them.
    pub segment: String,
    /// `read` or `write`.
    pub access: &'static str,
    /// What would not work without it.
    pub why: &'static str,
    /// What the line allows, for asking whether a token has it.
    samples: Vec<String>,
}

/// What Consul's API takes to make a policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Body<'a> {
    name: &'a str,
    description: &'a str,
    rules: String,
}

/// The policy of `role`.
pub fn policy(role: Role, names: &Names) -> Policy {
    let (word, description) = match role {
        Role::Keeper => ("keeper", "swarmkeeper's agents on managers, which may lead"),
        Role::Agent => ("agent", "swarmkeeper's agents on workers, which never lead"),
    };
    let node = names.node.as_ref().map(|node| format!("-{node}")).unwrap_or_default();
    Policy {
        name: format!("swarmkeeper-{}-{word}{node}", names.cluster),
        description: format!("{description}, in cluster {}", names.cluster),
        rules: rules(role, names),
    }
}

/// The policy that the agent on `node` needs, as far as services go the widest: what containers are called is not known. `lock` is where
/// the leader's lock is, which workers neither know nor need to.
pub fn own(config: &Config, node: &str, may_lead: bool, lock: Option<Kind>) -> Policy {
    let names = Names {
        cluster: config.cluster.clone(),
        node: Some(node.to_owned()),
        services: Vec::new(),
        lock_in_swarm: lock == Some(Kind::Swarm),
    };
    policy(if may_lead { Role::Keeper } else { Role::Agent }, &names)
}

fn rules(role: Role, names: &Names) -> Vec<Rule> {
    let keys = Keys::new(&names.cluster);
    let mut rules = services(role, names);
    rules.push(of_node(names, ["agent", "agent_prefix"], "read", "this agent's address and whether it runs scripts"));
    let key = |access, why| Rule {
        resource: "key_prefix",
        segment: keys.root().to_owned(),
        access,
        why,
        // Each of them: a policy written by hand may allow some and forget others.
        samples: vec![keys.lock(), keys.generation(), keys.services(), keys.drains(), keys.stacks()],
    };
    match role {
        Role::Agent => rules.push(key("read", "what the leader publishes; drains; who leads")),
        Role::Keeper => {
            rules.push(Rule {
                resource: "node_prefix",
                segment: String::new(),
                access: "read",
                why: "on which nodes agents are well, and what Consul's checks say of tasks",
                samples: vec![names.node.clone().unwrap_or_default()],
            });
            if names.lock_in_swarm {
                rules.push(key("write", "telling all agents to leave, and taking our keys away"));
            } else {
                rules.push(of_node(names, ["session", "session_prefix"], "write", "the session that holds the lock"));
                rules.push(key("write", "the lock, and what the leader publishes"));
            }
        }
    }
    rules
}

/// Services by any name, or the agent's own and those that the operator allows.
fn services(role: Role, names: &Names) -> Vec<Rule> {
    const WHY: &str = "registering containers and the agent itself";
    let line = |resource, segment: &str, access, why| Rule {
        resource,
        segment: segment.to_owned(),
        access,
        why,
        samples: vec![if segment.is_empty() { own::SERVICE.to_owned() } else { segment.to_owned() }],
    };
    if names.services.is_empty() {
        return vec![line("service_prefix", "", "write", WHY)];
    }
    let others = "seeing what others have registered, so that nothing is there twice";
    // Writing our own would imply reading it: the sample is somebody else's.
    let mut rules = vec![Rule { samples: vec!["consul".to_owned()], ..line("service_prefix", "", "read", others) }];
    rules.push(line("service", own::SERVICE, "write", "registering the agent itself"));
    if role == Role::Keeper && !names.lock_in_swarm {
        rules.push(line("service", leader::SERVICE, "write", "the check that the leader's session hangs on"));
    }
    rules.extend(names.services.iter().map(|prefix| line("service_prefix", prefix, "write", "registering containers")));
    rules
}

/// A line for the one node, or for any.
fn of_node(names: &Names, [one, any]: [&'static str; 2], access: &'static str, why: &'static str) -> Rule {
    let segment = names.node.clone().unwrap_or_default();
    let resource = if names.node.is_some() { one } else { any };
    Rule { resource, samples: vec![segment.clone()], segment, access, why }
}

impl Policy {
    /// As Consul reads it, each line with its reason.
    pub fn hcl(&self) -> String {
        let width = self.rules.iter().map(|rule| rule.to_string().len()).max().unwrap_or_default();
        let lines = self.rules.iter().map(|rule| format!("{:width$}  # {}", rule.to_string(), rule.why));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// As Consul's API takes it.
    pub fn body(&self) -> Body<'_> {
        Body { name: &self.name, description: &self.description, rules: self.hcl() }
    }

    /// What to ask Consul about its lines.
    pub fn rights(&self) -> Vec<Right> {
        self.rules.iter().flat_map(Rule::rights).collect()
    }

    /// The lines to which any of these rights belongs.
    pub fn lines_of<'a>(&'a self, rights: &'a [Right]) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(|rule| rule.rights().any(|right| rights.contains(&right)))
    }
}

impl Rule {
    fn rights(&self) -> impl Iterator<Item = Right> {
        let resource = self.resource.strip_suffix("_prefix").unwrap_or(self.resource);
        self.samples.iter().map(move |sample| Right { resource, segment: sample.clone(), access: self.access })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, segment, access, .. } = self;
        write!(f, "{resource} {segment:?} {{ policy = {access:?} }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(node: Option<&str>, services: &[&str]) -> Names {
        let services = services.iter().map(|&prefix| prefix.to_owned()).collect();
        Names { cluster: "<cluster>".to_owned(), node: node.map(ToOwned::to_owned), services, lock_in_swarm: false }
    }

    /// A file without its first comment lines.
    #[track_caller]
    fn check_file(text: &str, role: Role) {
        let lines: Vec<&str> = text.lines().skip_while(|line| line.starts_with('#')).collect();
        assert_eq!(lines.join("\n"), policy(role, &names(Some("<node>"), &[])).hcl());
    }

    #[test]
    fn the_files_in_consul_are_the_policies_for_placeholders() {
        check_file(include_str!("../../consul/policy-keeper.hcl"), Role::Keeper);
        check_file(include_str!("../../consul/policy-agent.hcl"), Role::Agent);
    }

    #[test]
    fn a_policy_may_be_for_any_node_and_for_some_services() {
        insta::assert_snapshot!(policy(Role::Keeper, &names(None, &["shop-"])).hcl(), @r#"
        service_prefix "" { policy = "read" }                        # seeing what others have registered, so that nothing is there twice
        service "swarmkeeper" { policy = "write" }                   # registering the agent itself
        service "swarmkeeper-leader" { policy = "write" }            # the check that the leader's session hangs on
        service_prefix "shop-" { policy = "write" }                  # registering containers
        agent_prefix "" { policy = "read" }                          # this agent's address and whether it runs scripts
        node_prefix "" { policy = "read" }                           # on which nodes agents are well, and what Consul's checks say of tasks
        session_prefix "" { policy = "write" }                       # the session that holds the lock
        key_prefix "swarmkeeper/v1/<cluster>/" { policy = "write" }  # the lock, and what the leader publishes
        "#);
    }

    #[test]
    fn who_keeps_the_lock_in_the_swarm_needs_no_session() {
        let names = Names { lock_in_swarm: true, ..names(Some("n1"), &["shop-"]) };
        insta::assert_snapshot!(policy(Role::Keeper, &names).hcl(), @r#"
        service_prefix "" { policy = "read" }                        # seeing what others have registered, so that nothing is there twice
        service "swarmkeeper" { policy = "write" }                   # registering the agent itself
        service_prefix "shop-" { policy = "write" }                  # registering containers
        agent "n1" { policy = "read" }                               # this agent's address and whether it runs scripts
        node_prefix "" { policy = "read" }                           # on which nodes agents are well, and what Consul's checks say of tasks
        key_prefix "swarmkeeper/v1/<cluster>/" { policy = "write" }  # telling all agents to leave, and taking our keys away
        "#);
    }

    #[track_caller]
    fn check_missing(resource: &'static str, segment: &str, expect: &str) {
        let policy = policy(Role::Keeper, &names(Some("n1"), &[]));
        let missing = [Right { resource, segment: segment.to_owned(), access: "write" }];
        let lines: Vec<_> = policy.lines_of(&missing).map(ToString::to_string).collect();
        assert_eq!(lines, [expect]);
    }

    #[test]
    fn a_right_that_is_missing_is_shown_as_its_line() {
        check_missing("session", "n1", r#"session "n1" { policy = "write" }"#);
        let keys = r#"key_prefix "swarmkeeper/v1/<cluster>/" { policy = "write" }"#;
        check_missing("key", "swarmkeeper/v1/<cluster>/services/", keys);
        check_missing("key", "swarmkeeper/v1/<cluster>/drains/", keys);
    }
}
