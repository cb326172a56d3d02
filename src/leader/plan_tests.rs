//! What the election decides, one sentence each; [`super::super::simulation`] has the whole of it together.

use super::*;

const PROFILE: Profile = Profile::DEFAULT;

/// One candidate, driven by hand; times are milliseconds.
struct Play {
    election: Election,
    now: u64,
}

impl Play {
    /// A candidate that is ready to take the lock, at 1000.
    fn ready() -> Self {
        let mut play = Self { election: Election::new(PROFILE), now: 1000 };
        play.plan();
        for event in [Event::Claimed, Event::Swept, Event::Registered, Event::Beaten, Event::Probed] {
            play.event(event);
        }
        play.plan();
        play.event(Event::Beaten);
        play.event(Event::SessionMade("ours".to_owned()));
        play
    }

    /// A leader since 1000, whose predecessor had signed off; its token is 20.
    fn leading() -> Self {
        let mut play = Self::ready();
        play.watched(Some(free(10, Some(record(true, 5000)))), 10);
        play.plan();
        play.acquired(20);
        play
    }

    fn at(mut self, now: u64) -> Self {
        self.now = now;
        self
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn event(&mut self, event: Event) {
        self.election.observe(event, self.now());
    }

    fn watched(&mut self, lock: Option<Lock>, index: u64) {
        self.event(Event::Watched { lock, index });
    }

    fn proven(&mut self, lock: Option<Lock>) {
        self.event(Event::Proven { sent: self.now(), lock });
    }

    fn acquired(&mut self, token: u64) {
        let since = OffsetDateTime::UNIX_EPOCH;
        self.event(Event::Acquired { sent: self.now(), session: "ours".to_owned(), token, since });
    }

    /// The plan's actions of the kinds asked for; all others are taken as under way.
    fn plan(&mut self) -> Vec<Action> {
        self.election.plan(self.now()).actions
    }

    #[track_caller]
    fn does(&mut self, task: Task) -> Action {
        let plan = self.plan();
        plan.iter().find(|action| action.task() == task).unwrap_or_else(|| panic!("no {task:?} in {plan:?}")).clone()
    }

    #[track_caller]
    fn does_not(&mut self, task: Task) {
        let plan = self.plan();
        assert!(plan.iter().all(|action| action.task() != task), "{plan:?}");
    }

    #[track_caller]
    fn writable_from(&self, ms: u64) {
        let leadership = self.election.leadership(self.now());
        let Leadership::Leading { writable_from, .. } = leadership else { panic!("{leadership:?}") };
        assert_eq!(writable_from, Duration::from_millis(ms));
    }
}

fn free(modify_index: u64, record: Option<Record>) -> Lock {
    Lock { modify_index, session: None, record, over: false }
}

fn held_by(session: &str, modify_index: u64) -> Lock {
    Lock { modify_index, session: Some(session.to_owned()), record: Some(record(false, 5000)), over: false }
}

fn record(signed_off: bool, lock_delay_ms: u64) -> Record {
    Record {
        schema: 1,
        node: "other".to_owned(),
        address: "http://10.0.0.9:7000".to_owned(),
        version: "1".to_owned(),
        since: OffsetDateTime::UNIX_EPOCH,
        lock_delay_ms,
        signed_off,
    }
}

#[test]
fn nothing_is_touched_before_the_clusters_name_is_known_to_be_ours() {
    let mut play = Play { election: Election::new(PROFILE), now: 0 };
    assert_eq!(play.plan(), [Action::Claim, Action::Probe, Action::Watch { index: 0 }]);
}

#[test]
fn a_name_that_another_swarm_has_ends_the_candidacy() {
    let mut play = Play { election: Election::new(PROFILE), now: 0 };
    play.plan();
    let error = Error::OtherSwarm {
        cluster: "prod".into(),
        ours: "ours".into(),
        theirs: "theirs".into(),
        key: "swarmkeeper/v1/prod/cluster".into(),
    };
    play.event(Event::Barred(error.clone()));
    assert_eq!(play.plan(), [Action::Close { session: None }]);
    play.event(Event::Closed);
    assert!(play.election.finished());
    assert_eq!(play.election.barred(), Some(&error));
}

#[test]
fn a_free_lock_is_taken_in_the_state_it_was_seen_in() {
    let mut play = Play::ready();
    play.watched(Some(free(10, None)), 10);
    assert_eq!(play.does(Task::Acquire), Action::Acquire { session: "ours".to_owned(), expect: Some(10) });

    let mut play = Play::ready();
    play.watched(None, 3);
    assert_eq!(play.does(Task::Acquire), Action::Acquire { session: "ours".to_owned(), expect: None });
}

#[test]
fn a_lock_that_another_holds_is_left_alone_and_its_holder_is_known() {
    let mut play = Play::ready();
    play.watched(Some(held_by("theirs", 10)), 10);
    play.does_not(Task::Acquire);
    let Leadership::Follower { leader: Some(leader) } = play.election.leadership(play.now()) else { panic!() };
    assert_eq!((leader.node.as_str(), leader.token), ("other", 10));
}

#[test]
fn a_node_whose_engine_does_not_answer_does_not_stand() {
    let mut play = Play::ready().at(20_000);
    play.plan();
    play.event(Event::Failed(Task::Probe, Failure::Refused));
    play.watched(Some(free(10, None)), 10);
    play.does_not(Task::Acquire);
}

#[test]
fn the_successor_of_one_who_signed_off_writes_at_once() {
    Play::leading().writable_from(0);
}

#[test]
fn the_successor_of_a_silent_one_waits_from_when_the_lock_was_first_seen_free() {
    let mut play = Play::ready();
    play.watched(Some(free(10, Some(record(false, 5000)))), 10);
    play.plan();
    play.event(Event::NotAcquired);
    let mut play = play.at(6100);
    play.does(Task::Acquire);
    play.acquired(20);
    play.writable_from(6000);
}

#[test]
fn a_predecessor_with_a_longer_lock_delay_is_waited_for_as_long() {
    let mut play = Play::ready();
    play.watched(Some(free(10, Some(record(false, 9000)))), 10);
    play.plan();
    play.acquired(20);
    play.writable_from(10_000);
}

#[test]
fn without_a_key_nobody_knows_who_led_so_the_wait_begins_when_the_lock_is_taken() {
    let mut play = Play::ready();
    play.watched(None, 3);
    play.plan();
    let mut play = play.at(2000);
    play.acquired(20);
    play.writable_from(7000);
}

#[test]
fn a_lock_in_its_delay_is_tried_again_when_the_delay_ends_and_often_from_then_on() {
    let mut play = Play::ready();
    play.watched(Some(free(10, None)), 10);
    play.plan();
    play.event(Event::NotAcquired);
    for (now, due) in [(5999, false), (6000, true), (6249, false), (6250, true)] {
        play = play.at(now);
        if due {
            play.does(Task::Acquire);
            play.event(Event::NotAcquired);
        } else {
            play.does_not(Task::Acquire);
        }
    }
}

#[test]
fn a_lock_that_was_taken_and_given_back_meanwhile_is_tried_at_once() {
    let mut play = Play::ready();
    play.watched(Some(free(10, None)), 10);
    play.plan();
    play.event(Event::NotAcquired);
    play.watched(Some(free(12, Some(record(true, 5000)))), 12);
    assert_eq!(play.does(Task::Acquire), Action::Acquire { session: "ours".to_owned(), expect: Some(12) });
}

#[test]
fn a_lost_answer_is_read_back_and_nothing_is_assumed_about_the_time_before() {
    let mut play = Play::ready();
    play.watched(Some(free(10, Some(record(true, 5000)))), 10);
    play.plan();
    play.event(Event::Failed(Task::Acquire, Failure::Unknown));
    play.does(Task::Prove);
    play.proven(Some(held_by("ours", 20)));
    play.writable_from(6000);
}

#[test]
fn an_answer_for_a_session_that_ended_meanwhile_counts_for_nothing() {
    let mut play = Play::ready();
    play.watched(Some(free(10, None)), 10);
    play.plan();
    play.event(Event::Renewed(false));
    play.acquired(20);
    assert_eq!(play.election.grant(play.now()), None);
}

#[test]
fn writes_stop_when_the_lease_ends_and_go_on_with_the_same_token_when_it_is_proven_again() {
    let mut play = Play::leading().at(3499);
    assert_eq!(play.election.leadership(play.now()).token(), Some(20));
    play = play.at(3500);
    assert!(matches!(play.election.leadership(play.now()), Leadership::Suspended { token: 20, .. }));
    play.proven(Some(held_by("ours", 20)));
    assert_eq!(play.election.leadership(play.now()).token(), Some(20));
}

#[test]
fn the_end_of_the_lease_wakes_the_loop() {
    let mut play = Play::leading();
    for task in [Task::Prove, Task::Beat, Task::Watch, Task::Renew, Task::Probe] {
        // All of them under way.
        play.election.begin(task, play.now());
    }
    assert_eq!(play.election.plan(play.now()).wake, Some(Duration::from_millis(3500)));
}

#[test]
fn an_old_answer_of_the_watch_does_not_depose_a_leader_and_a_new_one_does() {
    let mut play = Play::leading();
    play.watched(Some(free(10, None)), 10);
    assert!(play.election.grant(play.now()).is_some());
    play.watched(None, 21);
    assert_eq!(play.election.grant(play.now()), None);
}

#[test]
fn a_refused_write_closes_the_gate_until_the_lock_is_proven() {
    let mut play = Play::leading();
    play.event(Event::Doubt);
    assert!(matches!(play.election.leadership(play.now()), Leadership::Suspended { .. }));
    play.does(Task::Prove);
    play.proven(Some(held_by("theirs", 30)));
    assert!(matches!(play.election.leadership(play.now()), Leadership::Follower { leader: Some(_) }));
}

#[test]
fn a_strangers_value_in_our_lock_is_written_over_with_a_higher_token() {
    let mut play = Play::leading();
    play.proven(Some(Lock { record: None, ..held_by("ours", 25) }));
    assert_eq!(play.does(Task::Acquire), Action::Acquire { session: "ours".to_owned(), expect: Some(25) });
    play = play.at(1500);
    play.acquired(26);
    assert_eq!(play.election.leadership(play.now()).token(), Some(26));
    play.writable_from(0);
    play.does_not(Task::Acquire);
}

#[test]
fn wiped_keys_are_claimed_again_before_the_lock_is_taken() {
    let mut play = Play::leading();
    play.proven(None);
    play.does_not(Task::Acquire);
    let mut play = Play::leading();
    play.proven(None);
    play.does(Task::Claim);
    play.event(Event::Claimed);
    play.does(Task::Acquire);
}

#[test]
fn a_session_that_is_gone_is_replaced() {
    let mut play = Play::leading();
    play.event(Event::Renewed(false));
    assert_eq!(play.election.grant(play.now()), None);
    play.does(Task::CreateSession);
}

#[test]
fn a_check_that_the_agent_forgot_is_registered_again_and_the_session_looked_at() {
    let mut play = Play::ready().at(3000);
    play.does(Task::Beat);
    play.event(Event::Failed(Task::Beat, Failure::Refused));
    play.event(Event::Renewed(true));
    play.does(Task::Register);
    play.event(Event::Registered);
    play.does(Task::Renew);
}

#[test]
fn a_silent_agent_costs_neither_check_nor_session() {
    let mut play = Play::ready().at(3000);
    play.does(Task::Beat);
    play.event(Event::Failed(Task::Beat, Failure::Unknown));
    play.does_not(Task::Register);
}

#[test]
fn a_leader_whose_engine_fails_three_times_steps_down_without_signing_off_and_stays_away_for_a_minute() {
    let mut play = Play::leading();
    for now in [11_000, 21_000, 31_000] {
        play = play.at(now);
        play.does_not(Task::Release);
        play.event(Event::Failed(Task::Probe, Failure::Refused));
    }
    let release = play.does(Task::Release);
    assert!(matches!(release, Action::Release { signed_off: false, .. }), "{release:?}");
    assert_eq!(play.election.grant(play.now()), None, "the gate closes before the lock is given back");
    play.event(Event::Released);
    play.event(Event::Probed);
    play.watched(Some(free(40, None)), 40);
    play = play.at(90_999);
    play.does_not(Task::Acquire);
    play = play.at(91_000);
    play.does(Task::Acquire);
}

#[test]
fn one_good_answer_of_the_engine_forgives_the_failures_before() {
    let mut play = Play::leading();
    for (now, event) in [
        (11_000, Event::Failed(Task::Probe, Failure::Refused)),
        (21_000, Event::Failed(Task::Probe, Failure::Refused)),
        (31_000, Event::Probed),
        (41_000, Event::Failed(Task::Probe, Failure::Refused)),
    ] {
        play = play.at(now);
        play.plan();
        play.event(event);
    }
    play.does_not(Task::Release);
}

#[test]
fn a_leader_told_to_stop_closes_the_gate_signs_off_and_leaves_nothing_behind() {
    let mut play = Play::leading();
    play.event(Event::SignOff);
    assert_eq!(play.election.grant(play.now()), None);
    assert!(matches!(play.does(Task::Release), Action::Release { signed_off: true, .. }));
    play.does_not(Task::Close);
    play.event(Event::Released);
    assert_eq!(play.plan(), [Action::Close { session: Some("ours".to_owned()) }]);
    play.event(Event::Closed);
    assert!(play.election.finished());
}

#[test]
fn a_lock_that_arrives_while_stopping_is_given_back() {
    let mut play = Play::ready();
    play.watched(Some(free(10, None)), 10);
    play.plan();
    play.event(Event::SignOff);
    play.does_not(Task::Close);
    play.acquired(20);
    play.does(Task::Release);
}

#[test]
fn nothing_is_sent_twice_at_once_and_a_failure_is_retried_ever_more_slowly() {
    let mut play = Play { election: Election::new(PROFILE), now: 0 };
    play.does(Task::Claim);
    play.does_not(Task::Claim);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        play.event(Event::Failed(Task::Claim, Failure::Unknown));
        let failed = play.now;
        while !play.plan().contains(&Action::Claim) {
            play.now += 1;
        }
        pauses.push(play.now - failed);
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
}

#[test]
fn the_text_of_the_check_says_what_we_are_and_stays_the_same_meanwhile() {
    let mut play = Play::leading().at(3000);
    let Action::Beat { note } = play.does(Task::Beat) else { panic!() };
    assert_eq!(note, "leading since 1970-01-01T00:00:00Z");
}

#[test]
fn a_leader_that_steps_down_closes_the_gate_and_signs_off_when_no_write_can_be_under_way() {
    let mut play = Play::leading().at(2000);
    play.event(Event::StepDown);
    assert_eq!(play.election.grant(play.now()), None);
    play = play.at(4499);
    play.does_not(Task::Release);
    play = play.at(4500);
    assert!(matches!(play.does(Task::Release), Action::Release { signed_off: true, .. }));
    play.event(Event::Released);
    play.watched(Some(free(40, Some(record(true, 5000)))), 40);
    play = play.at(61_999);
    play.does_not(Task::Acquire);
    play = play.at(62_000);
    play.does(Task::Acquire);
}

#[test]
fn who_stepped_down_stands_again_when_its_successor_is_gone() {
    let mut play = Play::leading().at(2000);
    play.event(Event::StepDown);
    play = play.at(4500);
    play.does(Task::Release);
    play.event(Event::Released);
    play.watched(Some(free(40, Some(record(true, 5000)))), 40);
    play.does_not(Task::Acquire);
    play.watched(Some(held_by("another", 41)), 41);
    play = play.at(5000);
    play.watched(Some(free(50, None)), 50);
    play.does(Task::Acquire);
}

#[test]
fn who_does_not_lead_cannot_step_down() {
    let mut play = Play::ready();
    play.event(Event::StepDown);
    play.watched(Some(free(10, None)), 10);
    play.does(Task::Acquire);
}

#[test]
fn a_leader_that_has_not_waited_for_its_predecessor_does_not_sign_off_for_it() {
    let mut play = Play::ready();
    play.watched(None, 3);
    play.plan();
    play.acquired(20);
    play.event(Event::SignOff);
    assert!(matches!(play.does(Task::Release), Action::Release { signed_off: false, .. }));
}

#[test]
fn the_lock_of_a_holder_that_was_silent_for_its_whole_lease_is_written_under_at_once() {
    let mut play = Play::ready();
    play.watched(Some(Lock { over: true, ..free(10, Some(record(false, 5000))) }), 10);
    play.plan();
    play.acquired(20);
    play.writable_from(0);
}

#[test]
fn an_acquiring_write_that_is_seen_before_its_answer_waits_for_it() {
    let mut play = Play::ready();
    play.watched(Some(free(10, Some(record(true, 5000)))), 10);
    play.does(Task::Acquire);
    play.watched(Some(held_by("ours", 20)), 20);
    play.does_not(Task::Prove);
    play.acquired(20);
    play.writable_from(0);
}

#[test]
fn a_leader_that_nobody_told_for_long_that_its_coordination_is_in_force_is_suspended() {
    let mut play = Play::leading();
    for second in 2..60 {
        play = play.at(second * 1000);
        play.proven(Some(held_by("ours", 20)));
        let leads = play.election.leadership(play.now()).token().is_some();
        // The probe was sent at 1000.
        assert_eq!(leads, second < 46, "{second}");
    }
}

#[test]
fn a_candidate_whose_coordination_is_not_in_force_gives_its_lock_back_and_ends() {
    let mut play = Play::leading().at(11_000);
    play.does(Task::Probe);
    play.event(Event::Barred(Error::Overruled { ours: "consul", theirs: "swarm" }));
    assert_eq!(play.election.grant(play.now()), None);
    play = play.at(13_500);
    play.does(Task::Release);
    play.event(Event::Released);
    play.does(Task::Close);
}
