//! Image references, as Docker's reference library reads and prints them.
//!
//! ```
//! use swarmkeeper::image::ImageRef;
//!
//! let familiar = |text: &str| ImageRef::parse(text).unwrap().familiar();
//! assert_eq!(familiar("nginx"), "nginx:latest");
//! assert_eq!(familiar("docker.io/library/nginx:1.27"), "nginx:1.27");
//! assert_eq!(familiar("index.docker.io/grafana/loki"), "grafana/loki:latest");
//! assert_eq!(familiar("registry.service.consul:5000/team/app:v1"), "registry.service.consul:5000/team/app:v1");
//! assert_eq!(familiar("localhost/app"), "localhost/app:latest");
//! assert_eq!(familiar("[::1]:5000/app"), "[::1]:5000/app:latest");
//!
//! let image = ImageRef::parse("host:5000/app").unwrap();
//! assert_eq!((image.domain(), image.path(), image.tag()), ("host:5000", "app", None));
//!
//! let digest = format!("sha256:{}", "0a".repeat(32)).parse().unwrap();
//! let pinned = ImageRef::parse("nginx:1.27").unwrap().with_digest(&digest);
//! assert_eq!(pinned.familiar(), format!("nginx:1.27@{digest}"));
//! assert_eq!(pinned.without_digest().familiar(), "nginx:1.27");
//! // A digest alone names the image; no tag is added to it.
//! assert_eq!(familiar(&format!("app@{digest}")), format!("app@{digest}"));
//!
//! for wrong in ["", "Nginx", "a//b", "a:", "a b", "app@sha256:abc", "host:port/app", "-a"] {
//!     assert!(ImageRef::parse(wrong).is_err(), "{wrong}");
//! }
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where images without a registry come from.
pub const DEFAULT_DOMAIN: &str = "docker.io";

/// The tag of an image without tag and digest.
pub const DEFAULT_TAG: &str = "latest";

const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const PATH_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

/// An image by registry, path, and tag or digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no image reference: {why}")]
pub struct BadImage {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl ImageRef {
    /// Reads `[registry[:port]/]path[:tag][@digest]`.
    ///
    /// What stands before the first `/` is a registry if it has a `.` or a `:`, an upper-case letter, or is `localhost`.
    pub fn parse(text: &str) -> Result<Self, BadImage> {
        Self::read(text).map_err(|why| BadImage { text: text.to_owned(), why })
    }

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("64 hexadecimal digits are an image's ID; name its repository".to_owned());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|bad| bad.to_string())?)),
            None => (text, None),
        };
        let (domain, rest) = split_domain(rest);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_domain(domain) {
            return Err(format!("{domain:?} is no registry"));
        }
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{OFFICIAL_PREFIX}{path}")
        } else {
            path.to_owned()
        };
        check_path(&path)?;
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!("{tag:?} is no tag"));
        }
        Ok(Self { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }

    /// The registry: `docker.io`, `host:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository inside the registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository as people write them: `nginx`, `grafana/loki`, `host:5000/app`.
    ///
    /// Docker's CLI makes `my.org/app`, an image of a registry `my.org`, out of `docker.io/my.org/app`; here such a name stays whole.
    pub fn familiar_name(&self) -> String {
        let reads_otherwise = self.path.split_once('/').is_some_and(|(first, _)| looks_like_a_registry(first));
        if self.domain != DEFAULT_DOMAIN || reads_otherwise {
            return format!("{}/{}", self.domain, self.path);
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people write it and as Docker's CLI sends it; `:latest` is added if it has neither tag nor digest.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        match (&self.tag, &self.digest) {
            (None, None) => text = format!("{text}:{DEFAULT_TAG}"),
            (Some(tag), _) => text = format!("{text}:{tag}"),
            (None, Some(_)) => {}
        }
        match &self.digest {
            Some(digest) => format!("{text}@{digest}"),
            None => text,
        }
    }

    /// The same image pinned to `digest`; the tag stays, `latest` if there was none.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Self {
        let tag = match (&self.tag, &self.digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            _ => self.tag.clone(),
        };
        Self { tag, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The same image with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, BadImage> {
        if !is_tag(tag) {
            return Err(BadImage { text: tag.to_owned(), why: "it is no tag".to_owned() });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same image by its tag alone.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        Self { digest: None, ..self.clone() }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.familiar())
    }
}

impl FromStr for ImageRef {
    type Err = BadImage;

    fn from_str(text: &str) -> Result<Self, BadImage> {
        Self::parse(text)
    }
}

fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if looks_like_a_registry(first) => {
            (if first == LEGACY_DEFAULT_DOMAIN { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn looks_like_a_registry(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.chars().any(char::is_uppercase)
}

/// A host name or a bracketed IPv6 address, and a port.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(is_host_label),
    };
    port_fits && host_fits
}

fn is_host_label(label: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    label.starts_with(alphanumeric)
        && label.ends_with(alphanumeric)
        && label.chars().all(|c| alphanumeric(c) || c == '-')
}

fn check_path(path: &str) -> Result<(), String> {
    let shown = path.strip_prefix(OFFICIAL_PREFIX).unwrap_or(path);
    if path.len() > PATH_LENGTH_MAX {
        return Err(format!("the repository's name is longer than {PATH_LENGTH_MAX} characters"));
    }
    if path.chars().any(char::is_uppercase) {
        return Err(format!("the repository's name {shown:?} must be lower case"));
    }
    if path.split('/').all(is_path_component) { Ok(()) } else { Err(format!("{shown:?} is no repository's name")) }
}

/// Lower-case letters and digits, with one `.`, `_` or `__`, or any number of `-`, between them.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = String::new();
    for byte in component.bytes() {
        if alphanumeric(&byte) {
            separator.clear();
        } else {
            separator.push(char::from(byte));
            let dashes = separator.bytes().all(|b| b == b'-');
            if !dashes && !matches!(separator.as_str(), "." | "_" | "__") {
                return false;
            }
        }
    }
    separator.is_empty() && component.bytes().next().is_some_and(|b| alphanumeric(&b))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_LENGTH_MAX && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// A content digest, `sha256:…`.
///
/// ```
/// use swarmkeeper::image::Digest;
///
/// assert!(format!("sha256:{}", "0".repeat(64)).parse::<Digest>().is_ok());
/// for wrong in ["sha256:0", "md5:00000000000000000000000000000000", "0000"] {
///     assert!(wrong.parse::<Digest>().is_err());
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest: write sha256: and 64 lower-case hexadecimal digits")]
pub struct BadDigest(pub String);

impl Digest {
    /// `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(text.to_owned());
        let (algorithm, hex) = text.split_once(':').ok_or_else(bad)?;
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return Err(bad()),
        };
        let fits = hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if fits { Ok(Self(text.to_owned())) } else { Err(bad()) }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.familiar())
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_told_from_paths() {
        for (text, domain, path) in [
            ("a/b", "docker.io", "a/b"),
            ("a.b/c", "a.b", "c"),
            ("a:5000/c", "a:5000", "c"),
            ("Foo/bar", "Foo", "bar"),
            ("localhost/bar", "localhost", "bar"),
            ("docker.io/a/b/c", "docker.io", "a/b/c"),
            ("index.docker.io/nginx", "docker.io", "library/nginx"),
            ("a__b/c--d", "docker.io", "a__b/c--d"),
        ] {
            let image = ImageRef::parse(text).unwrap();
            assert_eq!((image.domain(), image.path()), (domain, path), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, why) in [
            ("", "it is empty"),
            ("Foo", "the repository's name \"Foo\" must be lower case"),
            ("foo/Bar:1", "the repository's name \"foo/Bar\" must be lower case"),
            ("a:b:c", "\"b:c\" is no tag"),
            ("a___b", "\"a___b\" is no repository's name"),
            ("a/", "\"a/\" is no repository's name"),
            ("a.b:x/c", "\"a.b:x\" is no registry"),
            ("a@sha256:abc", "\"sha256:abc\" is no digest: write sha256: and 64 lower-case hexadecimal digits"),
            (&"a".repeat(64), "64 hexadecimal digits are an image's ID; name its repository"),
            (&"a/".repeat(200), "the repository's name is longer than 255 characters"),
        ] {
            assert_eq!(ImageRef::parse(text).unwrap_err().why, why);
        }
    }

    #[test]
    fn a_path_that_looks_like_a_registry_keeps_its_own_before_it() {
        for text in ["docker.io/my.org/app:1", "docker.io/localhost/app:1"] {
            let image = ImageRef::parse(text).unwrap();
            assert_eq!(image.familiar(), text);
            assert_eq!(ImageRef::parse(&image.familiar()).unwrap(), image);
        }
    }

    #[test]
    fn pinning_an_untagged_image_keeps_the_tag_it_was_resolved_by() {
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let pinned = ImageRef::parse("app").unwrap().with_digest(&digest);
        assert_eq!(pinned.tag(), Some("latest"));
        assert_eq!(ImageRef::parse(&pinned.familiar()).unwrap(), pinned);
        assert_eq!(pinned.with_tag("2").unwrap().familiar(), "app:2");
    }
}
