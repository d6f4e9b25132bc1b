//! Volumes, claims, storage classes.

use serde_json::Value;

use super::{
    AGE, NAME, Printer, UNSET, age_of, boolean, count, int_at, is_true, joined, list_at, shown, str_at, text, wide,
};
use crate::meta;

pub(super) const VOLUME: Printer = Printer {
    columns: &[
        NAME,
        text("Capacity"),
        text("Access Modes"),
        text("Reclaim Policy"),
        text("Status"),
        text("Claim"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Reason"),
        AGE,
        wide("VolumeMode"),
    ],
    cells: |object, now| {
        let claim = match str_at(object, "/spec/claimRef/name") {
            "" => String::new(),
            name => format!("{}/{name}", str_at(object, "/spec/claimRef/namespace")),
        };
        vec![
            meta::name(object).into(),
            shown(object.pointer("/spec/capacity/storage")).into(),
            access_modes(object, "/spec/accessModes"),
            str_at(object, "/spec/persistentVolumeReclaimPolicy").into(),
            phase(object),
            claim.into(),
            str_at(object, "/spec/storageClassName").into(),
            or_unset(object, "/spec/volumeAttributesClassName"),
            str_at(object, "/status/reason").into(),
            age_of(object, now),
            or_unset(object, "/spec/volumeMode"),
        ]
    },
};

pub(super) const CLAIM: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Volume"),
        text("Capacity"),
        text("Access Modes"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        AGE,
        wide("VolumeMode"),
    ],
    cells: |object, now| {
        let bound = !str_at(object, "/spec/volumeName").is_empty();
        let capacity = if bound { shown(object.pointer("/status/capacity/storage")) } else { String::new() };
        let modes = if bound { access_modes(object, "/status/accessModes") } else { "".into() };
        vec![
            meta::name(object).into(),
            phase(object),
            str_at(object, "/spec/volumeName").into(),
            capacity.into(),
            modes,
            str_at(object, "/spec/storageClassName").into(),
            or_unset(object, "/spec/volumeAttributesClassName"),
            age_of(object, now),
            or_unset(object, "/spec/volumeMode"),
        ]
    },
};

pub(super) const CLASS: Printer = Printer {
    columns: &[
        NAME,
        text("Provisioner"),
        text("ReclaimPolicy"),
        text("VolumeBindingMode"),
        text("AllowVolumeExpansion"),
        AGE,
    ],
    cells: |object, now| {
        let is_default = meta::annotation(object, "storageclass.kubernetes.io/is-default-class") == Some("true");
        let name = meta::name(object);
        vec![
            if is_default { format!("{name} (default)") } else { name.to_owned() }.into(),
            str_at(object, "/provisioner").into(),
            str_at(object, "/reclaimPolicy").into(),
            str_at(object, "/volumeBindingMode").into(),
            if object.get("allowVolumeExpansion") == Some(&Value::Bool(true)) { "true" } else { "false" }.into(),
            age_of(object, now),
        ]
    },
};

pub(super) const DRIVER: Printer = Printer {
    columns: &[
        NAME,
        boolean("AttachRequired"),
        boolean("PodInfoOnMount"),
        boolean("StorageCapacity"),
        text("TokenRequests"),
        boolean("RequiresRepublish"),
        text("Modes"),
        AGE,
    ],
    cells: |object, now| {
        let audiences = list_at(object, "/spec/tokenRequests").iter().map(|request| str_at(request, "/audience"));
        let audiences: Vec<&str> = audiences.collect();
        let modes = list_at(object, "/spec/volumeLifecycleModes").iter().filter_map(Value::as_str);
        vec![
            meta::name(object).into(),
            (object.pointer("/spec/attachRequired") != Some(&Value::Bool(false))).into(),
            is_true(object, "/spec/podInfoOnMount").into(),
            is_true(object, "/spec/storageCapacity").into(),
            if object.pointer("/spec/tokenRequests").is_some() { audiences.join(",") } else { UNSET.to_owned() }.into(),
            is_true(object, "/spec/requiresRepublish").into(),
            joined(modes.map(str::to_owned), ","),
            age_of(object, now),
        ]
    },
};

pub(super) const NODE: Printer = Printer {
    columns: &[NAME, count("Drivers"), AGE],
    cells: |object, now| {
        vec![meta::name(object).into(), list_at(object, "/spec/drivers").len().into(), age_of(object, now)]
    },
};

pub(super) const STORAGE_CAPACITY: Printer = Printer {
    columns: &[NAME, text("StorageClassName"), text("Capacity")],
    cells: |object, _| {
        vec![
            meta::name(object).into(),
            str_at(object, "/storageClassName").into(),
            object.get("capacity").map_or(UNSET.to_owned(), |amount| shown(Some(amount))).into(),
        ]
    },
};

pub(super) const ATTACHMENT: Printer = Printer {
    columns: &[NAME, text("Attacher"), text("PV"), text("Node"), boolean("Attached"), AGE],
    cells: |object, now| {
        vec![
            meta::name(object).into(),
            str_at(object, "/spec/attacher").into(),
            str_at(object, "/spec/source/persistentVolumeName").into(),
            str_at(object, "/spec/nodeName").into(),
            is_true(object, "/status/attached").into(),
            age_of(object, now),
        ]
    },
};

pub(super) const ATTRIBUTES_CLASS: Printer = Printer {
    columns: &[NAME, text("DriverName"), AGE],
    cells: |object, now| vec![meta::name(object).into(), str_at(object, "/driverName").into(), age_of(object, now)],
};

/// Usage is as the server saw it last, the quota as it is.
pub(super) const BUCKET: Printer = Printer {
    columns: &[NAME, count("Entries"), count("Bytes"), count("Max Entries"), text("Max Bytes"), AGE],
    cells: |object, now| {
        vec![
            meta::name(object).into(),
            int_at(object, "/status/usage/entries").into(),
            int_at(object, "/status/usage/bytes").into(),
            int_at(object, "/spec/quota/maxEntries").into(),
            shown(object.pointer("/spec/quota/maxBytes")).into(),
            age_of(object, now),
        ]
    },
};

fn phase(object: &Value) -> Value {
    if meta::deletion_timestamp(object).is_empty() { str_at(object, "/status/phase") } else { "Terminating" }.into()
}

fn or_unset(object: &Value, pointer: &str) -> Value {
    match str_at(object, pointer) {
        "" => UNSET.into(),
        text => text.into(),
    }
}

/// `RWO,ROX`
fn access_modes(object: &Value, pointer: &str) -> Value {
    let short = |mode: &Value| match mode.as_str()? {
        "ReadWriteOnce" => Some("RWO"),
        "ReadOnlyMany" => Some("ROX"),
        "ReadWriteMany" => Some("RWX"),
        "ReadWriteOncePod" => Some("RWOP"),
        _ => None,
    };
    list_at(object, pointer).iter().filter_map(short).collect::<Vec<_>>().join(",").into()
}
