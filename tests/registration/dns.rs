//! `consul/dnsmasq.conf` on Debian's dnsmasq: names below `.consul` are answered by Consul through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use swarmkeeper::io::docker::Health;

use crate::Node;
use crate::engine::container;
use crate::support::free_port;

/// A forwarder on loopback, ended when dropped.
struct Dnsmasq {
    child: Child,
    port: u16,
}

impl Dnsmasq {
    /// With our file, Consul's port put in.
    fn start(consul_port: u16) -> Self {
        let ours = include_str!("../../consul/dnsmasq.conf");
        assert!(ours.contains("#8600"), "the file names Consul's port");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("consul.conf");
        std::fs::write(&file, ours.replace("#8600", &format!("#{consul_port}"))).unwrap();
        let port = free_port();
        let child = Command::new("dnsmasq")
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--user=", "--pid-file="])
            .arg("--listen-address=127.0.0.1")
            .arg(format!("--port={port}"))
            .arg(format!("--conf-file={}", file.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq is installed: apt-get install dnsmasq-base, or make lab-install");
        let server = Self { child, port };
        server.until_it_listens();
        // It has read the file.
        drop(dir);
        server
    }

    fn until_it_listens(&self) {
        let begin = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(10), "dnsmasq does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn resolver(&self) -> Resolver<TokioRuntimeProvider> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        for connection in &mut server.connections {
            connection.port = address.port();
        }
        let mut options = ResolverOpts::default();
        (options.attempts, options.cache_size) = (1, 0);
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        Resolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build().unwrap()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn addresses(resolver: &Resolver<TokioRuntimeProvider>, name: &str) -> Vec<String> {
    match resolver.ipv4_lookup(name).await {
        Ok(found) => found.answers().iter().map(|record| record.data.to_string()).collect(),
        Err(error) if error.is_no_records_found() => Vec::new(),
        Err(error) => panic!("{name}: {error}"),
    }
}

#[tokio::test]
async fn a_service_is_found_through_dnsmasq_by_name_by_tag_and_with_its_port() {
    let mut node = Node::start().await;
    let dnsmasq = Dnsmasq::start(node.server.dns_port());
    let resolver = dnsmasq.resolver();
    // Not there, and not remembered as such.
    assert!(addresses(&resolver, "shop.service.consul.").await.is_empty());
    let shop = || container("web", 8080).label("SERVICE_NAME", "shop").label("SERVICE_TAGS", "blue");
    node.engine.put(shop().health(Health::Healthy));
    node.pass().await;
    assert_eq!(addresses(&resolver, "shop.service.consul.").await, ["10.0.0.1"]);
    assert_eq!(addresses(&resolver, "blue.shop.service.consul.").await, ["10.0.0.1"]);
    let found = resolver.srv_lookup("shop.service.consul.").await.unwrap();
    let ports: Vec<String> = found.answers().iter().map(|record| record.data.to_string()).collect();
    assert!(ports.len() == 1 && ports[0].contains(" 8080 "), "{ports:?}");
    // Out of DNS at once: no answer outlives its instance.
    node.engine.put(shop().health(Health::Unhealthy));
    node.pass().await;
    assert!(addresses(&resolver, "shop.service.consul.").await.is_empty());
}
