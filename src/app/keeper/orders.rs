//! What people asked of the leader: carried out at the beginning of a pass, answered at its end.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::info;

use super::Keeper;
use crate::app::leaving;
use crate::http::{ASK_AGAIN, CommandError, CommandErrorKind};
use crate::model::StackName;
use crate::stacks::apply::{self, carry_out};
use crate::stacks::state::STATE_PREFIX;
use crate::status::{ClusterStatus, Command};

/// Those who asked, and what each is told.
pub(super) type Answers = Vec<(oneshot::Sender<Result<String, CommandError>>, Answer)>;

/// What somebody who asked is told at the end of the pass.
pub(super) enum Answer {
    /// How all stacks are.
    Summary,
    /// How one stack is.
    Stack(StackName),
    /// This.
    Said(Result<String, CommandError>),
}

impl Answer {
    pub(super) fn in_words(self, status: &ClusterStatus) -> Result<String, CommandError> {
        match self {
            Self::Said(answer) => answer,
            Self::Stack(name) => {
                let stack = status.stacks.iter().find(|stack| stack.name == name);
                Ok(stack.map_or_else(|| format!("{name}: done"), |stack| format!("{name}: {}", stack.note)))
            }
            Self::Summary => {
                let git = status.git.as_ref();
                if let Some(error) = git.and_then(|git| git.error.as_ref()) {
                    let next = "the last good revision stays; `swarmkeeper doctor` looks closer";
                    return Err(CommandError::unavailable(format!("git: {error}"), next));
                }
                let revision = git.and_then(|git| git.revision.as_ref()).map(ToString::to_string).unwrap_or_default();
                let need = status.stacks.iter().filter(|stack| stack.state.needs_a_person()).count();
                Ok(format!("at {revision}: {} stacks, {need} need you", status.stacks.len()))
            }
        }
    }
}

impl Keeper {
    /// Carries out what people asked for; their answers are given when the pass has ended.
    pub(super) async fn obey(&mut self) -> Answers {
        let mut answers = Vec::new();
        while let Ok((command, answer)) = self.orders.try_recv() {
            let result = match &command {
                Command::Leave => Answer::Said(self.leave().await),
                // The last two are carried out before they come here.
                Command::Sync | Command::StepDown | Command::Wake => Answer::Summary,
                Command::Drain { node, undo } => Answer::Said(self.obey_drain(node, *undo).await),
                Command::PauseAll { .. } | Command::ResumeAll => Answer::Said(self.obey_for_all(&command).await),
                Command::Rollback { stack, revision, reason } => {
                    Answer::Said(self.roll_back(stack, revision.as_deref(), reason).await)
                }
                Command::Adopt { stack }
                | Command::Approve { stack, .. }
                | Command::Remove { stack }
                | Command::Retry { stack }
                | Command::Restart { stack, .. }
                | Command::Pause { stack, .. }
                | Command::Resume { stack } => match self.obey_one(stack, &command).await {
                    Ok(_) => Answer::Stack(stack.clone()),
                    Err(error) => Answer::Said(Err(error)),
                },
            };
            answers.push((answer, result));
        }
        answers
    }

    async fn obey_one(&self, stack: &StackName, command: &Command) -> Result<bool, CommandError> {
        carry_out(&self.parts.swarm, stack, command, OffsetDateTime::now_utc()).await.map_err(not_done)
    }

    /// The same for every stack that is known now: those that git has, and those that we have a state of. A stack that comes later
    /// is not meant. What failed is named; the others are done.
    async fn obey_for_all(&mut self, command: &Command) -> Result<String, CommandError> {
        self.render();
        let states = self.parts.swarm.configs().await.map_err(|error| unavailable(error.to_string()))?;
        let states = states.iter().filter_map(|config| config.spec.name.strip_prefix(STATE_PREFIX));
        let mut stacks: BTreeSet<StackName> = states.filter_map(|name| StackName::new(name).ok()).collect();
        let pauses = matches!(command, Command::PauseAll { .. });
        // A stack without a state is not paused, so there is nothing to resume.
        if let Some((_, rendered)) = self.memory.rendered.as_ref().filter(|_| pauses) {
            stacks.extend(rendered.desired.iter().map(|stack| stack.name.clone()));
            stacks.extend(rendered.broken.keys().cloned());
        }
        let (mut changed, mut failed) = (0, Vec::new());
        for stack in &stacks {
            match self.obey_one(stack, command).await {
                Ok(has_changed) => changed += usize::from(has_changed),
                Err(error) => failed.push(format!("{stack}: {}", error.error)),
            }
        }
        if !failed.is_empty() {
            let all = stacks.len();
            return Err(unavailable(format!(
                "done for {} of {all} stacks; not for {}",
                all - failed.len(),
                failed.join("; ")
            )));
        }
        let others = stacks.len() - changed;
        Ok(if pauses {
            format!("{changed} stacks are paused now, {others} were already; one that git names from now on is not")
        } else {
            format!("{changed} stacks go on; what was paused by itself stays so")
        })
    }

    /// Takes our states and KV away, and tells every agent to take its registrations away.
    async fn leave(&mut self) -> Result<String, CommandError> {
        let failed = |error: String| CommandError::unavailable(error, "ask again: what is gone already is no error");
        // From here on no pass may make anew what is taken away.
        self.memory.has_left = true;
        let configs = apply::leave(&self.parts.swarm).await.map_err(|error| failed(error.to_string()))?;
        // Last, because it ends our own leadership too.
        let (consul, swarm) = (self.parts.consul.as_ref(), &self.parts.swarm);
        leaving::say(consul, swarm, &self.parts.cluster).await.map_err(failed)?;
        info!(configs, "left: nothing that runs was touched");
        Ok(format!(
            "{configs} configs of ours removed, every agent takes its registrations away and stays idle; now remove the stack: docker \
             stack rm swarmkeeper"
        ))
    }

    pub(super) fn refuse_orders(&mut self) {
        while let Ok((_, answer)) = self.orders.try_recv() {
            // Whoever asked may be gone.
            let _ = answer.send(Err(CommandError::leads_no_more(&self.parts.node)));
        }
    }
}

/// Why a command about a stack was not carried out, and what to do.
pub(super) fn not_done(error: apply::CommandError) -> CommandError {
    match error {
        apply::CommandError::Refused(error) => CommandError {
            kind: CommandErrorKind::Conflict,
            error,
            next: "`swarmkeeper status` shows what can be done".into(),
        },
        apply::CommandError::Apply(error) => unavailable(error.to_string()),
    }
}

pub(super) fn unavailable(error: String) -> CommandError {
    CommandError::unavailable(error, ASK_AGAIN)
}
