//! `networks` of the top level and of services.

use std::collections::BTreeMap;

use super::file::{Naming, naming, unless_empty, with_namespace};
use super::read::{Ctx, Ignored, Mistake, undeclared};
use crate::model::Wanted;
use crate::spec::{Ipam, IpamConfig, Labels, NetworkAttachment, NetworkSpec};
use crate::yaml::{Field, MapReader};

/// The network of services that name none.
pub(super) const DEFAULT: &str = "default";

const DRIVER_DEFAULT: &str = "overlay";

/// A top-level network.
#[derive(Debug, Clone, Default)]
pub(super) struct NetworkDef {
    pub naming: Naming,
    pub driver: String,
    pub driver_opts: Option<Labels>,
    pub ipam: Option<Ipam>,
    pub internal: bool,
    pub attachable: bool,
    pub labels: Labels,
}

/// A network as a service uses it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct NetworkUse {
    pub aliases: Vec<String>,
    pub driver_opts: Option<Labels>,
}

/// Reads `networks.<key>`.
pub(super) fn read(key: &str, field: &Field<'_, '_>, ctx: &Ctx<'_>) -> NetworkDef {
    let mut r = field.map();
    let network = NetworkDef {
        naming: naming(&mut r, key, ctx),
        driver: r.take("driver").and_then(|f| ctx.text(&f)).unwrap_or_default(),
        driver_opts: r.take("driver_opts").and_then(|f| ctx.options(&f)),
        ipam: r.map("ipam").and_then(|r| ipam(r, ctx)),
        internal: r.take("internal").and_then(|f| ctx.flag(&f)).unwrap_or_default(),
        attachable: r.take("attachable").and_then(|f| ctx.flag(&f)).unwrap_or_default(),
        labels: r.take("labels").and_then(|f| ctx.labels(&f)).unwrap_or_default(),
    };
    ctx.finish(r, &[], &[("enable_ipv4", ""), ("enable_ipv6", "")]);
    network
}

/// None if it says neither a driver nor a subnet.
fn ipam(mut r: MapReader<'_, '_>, ctx: &Ctx<'_>) -> Option<Ipam> {
    let driver = r.take("driver").and_then(|f| ctx.text(&f)).unwrap_or_default();
    let subnet = |item: &Field<'_, '_>| {
        let mut r = item.map();
        let subnet = r.take("subnet").and_then(|f| ctx.text(&f)).unwrap_or_default();
        let spec_only: [Ignored; 3] = [("gateway", ""), ("ip_range", ""), ("aux_addresses", "")];
        ctx.finish(r, &[], &spec_only);
        IpamConfig { subnet, ..IpamConfig::default() }
    };
    let config = r.take("config").and_then(|f| f.items("a list of maps")).unwrap_or_default();
    let config: Vec<_> = config.iter().map(subnet).collect();
    ctx.finish(r, &[], &[("options", "")]);
    if driver.is_empty() && config.is_empty() {
        return None;
    }
    Some(Ipam { driver, config: unless_empty(config), ..Ipam::default() })
}

/// Reads `networks` of a service, a list of names or a map.
pub(super) fn read_uses(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> BTreeMap<String, Option<NetworkUse>> {
    if field.node.as_seq().is_some() {
        return ctx.texts(field).unwrap_or_default().into_iter().map(|name| (name, None)).collect();
    }
    let mut uses = BTreeMap::new();
    for (entry, value) in field.entries("a list or a map of networks").unwrap_or_default() {
        let network = (!value.node.is_null()).then(|| {
            let mut r = value.map();
            let network = NetworkUse {
                aliases: r.take("aliases").and_then(|f| ctx.texts(&f)).unwrap_or_default(),
                driver_opts: r.take("driver_opts").and_then(|f| ctx.options(&f)),
            };
            let addresses = "swarm gives out the addresses";
            let ignored = [("ipv4_address", addresses), ("ipv6_address", addresses)];
            let spec_only: [Ignored; 5] = [
                ("gw_priority", ""),
                ("interface_name", ""),
                ("link_local_ips", ""),
                ("mac_address", ""),
                ("priority", ""),
            ];
            ctx.finish(r, &ignored, &spec_only);
            network
        });
        uses.insert(entry.key.clone(), network);
    }
    uses
}

impl NetworkDef {
    /// The network's name in the swarm.
    pub fn real_name(&self, key: &str, ctx: &Ctx<'_>) -> String {
        if self.naming.name.is_empty() { ctx.input.stack.scoped(key) } else { self.naming.name.clone() }
    }

    /// The network to create, or the one that must be there.
    pub fn wanted(&self, key: &str, ctx: &Ctx<'_>) -> Wanted<NetworkSpec> {
        let name = self.real_name(key, ctx);
        if self.naming.external {
            return Wanted::External(name);
        }
        let driver = if self.driver.is_empty() { DRIVER_DEFAULT } else { &self.driver };
        let spec = NetworkSpec {
            name,
            driver: driver.to_owned(),
            labels: Some(with_namespace(self.labels.clone(), ctx)),
            options: self.driver_opts.clone(),
            internal: self.internal,
            attachable: self.attachable,
            ipam: self.ipam.clone(),
            ..NetworkSpec::default()
        };
        Wanted::Own { spec, named: !self.naming.name.is_empty() }
    }
}

/// The networks that tasks of `service` join, sorted by name; `note` hears of each by its key.
pub(super) fn attachments(
    service: &str,
    uses: &BTreeMap<String, Option<NetworkUse>>,
    networks: &BTreeMap<String, NetworkDef>,
    mut note: impl FnMut(&str),
    ctx: &Ctx<'_>,
) -> Result<Vec<NetworkAttachment>, Vec<Mistake>> {
    let default = BTreeMap::from([(DEFAULT.to_owned(), None)]);
    let uses = if uses.is_empty() { &default } else { uses };
    let (mut attachments, mut undefined) = (Vec::new(), Vec::new());
    for (key, network) in uses {
        let implicit = NetworkDef::default();
        let definition = match networks.get(key) {
            Some(definition) => definition,
            None if key == DEFAULT => &implicit,
            None => {
                let path = format!("services.{service}.networks.{key}");
                undefined.push(Mistake { path, message: undeclared("network", key, networks.keys()) });
                continue;
            }
        };
        note(key);
        let target = definition.real_name(key, ctx);
        let network = network.clone().unwrap_or_default();
        let mut aliases = network.aliases;
        if takes_aliases(&target) {
            aliases.push(service.to_owned());
        }
        let (aliases, driver_opts) = (unless_empty(aliases), network.driver_opts.filter(|opts| !opts.is_empty()));
        attachments.push(NetworkAttachment { target, aliases, driver_opts, ..NetworkAttachment::default() });
    }
    attachments.sort_by(|a, b| a.target.cmp(&b.target));
    if undefined.is_empty() { Ok(attachments) } else { Err(undefined) }
}

/// The engine's own networks know no aliases.
fn takes_aliases(network: &str) -> bool {
    !matches!(network, "default" | "bridge" | "host" | "none") && !network.starts_with("container:")
}
