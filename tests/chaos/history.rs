//! What the recorders saw, judged by the promises that `swarmkeeper::leader` makes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarmkeeper_lab::{Recorded, Target};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// The lab's cluster: where its lock is.
const LOCK: &str = "swarmkeeper/v1/lab/leader";

/// When a request came and when its answer went.
fn span(request: &Recorded) -> Result<(OffsetDateTime, OffsetDateTime)> {
    let came = OffsetDateTime::parse(&request.time, &Rfc3339).with_context(|| request.to_string())?;
    Ok((came, came + Duration::milliseconds(request.millis.try_into()?)))
}

/// Successful writes to services.
fn service_writes(seen: &[Recorded]) -> impl Iterator<Item = &Recorded> {
    let succeeded = |request: &&Recorded| matches!(request.status, Some(200 | 201));
    seen.iter()
        .filter(|request| request.is_swarm_write() && request.route().starts_with("/services/"))
        .filter(succeeded)
}

/// What was applied to each stack is a subsequence of the branch's history: no service went back to an earlier commit.
pub fn commits_were_applied_in_order(seen: &[Recorded]) -> Result<()> {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut applied = 0;
    for write in service_writes(seen) {
        let spec: Value = serde_json::from_str(write.body.as_deref().unwrap_or_default()).unwrap_or_default();
        let Some(name) = spec["Name"].as_str() else { continue };
        let mut variables = spec["TaskTemplate"]["ContainerSpec"]["Env"].as_array().into_iter().flatten();
        let number = variables.find_map(|text| text.as_str()?.strip_prefix("COMMIT=")?.parse::<u64>().ok());
        let Some(number) = number else { continue };
        let before = last.insert(name.to_owned(), number).unwrap_or_default();
        ensure!(number >= before, "{name} went from commit {before} back to {number}: {write}");
        applied += 1;
    }
    println!("applied commits: {applied}, each stack's in the branch's order");
    Ok(())
}

/// Every change of a service came from a leader, and says from which.
pub fn every_spec_was_written_by_us(seen: &[Recorded]) -> Result<()> {
    for write in service_writes(seen) {
        ensure!(token(write).is_some(), "who wrote this? {write}");
    }
    Ok(())
}

/// A write of a leader to Consul's KV succeeded only while it held the lock.
///
/// Consul checks it (`check-session`), and here it is seen that we asked it to: of two holders, no write of the first *begins* and
/// succeeds after the second's acquisition has been answered.
pub fn no_stale_kv_write(seen: &[Recorded]) -> Result<()> {
    // When each acquisition was answered, and by which session.
    let mut holders: Vec<(OffsetDateTime, String)> = Vec::new();
    let mut guarded = 0;
    let transactions = seen.iter().filter(|request| request.target == Target::Consul && request.route() == "/v1/txn");
    for request in transactions.filter(|request| request.status == Some(200)) {
        let (came, answered) = span(request)?;
        let body: Value = serde_json::from_str(request.body.as_deref().unwrap_or_default()).unwrap_or_default();
        let operations: Vec<&Value> = body.as_array().into_iter().flatten().map(|operation| &operation["KV"]).collect();
        let session_of = |verb: &str| {
            let on_lock = |operation: &&&Value| operation["Verb"] == verb && operation["Key"] == LOCK;
            operations.iter().find(on_lock).and_then(|operation| operation["Session"].as_str()).map(str::to_owned)
        };
        if let Some(session) = session_of("lock") {
            holders.push((answered, session));
        } else if let Some(session) = session_of("check-session") {
            guarded += 1;
            let holder = holders.iter().rfind(|(acquired, _)| *acquired < came);
            if let Some((_, holder)) = holder {
                let regained = holders.iter().any(|(acquired, by)| *by == session && *acquired >= came);
                ensure!(*holder == session || regained, "session {holder} held the lock: {request}");
            }
        }
    }
    println!("KV writes under the lock: {guarded} by {} acquisitions, none stale", holders.len());
    ensure!(guarded > 0, "the leaders wrote nothing to KV");
    Ok(())
}

/// An engine cannot check tokens: at most one write of a suspended leader may arrive after its successor has begun to write.
pub fn stale_engine_writes_are_few(seen: &[Recorded]) -> Result<()> {
    let mut newest = 0;
    let mut stale: BTreeMap<u64, usize> = BTreeMap::new();
    for write in seen.iter().filter(|request| request.is_swarm_write() && request.status.is_some()) {
        let Some(token) = token(write) else { continue };
        if token < newest {
            *stale.entry(token).or_default() += 1;
            println!("a residual write of token {token} after {newest}: {write}");
        }
        newest = newest.max(token);
    }
    println!("engine writes of suspended leaders after their successors': {}", stale.values().sum::<usize>());
    ensure!(stale.values().all(|count| *count <= 1), "more than one write of a leader that was replaced: {stale:?}");
    Ok(())
}

/// The fencing token in the User-Agent.
fn token(write: &Recorded) -> Option<u64> {
    write.user_agent.as_deref()?.split("token=").nth(1)?.trim_end_matches(')').parse().ok()
}
