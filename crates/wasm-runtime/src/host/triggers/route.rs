//! Which route takes a request: the most exact path, then the method. Pure.

use crate::protocol::{HttpRoute, PathType};

#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Route(&'a HttpRoute),
    /// There are routes for the path, of other methods.
    OtherMethods(Vec<&'a str>),
    Nothing,
}

/// An exact path comes before a prefix, and a longer prefix before a shorter one. A path that has a route has no other
/// one for other methods, so that adding a route for `/a` closes the whole of `/a`.
pub fn find<'a>(routes: &'a [HttpRoute], method: &str, path: &str) -> Found<'a> {
    let Some(best) = routes.iter().filter_map(|route| rank(route, path)).max() else { return Found::Nothing };
    let best: Vec<&HttpRoute> = routes.iter().filter(|route| rank(route, path) == Some(best)).collect();
    let takes = |route: &&&HttpRoute| route.methods.is_empty() || route.methods.iter().any(|known| known == method);
    match best.iter().find(takes) {
        Some(route) => Found::Route(route),
        None => Found::OtherMethods(best.iter().flat_map(|route| &route.methods).map(String::as_str).collect()),
    }
}

/// How well the route fits; `None` when it does not.
fn rank(route: &HttpRoute, path: &str) -> Option<(bool, usize)> {
    match route.path_type {
        PathType::Exact => (route.path == path).then_some((true, path.len())),
        PathType::Prefix => {
            let prefix = route.path.trim_end_matches('/');
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((false, prefix.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_route_is_found() {
        let route = |text: &str| {
            let [path, path_type, methods, export] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
            HttpRoute {
                path: path.to_owned(),
                path_type: if path_type == "prefix" { PathType::Prefix } else { PathType::Exact },
                methods: methods.split(',').filter(|method| *method != "*").map(str::to_owned).collect(),
                export: Some(export.to_owned()),
            }
        };
        let routes = [
            "/ prefix * root",
            "/a prefix GET below-a",
            "/a/b/ prefix GET,POST below-b",
            "/a exact POST a",
            "/a exact PUT put-a",
        ];
        let routes = routes.map(route);
        let check = |method: &str, path: &str, expect: &str| {
            let got = match find(&routes, method, path) {
                Found::Route(route) => route.export.clone().unwrap(),
                Found::OtherMethods(methods) => format!("405 {}", methods.join(",")),
                Found::Nothing => "404".to_owned(),
            };
            assert_eq!(got, expect, "{method} {path}");
        };
        check("GET", "/", "root");
        check("BREW", "/other", "root");
        check("POST", "/a", "a");
        check("PUT", "/a", "put-a");
        check("GET", "/a", "405 POST,PUT");
        check("GET", "/a/", "below-a");
        check("GET", "/a/x", "below-a");
        check("GET", "/ab", "root");
        check("POST", "/a/x", "405 GET");
        check("POST", "/a/b", "below-b");
        check("POST", "/a/b/c/d", "below-b");
        check("GET", "/a/bc", "below-a");
        assert_eq!(find(&routes[3..], "POST", "/b"), Found::Nothing);
        assert_eq!(find(&[], "GET", "/"), Found::Nothing);
    }
}
