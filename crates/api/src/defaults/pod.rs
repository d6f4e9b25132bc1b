//! Pods and pod templates.

use serde_json::{Value, json};

use super::{Fields, absent, each, ensured, inner, number, str_of, text};
use crate::admission::amounts::{Side, of_containers};
use crate::pod::says_of_itself;
use crate::quantity::Quantity;

const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];
/// `0644`
const FILE_MODE: i64 = 420;
const TOKEN_SECONDS: i64 = 3600;

pub(super) fn pod(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    for list in CONTAINER_LISTS {
        each(spec, list, |container| {
            if let Some(resources) = inner(container, "resources") {
                request_what_is_limited(resources);
            }
        });
    }
    shared_resources(spec);
    absent(spec, "enableServiceLinks", || true.into());
    pod_spec(spec);
}

/// `template` of a workload, or a PodTemplate.
pub(super) fn template(owner: &mut Fields) {
    if let Some(template) = ensured(owner, "template")
        && let Some(spec) = ensured(template, "spec")
    {
        pod_spec(spec);
    }
}

/// What a pod and a pod template have in common.
pub fn pod_spec(spec: &mut Fields) {
    text(spec, "dnsPolicy", "ClusterFirst");
    text(spec, "restartPolicy", "Always");
    text(spec, "schedulerName", "default-scheduler");
    absent(spec, "terminationGracePeriodSeconds", || 30.into());
    absent(spec, "securityContext", || json!({}));
    same_service_account(spec);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in CONTAINER_LISTS {
        each(spec, list, |found| {
            container(found);
            if host_network {
                each(found, "ports", host_port);
            }
        });
    }
    each(spec, "ephemeralContainers", container);
    each(spec, "volumes", volume);
}

/// A limit without a request is a request as well. Only on pods: a template keeps what was written.
fn request_what_is_limited(resources: &mut Fields) {
    let Some(limits) = inner(resources, "limits").cloned().filter(|limits| !limits.is_empty()) else { return };
    if let Some(requests) = ensured(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// What a pod says of itself, where it says something (KEP-2837). Huge pages that containers are limited to are a limit
/// of the pod, unless it asks for some. Beside limits, what its containers ask for is the pod's request; for what they
/// do not ask for, its limit is. As for containers, a template keeps what was written.
pub fn shared_resources(spec: &mut Fields) {
    if spec.get("resources").is_none_or(Value::is_null) {
        return;
    }
    let whole = Value::Object(spec.clone());
    if !says_of_itself(&whole) {
        return;
    }
    let Some(resources) = inner(spec, "resources") else { return };
    let requested = resources.get("requests").cloned().unwrap_or_default();
    let limited = of_containers(&whole, Side::Limits);
    let pages = limited.iter().filter(|(name, _)| name.starts_with("hugepages-") && requested.get(*name).is_none());
    let pages: Vec<(&String, &Quantity)> = pages.collect();
    if !pages.is_empty()
        && let Some(limits) = ensured(resources, "limits")
    {
        for (name, amount) in pages {
            limits.entry(name.clone()).or_insert_with(|| amount.to_string().into());
        }
    }
    let Some(limits) = inner(resources, "limits").cloned().filter(|limits| !limits.is_empty()) else { return };
    let Some(requests) = ensured(resources, "requests") else { return };
    let asked = of_containers(&whole, Side::Requests);
    for (name, amount) in asked.iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")) {
        requests.entry(name.clone()).or_insert_with(|| amount.to_string().into());
    }
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// `serviceAccount` is the deprecated twin of `serviceAccountName`.
fn same_service_account(spec: &mut Fields) {
    let name = match str_of(spec, "serviceAccountName") {
        "" => str_of(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = Value::from(name);
        spec.insert("serviceAccountName".to_owned(), name.clone());
        spec.insert("serviceAccount".to_owned(), name);
    }
}

fn host_port(port: &mut Fields) {
    if let Some(number) = port.get("containerPort").cloned() {
        super::number(port, "hostPort", number.as_i64().unwrap_or(0));
    }
}

fn container(container: &mut Fields) {
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    let policy = pull_policy(str_of(container, "image"));
    text(container, "imagePullPolicy", policy);
    absent(container, "resources", || json!({}));
    each(container, "ports", |port| text(port, "protocol", "TCP"));
    each(container, "env", |env| {
        if let Some(from) = inner(env, "valueFrom") {
            field_reference(from);
            if let Some(file) = inner(from, "fileKeyRef") {
                absent(file, "optional", || false.into());
            }
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = inner(container, name) {
            probe(found);
        }
    }
    if let Some(lifecycle) = inner(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(found) = inner(lifecycle, name) {
                handler(found);
            }
        }
    }
}

/// `latest`, said or meant, is pulled each time; another tag or a digest only when it is not there.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let tag = name.split_once(':').map(|(_, tag)| tag);
    match (image.contains('@'), tag) {
        (true, _) => "IfNotPresent",
        (false, None | Some("latest")) => "Always",
        (false, Some(_)) => "IfNotPresent",
    }
}

fn probe(probe: &mut Fields) {
    number(probe, "timeoutSeconds", 1);
    number(probe, "periodSeconds", 10);
    number(probe, "successThreshold", 1);
    number(probe, "failureThreshold", 3);
    handler(probe);
    if let Some(grpc) = inner(probe, "grpc") {
        absent(grpc, "service", || "".into());
    }
}

fn handler(handler: &mut Fields) {
    if let Some(request) = inner(handler, "httpGet") {
        text(request, "path", "/");
        text(request, "scheme", "HTTP");
    }
}

fn field_reference(from: &mut Fields) {
    if let Some(reference) = inner(from, "fieldRef") {
        text(reference, "apiVersion", "v1");
    }
    if let Some(reference) = inner(from, "resourceFieldRef") {
        text(reference, "divisor", "0");
    }
}

fn volume(volume: &mut Fields) {
    if !volume.iter().any(|(key, source)| key != "name" && !source.is_null()) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = inner(volume, name) {
            absent(source, "defaultMode", || FILE_MODE.into());
        }
    }
    if let Some(source) = inner(volume, "downwardAPI") {
        each(source, "items", field_reference);
    }
    if let Some(source) = inner(volume, "projected") {
        each(source, "sources", |projection| {
            if let Some(token) = inner(projection, "serviceAccountToken") {
                absent(token, "expirationSeconds", || TOKEN_SECONDS.into());
            }
            if let Some(source) = inner(projection, "downwardAPI") {
                each(source, "items", field_reference);
            }
        });
    }
    if let Some(source) = inner(volume, "hostPath") {
        absent(source, "type", || "".into());
    }
    if let Some(claim) = inner(volume, "ephemeral").and_then(|source| inner(source, "volumeClaimTemplate"))
        && let Some(spec) = inner(claim, "spec")
    {
        absent(spec, "volumeMode", || "Filesystem".into());
    }
    if let Some(source) = inner(volume, "image") {
        let policy = pull_policy(str_of(source, "reference"));
        text(source, "pullPolicy", policy);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn pull_policy() {
        let cases = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "IfNotPresent"),
            ("", "Always"),
        ];
        for (image, expect) in cases {
            assert_eq!(super::pull_policy(image), expect, "{image}");
        }
    }
}
