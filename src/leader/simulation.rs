//! Candidates against models of Consul and of the swarm, in virtual time, with everything going wrong that can.
//!
//! The models are checked against the real ones, with random operations: `tests/consul/model.rs` and `tests/e2e/coordinating.rs`.
//!
//! The claims, whatever happens: no two candidates have an open gate, or one an open gate while another's write is still under way; no
//! write to KV, and none of the lock itself, with an older token after a newer one. And when the trouble is over, one of them leads.
//!
//! Two things void the first claim and are counted instead: a process stopped between asking its gate and sending its write, and a clock
//! that jumps or stands still. The claims about tokens hold all the same, and the object's version guards what was changed meanwhile.

#[path = "../../tests/models/consul.rs"]
#[allow(dead_code, reason = "the tests that check the model use more of it")]
mod consul_model;
mod stores;
#[path = "../../tests/models/swarm.rs"]
#[allow(dead_code, reason = "the tests that check the model use more of it")]
mod swarm_model;
mod world;

use world::{Tally, Trouble, World};

use super::lease::Profile;
use super::swarm::slip::Kind;

/// Schedules in all, half of them with the lock in Consul.
const SCHEDULES: u64 = 10_000;

/// Virtual milliseconds of a schedule with trouble, and without afterwards: longer than a cool-down.
const TROUBLE: u64 = 90_000;
/// See [`TROUBLE`].
const QUIET: u64 = 100_000;

/// When a world without trouble surely has a leader.
const SETTLED: u64 = 20_000;

const KINDS: [Kind; 2] = [Kind::Consul, Kind::Swarm];

#[test]
fn nobody_writes_beside_another_and_in_the_end_somebody_leads() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let begin = std::time::Instant::now();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let run = |first| move || (first..SCHEDULES).step_by(threads).map(schedule).sum::<Tally>();
        let running: Vec<_> = (0..).take(threads).map(|first| scope.spawn(run(first))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("{SCHEDULES} schedules in {:?}: {}", begin.elapsed(), tallies.into_iter().sum::<Tally>());
}

fn schedule(seed: u64) -> Tally {
    let kind = KINDS[usize::try_from(seed % 2).unwrap()];
    // Clocks misbehave in a quarter of the schedules.
    let trouble = if seed / 2 % 4 == 3 { Trouble::WithClocks } else { Trouble::Plain };
    let mut world = World::new(kind, seed, trouble);
    world.run_until(TROUBLE);
    world.calm();
    world.run_until(TROUBLE + QUIET);
    let open = world.open();
    assert_eq!(open.len(), 1, "seed {seed}: {open:?} may write after the trouble is over");
    world.tally
}

/// A world without trouble that has a leader.
fn settled(kind: Kind, seed: u64) -> (World, usize) {
    let mut world = World::new(kind, seed, Trouble::None);
    world.run_until(SETTLED);
    let leader = world.open()[0];
    (world, leader)
}

#[track_caller]
fn another_leads_within(world: &mut World, leader: usize, ms: u64) {
    let end = world.now + ms;
    world.run_until(end);
    assert!(world.open().iter().any(|node| *node != leader), "{:?} after {ms} ms\n{world:?}", world.open());
}

fn ms(profile: Profile) -> u64 {
    u64::try_from((profile.lock_delay + profile.heartbeat).as_millis()).unwrap()
}

#[test]
fn without_trouble_the_first_leader_stays() {
    for kind in KINDS {
        let (mut world, _) = settled(kind, 1);
        let tokens = world.tokens.clone();
        assert_eq!(tokens.len(), 1);
        world.run_until(200_000);
        assert_eq!(world.tokens, tokens);
    }
}

#[test]
fn a_killed_leader_is_replaced_in_time() {
    for (kind, limit) in [(Kind::Consul, 12_200), (Kind::Swarm, 11_200)] {
        for seed in 0..50 {
            let (mut world, leader) = settled(kind, seed);
            world.run_until(SETTLED + seed * 100);
            world.stop(leader);
            another_leads_within(&mut world, leader, limit);
        }
    }
}

#[test]
fn a_leader_that_signs_off_is_replaced_at_once() {
    for kind in KINDS {
        let (mut world, leader) = settled(kind, 3);
        world.drain(leader);
        // Perhaps the same node, whose next process comes at once.
        world.run_until(SETTLED + world::WRITE_MAX + 800);
        assert!(world.open().len() == 1 && world.tokens.len() == 2, "{world:?}");
    }
}

#[test]
fn a_leader_that_steps_down_hands_over_and_does_not_win_again_at_once() {
    for kind in KINDS {
        let (mut world, leader) = settled(kind, 4);
        world.step_down(leader);
        another_leads_within(&mut world, leader, ms(Profile::DEFAULT));
        world.run_until(world.now + 120_000);
        assert!(!world.open().contains(&leader), "the one that followed stays");
    }
}
