//! What hosts are told, case by case.

use cri::{
    ContainerPort, ImageConfig, Isolation, Mount, NetworkAttachment, PodSandboxConfig, ResolvedImage, Resources,
    SecurityContext,
};

use super::*;
use crate::artifact::Format;
use crate::protocol::PathType;

fn sandbox() -> PodSandboxConfig {
    PodSandboxConfig {
        pod_uid: "u1".to_owned(),
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        hostname: "web".to_owned(),
        network: NetworkAttachment::Shared { ip: [10, 32, 1, 2].into() },
        dns: DnsConfig {
            servers: vec!["10.96.0.10".to_owned()],
            searches: vec!["default.svc.house".to_owned(), "svc.house".to_owned(), "house".to_owned()],
            options: vec!["ndots:5".to_owned()],
        },
        cgroup_parent: "knarr/pods/u1".to_owned(),
        resources: Resources::default(),
        isolation: Isolation::Namespace,
        share_process_namespace: false,
        annotations: BTreeMap::new(),
    }
}

fn container() -> ContainerConfig {
    ContainerConfig {
        name: "web".to_owned(),
        attempt: 0,
        image: ResolvedImage {
            reference: "hello:v1".to_owned(),
            manifest_digest: "sha256:m".to_owned(),
            image_id: "hello@sha256:m".to_owned(),
            kind: ImageKind::Wasm {
                file: "/blobs/c".into(),
                digest: "sha256:c".to_owned(),
                argv0: "hello.wasm".to_owned(),
                root: None,
            },
            config: ImageConfig::default(),
            size_bytes: 1,
            has_other_kind: false,
        },
        command: vec![],
        args: vec![],
        working_dir: None,
        env: vec![],
        mounts: vec![],
        ports: vec![],
        resources: Resources::default(),
        security: SecurityContext::default(),
        log_path: "/logs/0.log".into(),
        termination_message: None,
        stdio: cri::Stdio::default(),
        process_namespace_of: None,
        annotations: BTreeMap::new(),
    }
}

fn plan(sandbox: &PodSandboxConfig, container: &ContainerConfig) -> StartPlan {
    let exports = vec!["wasi:http/incoming-handler@0.2.0".to_owned()];
    let description = Description { format: Format::Component, imports: vec![], exports };
    start("c1", sandbox, container, &description, |path| path.extension().is_some())
}

#[test]
fn arguments_follow_the_image_and_the_pod() {
    let check = |entrypoint: &[&str], cmd: &[&str], command: &[&str], args: &[&str], expect: &[&str]| {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut container = container();
        container.image.config.entrypoint = owned(entrypoint);
        container.image.config.cmd = owned(cmd);
        container.command = owned(command);
        container.args = owned(args);
        assert_eq!(plan(&sandbox(), &container).spec.args, expect);
    };
    check(&[], &[], &[], &[], &["hello.wasm"]);
    check(&["/hello.wasm", "-v"], &["x"], &[], &[], &["hello.wasm", "-v", "x"]);
    check(&["/hello.wasm"], &["x"], &[], &["y"], &["hello.wasm", "y"]);
    check(&["/hello.wasm"], &["x"], &["/"], &[], &["hello.wasm"]);
    check(&[], &[], &["/other", "a"], &["b"], &["hello.wasm", "a", "b"]);
}

#[test]
fn the_pods_variables_win() {
    let mut container = container();
    container.image.config.env = vec!["A=1".to_owned(), "B=2".to_owned()];
    container.env = vec![("B".to_owned(), "3".to_owned()), ("C".to_owned(), String::new())];
    let expect = [("A", "1"), ("B", "3"), ("C", "")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(plan(&sandbox(), &container).spec.env, expect);
}

#[test]
fn the_listener_is_where_kubernetes_expects_it() {
    let check =
        |network: NetworkAttachment, port: Option<u16>, env: Option<&str>, class: Option<&str>, expect: &str| {
            let (mut sandbox, mut container) = (sandbox(), container());
            sandbox.network = network;
            container.ports.extend(port.map(|container_port| ContainerPort {
                name: None,
                container_port,
                protocol: Protocol::Tcp,
            }));
            container.env.extend(env.map(|address| (SPIN_LISTEN.to_owned(), address.to_owned())));
            sandbox.annotations.extend(class.map(|class| (RUNTIME_CLASS.to_owned(), class.to_owned())));
            assert_eq!(plan(&sandbox, &container).spec.listen.unwrap().to_string(), expect);
        };
    let shared = || NetworkAttachment::Shared { ip: [10, 0, 0, 1].into() };
    check(shared(), None, None, None, "10.0.0.1:8080");
    check(shared(), Some(81), Some("0.0.0.0:3000"), None, "10.0.0.1:81");
    check(shared(), None, Some("0.0.0.0:3000"), None, "10.0.0.1:3000");
    check(shared(), None, None, Some("wasmtime-spin-v2"), "10.0.0.1:80");
    let own = NetworkAttachment::Namespace { ip: [10, 0, 0, 1].into(), path: "/run/netns/x".into() };
    check(own, None, None, None, "0.0.0.0:8080");
}

#[test]
fn mounts_become_preopened_directories() {
    let mount = |host: &str, guest: &str, read_only| Mount {
        host_path: host.into(),
        container_path: guest.to_owned(),
        read_only,
    };
    let mut container = container();
    container.mounts = vec![
        mount("/v/data", "/data", false),
        mount("/v/app.conf", "/etc/app.conf", true),
        mount("/v/x.y", "/data/x", true),
    ];
    container.termination_message = Some(mount("/v/msg.txt", "/dev/termination-log", false));
    if let ImageKind::Wasm { root, .. } = &mut container.image.kind {
        *root = Some("/r".into());
    }
    let plan = plan(&sandbox(), &container);
    let found: Vec<_> = plan.spec.preopens.iter().map(|one| (one.guest_path.as_str(), one.read_only)).collect();
    assert_eq!(found, [("/", true), ("/data", false), ("/dev", false), ("/etc", true)]);
    assert_eq!(plan.sources[0], Source::Directory("/r".into()));
    assert_eq!(plan.sources[3], Source::Files(vec![("app.conf".to_owned(), "/v/app.conf".into())]));
}

#[test]
fn limits_have_defaults() {
    let check = |container_limit: Option<u64>, pod_limit: Option<u64>, timeout: Option<&str>, expect: (u64, u64)| {
        let (mut sandbox, mut container) = (sandbox(), container());
        container.resources.memory_limit_bytes = container_limit;
        sandbox.resources.memory_limit_bytes = pod_limit;
        container.annotations.extend(timeout.map(|text| (REQUEST_TIMEOUT.to_owned(), text.to_owned())));
        let limits = plan(&sandbox, &container).spec.limits;
        assert_eq!((limits.memory_bytes, limits.request_timeout_ms), expect);
    };
    check(None, None, None, (256 << 20, 30_000));
    check(Some(0), None, None, (256 << 20, 30_000));
    check(Some(5), Some(9), Some("2"), (5, 2000));
    check(None, Some(9), Some("0.5s"), (9, 500));
    check(None, None, Some("soon"), (256 << 20, 30_000));
    let cpu = |millis: Option<u64>| Resources { cpu_limit_millis: millis, ..Resources::default() };
    for (container, pod, expect) in
        [(None, None, None), (Some(5), Some(9), Some(5)), (None, Some(9), Some(9)), (Some(0), None, None)]
    {
        assert_eq!(cpu_limit(&cpu(container), &cpu(pod)), expect, "{container:?} {pod:?}");
    }
}

#[test]
fn egress_is_closed_unless_asked_for() {
    let closed = plan(&sandbox(), &container()).spec.egress;
    assert_eq!(closed.nameservers, ["10.96.0.10:53".parse().unwrap()]);
    assert_eq!((closed.ndots, closed.cluster_domain.as_str()), (5, "house"));
    assert_eq!((closed.sockets, closed.own_localhost, closed.allowed_hosts.len()), (Sockets::Denied, false, 0));

    assert_eq!(closed.source, Some([10, 32, 1, 2].into()));

    let mut open = sandbox();
    open.network = NetworkAttachment::Namespace { ip: [10, 0, 0, 1].into(), path: "/n".into() };
    open.dns = DnsConfig { servers: vec!["127.0.0.1:5353".to_owned(), "bad".to_owned()], ..DnsConfig::default() };
    open.annotations.insert(ALLOWED_HOSTS.to_owned(), "Example.org, *.test,,".to_owned());
    let egress = plan(&open, &container()).spec.egress;
    assert_eq!(egress.nameservers, ["127.0.0.1:5353".parse().unwrap()]);
    assert_eq!(egress.allowed_hosts, ["example.org", "*.test"]);
    assert_eq!((egress.sockets, egress.own_localhost, egress.source), (Sockets::Localhost, true, None));
    assert_eq!(egress.cluster_domain, "cluster.local");
    open.annotations.insert(ALLOW_SOCKETS.to_owned(), "true".to_owned());
    assert_eq!(plan(&open, &container()).spec.egress.sockets, Sockets::All);
}

#[test]
fn grants_name_what_may_be_opened_and_where_configuration_is() {
    let mount = |guest: &str| Mount { host_path: "/v".into(), container_path: guest.to_owned(), read_only: true };
    let check = |annotations: &[(&str, &str)], stores: &[&str], config_dir: Option<usize>| {
        let mut container = container();
        container.mounts = vec![mount("/data"), mount("/etc/config")];
        let mut sandbox = sandbox();
        sandbox.annotations =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let spec = plan(&sandbox, &container).spec;
        assert_eq!((spec.grants.stores, spec.grants.config_dir), (owned(stores), config_dir), "{annotations:?}");
    };
    check(&[], &[], None);
    check(&[("knarr.dev/buckets", "cache, sessions=prod,")], &["cache", "sessions"], None);
    check(&[("knarr.dev/config-dir", "/etc/config/")], &[], Some(1));
    check(&[("knarr.dev/config-dir", "/etc")], &[], None);
    let mut sandbox = sandbox();
    sandbox.annotations.insert("knarr.dev/buckets".to_owned(), "a,b=c".to_owned());
    let pairs = [("a", "a"), ("b", "c")].map(|(opened, bucket)| (opened.to_owned(), bucket.to_owned()));
    assert_eq!(buckets(&sandbox, &container()), pairs);
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_plugin_runs_nothing_by_itself_and_has_limits_of_its_own() {
    let mut container = container();
    let annotations = [("invoke-only", "true"), ("calls-at-once", "3"), ("calls-per-second", "100")];
    for (name, value) in annotations {
        container.annotations.insert(format!("knarr.dev/{name}"), value.to_owned());
    }
    let spec = plan(&sandbox(), &container).spec;
    assert!(spec.invoke_only && spec.listen.is_none(), "{spec:?}");
    assert_eq!((spec.limits.requests_at_once, spec.limits.calls_per_second), (3, Some(100)));
    for bad in ["0", "-1", "many", ""] {
        container.annotations.insert("knarr.dev/calls-at-once".to_owned(), bad.to_owned());
        container.annotations.insert("knarr.dev/calls-per-second".to_owned(), bad.to_owned());
        let limits = plan(&sandbox(), &container).spec.limits;
        assert_eq!((limits.requests_at_once, limits.calls_per_second), (REQUESTS_AT_ONCE, None), "{bad}");
    }
}

#[test]
fn a_plugin_listens_where_requests_are_calls_of_it() {
    let check = |annotations: &[(&str, &str)], port: Option<u16>, routes: &[(&str, PathType, Option<&str>)]| {
        let mut container = container();
        for (name, value) in annotations {
            container.annotations.insert(format!("knarr.dev/{name}"), (*value).to_owned());
        }
        let spec = plan(&sandbox(), &container).spec;
        assert_eq!(spec.listen.map(|address| address.port()), port, "{annotations:?}");
        let got = spec.routes.iter().map(|route| (route.path.as_str(), route.path_type, route.export.as_deref()));
        assert_eq!(got.collect::<Vec<_>>(), routes, "{annotations:?}");
    };
    let text = r#"[{"path":"/a","pathType":"Prefix","methods":["GET"],"export":"f"},{"path":"/"}]"#;
    let only = ("invoke-only", "true");
    let both = [("/a", PathType::Prefix, Some("f")), ("/", PathType::Exact, None)];
    check(&[only, ("http-routes", text)], Some(8080), &both);
    check(&[only, ("http-routes", "[]")], None, &[]);
    check(&[only, ("http-routes", "{")], None, &[]);
    check(&[("http-routes", text)], Some(8080), &[]);
}

#[test]
fn instances_are_used_again_where_components_are_made_for_it() {
    let check = |workload: Workload, annotations: &[(&str, &str)], expect: Option<(usize, usize, u64)>| {
        let mut container = container();
        for (name, value) in annotations {
            container.annotations.insert(format!("knarr.dev/{name}"), (*value).to_owned());
        }
        let reuse = limits(&sandbox(), &container, workload).reuse;
        let reuse = reuse.map(|reuse| (reuse.requests, reuse.at_once, reuse.idle_ms));
        assert_eq!(reuse, expect, "{workload:?} {annotations:?}");
    };
    let (service, proxy) = (Workload::HttpService, Workload::HttpProxy);
    let requests = "requests-per-instance";
    check(service, &[], Some((128, 16, 1000)));
    check(service, &[(requests, "1")], None);
    check(service, &[(requests, "5"), ("requests-per-instance-at-once", "2")], Some((5, 2, 1000)));
    check(service, &[("instance-idle-timeout", "0.5")], Some((128, 16, 500)));
    check(service, &[("instance-idle-timeout", "3600s")], Some((128, 16, 60_000)));
    check(service, &[(requests, "no"), ("instance-idle-timeout", "-1")], Some((128, 16, 1000)));
    check(proxy, &[], None);
    check(proxy, &[(requests, "10"), ("requests-per-instance-at-once", "4")], Some((10, 1, 1000)));
    check(Workload::Command, &[(requests, "10")], None);
}

#[test]
fn only_what_was_granted_may_be_imported() {
    let imports = ["wasi:http/types@0.2.4", "wasi:http/outgoing-handler@0.2.4", "wasi:io/streams@0.2.4"];
    let imports = imports.map(str::to_owned);
    let check = |allowed: &str, refused: &[&str]| {
        let mut container = container();
        container.annotations.insert("knarr.dev/allowed-imports".to_owned(), allowed.to_owned());
        assert_eq!(refused_imports(&sandbox(), &container, &imports), refused, "{allowed}");
    };
    check("", &[]);
    check("wasi:http, wasi:io", &[]);
    check("wasi:http/types,wasi:io/streams@0.2.0", &["wasi:http/outgoing-handler@0.2.4"]);
    check("wasi:httpx", &["wasi:http/types@0.2.4", "wasi:http/outgoing-handler@0.2.4", "wasi:io/streams@0.2.4"]);
}
