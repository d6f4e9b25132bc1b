//! How others verify our tokens: OpenID Connect discovery of the issuer, as kube-apiserver publishes it.

use api::status::Status;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::claims::ISSUER;
use super::keys::Keys;
use crate::core::Core;
use crate::wire::respond;

pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
pub const KEY_SET: &str = "/openid/v1/jwks";

/// The answer when the path is one of these.
pub async fn answer(core: &Core, path: &str) -> Option<Result<Response, Status>> {
    match path {
        CONFIGURATION => Some(Ok(respond::value(&configuration(core)))),
        KEY_SET => {
            let keys = core.token_keys.current(core).await;
            let document = |keys: &Keys| {
                respond::typed(StatusCode::OK, "application/jwk-set+json", respond::to_bytes(&keys.public()))
            };
            Some(keys.map(|keys| document(&keys)))
        }
        _ => None,
    }
}

fn configuration(core: &Core) -> Value {
    let (address, port) = (core.config.advertise_address, core.config.advertise_port);
    // Nobody but this machine gets to a server that listens on its loopback; pods get to the Service of that name.
    let keys = if address.is_loopback() { ISSUER.to_owned() } else { format!("https://{address}:{port}") };
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{keys}{KEY_SET}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}
