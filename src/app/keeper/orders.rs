//! What people asked of the leader: carried out at the beginning of a pass, answered at its end.

use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::info;

use super::Keeper;
use crate::app::leaving;
use crate::http::{CommandError, CommandErrorKind};
use crate::model::StackName;
use crate::stacks::apply::{self, carry_out};
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
                    return Err(CommandError {
                        kind: CommandErrorKind::Unavailable,
                        error: format!("git: {error}"),
                        next: "the last good revision stays; `swarmkeeper doctor` looks closer".into(),
                    });
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
            let result = match stack_of(&command) {
                None if command == Command::Leave => Answer::Said(self.leave().await),
                None => Answer::Summary,
                Some(stack) => match self.obey_one(stack, &command).await {
                    Ok(()) => Answer::Stack(stack.clone()),
                    Err(error) => Answer::Said(Err(error)),
                },
            };
            answers.push((answer, result));
        }
        answers
    }

    async fn obey_one(&self, stack: &StackName, command: &Command) -> Result<(), CommandError> {
        let failed =
            |kind: CommandErrorKind, error: String, next: &str| CommandError { kind, error, next: next.into() };
        let now = OffsetDateTime::now_utc();
        carry_out(&self.parts.swarm, stack, command, now).await.map_err(|error| match error {
            apply::CommandError::Refused(reason) => {
                failed(CommandErrorKind::Conflict, reason, "`swarmkeeper status` shows what can be done")
            }
            apply::CommandError::Apply(error) => {
                failed(CommandErrorKind::Unavailable, error.to_string(), "ask again in a few seconds")
            }
        })
    }

    /// Takes our states and KV away, and tells every agent to take its registrations away.
    async fn leave(&mut self) -> Result<String, CommandError> {
        let failed = |error: String| CommandError {
            kind: CommandErrorKind::Unavailable,
            error,
            next: "ask again: what is gone already is no error".into(),
        };
        leaving::say(&self.parts.consul, &self.parts.cluster).await.map_err(|error| failed(error.to_string()))?;
        // From here on no pass may make anew what is taken away.
        self.memory.has_left = true;
        let configs = apply::leave(&self.parts.swarm).await.map_err(|error| failed(error.to_string()))?;
        info!(configs, "left: nothing that runs was touched");
        Ok(format!(
            "{configs} configs of ours removed, every agent takes its registrations away and stays idle; now remove the stack: docker \
             stack rm swarmkeeper"
        ))
    }

    pub(super) fn refuse_orders(&mut self) {
        while let Ok((_, answer)) = self.orders.try_recv() {
            // Whoever asked may be gone.
            let _ = answer.send(Err(CommandError {
                kind: CommandErrorKind::Unavailable,
                error: format!("{} does not lead any more", self.parts.node),
                next: "ask again in a few seconds".into(),
            }));
        }
    }
}

fn stack_of(command: &Command) -> Option<&StackName> {
    match command {
        Command::Adopt { stack }
        | Command::Approve { stack, .. }
        | Command::Remove { stack }
        | Command::Retry { stack }
        | Command::Pause { stack, .. }
        | Command::Resume { stack } => Some(stack),
        Command::Sync | Command::Leave => None,
    }
}
