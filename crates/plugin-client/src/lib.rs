//! Calls plugins that a Knarr cluster runs, from a host application in Rust.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let plugins = plugin_client::Plugins::connect().await?;
//! let shop = plugins.function("default", "shop");
//! let sum: u32 = shop.call("add", (1, 2)).await?;
//! # Ok(()) }
//! ```
//!
//! Owns: the wire form of calls and answers (`docs/functions.md`), and telling apart the ways in which a call can end.
//! May not know: how functions are run. It talks to the API of any cluster, like every other client.

mod answer;
mod stream;

use std::path::Path;

use http::{Request, header};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use answer::CallError;
pub use stream::CallStream;

/// A cluster and who asks it.
#[derive(Clone)]
pub struct Plugins {
    client: kube::Client,
}

impl Plugins {
    /// As kubectl finds its cluster: `$KUBECONFIG`, `~/.kube/config`, or the service account of the pod.
    pub async fn connect() -> Result<Self, CallError> {
        let config = kube::Config::infer().await.map_err(|error| CallError::Access(error.to_string()))?;
        Self::with(config)
    }

    /// With a kubeconfig of one's own.
    pub async fn from_kubeconfig(path: &Path) -> Result<Self, CallError> {
        let access = |error: kube::config::KubeconfigError| CallError::Access(error.to_string());
        let kubeconfig = Kubeconfig::read_from(path).map_err(access)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Self::with(config.map_err(access)?)
    }

    /// Nothing is sent twice by itself: a call that ran out of time has run, and only the caller knows whether it may
    /// run again.
    pub fn with(mut config: kube::Config) -> Result<Self, CallError> {
        config.default_retry = false;
        // A stream of calls stays open as long as the host application wants.
        config.read_timeout = None;
        config.write_timeout = None;
        let client = kube::Client::try_from(config).map_err(|error| CallError::Access(error.to_string()))?;
        Ok(Self { client })
    }

    pub fn function(&self, namespace: &str, name: &str) -> Function {
        let path = format!("/apis/knarr.dev/v1alpha1/namespaces/{namespace}/functions/{name}/invoke");
        Function { client: self.client.clone(), path }
    }
}

/// A function of the cluster; cheap to clone.
#[derive(Clone)]
pub struct Function {
    client: kube::Client,
    path: String,
}

impl Function {
    /// One call. `arguments` are a tuple (one element: `(1,)`), or a struct or map with the names of the parameters.
    ///
    /// An export is named in full (`examples:shop/orders@1.0.0#price`), by interface (`orders#price`), or alone where
    /// only one has the name. What the function gives as `ok` of a `result` is the value; its `err` is
    /// [`CallError::Function`].
    pub async fn call<T: DeserializeOwned>(&self, export: &str, arguments: impl Serialize) -> Result<T, CallError> {
        let request = self.request("application/json", line(export, arguments)?.into())?;
        let text = self.client.request_text(request).await.map_err(answer::of_client)?;
        answer::value(text.as_bytes())
    }

    /// Many calls over one request that stays open: each costs a small part of what a single call does. Calls of
    /// several tasks run at the same time.
    pub async fn stream(&self) -> Result<CallStream, CallError> {
        stream::open(self).await
    }

    fn request<B>(&self, media_type: &str, body: B) -> Result<Request<B>, CallError> {
        Request::post(&self.path)
            .header(header::CONTENT_TYPE, media_type)
            .header(header::ACCEPT, media_type)
            .body(body)
            .map_err(|_| CallError::Access(format!("{} is no path: look at the names in it", self.path)))
    }

    async fn send(&self, request: Request<Body>) -> Result<http::Response<Body>, CallError> {
        self.client.send(request).await.map_err(answer::of_client)
    }
}

/// `{"export": …, "args": …}`
fn line(export: &str, arguments: impl Serialize) -> Result<Vec<u8>, CallError> {
    let arguments = serde_json::to_value(arguments).map_err(CallError::Arguments)?;
    let arguments = match arguments {
        Value::Array(_) | Value::Object(_) => arguments,
        // `()`: an export without parameters.
        Value::Null => json!([]),
        one => json!([one]),
    };
    serde_json::to_vec(&json!({ "export": export, "args": arguments })).map_err(CallError::Arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_list_or_named() {
        #[derive(Serialize)]
        struct Named {
            a: u32,
        }
        let check = |line: Result<Vec<u8>, CallError>, expect: Value| {
            assert_eq!(serde_json::from_slice::<Value>(&line.unwrap()).unwrap(), expect);
        };
        check(line("add", (1, 2)), json!({ "export": "add", "args": [1, 2] }));
        check(line("add", Named { a: 1 }), json!({ "export": "add", "args": { "a": 1 } }));
        check(line("now", ()), json!({ "export": "now", "args": [] }));
        check(line("one", "text"), json!({ "export": "one", "args": ["text"] }));
    }
}
