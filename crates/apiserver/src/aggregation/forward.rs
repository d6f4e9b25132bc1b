//! One request for an extension server, after authorization: sent on as it came, with the user named by this server.
//!
//! Bodies are streamed both ways. What the client says of itself (`X-Remote-*`, credentials, impersonation) stays here.

use std::time::Duration;

use api::status::Status;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::{LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;

use super::identity_headers::identify;
use super::remotes::Remote;
use crate::core::Core;
use crate::identity::UserInfo;
use crate::reach::chain;
use crate::subresource::connect::proxy::{streamed, without_hops};
use crate::subresource::connect::relay;
use crate::wire::body::BODY_BYTES_MAX;

/// How long a server may take to begin its answer, unless the request is one that lasts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A request on its way.
pub struct Forward {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Body,
    pub upgrade: Option<OnUpgrade>,
    pub user: UserInfo,
    /// A watch or a connection.
    pub is_long_running: bool,
}

pub async fn forward(core: &Core, remote: &Remote, forward: Forward) -> Result<Response, Status> {
    let slot = core.connections.clone().try_acquire_owned();
    let slot = slot.map_err(|_| Status::too_many_requests("too many connections, please try again later", 1))?;
    let unavailable = |why: &str| {
        let (namespace, service) = (&remote.namespace, &remote.service);
        Status::unavailable(format!(
            "error trying to reach service {namespace}/{service} of APIService {}: {why}",
            remote.name
        ))
    };
    if forward.body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Status::too_large(BODY_BYTES_MAX));
    }
    let client = remote.client.as_ref().map_err(|why| unavailable(why))?;
    let upgrades = relay::wants_upgrade(&forward.headers);
    let taken_over = forward.upgrade.filter(|_| upgrades);
    let path = forward.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = format!("{}{path}", remote.root());
    let body = if upgrades { Body::empty() } else { Body::new(Limited::new(forward.body, BODY_BYTES_MAX)) };
    let mut upstream = http::Request::new(body);
    *upstream.method_mut() = forward.method;
    *upstream.uri_mut() = uri.parse().map_err(|_| Status::bad_request("the path is no path"))?;
    *upstream.headers_mut() = headers(&forward.headers, upgrades);
    identify(upstream.headers_mut(), &forward.user)?;
    let asking = client.request(upstream);
    let answer = if forward.is_long_running {
        asking.await
    } else {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asking).await;
        answer.map_err(|_| Status::timeout(format!("APIService {} did not answer in time", remote.name)))?
    };
    let answer = answer.map_err(|error| {
        if is_too_large(&error) { Status::too_large(BODY_BYTES_MAX) } else { unavailable(&chain(&error)) }
    })?;
    let answer = answer.map(Body::new);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let client = taken_over.ok_or_else(|| Status::bad_request("this connection cannot be upgraded"))?;
        return relay::join(core, client, answer, slot).await;
    }
    Ok(relayed(answer, slot))
}

/// Without what is about the client's connection and credentials.
fn headers(of_client: &HeaderMap, upgrades: bool) -> HeaderMap {
    let mut all = without_hops(of_client);
    // How much is in a body is told by the body.
    all.remove(header::CONTENT_LENGTH);
    if upgrades {
        for name in [header::CONNECTION, header::UPGRADE] {
            all.extend(of_client.get(&name).map(|value| (name.clone(), value.clone())));
        }
    }
    all
}

fn relayed(answer: http::Response<Body>, slot: OwnedSemaphorePermit) -> Response {
    let mut response = streamed(answer, slot);
    // Whom this server believes is nobody's business.
    super::identity_headers::strip(response.headers_mut());
    response
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn what_is_sent_on() {
        let mut given = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("accept", "application/json"),
            ("connection", "Upgrade, x-hop"),
            ("upgrade", "websocket"),
            ("x-hop", "1"),
            ("content-length", "3"),
            ("impersonate-user", "x"),
            ("impersonate-extra-scopes", "x"),
            ("sec-websocket-key", "k"),
        ] {
            given.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let names = |upgrades: bool| {
            let mut names: Vec<String> = headers(&given, upgrades).keys().map(ToString::to_string).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(names(false), "accept sec-websocket-key");
        assert_eq!(names(true), "accept connection sec-websocket-key upgrade");
    }
}
