//! Native clients of one server, and what their errors mean.
//!
//! Owns: which answers say for certain that nothing was written. May not know: what is written.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::Error as LegacyError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use serde_json::Value;

/// A request that has no answer by then has an unknown end.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// What the server says when the store wrote nothing, for certain.
const NOTHING_WRITTEN: [&str; 2] = ["this member does not lead", "the leader cannot be asked"];

/// What became of a write that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was written, and nothing will be.
    Refused,
    /// The object changed since it was read.
    Conflict,
    /// Another object has the name.
    Exists,
    /// It was written, or not, or will be.
    Unknown,
}

/// A client with the administrator's rights, of the server that wrote the kubeconfig.
pub async fn connect(kubeconfig: &Path) -> Client {
    // Fails when a client was made before; then it is installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a server that is up wrote a kubeconfig");
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("the kubeconfig is whole");
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A write whose end is not known would be tried again, and then be told that it exists.
    config.default_retry = false;
    Client::try_from(config).expect("the kubeconfig makes a client")
}

/// A request with a time limit.
pub async fn timely<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Option<Error>> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

/// What an error says about the write. None: there was no answer in time.
pub fn failure(error: Option<&Error>) -> Failure {
    match error {
        Some(Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => Failure::Exists,
        Some(Error::Api(status)) if status.code == 409 => Failure::Conflict,
        Some(Error::Api(status)) if status.code < 500 => Failure::Refused,
        Some(Error::Api(status)) if NOTHING_WRITTEN.iter().any(|text| status.message.contains(text)) => {
            Failure::Refused
        }
        Some(error) if never_connected(error) => Failure::Refused,
        _ => Failure::Unknown,
    }
}

fn never_connected(error: &Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<LegacyError>().is_some_and(LegacyError::is_connect) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What one server believes about the members.
#[derive(Debug, Clone)]
pub struct Membership {
    pub me: u64,
    pub leader: Option<u64>,
    pub term: u64,
    pub alarm: String,
    /// Id and role.
    pub members: Vec<(u64, String)>,
}

/// Asks one server who the members are; None when it does not answer.
pub async fn membership(client: &Client) -> Option<Membership> {
    let request = http::Request::get("/knarr/v1/members").body(Vec::new()).expect("the path is a URI");
    let list: Value = timely(client.request(request)).await.ok()?;
    let member = |entry: &Value| Some((entry["id"].as_u64()?, entry["role"].as_str()?.to_owned()));
    Some(Membership {
        me: list["me"].as_u64()?,
        leader: list["leader"].as_u64(),
        term: list["term"].as_u64()?,
        alarm: list["alarm"].as_str()?.to_owned(),
        members: list["members"].as_array()?.iter().filter_map(member).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn what_errors_mean() {
        let check = |code, reason: &str, message: &str, expect| {
            let status = Status { code, reason: reason.into(), message: message.into(), ..Status::default() };
            assert_eq!(failure(Some(&Error::Api(Box::new(status)))), expect, "{code} {message}");
        };
        check(409, "AlreadyExists", "", Failure::Exists);
        check(409, "Conflict", "", Failure::Conflict);
        check(403, "Forbidden", "", Failure::Refused);
        check(503, "ServiceUnavailable", "the store did not answer: the leader cannot be asked", Failure::Refused);
        check(503, "ServiceUnavailable", "the store did not answer: what became of it", Failure::Unknown);
        assert_eq!(failure(None), Failure::Unknown);
    }
}
