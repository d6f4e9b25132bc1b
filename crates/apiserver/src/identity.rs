//! Who asks: the user behind a request.
//!
//! Owns: `UserInfo` and how a verified client certificate becomes one (CN = user, O = groups).
//! May not know: what the user may do.

use std::collections::BTreeMap;

use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Group of every user that proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of requests without an identity.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group that may do everything.
pub const MASTERS: &str = "system:masters";

/// The user of a request; put into the request's extensions by whoever authenticated it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    /// Of the service account; empty for users of certificates.
    pub uid: String,
    pub groups: Vec<String>,
    /// More that is known of the user: the pod whose token it is, for one.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A proven identity; `system:authenticated` is added to `groups`.
    pub fn authenticated(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    pub fn is_anonymous(&self) -> bool {
        self.groups.iter().any(|g| g == UNAUTHENTICATED)
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name when this is a node agent (`system:node:<name>` in `system:nodes`).
    pub fn node_name(&self) -> Option<&str> {
        if self.in_group("system:nodes") { self.name.strip_prefix("system:node:") } else { None }
    }
}

#[derive(Debug, Error)]
pub enum CertificateError {
    #[error("reading the client certificate")]
    Parse(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    #[error("the client certificate has no common name, so it names no user")]
    NoCommonName,
}

/// The common name of a DER certificate.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name().filter_map(|attribute| attribute.as_str().ok());
    names.find(|name| !name.is_empty()).map(str::to_owned)
}

/// The user a DER certificate names. The caller has verified its chain.
pub fn from_certificate(der: &[u8]) -> Result<UserInfo, CertificateError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(CertificateError::Parse)?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .filter_map(|attribute| attribute.as_str().ok())
        .find(|name| !name.is_empty())
        .ok_or(CertificateError::NoCommonName)?;
    let groups = subject.iter_organization().filter_map(|attribute| attribute.as_str().ok());
    Ok(UserInfo::authenticated(name, groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_groups() {
        let node = UserInfo::authenticated("system:node:n1", ["system:nodes"]);
        assert_eq!(node.node_name(), Some("n1"));
        assert!(node.in_group(AUTHENTICATED) && !node.is_anonymous());
        assert_eq!(UserInfo::authenticated("system:node:n1", Vec::<String>::new()).node_name(), None);
        assert!(UserInfo::anonymous().is_anonymous());
    }

    #[test]
    fn certificate_subject_becomes_user() {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("params");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        let certificate = params.self_signed(&key).expect("certificate");
        let user = from_certificate(certificate.der()).expect("user");
        assert_eq!(user, UserInfo::authenticated("jane", ["system:masters"]));
        assert!(from_certificate(b"nonsense").is_err());
    }
}
