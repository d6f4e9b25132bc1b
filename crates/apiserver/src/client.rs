//! The way in without a socket: a tower service that calls the router as a given user.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tower::{Service, ServiceExt};

use crate::identity::UserInfo;

/// Give it to `kube::Client::new`. Requests pass authorization and admission like any other.
#[derive(Clone)]
pub struct InProcessClient {
    router: Router,
    user: UserInfo,
}

impl InProcessClient {
    pub(crate) fn new(router: Router, user: UserInfo) -> Self {
        Self { router, user }
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
        Box::pin(self.router.clone().oneshot(request))
    }
}
