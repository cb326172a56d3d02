//! How a service's rollout goes, judged from one look at it.
//!
//! Converged means: every wanted task runs the *current* spec, and swarm is not still updating. A rollback that completed is a
//! failure, whatever swarm calls it. Nothing here waits; the caller looks again.
//!
//! Tasks on nodes that are down are neither wanted nor waited for, and a service of zero tasks has converged. A job has when it is
//! complete; once swarm starts no further task of it, it has failed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::spec::{Node, Service, Task, TaskTemplate};

/// So many failed tasks of the new spec are a failed rollout.
pub const FAILURES_MAX: usize = 3;

/// A task counts once it has run for so long, unless the service says otherwise (`monitor`) or has a health check. Swarm's own
/// default for `monitor`.
pub const SETTLE: Duration = Duration::from_secs(5);

/// Swarm makes the tasks of a global service within this time; a service without any after it has no node to run on.
const SCHEDULING: Duration = Duration::from_secs(15);

/// Clocks of managers may differ by so much.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "progress")]
pub enum Progress {
    /// All wanted tasks run the current spec.
    Converged(Count),
    /// Not yet.
    Going(Count),
    /// Swarm, or somebody, brought the service back to its previous spec.
    RolledBack(Trouble),
    /// Swarm stopped the update and waits for a person.
    Paused(Trouble),
    /// Tasks keep failing, or the deadline has passed.
    Failed(Trouble),
}

impl Progress {
    /// What went wrong, if anything did.
    pub fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Converged(_) | Self::Going(_) => None,
            Self::RolledBack(trouble) | Self::Paused(trouble) | Self::Failed(trouble) => Some(trouble),
        }
    }
}

/// Tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Count {
    /// Running the current spec; for jobs, completed.
    pub running: u64,
    /// Wanted.
    pub wanted: u64,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// Tasks.
    pub count: Count,
    /// Such as `exit 1 on n17: task: non-zero exit (1)`.
    pub reason: String,
    /// The task to read the log of, if one failed.
    pub task: Option<String>,
}

/// The time a rollout has.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// When it began: older failures do not count.
    pub since: OffsetDateTime,
    /// When it counts as failed.
    pub deadline: OffsetDateTime,
}

/// Judges a service in a rollout, or, without a window, just as it runs.
pub fn judge(
    service: &Service,
    tasks: &[Task],
    nodes: &BTreeMap<String, Node>,
    window: Option<Window>,
    now: OffsetDateTime,
) -> Progress {
    let count = count(service, tasks, nodes, window.is_some(), now);
    let Some(window) = window else {
        return if count.running >= count.wanted { Progress::Converged(count) } else { Progress::Going(count) };
    };
    let update = service.update_status.as_ref();
    let state = update.map_or("", |update| update.state.as_str());
    let trouble = |fallback: &str, task: Option<&Task>| Trouble {
        count,
        reason: task.map_or_else(|| fallback.to_owned(), |task| task_error(task, nodes)),
        task: task.map(|task| task.id.clone()),
    };
    let message = update.map_or("", |update| update.message.as_str());
    let failed = failed_tasks(tasks, window.since);
    let is_current = |task: &&Task| runs(task, &service.spec.task_template);
    if state.starts_with("rollback_") {
        return Progress::RolledBack(trouble(message, failed.iter().find(|task| !is_current(task)).copied()));
    }
    let failures: Vec<&Task> = failed.into_iter().filter(is_current).collect();
    if state == "paused" {
        return Progress::Paused(trouble(message, failures.first().copied()));
    }
    if count.running >= count.wanted && state != "updating" {
        return Progress::Converged(count);
    }
    if failures.len() >= FAILURES_MAX || is_exhausted(service, &failures) {
        return Progress::Failed(trouble("tasks keep failing", failures.first().copied()));
    }
    if now >= window.deadline {
        let waited = Duration::try_from(window.deadline - window.since).unwrap_or_default();
        let waits = |task: &&Task| is_current(task) && is_to_run(task) && task.status.state != "running";
        // The one that says what it lacks, if one does.
        let waiting = tasks.iter().filter(waits).max_by_key(|task| !task.status.err.is_empty());
        let why = waiting.map(stuck).unwrap_or_default();
        let fallback =
            format!("{}/{} tasks after {}{why}", count.running, count.wanted, humantime::format_duration(waited));
        return Progress::Failed(trouble(&fallback, failures.first().copied()));
    }
    Progress::Going(count)
}

/// True if swarm starts no further task of a job that is not complete.
pub fn has_failed(service: &Service, tasks: &[Task], nodes: &BTreeMap<String, Node>) -> bool {
    // All of its failures count, and no deadline does.
    let since = OffsetDateTime::UNIX_EPOCH;
    let always = Window { since, deadline: since + SCHEDULING };
    let progress = judge(service, tasks, nodes, Some(always), since);
    matches!(progress, Progress::Failed(_))
}

/// True if a task of a job has failed so often that its restart policy gives it up: the job cannot be complete any more.
fn is_exhausted(service: &Service, failures: &[&Task]) -> bool {
    let mode = &service.spec.mode;
    if mode.replicated_job.is_none() && mode.global_job.is_none() {
        return false;
    }
    let policy = service.spec.task_template.restart_policy.as_ref();
    let attempts = match policy.map_or("", |policy| policy.condition.as_str()) {
        "none" => 1,
        _ => policy.and_then(|policy| policy.max_attempts).filter(|max| *max > 0).map_or(u64::MAX, |max| max + 1),
    };
    let mut failed: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    for task in failures {
        // Each task of a global job has its node, each of another its slot.
        let place = if mode.global_job.is_some() { (0, task.node_id.as_str()) } else { (task.slot, "") };
        *failed.entry(place).or_default() += 1;
    }
    failed.values().any(|count| *count >= attempts)
}

/// Tasks that run the current spec, and tasks wanted.
fn count(
    service: &Service,
    tasks: &[Task],
    nodes: &BTreeMap<String, Node>,
    rolling: bool,
    now: OffsetDateTime,
) -> Count {
    let mode = &service.spec.mode;
    let up = |task: &&Task| nodes.get(&task.node_id).is_none_or(|node| node.status.state != "down");
    let iteration = |version: Option<&crate::spec::Version>| version.map_or(0, |version| version.index);
    let this_run = |task: &&Task| {
        let of_service = service.job_status.as_ref().and_then(|job| job.job_iteration.as_ref());
        iteration(task.job_iteration.as_ref()) == iteration(of_service)
    };
    let completed = |task: &&Task| task.status.state == "complete";
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(job) = &mode.replicated_job {
        let wanted = job.total_completions.or(job.max_concurrent).unwrap_or(1);
        return Count { running: number(tasks.iter().filter(this_run).filter(completed).count()), wanted };
    }
    // Of a global service swarm says by its tasks on which nodes it is wanted; before it has made them nobody knows.
    let unscheduled = |made: u64| if made == 0 && is_fresh(service, now) { 1 } else { made };
    if mode.global_job.is_some() {
        let of_this_run: Vec<&Task> = tasks.iter().filter(this_run).filter(up).collect();
        let nodes: std::collections::BTreeSet<&str> = of_this_run.iter().map(|task| task.node_id.as_str()).collect();
        let running = number(of_this_run.iter().filter(|task| completed(task)).count());
        return Count { running, wanted: unscheduled(number(nodes.len())) };
    }
    let settle = if rolling { settle(service) } else { Duration::ZERO };
    let has_settled = |task: &&Task| {
        settle.is_zero()
            || timestamp(&task.status.timestamp).is_none_or(|since| since + settle <= now + Duration::from_millis(1))
    };
    let current = |task: &&Task| runs(task, &service.spec.task_template);
    let running = tasks
        .iter()
        .filter(|task| is_wanted(task) && task.status.state == "running")
        .filter(up)
        .filter(current)
        .filter(has_settled)
        .count();
    let wanted = if mode.global.is_some() {
        let wanted: std::collections::BTreeSet<&str> =
            tasks.iter().filter(|task| is_wanted(task)).filter(up).map(|task| task.node_id.as_str()).collect();
        unscheduled(number(wanted.len()))
    } else {
        mode.replicated.as_ref().and_then(|replicated| replicated.replicas).unwrap_or(1)
    };
    Count { running: number(running), wanted }
}

/// True if a task was made from this template. Both come from the engine, so that equal is equal; placement does not count, since
/// swarm keeps a task whose node meets the new placement too.
pub fn runs(task: &Task, template: &TaskTemplate) -> bool {
    let spec = &task.spec;
    spec.force_update == template.force_update
        && spec.container_spec == template.container_spec
        && spec.resources == template.resources
        && spec.restart_policy == template.restart_policy
        && spec.networks == template.networks
        && spec.log_driver == template.log_driver
}

/// The newest failed task of a service since a moment, told as a person would.
pub fn last_failure(tasks: &[Task], nodes: &BTreeMap<String, Node>, since: OffsetDateTime) -> Option<String> {
    failed_tasks(tasks, since).first().map(|task| task_error(task, nodes))
}

/// A date as the engine writes it.
pub fn timestamp(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Failed tasks since a moment, newest first.
fn failed_tasks(tasks: &[Task], since: OffsetDateTime) -> Vec<&Task> {
    let recent = |task: &&Task| timestamp(&task.status.timestamp).is_some_and(|at| at + CLOCK_SKEW >= since);
    let failed = |task: &&Task| matches!(task.status.state.as_str(), "failed" | "rejected");
    let mut found: Vec<&Task> = tasks.iter().filter(failed).filter(recent).collect();
    found.sort_by_key(|task| std::cmp::Reverse(timestamp(&task.status.timestamp)));
    found
}

fn is_wanted(task: &Task) -> bool {
    matches!(task.desired_state.as_str(), "running" | "ready" | "accepted")
}

/// The same, and tasks of jobs.
fn is_to_run(task: &Task) -> bool {
    is_wanted(task) || task.desired_state == "complete"
}

fn is_fresh(service: &Service, now: OffsetDateTime) -> bool {
    timestamp(&service.updated_at).is_some_and(|at| now < at + SCHEDULING)
}

fn settle(service: &Service) -> Duration {
    let health = service.spec.task_template.container_spec.healthcheck.as_ref();
    let checked = health
        .and_then(|health| health.test.as_ref())
        .is_some_and(|test| test.first().is_some_and(|word| word != "NONE"));
    if checked {
        return Duration::ZERO;
    }
    let monitor = service.spec.update_config.as_ref().map_or(0, |config| config.monitor);
    u64::try_from(monitor).ok().filter(|nanos| *nanos > 0).map_or(SETTLE, Duration::from_nanos)
}

/// Such as `exit 1 on n17: task: non-zero exit (1)`.
fn task_error(task: &Task, nodes: &BTreeMap<String, Node>) -> String {
    let node = nodes.get(&task.node_id).map_or("", |node| node.description.hostname.as_str());
    let on = if node.is_empty() { String::new() } else { format!(" on {node}") };
    let exit = task.status.container_status.as_ref().map_or(0, |container| container.exit_code);
    let error = if task.status.err.is_empty() { &task.status.message } else { &task.status.err };
    // "task: non-zero exit (1)" says no more than the code does.
    match (exit, error.starts_with("task: non-zero exit")) {
        (0, _) => format!("{}{on}: {error}", task.status.state),
        (exit, true) => {
            let detail = error.split_once("): ").map_or("", |(_, detail)| detail);
            format!("exit {exit}{on}{}{detail}", if detail.is_empty() { "" } else { ": " })
        }
        (exit, false) => format!("exit {exit}{on}: {error}"),
    }
}

fn stuck(task: &Task) -> String {
    let error = if task.status.err.is_empty() { String::new() } else { format!(": {}", task.status.err) };
    format!(", one is {}{error}", task.status.state)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A second of this test's minute and hour.
    fn at(minute_and_second: &str) -> OffsetDateTime {
        timestamp(&format!("2026-01-02T03:{minute_and_second}Z")).unwrap()
    }

    fn window() -> Window {
        Window { since: at("00:00"), deadline: at("10:00") }
    }

    fn service(mode: &serde_json::Value, update: &str) -> Service {
        let mut service: Service = serde_json::from_value(json!({
            "ID": "s", "UpdatedAt": "2026-01-02T03:00:00Z",
            "Spec": {"Name": "shop_api", "Mode": mode, "TaskTemplate": {"ContainerSpec": {"Image": "new"}}}
        }))
        .unwrap();
        if !update.is_empty() {
            service.update_status =
                Some(serde_json::from_value(json!({"State": update, "Message": "swarm says"})).unwrap());
        }
        service
    }

    fn job(condition: &str, max_attempts: u64) -> Service {
        let mut service = service(&json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 2}}), "");
        let policy = json!({"Condition": condition, "MaxAttempts": max_attempts});
        service.spec.task_template.restart_policy = serde_json::from_value(policy).unwrap();
        service
    }

    /// Judges a job whose tasks are told as `slot state`.
    fn check_job(job: &Service, tasks: &[&str], wanted: &str) {
        let tasks = tasks.iter().map(|text| {
            let (slot, state) = text.split_once(' ').unwrap();
            let desired = if state == "running" { "complete" } else { "shutdown" };
            let spec = job.spec.task_template.clone();
            Task { slot: slot.parse().unwrap(), spec, ..task(&format!("new {state} {desired}")) }
        });
        let tasks: Vec<Task> = tasks.collect();
        let progress = judge(job, &tasks, &nodes(), Some(window()), at("01:00"));
        assert_eq!(has_failed(job, &tasks, &nodes()), matches!(progress, Progress::Failed(_)));
        assert_eq!(in_words(progress), wanted);
    }

    /// `image state [desired [node [second]]]`
    fn task(text: &str) -> Task {
        let mut words = text.split(' ');
        let mut word = |default: &str| words.next().unwrap_or(default).to_owned();
        let (image, state, desired, node, second) = (word(""), word(""), word("running"), word("n1"), word("10"));
        serde_json::from_value(json!({
            "ID": format!("t-{text}"), "ServiceID": "s", "NodeID": node, "DesiredState": desired,
            "Spec": {"ContainerSpec": {"Image": image}},
            "Status": {"State": state, "Timestamp": format!("2026-01-02T03:00:{second}Z"),
                "Err": if state == "failed" { "task: non-zero exit (3)" } else { "" },
                "ContainerStatus": {"ExitCode": if state == "failed" { 3 } else { 0 }}}
        }))
        .unwrap()
    }

    fn nodes() -> BTreeMap<String, Node> {
        let node = |id: &str, state: &str| {
            let value = json!({"ID": id, "Description": {"Hostname": id}, "Status": {"State": state}});
            (id.to_owned(), serde_json::from_value(value).unwrap())
        };
        [node("n1", "ready"), node("n2", "ready"), node("gone", "down")].into()
    }

    fn check_at(now: OffsetDateTime, mode: &serde_json::Value, update: &str, tasks: &[&str], wanted: &str) {
        let tasks: Vec<Task> = tasks.iter().map(|text| task(text)).collect();
        assert_eq!(in_words(judge(&service(mode, update), &tasks, &nodes(), Some(window()), now)), wanted);
    }

    fn in_words(progress: Progress) -> String {
        match progress {
            Progress::Converged(count) => format!("converged {}/{}", count.running, count.wanted),
            Progress::Going(count) => format!("going {}/{}", count.running, count.wanted),
            Progress::RolledBack(trouble) => format!("rolled back: {}", trouble.reason),
            Progress::Paused(trouble) => format!("paused: {}", trouble.reason),
            Progress::Failed(trouble) => format!("failed: {}", trouble.reason),
        }
    }

    #[allow(clippy::needless_pass_by_value)] // Reads better at the many places that call it.
    fn check(mode: serde_json::Value, update: &str, tasks: &[&str], wanted: &str) {
        check_at(at("01:00"), &mode, update, tasks, wanted);
    }

    fn two() -> serde_json::Value {
        json!({"Replicated": {"Replicas": 2}})
    }

    #[test]
    fn converged_is_every_wanted_task_on_the_current_spec() {
        check(two(), "completed", &["new running", "new running running n2", "old shutdown shutdown"], "converged 2/2");
        check(two(), "", &["new running", "old running running n2"], "going 1/2");
        check(two(), "updating", &["new running", "new running running n2"], "going 2/2");
    }

    #[test]
    fn a_service_of_zero_tasks_has_converged() {
        check(json!({"Replicated": {"Replicas": 0}}), "", &[], "converged 0/0");
    }

    #[test]
    fn a_task_counts_once_it_has_run_for_a_while() {
        let soon = at("00:12");
        check_at(soon, &json!({"Replicated": {}}), "", &["new running"], "going 0/1");
        check(json!({"Replicated": {}}), "", &["new running"], "converged 1/1");
    }

    #[test]
    fn a_node_that_is_down_does_not_hang_a_global_service() {
        check(json!({"Global": {}}), "", &["new running", "new running running gone"], "converged 1/1");
        check(json!({"Global": {}}), "", &["new running", "old running running n2"], "going 1/2");
    }

    #[test]
    fn a_global_service_without_tasks_waits_for_swarm_to_make_them() {
        check_at(at("00:02"), &json!({"Global": {}}), "", &[], "going 0/1");
        check(json!({"Global": {}}), "", &[], "converged 0/0");
    }

    #[test]
    fn a_job_converges_when_it_is_complete() {
        let job = json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}});
        check(job.clone(), "", &["new complete complete", "new running complete n2"], "going 1/2");
        check(job, "", &["new complete complete", "new complete complete n2"], "converged 2/2");
        check(json!({"GlobalJob": {}}), "", &["new complete complete", "new complete complete n2"], "converged 2/2");
    }

    #[test]
    fn a_job_that_swarm_gives_up_is_not_waited_for() {
        check_job(&job("none", 0), &["1 complete", "2 failed"], "failed: exit 3 on n1");
        check_job(&job("on-failure", 1), &["1 failed", "2 failed"], "going 0/2");
        check_job(&job("on-failure", 1), &["1 running", "2 failed", "2 failed"], "failed: exit 3 on n1");
        check_job(&job("any", 0), &["1 failed", "1 running", "2 complete"], "going 1/2");
        check_job(&job("none", 0), &["1 complete", "2 complete"], "converged 2/2");
    }

    #[test]
    fn an_earlier_run_of_a_job_does_not_count() {
        let mut job = job("none", 0);
        job.job_status = serde_json::from_value(json!({"JobIteration": {"Index": 7}})).unwrap();
        check_job(&job, &["1 complete", "2 complete"], "going 0/2");
    }

    #[test]
    fn what_no_node_takes_fails_at_the_deadline_with_swarms_reason() {
        let mut stuck = task("new pending running");
        stuck.node_id.clear();
        stuck.status.err = "no suitable node (max replicas per node limit exceed)".into();
        let tasks = [task("new running"), task("new preparing running n2"), stuck];
        let late = judge(&service(&two(), ""), &tasks, &nodes(), Some(window()), at("10:00"));
        let wanted =
            "failed: 1/2 tasks after 10m, one is pending: no suitable node (max replicas per node limit exceed)";
        assert_eq!(in_words(late), wanted);
    }

    #[test]
    fn tasks_on_a_node_that_is_down_are_not_counted_as_running() {
        check(two(), "", &["new running", "new running running gone"], "going 1/2");
        check(two(), "", &["new running", "new running running gone", "new running running n2"], "converged 2/2");
    }

    #[test]
    fn a_rollback_is_told_with_the_error_of_the_task_that_failed() {
        // The service is back at "new" here, and "bad" is what had been tried.
        check(two(), "rollback_completed", &["new running", "bad failed shutdown n2"], "rolled back: exit 3 on n2");
        check(two(), "rollback_started", &["new running"], "rolled back: swarm says");
    }

    #[test]
    fn a_paused_update_is_a_failure() {
        check(two(), "paused", &["new failed shutdown n1"], "paused: exit 3 on n1");
    }

    #[test]
    fn three_failures_of_the_new_spec_are_a_failed_rollout() {
        let failed = ["new failed shutdown n1 20", "new failed shutdown n1 30", "new failed shutdown n2 40"];
        check(two(), "", &failed[..2], "going 0/2");
        check(two(), "", &failed, "failed: exit 3 on n2");
        check(two(), "", &["old failed shutdown", "old failed shutdown", "old failed shutdown"], "going 0/2");
    }

    #[test]
    fn a_deadline_tells_what_the_last_task_waits_for() {
        let late = at("10:00");
        check_at(
            late,
            &two(),
            "",
            &["new running", "new pending running n2"],
            "failed: 1/2 tasks after 10m, one is pending",
        );
    }
}
