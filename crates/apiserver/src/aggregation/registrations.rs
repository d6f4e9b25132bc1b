//! APIServices of group versions that users define: made and taken away by the leader, as those of built-in groups are
//! made at the start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::kinds::Kind;
use api::meta;
use api::status::Status;
use serde_json::{Value, json};

use super::PREFIX;
use crate::core::{Core, Request};
use crate::object::encode::decode;
use crate::registry::delete::{DeleteOptions, delete};
use crate::registry::write::create;

/// Said of those that come and go by themselves.
const MANAGED_LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
const MANAGED: &str = "true";
/// As Kubernetes has it for all definitions.
const GROUP_PRIORITY: i64 = 1000;
const VERSION_PRIORITY: i64 = 100;
/// Between two looks when nothing is heard: another server may lead now.
const EVERY: Duration = Duration::from_secs(10);

pub fn kind() -> &'static Kind {
    api::kinds::lookup(super::GROUP, "v1", "apiservices").expect("APIServices are in the kinds table")
}

pub fn spawn_upkeep(core: Arc<Core>) {
    let shutdown = core.config.shutdown.clone();
    tokio::spawn(shutdown.run_until_cancelled_owned(run(core)));
}

async fn run(core: Arc<Core>) {
    let mut changes = core.catalog.changes();
    let mut leadership = core.store.leadership();
    loop {
        let leads = *leadership.borrow_and_update();
        if leads && let Err(error) = settle(&core).await {
            tracing::warn!(%error, "the APIServices of definitions are not up to date");
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn settle(core: &Arc<Core>) -> Result<(), Status> {
    let catalog = core.catalog.current().clone();
    let served: BTreeSet<(&str, &str)> =
        catalog.served().into_iter().map(|custom| (custom.kind().group, custom.kind().version)).collect();
    let view = core.store.view();
    let present: Vec<Value> = view.range(PREFIX.as_bytes(), None).map(|entry| decode(&entry.value)).collect();
    let Plan { create: wanted, delete: obsolete } = plan(&served, &present);
    let request = |name: &str| Request { as_leader: true, ..Request::by_server(core, kind(), "", name) };
    for object in wanted {
        match create(&request(meta::name(&object)), object.clone(), Vec::new()).await {
            Err(status) if status.reason != "AlreadyExists" => return Err(status),
            _ => {}
        }
    }
    for name in obsolete {
        match delete(&request(&name), &DeleteOptions::default()).await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq)]
struct Plan {
    create: Vec<Value>,
    delete: Vec<String>,
}

/// Those that somebody wrote himself stay as they are.
fn plan(served: &BTreeSet<(&str, &str)>, present: &[Value]) -> Plan {
    let name = |(group, version): &(&str, &str)| format!("{version}.{group}");
    let absent = |of: &&(&str, &str)| !present.iter().any(|object| meta::name(object) == name(of));
    let create = served.iter().filter(absent).map(|of| {
        json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": { "name": name(of), "labels": { MANAGED_LABEL: MANAGED } },
            "spec": { "group": of.0, "version": of.1, "groupPriorityMinimum": GROUP_PRIORITY,
                "versionPriority": VERSION_PRIORITY } })
    });
    let is_managed = |object: &&Value| {
        meta::labels(object).any(|label| label == (MANAGED_LABEL, MANAGED))
            && object.pointer("/spec/service").is_none_or(Value::is_null)
    };
    let unserved = |object: &&Value| !served.iter().any(|of| name(of) == meta::name(object));
    let delete = present.iter().filter(is_managed).filter(unserved).map(|object| meta::name(object).to_owned());
    Plan { create: create.collect(), delete: delete.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_follows_what_is_served() {
        let check = |served: &[(&str, &str)], present: &[Value], create: &[&str], delete: &[&str]| {
            let plan = plan(&served.iter().copied().collect(), present);
            let made: Vec<&str> = plan.create.iter().map(meta::name).collect();
            assert_eq!((made.as_slice(), plan.delete), (create, delete.iter().map(|d| (*d).to_owned()).collect()));
        };
        let object = |name: &str, labels: Value, spec: Value| json!({ "metadata": { "name": name, "labels": labels }, "spec": spec });
        let managed = || json!({ MANAGED_LABEL: MANAGED });
        let own = object("v1.a.b", managed(), json!({}));
        check(&[("a.b", "v1"), ("a.b", "v2")], std::slice::from_ref(&own), &["v2.a.b"], &[]);
        check(&[], std::slice::from_ref(&own), &[], &["v1.a.b"]);
        check(&[], &[object("v1.a.b", json!({}), json!({}))], &[], &[]);
        check(&[], &[object("v1.a.b", json!({ MANAGED_LABEL: "onstart" }), json!({}))], &[], &[]);
        check(&[], &[object("v1.a.b", managed(), json!({ "service": { "name": "s" } }))], &[], &[]);
        check(&[("a.b", "v1")], &[object("v1.a.b", json!({}), json!({ "service": {} }))], &[], &[]);
    }
}
