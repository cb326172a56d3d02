//! Facts → what is wrong and how to mend it; pure.

use super::facts::{ConsulFacts, Facts};
use super::{Check, SwarmFacts};
use crate::config::{Config, Coordination, Role};
use crate::image::ImageRef;
use crate::io::dns;
use crate::io::docker::{Info, SwarmState};
use crate::leader::swarm::slip::Kind;
use crate::registration::own::SERVICE;
use crate::spec::Node;

/// The oldest engine that we are tried with.
const ENGINE_VERSION_MIN: (u32, u32) = (20, 10);

/// Programs that do what we do and undo it: the last part of their image's name, what they do, and the mend.
const RIVALS: &[(&str, &str, &str)] = &[
    ("registrator", "registers the same containers in Consul", "stop it once `registration.enable` registers them"),
    ("swarm-sync", "deploys from git too", "stop it before its stacks are adopted here"),
    ("swarm-cd", "deploys from git too", "stop it before its stacks are adopted here"),
    ("shepherd", "updates images behind git's back, which shows as drift", "stop it, or leave these services to it"),
    ("gantry", "updates images behind git's back, which shows as drift", "stop it, or leave these services to it"),
    ("watchtower", "restarts containers that belong to swarm services", "stop it on swarm nodes"),
];

/// Every check, the foundation first.
pub fn diagnose(config: &Config, facts: &Facts) -> Vec<Check> {
    let mut checks = vec![engine(config, &facts.engine)];
    if let Ok(info) = &facts.engine {
        checks.push(swarm(info));
    }
    match &facts.swarm {
        Some(Ok(swarm)) => checks.extend([quorum(&swarm.nodes), nodes(&swarm.nodes)]),
        Some(Err(error)) => {
            let mend = "bring enough managers back for a majority; what runs goes on meanwhile";
            checks.push(Check::fail("quorum", error, mend));
        }
        None => {}
    }
    checks
        .extend(facts.coordination.map(|kind| Check::pass("coordination", format!("the lock is in {}", kind.word()))));
    match &facts.consul {
        _ if !uses_consul(config, facts) => {
            let what = "none is configured: registration, DNS and prefetch need one, all else works without";
            checks.push(Check::pass("consul", what));
        }
        Ok(consul) => checks.extend(consul_checks(config, consul, facts)),
        Err(error) => {
            let mend = "run a Consul agent on this node, set consul.address, or `coordination: swarm` to do without";
            checks.push(Check::fail("consul", error, mend));
        }
    }
    if uses_consul(config, facts) {
        checks.push(dns(config, &facts.dns));
    }
    if is_manager(config, facts) {
        checks.push(git(config));
    }
    checks.extend(rivals(facts));
    checks
}

/// As the agent decides it; workers do not know where the lock is.
fn uses_consul(config: &Config, facts: &Facts) -> bool {
    let lock_is_there = match facts.coordination {
        Some(kind) => kind == Kind::Consul,
        None => config.coordination != Coordination::Swarm,
    };
    config.consul_is_named || lock_is_there
}

fn engine(config: &Config, engine: &Result<Info, String>) -> Check {
    match engine {
        Ok(info) if version(&info.version).is_some_and(|version| version < ENGINE_VERSION_MIN) => {
            Check::warn("engine", format!("{} is older than 20.10", info.version), "update docker")
        }
        Ok(info) => Check::pass("engine", format!("{} on {}", info.version, info.name)),
        Err(error) => {
            let mend = format!("mount the engine's socket, or set docker_host (now {})", config.docker_host);
            Check::fail("engine", error, mend)
        }
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

fn swarm(info: &Info) -> Check {
    let Some(swarm) = &info.swarm else {
        let mend = "docker swarm init on the first node, docker swarm join on the others";
        return Check::fail("swarm", "this engine is in no swarm", mend);
    };
    match swarm.state {
        SwarmState::Active => Check::pass("swarm", if swarm.manager { "a manager" } else { "a worker" }),
        SwarmState::Pending => Check::warn("swarm", "this node is joining", "wait, and look again"),
        SwarmState::Locked => Check::fail("swarm", "this manager is locked", "docker swarm unlock"),
        SwarmState::Error => Check::fail(
            "swarm",
            "this node cannot reach its swarm",
            "see docker info, and that port 2377 is open between nodes",
        ),
    }
}

fn quorum(nodes: &[Node]) -> Check {
    let managers: Vec<_> = nodes.iter().filter_map(|node| Some((node, node.manager_status.as_ref()?))).collect();
    let lost: Vec<_> = managers
        .iter()
        .filter(|(_, status)| status.reachability != "reachable")
        .map(|(node, _)| node.description.hostname.as_str())
        .collect();
    let reachable = managers.len() - lost.len();
    let what = format!("{reachable} of {} managers reachable", managers.len());
    if !lost.is_empty() {
        return Check::warn("quorum", what, format!("bring back or demote {}", lost.join(", ")));
    }
    if managers.len() < 3 || managers.len().is_multiple_of(2) {
        let mend = "have three or five managers, so that one can be lost";
        return Check::warn("quorum", what, mend);
    }
    Check::pass("quorum", what)
}

fn nodes(nodes: &[Node]) -> Check {
    let down = nodes.iter().filter(|node| node.status.state != "ready");
    let down: Vec<_> = down.map(|node| format!("{} is {}", node.description.hostname, node.status.state)).collect();
    if down.is_empty() {
        return Check::pass("nodes", format!("{} ready", nodes.len()));
    }
    Check::warn("nodes", down.join(", "), "bring them back, or docker node rm what is gone for good")
}

fn consul_checks(config: &Config, consul: &ConsulFacts, facts: &Facts) -> Vec<Check> {
    let agent = &consul.agent;
    let mut checks =
        vec![Check::pass("consul", format!("{}, node {} in {}", agent.version, agent.node, agent.datacenter))];
    checks.push(match &consul.raft_leader {
        Ok(Some(leader)) => Check::pass("consul leader", leader),
        Ok(None) => {
            Check::fail("consul leader", "Consul's servers have none", "bring enough servers back for a majority")
        }
        Err(error) => Check::fail("consul leader", error, "see that the agent reaches its servers"),
    });
    checks.push(match &consul.rights_missing {
        Ok(missing) if missing.is_empty() => Check::pass("consul rights", "all that are needed"),
        Ok(missing) => {
            let what = if config.consul.token.is_none() {
                "no token is set, and some rights are missing"
            } else {
                "the token lacks rights"
            };
            Check::fail("consul rights", what, format!("add to its policy: {}", missing.join(" ")))
        }
        Err(error) => Check::fail("consul rights", error, "set consul.token to a token that Consul knows"),
    });
    if let (Ok(Some(claim)), Some(id)) = (&consul.claim, swarm_id(facts))
        && claim != id
    {
        let what = format!("{} belongs to another swarm on this Consul", config.cluster);
        checks.push(Check::fail("cluster", what, "set `cluster` to a name of its own"));
    }
    checks.extend(agents(config, consul, facts));
    checks
}

/// None where the token of a worker, which may not see the nodes, shows nothing.
fn agents(config: &Config, consul: &ConsulFacts, facts: &Facts) -> Option<Check> {
    Some(match &consul.agents {
        Ok((_, all)) if all.is_empty() && config.consul.token.is_some() && !is_manager(config, facts) => return None,
        Ok((passing, all)) if all.is_empty() => Check::warn(
            "agents",
            format!("{} in Consul", passing.len()),
            "docker stack deploy -c stack/swarmkeeper.yml swarmkeeper",
        ),
        Ok((passing, all)) => match all.difference(passing).cloned().collect::<Vec<_>>() {
            lost if lost.is_empty() => Check::pass("agents", format!("{} passing", passing.len())),
            lost => {
                let what = format!("{} of {} passing", passing.len(), all.len());
                Check::warn("agents", what, format!("look at the agent on {}", lost.join(", ")))
            }
        },
        Err(error) => Check::warn("agents", error, "look again when Consul answers"),
    })
}

fn dns(config: &Config, found: &Result<Vec<std::net::IpAddr>, dns::Error>) -> Check {
    let name = format!("{SERVICE}.service.consul");
    match found {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            Check::pass("dns", format!("{name} is {}", addresses.join(", ")))
        }
        Err(error @ dns::Error::Unknown { .. }) => {
            let mend = if config.consul.token.is_some() {
                r#"run the agent, which registers itself; where ACLs deny by default, Consul's anonymous token needs service_prefix "" and node_prefix "", both with policy read"#
            } else {
                "run the agent; it registers itself"
            };
            Check::warn("dns", error.to_string(), mend)
        }
        Err(error) => Check::warn("dns", error.to_string(), "let Consul's DNS listen at port 8600 of this node"),
    }
}

fn git(config: &Config) -> Check {
    match config.require_git() {
        Ok(git) => Check::pass("git settings", format!("{} {}", git.url, git.branch)),
        Err(findings) => {
            let (what, mend) = findings.0.first().map(|f| (f.message.clone(), f.mend.clone())).unwrap_or_default();
            Check::fail("git settings", what, mend)
        }
    }
}

fn rivals(facts: &Facts) -> Vec<Check> {
    let containers = facts.containers.iter().map(|(name, image)| (format!("container {name}"), image.as_str()));
    let services = facts.swarm.iter().flatten().flat_map(|SwarmFacts { services, .. }| services).map(|service| {
        let image = &service.spec.task_template.container_spec.image;
        (format!("service {}", service.spec.name), image.as_str())
    });
    let known = |image: &str| {
        let reference = ImageRef::parse(image).ok()?;
        let base = reference.path().rsplit('/').next()?.to_owned();
        RIVALS.iter().find(|(rival, _, _)| *rival == base)
    };
    let found = containers.chain(services).filter_map(|(who, image)| Some((who, known(image)?)));
    found.map(|(who, (rival, does, mend))| Check::warn("rivals", format!("{who} ({rival}) {does}"), *mend)).collect()
}

fn is_manager(config: &Config, facts: &Facts) -> bool {
    let by_engine =
        || facts.engine.as_ref().ok().and_then(|info| info.swarm.as_ref()).is_some_and(|swarm| swarm.manager);
    match config.role {
        Role::Manager => true,
        Role::Worker => false,
        Role::Auto => by_engine(),
    }
}

fn swarm_id(facts: &Facts) -> Option<&str> {
    let by_engine = facts.engine.as_ref().ok().and_then(|info| info.swarm.as_ref()?.cluster_id.as_deref());
    by_engine.or_else(|| facts.swarm.as_ref()?.as_ref().ok().map(|swarm| swarm.id.as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::cli::doctor::{Exit, exit, render};
    use crate::cli::output::Paint;
    use crate::config::{Flags, Inputs, resolve};
    use crate::io::consul::health::AgentSelf;
    use crate::io::docker::Swarm;
    use crate::spec::{ManagerStatus, Service};

    fn config(environment: &[(&str, &str)]) -> Config {
        let environment: BTreeMap<_, _> = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let read = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        resolve(&Inputs { flags: &Flags::default(), environment: &environment, read: &read }).unwrap().config
    }

    fn node(name: &str, state: &str, reachability: Option<&str>) -> Node {
        let mut node = Node::default();
        node.description.hostname = name.into();
        node.status.state = state.into();
        node.manager_status =
            reachability.map(|reachability| ManagerStatus { reachability: reachability.into(), ..Default::default() });
        node
    }

    /// A manager of three on which all is well.
    fn well() -> Facts {
        let swarm = Swarm {
            node_id: "n".into(),
            address: None,
            state: SwarmState::Active,
            manager: true,
            cluster_id: Some("swarm-1".into()),
        };
        let reachable = |name| node(name, "ready", Some("reachable"));
        Facts {
            engine: Ok(Info {
                engine_id: String::new(),
                name: "m1".into(),
                version: "20.10.24".into(),
                data_root: String::new(),
                swarm: Some(swarm),
            }),
            containers: vec![("web".into(), "nginx:1.27".into())],
            swarm: Some(Ok(SwarmFacts {
                id: "swarm-1".into(),
                nodes: vec![reachable("m1"), reachable("m2"), reachable("m3"), node("w1", "ready", None)],
                services: vec![],
            })),
            consul: Ok(ConsulFacts {
                agent: AgentSelf { node: "m1".into(), datacenter: "dc1".into(), version: "1.8.7".into() },
                raft_leader: Ok(Some("10.0.0.1:8300".into())),
                rights_missing: Ok(vec![]),
                claim: Ok(Some("swarm-1".into())),
                agents: Ok((["m1".to_owned()].into(), ["m1".to_owned()].into())),
            }),
            coordination: Some(Kind::Consul),
            dns: Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into()]),
        }
    }

    fn shown(config: &Config, facts: &Facts) -> String {
        render(&diagnose(config, facts), Paint::PLAIN)
    }

    #[test]
    fn a_node_where_all_is_well_says_so() {
        let config = config(&[("SWARMKEEPER_GIT_URL", "https://git.example.com/ops.git")]);
        assert_eq!(exit(&diagnose(&config, &well())), Exit::Done);
        insta::assert_snapshot!(shown(&config, &well()), @r#"
ok    engine         20.10.24 on m1
ok    swarm          a manager
ok    quorum         3 of 3 managers reachable
ok    nodes          4 ready
ok    coordination   the lock is in consul
ok    consul         1.8.7, node m1 in dc1
ok    consul leader  10.0.0.1:8300
ok    consul rights  all that are needed
ok    agents         1 passing
ok    dns            swarmkeeper.service.consul is 10.0.0.1
ok    git settings   https://git.example.com/ops.git main
all is well
"#);
    }

    #[test]
    fn every_fault_comes_with_its_mend() {
        let mut facts = well();
        facts.engine.as_mut().unwrap().version = "19.03.1".into();
        facts.containers.push(("registrator".into(), "gliderlabs/registrator:v7".into()));
        let Some(Ok(swarm)) = facts.swarm.as_mut() else { unreachable!() };
        swarm.nodes[2] = node("m3", "down", Some("unreachable"));
        let mut service = Service::default();
        service.spec.name = "ops_shepherd".into();
        service.spec.task_template.container_spec.image = "containrrr/shepherd@sha256:".to_owned() + &"0".repeat(64);
        swarm.services.push(service);
        let consul = facts.consul.as_mut().unwrap();
        consul.raft_leader = Ok(None);
        consul.rights_missing = Ok(vec![r#"session "m1" { policy = "write" }"#.to_owned()]);
        consul.claim = Ok(Some("swarm-2".into()));
        consul.agents = Ok((["m1".to_owned()].into(), ["m1".to_owned(), "m2".to_owned()].into()));
        let server: SocketAddr = "127.0.0.1:8600".parse().unwrap();
        facts.dns = Err(dns::Error::Unknown { server, name: "swarmkeeper.service.consul".into() });
        let config = config(&[]);
        assert_eq!(exit(&diagnose(&config, &facts)), Exit::Wrong);
        insta::assert_snapshot!(shown(&config, &facts), @r#"
warn  engine         19.03.1 is older than 20.10
                     mend: update docker
ok    swarm          a manager
warn  quorum         2 of 3 managers reachable
                     mend: bring back or demote m3
warn  nodes          m3 is down
                     mend: bring them back, or docker node rm what is gone for good
ok    coordination   the lock is in consul
ok    consul         1.8.7, node m1 in dc1
FAIL  consul leader  Consul's servers have none
                     mend: bring enough servers back for a majority
FAIL  consul rights  no token is set, and some rights are missing
                     mend: add to its policy: session "m1" { policy = "write" }
FAIL  cluster        swarm belongs to another swarm on this Consul
                     mend: set `cluster` to a name of its own
warn  agents         1 of 2 passing
                     mend: look at the agent on m2
warn  dns            127.0.0.1:8600 knows no address of swarmkeeper.service.consul
                     mend: run the agent; it registers itself
FAIL  git settings   no Config Repo is configured, and a manager needs one
                     mend: set `git: {url: …}` in swarmkeeper.yml, or SWARMKEEPER_GIT_URL
warn  rivals         container registrator (registrator) registers the same containers in Consul
                     mend: stop it once `registration.enable` registers them
warn  rivals         service ops_shepherd (shepherd) updates images behind git's back, which shows as drift
                     mend: stop it, or leave these services to it
4 failed, 7 to look at
"#);
    }

    #[test]
    fn a_bare_machine_is_told_where_to_begin() {
        let server: SocketAddr = "127.0.0.1:8600".parse().unwrap();
        let facts = Facts {
            engine: Err("docker info: no such socket".into()),
            containers: vec![],
            swarm: None,
            consul: Err("GET /v1/agent/self: connection refused".into()),
            coordination: None,
            dns: Err(dns::Error::NoAnswer { server, name: "x".into(), reason: "timed out".into() }),
        };
        insta::assert_snapshot!(shown(&config(&[]), &facts), @r#"
FAIL  engine  docker info: no such socket
              mend: mount the engine's socket, or set docker_host (now unix:///var/run/docker.sock)
FAIL  consul  GET /v1/agent/self: connection refused
              mend: run a Consul agent on this node, set consul.address, or `coordination: swarm` to do without
warn  dns     127.0.0.1:8600 did not answer for x: timed out
              mend: let Consul's DNS listen at port 8600 of this node
2 failed, 1 to look at
"#);
    }

    #[test]
    fn a_swarm_without_consul_is_told_what_it_does_without() {
        let mut facts = well();
        facts.coordination = Some(Kind::Swarm);
        facts.consul = Err("GET /v1/agent/self: connection refused".into());
        facts.dns = Err(dns::Error::Unknown { server: "127.0.0.1:8600".parse().unwrap(), name: "x".into() });
        let config = config(&[("SWARMKEEPER_GIT_URL", "https://git.example.com/ops.git")]);
        insta::assert_snapshot!(shown(&config, &facts), @r#"
ok    engine        20.10.24 on m1
ok    swarm         a manager
ok    quorum        3 of 3 managers reachable
ok    nodes         4 ready
ok    coordination  the lock is in swarm
ok    consul        none is configured: registration, DNS and prefetch need one, all else works without
ok    git settings  https://git.example.com/ops.git main
all is well
"#);
    }

    #[test]
    fn a_workers_token_that_shows_no_agents_is_not_taken_for_their_absence() {
        let mut facts = well();
        facts.consul.as_mut().unwrap().agents = Ok((BTreeSet::new(), BTreeSet::new()));
        let server: SocketAddr = "127.0.0.1:8600".parse().unwrap();
        facts.dns = Err(dns::Error::Unknown { server, name: "swarmkeeper.service.consul".into() });
        let config = config(&[("SWARMKEEPER_CONSUL_TOKEN", "t0ken"), ("SWARMKEEPER_GIT_URL", "https://x/y.git")]);
        let of = |facts: &Facts, name| diagnose(&config, facts).into_iter().find(|check| check.name == name);
        assert!(of(&facts, "agents").is_some());
        assert!(render(&[of(&facts, "dns").unwrap()], Paint::PLAIN).contains("anonymous token"));
        facts.engine.as_mut().unwrap().swarm.as_mut().unwrap().manager = false;
        assert!(of(&facts, "agents").is_none());
    }

    #[test]
    fn workers_need_no_config_repo() {
        let mut facts = well();
        facts.engine.as_mut().unwrap().swarm.as_mut().unwrap().manager = false;
        facts.swarm = None;
        let checks = diagnose(&config(&[]), &facts);
        assert!(checks.iter().all(|check| check.name != "git settings"), "{checks:?}");
        let checks = diagnose(&config(&[]), &well());
        assert!(checks.iter().any(|check| check.name == "git settings"), "{checks:?}");
    }
}
