//! Compose files against policies, as the leader and `validate` see them.

use std::collections::BTreeMap;

use super::*;
use crate::compose::{self, Input, Mode, SourceFile};
use crate::model::{Finding, StackObjects};
use crate::yaml::{self, Field, Problems};

fn permissions(policy: &str) -> Permissions {
    let node = yaml::parse("swarmkeeper.yml", policy).unwrap();
    let problems = Problems::default();
    let permissions = Permissions::read(&Field::new(&node, "policy", &problems));
    problems.into_result(permissions).unwrap()
}

fn mistakes(policy: &str) -> String {
    let node = yaml::parse("swarmkeeper.yml", policy).unwrap();
    let problems = Problems::default();
    Permissions::read(&Field::new(&node, "policy", &problems));
    problems.into_result(()).unwrap_err().to_string()
}

fn load(files: &[SourceFile]) -> StackObjects {
    let loaded = compose::load(&Input {
        files,
        stack: &StackName::new("shop").unwrap(),
        environment: &BTreeMap::from([("ROOT".to_owned(), "/".to_owned())]),
        read_file: &|_| Ok(Some(b"content".to_vec())),
        folder: None,
        mode: Mode::Lenient,
    });
    loaded.unwrap().objects
}

fn refusals(policy: &str, texts: &[(&str, &str)]) -> Vec<Finding> {
    let source = |(name, text): &(&str, &str)| SourceFile { name: (*name).to_owned(), text: (*text).to_owned() };
    let files: Vec<SourceFile> = texts.iter().map(source).collect();
    let texts = files.iter().map(|file| (file.name.as_str(), file.text.as_str())).collect();
    permissions(policy).refusals(&StackName::new("shop").unwrap(), &load(&files), &texts)
}

/// What the stack `shop` with this compose file is told, one a line.
fn told(policy: &str, compose: &str) -> String {
    let findings = refusals(policy, &[("compose.yml", compose)]);
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The refused things of a service with these lines, under a policy that allows images and `/srv/shop/**`.
fn refused(service: &str, rest: &str) -> Vec<String> {
    let compose = format!("services:\n  web:\n    image: nginx\n{service}\n{rest}");
    let policy = "shop: {images: ['**'], binds: [/srv/shop/**]}";
    let found = |finding: &Finding| {
        let (found, _) = finding.message.split_once(", and the policy").unwrap_or((&finding.message, ""));
        found.strip_prefix("found ").unwrap_or(found).to_owned()
    };
    refusals(policy, &[("compose.yml", &compose)]).iter().map(found).collect()
}

const NGINX: &str = "services:\n  web:\n    image: nginx\n";

#[test]
fn without_a_policy_everything_is_allowed() {
    let files = [SourceFile {
        name: "compose.yml".into(),
        text: format!("{NGINX}    volumes: ['/:/host']\n    cap_add: [ALL]\n"),
    }];
    let refusals = Permissions::default().refusals(&StackName::new("shop").unwrap(), &load(&files), &Texts::new());
    assert_eq!(refusals, []);
}

#[test]
fn a_stack_that_no_entry_matches_may_not_even_run_an_image() {
    for policy in ["{}", "shop:", "shop-*: {images: ['**']}", "shop: {images: []}"] {
        assert_eq!(
            told(policy, NGINX),
            "compose.yml:3:5: services.web.image: found the image nginx:latest, and the policy allows this stack no images \
             (to allow it, add \"nginx\" to policy.shop.images in swarmkeeper.yml)",
            "{policy}"
        );
    }
}

#[test]
fn entries_that_match_add_up() {
    let policy =
        "'*': {images: ['**']}\n'sh*': {binds: [/srv/a]}\nshop: {binds: [/srv/b]}\nbilling: {binds: [/srv/c]}\n";
    let told = told(policy, &format!("{NGINX}    volumes: ['/srv/a:/a', '/srv/b:/b', '/srv/c:/c']\n"));
    insta::assert_snapshot!(told, @r#"compose.yml:4:41: services.web.volumes[2]: found the mount of /srv/c, and the policy allows this stack the binds /srv/a, /srv/b (to allow it, add "/srv/c" to policy.shop.binds in swarmkeeper.yml)"#);
}

#[test]
fn everything_refused_is_told_at_once_each_with_its_line() {
    let compose = r"services:
  web:
    image: evil.example.com/web:1
    cap_add:
      - NET_BIND_SERVICE
      - cap_sys_admin
    volumes:
      - /srv/shop/data:/data
      - type: bind
        source: /var/run/docker.sock
        target: /docker.sock
      - host:/host
      - other:/other
    networks: [default, hostnet, theirs]
    secrets: [tls]
    configs: [site]
networks:
  hostnet:
    external: true
    name: host
  theirs: {external: true}
  lan: {driver: macvlan}
volumes:
  host:
    driver_opts: {type: none, o: bind, device: /}
  other:
    external: true
secrets:
  tls:
    external: true
configs:
  site:
    external: true
    name: site_v1
";
    insta::assert_snapshot!(told("shop: {images: [nginx], binds: [/srv/shop/**], capabilities: [NET_*]}", compose), @r#"
    compose.yml:3:5: services.web.image: found the image evil.example.com/web:1, and the policy allows this stack the images nginx (to allow it, add "evil.example.com/web" to policy.shop.images in swarmkeeper.yml)
    compose.yml:6:9: services.web.cap_add[1]: found the capability CAP_SYS_ADMIN, and the policy allows this stack the capabilities NET_* (to allow it, add "SYS_ADMIN" to policy.shop.capabilities in swarmkeeper.yml)
    compose.yml:9:9: services.web.volumes[1]: found the mount of /var/run/docker.sock, that is /run/docker.sock, and the policy allows this stack the binds /srv/shop/** (to allow it, add "/run/docker.sock" to policy.shop.binds in swarmkeeper.yml)
    compose.yml:13:9: services.web.volumes[3]: found the shared volume other, and the policy allows this stack no volumes (to allow it, add "other" to policy.shop.volumes in swarmkeeper.yml)
    compose.yml:20:5: networks.hostnet.name: found the host's network, which the policy does not allow this stack (to allow it, set policy.shop.host_network: true in swarmkeeper.yml)
    compose.yml:21:12: networks.theirs.external: found the external network theirs, and the policy allows this stack no networks (to allow it, add "theirs" to policy.shop.networks in swarmkeeper.yml)
    compose.yml:25:5: volumes.host.driver_opts: found the mount of /, and the policy allows this stack the binds /srv/shop/** (to allow it, add "/" to policy.shop.binds in swarmkeeper.yml)
    compose.yml:30:5: secrets.tls.external: found the external secret tls, and the policy allows this stack no secrets (to allow it, add "tls" to policy.shop.secrets in swarmkeeper.yml)
    compose.yml:34:5: configs.site.name: found the external config site_v1, and the policy allows this stack no configs (to allow it, add "site_v1" to policy.shop.configs in swarmkeeper.yml)
    "#);
}

#[test]
fn no_spelling_of_a_bind_gets_around_the_rule() {
    for (volume, expect) in [
        ("'/etc:/x'", "the mount of /etc"),
        ("'/etc/:/x:ro'", "the mount of /etc/, that is /etc"),
        ("'/srv/shop/../../etc:/x'", "the mount of /srv/shop/../../etc, that is /etc"),
        ("'//etc:/x'", "the mount of //etc, that is /etc"),
        ("{type: bind, source: /etc, target: /x}", "the mount of /etc"),
        ("{type: bind, source: '${ROOT}', target: /x}", "the mount of /"),
        ("'/var/run/docker.sock:/x'", "the mount of /var/run/docker.sock, that is /run/docker.sock"),
        ("'/proc/1/root/etc:/x'", "the mount of /proc/1/root/etc, that is /etc"),
        ("{type: bind, source: '/srv/shop/{{\"../../etc\"}}', target: /x}", "the mount of /srv/shop/{{\"../../etc\"}}"),
        ("'/srv/{{ .Service.Labels.x }}:/x'", "the mount of /srv/{{ .Service.Labels.x }}"),
        (
            r"{type: npipe, source: '\\.\pipe\docker_engine', target: '\\.\pipe\x'}",
            r"the mount of \\.\pipe\docker_engine, that is //pipe/docker_engine",
        ),
        ("{type: image, source: evil/x, target: /x}", ""),
        ("{type: cluster, source: 'group:fast', target: /x}", "the shared volume group:fast"),
    ] {
        let found = refused(&format!("    volumes:\n      - {volume}"), "");
        assert_eq!(found.join("; "), expect, "{volume}");
    }
    assert_eq!(
        refused("    volumes: ['/srv/shop/a:/a', '/srv/shop/{{.Node.Hostname}}:/b', '/anonymous']", ""),
        [""; 0]
    );
    assert_eq!(refused("    tmpfs: /run", ""), [""; 0]);
}

#[test]
fn no_volume_gets_around_the_rule() {
    for (definition, expect) in [
        ("", ""),
        ("{driver: local}", ""),
        ("{driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}}", ""),
        ("{driver_opts: {type: none, o: bind, device: /srv/shop/x}}", ""),
        ("{name: shop_other}", ""),
        ("{driver_opts: {type: none, o: bind, device: /}}", "the mount of /"),
        ("{driver_opts: {type: nfs, o: 'addr=1.2.3.4,rbind', device: /etc}}", "the mount of /etc"),
        ("{driver_opts: {type: tmpfs, o: bind, device: /etc}}", "the mount of /etc"),
        ("{driver_opts: {o: 'ro, bind', device: /srv/shop/../x}}", "the mount of /srv/shop/../x, that is /srv/x"),
        ("{driver_opts: {type: nfs, o: addr=nas, device: ':/x/../y'}}", "the mount of nfs:nas:/x/../y"),
        ("{driver_opts: {type: ext4, device: /dev/sda1}}", "the mount of ext4:/dev/sda1"),
        ("{driver_opts: {type: nfs, o: addr=nas, device: ':/x'}}", "the mount of nfs:nas:/x"),
        (
            "{driver_opts: {type: overlay, o: 'lowerdir=/srv/shop:/etc', device: overlay}}",
            "the mount of overlay:overlay; the mount of /etc",
        ),
        (
            "{driver_opts: {type: nfs, o: '{{.Node.Hostname}}{{\"bind\"}}', device: /}}",
            "the mount of {{.Node.Hostname}}{{\"bind\"}}",
        ),
        ("{driver: local-persist, driver_opts: {mountpoint: /}}", "the mount of plugin:local-persist"),
        ("{external: true}", "the shared volume data"),
        ("{name: billing_data}", "the shared volume billing_data"),
    ] {
        let rest = format!("volumes:\n  data: {definition}\n");
        assert_eq!(refused("    volumes: ['data:/x']", &rest).join("; "), expect, "{definition}");
    }
}

#[test]
fn the_hosts_network_is_refused_by_every_way_to_it() {
    let network =
        |definition: &str| refused("    networks: [n]", &format!("networks:\n  n: {definition}\n")).join("; ");
    assert_eq!(
        network("{external: true, name: host}"),
        "the host's network, which the policy does not allow this stack"
    );
    assert_eq!(network("{name: host}"), "the host's network, which the policy does not allow this stack");
    assert_eq!(network("{external: {name: host}}"), "the host's network, which the policy does not allow this stack");
    assert_eq!(network("{driver: macvlan}"), "the network driver macvlan, which the policy does not allow this stack");
    assert_eq!(network("{external: true, name: bridge}"), "the external network bridge");
    assert_eq!(network("{}"), "");
    // It has no effect in a swarm.
    assert_eq!(refused("    network_mode: host\n    privileged: true\n    pid: host", ""), [""; 0]);
    let compose = format!("{NGINX}    networks: [n]\nnetworks:\n  n: {{external: true, name: host}}\n");
    assert_eq!(told("'*': {images: ['**'], host_network: true}", &compose), "");
    assert!(!told("'*': {images: ['**'], networks: ['*']}", &compose).is_empty());
}

#[test]
fn a_secret_from_a_driver_counts_as_an_external_one() {
    let own = refused("    secrets: [a, b]", "secrets:\n  a: {file: a.txt}\n  b: {driver: vault}\n");
    assert_eq!(own, ["the external secret vault:shop_b"]);
}

#[test]
fn the_state_of_a_stack_cannot_be_forged() {
    let own = refused(
        "",
        "configs:\n  a: {file: a}\n  b: {file: b, name: shared}\n  c: {file: c, name: swarmkeeper-state-x}\n",
    );
    assert_eq!(own, ["the external config swarmkeeper-state-x"]);
}

#[test]
fn credential_specs_lie_on_the_node() {
    let found = refused("    credential_spec: {file: shop.json}", "");
    assert_eq!(found, ["the mount of credential_spec:shop.json"]);
}

#[test]
fn an_override_file_is_judged_by_what_it_makes_of_the_first() {
    let base = format!("{NGINX}    volumes: ['/srv/shop:/data']\n    cap_add: [CHOWN]\n");
    let over = "services:\n  web:\n    volumes: ['/etc:/data']\n";
    let found = refusals(
        "shop: {images: ['**'], binds: [/srv/shop], capabilities: [CHOWN]}",
        &[("compose.yml", &base), ("compose.prod.yml", over)],
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].to_string().starts_with("compose.prod.yml:3:15: services.web.volumes[0]: found the mount of /etc, ")
    );
}

#[test]
fn all_mistakes_of_a_policy_are_told_at_once() {
    let policy = "shop:\n  bind: [/srv]\n  images: nginx\n  binds: [srv, /a/../b, '[']\n  host_network: yes\n'bad name': {}\n'a[': {}\nlist: []\n";
    insta::assert_snapshot!(mistakes(policy), @r#"
    swarmkeeper.yml:2:3: policy.shop.bind: no such key (did you mean binds?)
    swarmkeeper.yml:3:11: policy.shop.images: found text, accepted: a list of globs
    swarmkeeper.yml:4:11: policy.shop.binds[0]: "srv" is no absolute path, and paths of nodes are absolute
    swarmkeeper.yml:4:16: policy.shop.binds[1]: "/a/../b" has empty parts, . or .. in it, and is no plain path
    swarmkeeper.yml:4:25: policy.shop.binds[2]: "[" is no absolute path, and paths of nodes are absolute
    swarmkeeper.yml:5:17: policy.shop.host_network: found the text yes, accepted: true or false (write true or false)
    swarmkeeper.yml:6:13: policy.bad name: "bad name" cannot be a stack's name: use letters, digits, '-', '_' and '.', begin with a letter or a digit, and stay below 64 characters
    swarmkeeper.yml:7:7: policy.a[: "a[" is no glob: unclosed character class; missing ']' (write a stack's name, or a glob such as shop-*)
    swarmkeeper.yml:8:7: policy.list: found a list, accepted: a map
    "#);
    insta::assert_snapshot!(mistakes("~"), @r#"swarmkeeper.yml:1:1: policy: found nothing, accepted: a map from stacks to what they may do (write {} to allow nothing, or take the key away to allow everything)"#);
    insta::assert_snapshot!(mistakes("[shop]"), @r#"swarmkeeper.yml:1:1: policy: found a list, accepted: a map from stacks to what they may do"#);
}
