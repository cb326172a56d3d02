//! Registrator's rules, one a test; the comments name where they come from.

use serde_json::json;

use super::*;
use crate::registration::fixture;

const WEB: &str = "10.0.0.5:8080";

fn settings(env: &[(&str, &str)], labels: &[(&str, &str)]) -> Settings {
    Settings::of(&fixture::container("web").env(env).labels(labels).done(), &BTreeMap::new(), 80)
}

fn of(address: SocketAddr) -> CheckOf<'static> {
    CheckOf { id: "id", container: "0123456789abcdef", port: port("80"), address, runs_scripts: true }
}

fn port(text: &str) -> Port {
    text.parse().unwrap()
}

// bridge.go, newService: defaultName, isgroup, metadataFromPort["name"].
#[test]
fn a_name_is_the_ports_then_the_containers_then_the_images() {
    #[track_caller]
    fn check(labels: &[(&str, &str)], several: bool, expect: &str) {
        assert_eq!(settings(&[], labels).name("hub:5000/team/nginx:1.2@sha256:ab", port("80"), several), expect);
    }
    check(&[], false, "nginx");
    check(&[], true, "nginx-80");
    check(&[("SERVICE_NAME", "shop")], false, "shop");
    check(&[("SERVICE_NAME", "shop")], true, "shop-80");
    check(&[("SERVICE_NAME", "shop"), ("SERVICE_80_NAME", "front")], true, "front");
    check(&[("SERVICE_NAME", "shop"), ("SERVICE_443_NAME", "tls")], true, "shop-80");
    check(&[("SERVICE_NAME", "")], false, "nginx");
}

// util.go, serviceMetaData.
#[test]
fn the_port_specific_key_wins_then_the_label() {
    #[track_caller]
    fn check(env: &[(&str, &str)], labels: &[(&str, &str)], expect: &str) {
        assert_eq!(settings(env, labels).get("NAME"), Some(expect));
    }
    check(&[("SERVICE_NAME", "env")], &[("SERVICE_NAME", "label")], "label");
    check(&[("SERVICE_80_NAME", "env")], &[("SERVICE_NAME", "label")], "env");
    check(&[("SERVICE_80_NAME", "env")], &[("SERVICE_80_NAME", "label")], "label");
    check(&[("SERVICE_NAME", "env")], &[("SERVICE_443_NAME", "label")], "env");
}

// bridge.go, newService: service.ID.
#[test]
fn an_id_is_hostname_container_and_port_unless_given() {
    #[track_caller]
    fn check(labels: &[(&str, &str)], of: &str, expect: &str) {
        assert_eq!(settings(&[], labels).id("node1", "web.1", port(of)), expect);
    }
    check(&[], "80/tcp", "node1:web.1:80");
    check(&[], "80/udp", "node1:web.1:80:udp");
    check(&[("SERVICE_ID", "mine")], "80/udp", "mine");
}

// util.go, recParseEscapedComma and combineTags.
#[test]
fn tags_are_split_at_commas_that_are_not_escaped() {
    #[track_caller]
    fn check(tags: &str, protocol: Protocol, expect: &[&str]) {
        assert_eq!(settings(&[], &[("SERVICE_TAGS", tags)]).tags(protocol, ""), expect);
    }
    check("a,b", Protocol::Tcp, &["a", "b"]);
    check(r"rule=x\,y,b", Protocol::Tcp, &["rule=x,y", "b"]);
    check(",a,,b,", Protocol::Tcp, &["a", "b"]);
    check("", Protocol::Tcp, &[]);
    check("a", Protocol::Udp, &["a", "udp"]);
    check("a,a", Protocol::Tcp, &["a"]);
}

// bridge.go, newService: mapDefault(metadata, "ignore", "").
#[test]
fn any_value_of_ignore_counts_and_none_does_not() {
    assert!(settings(&[], &[("SERVICE_IGNORE", "false")]).ignored());
    assert!(settings(&[("SERVICE_80_IGNORE", "1")], &[]).ignored());
    assert!(!settings(&[("SERVICE_IGNORE", "")], &[]).ignored());
    assert!(!settings(&[("SERVICE_443_IGNORE", "1")], &[]).ignored());
}

// bridge.go, newService: service.Attrs; consul.go, Register: Meta.
#[test]
fn anything_else_goes_into_meta_lower_cased_and_clean() {
    #[track_caller]
    fn check(key: &str, value: &str, expect: &[(&str, &str)], remark: &str) {
        let mut remarks = Vec::new();
        let meta = settings(&[], &[(key, value), ("SERVICE_CHECK_TCP", "1")]).meta(&mut remarks);
        let meta: Vec<(&str, &str)> = meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(meta, expect);
        assert_eq!(remarks.is_empty(), remark.is_empty(), "{remarks:?}");
        assert!(remarks.concat().contains(remark), "{remarks:?}");
    }
    check("SERVICE_REGION", "eu", &[("region", "eu")], "");
    check("SERVICE_80_REGION", "eu", &[("region", "eu")], "");
    check("SERVICE_443_REGION", "eu", &[], "");
    check("SERVICE_A.B", "x", &[("a_b", "x")], "letters, digits");
    check("SERVICE_CONSUL-X", "x", &[], "consul takes no such key");
    check("SERVICE_SK-OWNER", "x", &[], "consul takes no such key");
    check("SERVICE_LONG", &"é".repeat(300), &[("long", &"é".repeat(256))], "cut to 512 bytes");
}

// consul.go, buildCheck, one case per rule; the probe is shown as Consul is told it.
#[test]
fn every_kind_of_check_is_made_and_of_several_the_first_of_the_table_wins() {
    #[track_caller]
    fn check(labels: &[(&str, &str)], expect: impl Into<serde_json::Value>, remark: &str) {
        let mut remarks = Vec::new();
        let got = settings(&[], labels).check(&of(WEB.parse().unwrap()), &mut remarks);
        assert_eq!(got.map_or(json!(null), |check| json!(check.probe)), expect.into());
        assert_eq!(remarks.is_empty(), remark.is_empty(), "{remarks:?}");
        assert!(remarks.concat().contains(remark), "{remarks:?}");
    }
    let tcp = json!({"TCP": WEB, "Interval": "10s"});
    check(&[], json!(null), "");
    check(&[("SERVICE_CHECK_HTTP", "/up")], json!({"HTTP": "http://10.0.0.5:8080/up", "Interval": "10s"}), "");
    check(
        &[
            ("SERVICE_CHECK_HTTP", "up"),
            ("SERVICE_CHECK_HTTP_METHOD", "head"),
            ("SERVICE_CHECK_INTERVAL", "1m30s"),
            ("SERVICE_CHECK_TIMEOUT", "2s"),
            ("SERVICE_CHECK_TCP", "1"),
        ],
        json!({"HTTP": "http://10.0.0.5:8080/up", "Method": "HEAD", "Interval": "1m30s", "Timeout": "2s"}),
        "",
    );
    check(
        &[
            ("SERVICE_CHECK_HTTPS", "/up"),
            ("SERVICE_CHECK_HTTPS_METHOD", "post"),
            ("SERVICE_CHECK_TLS_SKIP_VERIFY", "true"),
            ("SERVICE_CHECK_CMD", "x"),
        ],
        json!({"HTTP": "https://10.0.0.5:8080/up", "Method": "POST", "TLSSkipVerify": true, "Interval": "10s"}),
        "",
    );
    check(
        &[("SERVICE_CHECK_CMD", "/bin/ok -a"), ("SERVICE_CHECK_SCRIPT", "x")],
        json!({"Args": ["/bin/sh", "-c", "check-cmd 0123456789ab 80 /bin/ok -a"], "Interval": "10s"}),
        "",
    );
    check(
        &[("SERVICE_CHECK_SCRIPT", "nc $SERVICE_IP $SERVICE_PORT"), ("SERVICE_CHECK_TTL", "1s")],
        json!({"Args": ["/bin/sh", "-c", "nc 10.0.0.5 8080"], "Interval": "10s"}),
        "",
    );
    check(&[("SERVICE_CHECK_TTL", "30s"), ("SERVICE_CHECK_TCP", "1")], json!({"TTL": "30s"}), "");
    check(&[("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_GRPC", "1")], tcp.clone(), "");
    check(&[("SERVICE_CHECK_GRPC", "1")], json!({"GRPC": WEB, "Interval": "10s"}), "");
    check(
        &[("SERVICE_80_CHECK_GRPC", "1"), ("SERVICE_CHECK_GRPC_USE_TLS", "1"), ("SERVICE_CHECK_TLS_SKIP_VERIFY", "1")],
        json!({"GRPC": WEB, "GRPCUseTLS": true, "TLSSkipVerify": true, "Interval": "10s"}),
        "",
    );
    check(&[("SERVICE_443_CHECK_TCP", "1")], json!(null), "");
    check(&[("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_INTERVAL", "10")], tcp, "CHECK_INTERVAL=10 is ignored");
    check(&[("SERVICE_CHECK_TTL", "soon")], json!(null), "CHECK_TTL=soon is ignored");
}

#[test]
fn a_script_is_left_out_where_consul_runs_none() {
    let mut remarks = Vec::new();
    let of = CheckOf { runs_scripts: false, ..of(WEB.parse().unwrap()) };
    assert_eq!(settings(&[], &[("SERVICE_CHECK_SCRIPT", "x")]).check(&of, &mut remarks), None);
    assert!(remarks[0].contains("enable_script_checks"), "{remarks:?}");
}

#[test]
fn the_label_of_the_swarm_service_is_the_last_word() {
    let container = fixture::container("web").labels(&[("SERVICE_NAME", "old"), ("SERVICE_80_TAGS", "port")]).done();
    let labels = [("SERVICE_NAME", "new"), ("SERVICE_TAGS", "all")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let settings = Settings::of(&container, &labels, 80);
    assert_eq!((settings.get("NAME"), settings.get("TAGS")), (Some("new"), Some("port")));
}

#[test]
fn modifiers_reach_the_check_and_bad_ones_are_named() {
    let mut remarks = Vec::new();
    let labels = [
        ("SERVICE_CHECK_TCP", "1"),
        ("SERVICE_CHECK_INITIAL_STATUS", "passing"),
        ("SERVICE_CHECK_DEREGISTER_AFTER", "10m"),
    ];
    let check = settings(&[], &labels).check(&of(WEB.parse().unwrap()), &mut remarks).unwrap();
    assert_eq!((check.id.as_str(), check.status), ("service:id", Some(CheckStatus::Passing)));
    assert_eq!(check.deregister_critical_service_after.as_deref(), Some("10m"));
    let labels = [("SERVICE_CHECK_TCP", "1"), ("SERVICE_CHECK_INITIAL_STATUS", "up")];
    assert_eq!(settings(&[], &labels).check(&of(WEB.parse().unwrap()), &mut remarks).unwrap().status, None);
    assert_eq!(remarks, ["SERVICE_CHECK_INITIAL_STATUS=up is ignored: passing, warning or critical"]);
}

#[test]
fn an_ipv6_address_is_bracketed_in_a_check() {
    let address = SocketAddr::new("fd00::5".parse().unwrap(), 80);
    let check = settings(&[], &[("SERVICE_CHECK_HTTP", "/")]).check(&of(address), &mut Vec::new()).unwrap();
    assert!(matches!(check.probe, Probe::Http { url, .. } if url == "http://[fd00::5]:80/"));
}

#[test]
fn a_duration_is_what_go_takes() {
    for good in ["10s", "1m30s", "1.5h", "500ms", "100µs"] {
        assert!(is_go_duration(good), "{good}");
    }
    for bad in ["", "10", "0s", "-1s", "s", "10 s", "1d", "1..5s"] {
        assert!(!is_go_duration(bad), "{bad}");
    }
}

#[test]
fn every_key_is_listed_once() {
    let mut keys = KEYS.map(|(key, _)| key).to_vec();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), KEYS.len());
}
