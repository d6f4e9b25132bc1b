//! A proxy in front of this server that has found out who asks, and says so in headers (`--requestheader-client-ca-file`
//! of kube-apiserver). Off unless configured.
//!
//! Owns: whose certificate makes its connection such a proxy's. A certificate of the proxies' authority never names a user
//! by itself. May not know: what users may do.

use std::sync::Arc;

use http::HeaderMap;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::aggregation::HeaderNames;
use crate::identity::{UserInfo, common_name, from_certificate};

/// Which proxies are believed, and what they write where.
#[derive(Debug)]
pub struct RequestHeader {
    roots: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Common names; empty: every certificate of the authority.
    allowed_names: Vec<String>,
    names: HeaderNames,
}

/// Whose connection it is, as its certificate says.
#[derive(Debug, Clone)]
pub enum Caller {
    Nobody,
    User(UserInfo),
    /// Each request says in its headers whose it is.
    Proxy(Arc<RequestHeader>),
}

impl RequestHeader {
    /// # Errors
    /// What is wrong with the authorities' PEM.
    pub fn new(authority_pem: &str, allowed_names: Vec<String>, names: HeaderNames) -> Result<Self, String> {
        let parsed: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(authority_pem.as_bytes()).collect();
        let certificates = parsed.map_err(|error| format!("a certificate does not parse: {error}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| error.to_string())?;
        Ok(Self { roots: certificates, verifier, allowed_names, names })
    }

    /// The authorities, which a TLS server has to accept besides its own.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Whose a connection is whose chain the TLS server has accepted; the first certificate is the client's.
    pub fn caller(this: Option<&Arc<Self>>, chain: &[CertificateDer<'_>]) -> Caller {
        let Some((own, between)) = chain.split_first() else { return Caller::Nobody };
        if let Some(proxies) = this
            && proxies.verifier.verify_client_cert(own, between, UnixTime::now()).is_ok()
        {
            let allowed = &proxies.allowed_names;
            let name = common_name(own).unwrap_or_default();
            return if allowed.is_empty() || allowed.contains(&name) {
                Caller::Proxy(Arc::clone(proxies))
            } else {
                tracing::warn!(name, "a certificate of the front proxies' authority has a name that is not allowed");
                Caller::Nobody
            };
        }
        match from_certificate(own) {
            Ok(user) => Caller::User(user),
            Err(error) => {
                tracing::debug!(%error, "client certificate names no user");
                Caller::Nobody
            }
        }
    }
}

impl Caller {
    /// The user of one request of the connection.
    pub fn user_of(&self, headers: &HeaderMap) -> Option<UserInfo> {
        match self {
            Self::Nobody => None,
            Self::User(user) => Some(user.clone()),
            Self::Proxy(proxies) => proxies.names.read(headers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    impl Authority {
        fn client(&self, name: &str) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
        }
    }

    #[test]
    fn who_is_believed() {
        let (proxies, clients) = (authority(), authority());
        let allowed = vec!["front".to_owned()];
        let rules = Arc::new(RequestHeader::new(&proxies.pem, allowed, HeaderNames::default()).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", "jane".parse().unwrap());
        let check = |rules: Option<&Arc<RequestHeader>>, chain: &[CertificateDer<'_>], expect: Option<&str>| {
            let user = RequestHeader::caller(rules, chain).user_of(&headers);
            assert_eq!(user.as_ref().map(|user| user.name.as_str()), expect);
        };
        check(Some(&rules), &[proxies.client("front")], Some("jane"));
        check(Some(&rules), &[proxies.client("other")], None);
        check(Some(&rules), &[clients.client("front")], Some("front"));
        check(None, &[clients.client("bob")], Some("bob"));
        check(Some(&rules), &[], None);
        let nobody = RequestHeader::caller(Some(&rules), &[proxies.client("front")]).user_of(&HeaderMap::new());
        assert_eq!(nobody, None, "a proxy is nobody by itself");
        assert!(RequestHeader::new("", Vec::new(), HeaderNames::default()).is_err());
    }
}
