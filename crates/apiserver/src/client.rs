//! The way in without a socket: a tower service that calls the router as a given user.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use tower::{Service, ServiceExt};

use crate::identity::UserInfo;

/// The manager of what node agents write, as Kubernetes names its own.
const NODE_AGENT: &str = "kubelet";

/// Marks a request of what only the leader does. No request from outside can carry it.
#[derive(Clone, Copy)]
pub struct AsLeader;

/// Give it to `kube::Client::new`. Requests pass authorization and admission like any other.
#[derive(Clone)]
pub struct InProcessClient {
    router: Router,
    user: UserInfo,
    as_leader: bool,
}

impl InProcessClient {
    pub(crate) fn new(router: Router, user: UserInfo) -> Self {
        Self { router, user, as_leader: false }
    }

    /// For schedulers and controllers: its writes are done by this member while it leads and are never sent on. What
    /// a leader that was followed by another still had in mind therefore comes to nothing.
    #[must_use]
    pub fn as_leader(self) -> Self {
        Self { as_leader: true, ..self }
    }

    /// Parts of the server itself are known by their user's name: `system:kube-scheduler` is `kube-scheduler`.
    fn program(&self) -> Option<HeaderValue> {
        let name = match self.user.node_name() {
            Some(_) => NODE_AGENT,
            None => self.user.name.strip_prefix("system:").filter(|name| !name.contains(':'))?,
        };
        HeaderValue::from_str(name).ok()
    }
}

impl<B> Service<Request<B>> for InProcessClient
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.user.clone());
        if !request.headers().contains_key(USER_AGENT)
            && let Some(name) = self.program()
        {
            request.headers_mut().insert(USER_AGENT, name);
        }
        if self.as_leader {
            request.extensions_mut().insert(AsLeader);
        }
        Box::pin(self.router.clone().oneshot(request))
    }
}
