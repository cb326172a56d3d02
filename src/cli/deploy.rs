//! `deploy`: the command line of `docker stack deploy`, which waits and reports unless told otherwise.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueHint};

use time::OffsetDateTime;

use super::output::{self, Context, Exit, Failure};
use super::{ask, local};
use crate::io::swarm::Swarm;
use crate::model::{DesiredStack, StackName};
use crate::stacks::deploy::{self, DeployError, DeployOptions, Following};
use crate::stacks::rollout::{Progress, Window};

/// Examples for `--help`.
pub const EXAMPLES: &str = "Examples:
  swarmkeeper deploy -c compose.yml shop
  swarmkeeper deploy -c compose.yml -c compose.prod.yml --prune --with-registry-auth shop
  swarmkeeper plan -c compose.yml shop     what it would do";

/// `deploy -c FILE… STACK`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // The command line of `docker stack deploy` has as many.
pub struct Deploy {
    /// Compose files, or `-` for stdin; later ones are merged over earlier ones
    #[arg(short = 'c', long = "compose-file", value_name = "FILE", required = true, value_delimiter = ',', value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// The stack
    #[arg(value_parser = ask::stack_name)]
    pub stack: StackName,
    /// Remove services of the stack that the files no longer name
    #[arg(long)]
    pub prune: bool,
    /// Send registry credentials along, for the nodes to pull with
    #[arg(long)]
    pub with_registry_auth: bool,
    /// When to ask the registry for images' digests
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub resolve_image: ResolveImage,
    /// Do not wait until the tasks run
    #[arg(short = 'd', long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub detach: bool,
    /// Accept what compose files hold today and `docker stack deploy` refuses; what has no effect is named
    #[arg(long)]
    pub lenient: bool,
    /// Deploy a stack that git manages all the same; the next pass undoes it
    #[arg(long)]
    pub force: bool,
}

/// When to ask the registry for images' digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ResolveImage {
    /// For every image.
    #[default]
    Always,
    /// For images whose text differs from what runs.
    Changed,
    /// For none.
    Never,
}

impl From<ResolveImage> for deploy::ResolveImage {
    fn from(when: ResolveImage) -> Self {
        match when {
            ResolveImage::Always => Self::Always,
            ResolveImage::Changed => Self::Changed,
            ResolveImage::Never => Self::Never,
        }
    }
}

/// Plans, says the plan, does it, and waits for it.
pub async fn run(context: &Context, arguments: &Deploy) -> Result<Exit, Failure> {
    let desired = local::stack_of_files(&arguments.files, &arguments.stack, arguments.lenient)?;
    let swarm = local::swarm(context).await?;
    let logins = local::logins(context);
    let options =
        DeployOptions { prune: arguments.prune, resolve: arguments.resolve_image.into(), force: arguments.force };
    let since = OffsetDateTime::now_utc();
    let plan = deploy::plan_deploy(&swarm, &desired, options, &logins, since).await.map_err(|error| failure(&error))?;
    output::result(&plan.to_string());
    // As with the CLI, the nodes get the login only if asked to.
    let nodes_login = |image: &str| if arguments.with_registry_auth { logins(image) } else { None };
    deploy::deploy(plan, &swarm, &desired, options, &nodes_login).await.map_err(|error| failure(&error))?;
    if arguments.detach {
        return Ok(Exit::Done);
    }
    wait(&swarm, &desired, since).await
}

fn failure(error: &DeployError) -> Failure {
    match error {
        DeployError::Managed(_) | DeployError::Conflicts(_) => Failure::new(error.to_string(), ""),
        DeployError::Unplannable(errors) => Failure { errors: errors.clone(), next: "nothing was written".into() },
        DeployError::Engine(_) | DeployError::Apply(_) => local::engine(error),
    }
}

/// Follows all services of the files to their end, with a line for every change.
async fn wait(swarm: &Swarm, desired: &DesiredStack, since: OffsetDateTime) -> Result<Exit, Failure> {
    let services: BTreeSet<String> =
        desired.objects.services.values().map(|service| service.spec.name.clone()).collect();
    let window = Window { since, deadline: since + desired.settings.timeout };
    let mut said = String::new();
    let mut report = |following: &Following| {
        let line = in_a_line(following);
        if line != said {
            output::progress(&line);
            said = line;
        }
    };
    let following =
        deploy::follow(swarm, &services, window, &mut report).await.map_err(|error| local::engine(&error))?;
    let logs = deploy::logs(swarm, &following).await;
    let problem = |(service, progress): &(String, Progress)| {
        let printed = logs.get(service).into_iter().flatten().map(|line| format!("\n  | {}", output::clean(line)));
        Some(format!("{}{}", problem(service, progress)?, printed.collect::<String>()))
    };
    let problems: Vec<String> = following.iter().filter_map(problem).collect();
    if problems.is_empty() {
        output::result(&format!("{}: {}/{} services run", desired.name, following.len(), services.len()));
        return Ok(Exit::Done);
    }
    Err(Failure { errors: problems, next: "`docker service logs SERVICE` says more; mend it and deploy again".into() })
}

fn in_a_line(following: &Following) -> String {
    let done = following.iter().filter(|(_, progress)| matches!(progress, Progress::Converged(_))).count();
    let under_way = following.iter().filter_map(|(service, progress)| match progress {
        Progress::Going(count) => Some(format!("{service} {}/{}", count.running, count.wanted)),
        _ => None,
    });
    let mut words = vec![format!("{done}/{} services run", following.len())];
    words.extend(under_way.take(4));
    words.join("  ")
}

fn problem(service: &str, progress: &Progress) -> Option<String> {
    match progress {
        Progress::Converged(_) | Progress::Going(_) => None,
        Progress::RolledBack(trouble) => Some(format!("{service} was rolled back: {}", trouble.reason)),
        Progress::Paused(trouble) => Some(format!("{service}: swarm paused the update: {}", trouble.reason)),
        Progress::Failed(trouble) => Some(format!("{service} failed: {}", trouble.reason)),
    }
}
