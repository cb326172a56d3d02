//! `plan`: what would be done, read-only.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use time::OffsetDateTime;

use super::output::{self, Context, Exit, Failure, Format};
use super::{ask, local};
use crate::app;
use crate::io::git::GitRepo;
use crate::model::StackName;
use crate::stacks::deploy::{self, DeployOptions};
use crate::stacks::observe::{observe, resolve, secrets_of_adoptions};
use crate::stacks::pass::{Pass, plan_all};
use crate::stacks::{self, Held, Observed, images_to_resolve, targets};

/// Examples for `--help`.
pub const EXAMPLES: &str = "Examples:
  swarmkeeper plan                         every stack of the Config Repo
  swarmkeeper plan shop billing
  swarmkeeper plan -c compose.yml shop     a compose file, without git
Exit codes: 0 nothing to do, 2 something to do, 1 an error.";

/// `plan [STACK…]` or `plan -c FILE… STACK`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Only these stacks; with -c the one stack that the files are
    #[arg(value_name = "STACK", value_parser = ask::stack_name)]
    pub stacks: Vec<StackName>,
    /// Compose files instead of the Config Repo, or `-` for stdin
    #[arg(short = 'c', long = "compose-file", value_name = "FILE", value_delimiter = ',', requires = "stacks", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// With -c: accept what compose files hold today and `docker stack deploy` refuses
    #[arg(long, requires = "files")]
    pub lenient: bool,
    /// Text for people or JSON for machines
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// What is to be planned.
#[derive(Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// Stacks of the Config Repo; none named means all.
    Repo(&'a [StackName]),
    /// These files as this stack.
    Files(&'a [PathBuf], &'a StackName),
}

impl Plan {
    /// What is to be planned; none if the command line makes no sense: files are one stack.
    pub fn subject(&self) -> Option<Subject<'_>> {
        match (self.files.as_slice(), self.stacks.as_slice()) {
            ([], stacks) => Some(Subject::Repo(stacks)),
            (files, [stack]) => Some(Subject::Files(files, stack)),
            (_, _) => None,
        }
    }
}

/// As `terraform plan -detailed-exitcode`.
pub fn exit(changes: bool) -> Exit {
    if changes { Exit::Changes } else { Exit::Done }
}

/// Looks, plans and prints; writes nothing.
pub async fn run(context: &Context, arguments: &Plan) -> Result<Exit, Failure> {
    let plans = match arguments.subject() {
        Some(Subject::Repo(stacks)) => plan_repo(context, stacks).await?,
        Some(Subject::Files(files, stack)) => vec![plan_files(context, files, stack, arguments.lenient).await?],
        None => {
            return Err(Failure::new("compose files are one stack, and several were named", "name one stack with -c"));
        }
    };
    match arguments.output {
        Format::Text => {
            let texts: Vec<String> = plans.iter().map(ToString::to_string).collect();
            output::result(&texts.join("\n\n"));
        }
        Format::Json => output::json(&plans)?,
    }
    let wrong = plans.iter().any(|plan| plan.verdict == crate::status::StackState::Error);
    Ok(if wrong { Exit::Wrong } else { exit(plans.iter().any(stacks::Plan::has_changes)) })
}

async fn plan_files(
    context: &Context,
    files: &[PathBuf],
    stack: &StackName,
    lenient: bool,
) -> Result<stacks::Plan, Failure> {
    let desired = local::stack_of_files(files, stack, lenient)?;
    let swarm = local::swarm(context).await?;
    // To look at a stack that git manages is no offence.
    let options = DeployOptions { force: true, ..DeployOptions::default() };
    let plan = deploy::plan_deploy(&swarm, &desired, options, &local::logins(context), OffsetDateTime::now_utc()).await;
    plan.map_err(|error| local::engine(&error))
}

/// Plans of the Config Repo's stacks.
async fn plan_repo(context: &Context, wanted: &[StackName]) -> Result<Vec<stacks::Plan>, Failure> {
    let head = local::config_repo(context).await?;
    let (desired, broken) = local::sorted(head.rendered);
    let swarm = local::swarm(context).await?;
    let observed = observe(&swarm).await.map_err(|error| local::engine(&error))?;
    let known = |name: &&StackName| {
        desired.iter().any(|stack| stack.name == **name)
            || broken.contains_key(*name)
            || observed.states.contains_key(*name)
    };
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        return Err(Failure::new(format!("there is no stack {unknown}"), "`swarmkeeper status` lists them"));
    }
    let rolled_back = rolled_back(&head.clone, &observed, context);
    let key = observed.key.clone().unwrap_or_default();
    let texts = targets(&desired, &rolled_back, &observed, &key)
        .into_iter()
        .flat_map(|stack| images_to_resolve(stack, observed.stack(&stack.name)))
        .collect();
    let images = resolve(&swarm, texts, &local::logins(context)).await;
    let secrets = secrets_of_adoptions(&swarm, &desired, &observed).await.map_err(|error| local::engine(&error))?;
    let mut plans = plan_all(&Pass {
        desired: &desired,
        broken: &broken,
        held: &rolled_back,
        observed: &observed,
        images: &images,
        secrets: &secrets,
        key: &key,
        now: OffsetDateTime::now_utc(),
        policy: &app::policy(&context.config),
    });
    plans.retain(|plan| wanted.is_empty() || wanted.contains(&plan.stack));
    Ok(plans)
}

/// Stacks that rollbacks hold, as their commits have them.
fn rolled_back(clone: &GitRepo, observed: &Observed, context: &Context) -> Held {
    let options = app::render_options(&context.config);
    let rollbacks = observed.states.iter().filter_map(|(stack, live)| Some((stack, live.state.rollback.as_ref()?)));
    rollbacks
        .map(|(stack, rollback)| (stack.clone(), app::stack_at(clone, &rollback.revision, stack, &options)))
        .collect()
}
