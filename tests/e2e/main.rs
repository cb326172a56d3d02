//! End to end: our image on a real swarm of four nodes, with real Consul, registries and git.
//!
//! One lab serves all tests, which run one after the other; each uses stacks of its own name. Every claim of "no write" comes from
//! the recording proxies before the engines and Consul, of which the agents know nothing, and never from our own logs.
//!
//!     cargo test --test e2e                      all, on a lab of their own
//!     cargo test --test e2e -- adopted           those with "adopted" in their name

// A case fails by its error or a panic, every step of a case is awaited alike, and texts are built once.
#![allow(
    clippy::expect_used,
    clippy::unused_async,
    clippy::unused_self,
    clippy::format_push_string,
    clippy::needless_pass_by_value
)]

mod adopting;
mod clients;
mod conduct;
mod coordinating;
mod deploying;
mod faults;
mod history;
mod leading;
mod leaving;
mod registering;
mod rollouts;
mod securing;
mod world;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, OnceLock, PoisonError};

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use tokio::runtime::Runtime;
use world::World;

type Case = fn(&World) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + '_>>;

/// Names a case by its function.
macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        vec![$((concat!(stringify!($module), "::", stringify!($case)), (|world| Box::pin($module::$case(world))) as Case)),*]
    };
}

fn main() {
    let mut arguments = Arguments::from_args();
    // The cases share one swarm.
    arguments.test_threads = Some(1);
    let cases = cases![
        deploying::a_commit_becomes_running_services,
        deploying::a_second_sync_writes_nothing,
        deploying::a_commit_that_touches_only_a_readme_writes_nothing,
        deploying::a_changed_config_is_rolled_out_under_a_new_name,
        deploying::a_template_is_rendered_with_its_values,
        deploying::a_stack_waits_for_the_one_it_comes_after,
        deploying::a_service_removed_from_git_is_removed_and_its_volume_stays,
        deploying::deploy_and_the_docker_cli_agree,
        deploying::a_stack_that_uses_every_kind_of_key_is_written_once,
        deploying::git_over_https_is_read_from_a_trusted_server_only,
        deploying::what_a_policy_forbids_is_refused_with_its_line,
        deploying::an_imported_stack_is_adopted_as_it_is,
        deploying::a_rollout_waits_for_consuls_checks_if_it_is_asked_to,
        conduct::a_stack_deployed_by_the_docker_cli_is_adopted_with_no_task_restarted,
        adopting::a_swarm_deployed_long_ago_is_adopted_as_it_has_become,
        conduct::a_broken_commit_changes_nothing_and_is_reported,
        conduct::a_git_server_that_is_down_leaves_everything_as_it_is,
        conduct::a_failing_image_is_rolled_back_and_not_tried_again,
        conduct::a_stack_removed_from_git_is_orphaned,
        conduct::the_brake_holds,
        conduct::drift_is_reported_and_not_corrected,
        conduct::what_became_of_a_stack_is_told_once,
        conduct::the_doctor_finds_every_node_well_and_names_a_rival,
        conduct::a_paused_stack_stays_paused_when_consul_forgets_everything,
        history::history_shows_what_ran,
        history::a_rollback_returns_to_the_digest_though_the_tag_has_moved,
        history::a_rollback_to_a_digest_that_is_gone_is_refused,
        history::a_restart_replaces_the_tasks_of_exactly_that_service,
        history::all_stacks_are_paused_and_resumed_together,
        rollouts::a_migration_job_gates_its_service,
        rollouts::a_failing_migration_leaves_the_old_service_running,
        rollouts::a_stack_goes_back_as_a_whole,
        rollouts::a_changed_network_is_made_anew_if_asked_for,
        rollouts::two_generations_of_a_secret_are_kept,
        rollouts::ignored_replicas_survive_a_scale_and_an_update,
        registering::a_container_is_in_dns_while_it_runs,
        registering::a_healthcheck_decides_what_dns_answers,
        registering::an_unchanged_node_writes_nothing_to_consul,
        registering::a_strangers_registration_is_left_alone,
        registering::a_dead_agent_takes_nothing_out_of_dns,
        registering::a_stopping_container_is_out_of_dns_while_its_process_still_serves,
        registering::a_service_made_by_hand_is_registered_by_its_labels_once_per_node,
        registering::a_drained_node_leaves_dns_before_its_tasks_move,
        clients::agents_are_found_by_name_by_role_and_by_who_leads,
        clients::haproxy_fails_no_request_while_a_service_rolls,
        clients::prometheus_scrapes_every_agent,
        leading::a_webhook_with_a_bad_signature_does_nothing,
        leading::a_signed_webhook_deploys_at_once,
        leading::a_leader_that_is_told_to_stop_hands_over_at_once,
        leading::our_own_update_loses_no_sync,
        leading::a_leader_killed_in_the_middle_of_a_deploy_is_replaced_and_the_deploy_finished,
        coordinating::the_model_answers_as_the_swarm_does,
        coordinating::a_leader_that_steps_down_is_followed_by_another,
        faults::consul_restarted_on_every_node,
        faults::a_node_cut_off_and_back,
        faults::an_engine_restarted,
        faults::a_swarm_without_quorum_is_left_alone_and_said,
        securing::everything_works_where_everything_is_secured,
        leaving::leave_takes_our_things_away_and_nothing_else,
        // From here on without Consul.
        coordinating::without_consul_the_swarm_elects_a_leader_that_deploys,
        coordinating::without_consul_a_killed_leader_is_replaced,
        securing::without_consul_a_webhook_at_a_follower_reaches_the_leader_over_https,
    ];
    let trials = cases.into_iter().map(|(name, case)| Trial::test(name, move || run(case))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    finish(&conclusion);
    conclusion.exit();
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static WORLD: Mutex<Option<Result<World, String>>> = Mutex::new(None);

fn runtime() -> &'static Runtime {
    RUNTIME.get_or_init(|| Runtime::new().expect("a tokio runtime"))
}

/// Runs one case on the world, which the first case raises.
fn run(case: Case) -> Result<(), Failed> {
    // One case at a time: nobody waits for this lock.
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let world = world.get_or_insert_with(|| runtime().block_on(World::up()).map_err(|error| format!("{error:#}")));
    let world = world.as_ref().map_err(|error| Failed::from(format!("the lab did not come up: {error}")))?;
    runtime().block_on(async {
        let outcome = case(world).await;
        if let Err(error) = outcome {
            return Err(Failed::from(format!("{error:#}\n\n{}", world.evidence().await)));
        }
        Ok(())
    })
}

/// Takes the lab away; after a failure `LAB_KEEP=1` leaves it standing for a look.
fn finish(conclusion: &Conclusion) {
    if let Some(Ok(world)) = WORLD.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let keep = conclusion.has_failed() && std::env::var_os("LAB_KEEP").is_some();
        runtime().block_on(world.down(keep));
    }
}
