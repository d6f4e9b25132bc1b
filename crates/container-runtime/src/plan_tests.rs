//! What `plan.rs` decides, as tables.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use cri::{ImageConfig, Isolation, NetworkAttachment, ResolvedImage};

use super::*;

fn sandbox() -> PodSandboxConfig {
    PodSandboxConfig {
        pod_uid: "u1".to_owned(),
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        hostname: "web".to_owned(),
        network: NetworkAttachment::Host { ip: [127, 0, 0, 1].into() },
        dns: DnsConfig::default(),
        cgroup_parent: "knarr/pods/u1".to_owned(),
        resources: Resources::default(),
        isolation: Isolation::Pod,
        share_process_namespace: false,
        annotations: BTreeMap::new(),
    }
}

fn container() -> ContainerConfig {
    ContainerConfig {
        name: "app".to_owned(),
        attempt: 2,
        image: ResolvedImage {
            reference: "app:v1".to_owned(),
            manifest_digest: "sha256:0".to_owned(),
            image_id: "app@sha256:0".to_owned(),
            kind: ImageKind::Rootfs { layers: vec!["/l/0".into(), "/l/1".into()] },
            config: ImageConfig { cmd: vec!["serve".to_owned()], ..ImageConfig::default() },
            size_bytes: 1,
            has_other_kind: false,
        },
        command: Vec::new(),
        args: Vec::new(),
        working_dir: None,
        env: Vec::new(),
        mounts: Vec::new(),
        ports: Vec::new(),
        resources: Resources::default(),
        security: SecurityContext::default(),
        log_path: "/logs/2.log".into(),
        termination_message: None,
        stdio: cri::Stdio::default(),
        process_namespace_of: None,
        annotations: BTreeMap::new(),
    }
}

fn planned(config: &ContainerConfig) -> Result<(ContainerAbout, ContainerSpec), String> {
    let place =
        Place { sandbox_dir: "/run/u1".into(), writable: "/state/app".into(), created_at: SystemTime::UNIX_EPOCH };
    plan_container(&sandbox(), config, &place)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn names_follow_from_pod_and_attempt() {
    let (about, spec) = planned(&container()).unwrap();
    assert_eq!(about.id.0, "u1_app_2");
    assert_eq!(pod_uid_of(&about.id), "u1");
    assert_eq!(about.cgroup, "knarr/pods/u1/app-2");
    assert_eq!(spec.system.shm, PathBuf::from("/run/u1/shm"));
    assert_eq!(spec.limits.pids, Some(PIDS_LIMIT_DEFAULT));
    for bad in ["", "..", "a/b", ".x", "a b", "a_b"] {
        assert!(planned(&ContainerConfig { name: bad.to_owned(), ..container() }).is_err(), "{bad:?}");
    }
}

#[test]
fn command_and_args_replace_as_kubernetes_says() {
    let check = |entrypoint: &str, cmd: &str, command: &str, args: &str, expect: Option<&str>| {
        let mut config = container();
        config.image.config.entrypoint = words(entrypoint);
        config.image.config.cmd = words(cmd);
        config.command = words(command);
        config.args = words(args);
        assert_eq!(command_line(&config).ok(), expect.map(words), "{entrypoint}|{cmd}|{command}|{args}");
    };
    check("/e", "c", "", "", Some("/e c"));
    check("/e", "c", "", "a", Some("/e a"));
    check("/e", "c", "/x", "", Some("/x"));
    check("/e", "c", "/x", "a b", Some("/x a b"));
    check("", "c d", "", "", Some("c d"));
    check("", "", "", "", None);
}

#[test]
fn environment_of_image_then_container() {
    let mut config = container();
    config.image.config.env = vec!["PATH=/bin".to_owned(), "A=1=2".to_owned(), "broken".to_owned()];
    config.env = vec![("A".to_owned(), "3".to_owned()), ("B".to_owned(), String::new())];
    let text: Vec<String> = environment(&sandbox(), &config).iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(text, ["PATH=/bin", "HOSTNAME=web", "A=3", "B="]);
}

#[test]
fn capabilities_add_and_drop() {
    let check = |add: &str, drop: &str, expect: Option<u32>| {
        let security = SecurityContext {
            capabilities_add: words(add),
            capabilities_drop: words(drop),
            ..SecurityContext::default()
        };
        assert_eq!(capabilities(&security).ok().map(u64::count_ones), expect, "+{add} -{drop}");
    };
    check("", "", Some(14));
    check("", "ALL", Some(0));
    check("NET_BIND_SERVICE", "all", Some(1));
    check("CAP_SYS_TIME net_admin", "KILL", Some(15));
    check("ALL", "SYS_ADMIN", Some(caps::all().len() as u32 - 1));
    check("SYS_NONSENSE", "", None);
    let privileged = SecurityContext { privileged: true, ..SecurityContext::default() };
    assert_eq!(capabilities(&privileged).unwrap().count_ones() as usize, caps::all().len());
}

#[test]
fn mount_targets_are_checked_and_parents_come_first() {
    for (path, privileged, fine) in [
        ("/data", false, true),
        ("/dev/shm", false, true),
        ("data", false, false),
        ("/", false, false),
        ("/a/../b", false, false),
        ("/proc", true, false),
        ("//proc/1", false, false),
        ("/./proc", false, false),
        ("/sys/fs/cgroup", false, false),
        ("/sys/fs/cgroup", true, true),
        ("/process", false, true),
    ] {
        assert_eq!(check_target(path, privileged).is_ok(), fine, "{path}");
    }
    let mount = |path: &str| Mount { host_path: "/h".into(), container_path: path.to_owned(), read_only: true };
    let mut config = container();
    config.mounts = vec![mount("/a/b/c/"), mount("/a"), mount("/etc/hostname")];
    config.termination_message = Some(mount("/dev/termination-log"));
    let (_, spec) = planned(&config).unwrap();
    let targets: Vec<&str> = spec.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/a", "/etc/hostname", "/dev/termination-log", "/a/b/c"]);
}

#[test]
fn privileged_hides_nothing() {
    let mut config = container();
    assert!(!planned(&config).unwrap().1.system.masked_paths.is_empty());
    assert!(wants_seccomp(&config.security));
    config.security.privileged = true;
    let (_, spec) = planned(&config).unwrap();
    assert!(spec.system.masked_paths.is_empty() && spec.system.read_only_paths.is_empty());
    assert!(!wants_seccomp(&config.security));
}

#[test]
fn limits_from_millis_and_bytes() {
    let resources = Resources {
        memory_limit_bytes: Some(1 << 20),
        cpu_limit_millis: Some(500),
        cpu_request_millis: Some(250),
        pids_limit: Some(7),
    };
    let expect = Limits {
        memory_bytes: Some(1 << 20),
        cpu_quota_micros: Some(50_000),
        cpu_shares: Some(256),
        pids: Some(7),
        oom_ends_all: true,
    };
    assert_eq!(container_limits(&resources), expect);
    assert!(!pod_limits(&resources).oom_ends_all);
    assert_eq!(pod_limits(&resources).memory_bytes, Some((1 << 20) + SHIM_MEMORY_BYTES));
    assert_eq!(pod_limits(&Resources::default()), Limits::default());
    let tiny = Resources { cpu_limit_millis: Some(1), ..Resources::default() };
    assert_eq!(limits(&tiny, None).cpu_quota_micros, Some(CPU_QUOTA_MICROS_MIN));
    assert_eq!(limits(&tiny, None).cpu_shares, Some(CPU_SHARES_MIN));
    assert_eq!((oom_score_adj(&tiny), oom_score_adj(&Resources::default())), (0, 1000));
}

#[test]
fn stop_signals() {
    for (name, expect) in [
        (None, Some(15)),
        (Some("SIGQUIT"), Some(3)),
        (Some("quit"), Some(3)),
        (Some("9"), Some(9)),
        (Some("SIGRTMIN+3"), Some(37)),
        (Some("RTMIN"), Some(34)),
        (Some("0"), None),
        (Some("SIGNOPE"), None),
    ] {
        assert_eq!(stop_signal(name).ok(), expect, "{name:?}");
    }
}

#[test]
fn resolv_conf_text() {
    let dns = DnsConfig {
        servers: words("10.96.0.10"),
        searches: words("default.svc.cluster.local svc.cluster.local"),
        options: words("ndots:5"),
    };
    assert_eq!(
        render_resolv_conf(&dns),
        "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
    );
}
