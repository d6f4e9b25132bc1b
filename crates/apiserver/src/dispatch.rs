//! From an HTTP request to its handler: who asks, what for, is he allowed, who answers.
//!
//! Owns: the order authentication → seat → authorization → handler, and the table of verbs.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use api::apply::manager_of_user_agent;
use api::custom::Custom;
use api::kinds::{self, Kind};
use api::status::Status;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, Method, Request as HttpRequest, StatusCode, Uri, header};
use hyper::upgrade::OnUpgrade;

use crate::aggregation::Remote;
use crate::aggregation::forward::{self, Forward};
use crate::authz::{Attributes, authorize, node_reach, reviews};
use crate::client::AsLeader;
use crate::core::{Core, Request};
use crate::identity::UserInfo;
use crate::registry::ownership::Ownership;
use crate::registry::write::Part;
use crate::rest::write::Input;
use crate::rest::{components, list, usage, watch, write};
use crate::serve::PeerAddress;
use crate::subresource::connect::{self, Connect, relay};
use crate::traffic::audit::Arrived;
use crate::traffic::schema::Asked;
use crate::traffic::{Admitted, Outcome, Record, known_subresource, metrics};
use crate::wire::accept::{Accepted, negotiate, of_failures};
use crate::wire::body::{APPLY_MEDIA_TYPE, media_type};
use crate::wire::path::{ResourcePath, Target, parse};
use crate::wire::query::{Parameters, WriteOptions};
use crate::wire::respond;
use crate::{authn, discovery, health, subresource};

/// The verbs of authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// From the method; `None` for methods that the API does not have.
    fn of(method: &Method, named: bool, watch: bool) -> Option<Self> {
        Some(match (method.as_str(), named) {
            ("GET" | "HEAD", true) if !watch => Self::Get,
            ("GET" | "HEAD", _) if watch => Self::Watch,
            ("GET" | "HEAD", _) => Self::List,
            ("POST", _) => Self::Create,
            ("PUT", true) => Self::Update,
            ("PATCH", true) => Self::Patch,
            ("DELETE", true) => Self::Delete,
            ("DELETE", false) => Self::DeleteCollection,
            _ => return None,
        })
    }
}

/// The one entry: every request comes through here, whatever carried it.
pub async fn dispatch(State(core): State<Arc<Core>>, request: HttpRequest<Body>) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0.ip());
    let arrived = core.traffic.is_audited().then(|| Arrived::new(request.uri(), request.headers(), peer));
    let accept = request.headers().get(header::ACCEPT).cloned();
    let mut record = Record::default();
    let answered = AssertUnwindSafe(answer(Arc::clone(&core), request, &mut record)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        tracing::error!(%method, path, "a request handler panicked");
        Err(Status::internal("this request made the server fail; the failure is logged"))
    });
    let response = response.unwrap_or_else(|status| respond::failure(of_failures(accept.as_ref()), &status));
    let outcome = Outcome { code: response.status().as_u16(), took: began.elapsed() };
    core.traffic.answered(arrived, &record, outcome).await;
    tracing::debug!(%method, path, code = outcome.code, elapsed = ?outcome.took, "request");
    response
}

async fn answer(core: Arc<Core>, request: HttpRequest<Body>, record: &mut Record) -> Result<Response, Status> {
    let (mut parts, body) = request.into_parts();
    record.verb = method_name(&parts.method);
    let user = authn::user_of(&core, parts.extensions.get::<UserInfo>().cloned(), &parts.headers).await?;
    record.user = Some(user.clone());
    let path = parts.uri.path();
    if user.is_anonymous() && !core.authn.may_be_anonymous(path) {
        return Err(Status::unauthorized());
    }
    let target = parse(path).ok_or_else(|| Status::bad_request("the path does not decode as UTF-8"))?;
    let user = impersonated(&core, user, &parts.headers)?;
    record.impersonated = Some(user.clone()).filter(|acting| Some(acting) != record.user.as_ref());
    match target {
        Target::NonResource => non_resource(&core, &user, parts, record).await,
        Target::Resource(path) => {
            let parameters = Parameters::parse(&parts.uri)?;
            let as_leader = parts.extensions.get::<AsLeader>().is_some();
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            let Parts { method, uri, headers, .. } = parts;
            let exchange = Exchange { core, user, as_leader, path, parameters, headers, uri, upgrade };
            exchange.answer(&method, body, record).await
        }
    }
}

/// The verb of a request for a path that is no resource.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

/// `Impersonate-User` and `Impersonate-Group`, when the user may (verb `impersonate`).
fn impersonated(core: &Core, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo, Status> {
    let Some(name) = headers.get("impersonate-user").and_then(|v| v.to_str().ok()) else { return Ok(user) };
    let groups: Vec<&str> = headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok()).collect();
    let index = core.rbac.current();
    let mut asked = vec![("users", name)];
    asked.extend(groups.iter().map(|group| ("groups", *group)));
    for (resource, name) in asked {
        authorize(&index, &user, &Attributes { verb: "impersonate", resource, name, ..Attributes::default() })?;
    }
    Ok(UserInfo::authenticated(name, groups))
}

async fn non_resource(core: &Core, user: &UserInfo, parts: Parts, record: &mut Record) -> Result<Response, Status> {
    let path = parts.uri.path();
    let verb = method_name(&parts.method);
    let asked = Asked { user: &user.name, groups: &user.groups, verb, path, ..Asked::default() };
    let _admitted = core.traffic.admit(&asked).await?;
    if !health::is_public(path) {
        authorize(&core.rbac.current(), user, &Attributes { verb, path, ..Attributes::default() })?;
    }
    record.is_allowed = true;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    if let Some(response) = health::answer(core, path, parts.uri.query().unwrap_or("")) {
        return Ok(response);
    }
    if path == "/metrics" {
        return Ok(respond::typed(StatusCode::OK, metrics::MEDIA_TYPE, metrics::text(core)));
    }
    if let Some(remote) = of_another(core, path) {
        let Parts { method, uri, headers, .. } = parts;
        let (body, user) = (Body::empty(), user.clone());
        let forward = Forward { method, uri, headers, body, upgrade: None, user, is_long_running: false };
        return forward::forward(core, &remote, forward).await;
    }
    // Whoever was told that a kind is established finds it.
    core.catalog.caught_up(&core.store.view()).await;
    if path == "/openapi/v2" {
        return Ok(discovery::openapi_v2(&parts.headers, core));
    }
    if let Some(response) = authn::discovery::answer(core, path).await {
        return response;
    }
    // What is no object of a kind is JSON, whatever else is accepted.
    let accepted = negotiate(&parts.headers, true, || false).unwrap_or(Accepted::PLAIN);
    discovery::answer(path, accepted.form, core)
}

/// Who answers for `/apis/<group>/<version>`, if it is not this server.
fn of_another(core: &Core, path: &str) -> Option<Arc<Remote>> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some("apis"), Some(group), Some(version), None) => core.aggregation.find(group, version),
        _ => None,
    }
}

/// One resource request on its way.
struct Exchange {
    core: Arc<Core>,
    user: UserInfo,
    as_leader: bool,
    path: ResourcePath,
    parameters: Parameters,
    headers: HeaderMap,
    uri: Uri,
    /// The connection, for whoever may take it over.
    upgrade: Option<OnUpgrade>,
}

impl Exchange {
    async fn answer(self, method: &Method, body: Body, record: &mut Record) -> Result<Response, Status> {
        let named = !self.path.name.is_empty();
        self.record(record);
        let verb = Verb::of(method, named, self.parameters.watch && self.path.subresource.is_empty())
            .ok_or_else(Status::method_not_allowed)?;
        let verb = subresource::verb(&self.path, verb);
        record.verb = verb.name();
        let remote = self.core.aggregation.find(&self.path.group, &self.path.version);
        record.is_long_running = verb == Verb::Watch
            || subresource::is_long_running(&self.path.subresource)
            || (remote.is_some() && relay::wants_upgrade(&self.headers));
        let _admitted = if record.is_long_running { None } else { Some(self.admit(verb).await?) };
        self.authorize(verb)?;
        self.authorize_node(verb).await?;
        record.is_allowed = true;
        if let Some(remote) = remote {
            return self.forward(&remote, method, body, record.is_long_running).await;
        }
        let (kind, custom) = kind_of(&self.core, &self.path).await?;
        record.kind = Some(kind);
        if connect::is_connection(&self.path.subresource) {
            return self.connect(kind, method, verb, body).await;
        }
        let accepted = match negotiate(&self.headers, !kind.list_kind.is_empty(), || kind.has_message()) {
            Some(accepted) => accepted,
            None if subresource::negotiates(&self.path) => Accepted::PLAIN,
            None => return Err(not_acceptable(kind)),
        };
        self.check_options(verb)?;
        let manager = self.manager();
        let request = Request {
            core: self.core,
            user: self.user,
            as_leader: self.as_leader,
            kind,
            custom,
            namespace: if kind.namespaced { self.path.namespace } else { String::new() },
            name: self.path.name,
            subresource: self.path.subresource,
            rest: self.path.rest,
            parameters: self.parameters,
            accepted,
            manager,
            ownership: Ownership::Tracked,
            conversions: Arc::default(),
            annotations: record.annotations.clone(),
        };
        let input = Input { headers: self.headers, body };
        if !request.subresource.is_empty() {
            return subresource::answer(&request, verb, input).await;
        }
        verbs(&request, verb, input).await
    }

    /// To the extension server that serves the group version.
    async fn forward(
        self,
        remote: &Remote,
        method: &Method,
        body: Body,
        is_long_running: bool,
    ) -> Result<Response, Status> {
        let Self { core, user, headers, uri, upgrade, .. } = self;
        let forward = Forward { method: method.clone(), uri, headers, body, upgrade, user, is_long_running };
        forward::forward(&core, remote, forward).await
    }

    /// What the path says, for who counts and logs.
    fn record(&self, record: &mut Record) {
        let ResourcePath { group, version, namespace, resource, name, subresource, .. } = &self.path;
        record.subresource = known_subresource(subresource);
        let fields = [
            (&mut record.group, group),
            (&mut record.version, version),
            (&mut record.resource, resource),
            (&mut record.namespace, namespace),
            (&mut record.name, name),
        ];
        for (field, value) in fields {
            value.clone_into(field);
        }
    }

    async fn admit(&self, verb: Verb) -> Result<Admitted, Status> {
        let ResourcePath { group, resource, subresource, namespace, .. } = &self.path;
        let joined;
        let resource = if subresource.is_empty() {
            resource
        } else {
            joined = format!("{resource}/{subresource}");
            &joined
        };
        let (user, groups) = (&self.user.name, &self.user.groups);
        let asked = Asked { user, groups, verb: verb.name(), group, resource, namespace, path: "" };
        self.core.traffic.admit(&asked).await
    }

    /// Neither media types nor options mean anything for what is not ours to answer.
    async fn connect(self, kind: &'static Kind, method: &Method, verb: Verb, body: Body) -> Result<Response, Status> {
        if let Some(further) = connect::further_verb(&self.path.subresource, verb) {
            self.authorize(further)?;
        }
        let namespace = if kind.namespaced { self.path.namespace } else { String::new() };
        let request = Request {
            user: self.user,
            subresource: self.path.subresource,
            parameters: self.parameters,
            ..Request::by_server(&self.core, kind, &namespace, &self.path.name)
        };
        let method = method.clone();
        let connect = Connect { request, method, uri: self.uri, headers: self.headers, body, upgrade: self.upgrade };
        connect::answer(connect, verb).await
    }

    /// The options of a write, as far as all kinds have the same.
    fn check_options(&self, verb: Verb) -> Result<(), Status> {
        let options = match verb {
            Verb::Create => WriteOptions::Create,
            Verb::Update => WriteOptions::Update,
            Verb::Patch if media_type(&self.headers) == APPLY_MEDIA_TYPE => WriteOptions::Apply,
            Verb::Patch => WriteOptions::Patch,
            Verb::Get | Verb::List | Verb::Watch | Verb::Delete | Verb::DeleteCollection => return Ok(()),
        };
        self.parameters.check(options)
    }

    fn manager(&self) -> String {
        if !self.parameters.field_manager.is_empty() {
            return self.parameters.field_manager.clone();
        }
        let user_agent = self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
        manager_of_user_agent(user_agent)
    }

    /// A list of one name is a request about that name.
    fn name(&self) -> &str {
        let pinned = self.parameters.field_selector.strip_prefix("metadata.name=").filter(|n| !n.contains(','));
        if self.path.name.is_empty() { pinned.unwrap_or("") } else { &self.path.name }
    }

    /// A node is told less than its role says.
    async fn authorize_node(&self, verb: Verb) -> Result<(), Status> {
        let Some(node) = self.user.node_name() else { return Ok(()) };
        let ResourcePath { group, resource, namespace, subresource, .. } = &self.path;
        let asked = node_reach::Asked { node, verb: verb.name(), group, resource, namespace, name: self.name() };
        if !subresource.is_empty() || !asked.is_judged() || asked.check(&self.core.store.view()).is_ok() {
            return Ok(());
        }
        // The pod may have been bound where another server knew it first.
        asked.check(&self.core.fresh().await?)
    }

    fn authorize(&self, verb: Verb) -> Result<(), Status> {
        let name = self.name();
        let attributes = Attributes {
            verb: verb.name(),
            group: &self.path.group,
            resource: &self.path.resource,
            subresource: &self.path.subresource,
            namespace: &self.path.namespace,
            name,
            path: "",
        };
        authorize(&self.core.rbac.current(), &self.user, &attributes)
    }
}

/// A built-in kind, or one that a definition made.
async fn kind_of(core: &Core, path: &ResourcePath) -> Result<(&'static Kind, Option<Custom>), Status> {
    let ResourcePath { group, version, resource, .. } = path;
    if let Some(kind) = kinds::lookup(group, version, resource) {
        return Ok((kind, None));
    }
    // No definition has a group without a dot.
    if !group.contains('.') {
        return Err(Status::unknown_resource());
    }
    let find = || core.catalog.current().lookup(group, version, resource).cloned();
    let found = match find() {
        Some(found) => Some(found),
        None => {
            // Another server may have told somebody already that there is such a kind.
            let view = core.fresh().await?;
            core.catalog.caught_up(&view).await;
            find()
        }
    };
    let custom = found.ok_or_else(Status::unknown_resource)?;
    Ok((custom.kind(), Some(custom)))
}

fn not_acceptable(kind: &Kind) -> Status {
    let also = if kind.has_message() { ", application/vnd.kubernetes.protobuf" } else { "" };
    Status::not_acceptable(format!("only the following media types are accepted: application/json{also}"))
}

async fn verbs(request: &Request, verb: Verb, input: Input) -> Result<Response, Status> {
    check_scope(request.kind, request, verb)?;
    if verb == Verb::Create && !request.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    if !request.kind.allows(verb.name()) {
        return Err(Status::method_not_allowed());
    }
    if !request.kind.is_stored() {
        return match verb {
            Verb::Create => review(request, input).await,
            _ if request.kind.group == api::usage::GROUP => usage::answer(request, verb).await,
            _ => components::answer(request, verb).await,
        };
    }
    match verb {
        Verb::Get => list::get(request).await,
        Verb::List => list::list(request).await,
        Verb::Watch => watch::watch(request).await,
        Verb::Create => write::create(request, input).await,
        Verb::Update => write::replace(request, input, Part::Main).await,
        Verb::Patch => write::patch(request, input, Part::Main).await,
        Verb::Delete => write::delete(request, input).await,
        Verb::DeleteCollection => write::delete_collection(request, input).await,
    }
}

/// Only lists and watches may leave out the namespace of a namespaced kind.
fn check_scope(kind: &Kind, request: &Request, verb: Verb) -> Result<(), Status> {
    if kind.namespaced && request.namespace.is_empty() && !matches!(verb, Verb::List | Verb::Watch) {
        if verb == Verb::Create && !kind.is_stored() {
            return Ok(());
        }
        return Err(Status::method_not_allowed());
    }
    Ok(())
}

async fn review(request: &Request, input: Input) -> Result<Response, Status> {
    let (object, _) = input.object().await?;
    if request.kind.kind == "Binding" {
        return subresource::binding::bind(request, object).await;
    }
    let answer = match request.kind.kind {
        "TokenReview" => reviews::answer_token(request, object).await?,
        _ => reviews::answer(request, object)?,
    };
    respond::object(request.accepted.media, StatusCode::CREATED, &answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_become_verbs() {
        let check = |method: &str, named: bool, watch: bool, expect: Option<Verb>| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(Verb::of(&method, named, watch), expect, "{method} {named} {watch}");
        };
        check("GET", true, false, Some(Verb::Get));
        check("GET", false, false, Some(Verb::List));
        check("GET", false, true, Some(Verb::Watch));
        check("GET", true, true, Some(Verb::Watch));
        check("POST", false, false, Some(Verb::Create));
        check("PUT", false, false, None);
        check("DELETE", false, false, Some(Verb::DeleteCollection));
        check("OPTIONS", true, false, None);
    }
}
