//! What this server serves: `/api`, `/apis`, resource lists, aggregated discovery, OpenAPI.
//!
//! Everything is made from the kinds table and the catalog of custom kinds. Pure but for the answer's HTTP form.

use api::custom::Catalog;
use api::kinds::{KINDS, Kind};
use api::status::Status;
use axum::response::Response;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::core::Core;
use crate::wire::accept::Form;
use crate::wire::respond;

/// How `/openapi/v2` is answered. Clients ask for it with an `@`, which no media type may have.
const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const OPENAPI_V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

pub fn answer(path: &str, form: Form, core: &Core) -> Result<Response, Status> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let aggregated = form == Form::Discovery;
    let catalog = core.catalog.current();
    let kinds = &kinds(&catalog);
    match segments.as_slice() {
        [] => Ok(respond::value(&json!({ "paths": paths(kinds) }))),
        ["api"] if aggregated => Ok(aggregate(kinds, |group| group.is_empty())),
        ["apis"] if aggregated => Ok(aggregate(kinds, |group| !group.is_empty())),
        ["api"] => {
            let address = format!("{}:{}", core.config.advertise_address, core.config.advertise_port);
            Ok(respond::value(&json!({ "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }] })))
        }
        ["apis"] => {
            let groups: Vec<Value> =
                groups(kinds).into_iter().filter(|g| !g.is_empty()).map(|group| group_value(kinds, group)).collect();
            Ok(respond::value(&json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })))
        }
        ["api", version] => resources(kinds, "", version),
        ["apis", group] if groups(kinds).iter().any(|g| g == group) => {
            let mut value = group_value(kinds, group);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            Ok(respond::value(&value))
        }
        ["apis", group, version] => resources(kinds, group, version),
        ["openapi", "v3"] => Ok(respond::value(&openapi_index(&catalog))),
        ["openapi", "v3", rest @ ..] => {
            let path = rest.join("/");
            let document = api::openapi::group_version(&path).or_else(|| catalog.document(&path));
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
    let catalog = core.catalog.current();
    let document = catalog.v2();
    if accept.contains(OPENAPI_V2_ASKED) || accept.contains(OPENAPI_V2_PROTOBUF) {
        return respond::typed(StatusCode::OK, OPENAPI_V2_PROTOBUF, document.protobuf.clone());
    }
    respond::json(StatusCode::OK, document.json.clone())
}

/// Built-in kinds, then custom ones.
fn kinds(catalog: &Catalog) -> Vec<&'static Kind> {
    KINDS.iter().chain(catalog.served().into_iter().map(api::custom::Custom::kind)).collect()
}

fn openapi_index(catalog: &Catalog) -> Value {
    let mut index = api::openapi::index();
    for (path, hash) in catalog.documents() {
        index["paths"][path] = json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") });
    }
    index
}

/// In the order of the table; "" is the core group.
fn groups(kinds: &[&'static Kind]) -> Vec<&'static str> {
    let mut groups = Vec::new();
    for kind in kinds {
        if !groups.contains(&kind.group) {
            groups.push(kind.group);
        }
    }
    groups
}

/// The first version listed is the preferred one.
fn versions(kinds: &[&'static Kind], group: &str) -> Vec<&'static str> {
    let mut versions = Vec::new();
    for kind in kinds.iter().filter(|k| k.group == group) {
        if !versions.contains(&kind.version) {
            versions.push(kind.version);
        }
    }
    versions
}

fn paths(kinds: &[&'static Kind]) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in groups(kinds).into_iter().filter(|g| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions(kinds, group).into_iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    paths
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group_value(kinds: &[&'static Kind], group: &str) -> Value {
    let versions: Vec<Value> = versions(kinds, group)
        .into_iter()
        .map(|version| json!({ "groupVersion": group_version(group, version), "version": version }))
        .collect();
    json!({ "name": group, "preferredVersion": versions[0], "versions": versions })
}

/// The plain list of one version: `APIResourceList`.
fn resources(kinds: &[&'static Kind], group: &str, version: &str) -> Result<Response, Status> {
    let mut list = Vec::new();
    for kind in kinds.iter().filter(|k| k.group == group && k.version == version) {
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
fn aggregate(kinds: &[&'static Kind], wanted: impl Fn(&str) -> bool) -> Response {
    let items: Vec<Value> = groups(kinds)
        .into_iter()
        .filter(|group| wanted(group))
        .map(|group| {
            let versions: Vec<Value> = versions(kinds, group)
                .into_iter()
                .map(|version| {
                    let kinds = kinds.iter().filter(|k| k.group == group && k.version == version);
                    json!({ "version": version, "freshness": "Current",
                        "resources": kinds.map(|kind| aggregated_kind(kind)).collect::<Vec<_>>() })
                })
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    let list = json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items });
    respond::typed(StatusCode::OK, Form::Discovery.content_type(), respond::to_bytes(&list))
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
        let kinds = &kinds(&Catalog::default());
        assert_eq!(groups(kinds)[0], "");
        assert!(groups(kinds).contains(&"apps"));
        assert_eq!(versions(kinds, "autoscaling"), ["v2", "v1"]);
        assert!(paths(kinds).contains(&"/apis/apps/v1".to_owned()));
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
