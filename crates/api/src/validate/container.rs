//! Containers of a pod spec: the lists as a whole, then one container.

use std::collections::HashSet;

use super::at::{At, Errors};
use super::{env, probe, resources, text};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PORT_MAX: i64 = 65_535;
const ID_MAX: i64 = i32::MAX as i64;

/// All three lists; `volumes` are the names that may be mounted.
pub(super) fn containers(spec: &At, volumes: &HashSet<&str>, errors: &mut Errors) {
    let (main, init, ephemeral) = (spec.get("containers"), spec.get("initContainers"), spec.get("ephemeralContainers"));
    if main.is_empty() {
        errors.required(&main, "");
    }
    let host_network = spec.get("hostNetwork").is_true();
    let mut names = HashSet::new();
    let mut host_ports = HashSet::new();
    for (list, kind) in [(&main, Role::Main), (&init, Role::Init), (&ephemeral, Role::Ephemeral)] {
        for container in list.items() {
            self::container(&container, kind, volumes, errors);
            let name = container.get("name");
            if !name.is_empty() && !names.insert(name.text()) {
                errors.duplicate(&name, name.text());
            }
            ports(&container.get("ports"), host_network, errors);
            resize_policies(&container.get("resizePolicy"), spec.get("restartPolicy").text(), errors);
            let target = container.get("targetContainerName");
            let known = || main.list().iter().chain(init.list()).any(|other| other.get("name") == Some(target.value));
            if kind == Role::Ephemeral && !target.is_empty() && !known() {
                errors.not_found(&target);
            }
            if kind == Role::Main {
                unique_host_ports(&container.get("ports"), &mut host_ports, errors);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    Init,
    Ephemeral,
}

fn container(container: &At, role: Role, volumes: &HashSet<&str>, errors: &mut Errors) {
    let name = container.get("name");
    if errors.require(&name) {
        errors.rule(&name, text::dns_label);
    }
    let image = container.get("image");
    if errors.require(&image) && image.text().trim() != image.text() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
    errors.one_of(&container.get("imagePullPolicy"), &["Always", "IfNotPresent", "Never"]);
    errors.one_of(&container.get("terminationMessagePolicy"), &["FallbackToLogsOnError", "File"]);
    env::variables(container, errors);
    mounts(&container.get("volumeMounts"), volumes, errors);
    resources::requirements(&container.get("resources"), errors);
    security(&container.get("securityContext"), errors);
    let is_sidecar = container.get("restartPolicy").text() == "Always";
    match role {
        Role::Main => {}
        Role::Init => {
            errors.one_of_if_set(&container.get("restartPolicy"), &["Always", "OnFailure", "Never"]);
        }
        Role::Ephemeral => {
            return ephemeral(container, errors);
        }
    }
    if role == Role::Init && !is_sidecar {
        for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if !container.get(field).is_absent() {
                errors.forbidden(
                    &container.get(field),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
        return;
    }
    probe::probes(container, errors);
}

/// At most one for each resource; what never starts again cannot start again for a resize.
fn resize_policies(policies: &At, restart_policy: &str, errors: &mut Errors) {
    let mut names = HashSet::new();
    for policy in policies.items() {
        let (name, way) = (policy.get("resourceName"), policy.get("restartPolicy"));
        errors.one_of(&name, &["cpu", "memory"]);
        errors.one_of(&way, &["NotRequired", "RestartContainer"]);
        if !names.insert(name.text()) {
            errors.duplicate(&policy, name.text());
        }
        if restart_policy == "Never" && way.text() == "RestartContainer" {
            errors.invalid(&way, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

/// Fields that mean nothing for a container that is looked through and not relied on.
fn ephemeral(container: &At, errors: &mut Errors) {
    const FORBIDDEN: [&str; 8] = [
        "ports",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
        "resources",
        "resizePolicy",
        "restartPolicy",
    ];
    let mut refuse = |field: &At| {
        if !field.is_empty() {
            errors.forbidden(field, "cannot be set for an Ephemeral Container");
        }
    };
    for field in FORBIDDEN {
        refuse(&container.get(field));
    }
    for mount in container.get("volumeMounts").items() {
        refuse(&mount.get("subPath"));
        refuse(&mount.get("subPathExpr"));
    }
}

fn ports(ports: &At, host_network: bool, errors: &mut Errors) {
    let mut names = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.is_empty() {
            errors.rule(&name, text::port_name);
            if !names.insert(name.text()) {
                errors.duplicate(&name, name.text());
            }
        }
        let number = port.get("containerPort");
        match number.int() {
            None | Some(0) => errors.required(&number, ""),
            Some(_) => errors.in_range(&number, 1, PORT_MAX),
        }
        let host_port = port.get("hostPort");
        if host_port.int().is_some_and(|n| n != 0) {
            errors.in_range(&host_port, 1, PORT_MAX);
            if host_network && host_port.int() != number.int() {
                errors.invalid(&number, "must match `hostPort` when `hostNetwork` is true");
            }
        }
        errors.one_of(&port.get("protocol"), PROTOCOLS);
    }
}

fn unique_host_ports(ports: &At, taken: &mut HashSet<String>, errors: &mut Errors) {
    for port in ports.items() {
        let Some(number) = port.get("hostPort").int().filter(|n| *n != 0) else { continue };
        let key = format!("{}/{}/{number}", port.get("protocol").text(), port.get("hostIP").text());
        if taken.contains(&key) {
            errors.duplicate(&port.get("hostPort"), key);
        } else {
            taken.insert(key);
        }
    }
}

fn mounts(mounts: &At, volumes: &HashSet<&str>, errors: &mut Errors) {
    let mut paths = HashSet::new();
    for mount in mounts.items() {
        let name = mount.get("name");
        if errors.require(&name) && !volumes.contains(name.text()) {
            errors.not_found(&name);
        }
        let path = mount.get("mountPath");
        if errors.require(&path) && !paths.insert(path.text()) {
            errors.invalid(&path, "must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            errors.rule(&mount.get(field), text::relative_path);
        }
        if !mount.get("subPath").is_empty() && !mount.get("subPathExpr").is_empty() {
            errors.invalid(&mount.get("subPathExpr"), "subPathExpr and subPath are mutually exclusive");
        }
        errors.one_of_if_set(&mount.get("mountPropagation"), &["Bidirectional", "HostToContainer", "None"]);
    }
}

fn security(context: &At, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        errors.in_range(&context.get(field), 0, ID_MAX);
    }
    let escalation = context.get("allowPrivilegeEscalation");
    if *escalation.value == serde_json::Value::Bool(false) {
        if context.get("privileged").is_true() {
            errors.invalid(context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context.get("capabilities").get("add").list();
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            errors.invalid(
                context,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    errors.one_of_if_set(&context.get("procMount"), &["Default", "Unmasked"]);
    seccomp(&context.get("seccompProfile"), errors);
}

pub(super) fn seccomp(profile: &At, errors: &mut Errors) {
    if profile.is_absent() {
        return;
    }
    let kind = profile.get("type");
    errors.one_of(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    let file = profile.get("localhostProfile");
    match (kind.text(), file.is_empty()) {
        ("Localhost", true) => errors.required(&file, "must be set when seccomp type is Localhost"),
        ("Localhost", false) => errors.rule(&file, text::relative_path),
        (_, true) => {}
        (_, false) => errors.invalid(&file, "can only be set when seccomp type is Localhost"),
    }
}
