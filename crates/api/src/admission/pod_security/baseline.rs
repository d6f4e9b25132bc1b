//! The level `baseline`: nothing that is known to lead out of a pod.

use serde_json::Value;

use super::setters::{
    Words, containers, has_user_namespace, name, named, plural, quoted, security, security_list, security_text,
    setters, those, violation,
};
use super::{Check, Subject, Violation};

/// By name, in the order of messages.
pub const CHECKS: &[(&str, Check)] = &[
    ("appArmorProfile", app_armor),
    ("capabilities_baseline", capabilities),
    ("hostNamespaces", host_namespaces),
    ("hostPathVolumes", host_paths),
    ("hostPorts", host_ports),
    ("hostProbesAndHostLifecycle", host_probes),
    ("privileged", privileged),
    ("procMount", proc_mount),
    ("seLinuxOptions", selinux),
    ("seccompProfile_baseline", seccomp),
    ("sysctls", sysctls),
    ("windowsHostProcess", windows_host_process),
];

const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// A safe sysctl, and the minor version since which it is.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn app_armor(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let mut values = Words::new();
    let mut is_bad = |of: &Value| {
        let profile = security(of, "/appArmorProfile");
        let kind = profile.map(|profile| profile.get("type").and_then(Value::as_str).unwrap_or(""));
        let bad = kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        values.extend(bad.map(str::to_owned));
        bad.is_some()
    };
    let of_pod = is_bad(pod.spec);
    let of_containers = those(pod, is_bad);
    let mut annotations: Vec<String> = crate::meta::pairs(pod.metadata.get("annotations"))
        .filter(|(key, value)| {
            let fine = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APP_ARMOR_PREFIX) && !fine
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    let mut who: Vec<String> = setters(of_pod, &of_containers).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    Some(violation(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values))))
}

fn capabilities(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let mut forbidden = Words::new();
    let bad = those(pod, |container| {
        let added = security_list(container, "/capabilities/add");
        let wrong: Vec<&&str> = added.iter().filter(|name| !CAPABILITIES.contains(*name)).collect();
        forbidden.extend(wrong.iter().map(|name| (**name).to_owned()));
        !wrong.is_empty()
    });
    let detail =
        || format!("{} must not include {} in securityContext.capabilities.add", named(&bad), quoted(&forbidden));
    (!bad.is_empty()).then(|| violation("non-default capabilities", detail()))
}

fn host_namespaces(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"];
    let bad: Vec<String> = shared
        .iter()
        .filter(|field| pod.spec.get(**field) == Some(&Value::Bool(true)))
        .map(|field| format!("{field}=true"))
        .collect();
    (!bad.is_empty()).then(|| violation("host namespaces", bad.join(", ")))
}

fn host_paths(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let volumes = pod.spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let bad: Vec<String> =
        volumes.filter(|volume| volume.get("hostPath").is_some_and(|v| !v.is_null())).map(name).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", bad.len()), quoted(&bad));
    (!bad.is_empty()).then(|| violation("hostPath volumes", detail()))
}

fn host_ports(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let mut ports = Words::new();
    let bad = those(pod, |container| {
        let all = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        let taken: Vec<i64> = all.filter_map(|port| port.get("hostPort")?.as_i64()).filter(|port| *port != 0).collect();
        ports.extend(taken.iter().map(ToString::to_string));
        !taken.is_empty()
    });
    let detail = || {
        let list: Vec<&str> = ports.iter().map(String::as_str).collect();
        let (uses, port) = (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", list.len()));
        format!("{} {uses} {port} {}", named(&bad), list.join(", "))
    };
    (!bad.is_empty()).then(|| violation("hostPort", detail()))
}

fn host_probes(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor < 34 {
        return None;
    }
    let (mut bad, mut hosts) = (Words::new(), Words::new());
    let places = ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    for container in containers(pod) {
        for handler in places.iter().filter_map(|place| container.pointer(place)) {
            for way in ["/httpGet/host", "/tcpSocket/host"] {
                let host = handler.pointer(way).and_then(Value::as_str).filter(|host| !host.is_empty());
                if let Some(host) = host {
                    bad.insert(name(container));
                    hosts.insert(host.to_owned());
                }
            }
        }
    }
    let detail = || {
        let bad: Vec<String> = bad.iter().cloned().collect();
        let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
        format!("{} {} {what} {}", named(&bad), plural("uses", "use", bad.len()), quoted(&hosts))
    };
    (!bad.is_empty()).then(|| violation("probe or lifecycle host", detail()))
}

fn privileged(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let bad = those(pod, |container| security(container, "/privileged") == Some(&Value::Bool(true)));
    let detail = || format!("{} must not set securityContext.privileged=true", named(&bad));
    (!bad.is_empty()).then(|| violation("privileged", detail()))
}

fn proc_mount(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && has_user_namespace(pod) {
        return None;
    }
    unmasked_proc(pod, minor)
}

/// Whatever the pod's users are.
pub fn unmasked_proc(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let mut kinds = Words::new();
    let bad = those(pod, |container| {
        let kind = security_text(container, "/procMount").filter(|kind| *kind != "Default");
        kinds.extend(kind.map(str::to_owned));
        kind.is_some()
    });
    let detail = || format!("{} must not set securityContext.procMount to {}", named(&bad), quoted(&kinds));
    (!bad.is_empty()).then(|| violation("procMount", detail()))
}

fn selinux(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    let (mut types, mut user, mut role) = (Words::new(), false, false);
    let mut is_bad = |of: &Value| {
        let Some(options) = security(of, "/seLinuxOptions") else { return false };
        let text = |field: &str| options.get(field).and_then(Value::as_str).unwrap_or("");
        let kind = text("type");
        let fine = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (minor >= 31 && kind == "container_engine_t");
        if !fine {
            types.insert(kind.to_owned());
        }
        let (has_user, has_role) = (!text("user").is_empty(), !text("role").is_empty());
        user |= has_user;
        role |= has_role;
        !fine || has_user || has_role
    };
    let of_pod = is_bad(pod.spec);
    let of_containers = those(pod, is_bad);
    let who = setters(of_pod, &of_containers)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    what.extend(user.then(|| "user may not be set".to_owned()));
    what.extend(role.then(|| "role may not be set".to_owned()));
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Some(violation("seLinuxOptions", detail))
}

/// Whether a seccomp profile confines anything.
pub fn is_confined(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

/// The type of the seccomp profile, where one is set.
pub fn seccomp_type(of: &Value) -> Option<&str> {
    security(of, "/seccompProfile").map(|profile| profile.get("type").and_then(Value::as_str).unwrap_or(""))
}

/// Who sets a seccomp profile that confines nothing.
pub fn bad_seccomp(pod: &Subject<'_>) -> Option<Violation> {
    let mut kinds = Words::new();
    let mut is_bad = |of: &Value| {
        let kind = seccomp_type(of).filter(|kind| !is_confined(kind));
        kinds.extend(kind.map(str::to_owned));
        kind.is_some()
    };
    let of_pod = is_bad(pod.spec);
    let of_containers = those(pod, is_bad);
    let who = setters(of_pod, &of_containers)?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&kinds));
    Some(violation("seccompProfile", detail))
}

fn seccomp(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    if minor >= 19 {
        return bad_seccomp(pod);
    }
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let fine = |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let names: Words = containers(pod).map(name).collect();
    let bad: Words = crate::meta::pairs(pod.metadata.get("annotations"))
        .filter(|(key, _)| {
            let of = key.strip_prefix("container.seccomp.security.alpha.kubernetes.io/");
            *key == POD || of.is_some_and(|name| names.contains(name))
        })
        .filter(|(_, value)| !fine(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let detail = || {
        let list: Vec<&str> = bad.iter().map(String::as_str).collect();
        format!("forbidden {} {}", plural("annotation", "annotations", list.len()), list.join(", "))
    };
    (!bad.is_empty()).then(|| violation("seccompProfile", detail()))
}

fn sysctls(pod: &Subject<'_>, minor: u32) -> Option<Violation> {
    let set = security(pod.spec, "/sysctls").and_then(Value::as_array).into_iter().flatten();
    let bad: Vec<String> = set
        .map(name)
        .filter(|sysctl| !SYSCTLS.iter().any(|(known, since)| known == sysctl && *since <= minor))
        .collect();
    (!bad.is_empty()).then(|| violation("forbidden sysctls", bad.join(", ")))
}

fn windows_host_process(pod: &Subject<'_>, _: u32) -> Option<Violation> {
    let is_bad = |of: &Value| security(of, "/windowsOptions/hostProcess") == Some(&Value::Bool(true));
    let who = setters(is_bad(pod.spec), &those(pod, is_bad))?;
    Some(violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true")))
}
