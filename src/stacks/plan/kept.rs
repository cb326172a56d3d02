//! What a write leaves as it lives: fields that `swarmkeeper.ignore` names.

use super::services::keep_replicas;
use crate::model::{Field, Ignored, LABEL_IGNORE};
use crate::spec::{LABEL_IMAGE, LABEL_NAMESPACE, Labels, ServiceSpec};

/// Puts the live values of ignored fields into a spec. The image is chosen elsewhere; here only its text in the label follows it.
pub(super) fn keep(spec: &mut ServiceSpec, live: &ServiceSpec, ignored: &Ignored) {
    for field in ignored.fields() {
        match field {
            Field::Replicas => keep_replicas(&mut spec.mode, &live.mode, false),
            Field::Image => keep_label(spec, live, LABEL_IMAGE),
            Field::Resources => spec.task_template.resources.clone_from(&live.task_template.resources),
            Field::Placement => {
                // What the image runs on belongs to the image.
                let platforms = spec.task_template.placement.as_mut().and_then(|placement| placement.platforms.take());
                spec.task_template.placement.clone_from(&live.task_template.placement);
                super::image::put_platforms(spec, platforms);
            }
            Field::Env(None) => {
                spec.task_template.container_spec.env.clone_from(&live.task_template.container_spec.env);
            }
            Field::Env(Some(name)) => keep_variable(spec, live, name),
            Field::Labels(None) => keep_labels(spec, live),
            Field::Labels(Some(name)) if is_ours(name) => {}
            Field::Labels(Some(name)) => keep_label(spec, live, name),
        }
    }
}

/// Labels by which we and Docker know a stack's services again.
fn is_ours(name: &str) -> bool {
    [LABEL_NAMESPACE, LABEL_IMAGE, LABEL_IGNORE].contains(&name)
}

fn keep_labels(spec: &mut ServiceSpec, live: &ServiceSpec) {
    let ours = spec.labels.take().unwrap_or_default().into_iter().filter(|(name, _)| is_ours(name));
    let theirs = live.labels.iter().flatten().filter(|(name, _)| !is_ours(name));
    let labels: Labels = theirs.map(|(name, value)| (name.clone(), value.clone())).chain(ours).collect();
    spec.labels = Some(labels);
}

fn keep_label(spec: &mut ServiceSpec, live: &ServiceSpec, name: &str) {
    let labels = spec.labels.get_or_insert_default();
    match live.labels.as_ref().and_then(|labels| labels.get(name)) {
        Some(value) => drop(labels.insert(name.to_owned(), value.clone())),
        None => drop(labels.remove(name)),
    }
}

fn keep_variable(spec: &mut ServiceSpec, live: &ServiceSpec, name: &str) {
    let is_it = |line: &&String| line.split_once('=').map_or(line.as_str(), |(name, _)| name) == name;
    let lives = live.task_template.container_spec.env.iter().flatten().find(is_it).cloned();
    let env = spec.task_template.container_spec.env.get_or_insert_default();
    env.retain(|line| !is_it(&line));
    env.extend(lives);
}
