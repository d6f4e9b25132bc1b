//! Middleware: which containers of a pod a request passes before it comes to the application. Pure.
//!
//! Owns: the annotation `middleware.knarr.dev/APP: auth,log`, and what each container is told of it. Every middleware
//! is a container of the pod with its own image, limits and log, and stands in one place. May not know: how requests
//! are passed on.

use cri::PodSandboxConfig;

use crate::artifact::{Description, Workload};
use crate::protocol::Chain;

/// The container whose requests pass first through those that are listed, in their order.
const MIDDLEWARE: &str = "middleware.knarr.dev/";
/// Middleware in front of one container.
const MIDDLEWARE_MAX: usize = 8;
const NEXT_HANDLER: &str = "wasi:http/handler@0.3.";

/// Where a container stands, or why it cannot stand there.
pub fn chain(
    sandbox: &PodSandboxConfig,
    sandbox_id: &str,
    container: &str,
    described: &Description,
) -> Result<Chain, String> {
    let member = |name: &str| format!("{sandbox_id}/{name}");
    let mut chain = Chain::default();
    for (app, names) in lists(sandbox) {
        if names.len() > MIDDLEWARE_MAX {
            return Err(format!("{MIDDLEWARE}{app} lists {} containers, the limit is {MIDDLEWARE_MAX}", names.len()));
        }
        if app == container && !names.is_empty() {
            if !described.workload().serves_http() {
                return Err(format!("{MIDDLEWARE}{app} puts middleware before it, and it does not serve HTTP"));
            }
            chain.first = names.first().map(|name| member(name));
        }
        for (at, _) in names.iter().enumerate().filter(|(_, name)| **name == container) {
            let next = names.get(at + 1).copied().unwrap_or(app);
            if chain.next.replace(member(next)).is_some() {
                return Err(format!("annotations {MIDDLEWARE}… name it more than once"));
            }
        }
    }
    let wants_next = described.imports.iter().any(|import| import.starts_with(NEXT_HANDLER));
    match (&chain.first, &chain.next) {
        (Some(_), Some(_)) => Err(format!("annotations {MIDDLEWARE}… have it both as middleware and behind some")),
        (_, Some(_)) if described.workload() != Workload::HttpService => {
            Err(format!("an annotation {MIDDLEWARE}… names it, and it does not export wasi:http/handler of WASI 0.3"))
        }
        (_, None) if wants_next => {
            Err(format!("it imports wasi:http/handler, and no annotation {MIDDLEWARE}CONTAINER of its pod names it"))
        }
        (None, None) => Ok(chain),
        _ => Ok(Chain { own: Some(member(container)), ..chain }),
    }
}

/// Of each application, the containers in front of it.
fn lists(sandbox: &PodSandboxConfig) -> impl Iterator<Item = (&str, Vec<&str>)> {
    sandbox.annotations.iter().filter_map(|(key, value)| {
        let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
        Some((key.strip_prefix(MIDDLEWARE)?, names.collect()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cri::{DnsConfig, Isolation, NetworkAttachment, Resources};

    use super::*;
    use crate::artifact::Format;

    const SERVICE: &str = "wasi:http/handler@0.3.0";
    const PROXY: &str = "wasi:http/incoming-handler@0.2.0";

    fn place(annotations: &[(&str, &str)], container: &str, export: &str, import: &str) -> Result<Chain, String> {
        let annotations = annotations.iter().map(|(app, names)| (format!("{MIDDLEWARE}{app}"), (*names).to_owned()));
        let sandbox = PodSandboxConfig {
            pod_uid: "u".to_owned(),
            name: "p".to_owned(),
            namespace: "n".to_owned(),
            hostname: "p".to_owned(),
            network: NetworkAttachment::Shared { ip: [10, 32, 1, 2].into() },
            dns: DnsConfig::default(),
            cgroup_parent: String::new(),
            resources: Resources::default(),
            isolation: Isolation::Namespace,
            share_process_namespace: false,
            annotations: annotations.collect::<BTreeMap<_, _>>(),
        };
        let described = Description {
            format: Format::Component,
            imports: vec![import.to_owned()],
            exports: vec![export.to_owned()],
        };
        chain(&sandbox, "s", container, &described)
    }

    #[test]
    fn requests_pass_in_the_order_of_the_list() {
        let annotations = [("web", "auth, log"), ("other", "trace")];
        let check = |container: &str, export: &str, first: Option<&str>, next: Option<&str>| {
            let of = |name: Option<&str>| name.map(|name| format!("s/{name}"));
            let own = (first.is_some() || next.is_some()).then(|| format!("s/{container}"));
            let expect = Chain { own, first: of(first), next: of(next) };
            assert_eq!(place(&annotations, container, export, "wasi:http/types@0.3.0"), Ok(expect), "{container}");
        };
        check("web", PROXY, Some("auth"), None);
        check("web", SERVICE, Some("auth"), None);
        check("auth", SERVICE, None, Some("log"));
        check("log", SERVICE, None, Some("web"));
        check("trace", SERVICE, None, Some("other"));
        check("beside", PROXY, None, None);
        check("beside", "run", None, None);
    }

    #[test]
    fn what_cannot_stand_there_is_refused() {
        let check = |annotations: &[(&str, &str)], container: &str, export: &str, import: &str, why: &str| {
            let refused = place(annotations, container, export, import).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        };
        check(&[("web", "auth")], "auth", PROXY, "", "does not export wasi:http/handler");
        check(&[("web", "auth")], "web", "run", "", "does not serve HTTP");
        check(&[("web", "auth,auth")], "auth", SERVICE, "", "more than once");
        check(&[("a", "auth"), ("b", "auth")], "auth", SERVICE, "", "more than once");
        check(&[("web", "auth"), ("auth", "log")], "auth", SERVICE, "", "both as middleware and behind some");
        check(&[("web", "auth")], "alone", SERVICE, SERVICE, "no annotation");
        check(&[("web", "1,2,3,4,5,6,7,8,9")], "web", SERVICE, "", "the limit is 8");
    }
}
