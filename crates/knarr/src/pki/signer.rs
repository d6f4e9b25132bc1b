//! Signs requests for clients' certificates: name and groups of the request, its key, and nothing else of it.

use std::time::Duration;

use controllers::ClientSigner;
use rcgen::{CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::{Authority, GROUPS_MAX, ORGANIZATION_OID, leaf_params};

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// Who a request is for.
struct Subject {
    user: String,
    groups: Vec<String>,
}

fn subject(request_pem: &str) -> Result<Subject, String> {
    let (_, pem) = parse_x509_pem(request_pem.as_bytes()).map_err(|error| format!("the request is no PEM: {error}"))?;
    let (_, parsed) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|error| format!("the request: {error}"))?;
    let name = &parsed.certification_request_info.subject;
    let user = name.iter_common_name().find_map(|attribute| attribute.as_str().ok()).unwrap_or_default().to_owned();
    if user.is_empty() {
        return Err("the request has no common name, so that it names no user".to_owned());
    }
    let groups: Vec<String> =
        name.iter_organization().filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect();
    if groups.len() > GROUPS_MAX {
        return Err(format!("a client certificate can carry {GROUPS_MAX} groups, not {}", groups.len()));
    }
    Ok(Subject { user, groups })
}

impl ClientSigner for Authority {
    fn sign(&self, request_pem: &str, longest: Duration) -> Result<String, String> {
        let Subject { user, groups } = subject(request_pem)?;
        let refused = |error: rcgen::Error| format!("the request cannot be signed: {error}");
        // Whoever asks has the key: the request's own signature is verified here.
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(refused)?;
        let mut params = leaf_params(&user, ExtendedKeyUsagePurpose::ClientAuth);
        let spellings = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION_OID.to_vec())];
        for (spelling, group) in spellings.into_iter().zip(groups) {
            params.distinguished_name.push(spelling, group);
        }
        params.not_after = OffsetDateTime::now_utc() + longest;
        request.params = params;
        Ok(request.signed_by(&self.issuer).map_err(refused)?.pem())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, IsCa, KeyPair};

    use super::*;
    use crate::pki::{AuthorityName, certificates};

    fn request(params: &CertificateParams) -> String {
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_request_becomes_a_clients_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), AuthorityName::Cluster).unwrap();
        let mut params = CertificateParams::new(vec!["evil.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let signed = ClientSigner::sign(&authority, &request(&params), Duration::from_secs(900)).unwrap();
        let der = certificates(&signed).unwrap().remove(0);
        let user = apiserver::from_certificate(&der).unwrap();
        assert_eq!(user, apiserver::UserInfo::authenticated("jane", ["dev"]));
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(!parsed.is_ca() && parsed.subject_alternative_name().unwrap().is_none(), "only the name is taken");
        let life = parsed.validity().not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp();
        assert!((800..=900).contains(&life), "{life}");
        let issuer = certificates(authority.certificate_pem()).unwrap().remove(0);
        let (_, issuer) = x509_parser::parse_x509_certificate(&issuer).unwrap();
        assert_eq!(parsed.issuer(), issuer.subject());
    }

    #[test]
    fn what_is_not_signed() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), AuthorityName::Cluster).unwrap();
        let nobody = CertificateParams::new(Vec::<String>::new()).unwrap();
        let mut nameless = nobody.clone();
        nameless.distinguished_name = rcgen::DistinguishedName::new();
        for bad in ["nonsense".to_owned(), request(&nameless)] {
            assert!(ClientSigner::sign(&authority, &bad, Duration::from_secs(900)).is_err(), "{bad}");
        }
        // Another key than the one that signed the request.
        let mut forged = request(&nobody);
        let at = forged.len() / 2;
        let other = if forged.as_bytes()[at] == b'A' { "B" } else { "A" };
        forged.replace_range(at..=at, other);
        assert!(ClientSigner::sign(&authority, &forged, Duration::from_secs(900)).is_err());
    }
}
