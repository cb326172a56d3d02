use super::settings::SETTINGS;
use super::*;

/// A file of ours with everything a manager needs.
const FILE: &str =
    "cluster: prod-eu\ngit:\n  url: https://git.example.com/ops/swarm.git\n  branch: live\n  path: swarm\n";

/// What there is to read from.
#[derive(Default)]
struct World {
    files: BTreeMap<&'static str, String>,
    environment: BTreeMap<String, String>,
    flags: Flags,
}

impl World {
    fn file(text: &str) -> Self {
        Self::default().with_file("/etc/swarmkeeper.yml", text)
    }

    fn with_file(mut self, path: &'static str, text: &str) -> Self {
        self.files.insert(path, text.to_owned());
        self
    }

    fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn with_flag(mut self, key: &'static str, flag: &'static str, value: &str) -> Self {
        self.flags.settings.insert(key, (flag, value.to_owned()));
        self
    }

    fn resolve(&self) -> Result<Loaded, Findings> {
        let read = |path: &Path| match self.files.get(path.to_str().unwrap()) {
            Some(text) => Ok(text.clone()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        };
        resolve(&Inputs { flags: &self.flags, environment: &self.environment, read: &read })
    }

    fn config(&self) -> Config {
        self.resolve().unwrap().config
    }

    /// All mistakes, one a line.
    fn mistakes(&self) -> String {
        match self.resolve() {
            Ok(loaded) => panic!("no mistake in {loaded:?}"),
            Err(findings) => findings.to_string(),
        }
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn four_lines_suffice() {
    let world = World::file(FILE);
    let loaded = world.resolve().unwrap();
    assert_eq!(loaded.warnings, vec![]);
    let git = loaded.config.require_git().unwrap();
    assert_eq!(loaded.config.cluster, "prod-eu");
    assert_eq!(
        (git.url.as_str(), git.branch.as_str(), git.path.as_str()),
        ("https://git.example.com/ops/swarm.git", "live", "swarm")
    );
    assert_eq!(loaded.config.file.as_deref(), Some(Path::new("/etc/swarmkeeper.yml")));
}

#[test]
fn nothing_at_all_is_enough_for_a_worker() {
    let config = World::default().config();
    assert_eq!(config.cluster, "swarm");
    assert_eq!(config.role, Role::Auto);
    assert_eq!(config.poll_interval, Duration::from_mins(1));
    assert_eq!(config.shutdown_grace, Duration::from_secs(8));
    assert_eq!(config.brake, Brake { removes_max: 3, restarts_percent_max: 30 });
    let resync = Duration::from_secs(10);
    assert_eq!(config.registration, Registration { enable: true, resync, ..Registration::default() });
    assert_eq!(config.bind, [BindAddress::NodeAndLoopback(7979)]);
    assert_eq!(config.docker_host, "unix:///var/run/docker.sock");
    assert_eq!(config.consul.address, "http://127.0.0.1:8500");
    assert_eq!(config.registries_dir, Path::new("/run/secrets/registries"));
    assert_eq!(config.log_level, "info");
    insta::assert_snapshot!(config.require_git().unwrap_err(), @"git.url: no Config Repo is configured, and a manager needs one (set `git: {url: …}` in swarmkeeper.yml, or SWARMKEEPER_GIT_URL)");
}

#[test]
fn a_consul_is_named_by_its_address_or_its_token_and_by_no_default() {
    let named = |name: &str, value: &str| World::default().with_env(name, value).config().consul_is_named;
    assert!(!World::default().config().consul_is_named);
    assert!(named("SWARMKEEPER_CONSUL_ADDRESS", "http://127.0.0.1:8500"));
    assert!(named("CONSUL_HTTP_ADDR", "127.0.0.1:8500") && named("SWARMKEEPER_CONSUL_TOKEN", "t0ken"));
    assert!(!named("SWARMKEEPER_COORDINATION", "consul"));
    assert_eq!(World::default().config().coordination, Coordination::Auto);
    assert_eq!(World::file("coordination: swarm\n").config().coordination, Coordination::Swarm);
}

#[test]
fn every_default_is_a_value_of_its_kind() {
    for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
        let parsed = values::parse(setting, &[setting.default.to_owned()]);
        assert!(parsed.is_ok(), "{}: {parsed:?}", setting.key);
    }
}

#[test]
fn every_setting_is_known_by_its_variable_and_its_place_in_the_file() {
    for setting in SETTINGS {
        let world =
            World::default().with_env(&setting.env(), " wrong\u{7f}value ").with_env("SWARMKEEPER_ROLE", "auto");
        let (group, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        let indent = if group.is_empty() { String::new() } else { format!("{group}:\n  ") };
        for world in [world, World::file(&format!("{indent}{name}: {{}}\n"))] {
            let text = world.resolve().map_or_else(|mistakes| mistakes.to_string(), |_| String::new());
            assert!(!text.contains("no such setting"), "{}: {text}", setting.key);
        }
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let world = World::file("cluster: file\nlog_level: warn\npoll_interval: 5m\n");
    let world = world.with_env("SWARMKEEPER_CLUSTER", "env").with_env("SWARMKEEPER_LOG_LEVEL", "debug");
    let config = world.with_flag("log_level", "--log-level", "trace").config();
    assert_eq!(
        (config.poll_interval, config.cluster.as_str(), config.log_level),
        (Duration::from_mins(5), "env", "trace")
    );
}

#[test]
fn an_empty_variable_counts_as_none() {
    let config =
        World::file(FILE).with_env("SWARMKEEPER_CLUSTER", "").with_env("SWARMKEEPER_API_TOKEN_FILE", "").config();
    assert_eq!(config.cluster, "prod-eu");
    assert!(config.api_token.is_none());
}

#[test]
fn the_variables_of_other_programs_are_read_unless_ours_is_set() {
    let world = World::default()
        .with_env("DOCKER_HOST", "tcp://10.0.0.1:2375")
        .with_env("DOCKER_CONFIG", "/etc/docker-client")
        .with_env("CONSUL_HTTP_ADDR", "127.0.0.1:18500")
        .with_env("CONSUL_HTTP_TOKEN_FILE", "/run/secrets/consul")
        .with_file("/run/secrets/consul", "t0ken\n");
    let config = world.config();
    assert_eq!(config.docker_host, "tcp://10.0.0.1:2375");
    assert_eq!(config.docker_config.as_deref(), Some(Path::new("/etc/docker-client")));
    assert_eq!(config.consul.address, "http://127.0.0.1:18500");
    assert_eq!(config.consul.token.unwrap().reveal(), "t0ken");
    let config = World::default()
        .with_env("DOCKER_HOST", "tcp://10.0.0.1:2375")
        .with_env("SWARMKEEPER_DOCKER_HOST", "unix:///other.sock")
        .with_env("HOME", "/root")
        .config();
    assert_eq!(config.docker_host, "unix:///other.sock");
    assert_eq!(config.docker_config.as_deref(), Some(Path::new("/root/.docker")));
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----";
    let world = World::file("git:\n  url: git@example.com:ops/swarm.git\n  ssh_key_file: /key\nnotify_file: /urls\n")
        .with_file("/key", &format!("{key}\n\n"))
        .with_file("/urls", "https://a.example/x\nhttps://b.example/y\n")
        .with_env("SWARMKEEPER_WEBHOOK_SECRET_FILE", "/hook")
        .with_file("/hook", "s3cret\r\n");
    let config = world.config();
    assert_eq!(config.require_git().unwrap().ssh_key.as_ref().unwrap().reveal(), &format!("{key}\n"));
    assert_eq!(config.webhook_secret.unwrap().reveal(), "s3cret");
    assert_eq!(config.notify.len(), 2);
}

#[test]
fn lists_are_lists_or_texts_with_commas() {
    let listed = World::file("stacks: [shop, billing]\nbind:\n  - 127.0.0.1\n  - ':80'\n").config();
    let texts = World::default()
        .with_env("SWARMKEEPER_STACKS", "shop, billing")
        .with_env("SWARMKEEPER_BIND", "127.0.0.1,:80")
        .config();
    for config in [listed, texts] {
        assert_eq!(config.stacks.iter().map(StackName::as_str).collect::<Vec<_>>(), ["shop", "billing"]);
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 7979));
        assert_eq!(config.bind, [BindAddress::At(loopback), BindAddress::NodeAndLoopback(80)]);
    }
}

#[test]
fn a_bind_address_without_ip_is_the_node_and_loopback() {
    let node: IpAddr = "10.0.0.1".parse().unwrap();
    let sockets = |bind: BindAddress, node| bind.sockets(node).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(sockets(BindAddress::NodeAndLoopback(1), node), ["127.0.0.1:1", "10.0.0.1:1"]);
    assert_eq!(sockets(BindAddress::NodeAndLoopback(1), Ipv4Addr::LOCALHOST.into()), ["127.0.0.1:1"]);
    assert_eq!(sockets(BindAddress::At("[::]:9".parse().unwrap()), node), ["[::]:9"]);
}

#[test]
fn credentials_are_taken_out_of_the_url() {
    let git = |url: &str| World::default().with_env("SWARMKEEPER_GIT_URL", url).config().git.unwrap();
    let with_both = git("https://me:p%40ss+w&rd=1@git.example.com/x.git");
    assert_eq!(with_both.url, "https://git.example.com/x.git");
    assert_eq!(with_both.username.as_deref(), Some("me"));
    assert_eq!(with_both.password.unwrap().reveal(), "p@ss+w&rd=1");
    let with_token = git("https://ghp_t0ken@github.com/x/y.git");
    assert_eq!((with_token.url.as_str(), with_token.username), ("https://github.com/x/y.git", None));
    assert_eq!(with_token.password.unwrap().reveal(), "ghp_t0ken");
    assert_eq!(git("git@example.com:x.git").url, "git@example.com:x.git");
    assert_eq!(git("ssh://git@example.com/x.git").url, "ssh://git@example.com/x.git");
}

#[test]
fn no_secret_is_ever_printed() {
    let world = World::file("git:\n  url: https://me:geheim@h/x\n  known_hosts: geheim\nconsul: {token: geheim}\nnotify: [https://h/geheim]\n")
        .with_env("SWARMKEEPER_API_TOKEN", "geheim")
        .with_env("SWARMKEEPER_WEBHOOK_SECRET", "geheim");
    let known_hosts = "known_hosts: Some(\"geheim\")";
    let printed = format!("{:?}", world.resolve().unwrap()).replace(known_hosts, "");
    assert!(!printed.contains("geheim"), "{printed}");
    for wrong in ["git: {password: [geheim]}", "git: {url: 'geheim'}", "notify: geheim", "git: {ssh_key: geheim}"] {
        let mistakes = World::file(wrong).mistakes();
        assert!(!mistakes.contains("geheim"), "{mistakes}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let file = "\
clutser: prod
role: boss
git:
  ulr: x
  url: nowhere
  path: ../elsewhere
  password: a
  password_file: /b
git_branch: main
branch: main
consul: 127.0.0.1
poll_interval: 1
stacks: [shop, -x]
brake: {removes_max: -1, restarts_percent_max: 101}
registration: {enable: yes, intern: true}
bind: somewhere
state_dir: data
notify: [ftp://x]
shutdown_grace: 2m
cluster: [a, b]
entirely_else: 1
";
    let world = World::file(file)
        .with_env("SWARMKEEPER_GIT_BRANCHH", "main")
        .with_env("SWARMKEEPER_API_TOKEN_FILE", "/nowhere")
        .with_env("DOCKER_HOST", "ssh://me@host")
        .with_flag("log_level", "--log-level", "loud");
    insta::assert_snapshot!(world.mistakes(), @r#"
--log-level: log_level: found "loud", accepted: trace, debug, info, warn, error, off
/etc/swarmkeeper.yml:1:1: clutser: no such setting (did you mean cluster?)
/etc/swarmkeeper.yml:2:7: role: found "boss", accepted: auto, manager, worker
/etc/swarmkeeper.yml:4:3: git.ulr: no such setting (did you mean git.url?)
/etc/swarmkeeper.yml:5:8: git.url: found something else, accepted: https://…, ssh://…, user@host:path, or an absolute path
/etc/swarmkeeper.yml:6:9: git.path: found "../elsewhere", accepted: a folder inside the Config Repo, without ..
/etc/swarmkeeper.yml:8:18: git.password_file: git.password and git.password_file are both set (set one of the two)
/etc/swarmkeeper.yml:8:18: git.password: /b: no such file
/etc/swarmkeeper.yml:9:1: git_branch: no such setting (did you mean git.branch, that is `git: {branch: …}`?)
/etc/swarmkeeper.yml:10:1: branch: no such setting (did you mean git.branch, that is `git: {branch: …}`?)
/etc/swarmkeeper.yml:11:9: consul: found text, accepted: a map (such as `consul: {address: …}`)
/etc/swarmkeeper.yml:12:16: poll_interval: found "1", accepted: a duration such as 90s or 5m, from 1s to 1day
/etc/swarmkeeper.yml:13:9: stacks: "-x" cannot be a stack's name: use letters, digits, '-', '_' and '.', begin with a letter or a digit, and stay below 64 characters
/etc/swarmkeeper.yml:14:22: brake.removes_max: found "-1", accepted: a whole number from 0 to 10000
/etc/swarmkeeper.yml:14:48: brake.restarts_percent_max: found "101", accepted: a whole number from 0 to 100
/etc/swarmkeeper.yml:15:24: registration.enable: found "yes", accepted: true or false
/etc/swarmkeeper.yml:15:29: registration.intern: no such setting (did you mean registration.internal?)
/etc/swarmkeeper.yml:16:7: bind: found "somewhere", accepted: a list of :PORT, IP or IP:PORT
/etc/swarmkeeper.yml:17:12: state_dir: found "data", accepted: an absolute path
/etc/swarmkeeper.yml:18:9: notify: found something else, accepted: a list of https:// or http:// addresses
/etc/swarmkeeper.yml:19:17: shutdown_grace: found "2m", accepted: a duration such as 90s or 5m, from 0s to 1m
/etc/swarmkeeper.yml:20:10: cluster: found a list, accepted: letters, digits, '-' and '_', at most 63
/etc/swarmkeeper.yml:21:1: entirely_else: no such setting
DOCKER_HOST: docker_host: found "ssh://me@host", accepted: unix:///path or tcp://host:port
SWARMKEEPER_API_TOKEN_FILE: api_token: /nowhere: no such file
SWARMKEEPER_GIT_BRANCHH: no such setting (did you mean SWARMKEEPER_GIT_BRANCH?)
"#);
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let mut flagged = World::default();
    flagged.flags.config = Some("/nowhere.yml".into());
    insta::assert_snapshot!(flagged.mistakes(), @"--config: /nowhere.yml: no such file (name a file that can be read)");
    insta::assert_snapshot!(World::default().with_env("SWARMKEEPER_CONFIG", "/gone.yml").mistakes(), @"SWARMKEEPER_CONFIG: /gone.yml: no such file (name a file that can be read)");
}

#[test]
fn a_file_that_is_no_map_is_told_so() {
    for (text, expect) in [
        ("just words", "/etc/swarmkeeper.yml:1:1: found text, accepted: a map (begin with `cluster: …`)"),
        ("a: b: c", "/etc/swarmkeeper.yml:1:5: "),
    ] {
        assert!(World::file(text).mistakes().contains(expect), "{}", World::file(text).mistakes());
    }
    assert_eq!(World::file("# nothing yet\n").config().cluster, "swarm");
}

#[test]
fn a_manager_is_told_what_git_needs() {
    let manager = |text: &str| World::file(&format!("role: manager\n{text}")).mistakes();
    insta::assert_snapshot!(manager(""), @"/etc/swarmkeeper.yml: git.url: no Config Repo is configured, and a manager needs one (set `git: {url: …}` in swarmkeeper.yml, or SWARMKEEPER_GIT_URL)");
    insta::assert_snapshot!(manager("git: {url: 'git@example.com:ops/swarm.git'}"), @"/etc/swarmkeeper.yml: git.ssh_key: git@example.com:ops/swarm.git is reached over ssh, and there is no key (set SWARMKEEPER_GIT_SSH_KEY_FILE to a file with the private key, such as /run/secrets/swarmkeeper-ssh-key)");
    insta::assert_snapshot!(manager("git: {url: 'git@example.com:x.git', ssh_key: /run/secrets/key}"), @"git.ssh_key: there is no private key in it (it has no line -----BEGIN … PRIVATE KEY-----) (give the key itself; where it stands in a file, set git.ssh_key_file or SWARMKEEPER_GIT_SSH_KEY_FILE)");
}

#[test]
fn a_variable_that_is_no_slip_of_ours_is_a_remark() {
    let loaded =
        World::default().with_env("SWARMKEEPER_LAB_SECONDS", "5").with_env("SWARMKEEPER_IMAGE", "x").resolve().unwrap();
    assert_eq!(lines(&loaded.warnings), "SWARMKEEPER_LAB_SECONDS: no such setting; it has no effect");
}

#[test]
fn swarm_syncs_file_is_understood_and_what_has_no_effect_is_named() {
    let file = "\
swarm-sync:
  stacks: [nonprod]
  updateInterval: 30000
  git: {url: 'https://git.example.com/x.git'}
  git_crypt: {keyFile: /run/secrets/git-crypt-key}
  docker: {socketPath: /var/run/other.sock, minRegistryReqInterval: 2000}
  repositories: [{name: official, url: 'https://…'}]
  colour: blue
cluster: prod
";
    let world = World::default()
        .with_file("/my/sync.yml", file)
        .with_env("SWARM_SYNC_CONFIG_FILE", "/my/sync.yml")
        .with_env("SWARM_SYNC_LOGLEVEL", "1")
        .with_env("SWARM_SYNC_STATE_FILE", "/x")
        .with_env("SSH_PRIVATE_KEY", "DOCKER-SECRET->ssh-key")
        .with_file("/run/secrets/ssh-key", "-----BEGIN RSA PRIVATE KEY-----\n");
    let loaded = world.resolve().unwrap();
    let config = &loaded.config;
    assert_eq!((config.cluster.as_str(), config.log_level), ("prod", "debug"));
    assert_eq!(config.stacks, [StackName::new("nonprod").unwrap()]);
    assert_eq!(config.poll_interval, Duration::from_secs(30));
    assert_eq!(config.docker_host, "unix:///var/run/other.sock");
    assert!(config.git.as_ref().unwrap().ssh_key.is_some());
    insta::assert_snapshot!(lines(&loaded.warnings), @r#"
/my/sync.yml:4:3: swarm-sync.git: no branch is named: swarm-sync took the repo's default branch, swarmkeeper follows main (name it: `branch: master`)
/my/sync.yml:5:3: swarm-sync.git_crypt: swarmkeeper cannot do this yet; it has no effect
/my/sync.yml:6:45: swarm-sync.docker.minRegistryReqInterval: has no effect in swarmkeeper
/my/sync.yml:7:3: swarm-sync.repositories: swarmkeeper cannot do this yet; it has no effect
/my/sync.yml:8:3: swarm-sync.colour: has no effect in swarmkeeper
SWARM_SYNC_STATE_FILE: has no effect: state lives in the swarm, caches in state_dir
"#);
}

#[test]
fn swarm_syncs_engine_may_be_remote() {
    let host = |docker: &str| World::file(&format!("swarm-sync: {{docker: {docker}}}")).config().docker_host;
    assert_eq!(host("{host: 10.0.0.1, port: 2376}"), "tcp://10.0.0.1:2376");
    assert_eq!(host("{host: 'http://10.0.0.1', protocol: http}"), "tcp://10.0.0.1:2375");
}

#[test]
fn swarm_syncs_mistakes_are_told_where_they_stand() {
    let file = "swarm-sync:\n  updateInterval: soon\n  git: [x]\n  stacks: {a: b}\n";
    insta::assert_snapshot!(World::file(file).mistakes(), @r#"
/etc/swarmkeeper.yml:2:19: swarm-sync.updateInterval: found text, accepted: a number of milliseconds
/etc/swarmkeeper.yml:3:8: swarm-sync.git: found a list, accepted: a map
/etc/swarmkeeper.yml:4:11: swarm-sync.stacks: found a map, accepted: a list of stacks' names
"#);
}

#[test]
fn the_policy_stands_in_the_file_and_its_mistakes_are_told_with_all_others() {
    assert_eq!(World::file(FILE).config().permissions, Permissions::default());
    let with = World::file(&format!("{FILE}policy:\n  shop: {{images: [nginx]}}\n")).config();
    assert_ne!(with.permissions, Permissions::default());
    let world = World::file("clustr: x\npolicy:\n  shop:\n    bind: [/srv]\n").with_env("SWARMKEEPER_POLICY", "{}");
    insta::assert_snapshot!(world.mistakes(), @r#"
    /etc/swarmkeeper.yml:1:1: clustr: no such setting (did you mean cluster?)
    /etc/swarmkeeper.yml:4:5: policy.shop.bind: no such key (did you mean binds?)
    SWARMKEEPER_POLICY: the policy stands in the file only (write `policy: {…}` into swarmkeeper.yml)
    "#);
    insta::assert_snapshot!(World::file("polcy: {}\n").mistakes(), @r#"/etc/swarmkeeper.yml:1:1: polcy: no such setting (did you mean policy?)"#);
}

#[test]
fn consuls_own_variables_lead_to_tls() {
    let world = World::default()
        .with_env("CONSUL_HTTP_ADDR", "10.0.0.1:8501")
        .with_env("CONSUL_HTTP_SSL", "true")
        .with_env("CONSUL_CACERT", "/tls/ca.pem")
        .with_env("CONSUL_CLIENT_CERT", "/tls/agent.pem")
        .with_env("CONSUL_CLIENT_KEY", "/tls/agent.key");
    let consul = world.config().consul;
    assert_eq!(consul.address, "https://10.0.0.1:8501");
    assert_eq!(consul.ca_file.as_deref(), Some(Path::new("/tls/ca.pem")));
    assert_eq!(consul.cert_file.as_deref(), Some(Path::new("/tls/agent.pem")));
    assert_eq!(consul.key_file.as_deref(), Some(Path::new("/tls/agent.key")));
    let plain = World::default().with_env("CONSUL_CACERT", "/tls/ca.pem").resolve().unwrap();
    assert!(plain.warnings[0].message.contains("not reached by https"), "{:?}", plain.warnings);
}

#[test]
fn half_a_certificate_is_a_mistake() {
    for (set, missing) in [("CONSUL_CLIENT_CERT", "consul.key_file"), ("SWARMKEEPER_TLS_KEY_FILE", "tls.cert_file")] {
        let mistakes = World::default().with_env(set, "/x").resolve().unwrap_err().to_string();
        assert!(mistakes.contains(missing), "{mistakes}");
    }
    let alone = World::default().with_env("SWARMKEEPER_TLS_CLIENT_CA_FILE", "/x").resolve().unwrap_err().to_string();
    assert!(alone.contains("tls.cert_file"), "{alone}");
}
