//! Stacks that nobody wrote: for each key of the schema there are samples, and a stack takes some keys and some samples.
//!
//! The two verdicts must be one, and so must what is sent, to an empty swarm and to one where the stack has been edited by hand; and what
//! was deployed is not written again.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use swarmkeeper::compose::Section;
use swarmkeeper::yaml::join;

use crate::case::Case;
use crate::coverage::Coverage;
use crate::engine::NO_REGISTRY;
use crate::swarm::Swarm;
use crate::{engine, ours, updates};

/// Each starts Docker's CLI once; the variable PROPTEST_CASES asks for more.
const STACKS: u32 = 40;

/// Every file declares these, so that services may name them.
const NAMES: [&str; 2] = ["one", "two"];

/// The values a key may have.
enum Samples {
    /// One of them.
    One(&'static [&'static str]),
    /// A list of some, or the bare text that stands for a list of one.
    Some(&'static [&'static str]),
    /// A map of some of these pairs.
    Pairs(&'static [&'static str]),
}

use Samples::{One, Pairs, Some as List};

const TEXTS: Samples = One(&["a", "'$HOST'", "\"\"", "'${UNSET:-b c}'"]);
const FLAG: Samples = One(&["true", "false"]);
const NUMBER: Samples = One(&["0", "1", "7", "3.0"]);
const DURATION: Samples = One(&["0s", "5s", "1m30s", "1.5h", "'0'"]);
const MAPPING: Samples = Pairs(&["a: 1", "b: x", "c: ", "d: '$N'", "e: 1.50", "f: 0x1F", "g: ''"]);
const OPTIONS: Samples = Pairs(&["a: 1", "b: x", "d: '$N'", "e: 1.50"]);

const SAMPLES: &[(&str, Samples)] = &[
    ("services.*.build", One(&[".", "{context: ., args: [a], cache_from: [b], network: host, further: 1}"])),
    ("services.*.cap_add", List(&["net_admin", "ALL", "CAP_CHOWN", "chown", "' x '"])),
    ("services.*.cap_drop", List(&["all", "chown", "CAP_NET_ADMIN", "MKNOD"])),
    ("services.*.command", One(&["a 'b c' d", "[a, b c]", "[]", "\"\"", "'a \"b\\n\" $$x'"])),
    ("services.*.entrypoint", One(&["/e \"x\\ny\" 'z'", "[/e]", "[]"])),
    (
        "services.*.configs",
        List(&["one", "two", "{source: one, target: x, mode: 0440}", "{source: two, target: z, uid: '5', gid: '6'}"]),
    ),
    (
        "services.*.secrets",
        List(&["one", "two", "{source: one, target: y, mode: 256}", "{source: two, target: z, uid: '5', gid: '6'}"]),
    ),
    ("services.*.credential_spec", One(&["{file: f}", "{registry: r}", "{}"])),
    ("services.*.depends_on", List(&["a", "b"])),
    ("services.*.devices", List(&["/dev/null"])),
    ("services.*.dns", List(&["10.0.0.1", "10.0.0.2"])),
    ("services.*.dns_search", List(&["a.example", "b.example"])),
    ("services.*.env_file", List(&["a.env", "./b.env"])),
    ("services.*.environment", One(&["{A: 1, B: , HOST: }", "[A=2, B, N=, C=x=y]", "{A: '', D: 1.50, E: 2001-12-14}"])),
    ("services.*.expose", List(&["80", "'81'"])),
    ("services.*.external_links", List(&["a"])),
    ("services.*.extra_hosts", One(&["{b: 10.0.0.1, a: 'fe80::1'}", "['b:10.0.0.1', 'a=10.0.0.2', c]"])),
    ("services.*.image", One(&["web", "web:1", "registry:5000/a/b", "docker.io/library/x"])),
    ("services.*.links", List(&["a"])),
    (
        "services.*.networks",
        One(&[
            "[one]",
            "{one: , two: {aliases: [x]}}",
            "[two, default]",
            "[]",
            "{two: {driver_opts: {a: 1}, ipv4_address: 10.0.0.5, ipv6_address: 'fe80::5'}}",
        ]),
    ),
    ("services.*.pid", One(&["host", "null"])),
    (
        "services.*.ports",
        List(&[
            "80",
            "'8080:80'",
            "'53:53/udp'",
            "'8000-8002:90-92'",
            "'7000-7001:70'",
            "'99-101'",
            "{target: 5}",
            "{target: 443, published: 8443, mode: host, protocol: udp}",
            "'1.2.3.4:81:81'",
        ]),
    ),
    ("services.*.restart", One(&["always", "'no'", "on-failure:3", "unless-stopped"])),
    ("services.*.security_opt", List(&["a"])),
    ("services.*.shm_size", One(&["64m"])),
    ("services.*.stop_grace_period", DURATION),
    ("services.*.tmpfs", List(&["/run", "/tmp"])),
    ("services.*.ulimits", Pairs(&["a: 1", "b: {soft: 1, hard: 2}", "c: -1", "d: '$N'", "e: 0"])),
    (
        "services.*.volumes",
        List(&[
            "'one:/one'",
            "'two:/two:ro'",
            "/anonymous",
            "'./a:/b'",
            "'/a:/c:rshared'",
            "{type: tmpfs, target: /t, tmpfs: {size: 5}}",
            "{type: bind, source: ~/x, target: /x, read_only: true, consistency: cached, bind: {propagation: rslave}}",
            "{type: volume, source: one, target: /n, volume: {nocopy: true}}",
            "{type: npipe, source: x, target: y}",
        ]),
    ),
    ("services.*.oom_score_adj", One(&["5"])),
    ("services.*.deploy.mode", One(&["replicated", "replicated", "replicated-job", "''", "global"])),
    ("services.*.deploy.replicas", One(&["0", "3", "'$N'"])),
    ("services.*.deploy.endpoint_mode", One(&["vip", "DNSRR"])),
    ("services.*.deploy.placement.constraints", List(&["node.role==worker", "'a != b'"])),
    ("services.*.deploy.placement.preferences", List(&["{spread: a}", "{spread: b}", "{}"])),
    ("services.*.deploy.resources.limits.cpus", One(&["'0.5'", "'2'", "''"])),
    ("services.*.deploy.resources.reservations.cpus", One(&["'.25'"])),
    ("services.*.deploy.resources.limits.memory", One(&["5M", "1.5g", "100k"])),
    ("services.*.deploy.resources.reservations.memory", One(&["5M"])),
    (
        "services.*.deploy.resources.reservations.generic_resources",
        List(&["{discrete_resource_spec: {kind: a, value: 1}}", "{}"]),
    ),
    ("services.*.deploy.restart_policy.condition", One(&["any", "none", "on-failure"])),
    ("services.*.deploy.restart_policy.delay", DURATION),
    ("services.*.deploy.restart_policy.window", DURATION),
    ("services.*.deploy.update_config.delay", DURATION),
    ("services.*.deploy.update_config.monitor", DURATION),
    ("services.*.deploy.update_config.failure_action", One(&["pause", "continue", "rollback"])),
    ("services.*.deploy.update_config.order", One(&["start-first", "stop-first"])),
    ("services.*.deploy.update_config.max_failure_ratio", One(&["0", "0.3", "1"])),
    ("services.*.deploy.rollback_config.delay", DURATION),
    ("services.*.deploy.rollback_config.monitor", DURATION),
    ("services.*.deploy.rollback_config.failure_action", One(&["pause", "continue"])),
    ("services.*.deploy.rollback_config.order", One(&["start-first", "stop-first"])),
    ("services.*.deploy.rollback_config.max_failure_ratio", One(&["0", "0.3", "1"])),
    ("services.*.healthcheck.test", One(&["a b", "[CMD, a]", "[NONE]", "[]", "''"])),
    ("services.*.healthcheck.disable", One(&["false", "false", "false", "true"])),
    ("services.*.healthcheck.interval", DURATION),
    ("services.*.healthcheck.timeout", DURATION),
    ("services.*.healthcheck.start_period", DURATION),
    ("services.*.healthcheck.start_interval", DURATION),
    ("services.*.logging.options", MAPPING),
    ("networks.*.external", One(&["true", "false", "{name: x}"])),
    ("networks.*.ipam.config", List(&["{subnet: 10.1.0.0/24}", "{}"])),
    ("volumes.*.external", One(&["true", "false", "{name: x}"])),
    ("volumes.*.x-cluster-spec", One(&["{group: g}"])),
    ("secrets.*.external", One(&["true", "true", "false"])),
    ("configs.*.external", One(&["true", "true", "false"])),
    ("secrets.*.file", One(&["a.env"])),
    ("configs.*.file", One(&["a.env"])),
];

/// Samples by the key's own name, wherever it stands.
const SAMPLES_ANYWHERE: &[(&str, Samples)] = &[
    ("labels sysctls", MAPPING),
    // Two objects of one name are nobody's wish: the sign becomes the object's key.
    ("name", One(&["''", "the-@", "'${HOST}-@'"])),
    ("driver_opts", OPTIONS),
    ("tty stdin_open read_only init privileged internal attachable", FLAG),
    ("retries parallelism max_attempts max_replicas_per_node pids", NUMBER),
];

/// Compares stacks until there were enough, or two verdicts differ.
pub fn compare() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(STACKS);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let (reached, taken) = (RefCell::new(Coverage::new()), Cell::new(0));
    let outcome = runner.run(&stack(), |texts| {
        let case = Case::of("generated", texts);
        reached.borrow_mut().add(case.texts());
        taken.set(taken.get() + u32::from(runtime.block_on(verdict(case)).map_err(TestCaseError::fail)?));
        Ok(())
    });
    let reached = reached.into_inner();
    println!("{cases} generated stacks, {} of them taken, did not reach {:?}", taken.get(), reached.missing());
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Whether both take the stack and send the same, or both refuse it.
async fn verdict(mut case: Case) -> Result<bool, String> {
    let env_files = [("a.env", "A=1\nHOST\n"), ("b.env", "B=2\nA=3\n")];
    case.files.extend(env_files.map(|(name, text)| (name.to_owned(), text.to_owned())));
    let folder = tempfile::tempdir().unwrap();
    let files = case.write(folder.path());
    let theirs = engine::docker_deploys(&files, &NO_REGISTRY, Swarm::default()).await;
    match (ours::load(&files, folder.path()), theirs.output.status.success()) {
        (Ok(objects), true) => {
            let external = ours::external(&objects);
            let ours = engine::we_deploy(&files, &NO_REGISTRY, Swarm::default().with_external(&external)).await;
            let mut differences = ours::differences(&ours, &theirs);
            differences.extend(updates::of_what_was_deployed(&files, theirs.swarm.with_external(&external)).await);
            if differences.is_empty() { Ok(true) } else { Err(differences.join("\n")) }
        }
        (Err(_), false) => Ok(false),
        (Ok(_), false) => Err(format!("only the CLI refuses it: {}", String::from_utf8_lossy(&theirs.output.stderr))),
        // Two services that publish one port: each is sound, and swarm would refuse the second.
        (Err(mistakes), true) if mistakes.0.iter().all(|mistake| mistake.message.contains("is published")) => Ok(false),
        (Err(mistakes), true) => Err(format!("only we refuse it: {mistakes}")),
    }
}

/// One file, or two.
fn stack() -> impl Strategy<Value = Vec<String>> {
    let over = services().prop_map(|services| format!("services: {services}\n"));
    let base = (services(), ["networks", "volumes", "secrets", "configs"].map(section_of));
    let base = base.prop_map(|(services, sections)| format!("services: {services}\n{}\n", sections.join("\n")));
    (base, prop::option::of(over)).prop_map(|(base, over)| [base].into_iter().chain(over).collect())
}

fn services() -> BoxedStrategy<String> {
    let service = || map("services.*");
    (service(), service()).prop_map(|(web, db)| format!("{{web: {web}, db: {db}}}")).boxed()
}

fn section_of(section: &'static str) -> BoxedStrategy<String> {
    let definition = || map(&format!("{section}.*"));
    let [one, two] = NAMES;
    (definition(), definition())
        .prop_map(move |(a, b)| {
            format!("{section}: {{{one}: {}, {two}: {}}}", a.replace('@', one), b.replace('@', two))
        })
        .boxed()
}

/// A map with some of the keys that may stand at `path`. An image is always there, and a secret always comes from somewhere.
fn map(path: &str) -> BoxedStrategy<String> {
    let section = Section::at(path).unwrap();
    // A service has many keys, of which a few are enough; what stands deeper is seldom reached; and some keys contradict others.
    let weight = |key| match (path, key) {
        (_, "external") | ("secrets.*", "driver") => 0.05,
        ("services.*", "deploy") => 0.6,
        ("services.*", _) => 0.25,
        _ => 0.5,
    };
    let entry = |key: &'static str| {
        let value = value(&join(path, key), key).prop_map(move |value| format!("{key}: {value}"));
        let always = key == "image" || (key == "file" && (path == "secrets.*" || path == "configs.*"));
        if always { value.prop_map(Some).boxed() } else { prop::option::weighted(weight(key), value).boxed() }
    };
    let entries: Vec<_> = section.keys().map(|(key, _)| entry(key)).collect();
    entries.prop_map(|entries| format!("{{{}}}", entries.into_iter().flatten().collect::<Vec<_>>().join(", "))).boxed()
}

fn value(path: &str, key: &str) -> BoxedStrategy<String> {
    let here = SAMPLES.iter().find(|(at, _)| *at == path);
    let anywhere = || SAMPLES_ANYWHERE.iter().find(|(keys, _)| keys.split(' ').any(|known| known == key));
    let samples = here.or_else(anywhere).map(|(_, samples)| samples);
    match samples {
        None if Section::at(path).is_some() => map(path),
        None => TEXTS.strategy(),
        Some(samples) => samples.strategy(),
    }
}

impl Samples {
    fn strategy(&self) -> BoxedStrategy<String> {
        let some =
            |samples: &'static [&'static str]| prop::sample::subsequence(samples.to_vec(), 0..=samples.len().min(4));
        match self {
            One(samples) => prop::sample::select(*samples).prop_map(str::to_owned).boxed(),
            List(samples) => some(samples).prop_map(|items| format!("[{}]", items.join(", "))).boxed(),
            Pairs(samples) => some(samples).prop_map(|pairs| format!("{{{}}}", pairs.join(", "))).boxed(),
        }
    }
}
