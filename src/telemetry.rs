//! The metrics: their names, what they mean, and the recorder.
//!
//! Names are constants so that a dashboard breaks in one place. Labels have few values: a stack, a result, a state.

use std::collections::BTreeMap;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::model::StackName;
use crate::status::StackStatus;

/// 1 for each stack's present `state` and `revision`, 0 for those it has left.
pub const STACK_INFO: &str = "swarmkeeper_stack_info";
/// Seconds of a whole pass over all stacks.
pub const RECONCILE_DURATION: &str = "swarmkeeper_reconcile_duration_seconds";
/// Passes over a stack by `stack` and `result` (`unchanged`, `changed`, `failed`).
pub const SYNC_TOTAL: &str = "swarmkeeper_sync_total";
/// 1 on the leader, 0 elsewhere.
pub const LEADER: &str = "swarmkeeper_leader";
/// Times that this agent began or ceased to lead.
pub const LEADER_TRANSITIONS: &str = "swarmkeeper_leader_transitions_total";
/// Services of this node in Consul.
pub const REGISTERED_SERVICES: &str = "swarmkeeper_registered_services";

/// Bounds of the histograms' buckets, in seconds: from an empty pass to a rollout.
const SECONDS_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// Installs the process' recorder and tells it what the metrics mean; once per process.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, SECONDS_BUCKETS)?;
    let handle = builder.install_recorder()?;
    describe();
    Ok(handle)
}

/// The stacks' gauges. Prometheus keeps what was once said, so a stack's former labels must be set to 0.
#[derive(Debug, Default)]
pub struct StackGauges {
    shown: BTreeMap<StackName, Labels>,
}

type Labels = [(&'static str, String); 3];

impl StackGauges {
    /// Shows these stacks and no others.
    pub fn show(&mut self, stacks: &[StackStatus]) {
        let now: BTreeMap<_, _> = stacks.iter().map(|stack| (stack.name.clone(), labels(stack))).collect();
        for (name, former) in &self.shown {
            if now.get(name) != Some(former) {
                gauge!(STACK_INFO, former).set(0.0);
            }
        }
        for present in now.values() {
            gauge!(STACK_INFO, present).set(1.0);
        }
        self.shown = now;
    }
}

fn labels(stack: &StackStatus) -> Labels {
    let revision = stack.revision.as_ref().map(ToString::to_string).unwrap_or_default();
    [("stack", stack.name.to_string()), ("state", stack.state.word().to_owned()), ("revision", revision)]
}

fn describe() {
    describe_gauge!(STACK_INFO, "1 for each stack's present state and revision");
    describe_histogram!(RECONCILE_DURATION, Unit::Seconds, "Seconds of a whole pass over all stacks");
    describe_counter!(SYNC_TOTAL, "Passes over a stack by result");
    describe_gauge!(LEADER, "1 on the leader, 0 elsewhere");
    describe_counter!(LEADER_TRANSITIONS, "Times that this agent began or ceased to lead");
    describe_gauge!(REGISTERED_SERVICES, "Services of this node in Consul");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Revision;
    use crate::status::StackState;

    fn stack(state: StackState) -> StackStatus {
        StackStatus {
            name: StackName::new("shop").unwrap(),
            state,
            revision: Some(Revision("9f2c1ab00".into())),
            note: String::new(),
            next: None,
            services: vec![],
            notes: vec![],
            log: Vec::new(),
            warnings: vec![],
        }
    }

    #[test]
    fn a_state_that_a_stack_has_left_is_taken_back() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let rendered = metrics::with_local_recorder(&recorder, || {
            let mut gauges = StackGauges::default();
            gauges.show(&[stack(StackState::Ok)]);
            gauges.show(&[stack(StackState::Drift)]);
            recorder.handle().render()
        });
        assert!(rendered.contains(r#"{stack="shop",state="ok",revision="9f2c1ab"} 0"#), "{rendered}");
        assert!(rendered.contains(r#"{stack="shop",state="drift",revision="9f2c1ab"} 1"#), "{rendered}");
    }

    #[test]
    fn states_are_spelled_as_in_json() {
        for state in [StackState::Ok, StackState::Rolling, StackState::Held, StackState::Approve, StackState::Orphan] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
    }
}
