//! `ports`: the short form as docker/go-connections reads it, and the long form.

use super::read::Ctx;
use crate::spec::PortConfig;
use crate::yaml::{Field, Value};

/// More published ports of one service are refused.
pub const PORTS_MAX: usize = 4096;

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Reads `ports`, in the file's order.
pub(super) fn read(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<PortConfig> {
    let mut ports = Vec::new();
    for item in field.items("a list of ports").unwrap_or_default() {
        match &item.node.value {
            Value::Map(_) => ports.push(long(&item, ctx)),
            Value::Int(port) => ports.extend(short(&port.to_string(), &item, ctx)),
            Value::String(text) => ports.extend(short(text, &item, ctx)),
            _ => item.expected("a port such as 80 or \"8080:80\", or a map"),
        }
        if ports.len() > PORTS_MAX {
            item.wrong(format!("more than {PORTS_MAX} ports"), "");
            break;
        }
    }
    ports
}

fn long(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> PortConfig {
    let mut r = field.map();
    let port = PortConfig {
        target_port: r.required("target").and_then(|f| ctx.number::<u16>(&f)).unwrap_or_default().into(),
        published_port: r.take("published").and_then(|f| published(&f, ctx)).unwrap_or_default().into(),
        protocol: r.take("protocol").and_then(|f| ctx.word(&f, &PROTOCOLS)).unwrap_or_default(),
        publish_mode: r.take("mode").and_then(|f| ctx.word(&f, &["ingress", "host"])).unwrap_or_default(),
        ..PortConfig::default()
    };
    let spec_only = [("name", ""), ("host_ip", "a published port listens on all addresses"), ("app_protocol", "")];
    ctx.finish(r, &[], &spec_only);
    port
}

fn published(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Option<u16> {
    let range = field.node.as_str().is_some_and(|text| text.contains('-'));
    if range && ctx.lenient() {
        field.wrong("a range of ports cannot be published here", "use the short form, \"8000-8010:80\"");
        return None;
    }
    ctx.number(field)
}

fn short(text: &str, field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Vec<PortConfig> {
    match parse(text) {
        Ok(spec) => {
            if let Some(ip) = &spec.ip {
                let message = format!("the address {ip} has no effect: a published port listens on all addresses");
                ctx.warn_field(field, message, "");
            }
            spec.expand()
        }
        Err(why) => {
            field.wrong(format!("{text:?} is no port: {why}"), "write [published:]target[/protocol]");
            Vec::new()
        }
    }
}

#[derive(Debug)]
struct Short {
    ip: Option<String>,
    published: Option<(u16, u16)>,
    target: (u16, u16),
    protocol: String,
}

impl Short {
    /// One port for each of the range, sorted by the container's port as text, as the CLI sorts them.
    fn expand(&self) -> Vec<PortConfig> {
        let port = |target: u16, published: u16| PortConfig {
            protocol: self.protocol.clone(),
            target_port: target.into(),
            published_port: published.into(),
            publish_mode: "ingress".to_owned(),
            ..PortConfig::default()
        };
        let (first, last) = self.target;
        if let Some((published, published_last)) = self.published
            && first == last
        {
            return (published..=published_last).map(|published| port(first, published)).collect();
        }
        let published = |n: u16| self.published.map_or(0, |(first, _)| first + n);
        let mut ports: Vec<_> = (first..=last).map(|target| port(target, published(target - first))).collect();
        ports.sort_by_key(|port| port.target_port.to_string());
        ports
    }
}

/// `[[ip:]published:]target[/protocol]`, published and target being ranges perhaps.
fn parse(text: &str) -> Result<Short, String> {
    let (before, target) = match text.rsplit_once(':') {
        Some((before, target)) => (Some(before), target),
        None => (None, text),
    };
    let (ip, published) = match before.map(|before| before.rsplit_once(':').unwrap_or(("", before))) {
        Some((ip, published)) => (ip, published),
        None => ("", ""),
    };
    let (target, protocol) = match target.split_once('/') {
        Some((target, protocol)) => (target, protocol.to_ascii_lowercase()),
        None => (target, String::new()),
    };
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol };
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(format!("{protocol:?} is none of {}", PROTOCOLS.join(", ")));
    }
    if target.is_empty() {
        return Err("the container's port is missing".to_owned());
    }
    let target = range(target)?;
    let published = if published.is_empty() { None } else { Some(range(published)?) };
    if let Some((first, last)) = published
        && target.0 != target.1
        && last - first != target.1 - target.0
    {
        return Err("the two ranges differ in length".to_owned());
    }
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("{ip:?} is no IP address"));
    }
    let ip = if bare.is_empty() { None } else { Some(bare.to_owned()) };
    Ok(Short { ip, published, target, protocol })
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| -> Result<u16, String> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(|| format!("{text:?} is no number from 0 to 65535"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(format!("the range {text} runs backwards")) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match parse(text) {
            Err(why) => format!("error: {why}"),
            Ok(short) => {
                let show = |p: PortConfig| format!("{}:{}/{}", p.published_port, p.target_port, p.protocol);
                let ip = short.ip.iter().map(|ip| format!("({ip})"));
                ip.chain(short.expand().into_iter().map(show)).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn short_ports_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("80", "0:80/tcp"),
            ("8080:80", "8080:80/tcp"),
            (":80", "0:80/tcp"),
            ("::80", "0:80/tcp"),
            ("80/UDP", "0:80/udp"),
            ("80:80/", "80:80/tcp"),
            ("0:80", "0:80/tcp"),
            ("99-101", "0:100/tcp 0:101/tcp 0:99/tcp"),
            ("8000-8001:80-81", "8000:80/tcp 8001:81/tcp"),
            ("8000-8002:80/sctp", "8000:80/sctp 8001:80/sctp 8002:80/sctp"),
            ("127.0.0.1:80:80", "(127.0.0.1) 80:80/tcp"),
            ("1.2.3.4::80", "(1.2.3.4) 0:80/tcp"),
            ("[::1]:80:80", "(::1) 80:80/tcp"),
            ("8000-8001:80-82", "error: the two ranges differ in length"),
            ("80:", "error: the container's port is missing"),
            ("", "error: the container's port is missing"),
            ("99999:1", "error: \"99999\" is no number from 0 to 65535"),
            ("+1:1", "error: \"+1\" is no number from 0 to 65535"),
            ("80:80/x", "error: \"x\" is none of tcp, udp, sctp"),
            ("80:80:80", "error: \"80\" is no IP address"),
            ("9-8:1", "error: the range 9-8 runs backwards"),
        ] {
            check(text, expected);
        }
    }
}
