//! Who asks, as headers between servers that trust each other: `X-Remote-User` and its kin, both ways. Pure.
//!
//! Follows `k8s.io/apiserver/pkg/authentication/request/headerrequest` and `client-go/transport` (round trippers).

use api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::identity::UserInfo;

/// Headers that name somebody; whoever is not trusted to say so does not get them through.
const RESERVED: &str = "x-remote-";
/// Most groups and extra values that are read of one request.
const VALUES_MAX: usize = 1000;

/// In which headers somebody is named. Extra values have the rest of the header's name as their key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderNames {
    pub user: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefix: Vec<String>,
}

impl Default for HeaderNames {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            user: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            group: one("X-Remote-Group"),
            extra_prefix: one("X-Remote-Extra-"),
        }
    }
}

impl HeaderNames {
    /// Who is named; `None` when nobody is.
    pub fn read(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let first = |names: &[String]| {
            let text = names.iter().find_map(|name| headers.get(name)?.to_str().ok());
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let name = first(&self.user)?;
        let groups = self.group.iter().flat_map(|name| headers.get_all(name)).filter_map(|value| value.to_str().ok());
        let groups: Vec<&str> = groups.take(VALUES_MAX).collect();
        let mut user = UserInfo::authenticated(name, groups);
        user.uid = first(&self.uid).unwrap_or_default();
        for (header, value) in headers.iter().take(VALUES_MAX) {
            let key = self.extra_prefix.iter().find_map(|prefix| {
                header.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()).filter(|key| !key.is_empty())
            });
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                user.extra.entry(unescaped(key)).or_default().push(value.to_owned());
            }
        }
        Some(user)
    }
}

/// Takes away what a client says of himself, and says who he is.
pub fn identify(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), Status> {
    strip(headers);
    let mut tell = |name: &str, value: &str| -> Result<(), Status> {
        let unspeakable = || Status::bad_request(format!("{name}: {value:?} cannot be told to another server"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unspeakable())?;
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| unspeakable())?);
        Ok(())
    };
    tell("x-remote-user", &user.name)?;
    if !user.uid.is_empty() {
        tell("x-remote-uid", &user.uid)?;
    }
    for group in &user.groups {
        tell("x-remote-group", group)?;
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        for value in values {
            tell(&name, value)?;
        }
    }
    Ok(())
}

/// Takes away every header that names somebody.
pub fn strip(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(RESERVED)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}

/// A key as a part of a header's name.
fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.to_lowercase().bytes() {
        let is_token = byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        if is_token {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

/// Back from [`escaped`]; what is not escaped as it should be stays as it is.
fn unescaped(key: &str) -> String {
    let bytes = key.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let digits = key.get(index + 1..index + 3).filter(|_| bytes[index] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut user = UserInfo::authenticated("jane", ["dev", "ops"]);
        user.uid = "u".to_owned();
        user.extra.insert("authentication.kubernetes.io/pod%name".to_owned(), vec!["p".to_owned(), "q".to_owned()]);
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-remote-user", "admin"), ("X-Remote-Extra-Scopes", "all"), ("accept", "*/*")] {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        }
        identify(&mut headers, &user).unwrap();
        assert_eq!(headers["accept"], "*/*");
        assert_eq!(headers["x-remote-user"], "jane");
        assert!(headers.contains_key("x-remote-extra-authentication.kubernetes.io%2fpod%25name"), "{headers:?}");
        assert_eq!(HeaderNames::default().read(&headers), Some(user));
        strip(&mut headers);
        assert_eq!(HeaderNames::default().read(&headers), None);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn what_cannot_be_said() {
        let nobody = UserInfo { name: "a\nb".to_owned(), ..UserInfo::default() };
        assert_eq!(identify(&mut HeaderMap::new(), &nobody).unwrap_err().code, 400);
    }

    #[test]
    fn names_of_headers_can_be_chosen() {
        let names = HeaderNames {
            user: vec!["X-A".to_owned(), "X-B".to_owned()],
            group: vec!["X-G".to_owned()],
            uid: Vec::new(),
            extra_prefix: vec!["X-E-".to_owned()],
        };
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
        };
        let user = names.read(&headers(&[("x-b", "bob"), ("x-g", "g"), ("x-e-k%zz", "v"), ("x-remote-user", "x")]));
        let user = user.unwrap();
        assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("bob", "g"));
        assert_eq!(user.extra["k%zz"], ["v"]);
        assert_eq!(names.read(&headers(&[("x-a", ""), ("x-g", "g")])), None);
    }
}
