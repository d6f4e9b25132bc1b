//! The cluster's certificates.
//!
//! Owns: the two certificate authorities on disk (`<data-dir>/pki/{ca,peer-ca}.{crt,key}`), minting
//! leaf certificates, signing those that clients and nodes ask for, and the rustls configurations made of them. Leaves of servers are minted anew
//! at every start and live in memory only, so none of them can expire on disk unseen.
//! May not know: who may do what (RBAC in the API server decides by CN and O).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

mod front_proxy;
pub mod node;
mod signer;
pub mod swap;

pub use front_proxy::FrontProxyCertificates;

/// Life of the certificate authority.
const CA_YEARS: i64 = 10;
/// Life of a leaf; servers get a new one at every start.
const LEAF_DAYS: i64 = 365;
/// Most groups of one client certificate: rcgen keeps one value per attribute type, and the
/// organisation has two spellings there (the named one and its OID).
pub const GROUPS_MAX: usize = 2;
/// OID of `organizationName` (RFC 5280, X.520).
const ORGANIZATION_OID: [u64; 4] = [2, 5, 4, 10];
/// Certificates are valid from a little earlier, for clients with a slow clock.
const CLOCK_SKEW: Duration = Duration::hours(1);

#[derive(Debug, Error)]
pub enum PkiError {
    #[error("cannot {attempt} {path}")]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a certificate for {subject:?}")]
    Mint {
        subject: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("the certificate authority in {path} cannot be used: {why}")]
    Authority { path: PathBuf, why: String },
    #[error("a client certificate can carry {GROUPS_MAX} groups, not {count}")]
    TooManyGroups { count: usize },
    #[error("cannot configure TLS: {why}")]
    Tls { why: String },
}

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub struct Leaf {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// Who a client certificate speaks for: CN and O.
pub struct Identity<'a> {
    pub user: &'a str,
    pub groups: &'a [&'a str],
}

/// A cluster has two, so that no certificate for the API opens the door between members, and the
/// other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityName {
    /// For the API: its servers, its clients, nodes.
    Cluster,
    /// For members of the control plane towards each other.
    Peers,
}

impl AuthorityName {
    fn common_name(self) -> &'static str {
        match self {
            Self::Cluster => "knarr-ca",
            Self::Peers => "knarr-peer-ca",
        }
    }

    /// Certificate and key in a directory.
    fn paths(self, dir: &Path) -> (PathBuf, PathBuf) {
        let stem = match self {
            Self::Cluster => "ca",
            Self::Peers => "peer-ca",
        };
        (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")))
    }

    /// Whether the directory holds it.
    pub fn exists(self, dir: &Path) -> bool {
        self.paths(dir).0.exists()
    }

    /// Writes an authority that another member has handed over.
    pub fn install(self, dir: &Path, pem: &Leaf) -> Result<(), PkiError> {
        let (certificate_path, key_path) = self.paths(dir);
        write_authority(dir, (&certificate_path, &key_path), pem)
    }
}

/// A certificate authority of one cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// Loads the authority of `dir`, or makes it when the directory holds none.
    pub fn open(dir: &Path, name: AuthorityName) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = name.paths(dir);
        if !certificate_path.exists() {
            write_authority(dir, (&certificate_path, &key_path), &create(name.common_name())?)?;
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| PkiError::File { attempt: "read", path: path.to_owned(), source })
        };
        let certificate_pem = read(&certificate_path)?;
        Self::of(certificate_pem, &read(&key_path)?).map_err(|why| PkiError::Authority { path: certificate_path, why })
    }

    fn of(certificate_pem: String, key_pem: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key_pem).map_err(|e| format!("its key: {e}"))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(|e| e.to_string())?;
        Ok(Self { issuer, certificate_pem })
    }

    /// The authority's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Certificate and private key, to be handed over to a new member.
    pub fn pem(&self) -> Leaf {
        Leaf { certificate_pem: self.certificate_pem.clone(), key_pem: self.issuer.key().serialize_pem() }
    }

    /// A certificate by which a client proves who it is.
    pub fn client(&self, identity: &Identity<'_>) -> Result<Leaf, PkiError> {
        let mut params = leaf_params(identity.user, ExtendedKeyUsagePurpose::ClientAuth);
        if identity.groups.len() > GROUPS_MAX {
            return Err(PkiError::TooManyGroups { count: identity.groups.len() });
        }
        let spellings = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION_OID.to_vec())];
        for (spelling, group) in spellings.into_iter().zip(identity.groups) {
            params.distinguished_name.push(spelling, *group);
        }
        self.sign(identity.user, params)
    }

    /// A certificate for a server that is reached by these names and addresses.
    pub fn server(&self, name: &str, dns_names: &[String], addresses: &[IpAddr]) -> Result<Leaf, PkiError> {
        let mut params = leaf_params(name, ExtendedKeyUsagePurpose::ServerAuth);
        for dns_name in dns_names {
            let san =
                dns_name.as_str().try_into().map_err(|source| PkiError::Mint { subject: name.to_owned(), source })?;
            params.subject_alt_names.push(SanType::DnsName(san));
        }
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        self.sign(name, params)
    }

    /// A certificate for one member of the control plane towards the others, at both ends of a connection.
    pub fn peer(&self, dns_name: &str) -> Result<Leaf, PkiError> {
        let mut params = leaf_params(dns_name, ExtendedKeyUsagePurpose::ServerAuth);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        let san = dns_name.try_into().map_err(|source| PkiError::Mint { subject: dns_name.to_owned(), source })?;
        params.subject_alt_names.push(SanType::DnsName(san));
        self.sign(dns_name, params)
    }

    fn sign(&self, subject: &str, params: CertificateParams) -> Result<Leaf, PkiError> {
        let mint = |source| PkiError::Mint { subject: subject.to_owned(), source };
        let key = KeyPair::generate().map_err(mint)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(mint)?;
        Ok(Leaf { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    fn roots(&self) -> Result<RootCertStore, PkiError> {
        roots(&self.certificate_pem)
    }

    /// A TLS server that verifies client certificates of this authority. Without `required` a
    /// client may come without one (and is then anonymous). The authority's own certificate is sent
    /// along: a newcomer that knows only its fingerprint verifies the server by it.
    pub fn server_config(&self, leaf: &Leaf, required: bool) -> Result<ServerConfig, PkiError> {
        self.server_config_with(leaf, required, &[])
    }

    /// As [`Self::server_config`], for clients of other authorities too.
    pub fn server_config_with(
        &self,
        leaf: &Leaf,
        required: bool,
        others: &[CertificateDer<'static>],
    ) -> Result<ServerConfig, PkiError> {
        let tls = |e: &dyn std::fmt::Display| PkiError::Tls { why: e.to_string() };
        let mut roots = self.roots()?;
        for other in others {
            if certificates(&self.certificate_pem)?.contains(other) {
                let why = "an authority of the front proxies is the cluster's own, whose clients are users".to_owned();
                return Err(PkiError::Tls { why });
            }
            roots.add(other.clone()).map_err(|e| tls(&e))?;
        }
        let builder = WebPkiClientVerifier::builder(Arc::new(roots));
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|e| tls(&e))?;
        let mut chain = certificates(&leaf.certificate_pem)?;
        chain.extend(certificates(&self.certificate_pem)?);
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private_key(&leaf.key_pem)?)
            .map_err(|e| tls(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// A TLS client of this cluster's servers with a certificate of its own.
    pub fn client_config(&self, leaf: &Leaf) -> Result<ClientConfig, PkiError> {
        ClientConfig::builder()
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(certificates(&leaf.certificate_pem)?, private_key(&leaf.key_pem)?)
            .map_err(|e| PkiError::Tls { why: e.to_string() })
    }
}

/// Whoever has a certificate of these authorities (PEM) is believed.
fn roots(pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|e| PkiError::Tls { why: e.to_string() })?;
    }
    Ok(roots)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| PkiError::Tls { why: format!("a certificate does not parse: {e}") })
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| PkiError::Tls { why: format!("a private key does not parse: {e}") })
}

fn leaf_params(common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(LEAF_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![usage];
    params
}

fn create(subject: &str) -> Result<Leaf, PkiError> {
    let mint = |source| PkiError::Mint { subject: subject.to_owned(), source };
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(365 * CA_YEARS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(mint)?;
    let certificate = params.self_signed(&key).map_err(mint)?;
    Ok(Leaf { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn write_authority(dir: &Path, (certificate_path, key_path): (&Path, &Path), pem: &Leaf) -> Result<(), PkiError> {
    fs::create_dir_all(dir).map_err(|source| PkiError::File { attempt: "create", path: dir.to_owned(), source })?;
    // The key first: a crash between the two leaves no certificate, and the next start makes both.
    write_private(key_path, pem.key_pem.as_bytes())?;
    write_private(certificate_path, pem.certificate_pem.as_bytes())
}

/// SHA-256 of a certificate in its DER form.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let temporary = path.with_extension("tmp");
    let failed = |source| PkiError::File { attempt: "write", path: path.to_owned(), source };
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(failed)?;
    io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> (tempfile::TempDir, Authority) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::open(&dir.path().join("pki"), AuthorityName::Cluster).unwrap();
        (dir, authority)
    }

    #[test]
    fn the_authority_is_kept_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, first) = authority();
        let again = Authority::open(&dir.path().join("pki"), AuthorityName::Cluster).unwrap();
        assert_eq!(first.certificate_pem(), again.certificate_pem());
        let mode = fs::metadata(dir.path().join("pki/ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_authority_that_was_handed_over_is_the_same() {
        let (dir, first) = authority();
        let elsewhere = dir.path().join("elsewhere");
        AuthorityName::Peers.install(&elsewhere, &first.pem()).unwrap();
        let second = Authority::open(&elsewhere, AuthorityName::Peers).unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        let fresh = Authority::open(&elsewhere, AuthorityName::Cluster).unwrap();
        assert_ne!(first.certificate_pem(), fresh.certificate_pem(), "the other authority is another one");
    }

    #[test]
    fn a_damaged_authority_is_named() {
        let (dir, _) = authority();
        fs::write(dir.path().join("pki/ca.crt"), "nonsense").unwrap();
        let error = Authority::open(&dir.path().join("pki"), AuthorityName::Cluster).map(|_| ()).unwrap_err();
        assert!(matches!(error, PkiError::Authority { .. }), "{error}");
    }

    #[test]
    fn client_certificates_carry_user_and_groups() {
        let (_dir, authority) = authority();
        let leaf = authority.client(&Identity { user: "jane", groups: &["dev", "ops"] }).unwrap();
        let der = certificates(&leaf.certificate_pem).unwrap().remove(0);
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let subject = parsed.subject();
        let groups: Vec<_> = subject.iter_organization().map(|o| o.as_str().unwrap()).collect();
        assert_eq!(subject.iter_common_name().next().unwrap().as_str().unwrap(), "jane");
        assert_eq!(groups, ["dev", "ops"]);
        authority.client_config(&leaf).unwrap();
        let refused = authority.client(&Identity { user: "jane", groups: &["a", "b", "c"] }).map(|_| ());
        assert!(matches!(refused, Err(PkiError::TooManyGroups { count: 3 })));
    }

    #[test]
    fn server_certificates_make_a_server() {
        let (_dir, authority) = authority();
        let leaf = authority.server("kube-apiserver", &["localhost".into()], &["127.0.0.1".parse().unwrap()]).unwrap();
        authority.server_config(&leaf, true).unwrap();
        assert!(authority.server("x", &["not a name\u{e9}".into()], &[]).is_err());
    }
}
