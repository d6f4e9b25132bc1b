//! Kubeconfig files.
//!
//! Owns: the shape of `v1 Config` that kubectl and every client library read.
//! May not know: how the certificates in it were made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::pki::Leaf;

/// What a kubeconfig says.
pub struct Kubeconfig<'a> {
    /// `https://127.0.0.1:6443`
    pub server: &'a str,
    pub user: &'a str,
    pub ca_pem: &'a str,
    pub leaf: &'a Leaf,
}

impl Kubeconfig<'_> {
    /// YAML with one cluster, one user and one context, all of them current.
    pub fn render(&self) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "knarr", "cluster": {
                "server": self.server,
                "certificate-authority-data": STANDARD.encode(self.ca_pem),
            }}],
            "users": [{ "name": self.user, "user": {
                "client-certificate-data": STANDARD.encode(&self.leaf.certificate_pem),
                "client-key-data": STANDARD.encode(&self.leaf.key_pem),
            }}],
            "contexts": [{ "name": "knarr", "context": { "cluster": "knarr", "user": self.user } }],
            "current-context": "knarr",
        });
        serde_yaml_ng::to_string(&config).expect("a JSON value of strings, lists and maps is always YAML")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_clients_read() {
        let leaf = Leaf { certificate_pem: "CERT".into(), key_pem: "KEY".into() };
        let text = Kubeconfig { server: "https://127.0.0.1:6443", user: "admin", ca_pem: "CA", leaf: &leaf }.render();
        let read: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(read["current-context"], "knarr");
        assert_eq!(read["clusters"][0]["cluster"]["certificate-authority-data"], STANDARD.encode("CA"));
        assert_eq!(read["users"][0]["user"]["client-key-data"], STANDARD.encode("KEY"));
    }
}
