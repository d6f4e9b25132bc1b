//! How a machine becomes a server of a cluster that is there: enrolled once, with a token, then let in.
//!
//! Owns: the newcomer's side. The first request already runs over verified TLS: the token carries the
//! fingerprint of the cluster's authority, and the server sends that authority along.
//! May not know: what the cluster does about a request (`members_api`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{Method, Uri};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::member_record::MemberRecord;
use super::wire::{Admission, Enrolment, JOIN, JoinRequest, MEMBERS};
use crate::https::{Content, HttpsClient};
use crate::join_token::JoinToken;
use crate::pki::{Authority, AuthorityName, Identity, fingerprint};

const ENROL_TIMEOUT: Duration = Duration::from_secs(30);
/// The newcomer is sent the whole state before it may vote.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(150);

/// Where a newcomer asks, and with what.
#[derive(Debug, Clone)]
pub struct JoinSettings {
    /// `host:port` of any server of the cluster.
    pub authority: String,
    pub token: Option<JoinToken>,
    pub replaces: Option<u64>,
}

/// `host:port` of a server's URL.
pub fn authority_of(flag: &str, url: &str) -> Result<String> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    if uri.scheme_str() != Some("https") || uri.path().len() > 1 || uri.port_u16().is_none() {
        bail!("{flag} takes the URL of a server, such as https://10.0.0.1:6443, not {url:?}");
    }
    Ok(uri.authority().context("a URL with a scheme has a host")?.to_string())
}

/// Gets an id and the cluster's authorities, and writes them into the data directory. The record comes
/// last: a crash before it leaves a directory that enrols again.
pub async fn enrol(join: &JoinSettings, data_dir: &Path) -> Result<MemberRecord> {
    let token = join.token.as_ref().context("a machine joins with a token: --token-file FILE")?;
    let https = HttpsClient::new(pinned(token.fingerprint)?, join.authority.clone());
    let mut content = Content::json(&JoinRequest { replaces: join.replaces })?;
    content.bearer = Some(token.to_string());
    let answer = https.ask(Method::POST, JOIN, content, ENROL_TIMEOUT).await?;
    let enrolment: Enrolment =
        serde_json::from_slice(&answer).with_context(|| format!("{} did not answer an enrolment", join.authority))?;
    let pki = data_dir.join("pki");
    AuthorityName::Cluster.install(&pki, &enrolment.cluster_authority.into())?;
    AuthorityName::Peers.install(&pki, &enrolment.peer_authority.into())?;
    let record = MemberRecord::enrolled(enrolment.member, join.replaces);
    record.write(data_dir)?;
    Ok(record)
}

/// Asks to be sent everything and then to vote. May be asked again.
pub async fn be_let_in(
    server: &str,
    authority: &Authority,
    record: &MemberRecord,
    addresses: Vec<String>,
) -> Result<()> {
    let user = format!("system:knarr-server:{}", record.id());
    let leaf = authority.client(&Identity { user: &user, groups: &["system:masters"] })?;
    let https = HttpsClient::new(authority.client_config(&leaf)?, server.to_owned());
    let content = Content::json(&Admission { addresses, replaces: record.replaces() })?;
    https.ask(Method::PUT, &format!("{MEMBERS}/{}", record.id()), content, ADMIT_TIMEOUT).await?;
    Ok(())
}

/// TLS to a server whose authority has this fingerprint.
pub fn pinned(fingerprint: [u8; 32]) -> Result<ClientConfig> {
    let provider = CryptoProvider::get_default().context("no crypto provider is installed")?.clone();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(Pinned { fingerprint, provider, algorithms });
    // "Dangerous" is what rustls calls every verifier that is not its own.
    Ok(ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Trusts one authority, known by its fingerprint, and only by way of it the server.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned = |certificate: &&CertificateDer<'_>| fingerprint(certificate) == self.fingerprint;
        let authority =
            intermediates.iter().find(is_pinned).ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    #[test]
    fn urls_of_servers() {
        assert_eq!(authority_of("--join", "https://10.0.0.1:6443").unwrap(), "10.0.0.1:6443");
        assert_eq!(authority_of("--join", "https://one.example:6443/").unwrap(), "one.example:6443");
        for bad in ["10.0.0.1:6443", "http://10.0.0.1:6443", "https://10.0.0.1", "https://10.0.0.1:6443/api", "x y"] {
            assert!(authority_of("--join", bad).is_err(), "{bad}");
        }
    }

    /// Whether a newcomer that knows `fingerprint` speaks to a server of `authority` under `name`.
    async fn speaks(authority: &Authority, fingerprint: [u8; 32], name: &'static str) -> bool {
        let leaf = authority.server("s", &["localhost".to_owned()], &["127.0.0.1".parse().unwrap()]).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(&leaf, false).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.is_ok() });
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(pinned(fingerprint).unwrap()));
        let connected = connector.connect(ServerName::try_from(name).unwrap(), stream).await.is_ok();
        served.await.unwrap();
        connected
    }

    #[tokio::test]
    async fn only_the_cluster_of_the_token_is_spoken_to() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ours = Authority::open(dir.path(), AuthorityName::Cluster).unwrap();
        let other = Authority::open(dir.path(), AuthorityName::Peers).unwrap();
        let fingerprint = fingerprint(&CertificateDer::from_pem_slice(ours.certificate_pem().as_bytes()).unwrap());
        assert!(speaks(&ours, fingerprint, "localhost").await);
        assert!(speaks(&ours, fingerprint, "127.0.0.1").await);
        assert!(!speaks(&ours, fingerprint, "other.example").await, "the name counts too");
        assert!(!speaks(&other, fingerprint, "localhost").await);
    }
}
