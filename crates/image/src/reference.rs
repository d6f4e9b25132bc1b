//! Image references: `[registry/]repository[:tag][@digest]`, with Docker's defaults.
//!
//! Owns: parsing and the rules for names (distribution `reference` grammar).
//! May not know: where images are.

use std::fmt;

use thiserror::Error;

use crate::digest::Digest;

/// Longest repository name, as the distribution spec recommends.
pub const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest tag.
pub const TAG_BYTES_MAX: usize = 128;

const DOCKER_HUB: &str = "docker.io";

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    #[error("the name is empty")]
    Empty,
    #[error("{0:?} is not a repository name: lower-case letters, digits and separators . _ - / are allowed")]
    Repository(String),
    #[error("{0:?} is not a tag: letters, digits, '_', '.', '-', at most {TAG_BYTES_MAX}")]
    Tag(String),
    #[error("{0:?} is not a sha256 digest")]
    Digest(String),
}

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host with optional port. None when the text named none.
    pub registry: Option<String>,
    /// Without the registry, without Docker's `library/`.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference as users write it.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let parsed = digest.parse().map_err(|_| ReferenceError::Digest(digest.to_owned()))?;
                (rest, Some(parsed))
            }
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((host, path)) if is_host(host) => (Some(host.to_owned()), path),
            _ => (None, rest),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        if !is_repository(repository) {
            return Err(ReferenceError::Repository(repository.to_owned()));
        }
        if let Some(tag) = tag.as_deref().filter(|t| !is_tag(t)) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        Ok(Self { registry, repository: repository.to_owned(), tag, digest })
    }

    /// The tag, or `latest`.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// The host to ask, Docker Hub by default.
    pub fn registry_or_hub(&self) -> &str {
        self.registry.as_deref().unwrap_or(DOCKER_HUB)
    }

    /// The repository at that host: Docker Hub's official images live under `library/`.
    pub fn remote_repository(&self) -> String {
        if self.registry_or_hub() == DOCKER_HUB && !self.repository.contains('/') {
            format!("library/{}", self.repository)
        } else {
            self.repository.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_host(text: &str) -> bool {
    let host_characters =
        text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'[' | b']'));
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'[');
    text == "localhost" || (text.contains(['.', ':']) && host_characters && starts_well)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` joined by slashes. No component can be `..` or start with
/// `_`, so that a name is a safe relative path beside the store's own `_tags`.
pub fn is_repository(text: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.len() <= REPOSITORY_BYTES_MAX
        && text.split('/').all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(alnum)
                && bytes.last().is_some_and(alnum)
                && bytes.iter().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
                && !part.contains("..")
        })
}

/// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
pub fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    bytes.len() <= TAG_BYTES_MAX
        && bytes.first().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_parse() {
        let digest = Digest::of(b"x");
        let check = |text: &str, registry: Option<&str>, repository: &str, tag: Option<&str>| {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!(
                (parsed.registry.as_deref(), parsed.repository.as_str(), parsed.tag.as_deref()),
                (registry, repository, tag),
                "{text}"
            );
            assert_eq!(parsed.to_string(), text);
        };
        check("nginx", None, "nginx", None);
        check("nginx:1.27", None, "nginx", Some("1.27"));
        check("team/app:v1", None, "team/app", Some("v1"));
        check("registry.local/hello:v1", Some("registry.local"), "hello", Some("v1"));
        check("127.0.0.1:6443/a/b", Some("127.0.0.1:6443"), "a/b", None);
        check("localhost/a:b", Some("localhost"), "a", Some("b"));
        check(&format!("quay.io/x/y:1@{digest}"), Some("quay.io"), "x/y", Some("1"));
        assert_eq!(Reference::parse("nginx").unwrap().remote_repository(), "library/nginx");
        assert_eq!(Reference::parse("quay.io/nginx").unwrap().remote_repository(), "nginx");
    }

    #[test]
    fn bad_references_are_refused() {
        for text in ["", "UPPER", "a//b", "a:", "a:b:c d", "../x", "x/../y", "a@sha256:00", "a:-t", "_tags/x", "a b"] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }
}
