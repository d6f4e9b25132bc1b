//! Certificates of nodes on machines of their own: the key is made there and stays there, the authority signs requests.
//!
//! Owns: what is in such a certificate, and how long it is good. Of a request only its key is taken: the name and address
//! are what the caller has found out. May not know: who may have one.

use std::net::IpAddr;

use rcgen::{CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, Leaf, PkiError, leaf_params};

/// The group of all nodes.
const GROUP: &str = "system:nodes";
/// A node asks for new ones when two thirds of it are over.
const LIFE: Duration = Duration::days(30);

/// A key that was made here, and the request to have it signed.
pub struct KeyRequest {
    pub key_pem: String,
    pub request_pem: String,
}

impl KeyRequest {
    pub fn new() -> Result<Self, PkiError> {
        let mint = |source| PkiError::Mint { subject: "a node's request".to_owned(), source };
        let key = KeyPair::generate().map_err(mint)?;
        let request = CertificateParams::default().serialize_request(&key).and_then(|request| request.pem());
        Ok(Self { key_pem: key.serialize_pem(), request_pem: request.map_err(mint)? })
    }

    /// With the certificate that came for it.
    pub fn signed(self, certificate_pem: String) -> Leaf {
        Leaf { certificate_pem, key_pem: self.key_pem }
    }
}

impl Authority {
    /// By which a node proves to servers who it is.
    pub fn node_client(&self, request_pem: &str, node: &str) -> Result<String, PkiError> {
        let mut params = leaf_params(&user(node), ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name.push(DnType::OrganizationName, GROUP);
        self.sign_request(request_pem, node, params)
    }

    /// By which servers know the node at its address.
    pub fn node_server(&self, request_pem: &str, node: &str, address: IpAddr) -> Result<String, PkiError> {
        let mut params = leaf_params(&user(node), ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.push(SanType::IpAddress(address));
        self.sign_request(request_pem, node, params)
    }

    fn sign_request(&self, request_pem: &str, node: &str, params: CertificateParams) -> Result<String, PkiError> {
        let mint = |source| PkiError::Mint { subject: node.to_owned(), source };
        // Whoever asks has the key: the request's own signature is verified here.
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(mint)?;
        request.params = params;
        request.params.not_after = OffsetDateTime::now_utc() + LIFE;
        Ok(request.signed_by(&self.issuer).map_err(mint)?.pem())
    }
}

fn user(node: &str) -> String {
    format!("system:node:{node}")
}

/// How long until a certificate should be replaced; zero when it is time. None for what is no certificate.
pub fn renew_in(certificate_pem: &str, now: OffsetDateTime) -> Option<std::time::Duration> {
    let (from, to) = validity(certificate_pem)?;
    let due = from + (to - from) * 2 / 3;
    Some(std::time::Duration::try_from(due - now).unwrap_or_default())
}

/// Whether nobody takes it any more.
pub fn has_expired(certificate_pem: &str, now: OffsetDateTime) -> bool {
    validity(certificate_pem).is_none_or(|(_, to)| to <= now)
}

fn validity(certificate_pem: &str) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let certificates: Vec<CertificateDer<'static>> = super::certificates(certificate_pem).ok()?;
    let (_, parsed) = X509Certificate::from_der(certificates.first()?).ok()?;
    let validity = parsed.validity();
    Some((validity.not_before.to_datetime(), validity.not_after.to_datetime()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{AuthorityName, certificates};

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::open(dir.path(), AuthorityName::Cluster).expect("a new authority");
        (dir, authority)
    }

    #[test]
    fn a_node_is_itself_and_only_at_its_address() {
        let (_dir, authority) = authority();
        let request = KeyRequest::new().unwrap().request_pem;
        let client = certificates(&authority.node_client(&request, "n1").unwrap()).unwrap().remove(0);
        let user = apiserver::from_certificate(&client).unwrap();
        assert_eq!(user, apiserver::UserInfo::authenticated("system:node:n1", ["system:nodes"]));
        let server = authority.node_server(&request, "n1", "192.0.2.1".parse().unwrap()).unwrap();
        let server = certificates(&server).unwrap().remove(0);
        let (_, parsed) = X509Certificate::from_der(&server).unwrap();
        let names = &parsed.subject_alternative_name().unwrap().expect("it has an address").value.general_names;
        assert_eq!(names.len(), 1);
        assert!(!parsed.is_ca());
        // What is for servers is for nothing else.
        let usage = parsed.extended_key_usage().unwrap().expect("it says what it is for").value;
        assert!(usage.server_auth && !usage.client_auth);
        assert!(authority.node_client("nonsense", "n1").is_err());
    }

    #[test]
    fn certificates_are_replaced_before_they_end() {
        let (_dir, authority) = authority();
        let pem = authority.node_client(&KeyRequest::new().unwrap().request_pem, "n1").unwrap();
        let now = OffsetDateTime::now_utc();
        let days = |days: i64| now + Duration::days(days);
        let left = renew_in(&pem, now).expect("a certificate").as_secs() / 86400;
        assert!((18..=20).contains(&left), "{left} days");
        assert_eq!(renew_in(&pem, days(21)), Some(std::time::Duration::ZERO));
        assert!(!has_expired(&pem, days(29)) && has_expired(&pem, days(31)));
        assert!(has_expired("nonsense", now) && renew_in("nonsense", now).is_none());
    }
}
