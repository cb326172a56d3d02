//! A person's rollback: the commit is rendered again, the digests are asked for, and only what can succeed is taken.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use tracing::info;

use super::Keeper;
use super::orders::{not_done, unavailable};
use crate::app::stack_at;
use crate::http::{CommandError, CommandErrorKind};
use crate::image::ImageRef;
use crate::model::StackName;
use crate::stacks::apply::{change_state, ensure_key};
use crate::stacks::observe::{observe, resolve};
use crate::stacks::rollback::{Preparation, choose, images, prepare};
use crate::stacks::{Held, Observed};

impl Keeper {
    /// Renders the commits at which rollbacks hold stacks, each once.
    pub(super) fn hold(&mut self, observed: &Observed) {
        let mut held = Held::new();
        for (stack, live) in &observed.states {
            let Some(rollback) = &live.state.rollback else { continue };
            let known = self.memory.held.remove(stack).filter(|known| {
                // What failed may come to be: the clone is made anew, or fetches the commit.
                known.as_ref().is_ok_and(|known| known.revision.as_ref() == Some(&rollback.revision))
            });
            let (repo, options) = (&self.parts.repo, &self.parts.settings.render);
            let render = || tokio::task::block_in_place(|| stack_at(repo, &rollback.revision, stack, options));
            held.insert(stack.clone(), known.unwrap_or_else(render));
        }
        self.memory.held = held;
    }

    /// Checks a rollback and takes it, or says why it could not succeed; the pass that follows does it.
    pub(super) async fn roll_back(
        &mut self,
        stack: &StackName,
        revision: Option<&str>,
        reason: &str,
    ) -> Result<String, CommandError> {
        let refused = |error: String| CommandError {
            kind: CommandErrorKind::Conflict,
            error,
            next: format!("nothing was changed; `swarmkeeper history {stack}` shows what ran"),
        };
        self.render();
        let hindrance = match &self.memory.rendered {
            None => Some("git has told no revision yet".to_owned()),
            Some((_, rendered)) => rendered.problem.clone(),
        };
        if let Some(hindrance) = hindrance {
            return Err(unavailable(hindrance));
        }
        let swarm = &self.parts.swarm;
        let observed = observe(swarm).await.map_err(|error| unavailable(error.to_string()))?;
        let key = ensure_key(swarm, &observed).await.map_err(|error| unavailable(error.to_string()))?;
        let live = observed.states.get(stack);
        let state = &live.ok_or_else(|| refused(format!("swarmkeeper does not manage stack {stack}")))?.state;
        let entry = choose(stack, state, revision).map_err(refused)?;
        let commit = entry.revision.as_ref().ok_or_else(|| refused("the entry names no commit".into()))?;
        let options = &self.parts.settings.render;
        let target = tokio::task::block_in_place(|| stack_at(&self.parts.repo, commit, stack, options));
        let target = target.map_err(refused)?;

        let images = images(entry, &target, &observed).map_err(refused)?;
        let images: BTreeSet<String> = images.into_values().collect();
        let credentials = self.credentials();
        let auth = |image: &str| ImageRef::parse(image).ok().and_then(|image| credentials.for_image(image.domain()));
        let swarm = &self.parts.swarm;
        let images = resolve(swarm, images, &auth).await;

        let rendered = self.memory.rendered.as_ref();
        let prepared = prepare(&Preparation {
            stack,
            observed: &observed,
            entry,
            target: &target,
            head: rendered.map(|(head, _)| head),
            wanted: rendered.and_then(|(_, rendered)| rendered.desired.iter().find(|wanted| wanted.name == *stack)),
            images: &images,
            reason,
            key: &key,
            now: OffsetDateTime::now_utc(),
            policy: &self.parts.settings.policy,
        })
        .map_err(refused)?;
        change_state(swarm, stack, &|state| prepared.enter(state)).await.map_err(not_done)?;
        info!(%stack, revision = %prepared.rollback.revision, reason, "rollback taken\n{}", prepared.plan);
        Ok(prepared.in_words())
    }
}
