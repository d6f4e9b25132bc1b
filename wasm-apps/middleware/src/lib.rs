//! A middleware of WASI 0.3: asks for a token, passes the request on to the next container of the pod, and marks what
//! that one answers. See `README.md`.

use wit_bindgen::generate;

use exports::wasi::http::handler::Guest;
use wasi::http::handler;
use wasi::http::types::{ErrorCode, Fields, Request, Response};

generate!({ path: "wit", world: "middleware", generate_all });

const UNAUTHORIZED: u16 = 401;
/// In the answer: who passed it on, one for each.
const PASSED: &str = "x-passed";

struct Middleware;

export!(Middleware);

impl Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let name = std::env::var("NAME").unwrap_or_else(|_| "middleware".to_owned());
        let path = request.get_path_with_query().unwrap_or_default();
        if !may_pass(&request) {
            println!("{name} refuses {path}");
            return refusal();
        }
        println!("{name} passes {path}");
        let answer = handler::handle(request).await?;
        marked(answer, &name)
    }
}

/// Without `TOKEN` in the environment, everybody may.
fn may_pass(request: &Request) -> bool {
    let Ok(token) = std::env::var("TOKEN") else { return true };
    let expected = format!("Bearer {token}");
    request.get_headers().get("authorization").iter().any(|value| value == expected.as_bytes())
}

fn refusal() -> Result<Response, ErrorCode> {
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (answer, _) = Response::new(Fields::new(), None, no_trailers);
    answer.set_status_code(UNAUTHORIZED).map_err(|()| ErrorCode::InternalError(None))?;
    Ok(answer)
}

/// The headers of an answer cannot be changed, so this is another one with the same body.
fn marked(answer: Response, name: &str) -> Result<Response, ErrorCode> {
    let status = answer.get_status_code();
    let headers = answer.get_headers().clone();
    headers.append(PASSED, name.as_bytes()).map_err(|error| ErrorCode::InternalError(Some(format!("{error:?}"))))?;
    let (_, read) = wit_future::new(|| Ok(()));
    let (body, trailers) = Response::consume_body(answer, read);
    let (marked, _) = Response::new(headers, Some(body), trailers);
    marked.set_status_code(status).map_err(|()| ErrorCode::InternalError(None))?;
    Ok(marked)
}
