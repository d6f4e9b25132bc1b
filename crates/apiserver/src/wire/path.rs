//! Reads a request path as Kubernetes does: discovery, a resource, or something else.
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`. Pure.

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `/api`, `/apis`, `/version`, `/healthz`, `/openapi/…`
    NonResource,
    Resource(ResourcePath),
}

/// `/apis/<group>/<version>[/namespaces/<namespace>]/<resource>[/<name>[/<subresource>[/<rest>]]]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// What follows the subresource (proxy paths).
    pub rest: String,
}

/// Subresources of a namespace, which would read as resources in it otherwise.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads the path of a request; `None` when it does not decode as UTF-8.
pub fn parse(path: &str) -> Option<Target> {
    let mut segments: Vec<String> =
        path.split('/').filter(|s| !s.is_empty()).map(percent_decode).collect::<Option<_>>()?;
    let head = match segments.first().map(String::as_str) {
        Some("api") if segments.len() > 2 => {
            let version = segments[1].clone();
            segments.drain(..2);
            (String::new(), version)
        }
        Some("apis") if segments.len() > 3 => {
            let (group, version) = (segments[1].clone(), segments[2].clone());
            segments.drain(..3);
            (group, version)
        }
        _ => return Some(Target::NonResource),
    };
    Some(Target::Resource(resource(head, segments)))
}

fn resource((group, version): (String, String), segments: Vec<String>) -> ResourcePath {
    let mut path = ResourcePath { group, version, ..ResourcePath::default() };
    let mut rest = segments.into_iter().peekable();
    let first = rest.next().unwrap_or_default();
    if first == "namespaces" {
        path.namespace = rest.next().unwrap_or_default();
        match rest.peek() {
            Some(next) if !NAMESPACE_SUBRESOURCES.contains(&next.as_str()) => {
                path.resource = rest.next().expect("peeked just above");
                path.name = rest.next().unwrap_or_default();
            }
            _ => {
                path.resource = first;
                path.name = path.namespace.clone();
            }
        }
    } else {
        path.resource = first;
        path.name = rest.next().unwrap_or_default();
    }
    path.subresource = rest.next().unwrap_or_default();
    path.rest = rest.collect::<Vec<_>>().join("/");
    path
}

fn percent_decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == b'%' {
            let digits = segment.get(index + 1..index + 3)?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            index += 3;
        } else {
            out.push(bytes[index]);
            index += 1;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources() {
        // path, group, version, namespace, resource, name, subresource, rest
        let cases = [
            ("/api/v1/pods", ["", "v1", "", "pods", "", "", ""]),
            ("/api/v1/namespaces", ["", "v1", "", "namespaces", "", "", ""]),
            ("/api/v1/namespaces/a", ["", "v1", "a", "namespaces", "a", "", ""]),
            ("/api/v1/namespaces/a/finalize", ["", "v1", "a", "namespaces", "a", "finalize", ""]),
            ("/api/v1/namespaces/a/status", ["", "v1", "a", "namespaces", "a", "status", ""]),
            ("/api/v1/namespaces/a/pods", ["", "v1", "a", "pods", "", "", ""]),
            ("/api/v1/namespaces/a/pods/p/log", ["", "v1", "a", "pods", "p", "log", ""]),
            ("/api/v1/namespaces/a/services/s/proxy/x/y", ["", "v1", "a", "services", "s", "proxy", "x/y"]),
            ("/apis/apps/v1/namespaces/a/deployments/w/scale", ["apps", "v1", "a", "deployments", "w", "scale", ""]),
            ("/api/v1/nodes/n1/status", ["", "v1", "", "nodes", "n1", "status", ""]),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                ["rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:node", "", ""],
            ),
        ];
        for (text, [group, version, namespace, resource, name, subresource, rest]) in cases {
            let expect = ResourcePath {
                group: group.into(),
                version: version.into(),
                namespace: namespace.into(),
                resource: resource.into(),
                name: name.into(),
                subresource: subresource.into(),
                rest: rest.into(),
            };
            assert_eq!(parse(text), Some(Target::Resource(expect)), "{text}");
        }
    }

    #[test]
    fn others() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/openapi/v3/api/v1"] {
            assert_eq!(parse(path), Some(Target::NonResource), "{path}");
        }
        for path in ["/api/v1/pods/%", "/api/v1/pods/%zz", "/api/v1/pods/%ff"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
