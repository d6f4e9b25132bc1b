//! `invoke`: calls of a function's export per second through the API, as single requests and as streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use api::function::Function;
use api::own::VERSION;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::Api;
use kube::api::DeleteParams;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::api::Endpoint;
use super::processes;
use super::report::Section;
use super::session::{Session, TIMEOUT, Workload, create};

const NAME: &str = "invoke";
const CALL: &str = "{\"export\":\"add\",\"args\":[1,2]}";
const ANSWER: &str = "{\"result\":3}";
const CLIENTS: [usize; 2] = [1, 16];
const STREAMS: [usize; 2] = [1, 4];
/// Calls of one stream that wait for their answers, and how many are written together.
const WINDOW: usize = 2048;
const CALLS_PER_WRITE: usize = 128;

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    let seconds = session.settings.load.as_secs();
    let title = format!("an export that adds two numbers, a fresh instance for each call, {seconds} s each");
    let mut section = Section::new("invoke", title, &["calls_per_s", "cpu_us_per_call"]);
    let functions: Api<Function> = Api::namespaced(session.client.clone(), &session.namespace);
    create(&functions, function(&session.push(Workload::Plugin).await?)).await.context("cannot create a Function")?;
    let ready = await_condition(functions.clone(), NAME, serves);
    match tokio::time::timeout(TIMEOUT, ready).await {
        Ok(seen) => drop(seen.context("cannot watch the Function")?),
        Err(_) => bail!("the Function did not serve after {TIMEOUT:?}"),
    }
    let endpoint = Arc::new(Endpoint::new(&session.access)?);
    let load = Load {
        client: session.client.clone(),
        endpoint,
        path: path(&session.namespace),
        length: session.settings.load,
    };
    for clients in CLIENTS {
        let turn = turn(clients, || single(load.clone())).await?;
        section.row(format!("requests, {clients} at a time"), figures(&turn));
    }
    for streams in STREAMS {
        let turn = turn(streams, || stream(load.clone())).await?;
        section.row(format!("{streams} streams of lines"), figures(&turn));
    }
    section.note("CPU: of all of Knarr's processes; the client is this process");
    functions.delete(NAME, &DeleteParams::background()).await.context("cannot delete the Function")?;
    Ok(section)
}

fn function(image: &str) -> Value {
    json!({ "apiVersion": format!("knarr.dev/{VERSION}"), "kind": "Function", "metadata": { "name": NAME },
        "spec": { "image": image, "limits": { "callsAtOnce": 256, "memory": "256Mi" } } })
}

fn serves(function: Option<&Function>) -> bool {
    let status = function.and_then(|function| function.status.as_ref());
    let conditions = status.map_or(&[][..], |status| &status.conditions);
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn path(namespace: &str) -> String {
    format!("/apis/knarr.dev/{VERSION}/namespaces/{namespace}/functions/{NAME}/invoke")
}

struct Turn {
    answered: u64,
    took: Duration,
    cpu: Duration,
}

fn figures(turn: &Turn) -> [Option<f64>; 2] {
    let answered = turn.answered as f64;
    let per_call = (turn.answered > 0).then(|| turn.cpu.as_secs_f64() * 1e6 / answered);
    [Some(answered / turn.took.as_secs_f64()), per_call]
}

/// Runs so many clients side by side.
async fn turn<F>(clients: usize, client: impl Fn() -> F) -> Result<Turn>
where
    F: Future<Output = Result<u64>> + Send + 'static,
{
    let cpu = || processes::usage_of(processes::of_knarr().into_iter().map(|process| process.pid)).cpu;
    let (began, before) = (Instant::now(), cpu());
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(client());
    }
    let mut answered = 0;
    while let Some(ended) = tasks.join_next().await {
        answered += ended.context("a client broke off")??;
    }
    Ok(Turn { answered, took: began.elapsed(), cpu: cpu().saturating_sub(before) })
}

/// What every client does.
#[derive(Clone)]
struct Load {
    client: kube::Client,
    endpoint: Arc<Endpoint>,
    path: String,
    length: Duration,
}

async fn single(load: Load) -> Result<u64> {
    let began = Instant::now();
    let mut answered = 0;
    while began.elapsed() < load.length {
        let request = Request::post(&load.path).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(CALL.as_bytes().to_vec()).context("the path is no path")?;
        let answer = load.client.request_text(request).await.context("cannot call the function")?;
        if answer != ANSWER {
            bail!("the function answered {answer:?}");
        }
        answered += 1;
    }
    Ok(answered)
}

async fn stream(load: Load) -> Result<u64> {
    let began = Instant::now();
    let room = Arc::new(Semaphore::new(WINDOW));
    let part = Bytes::from(format!("{CALL}\n").repeat(CALLS_PER_WRITE));
    let (taken, length) = (Arc::clone(&room), load.length);
    let calls = futures::stream::unfold((), move |()| {
        let (room, part) = (Arc::clone(&taken), part.clone());
        async move {
            if began.elapsed() >= length {
                return None;
            }
            let many = u32::try_from(CALLS_PER_WRITE).expect("a small number");
            room.acquire_many(many).await.ok()?.forget();
            Some((Ok::<_, std::io::Error>(Frame::data(part)), ()))
        }
    });
    let request = Request::post(&load.path)
        .header(header::HOST, &load.endpoint.host)
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .body(StreamBody::new(Box::pin(calls)))
        .context("the path is no path")?;
    let connection = load.endpoint.dial().await?;
    let opened = hyper::client::conn::http1::handshake(connection).await;
    let (mut sender, connection) = opened.context("cannot open a stream of calls")?;
    // Its end shows in the answers.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.context("cannot open a stream of calls")?;
    if !response.status().is_success() {
        bail!("the stream of calls was answered with {}", response.status());
    }
    let mut answers = response.into_body().into_data_stream();
    let mut answered = 0;
    while let Some(part) = answers.next().await {
        let part = part.context("the stream of answers broke off")?;
        if part.windows(9).any(|text| text == b"{\"status\"") {
            bail!("a call failed: {}", String::from_utf8_lossy(&part[..part.len().min(500)]));
        }
        let lines = part.iter().filter(|byte| **byte == b'\n').count();
        room.add_permits(lines);
        answered += lines as u64;
    }
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_fits_its_type_and_serves_when_it_says_so() {
        let mut function: Function = serde_json::from_value(function("registry.local/a:v1")).unwrap();
        assert_eq!(function.spec.limits.clone().unwrap().calls_at_once, Some(256));
        assert!(!serves(Some(&function)) && !serves(None));
        let condition = json!({ "type": "Ready", "status": "True", "reason": "r", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z" });
        function.status = serde_json::from_value(json!({ "conditions": [condition] })).unwrap();
        assert!(serves(Some(&function)));
    }

    #[test]
    fn figures_are_per_second_and_per_call() {
        let turn = Turn { answered: 1000, took: Duration::from_secs(2), cpu: Duration::from_millis(50) };
        assert_eq!(figures(&turn), [Some(500.0), Some(50.0)]);
    }
}
