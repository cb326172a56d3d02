//! `swarmkeeper.ignore`: fields of a service that other tools change, such as an autoscaler its replicas.
//!
//! The label stands under `deploy.labels` in git, its value is a comma list. What is ignored keeps its live value in every write and
//! is neither a difference nor drift; a new service gets git's value.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::{Finding, Location, StackObjects};
use crate::spec::ServiceSpec;

/// The label.
pub const LABEL_IGNORE: &str = "swarmkeeper.ignore";

/// What may stand in it.
const ACCEPTED: &str = "replicas, image, resources, placement, env, env.NAME, labels, labels.NAME";

/// The fields of one service that are left to other tools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ignored(BTreeSet<Field>);

/// One field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The number of tasks.
    Replicas,
    /// The image, and what it runs on.
    Image,
    /// Limits and reservations.
    Resources,
    /// Constraints, preferences and the number of tasks on a node.
    Placement,
    /// All environment variables, or one.
    Env(Option<String>),
    /// All of the service's labels but those of the stack itself, or one.
    Labels(Option<String>),
}

impl Ignored {
    /// What a service's own label says; nothing where it has none.
    pub fn of(spec: &ServiceSpec) -> Result<Self, String> {
        let label = spec.labels.as_ref().and_then(|labels| labels.get(LABEL_IGNORE));
        label.map_or_else(|| Ok(Self::default()), |text| text.parse())
    }

    /// True if this field is ignored.
    pub fn has(&self, field: &Field) -> bool {
        self.0.contains(field)
    }

    /// The fields.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.0.iter()
    }
}

impl FromStr for Ignored {
    type Err = String;

    /// ```
    /// use swarmkeeper::model::{Field, Ignored};
    /// let ignored: Ignored = "replicas, env.TOKEN".parse().unwrap();
    /// assert!(ignored.has(&Field::Replicas) && ignored.has(&Field::Env(Some("TOKEN".into()))));
    /// assert!("replica".parse::<Ignored>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(field).collect::<Result<_, _>>().map(Self)
    }
}

fn field(word: &str) -> Result<Field, String> {
    let named = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let unknown = || format!("found {word:?}, accepted: {ACCEPTED}");
    match word.split_once('.') {
        Some(("env", name)) => named(name).map(|name| Field::Env(Some(name))).ok_or_else(unknown),
        Some(("labels", name)) => named(name).map(|name| Field::Labels(Some(name))).ok_or_else(unknown),
        _ => match word {
            "replicas" => Ok(Field::Replicas),
            "image" => Ok(Field::Image),
            "resources" => Ok(Field::Resources),
            "placement" => Ok(Field::Placement),
            "env" => Ok(Field::Env(None)),
            "labels" => Ok(Field::Labels(None)),
            _ => Err(unknown()),
        },
    }
}

/// What is wrong with the labels of a stack's services, each with its place.
pub fn check_ignored(objects: &StackObjects) -> Vec<Finding> {
    let mistake = |(key, message): (&String, String)| {
        let path = format!("services.{key}.deploy.labels");
        // A label in a list has no place of its own.
        let places = [format!("{path}.{LABEL_IGNORE}"), path.clone(), format!("services.{key}")];
        let location: Option<Location> = places.iter().find_map(|place| objects.sources.get(place)).cloned();
        Finding { location, path: format!("{path}.{LABEL_IGNORE}"), message, mend: String::new() }
    };
    let services = objects.services.iter();
    services.filter_map(|(key, service)| Some((key, Ignored::of(&service.spec).err()?))).map(mistake).collect()
}
