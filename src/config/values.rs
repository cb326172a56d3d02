//! Texts → typed values, by the setting's kind; pure.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::settings::{Kind, Setting};
use super::{Advertise, BindAddress};
use crate::model::{Sensitive, StackName};

/// Where [`crate::http`] listens unless told otherwise.
pub(super) const PORT: u16 = 7979;

/// A value of its kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(Sensitive<String>),
    Stacks(Vec<StackName>),
    Urls(Vec<Sensitive<String>>),
    Bind(Vec<BindAddress>),
    Texts(Vec<String>),
    Advertise(Advertise),
    Path(PathBuf),
    Switch(bool),
    Number(u64),
    Duration(Duration),
    Word(&'static str),
}

/// The value, or what is wrong with the texts; a text that could hold a secret is not quoted.
pub(super) fn parse(setting: &Setting, texts: &[String]) -> Result<Value, String> {
    let one = || match texts {
        [text] => Ok(text.as_str()),
        _ => Err(format!("found a list, accepted: {}", setting.kind.accepts())),
    };
    let wrong = |text: &str| {
        let hidden = setting.has_file_twin || setting.kind == Kind::GitUrl;
        let found = if hidden { "something else".to_owned() } else { format!("{text:?}") };
        format!("found {found}, accepted: {}", setting.kind.accepts())
    };
    let single = |parsed: fn(&str) -> Option<Value>| {
        let text = one()?;
        parsed(text).ok_or_else(|| wrong(text))
    };
    match setting.kind {
        Kind::Text => single(|text| Some(Value::Text(Sensitive::new(text.to_owned())))),
        Kind::Cluster => single(cluster),
        Kind::Http => single(http),
        Kind::HttpOrSocket => single(|text| socket(text).or_else(|| http_or_bare(text))),
        Kind::GitUrl => single(git_url),
        Kind::Branch => single(branch),
        Kind::FolderInRepo => single(folder_in_repo),
        Kind::Engine => single(engine),
        Kind::Advertise => single(advertise),
        Kind::Path => single(|text| Path::new(text).is_absolute().then(|| Value::Path(text.into()))),
        Kind::Switch => single(|text| match text {
            "true" => Some(Value::Switch(true)),
            "false" => Some(Value::Switch(false)),
            _ => None,
        }),
        Kind::Number(min, max) => {
            let text = one()?;
            let number = text.parse().ok().filter(|number| (min..=max).contains(number));
            number.map(Value::Number).ok_or_else(|| wrong(text))
        }
        Kind::Duration(min, max) => {
            let text = one()?;
            let duration = humantime::parse_duration(text).ok().filter(|duration| (min..=max).contains(duration));
            duration.map(Value::Duration).ok_or_else(|| wrong(text))
        }
        Kind::OneOf(words) => {
            let text = one()?;
            words.iter().find(|&&word| word == text).map(|&word| Value::Word(word)).ok_or_else(|| wrong(text))
        }
        Kind::Template => {
            let text = one()?;
            handlebars::Template::compile(text).map_err(|error| format!("found {text:?}: {}", error.reason()))?;
            Ok(Value::Text(Sensitive::new(text.to_owned())))
        }
        Kind::Networks => Ok(Value::Texts(texts.to_vec())),
        Kind::Stacks => each(texts, |text| StackName::new(text).map_err(|error| error.to_string())).map(Value::Stacks),
        Kind::Urls => each(texts, |text| notify_url(text).ok_or_else(|| wrong(text))).map(Value::Urls),
        Kind::Bind => each(texts, |text| bind(text).ok_or_else(|| wrong(text))).map(Value::Bind),
    }
}

fn each<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    texts.iter().map(|text| parse(text)).collect()
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(Sensitive::new(value.into()))
}

fn cluster(name: &str) -> Option<Value> {
    let fits = !name.is_empty() && name.len() < 64;
    (fits && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))).then(|| text(name))
}

fn http(address: &str) -> Option<Value> {
    let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let url = Url::parse(&address).ok()?;
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
    fits.then(|| text(address.trim_end_matches('/')))
}

/// One without a scheme stays so: another setting says which.
fn http_or_bare(address: &str) -> Option<Value> {
    http(address).map(|value| if address.contains("://") { value } else { text(address.trim_end_matches('/')) })
}

fn socket(address: &str) -> Option<Value> {
    address.strip_prefix("unix://").filter(|path| path.starts_with('/')).map(|_| text(address))
}

fn notify_url(address: &str) -> Option<Sensitive<String>> {
    let url = Url::parse(address).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then(|| Sensitive::new(address.to_owned()))
}

fn git_url(address: &str) -> Option<Value> {
    let is_path = Path::new(address).is_absolute();
    let is_url = Url::parse(address)
        .is_ok_and(|url| matches!(url.scheme(), "https" | "http" | "ssh" | "file") && url.path().len() > 1);
    // user@host:path, which git takes for ssh.
    let is_scp = !address.contains("://")
        && address
            .split_once(':')
            .is_some_and(|(host, path)| host.contains('@') && !host.contains('/') && !path.is_empty());
    (is_path || is_url || is_scp).then(|| text(address))
}

fn branch(name: &str) -> Option<Value> {
    let fits = !name.is_empty() && !name.starts_with("refs/") && !name.starts_with('-');
    (fits && !name.contains(|c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c)))
        .then(|| text(name))
}

fn folder_in_repo(path: &str) -> Option<Value> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    inside.then(|| text(path.trim_end_matches('/')))
}

fn engine(address: &str) -> Option<Value> {
    let (scheme, rest) = address.split_once("://")?;
    let fits = match scheme {
        "unix" => rest.starts_with('/'),
        "tcp" | "http" => Url::parse(&format!("http://{rest}")).is_ok_and(|url| url.has_host()),
        _ => false,
    };
    fits.then(|| text(address))
}

fn bind(address: &str) -> Option<BindAddress> {
    if let Some(port) = address.strip_prefix(':') {
        return port.parse().ok().map(BindAddress::NodeAndLoopback);
    }
    let with_port = address.parse::<SocketAddr>();
    with_port.or_else(|_| address.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT))).ok().map(BindAddress::At)
}

fn advertise(address: &str) -> Option<Value> {
    let with_port = address.parse::<SocketAddr>().map(|at| Advertise { ip: at.ip(), port: Some(at.port()) });
    with_port.or_else(|_| address.parse().map(|ip| Advertise { ip, port: None })).ok().map(Value::Advertise)
}
