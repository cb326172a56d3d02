//! The image that a service gets: the one that was chosen, the one that runs, or the one that its registry names.

use super::{NoteKind, Planner};
use crate::spec::{Placement, Platform, ServiceSpec};
use crate::stacks::images::{digest, live_text};
use crate::stacks::state::{Image, Kept};

/// The image a service gets.
pub(super) struct Choice {
    pub image: String,
    pub platforms: Option<Vec<Platform>>,
    /// What was chosen by us, and so is part of the fingerprint; empty where the live image is kept.
    pub chosen: String,
}

/// The image that a service runs, or ran until it was taken off a network.
pub(super) struct Running {
    /// Its text in the file that it was made from.
    pub text: String,
    pub image: String,
    pub platforms: Option<Vec<Platform>>,
}

impl Running {
    pub fn of(spec: &ServiceSpec, text: String) -> Self {
        let placement = spec.task_template.placement.as_ref();
        let platforms = placement.and_then(|placement| placement.platforms.clone());
        Self { text, image: spec.task_template.container_spec.image.clone(), platforms }
    }

    pub fn before(kept: &Kept) -> Self {
        let platforms = Some(kept.image.platforms.clone()).filter(|platforms| !platforms.is_empty());
        Self { text: kept.text.clone(), image: kept.image.image.clone(), platforms }
    }
}

impl From<&Running> for Choice {
    /// What runs is kept.
    fn from(running: &Running) -> Self {
        Self { image: running.image.clone(), platforms: running.platforms.clone(), chosen: String::new() }
    }
}

impl Planner<'_> {
    /// The image: what a rollback brings along, what was chosen for this text, what lives for this text, what the registry says; in this order.
    pub(super) fn choose_image(&mut self, spec: &ServiceSpec, running: Option<&Running>) -> Result<Choice, String> {
        let text = &spec.task_template.container_spec.image;
        // `docker stack deploy` compares the texts as the files spell them: to it `nginx` and `nginx:latest` are two.
        let spelled = if self.manages() { text } else { live_text(spec) };
        let running = running.filter(|running| running.text == *spelled);
        let live_image = running.map(|running| running.image.clone());
        let live_platforms = || running.and_then(|running| running.platforms.clone());
        let chosen = |image: &Image| {
            let is_live = live_image.as_ref() == Some(&image.image);
            let platforms =
                if is_live { live_platforms() } else { Some(image.platforms.clone()).filter(|p| !p.is_empty()) };
            Choice { image: image.image.clone(), platforms, chosen: image.image.clone() }
        };
        if digest(text).is_some() {
            let asked = self.input.images.get(text).filter(|_| !self.manages()).and_then(|answer| answer.as_ref().ok());
            let platforms = asked.map_or_else(live_platforms, |image| Some(image.platforms.clone()));
            return Ok(Choice { image: text.clone(), platforms, chosen: String::new() });
        }
        let kept = |image: String| Choice { image, platforms: live_platforms(), chosen: String::new() };
        let held = self.rollback().and_then(|rollback| rollback.images.get(text));
        if let Some(image) = held.or_else(|| self.state.images.get(text)).filter(|_| self.manages()) {
            return Ok(chosen(image));
        }
        match (self.input.images.get(text), live_image.clone()) {
            (_, Some(image)) if self.manages() => Ok(kept(image)),
            (Some(Ok(image)), _) => {
                self.resolved.insert(text.clone(), image.clone());
                Ok(chosen(image))
            }
            (Some(Err(reason)), _) if self.manages() => Err(format!(
                "image {text}: its digest cannot be had, and a floating tag is not deployed: {reason} (see that the image is there and its registry answers)"
            )),
            (None, None) if self.manages() => Err(format!("image {text}: its digest was not asked for")),
            (Some(Err(reason)), Some(image)) => {
                let text = format!("image {text} could not be resolved, and the digest that runs is kept: {reason}");
                self.note(NoteKind::Remark, text);
                Ok(kept(image))
            }
            (Some(Err(reason)), None) => {
                let text = format!(
                    "image {text} could not be resolved and is deployed by its tag; nodes may run different versions: {reason}"
                );
                self.note(NoteKind::Remark, text);
                Ok(kept(spec.task_template.container_spec.image.clone()))
            }
            (None, Some(image)) => Ok(kept(image)),
            (None, None) => Ok(kept(text.clone())),
        }
    }
}

/// Says what the image runs on.
pub(super) fn put_platforms(spec: &mut ServiceSpec, platforms: Option<Vec<Platform>>) {
    match (&mut spec.task_template.placement, platforms) {
        (Some(placement), platforms) => placement.platforms = platforms,
        (None, Some(platforms)) => {
            spec.task_template.placement = Some(Placement { platforms: Some(platforms), ..Placement::default() });
        }
        (None, None) => {}
    }
}
