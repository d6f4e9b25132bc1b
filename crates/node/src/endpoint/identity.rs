//! Who calls: name and groups in a verified client certificate, and whether that is enough.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Names and groups that may ask a node.
const USER_ALLOWED: &str = "kube-apiserver-kubelet-client";
const GROUPS_ALLOWED: [&str; 2] = ["system:masters", "system:kubelet-api-admin"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
}

impl Identity {
    pub fn may_ask(&self) -> bool {
        self.user == USER_ALLOWED || self.groups.iter().any(|group| GROUPS_ALLOWED.contains(&group.as_str()))
    }
}

/// The identity in the leaf; its signature was verified by the handshake.
pub fn of_certificates(certificates: &[CertificateDer<'_>]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificates.first()?).ok()?;
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    let user = certificate.subject().iter_common_name().next().and_then(text)?;
    let groups = certificate.subject().iter_organization().filter_map(text).collect();
    Some(Identity { user, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_server_and_administrators_may_ask() {
        let check = |user: &str, group: &str, expect| {
            let identity = Identity { user: user.into(), groups: vec![group.into()] };
            assert_eq!(identity.may_ask(), expect, "{identity:?}");
        };
        check("kube-apiserver-kubelet-client", "", true);
        check("admin", "system:masters", true);
        check("monitor", "system:kubelet-api-admin", true);
        check("system:node:n1", "system:nodes", false);
    }
}
