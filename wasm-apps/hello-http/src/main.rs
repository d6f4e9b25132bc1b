//! A small HTTP service: greets, shows what it was given, calls another service, and misbehaves on
//! request so that limits can be seen at work.

use wstd::http::{Body, Client, Error, HeaderValue, Request, Response, StatusCode};

const MIB: usize = 1 << 20;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    match path.as_str() {
        "/" => Ok(text(StatusCode::OK, greeting())),
        "/healthz" => Ok(text(StatusCode::OK, "ok\n".to_owned())),
        "/headers" => Ok(text(StatusCode::OK, headers(&request))),
        "/env" => Ok(text(StatusCode::OK, environment())),
        "/backend" => match std::env::var("BACKEND_URL") {
            Ok(url) => Ok(call(&url).await),
            Err(_) => Ok(text(StatusCode::NOT_FOUND, "BACKEND_URL is not set\n".to_owned())),
        },
        "/call" => match parameter(&query, "url") {
            Some(url) => Ok(call(&url).await),
            None => Ok(text(StatusCode::BAD_REQUEST, "say /call?url=http://name/\n".to_owned())),
        },
        "/log" => {
            println!("{}", parameter(&query, "text").unwrap_or_default());
            Ok(text(StatusCode::OK, "logged\n".to_owned()))
        }
        "/grow" => {
            Ok(text(StatusCode::OK, grow(parameter(&query, "mib").and_then(|mib| mib.parse().ok()).unwrap_or(1))))
        }
        "/spin" => loop {
            std::hint::spin_loop();
        },
        "/trap" => panic!("trapped as asked"),
        _ => Ok(text(StatusCode::NOT_FOUND, format!("nothing at {path}\n"))),
    }
}

fn greeting() -> String {
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
    let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "a Wasm component".to_owned());
    format!("{greeting} from {name}\n")
}

fn environment() -> String {
    let mut lines: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
    lines.sort();
    lines.concat()
}

fn headers(request: &Request<Body>) -> String {
    let lines = request.headers().iter();
    lines.map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))).collect()
}

/// Asks another service and passes on what it says.
async fn call(url: &str) -> Response<Body> {
    let request = match Request::get(url).body(Body::empty()) {
        Ok(request) => request,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{url}: {error}\n")),
    };
    match Client::new().send(request).await {
        Ok(mut answer) => {
            let status = answer.status();
            match answer.body_mut().contents().await {
                Ok(bytes) => text(status, format!("{url} says: {}", String::from_utf8_lossy(bytes))),
                Err(error) => text(StatusCode::BAD_GATEWAY, format!("{url} broke off: {error:?}\n")),
            }
        }
        Err(error) => text(StatusCode::BAD_GATEWAY, format!("cannot call {url}: {error:?}\n")),
    }
}

/// Takes memory and touches every page of it.
fn grow(mib: usize) -> String {
    let memory = vec![1_u8; mib.saturating_mul(MIB)];
    let sum: usize = memory.iter().step_by(4096).map(|byte| usize::from(*byte)).sum();
    format!("{mib} MiB taken, {sum} pages touched\n")
}

/// A query parameter; `%XX` and `+` are decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut decoded = Vec::new();
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
