//! The certificates by which extension API servers know the cluster's API. Where they are kept is the API server's matter.

use apiserver::{FrontProxyMint, Identity as Certificate};

use super::{Authority, Identity, Leaf, create};

const AUTHORITY: &str = "knarr-front-proxy-ca";

pub struct FrontProxyCertificates;

fn certificate(leaf: Leaf) -> Certificate {
    Certificate { certificate_pem: leaf.certificate_pem, key_pem: leaf.key_pem }
}

impl FrontProxyMint for FrontProxyCertificates {
    fn authority(&self) -> Result<Certificate, String> {
        create(AUTHORITY).map(certificate).map_err(|error| error.to_string())
    }

    fn client(&self, authority: &Certificate, name: &str) -> Result<Certificate, String> {
        let authority = Authority::of(authority.certificate_pem.clone(), &authority.key_pem)?;
        let leaf = authority.client(&Identity { user: name, groups: &[] });
        leaf.map(certificate).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::certificates;

    #[test]
    fn an_authority_and_its_client() {
        let authority = FrontProxyCertificates.authority().unwrap();
        let client = FrontProxyCertificates.client(&authority, "front-proxy-client").unwrap();
        let der = certificates(&client.certificate_pem).unwrap().remove(0);
        assert_eq!(apiserver::from_certificate(&der).unwrap().name, "front-proxy-client");
        let rules =
            apiserver::RequestHeader::new(&authority.certificate_pem, Vec::new(), apiserver::HeaderNames::default());
        assert_eq!(rules.unwrap().authorities().len(), 1);
        let broken = Certificate { key_pem: String::new(), ..authority };
        assert!(FrontProxyCertificates.client(&broken, "x").is_err());
    }
}
