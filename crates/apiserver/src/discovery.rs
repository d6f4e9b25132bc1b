//! What this server serves: `/api`, `/apis`, resource lists, aggregated discovery, OpenAPI.
//!
//! Everything is made from the kinds table, the catalog of custom kinds and what extension servers said of themselves.
//! Pure but for the answer's HTTP form.

use api::custom::Catalog;
use api::kinds::{KINDS, Kind};
use api::status::Status;
use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::aggregation::{Remote, Remotes};
use crate::core::Core;
use crate::wire::accept::Form;
use crate::wire::respond;

/// How `/openapi/v2` is answered. Clients ask for it with an `@`, which no media type may have.
const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const OPENAPI_V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

pub fn answer(path: &str, form: Form, core: &Core) -> Result<Response, Status> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let aggregated = form == Form::Discovery;
    let (catalog, remotes) = (core.catalog.current(), core.aggregation.current());
    let served = &Served::new(&catalog, &remotes);
    match segments.as_slice() {
        [] => Ok(respond::value(&json!({ "paths": paths(served) }))),
        ["api"] if aggregated => Ok(aggregate(served, |group| group.is_empty())),
        ["apis"] if aggregated => Ok(aggregate(served, |group| !group.is_empty())),
        ["api"] => {
            let address = format!("{}:{}", core.config.advertise_address, core.config.advertise_port);
            Ok(respond::value(&json!({ "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }] })))
        }
        ["apis"] => {
            let groups: Vec<Value> =
                served.groups().into_iter().filter(|g| !g.is_empty()).map(|group| group_value(served, group)).collect();
            Ok(respond::value(&json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })))
        }
        ["api", version] => resources(served, "", version),
        ["apis", group] if served.groups().iter().any(|g| g == group) => {
            let mut value = group_value(served, group);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            Ok(respond::value(&value))
        }
        ["apis", group, version] => resources(served, group, version),
        ["openapi", "v3"] => Ok(respond::value(&openapi_index(&catalog, &remotes))),
        ["openapi", "v3", rest @ ..] => {
            let path = rest.join("/");
            let of_others = remotes.v3_documents().into_iter().find(|(of, _)| *of == path);
            let document = of_others.map(|(_, v3)| v3.document.clone());
            let document = document.or_else(|| api::openapi::group_version(&path)).or_else(|| catalog.document(&path));
            let document = document.ok_or_else(Status::unknown_resource)?;
            Ok(respond::json(StatusCode::OK, document))
        }
        _ => Err(Status::unknown_resource()),
    }
}

/// OpenAPI v2: definitions only; operations are published as v3. As protobuf it is what kubectl reads when it meets a
/// kind that v3 does not have, and what Argo CD learns types from.
pub fn openapi_v2(headers: &HeaderMap, core: &Core) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let document = core.aggregation.v2(&core.catalog.current());
    if accept.contains(OPENAPI_V2_ASKED) || accept.contains(OPENAPI_V2_PROTOBUF) {
        return respond::typed(StatusCode::OK, OPENAPI_V2_PROTOBUF, document.protobuf);
    }
    respond::json(StatusCode::OK, document.json)
}

/// What is served here, and what by others.
struct Served<'a> {
    /// Built-in kinds, then custom ones; not those that others serve.
    kinds: Vec<&'static Kind>,
    remotes: &'a Remotes,
}

impl<'a> Served<'a> {
    fn new(catalog: &Catalog, remotes: &'a Remotes) -> Self {
        let customs = catalog.served().into_iter().map(api::custom::Custom::kind);
        let here = |kind: &&'static Kind| remotes.find(kind.group, kind.version).is_none();
        Self { kinds: KINDS.iter().chain(customs).filter(here).collect(), remotes }
    }

    /// In the order of the table; "" is the core group.
    fn groups(&self) -> Vec<&'a str> {
        let mut groups: Vec<&'a str> = Vec::new();
        for group in self.kinds.iter().map(|kind| kind.group).chain(self.remotes.groups()) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }

    /// The first version listed is the preferred one.
    fn versions(&self, group: &str) -> Vec<Version<'a>> {
        let mut versions: Vec<Version<'a>> = Vec::new();
        for kind in self.kinds.iter().filter(|kind| kind.group == group) {
            if !versions.iter().any(|version| version.name == kind.version) {
                versions.push(Version { name: kind.version, remote: None });
            }
        }
        let of_others = self.remotes.versions(group).iter();
        versions.extend(of_others.map(|remote| Version { name: &remote.version, remote: Some(&**remote) }));
        versions
    }
}

/// A version of a group, and who serves it if it is not this server.
struct Version<'a> {
    name: &'a str,
    remote: Option<&'a Remote>,
}

fn openapi_index(catalog: &Catalog, remotes: &Remotes) -> Value {
    let mut index = api::openapi::index();
    let url = |path: &str, hash: &str| json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") });
    for (path, hash) in catalog.documents() {
        index["paths"][path] = url(path, hash);
    }
    for (path, document) in remotes.v3_documents() {
        index["paths"][&path] = url(&path, &document.hash);
    }
    index
}

fn paths(served: &Served<'_>) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in served.groups().into_iter().filter(|g| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(served.versions(group).into_iter().map(|version| format!("/apis/{group}/{}", version.name)));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    paths
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group_value(served: &Served<'_>, group: &str) -> Value {
    let versions: Vec<Value> = served
        .versions(group)
        .into_iter()
        .map(|version| json!({ "groupVersion": group_version(group, version.name), "version": version.name }))
        .collect();
    json!({ "name": group, "preferredVersion": versions[0], "versions": versions })
}

/// The plain list of one version: `APIResourceList`. Those of others are asked of them.
fn resources(served: &Served<'_>, group: &str, version: &str) -> Result<Response, Status> {
    let mut list = Vec::new();
    for kind in served.kinds.iter().filter(|k| k.group == group && k.version == version) {
        let mut value = json!({ "name": kind.resource, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": kind.verbs });
        if !kind.short_names.is_empty() {
            value["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            value["categories"] = json!(kind.categories);
        }
        list.push(value);
        for sub in kind.subresources {
            let mut value = json!({ "name": format!("{}/{}", kind.resource, sub.name), "singularName": "",
                "namespaced": kind.namespaced, "kind": sub.kind, "verbs": sub.verbs });
            if (sub.group, sub.version) != (kind.group, kind.version) {
                value["group"] = sub.group.into();
                value["version"] = sub.version.into();
            }
            list.push(value);
        }
    }
    if list.is_empty() {
        return Err(Status::unknown_resource());
    }
    Ok(respond::value(&json!({ "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version(group, version), "resources": list })))
}

/// KEP-3352: everything in one answer.
fn aggregate(served: &Served<'_>, wanted: impl Fn(&str) -> bool) -> Response {
    let items: Vec<Value> = served
        .groups()
        .into_iter()
        .filter(|group| wanted(group))
        .map(|group| {
            let versions = served.versions(group);
            let versions: Vec<Value> =
                versions.iter().map(|version| aggregated_version(served, group, version)).collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    let list = json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items });
    respond::typed(StatusCode::OK, Form::Discovery.content_type(), respond::to_bytes(&list))
}

fn aggregated_version(served: &Served<'_>, group: &str, version: &Version<'_>) -> Value {
    if let Some(remote) = version.remote {
        // Stale: what it served when it answered last, if it ever did.
        let freshness = if remote.is_available() { "Current" } else { "Stale" };
        let mut value = json!({ "version": version.name, "freshness": freshness });
        if let Some(resources) = &remote.found.load().resources {
            value["resources"] = Value::from((**resources).clone());
        }
        return value;
    }
    let kinds = served.kinds.iter().filter(|k| k.group == group && k.version == version.name);
    json!({ "version": version.name, "freshness": "Current",
        "resources": kinds.map(|kind| aggregated_kind(kind)).collect::<Vec<_>>() })
}

fn aggregated_kind(kind: &Kind) -> Value {
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| {
            json!({ "subresource": sub.name, "verbs": sub.verbs,
                "responseKind": { "group": sub.group, "version": sub.version, "kind": sub.kind } })
        })
        .collect();
    let mut value = json!({ "resource": kind.resource, "singularResource": kind.singular, "verbs": kind.verbs,
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "responseKind": { "group": kind.group, "version": kind.version, "kind": kind.kind } });
    for (field, list) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !list.is_empty() {
            value[field] = json!(list);
        }
    }
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_versions() {
        let (catalog, remotes) = (Catalog::default(), Remotes::default());
        let served = &Served::new(&catalog, &remotes);
        assert_eq!(served.groups()[0], "");
        assert!(served.groups().contains(&"apps"));
        let versions: Vec<&str> = served.versions("autoscaling").iter().map(|version| version.name).collect();
        assert_eq!(versions, ["v2", "v1"]);
        assert!(paths(served).contains(&"/apis/apps/v1".to_owned()));
    }

    #[test]
    fn eviction_is_listed_as_drain_needs_it() {
        let value = aggregated_kind(crate::core::core_kind("pods"));
        let eviction = value["subresources"].as_array().unwrap().iter().find(|s| s["subresource"] == "eviction");
        assert_eq!(
            eviction.unwrap()["responseKind"],
            json!({ "group": "policy", "version": "v1", "kind": "Eviction" })
        );
    }
}
