//! Which coordination is in force: at most one at any time, or a leader in Consul and one in the swarm would write beside each other.
//!
//! The swarm config [`NAME`] says which, for both. Whoever starts first says it; who finds it said follows, if its own settings leave
//! that open, or else changes it, once:
//!
//! ```text
//! consul ──► to-swarm ── SWITCH_WAIT ──► swarm ──► to-consul ── SWITCH_WAIT ──► consul
//! ```
//!
//! A leader may write only while it has read within [`super::super::plan::MANDATE`] that its coordination is in force; the swarm's own
//! loses its lock with the change at once. [`SWITCH_WAIT`] is longer than that by what an engine may be behind: swarm's Raft leader, cut
//! off from the others, answers reads for up to two election timeouts of 10 s. So nobody leads in between.
//!
//! Versions before this one know Consul only and do not ask. So a swarm with state of ours and without this config counts as
//! coordinated by Consul, and a change to the swarm's own should wait until every agent is updated.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tracing::{info, warn};

use super::super::clock::boottime;
use super::super::coordination::Trouble;
use super::super::{Error, Hindrance, Options};
use super::slip::{Found, Kind, NAME, Slip, Standing};
use super::{create, read, write};
use crate::io::swarm::Swarm;

/// How long a change of the coordination takes.
pub const SWITCH_WAIT: Duration = Duration::from_secs(75);

/// What the settings want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// What is in force, else Consul if it answers.
    Auto {
        /// Whether it does.
        consul_answers: bool,
    },
    /// This.
    Set(Kind),
}

/// What to do at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// Stand with this coordination; it is in force, or will be.
    Use(Kind),
    /// Write this first.
    Write(Standing),
    /// Whoever wrote this is newer than we are.
    Unknown(String),
}

/// Settles at the start of an agent which coordination it stands with. `led_before` is true if there is state of ours in the swarm.
///
/// An error is worth trying again.
pub async fn settle(
    swarm: &Swarm,
    wish: Wish,
    led_before: bool,
    options: &Options,
    now: OffsetDateTime,
) -> Result<Kind, String> {
    let found = read(swarm).await.map_err(|error| error.to_string())?;
    let standing = match decide(found.as_ref().map(|found| &found.slip.standing), wish, led_before) {
        Decision::Use(kind) => return Ok(kind),
        Decision::Unknown(text) => {
            return Err(format!("config {NAME} says coordination {text:?}, which this version does not know"));
        }
        Decision::Write(standing) => standing,
    };
    let (Standing::InForce(kind) | Standing::Changing(kind)) = standing else {
        return Err(format!("{standing:?} is no coordination to stand with"));
    };
    if let Standing::Changing(_) = standing {
        warn!(
            wait = ?SWITCH_WAIT,
            "the coordination changes to {}: nobody leads until every leader of the other one has surely stopped",
            kind.word()
        );
    } else {
        info!("coordination: {}, as config {NAME} says from now on", kind.word());
    }
    // Nobody led before, so the first leader need not wait.
    let slip = Slip::free(standing, Some(options.record(now, true)));
    let written = match &found {
        None => create(swarm, &slip).await,
        Some(found) => write(swarm, &found.id, found.version, &slip).await,
    };
    // After a conflict somebody else has said it; the next attempt follows.
    written.map(|()| kind).map_err(|error| error.to_string())
}

fn decide(found: Option<&Standing>, wish: Wish, led_before: bool) -> Decision {
    let (wanted, is_set) = match wish {
        Wish::Set(kind) => (kind, true),
        Wish::Auto { consul_answers } if consul_answers || (led_before && found.is_none()) => (Kind::Consul, false),
        Wish::Auto { .. } => (Kind::Swarm, false),
    };
    match found {
        Some(Standing::InForce(kind) | Standing::Changing(kind)) if !is_set || *kind == wanted => Decision::Use(*kind),
        Some(Standing::InForce(_) | Standing::Changing(_)) => Decision::Write(Standing::Changing(wanted)),
        Some(Standing::Unknown(text)) => Decision::Unknown(text.clone()),
        // An earlier version may lead through Consul.
        None if led_before && wanted == Kind::Swarm => Decision::Write(Standing::Changing(wanted)),
        None | Some(Standing::Left) => Decision::Write(Standing::InForce(wanted)),
    }
}

/// What the swarm says of the coordination, for people; none if it says nothing.
pub async fn standing(swarm: &Swarm) -> Result<Option<Standing>, Trouble> {
    Ok(read(swarm).await?.map(|found| found.slip.standing))
}

/// `swarmkeeper leave`: nobody leads any more, and every candidate that looks ends.
pub async fn leave(swarm: &Swarm) -> Result<(), Trouble> {
    let slip = Slip::free(Standing::Left, None);
    match read(swarm).await? {
        Some(found) => Ok(write(swarm, &found.id, found.version, &slip).await?),
        None => Ok(create(swarm, &slip).await?),
    }
}

/// Takes the config away after [`leave`], when every candidate has looked.
pub async fn forget(swarm: &Swarm) -> Result<(), Trouble> {
    match read(swarm).await? {
        Some(found) if found.slip.standing == Standing::Left => match swarm.config_remove(&found.id).await {
            Ok(()) | Err(crate::io::swarm::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        },
        _ => Ok(()),
    }
}

/// Makes the config that somebody took away. Whoever led may still write, so nobody signed off.
pub(super) async fn make_again(
    swarm: &Swarm,
    kind: Kind,
    options: &Options,
    now: OffsetDateTime,
) -> Result<(), Trouble> {
    let slip = Slip::free(Standing::InForce(kind), Some(options.record(now, false)));
    match create(swarm, &slip).await {
        Err(error) if !error.is_conflict() => Err(error.into()),
        _ => Ok(()),
    }
}

/// A candidate's part: asked with every probe of its engine.
pub struct Mandate {
    swarm: Swarm,
    kind: Kind,
    options: Options,
    /// The version at which a change was first seen, and when.
    changing: Mutex<Option<(u64, Duration)>>,
}

impl Mandate {
    /// For a candidate that stands with `kind`.
    pub fn new(swarm: Swarm, kind: Kind, options: Options) -> Self {
        Self { swarm, kind, options, changing: Mutex::default() }
    }

    /// Our coordination is in force. Completes a change to it, once its time is over.
    pub async fn confirm(&self, now: OffsetDateTime) -> Result<(), Hindrance> {
        let engine = |error: Trouble| Hindrance::Engine(error.reason);
        let Some(found) = read(&self.swarm).await.map_err(engine)? else {
            return make_again(&self.swarm, self.kind, &self.options, now).await.map_err(engine);
        };
        match &found.slip.standing {
            Standing::InForce(kind) if *kind == self.kind => Ok(()),
            Standing::Changing(kind) if *kind == self.kind => self.complete(found, now).await,
            Standing::InForce(kind) | Standing::Changing(kind) => {
                let (ours, theirs) = (self.kind.word(), kind.word());
                Err(Hindrance::Barred(Error::Overruled { ours, theirs }))
            }
            Standing::Left => Err(Hindrance::Barred(Error::Left)),
            Standing::Unknown(text) => {
                Err(Hindrance::Engine(format!("config {NAME} says coordination {text:?}, which is unknown here")))
            }
        }
    }

    async fn complete(&self, found: Found, now: OffsetDateTime) -> Result<(), Hindrance> {
        let clock = boottime();
        let since = {
            let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            match *changing {
                Some((version, since)) if version == found.version => since,
                _ => changing.insert((found.version, clock)).1,
            }
        };
        let left = (since + SWITCH_WAIT).saturating_sub(clock);
        if !left.is_zero() {
            let (kind, left) = (self.kind.word(), left.as_secs() + 1);
            return Err(Hindrance::Engine(format!("the coordination changes to {kind}, some {left} s from now")));
        }
        let slip = Slip::free(Standing::InForce(self.kind), Some(self.options.record(now, true)));
        match write(&self.swarm, &found.id, found.version, &slip).await {
            Ok(()) => {
                info!("coordination: {} is in force", self.kind.word());
                Ok(())
            }
            Err(error) => Err(Hindrance::Engine(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTO: Wish = Wish::Auto { consul_answers: false };
    const AUTO_WITH_CONSUL: Wish = Wish::Auto { consul_answers: true };
    const CONSUL: Wish = Wish::Set(Kind::Consul);
    const SWARM: Wish = Wish::Set(Kind::Swarm);

    fn uses(kind: Kind) -> Decision {
        Decision::Use(kind)
    }

    fn writes(standing: Standing) -> Decision {
        Decision::Write(standing)
    }

    #[track_caller]
    fn check(found: Option<&Standing>, led_before: bool, wishes: &[Wish], expect: &Decision) {
        for wish in wishes {
            assert_eq!(decide(found, *wish, led_before), *expect, "{wish:?}");
        }
    }

    #[test]
    fn the_first_to_start_says_it_and_consul_is_taken_where_it_answers() {
        check(None, false, &[AUTO, SWARM], &writes(Standing::InForce(Kind::Swarm)));
        check(None, false, &[AUTO_WITH_CONSUL, CONSUL], &writes(Standing::InForce(Kind::Consul)));
        check(Some(&Standing::Left), true, &[AUTO, SWARM], &writes(Standing::InForce(Kind::Swarm)));
    }

    #[test]
    fn who_comes_later_follows_whatever_answers_there() {
        let all = [AUTO, AUTO_WITH_CONSUL];
        check(Some(&Standing::InForce(Kind::Consul)), true, &all, &uses(Kind::Consul));
        check(Some(&Standing::InForce(Kind::Swarm)), true, &all, &uses(Kind::Swarm));
        check(Some(&Standing::Changing(Kind::Swarm)), true, &all, &uses(Kind::Swarm));
    }

    #[test]
    fn a_swarm_that_an_earlier_version_led_is_consuls_although_no_consul_answers_yet() {
        check(None, true, &[AUTO, CONSUL], &writes(Standing::InForce(Kind::Consul)));
        check(None, true, &[SWARM], &writes(Standing::Changing(Kind::Swarm)));
    }

    #[test]
    fn a_setting_that_says_otherwise_changes_it_with_a_wait_in_between() {
        check(Some(&Standing::InForce(Kind::Consul)), true, &[SWARM], &writes(Standing::Changing(Kind::Swarm)));
        check(Some(&Standing::Changing(Kind::Consul)), true, &[SWARM], &writes(Standing::Changing(Kind::Swarm)));
        check(Some(&Standing::InForce(Kind::Swarm)), true, &[CONSUL], &writes(Standing::Changing(Kind::Consul)));
    }

    #[test]
    fn what_a_newer_version_wrote_is_left_alone() {
        let all = [AUTO, AUTO_WITH_CONSUL, CONSUL, SWARM];
        check(Some(&Standing::Unknown("moon".into())), true, &all, &Decision::Unknown("moon".into()));
    }

    #[test]
    fn a_change_takes_longer_than_a_mandate_and_an_engine_that_is_behind() {
        use crate::leader::plan::MANDATE;
        assert!(SWITCH_WAIT > MANDATE + Duration::from_secs(20) + crate::io::swarm::FENCED_WRITE_TIMEOUT);
        assert!(SWITCH_WAIT > crate::leader::Profile::SWARM.lock_delay);
    }
}
