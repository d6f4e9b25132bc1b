//! Finds the registry credentials of a pod in its `imagePullSecrets`.

use cri::RegistryAuth;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::Value;

use crate::pod::spec::PodView;

#[derive(Deserialize)]
struct DockerConfig {
    auths: std::collections::BTreeMap<String, Value>,
}

/// The first credentials that fit the registry of the reference. A secret that is missing or
/// damaged is passed over: the registry's own answer says more.
pub async fn find(client: &Client, pod: PodView<'_>, reference: &str) -> Option<RegistryAuth> {
    let secrets = pod.spec()?.image_pull_secrets.as_ref()?;
    let api = Api::<Secret>::namespaced(client.clone(), pod.namespace());
    for secret in secrets {
        let Ok(Some(secret)) = api.get_opt(&secret.name).await else { continue };
        let data = secret.data.unwrap_or_default();
        let Some(config) = data.get(".dockerconfigjson") else { continue };
        if let Some(auth) = credentials(&config.0, registry(reference)) {
            return Some(auth);
        }
    }
    None
}

/// `registry.local/hello:v1` → `registry.local`; names without a registry are Docker Hub's.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn credentials(config: &[u8], registry: &str) -> Option<RegistryAuth> {
    let config: DockerConfig = serde_json::from_slice(config).ok()?;
    let host = |name: &str| {
        let bare = name.trim_start_matches("https://").trim_start_matches("http://");
        let bare = bare.split('/').next().unwrap_or(bare).to_owned();
        if bare == "index.docker.io" { "docker.io".to_owned() } else { bare }
    };
    let (_, entry) = config.auths.iter().find(|(name, _)| host(name) == registry)?;
    if let (Some(username), Some(password)) = (entry["username"].as_str(), entry["password"].as_str()) {
        return Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() });
    }
    let decoded = decode_base64(entry["auth"].as_str()?)?;
    let (username, password) = decoded.split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() })
}

/// Through the type that Kubernetes uses for bytes in JSON.
fn decode_base64(text: &str) -> Option<String> {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(Value::String(text.to_owned())).ok()?;
    String::from_utf8(bytes.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        let config = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "YW5uOnMzY3JldA=="},
                                    "reg.example:5000": {"username": "u", "password": "p"}}}"#;
        let check = |reference: &str, expect: Option<(&str, &str)>| {
            let found = credentials(config, registry(reference)).map(|auth| (auth.username, auth.password));
            assert_eq!(found, expect.map(|(u, p)| (u.to_owned(), p.to_owned())), "{reference}");
        };
        check("nginx", Some(("ann", "s3cret")));
        check("library/nginx:1", Some(("ann", "s3cret")));
        check("reg.example:5000/app:v1", Some(("u", "p")));
        check("other.example/app", None);
    }
}
