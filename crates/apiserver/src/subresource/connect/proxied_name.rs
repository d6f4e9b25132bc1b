//! What a path of `proxy` names: `[scheme:]name[:port]`, and the path behind it. Pure.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied<'a> {
    pub https: bool,
    pub name: &'a str,
    /// A number or a name; empty when it is not said.
    pub port: &'a str,
}

/// Follows `k8s.io/apimachinery/pkg/util/net.SplitSchemeNamePort`. `None`: that is no name.
pub fn parse(text: &str) -> Option<Proxied<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
        return None;
    }
    Some(Proxied { https: scheme == "https", name, port })
}

/// What follows the `proxy` segment of a raw path, with its slash, as the client wrote it. Empty when nothing does.
pub fn rest(path: &str, namespaced: bool) -> &str {
    // api, v1, [namespaces, ns,] resource, name, proxy
    let segments = if namespaced { 7 } else { 5 };
    let mut seen = 0;
    let mut inside = false;
    for (index, byte) in path.bytes().enumerate() {
        if byte != b'/' {
            seen += usize::from(!inside);
            inside = true;
            continue;
        }
        if inside && seen == segments {
            return &path[index..];
        }
        inside = false;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, expect: Option<(bool, &str, &str)>| {
            assert_eq!(parse(text).map(|found| (found.https, found.name, found.port)), expect, "{text}");
        };
        check("web", Some((false, "web", "")));
        check("web:80", Some((false, "web", "80")));
        check("https:web:", Some((true, "web", "")));
        check("https:web:api", Some((true, "web", "api")));
        check("ftp:web:21", None);
        check(":80", None);
        check("a:b:c:d", None);
    }

    #[test]
    fn rests() {
        let check = |path: &str, namespaced: bool, expect: &str| assert_eq!(rest(path, namespaced), expect, "{path}");
        check("/api/v1/namespaces/a/pods/p/proxy", true, "");
        check("/api/v1/namespaces/a/pods/p/proxy/", true, "/");
        check("/api/v1/namespaces/pods/pods/proxy/proxy/x%2Fy//z/", true, "/x%2Fy//z/");
        check("/api//v1/namespaces/a/services/s:80/proxy/a", true, "/a");
        check("/api/v1/nodes/n1/proxy/metrics", false, "/metrics");
        check("/api/v1/nodes", false, "");
    }
}
