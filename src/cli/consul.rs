//! `consul adopt|clean|policies`: what registrator has left on this node, taken over or taken away; and the ACL policies that tokens need.
//!
//! The former two speak to this node's engine and Consul agent themselves, so that they work before swarmkeeper's agent does.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{self, Context, Exit, Failure, Format, clean, table};
use crate::app::policies::{self, Names, Policy, Role};
use crate::app::{registering, start};
use crate::config::Coordination;
use crate::io::consul::Consul;
use crate::io::docker::Docker;
use crate::registration::adopting::{self, Review, Wish};
use crate::registration::leftovers::{Fate, Leftover};

/// Examples for `--help`.
pub const EXAMPLES: &str = "Examples:
  swarmkeeper consul adopt --dry-run   what would become ours, and what would stay and why
  docker service rm registrator && swarmkeeper consul adopt
  swarmkeeper consul clean             what is left of containers that are gone
  swarmkeeper consul clean --hostname 3f2a9c01d2e4   registrator's own idea of this host
On each node, inside the agent's container: docker exec CONTAINER /swarmkeeper consul adopt. Exit codes: 0 done, 1 not, or not all.";

/// The same for `policies`.
pub const POLICIES_EXAMPLES: &str = "Examples:
  swarmkeeper consul policies                   for any node of this cluster
  swarmkeeper consul policies --node m1         for the token of one node, by its name in Consul: the smallest there is
  swarmkeeper consul policies --node m1 --role keeper | consul acl policy create -name keeper-m1 -rules -
  swarmkeeper consul policies --services shop-,blog-     containers may register under these names only
With `coordination: swarm` in the settings they have no session: the lock is elsewhere. Nothing is asked and nothing written. With --output json each is the body of Consul's PUT /v1/acl/policy.";

/// `consul VERB`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make registrator's entries of running containers ours, without a gap
    #[command(after_help = EXAMPLES)]
    Adopt(Options),
    /// Take away registrator's entries of containers that do not run any more
    #[command(after_help = EXAMPLES)]
    Clean(Options),
    /// Print the smallest ACL policies that swarmkeeper's tokens need
    #[command(after_help = POLICIES_EXAMPLES)]
    Policies(Policies),
}

#[derive(Debug, Args)]
struct Policies {
    /// Of this node only, by its name in Consul
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only this one: keeper is for agents on managers, agent for those on workers
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// What the names of the containers' services may begin with [default: anything]
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    services: Vec<String>,
    /// Text for people or JSON for machines
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
struct Options {
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// A name by which registrator knew this host, beside the node's own; its entries begin with it
    #[arg(long, value_name = "NAME")]
    hostname: Vec<String>,
    /// Text for people or JSON for machines
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// What was done, for machines.
#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    leftovers: &'a [Leftover],
    steps: Vec<Done>,
}

/// One step and what came of it.
#[derive(Serialize)]
struct Done {
    step: String,
    error: Option<String>,
}

/// Reviews, does it, prints.
pub async fn run(context: &Context, args: &Arguments) -> Result<Exit, Failure> {
    let (wish, options) = match &args.verb {
        Verb::Adopt(options) => (Wish::Adopt, options),
        Verb::Clean(options) => (Wish::Clean, options),
        Verb::Policies(args) => return print_policies(context, args),
    };
    let config = &context.config;
    let consul = Consul::new(config.consul.clone()).map_err(failure)?;
    let docker = Docker::connect(Some(&config.docker_host)).map_err(failure)?;
    let docker = docker.keeping_label(config.registration.ip_from_label.as_deref());
    let info = docker.info().await.map_err(failure)?;
    let place = start::place_of(&info, config).map_err(failure)?;
    // The port of our own API is not among what registrator registers.
    let registration = registering::options(config, &place, 0).map_err(failure)?;
    let hosts: BTreeSet<String> = options.hostname.iter().cloned().chain([place.node.clone()]).collect();

    let review = adopting::review(wish, &registration, &docker, &consul, &hosts).await.map_err(failure)?;
    let done = if options.dry_run { planned(&review) } else { carry_out(&consul, &review).await };
    let failed = done.iter().filter(|done| done.error.is_some()).count();
    let report = Report { dry_run: options.dry_run, leftovers: &review.leftovers, steps: done };
    match options.output {
        Format::Json => output::json(&report)?,
        Format::Text => output::result(&text(&report)),
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::Wrong })
}

fn print_policies(context: &Context, args: &Policies) -> Result<Exit, Failure> {
    let names = Names {
        cluster: context.config.cluster.clone(),
        node: args.node.clone(),
        services: args.services.clone(),
        lock_in_swarm: context.config.coordination == Coordination::Swarm,
    };
    let roles = args.role.map_or_else(|| vec![Role::Keeper, Role::Agent], |role| vec![role]);
    let policies: Vec<Policy> = roles.into_iter().map(|role| policies::policy(role, &names)).collect();
    match args.output {
        Format::Json => output::json(&policies.iter().map(Policy::body).collect::<Vec<_>>())?,
        Format::Text => {
            let shown = |policy: &Policy| format!("# {}: {}\n{}", policy.name, policy.description, policy.hcl());
            output::result(&policies.iter().map(shown).collect::<Vec<_>>().join("\n\n"));
        }
    }
    Ok(Exit::Done)
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        error.to_string(),
        "run it on the node itself, with its engine and its Consul; `swarmkeeper doctor` looks closer",
    )
}

fn planned(review: &Review) -> Vec<Done> {
    review.steps.iter().map(|step| Done { step: step.to_string(), error: None }).collect()
}

/// Does the steps in order until one fails, so that what could not be registered keeps its old entry.
async fn carry_out(consul: &Consul, review: &Review) -> Vec<Done> {
    let mut done = Vec::new();
    for step in &review.steps {
        if done.iter().any(|done: &Done| done.error.is_some()) {
            done.push(Done { step: step.to_string(), error: Some("not tried after the failure before it".to_owned()) });
            continue;
        }
        let error = adopting::carry_out(consul, step).await.err().map(|error| error.to_string());
        done.push(Done { step: step.to_string(), error });
    }
    done
}

fn text(report: &Report<'_>) -> String {
    let mut lines = Vec::new();
    if report.leftovers.is_empty() {
        lines.push("nothing of registrator's is registered here".to_owned());
    } else {
        let rows: Vec<_> = report.leftovers.iter().map(row).collect();
        lines.extend(table(&["ENTRY", "SERVICE", "FATE"], &rows));
    }
    let would = if report.dry_run { "would " } else { "" };
    for Done { step, error } in &report.steps {
        let outcome = error.as_ref().map(|error| format!(": NOT DONE: {}", clean(error))).unwrap_or_default();
        lines.push(format!("{would}{}{outcome}", clean(step)));
    }
    if report.steps.is_empty() && !report.leftovers.is_empty() {
        lines.push("nothing to do".to_owned());
    }
    lines.join("\n")
}

fn row(leftover: &Leftover) -> Vec<String> {
    let fate = match &leftover.fate {
        Fate::Adopt { new_id } if *new_id == leftover.id => "adopt".to_owned(),
        Fate::Adopt { new_id } => format!("adopt as {new_id}"),
        Fate::Clean => "clean: its container is gone".to_owned(),
        Fate::Keep { reason } => format!("keep: {reason}"),
    };
    vec![clean(&leftover.id), clean(&leftover.name), clean(&fate)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leftover(id: &str, fate: Fate) -> Leftover {
        Leftover { id: id.into(), name: "web".into(), container: "web".into(), fate }
    }

    #[test]
    fn the_fate_of_every_entry_is_shown_with_what_would_be_done() {
        let leftovers = [
            leftover("n1:web:80", Fate::Adopt { new_id: "n1:web:80".into() }),
            leftover("3f2a:api:80", Fate::Adopt { new_id: "n1:api:80".into() }),
            leftover("n1:old:80", Fate::Clean),
            leftover("n2:x:80", Fate::Keep { reason: "host n2 is none of those named".into() }),
        ];
        let steps =
            vec![Done { step: "register web at 10.0.0.1:80 as n1:web:80 (changed: owner)".into(), error: None }];
        let report = Report { dry_run: true, leftovers: &leftovers, steps };
        insta::assert_snapshot!(text(&report), @r"
        ENTRY        SERVICE  FATE
        n1:web:80    web      adopt
        3f2a:api:80  web      adopt as n1:api:80
        n1:old:80    web      clean: its container is gone
        n2:x:80      web      keep: host n2 is none of those named
        would register web at 10.0.0.1:80 as n1:web:80 (changed: owner)
        ");
    }

    #[test]
    fn where_there_is_nothing_it_says_so() {
        let report = Report { dry_run: false, leftovers: &[], steps: Vec::new() };
        assert_eq!(text(&report), "nothing of registrator's is registered here");
    }
}
