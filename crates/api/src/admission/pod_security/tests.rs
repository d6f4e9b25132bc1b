//! Pods and what is said of them.

use serde_json::{Value, json};

use super::*;

fn said(level: Level, minor: Option<u32>, spec: &Value, annotations: &Value) -> String {
    let metadata = json!({ "annotations": annotations });
    details(&violations(Standard { level, minor }, &Subject { metadata: &metadata, spec }))
}

fn baseline(spec: Value, expect: &str) {
    assert_eq!(said(Level::Baseline, None, &spec, &json!({})), expect, "{spec}");
}

/// A container that passes `restricted`, with changes.
fn hardened(change: Value) -> Value {
    let mut context = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
        "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    for (field, value) in change.as_object().into_iter().flatten() {
        context[field] = value.clone();
    }
    json!({ "containers": [{ "name": "a", "securityContext": context }] })
}

fn restricted(spec: Value, expect: &str) {
    assert_eq!(said(Level::Restricted, None, &spec, &json!({})), expect, "{spec}");
}

fn container(security: Value) -> Value {
    json!({ "containers": [{ "name": "a", "securityContext": security }] })
}

#[test]
fn what_baseline_refuses() {
    baseline(json!({ "containers": [{ "name": "a" }] }), "");
    baseline(
        json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true }),
        "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
    );
    baseline(
        container(json!({ "privileged": true })),
        "privileged (container \"a\" must not set securityContext.privileged=true)",
    );
    baseline(
        container(json!({ "capabilities": { "add": ["NET_ADMIN", "CHOWN"] } })),
        "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
    );
    baseline(
        json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/" } }, { "name": "w", "hostPath": { "path": "/" } }] }),
        "hostPath volumes (volumes \"v\", \"w\")",
    );
    baseline(
        json!({ "containers": [{ "name": "a", "ports": [{ "hostPort": 80 }, { "hostPort": 443 }] }, { "name": "b",
            "ports": [{ "hostPort": 80 }] }] }),
        "hostPort (containers \"a\", \"b\" use hostPorts 443, 80)",
    );
    baseline(
        json!({ "containers": [{ "name": "a", "livenessProbe": { "httpGet": { "host": "evil" } } }] }),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"evil\")",
    );
    baseline(
        container(json!({ "procMount": "Unmasked" })),
        "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
    );
    baseline(
        json!({ "securityContext": { "seLinuxOptions": { "type": "t", "user": "u", "role": "r" } } }),
        "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"t\"; user may not be set; role may \
         not be set)",
    );
    baseline(
        json!({ "securityContext": { "seccompProfile": { "type": "Unconfined" } } }),
        "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    baseline(
        json!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax" }, { "name": "net.ipv4.tcp_rmem" }] } }),
        "forbidden sysctls (kernel.msgmax)",
    );
    baseline(
        json!({ "securityContext": { "windowsOptions": { "hostProcess": true } } }),
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
    );
    baseline(
        container(json!({ "appArmorProfile": { "type": "Unconfined" } })),
        "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
    );
    let annotated = said(
        Level::Baseline,
        None,
        &json!({}),
        &json!({ "container.apparmor.security.beta.kubernetes.io/a": "unconfined" }),
    );
    assert!(annotated.starts_with("forbidden AppArmor profile (annotation must not set"), "{annotated}");
}

#[test]
fn what_restricted_refuses() {
    restricted(hardened(json!({})), "");
    restricted(
        json!({ "containers": [{ "name": "a" }] }),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot \
         != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \
         \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
    restricted(
        hardened(json!({ "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"] } })),
        "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
    );
    restricted(hardened(json!({ "runAsUser": 0 })), "runAsUser=0 (container \"a\" must not set runAsUser=0)");
    restricted(
        hardened(json!({ "runAsNonRoot": false })),
        "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
    );
    let mut volumes = hardened(json!({}));
    volumes["volumes"] = json!([{ "name": "v", "nfs": {} }, { "name": "e", "emptyDir": {} }]);
    restricted(volumes, "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")");
    let mut users = hardened(json!({ "runAsUser": 0, "runAsNonRoot": false }));
    users["hostUsers"] = false.into();
    restricted(users, "");
}

#[test]
fn versions_change_the_rules() {
    let check = |level, minor, spec: Value, fine: bool| {
        assert_eq!(said(level, Some(minor), &spec, &json!({})).is_empty(), fine, "{level:?} 1.{minor} {spec}");
    };
    let sysctl = |name: &str| json!({ "securityContext": { "sysctls": [{ "name": name }] } });
    check(Level::Baseline, 31, sysctl("net.ipv4.tcp_rmem"), false);
    check(Level::Baseline, 32, sysctl("net.ipv4.tcp_rmem"), true);
    check(
        Level::Restricted,
        7,
        json!({ "securityContext": { "runAsNonRoot": true }, "containers": [{ "name": "a" }] }),
        true,
    );
    let probe = json!({ "containers": [{ "name": "a", "readinessProbe": { "tcpSocket": { "host": "x" } } }] });
    check(Level::Baseline, 33, probe.clone(), true);
    check(Level::Baseline, 34, probe, false);
}

#[test]
fn labels() {
    let check = |labels: Value, expect: [&str; 3], errors: usize| {
        let get =
            |name: &str| labels.get(format!("pod-security.kubernetes.io/{name}").as_str()).and_then(Value::as_str);
        let get = |label: &str| get(label.trim_start_matches("pod-security.kubernetes.io/"));
        let (policy, found) = Policy::of_labels(&Policy::default(), get);
        let shown = [policy.enforce, policy.audit, policy.warn].map(|standard| standard.to_string());
        assert_eq!((shown.each_ref().map(String::as_str), found.len()), (expect, errors), "{labels}");
    };
    let key = |name: &str| format!("pod-security.kubernetes.io/{name}");
    check(json!({}), ["privileged:latest"; 3], 0);
    check(
        json!({ key("enforce"): "baseline", key("enforce-version"): "v1.24" }),
        ["baseline:v1.24", "privileged:latest", "baseline:v1.24"],
        0,
    );
    check(
        json!({ key("enforce"): "baseline", key("warn"): "restricted", key("audit"): "restricted" }),
        ["baseline:latest", "restricted:latest", "restricted:latest"],
        0,
    );
    check(
        json!({ key("enforce"): "no", key("warn-version"): "1.2" }),
        ["restricted:latest", "privileged:latest", "privileged:latest"],
        2,
    );
}

#[test]
fn labels_come_before_defaults() {
    let standard = |level: &str, version: &str| Standard::parse(level, version).unwrap();
    let defaults = Policy {
        enforce: standard("baseline", "v1.30"),
        audit: standard("restricted", "latest"),
        warn: standard("restricted", "v1.29"),
    };
    let check = |labels: &[(&str, &str)], expect: [&str; 3]| {
        let get = |name: &str| labels.iter().find(|(label, _)| name == format!("{PREFIX}{label}")).map(|(_, v)| *v);
        let (policy, _) = Policy::of_labels(&defaults, get);
        assert_eq!([policy.enforce, policy.audit, policy.warn].map(|one| one.to_string()), expect, "{labels:?}");
    };
    check(&[], ["baseline:v1.30", "restricted:latest", "restricted:v1.29"]);
    check(&[("enforce", "privileged")], ["privileged:v1.30", "restricted:latest", "restricted:v1.29"]);
    check(
        &[("enforce-version", "latest"), ("warn", "baseline")],
        ["baseline:latest", "restricted:latest", "baseline:v1.29"],
    );
    assert!(Standard::parse("strict", "latest").is_err() && Standard::parse("baseline", "1").is_err());
}
