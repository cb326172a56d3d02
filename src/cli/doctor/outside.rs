//! The checks that reach out: the Config Repo, and every registry that there is a login for.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Check;
use crate::app;
use crate::cli::local;
use crate::cli::output::Context;
use crate::io::registry::Credentials;

/// All of them; on a node without git settings the first is left out.
pub(super) fn checks(context: &Context) -> Vec<BoxFuture<'_, Check>> {
    let mut checks = Vec::new();
    if context.config.git.is_some() {
        checks.push(config_repo(context).boxed());
    }
    checks.push(registries(context).boxed());
    checks
}

async fn config_repo(context: &Context) -> Check {
    match local::config_repo(context).await {
        Ok(local::Head { revision, rendered, .. }) => {
            let broken: Vec<&str> =
                rendered.stacks.iter().filter(|(_, stack)| stack.is_err()).map(|(name, _)| name.as_str()).collect();
            let what = format!("{revision}, {} stacks", rendered.stacks.len());
            if broken.is_empty() {
                return Check::pass("git", what);
            }
            Check::warn(
                "git",
                format!("{what}, of which {} cannot be rendered", broken.join(", ")),
                "swarmkeeper plan says why",
            )
        }
        Err(failure) => Check::fail("git", failure.errors.join("; "), failure.next),
    }
}

/// Logs in at each registry through the engine, which knows which ones are insecure.
async fn registries(context: &Context) -> Check {
    let (credentials, findings) = Credentials::load(&app::credentials(&context.config));
    let mut wrong: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let names: Vec<&str> = credentials.registries().collect();
    match local::swarm(context).await {
        Ok(swarm) => {
            for name in &names {
                let Some(login) = credentials.for_image(name) else { continue };
                if let Err(error) = swarm.log_in(&login).await {
                    wrong.push(format!("{name}: {error}"));
                }
            }
        }
        Err(failure) => wrong.extend(failure.errors),
    }
    if !wrong.is_empty() {
        return Check::fail("registries", wrong.join("; "), "correct the login in registries_dir, or docker login");
    }
    match names.as_slice() {
        [] => Check::pass("registries", "no logins; public images only"),
        names => Check::pass("registries", format!("logged in at {}", names.join(", "))),
    }
}
