//! What a middleware imports as `wasi:http/handler`: the next container of its pod.
//!
//! Owns: finding it and passing a request on. May not know: who else is in the pod, and in which order.

use std::pin::Pin;
use std::sync::Arc;

use http::Request;
use http::uri::Scheme;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi_http::p3::bindings::http::client::HostWithStore;
use wasmtime_wasi_http::p3::bindings::http::types::{ErrorCode, Request as GuestRequest, Response as GuestResponse};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttp, WasiHttpHooks};

use super::{Driver, Neighbours, Sent};
use crate::host::body;
use crate::host::guest::ComponentState;

const INTERFACE: &str = "wasi:http/handler@0.3.0";

/// The next handler of one instance.
#[derive(Clone)]
pub struct NextHandler {
    neighbours: Neighbours,
    /// Its name among the containers of the pod; `None` for what is no middleware.
    name: Option<Arc<str>>,
}

impl NextHandler {
    pub fn new(neighbours: Neighbours, name: Option<&str>) -> Self {
        Self { neighbours, name: name.map(Into::into) }
    }
}

impl WasiHttpHooks for NextHandler {
    fn default_scheme(&mut self) -> Option<Scheme> {
        Some(Scheme::HTTP)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _body_read: Driver,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let next = self.name.as_deref().map(|name| self.neighbours.member(name));
        let request = request.map(|body| body::read_to_the_end(body, body::FROM_GUEST));
        Box::new(async move {
            let Some(next) = next else { return Err(Error::ConfigurationError) };
            let next = next.ok_or_else(|| Error::InternalError(Some("the next container does not run".to_owned())))?;
            let none: Driver = Box::new(async { Ok(()) });
            Ok((next.answer(request).await?, none))
        })
    }
}

type Handled = (Result<Resource<GuestResponse>, ErrorCode>,);
type Handling<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<Handled>> + Send + 'a>>;

/// The interface is that of a client, except for who answers.
fn handle(store: &Accessor<ComponentState>, (request,): (Resource<GuestRequest>,)) -> Handling<'_> {
    Box::pin(async move {
        let next = store.with_getter::<WasiHttp>(ComponentState::next_handler);
        match <WasiHttp as HostWithStore<ComponentState>>::send(&next, request).await {
            Ok(response) => Ok((Ok(response),)),
            Err(error) => Ok((Err(error.downcast()?),)),
        }
    })
}

pub fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    linker.instance(INTERFACE)?.func_wrap_concurrent("handle", handle)
}
