//! A small API with state: named counters in a bucket that all replicas of the service share.

use wit_bindgen::generate;
use wstd::http::{Body, Error, HeaderValue, Method, Request, Response, StatusCode};

use wasi::keyvalue::atomics::{self, Cas, CasError};
use wasi::keyvalue::batch;
use wasi::keyvalue::store::{self, Bucket, Error as StoreError};

generate!({ path: "wit", world: "api", generate_all });

/// What the guest opens; annotation `knarr.dev/buckets` says which bucket that is.
const STORE: &str = "counters";

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let method = request.method().clone();
    let expected = request.headers().get("if-match").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = if method == Method::PUT { request.body_mut().contents().await?.to_vec() } else { Vec::new() };
    Ok(match path.as_str() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/counters" if method == Method::GET => answered(list()),
        "/counters" if method == Method::DELETE => answered(clear()),
        path => match path.strip_prefix("/counters/").filter(|name| !name.is_empty()) {
            Some(name) => answered(match method {
                Method::GET => get(name),
                Method::POST => add(name, &query),
                Method::PUT => put(name, &body, expected.as_deref()),
                Method::DELETE => delete(name),
                _ => Ok(text(StatusCode::METHOD_NOT_ALLOWED, "GET, POST, PUT or DELETE\n")),
            }),
            None => text(StatusCode::NOT_FOUND, "counters are at /counters and /counters/NAME\n"),
        },
    })
}

fn open() -> Result<Bucket, StoreError> {
    store::open(STORE)
}

fn get(name: &str) -> Result<Response<Body>, StoreError> {
    Ok(match open()?.get(name)? {
        Some(value) => text(StatusCode::OK, &line(&value)),
        None => text(StatusCode::NOT_FOUND, "no such counter\n"),
    })
}

/// `?by=N`, or one.
fn add(name: &str, query: &str) -> Result<Response<Body>, StoreError> {
    let by = query.split('&').find_map(|pair| pair.strip_prefix("by=")).unwrap_or("1");
    let Ok(by) = by.parse() else { return Ok(text(StatusCode::BAD_REQUEST, "by is a whole number\n")) };
    let sum = atomics::increment(&open()?, name, by)?;
    Ok(text(StatusCode::OK, &format!("{sum}\n")))
}

/// With `If-Match: N` only where the counter is N.
fn put(name: &str, body: &[u8], expected: Option<&str>) -> Result<Response<Body>, StoreError> {
    let number: Option<i64> = std::str::from_utf8(body).ok().and_then(|text| text.trim().parse().ok());
    let Some(number) = number else { return Ok(text(StatusCode::BAD_REQUEST, "a counter is a whole number\n")) };
    let value = number.to_string().into_bytes();
    let bucket = open()?;
    let Some(expected) = expected else {
        bucket.set(name, &value)?;
        return Ok(text(StatusCode::OK, &line(&value)));
    };
    let cas = Cas::new(&bucket, name)?;
    let seen = cas.current()?.unwrap_or_default();
    if seen != expected.as_bytes() {
        return Ok(text(StatusCode::PRECONDITION_FAILED, &format!("the counter is {}", line(&seen))));
    }
    match atomics::swap(cas, &value) {
        Ok(()) => Ok(text(StatusCode::OK, &line(&value))),
        Err(CasError::StoreError(error)) => Err(error),
        Err(CasError::CasFailed(now)) => {
            let now = now.current()?.unwrap_or_default();
            Ok(text(StatusCode::PRECONDITION_FAILED, &format!("the counter is {}", line(&now))))
        }
    }
}

fn delete(name: &str) -> Result<Response<Body>, StoreError> {
    open()?.delete(name)?;
    Ok(text(StatusCode::OK, "gone\n"))
}

/// `name value`, one on each line.
fn list() -> Result<Response<Body>, StoreError> {
    let bucket = open()?;
    let mut lines = String::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = bucket.list_keys(cursor.as_deref())?;
        for (name, value) in batch::get_many(&bucket, &page.keys)?.into_iter().flatten() {
            lines.push_str(&format!("{name} {}", line(&value)));
        }
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(text(StatusCode::OK, &lines)),
        }
    }
}

fn clear() -> Result<Response<Body>, StoreError> {
    let bucket = open()?;
    loop {
        let page = bucket.list_keys(None)?;
        if page.keys.is_empty() {
            return Ok(text(StatusCode::OK, "gone\n"));
        }
        batch::delete_many(&bucket, &page.keys)?;
    }
}

fn line(value: &[u8]) -> String {
    format!("{}\n", String::from_utf8_lossy(value))
}

fn answered(result: Result<Response<Body>, StoreError>) -> Response<Body> {
    result.unwrap_or_else(|error| match error {
        StoreError::NoSuchStore => text(StatusCode::SERVICE_UNAVAILABLE, "there is no such bucket\n"),
        StoreError::AccessDenied => text(StatusCode::FORBIDDEN, "the pod was not granted the bucket\n"),
        StoreError::Other(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
    })
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
