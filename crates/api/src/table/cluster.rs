//! Nodes, namespaces, configuration, leases, classes, quotas.

use serde_json::Value;

use super::{
    AGE, NAME, NONE, Printer, UNKNOWN, age_of, count, entries_at, int_at, joined, list_at, shown, str_at, text, wide,
};
use crate::meta;

pub(super) const NODE: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Roles"),
        AGE,
        text("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: |object, now| {
        let reported = |field: &str| -> Value {
            match str_at(object, &format!("/status/nodeInfo/{field}")) {
                "" => UNKNOWN.into(),
                text => text.into(),
            }
        };
        vec![
            meta::name(object).into(),
            node_status(object).into(),
            roles(object),
            age_of(object, now),
            str_at(object, "/status/nodeInfo/kubeletVersion").into(),
            address(object, "InternalIP"),
            address(object, "ExternalIP"),
            reported("osImage"),
            reported("kernelVersion"),
            reported("containerRuntimeVersion"),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let ready = list_at(node, "/status/conditions").iter().find(|c| str_at(c, "/type") == "Ready");
    let mut status = match ready.map(|c| str_at(c, "/status")) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> Value {
    let mut roles: Vec<String> = meta::labels(node)
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(value),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .map(str::to_owned)
        .collect();
    roles.sort();
    joined(roles, ",")
}

fn address(node: &Value, kind: &str) -> Value {
    list_at(node, "/status/addresses")
        .iter()
        .find(|address| str_at(address, "/type") == kind)
        .map_or(NONE.into(), |address| str_at(address, "/address").into())
}

pub(super) const NAMESPACE: Printer = Printer {
    columns: &[NAME, text("Status"), AGE],
    cells: |object, now| vec![meta::name(object).into(), str_at(object, "/status/phase").into(), age_of(object, now)],
};

pub(super) const CONFIG_MAP: Printer = Printer {
    columns: &[NAME, count("Data"), AGE],
    cells: |object, now| {
        let entries = entries_at(object, "/data") + entries_at(object, "/binaryData");
        vec![meta::name(object).into(), entries.into(), age_of(object, now)]
    },
};

pub(super) const SECRET: Printer = Printer {
    columns: &[NAME, text("Type"), count("Data"), AGE],
    cells: |object, now| {
        let kind = str_at(object, "/type").into();
        vec![meta::name(object).into(), kind, entries_at(object, "/data").into(), age_of(object, now)]
    },
};

pub(super) const SERVICE_ACCOUNT: Printer = Printer {
    columns: &[NAME, count("Secrets"), AGE],
    cells: |object, now| vec![meta::name(object).into(), list_at(object, "/secrets").len().into(), age_of(object, now)],
};

pub(super) const LEASE: Printer = Printer {
    columns: &[NAME, text("Holder"), AGE],
    cells: |object, now| {
        vec![meta::name(object).into(), str_at(object, "/spec/holderIdentity").into(), age_of(object, now)]
    },
};

pub(super) const RUNTIME_CLASS: Printer = Printer {
    columns: &[NAME, text("Handler"), AGE],
    cells: |object, now| vec![meta::name(object).into(), str_at(object, "/handler").into(), age_of(object, now)],
};

pub(super) const PRIORITY_CLASS: Printer = Printer {
    columns: &[NAME, count("Value"), text("Global-Default"), AGE, text("PreemptionPolicy")],
    cells: |object, now| {
        let is_default = object.get("globalDefault") == Some(&Value::Bool(true));
        vec![
            meta::name(object).into(),
            int_at(object, "/value").into(),
            if is_default { "true" } else { "false" }.into(),
            age_of(object, now),
            str_at(object, "/preemptionPolicy").into(),
        ]
    },
};

pub(super) const RESOURCE_QUOTA: Printer = Printer {
    columns: &[NAME, text("Request"), text("Limit"), AGE],
    cells: |object, now| {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        let hard = object.pointer("/status/hard").and_then(Value::as_object);
        for (name, allowed) in hard.into_iter().flatten() {
            let used = shown(object.pointer("/status/used").and_then(|used| used.get(name)));
            let entry = format!("{name}: {used}/{}", shown(Some(allowed)));
            if name.starts_with("limits.") { limits.push(entry) } else { requests.push(entry) }
        }
        vec![meta::name(object).into(), requests.join(", ").into(), limits.join(", ").into(), age_of(object, now)]
    },
};
