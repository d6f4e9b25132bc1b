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

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

pub use answer::CallError;
pub use stream::CallStream;

/// Longest answer, as the server has it.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;
type ResponseBody = UnsyncBoxBody<Bytes, std::io::Error>;
type Exchange = BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, BoxError>;

/// A cluster and who asks it; cheap to clone.
#[derive(Clone)]
pub struct Plugins {
    exchange: Exchange,
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
    pub fn with(config: kube::Config) -> Result<Self, CallError> {
        let access = |error: kube::Error| CallError::Access(error.to_string());
        let connector = config.rustls_https_connector().map_err(access)?;
        let client = Client::builder(TokioExecutor::new()).build::<_, RequestBody>(connector);
        let exchange = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(access)?)
            .map_err(|error: hyper_util::client::legacy::Error| -> BoxError { error.into() })
            .map_response(|response: Response<_>| response.map(boxed))
            .service(client);
        Ok(Self { exchange: BoxCloneSyncService::new(exchange) })
    }

    pub fn function(&self, namespace: &str, name: &str) -> Function {
        let path = format!("/apis/knarr.dev/v1alpha1/namespaces/{namespace}/functions/{name}/invoke");
        Function { exchange: self.exchange.clone(), path }
    }
}

/// A function of the cluster; cheap to clone.
#[derive(Clone)]
pub struct Function {
    exchange: Exchange,
    path: String,
}

impl Function {
    /// One call. `arguments` are a tuple (one element: `(1,)`), or a struct or map with the names of the parameters.
    ///
    /// An export is named in full (`examples:shop/orders@1.0.0#price`), by interface (`orders#price`), or alone where
    /// only one has the name. What the function gives as `ok` of a `result` is the value; its `err` is
    /// [`CallError::Function`].
    pub async fn call<T: DeserializeOwned>(&self, export: &str, arguments: impl Serialize) -> Result<T, CallError> {
        let body = Full::new(Bytes::from(line(export, arguments)?)).map_err(|never| match never {});
        let response = self.send("application/json", body.boxed_unsync()).await?;
        let lost = |error: BoxError| CallError::Lost(error.to_string());
        let text = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(lost)?;
        answer::value(&text.to_bytes())
    }

    /// Many calls over one request that stays open: each costs a small part of what a single call does. Calls of
    /// several tasks run at the same time.
    ///
    /// It begins with the first call, which is told of a refusal. Must be called inside a tokio runtime.
    pub fn stream(&self) -> CallStream {
        stream::open(self)
    }

    /// A request whose answer is one of a function; anything else is an error.
    async fn send(&self, media_type: &str, body: RequestBody) -> Result<Response<ResponseBody>, CallError> {
        let request = Request::post(&self.path)
            .header(header::CONTENT_TYPE, media_type)
            .header(header::ACCEPT, media_type)
            .body(body)
            .map_err(|_| CallError::Access(format!("{} is no path: look at the names in it", self.path)))?;
        let lost = |error: BoxError| CallError::Lost(error.to_string());
        let response = self.exchange.clone().oneshot(request).await.map_err(lost)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let text = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(lost)?;
        Err(answer::refusal(code, &text.to_bytes()))
    }
}

fn boxed<B>(body: B) -> ResponseBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(std::io::Error::other).boxed_unsync()
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
