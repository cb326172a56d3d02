//! What the recorders saw, judged by the promises of `swarmkeeper::leader`.
//!
//! A request takes effect at some moment between its arrival and its answer, and nobody knows when. So one came *after* another only if
//! it arrived when the other had been answered; two that overlap may have taken effect in either order, and prove nothing. A request
//! without an answer may have taken effect, or will.
//!
//! `tests/history.rs` shows to each rule a record that breaks it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use swarmkeeper_lab::{Recorded, Target};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// What the keys of the lab's cluster begin with.
const ROOT: &str = "swarmkeeper/v1/lab/";

/// Where its lock is.
const LOCK: &str = "swarmkeeper/v1/lab/leader";

/// The config that says where the lock is. Every agent may write it, at its start: it is no leader's.
const MANDATE: &str = "swarmkeeper-leader";

/// How many letters and digits the engine's IDs have.
const ID_LENGTH: usize = 25;

/// Whether leaders of the release before this one took part: those hold their KV writes by the session alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaders {
    /// All are of this version.
    Ours,
    /// Some are older.
    Mixed,
}

/// Judges a whole record by every rule. Gives what was counted, a line each.
pub fn judge(record: &[Recorded], leaders: Leaders) -> Result<Vec<String>> {
    let seen: Vec<Seen<'_>> = record.iter().map(Seen::new).collect::<Result<_>>()?;
    Ok(vec![
        commits_were_applied_in_order(&seen)?,
        service_writes_say_whose_they_are(&seen)?,
        kv_writes_are_fenced(&seen, leaders)?,
        no_older_token_writes_kv_after_a_newer(&seen)?,
        nobody_writes_kv_after_anothers_acquisition(&seen)?,
        engine_writes_are_as_promised(&seen)?,
    ])
}

/// A request, read.
struct Seen<'a> {
    request: &'a Recorded,
    came: OffsetDateTime,
    ended: OffsetDateTime,
    body: Value,
}

impl<'a> Seen<'a> {
    fn new(request: &'a Recorded) -> Result<Self> {
        let came = OffsetDateTime::parse(&request.time, &Rfc3339).with_context(|| request.to_string())?;
        let body = request.body.as_deref().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
        Ok(Self { request, came, ended: came + Duration::milliseconds(request.millis.try_into()?), body })
    }

    fn succeeded(&self) -> bool {
        matches!(self.request.status, Some(200..300))
    }

    /// The fencing token that a leader's write to the engine says.
    fn token(&self) -> Option<u64> {
        self.request.user_agent.as_deref()?.split("token=").nth(1)?.trim_end_matches(')').parse().ok()
    }

    /// The object that a write to the engine is about, such as `services/x3ti4…`; none for one that is being made.
    fn object(&self) -> Option<&str> {
        let object = self.request.route().trim_start_matches('/');
        let object = object.strip_suffix("/update").unwrap_or(object);
        (!object.ends_with("/create")).then_some(object)
    }

    /// The operations of a transaction in Consul's KV.
    fn operations(&self) -> Option<Vec<&Value>> {
        let is_txn = self.request.target == Target::Consul && self.request.route() == "/v1/txn";
        is_txn.then(|| self.body.as_array().into_iter().flatten().map(|operation| &operation["KV"]).collect())
    }

    /// What a transaction does to the lock with this verb.
    fn on_lock(&self, verb: &str) -> Option<&Value> {
        self.operations()?.into_iter().find(|operation| operation["Verb"] == verb && operation["Key"] == LOCK)
    }
}

/// The newest token of all that happened before a moment.
struct Newest(Vec<(OffsetDateTime, u64)>);

impl Newest {
    fn new(events: impl Iterator<Item = (OffsetDateTime, u64)>) -> Self {
        let mut events: Vec<_> = events.collect();
        events.sort_unstable();
        let mut newest = 0;
        for (_, token) in &mut events {
            newest = newest.max(*token);
            *token = newest;
        }
        Self(events)
    }

    fn before(&self, moment: OffsetDateTime) -> u64 {
        let count = self.0.partition_point(|(at, _)| *at < moment);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// Writes to swarm's objects that were carried out, or may have been.
fn engine_writes<'a, 'b>(seen: &'b [Seen<'a>]) -> impl Iterator<Item = &'b Seen<'a>> {
    seen.iter().filter(|write| write.request.is_swarm_write() && write.body["Name"] != MANDATE)
}

fn service_writes<'a, 'b>(seen: &'b [Seen<'a>]) -> impl Iterator<Item = &'b Seen<'a>> {
    engine_writes(seen).filter(|write| write.succeeded() && write.request.route().starts_with("/services/"))
}

/// What was applied to each stack is a subsequence of the branch's history: no service went back to an earlier commit.
fn commits_were_applied_in_order(seen: &[Seen<'_>]) -> Result<String> {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut applied = 0;
    for write in service_writes(seen) {
        let Some(name) = write.body["Name"].as_str() else { continue };
        let mut variables = write.body["TaskTemplate"]["ContainerSpec"]["Env"].as_array().into_iter().flatten();
        let number = variables.find_map(|text| text.as_str()?.strip_prefix("COMMIT=")?.parse::<u64>().ok());
        let Some(number) = number else { continue };
        let before = last.insert(name, number).unwrap_or_default();
        ensure!(number >= before, "{name} went from commit {before} back to {number}: {}", write.request);
        applied += 1;
    }
    Ok(format!("commits applied to services: {applied}, each service's in the branch's order"))
}

/// Every change of a service came from a leader, and says from which.
fn service_writes_say_whose_they_are(seen: &[Seen<'_>]) -> Result<String> {
    let mut by: BTreeMap<u64, usize> = BTreeMap::new();
    for write in service_writes(seen) {
        let token = write.token().with_context(|| format!("who wrote this? {}", write.request))?;
        *by.entry(token).or_default() += 1;
    }
    Ok(format!("writes to services: {} by {} terms", by.values().sum::<usize>(), by.len()))
}

/// Whatever is written below the cluster's keys, Consul checks the lock in the same transaction; but for the lock itself, the claim on
/// the cluster's name, and each node's own key.
fn kv_writes_are_fenced(seen: &[Seen<'_>], leaders: Leaders) -> Result<String> {
    let (mut fenced, mut by_session, mut own) = (0, 0, 0);
    for write in seen.iter().filter(|write| write.request.is_kv_write()) {
        let request = write.request;
        if let Some(operations) = write.operations() {
            let has = |at: usize, verb| operations.get(at).is_some_and(|op| op["Verb"] == verb && op["Key"] == LOCK);
            if write.on_lock("lock").is_some() {
                ensure!(has(0, "check-index") || has(0, "check-not-exists"), "the lock was taken blindly: {request}");
                continue;
            }
            ensure!(has(0, "check-session"), "no check of the lock: {request} {}", write.body);
            if has(1, "check-index") {
                fenced += 1;
            } else {
                ensure!(leaders == Leaders::Mixed, "no check of the token: {request} {}", write.body);
                by_session += 1;
            }
        } else if let Some(key) = request.route().strip_prefix("/v1/kv/").and_then(|key| key.strip_prefix(ROOT)) {
            let fits = match key {
                "leader" => request.path.contains("release="),
                "cluster" => request.path.contains("cas=0"),
                _ => key.strip_prefix("nodes/").is_some_and(|node| node == request.node),
            };
            ensure!(fits, "no check of the lock: {request}");
            own += 1;
        }
    }
    ensure!(fenced + by_session > 0, "the leaders wrote nothing to KV");
    Ok(format!(
        "KV writes: {fenced} with a check of session and token, {by_session} of session alone, {own} of nodes and locks themselves"
    ))
}

/// A leader's write to KV with an older token never succeeds after one with a newer token.
fn no_older_token_writes_kv_after_a_newer(seen: &[Seen<'_>]) -> Result<String> {
    let done = |write: &&Seen<'_>| write.succeeded();
    let fenced: Vec<(&Seen<'_>, u64)> = seen
        .iter()
        .filter(done)
        .filter_map(|write| Some((write, write.on_lock("check-index")?["Index"].as_u64()?)))
        .filter(|(write, _)| write.on_lock("lock").is_none())
        .collect();
    let newest = Newest::new(fenced.iter().map(|(write, token)| (write.ended, *token)));
    for (write, token) in &fenced {
        let before = newest.before(write.came);
        ensure!(before <= *token, "a KV write of token {token} after one of {before}: {}", write.request);
    }
    let refused =
        seen.iter().filter(|write| write.request.status == Some(409) && write.on_lock("check-session").is_some());
    Ok(format!(
        "KV writes with a token: {}, none older after a newer; Consul refused {}",
        fenced.len(),
        refused.count()
    ))
}

/// The same by sessions, which also sees leaders that wrote nothing: of two holders, no write of the first arrives and succeeds after
/// the second's acquisition has been answered.
fn nobody_writes_kv_after_anothers_acquisition(seen: &[Seen<'_>]) -> Result<String> {
    let mut acquired: Vec<(OffsetDateTime, OffsetDateTime, &str, &str)> = Vec::new();
    for write in seen.iter().filter(|write| write.succeeded()) {
        if let Some(session) = write.on_lock("lock").and_then(|lock| lock["Session"].as_str()) {
            acquired.push((write.came, write.ended, session, &write.request.node));
        }
    }
    acquired.sort_unstable();
    for write in seen.iter().filter(|write| write.succeeded() && write.on_lock("lock").is_none()) {
        let Some(session) = write.on_lock("check-session").and_then(|check| check["Session"].as_str()) else {
            continue;
        };
        let Some((_, _, holder, _)) = acquired.iter().rfind(|(_, ended, ..)| *ended < write.came) else { continue };
        // One that was still being acquired when the write came may have been first, or since.
        let meanwhile =
            acquired.iter().any(|(came, ended, by, _)| *by == session && *ended >= write.came && *came <= write.ended);
        ensure!(*holder == session || meanwhile, "session {holder} held the lock: {}", write.request);
    }
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    for (.., node) in &acquired {
        *by.entry(node).or_default() += 1;
    }
    Ok(format!("acquisitions of the lock: {} {by:?}", acquired.len()))
}

/// An engine cannot check tokens. So of a leader that was replaced one write at most is still under way, or sent, when its successor has
/// begun to write; and it changes nothing that the successor has changed.
fn engine_writes_are_as_promised(seen: &[Seen<'_>]) -> Result<String> {
    let writes: Vec<(&Seen<'_>, u64)> = engine_writes(seen).filter_map(|write| Some((write, write.token()?))).collect();
    let begun = Newest::new(writes.iter().map(|(write, token)| (write.came, *token)));
    let mut residual: BTreeMap<u64, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    for (write, token) in &writes {
        let request = write.request;
        if let Some(object) = write.object() {
            let mut words = object.split('/').skip(1);
            let is_id = |id: &str| id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            ensure!(words.next().is_none_or(is_id), "a write to an object not by its ID: {request}");
        }
        let newer = begun.before(write.ended);
        if newer <= *token {
            continue;
        }
        *residual.entry(*token).or_default() += 1;
        lines.push(format!("\n      token {token} after {newer} had begun: {request}"));
        if let Some(object) = write.object().filter(|_| write.succeeded()) {
            let changed = writes.iter().find(|(other, by)| {
                by > token && other.succeeded() && other.object() == Some(object) && other.ended < write.came
            });
            if let Some((other, _)) = changed {
                bail!("{request} with token {token} undid what its successor had done: {}", other.request);
            }
        }
    }
    let lines = lines.concat();
    ensure!(residual.values().all(|count| *count <= 1), "more than one write of a leader that was replaced:{lines}");
    let unanswered = writes.iter().filter(|(write, _)| write.request.status.is_none()).count();
    let (count, all) = (residual.len(), writes.len());
    Ok(format!(
        "engine writes with a token: {all}, {unanswered} without an answer; of leaders already replaced: {count}{lines}"
    ))
}
