//! Which image a service gets: the one it has, the one that was chosen, or the one its registry names.
//!
//! A digest is asked for when the image's *text* in git has changed, not because a tag moved. So the same text keeps what lives, and
//! going back to an earlier text goes back to the digest that was chosen for it then, as long as the state remembers it.

use std::collections::{BTreeMap, BTreeSet};

use super::observe::ObservedStack;
use super::state::Image;
use crate::image::ImageRef;
use crate::model::{DesiredStack, Field, Ignored};
use crate::spec::{LABEL_IMAGE, ServiceSpec};

/// What registries said, by the image's text in the file.
pub type Resolutions = BTreeMap<String, Result<Image, String>>;

/// Texts whose digest planning needs: new ones, and changed ones.
pub fn images_to_resolve(desired: &DesiredStack, observed: ObservedStack<'_>) -> BTreeSet<String> {
    let chosen = |text: &str| {
        let state = observed.live.map(|live| &live.state);
        // A rollback brings its digests along. Once it is over they do not count: the revision tells.
        let held = state.and_then(|state| state.rollback.as_ref());
        let held = held.filter(|rollback| Some(&rollback.revision) == desired.revision.as_ref());
        state.is_some_and(|state| state.images.contains_key(text))
            || held.is_some_and(|rollback| rollback.images.contains_key(text))
    };
    let mut texts = BTreeSet::new();
    for service in desired.objects.services.values() {
        let text = &service.spec.task_template.container_spec.image;
        let live = observed.swarm.services.get(&service.spec.name);
        let lives = match (live, observed.kept(&service.spec.name)) {
            (Some(live), _) => familiar_live_text(&live.spec) == *text,
            (None, kept) => kept.is_some_and(|kept| kept.text == *text),
        };
        let is_needed = digest(text).is_none() && !chosen(text) && !lives;
        if is_needed && !(live.is_some() && is_left_to_others(&service.spec)) {
            texts.insert(text.clone());
        }
    }
    texts
}

/// True if another tool chooses the image of a service that lives.
pub fn is_left_to_others(spec: &ServiceSpec) -> bool {
    Ignored::of(spec).is_ok_and(|ignored| ignored.has(&Field::Image))
}

/// The image's text that a live service was made from: its label, or else its image without digest.
pub fn live_text(spec: &ServiceSpec) -> &str {
    let label = spec.labels.as_ref().and_then(|labels| labels.get(LABEL_IMAGE));
    label.map_or_else(|| without_digest(&spec.task_template.container_spec.image), String::as_str)
}

/// [`live_text`] in familiar form, which is that of a wanted spec: the label says `nginx` where the spec says `nginx:latest`.
pub fn familiar_live_text(spec: &ServiceSpec) -> String {
    let text = live_text(spec);
    ImageRef::parse(text).map_or_else(|_| text.to_owned(), |image| image.familiar())
}

/// `name:tag@digest` → `name:tag`.
pub fn without_digest(image: &str) -> &str {
    image.split_once('@').map_or(image, |(name, _)| name)
}

/// `name:tag@digest` → `digest`.
pub fn digest(image: &str) -> Option<&str> {
    image.split_once('@').map(|(_, digest)| digest)
}

/// `name:tag@sha256:aabbcc…` → `name:tag@aabbccddeeff`, as plans show it.
pub fn short(image: &str) -> String {
    match image.split_once('@') {
        None => image.to_owned(),
        Some((name, digest)) => {
            let digest = digest.split_once(':').map_or(digest, |(_, digits)| digits);
            format!("{name}@{}", digest.get(..12).unwrap_or(digest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_a_tag_in_its_file_is_known_again_by_its_label() {
        let mut spec = ServiceSpec::default();
        spec.task_template.container_spec.image = "nginx:latest@sha256:aa".into();
        assert_eq!(familiar_live_text(&spec), "nginx:latest");
        spec.labels = Some([(LABEL_IMAGE.to_owned(), "nginx".to_owned())].into());
        assert_eq!((live_text(&spec), familiar_live_text(&spec).as_str()), ("nginx", "nginx:latest"));
    }
}
