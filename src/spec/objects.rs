//! What we want of networks, secrets and configs.

use serde::{Deserialize, Serialize};

use super::{Driver, Extra, Labels, is_default};
use crate::model::Sensitive;

/// A network to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// `overlay` unless the file says otherwise.
    pub driver: String,
    /// With the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Driver options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Labels>,
    /// No way out.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// Plain containers may join.
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    /// Address plan.
    #[serde(rename = "IPAM", skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Address plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// IPAM driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    /// Subnets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Vec<IpamConfig>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A subnet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// CIDR.
    #[serde(skip_serializing_if = "is_default")]
    pub subnet: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A secret to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SecretSpec {
    /// Its name.
    pub name: String,
    /// With the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Where its content comes from, if not from us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// Expands templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<Driver>,
    /// Its content; sent as base64 by `io::swarm`, never serialised here.
    #[serde(skip)]
    pub data: Sensitive<Vec<u8>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A config to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigSpec {
    /// Its name.
    pub name: String,
    /// With the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Expands templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<Driver>,
    /// Its content; sent as base64 by `io::swarm`, never serialised here.
    #[serde(skip)]
    pub data: Sensitive<Vec<u8>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}
