//! HTTP requests that are calls of exports: a path names the export, body or query have the arguments.
//!
//! Owns: from a request to a call and from its answer to a response. Which route takes a request is `route`, what its
//! arguments are is `arguments`, how the call runs is `calls`. Connections and draining are `http`'s, and so are
//! requests that go to the component's own handler.
//!
//! ```text
//! POST /price {"items": […]} ─► route: orders#price ─► call ─► 200 {"result": …}  422 {"error": …}  4xx, 5xx {"status": …}
//! ```

mod arguments;
mod route;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use wasmtime_wasi_http::WasiBody;

use crate::host::calls::CALL_BYTES_MAX;
use crate::host::calls::call::{self, Patience};
use crate::host::calls::line::{Answer, Call, Form, Refusal};
use crate::host::container::Container;
use crate::host::http::{Server, answer_of_guest};
use crate::host::meter::{MemoryShare, Metered};
use crate::host::program::Program;
use route::Found;

/// A client that has not sent its arguments by then is cut off.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// One request, from its headers to its answer.
pub async fn answer(server: Arc<Server>, request: Request<WasiBody>) -> Response<WasiBody> {
    let found = route::find(&server.container().spec.routes, request.method().as_str(), request.uri().path());
    match found {
        Found::Route(route) => match route.export.clone() {
            Some(export) => call_export(&server, export, request).await,
            None => to_guest(server, request).await,
        },
        Found::OtherMethods(methods) => {
            let why = format!("the method must be {}", methods.join(" or "));
            let mut response = refused(server.container(), Refusal::new(405, "MethodNotAllowed", why)).await;
            if let Ok(allow) = HeaderValue::from_str(&methods.join(", ")) {
                response.headers_mut().insert(ALLOW, allow);
            }
            response
        }
        Found::Nothing => {
            let why = format!("no trigger of the function has the path {}", request.uri().path());
            refused(server.container(), Refusal::new(404, "NotFound", why)).await
        }
    }
}

/// The component's own handler, if it has one; the request counts as a call.
async fn to_guest(server: Arc<Server>, request: Request<WasiBody>) -> Response<WasiBody> {
    let container = server.container();
    if !matches!(container.program.as_ref(), Program::Http { .. }) {
        let why = "the trigger names no export, and the component has no HTTP handler (wasi:http)";
        return refused(container, Refusal::new(404, "NotFound", why)).await;
    }
    match call::begin(container) {
        Ok(()) => answer_of_guest(server, request).await,
        Err(refusal) => refused(container, refusal).await,
    }
}

async fn refused(container: &Container, refusal: Refusal) -> Response<WasiBody> {
    respond(call::counted(container, async { Err(refusal) }).await)
}

/// Runs inside of the connection's task: it ends with a client that goes away.
async fn call_export(server: &Server, export: String, request: Request<WasiBody>) -> Response<WasiBody> {
    let container = server.container();
    let (parts, body) = request.into_parts();
    let attempt = async {
        let (text, _held) = read(container, &parts.headers, body).await?;
        let _as_values = call::hold(container, text.len())?;
        let args = if text.trim_ascii().is_empty() {
            arguments::of_query(call::export(container, &export)?, parts.uri.query().unwrap_or_default())?
        } else {
            arguments::of_body(&text)?
        };
        let _running = server.executor().running();
        let call = Call { export, args, form: Form::Json };
        Metered::new(Arc::clone(&container.usage), call::run(container, &call, Patience::None)).await
    };
    respond(call::counted(container, attempt).await)
}

/// The body, which counts as memory of the container as long as it is here.
async fn read(container: &Container, headers: &HeaderMap, mut body: WasiBody) -> Result<(Bytes, MemoryShare), Refusal> {
    let mut held = container.memory_share();
    let mut text = BytesMut::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| Refusal::new(400, "BadRequest", format!("the body broke off: {error}")))?;
            let Some(data) = frame.data_ref() else { continue };
            if text.len() + data.len() > CALL_BYTES_MAX {
                return Err(call::too_long());
            }
            if !held.reserve(data.len()) {
                let limit = container.usage.memory_limit_bytes();
                let why = format!("the body does not fit into the memory limit of {limit} bytes");
                return Err(Refusal::new(413, "RequestEntityTooLarge", why));
            }
            text.extend_from_slice(data);
        }
        Ok(())
    };
    let late = |_| Refusal::new(408, "Timeout", format!("the body took longer than {BODY_READ_TIMEOUT:?}"));
    tokio::time::timeout(BODY_READ_TIMEOUT, reading).await.map_err(late)??;
    if !text.is_empty() {
        must_be_json(headers)?;
    }
    Ok((text.freeze(), held))
}

/// A page of another site can have a browser send other types without asking.
fn must_be_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?")).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let why = format!("arguments are application/json (got {given:?})");
    Err(Refusal::new(415, "UnsupportedMediaType", why))
}

/// The line that a stream of calls would have, and a status for those who look no further.
fn respond(ended: Result<Answer, Refusal>) -> Response<WasiBody> {
    let (code, retry_after, line) = match ended {
        Ok(Answer { line, is_error: false }) => (StatusCode::OK, None, line),
        Ok(Answer { line, is_error: true }) => (StatusCode::UNPROCESSABLE_ENTITY, None, line),
        Err(refusal) => {
            let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (code, refusal.details["retryAfterSeconds"].as_u64(), refusal.render())
        }
    };
    let mut response = Response::new(Full::from(line).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn ends_become_responses() {
        let check = async |ended: Result<Answer, Refusal>, code: u16, retry_after: Option<&str>, body: &str| {
            let response = respond(ended);
            assert_eq!(response.status().as_u16(), code, "{body}");
            let header = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(header, retry_after, "{body}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        };
        let answer = |line: &str, is_error| Ok(Answer { line: line.as_bytes().to_vec(), is_error });
        check(answer("{\"result\":3}\n", false), 200, None, "{\"result\":3}\n").await;
        check(answer("{\"error\":3}\n", true), 422, None, "{\"error\":3}\n").await;
        let trapped = Refusal::new(500, "Trapped", "m");
        let line = "{\"status\":{\"code\":500,\"message\":\"m\",\"reason\":\"Trapped\"}}\n";
        check(Err(trapped), 500, None, line).await;
        let details = json!({ "retryAfterSeconds": 2 });
        let busy = Refusal { details, ..Refusal::new(429, "TooManyRequests", "m") };
        let line = "{\"status\":{\"code\":429,\"details\":{\"retryAfterSeconds\":2},\"message\":\"m\",\
                    \"reason\":\"TooManyRequests\"}}\n";
        check(Err(busy), 429, Some("2"), line).await;
    }

    #[test]
    fn bodies_are_json() {
        let check = |given: Option<&str>, allowed: bool| {
            let given = given.map(|text| (CONTENT_TYPE, HeaderValue::from_str(text).unwrap()));
            let headers: HeaderMap = given.into_iter().collect();
            assert_eq!(must_be_json(&headers).map_err(|refusal| refusal.code), if allowed { Ok(()) } else { Err(415) });
        };
        check(Some("application/json"), true);
        check(Some("Application/JSON; charset=utf-8"), true);
        check(Some("text/plain"), false);
        check(Some("application/x-www-form-urlencoded"), false);
        check(None, false);
    }
}
