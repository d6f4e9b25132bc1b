//! Authorities of tests.

use apiserver::{FrontProxyMint, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

pub fn authority(name: &str) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
}

pub fn leaf(authority: &Identity, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
    let key = KeyPair::from_pem(&authority.key_pem).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem, key).expect("an authority");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
}

/// Knows its authority before it is asked for it.
pub struct Mint(pub Identity);

impl FrontProxyMint for Mint {
    fn authority(&self) -> Result<Identity, String> {
        Ok(self.0.clone())
    }

    fn client(&self, authority: &Identity, name: &str) -> Result<Identity, String> {
        Ok(leaf(authority, name, ExtendedKeyUsagePurpose::ClientAuth))
    }
}
