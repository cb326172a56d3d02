//! The fault suite's judge, judged: to each rule a record that breaks it, and one that only looks like it.

#[path = "chaos/history.rs"]
mod history;

use history::{Leaders, judge};
use serde_json::{Value, json};
use swarmkeeper_lab::{Recorded, Target};

const LOCK: &str = "swarmkeeper/v1/lab/leader";
const SHOP: &str = "services/aaaaaaaaaaaaaaaaaaaaaaaaa/update?version=7";
const BLOG: &str = "services/bbbbbbbbbbbbbbbbbbbbbbbbb/update?version=7";

/// A request that arrives so many milliseconds after the beginning, is answered with 200, and takes 10 ms.
fn request(target: Target, at: u64, method: &str, path: &str, body: Option<Value>) -> Recorded {
    let time = format!("2026-01-01T00:{:02}:{:02}.{:03}Z", at / 60_000, at / 1_000 % 60, at % 1_000);
    let arrived = Recorded::arrived(time, "m1", target, method, path);
    Recorded { status: Some(200), body: body.map(|body| body.to_string()), millis: 10, ..arrived }
}

fn lasting(recorded: Recorded, millis: u64) -> Recorded {
    Recorded { millis, ..recorded }
}

fn answered(recorded: Recorded, status: Option<u16>) -> Recorded {
    Recorded { status, ..recorded }
}

fn engine(at: u64, token: u64, path: &str, body: Value) -> Recorded {
    let user_agent = Some(format!("swarmkeeper/0.1.0 (token={token})"));
    Recorded { user_agent, ..request(Target::Engine, at, "POST", &format!("/v1.41/{path}"), Some(body)) }
}

/// The commit with this number, rolled out.
fn commit(at: u64, token: u64, number: u64) -> Recorded {
    let env = [format!("COMMIT={number}")];
    engine(at, token, SHOP, json!({"Name": "shop_web", "TaskTemplate": {"ContainerSpec": {"Env": env}}}))
}

fn txn(at: u64, operations: &[Value]) -> Recorded {
    let operations: Vec<Value> = operations.iter().map(|operation| json!({"KV": operation})).collect();
    request(Target::Consul, at, "PUT", "/v1/txn", Some(json!(operations)))
}

fn acquired(at: u64, session: &str) -> Recorded {
    txn(
        at,
        &[
            json!({"Verb": "check-index", "Key": LOCK, "Index": 3}),
            json!({"Verb": "lock", "Key": LOCK, "Value": "", "Session": session}),
        ],
    )
}

fn fenced(at: u64, session: &str, token: u64) -> Recorded {
    txn(
        at,
        &[
            json!({"Verb": "check-session", "Key": LOCK, "Session": session}),
            json!({"Verb": "check-index", "Key": LOCK, "Index": token}),
            json!({"Verb": "set", "Key": "swarmkeeper/v1/lab/stacks/shop", "Value": ""}),
        ],
    )
}

/// A record that begins with two leaders in order; `more` comes from 10 s on.
fn check<const N: usize>(leaders: Leaders, more: [Recorded; N], expect: Result<&str, &str>) {
    let mut record = vec![acquired(0, "s1"), fenced(100, "s1", 10), commit(200, 10, 1)];
    record.extend([acquired(5_000, "s2"), fenced(5_100, "s2", 20), commit(5_200, 20, 2)]);
    record.extend(more);
    let said = judge(&record, leaders).map(|lines| lines.join("\n")).map_err(|error| format!("{error:#}"));
    let fits = match (&said, expect) {
        (Ok(said), Ok(words)) | (Err(said), Err(words)) => said.contains(words),
        _ => false,
    };
    assert!(fits, "{said:?}, expected {expect:?}");
}

#[test]
fn a_quiet_change_of_leaders_is_well() {
    check(Leaders::Ours, [], Ok("of leaders already replaced: 0"));
    check(Leaders::Ours, [], Ok("acquisitions of the lock: 2"));
}

#[test]
fn a_service_that_goes_back_to_an_earlier_commit_is_found() {
    check(Leaders::Ours, [commit(10_000, 20, 1)], Err("shop_web went from commit 2 back to 1"));
}

#[test]
fn a_commit_left_out_is_no_fault() {
    check(Leaders::Ours, [commit(10_000, 20, 7)], Ok("commits applied to services: 3"));
}

#[test]
fn a_write_to_a_service_without_a_token_is_found() {
    let anonymous = request(Target::Engine, 10_000, "POST", &format!("/v1.41/{BLOG}"), Some(json!({})));
    check(Leaders::Ours, [anonymous], Err("who wrote this?"));
}

#[test]
fn an_older_token_in_kv_after_a_newer_is_found() {
    check(Leaders::Ours, [fenced(10_000, "s2", 10)], Err("a KV write of token 10 after one of 20"));
}

#[test]
fn one_that_consul_refused_is_what_the_fence_is_for() {
    check(Leaders::Ours, [answered(fenced(10_000, "s1", 10), Some(409))], Ok("Consul refused 1"));
}

#[test]
fn one_that_was_under_way_when_the_newer_came_may_have_been_first() {
    let slow = lasting(fenced(4_900, "s1", 10), 400);
    check(Leaders::Ours, [slow], Ok("none older after a newer"));
}

#[test]
fn a_former_holders_write_is_found_though_its_successor_wrote_nothing() {
    let third = acquired(9_000, "s3");
    check(Leaders::Ours, [third, fenced(10_000, "s2", 20)], Err("session s3 held the lock"));
}

#[test]
fn a_session_that_takes_the_lock_again_has_another_token() {
    let again = acquired(9_000, "s2");
    check(Leaders::Ours, [again.clone(), fenced(9_100, "s2", 30)], Ok("acquisitions of the lock: 3"));
    check(Leaders::Ours, [again, fenced(9_100, "s2", 30), fenced(10_000, "s2", 20)], Err("token 20 after one of 30"));
}

#[test]
fn a_write_to_kv_that_nothing_checks_is_found() {
    let put = |path| request(Target::Consul, 10_000, "PUT", path, None);
    check(Leaders::Ours, [put("/v1/kv/swarmkeeper/v1/lab/stacks/shop")], Err("no check of the lock"));
    check(Leaders::Ours, [put("/v1/kv/swarmkeeper/v1/lab/nodes/m2?cas=4")], Err("no check of the lock"));
    check(Leaders::Ours, [put("/v1/kv/swarmkeeper/v1/lab/nodes/m1?cas=4")], Ok("1 of nodes"));
    let bare = txn(10_000, &[json!({"Verb": "set", "Key": "swarmkeeper/v1/lab/stacks/shop", "Value": ""})]);
    check(Leaders::Ours, [bare], Err("no check of the lock"));
    let blind = txn(10_000, &[json!({"Verb": "lock", "Key": LOCK, "Value": "", "Session": "s3"})]);
    check(Leaders::Ours, [blind], Err("taken blindly"));
}

#[test]
fn only_an_older_release_may_leave_the_token_out() {
    let by_session = txn(
        10_000,
        &[
            json!({"Verb": "check-session", "Key": LOCK, "Session": "s2"}),
            json!({"Verb": "delete", "Key": "swarmkeeper/v1/lab/stacks/shop"}),
        ],
    );
    check(Leaders::Ours, [by_session.clone()], Err("no check of the token"));
    check(Leaders::Mixed, [by_session], Ok("1 of session alone"));
}

#[test]
fn one_residual_write_is_counted_and_two_are_too_many() {
    let residual = engine(10_000, 10, BLOG, json!({}));
    check(Leaders::Ours, [residual.clone()], Ok("of leaders already replaced: 1\n"));
    let unanswered = answered(engine(4_000, 10, BLOG, json!({})), None);
    check(Leaders::Ours, [residual, lasting(unanswered, 2_000)], Err("more than one write"));
}

#[test]
fn a_residual_write_that_undoes_its_successors_is_found() {
    let undone = engine(10_000, 10, SHOP, json!({}));
    check(Leaders::Ours, [undone.clone()], Err("undid what its successor had done"));
    check(Leaders::Ours, [answered(undone, Some(400))], Ok("of leaders already replaced: 1\n"));
}

#[test]
fn a_write_by_name_is_found() {
    check(Leaders::Ours, [engine(10_000, 20, "services/shop_web/update?version=7", json!({}))], Err("not by its ID"));
}

#[test]
fn the_config_that_says_where_the_lock_is_belongs_to_no_leader() {
    let path = "configs/ccccccccccccccccccccccccc/update?version=7";
    check(Leaders::Ours, [engine(10_000, 10, path, json!({"Name": "swarmkeeper-leader"}))], Ok("replaced: 0"));
}
