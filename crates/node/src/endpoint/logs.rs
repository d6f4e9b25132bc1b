//! `GET /containerLogs/{namespace}/{pod}/{container}`.

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cri::ContainerState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio_stream::wrappers::ReceiverStream;

use super::EndpointState;
use crate::logs::{LogOptions, LogSource, stream};
use crate::pod::execute::NodeContext;
use crate::pod::spec::PodView;

type Refusal = (StatusCode, String);

pub async fn container_logs(
    State(state): State<EndpointState>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    match open(&state, (&namespace, &name, &container), &query).await {
        Ok((source, options)) => {
            let body = Body::from_stream(ReceiverStream::new(stream(source, options)));
            ([(header::CONTENT_TYPE, "text/plain")], body).into_response()
        }
        Err((code, text)) => (code, text).into_response(),
    }
}

async fn open(
    state: &EndpointState,
    (namespace, name, container): (&str, &str, &str),
    query: &HashMap<String, String>,
) -> Result<(LogSource, LogOptions), Refusal> {
    let options = options(query, Timestamp::now()).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
    let pod = super::target::pod(state, namespace, name).await?;
    let view = PodView::new(&pod);
    if view.any_container(container).is_none() {
        let text = format!("container {container:?} not found in pod {name:?}\n");
        return Err((StatusCode::NOT_FOUND, text));
    }
    let dir = state.context.paths.pod_logs(namespace, name, view.uid()).join(container);
    let attempts = attempts(&dir);
    let previous = query.get("previous").is_some_and(|value| value == "true");
    let newest = attempts.last().copied();
    let attempt = if previous { newest.and_then(|newest| newest.checked_sub(1)) } else { newest };
    let Some(attempt) = attempt.filter(|attempt| attempts.contains(attempt)) else {
        let text = if previous {
            format!("previous terminated container {container:?} in pod {name:?} not found\n")
        } else {
            let reason = waiting_reason(&pod, container).unwrap_or_else(|| "ContainerCreating".into());
            format!("container {container:?} in pod {name:?} is waiting to start: {reason}\n")
        };
        return Err((StatusCode::BAD_REQUEST, text));
    };
    let path = state.context.log_path(view, container, attempt);
    let alive = alive(&state.context, view.uid(), container, attempt);
    Ok((LogSource { path, alive }, options))
}

fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|status| status.name == container)?;
    found.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

/// The attempts that have a log, oldest first.
fn attempts(dir: &FilePath) -> Vec<u32> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| PathBuf::from(entry.file_name()));
    let logs = files.filter(|file| file.extension().is_some_and(|ext| ext == "log"));
    let mut all: Vec<u32> = logs.filter_map(|file| file.file_stem()?.to_str()?.parse().ok()).collect();
    all.sort_unstable();
    all
}

type Alive = Box<dyn Fn() -> futures::future::BoxFuture<'static, bool> + Send + Sync>;

/// Asks the runtimes whether this attempt has not ended.
fn alive(context: &Arc<NodeContext>, uid: &str, container: &str, attempt: u32) -> Alive {
    let (context, uid, container) = (Arc::clone(context), uid.to_owned(), container.to_owned());
    Box::new(move || {
        let (context, uid, container) = (Arc::clone(&context), uid.clone(), container.clone());
        Box::pin(async move {
            for (_, runtime) in context.runtimes.iter() {
                let listed = runtime.list_containers().await.unwrap_or_default();
                let this = |status: &&cri::ContainerStatus| {
                    status.pod_uid == uid && status.name == container && status.attempt == attempt
                };
                if let Some(status) = listed.iter().find(this) {
                    return !matches!(status.state, ContainerState::Exited { .. });
                }
            }
            false
        })
    })
}

/// Reads the query of a log request.
fn options(query: &HashMap<String, String>, now: Timestamp) -> Result<LogOptions, String> {
    let number = |key: &str| -> Result<Option<u64>, String> {
        let bad = |value: &String| format!("{key}={value}: a number that is not negative is needed\n");
        query.get(key).map(|value| value.parse().map_err(|_| bad(value))).transpose()
    };
    let flag = |key: &str| query.get(key).is_some_and(|value| value == "true" || value == "1");
    let since_time = match query.get("sinceTime") {
        Some(text) => Some(text.parse().map_err(|_| format!("sinceTime={text}: an RFC 3339 time is needed\n"))?),
        None => None,
    };
    let ago = |seconds| now.checked_sub(std::time::Duration::from_secs(seconds)).ok();
    Ok(LogOptions {
        follow: flag("follow"),
        timestamps: flag("timestamps"),
        tail_lines: number("tailLines")?,
        since: number("sinceSeconds")?.and_then(ago).or(since_time),
        limit_bytes: number("limitBytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_become_options() {
        let now = Timestamp::from_second(1000).unwrap();
        let read = |pairs: &[(&str, &str)]| {
            let query = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            options(&query, now)
        };
        let all = read(&[("follow", "true"), ("tailLines", "5"), ("sinceSeconds", "60"), ("limitBytes", "10")]);
        let expect = LogOptions {
            follow: true,
            timestamps: false,
            tail_lines: Some(5),
            since: Timestamp::from_second(940).ok(),
            limit_bytes: Some(10),
        };
        assert_eq!(all, Ok(expect));
        assert_eq!(
            read(&[("tailLines", "-1")]).unwrap_err(),
            "tailLines=-1: a number that is not negative is needed\n"
        );
        assert!(read(&[("sinceTime", "yesterday")]).is_err());
    }
}
