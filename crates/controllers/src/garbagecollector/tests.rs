//! Verdicts over one object, and who is looked at when something changes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use reconcile::{ApiAction, PatchBody};
use serde_json::json;

use super::graph::{Attention, Graph, Item, ItemKey};
use super::plan::{Dependent, Observed, Owner, plan};
use crate::model::at;

fn key(text: &str) -> ItemKey {
    let (resource, name) = text.split_once('/').unwrap();
    let group = if resource == "pods" { "" } else { "apps" };
    let kind = api::kinds::lookup(group, "v1", resource).unwrap();
    ItemKey { kind, namespace: "web".into(), name: name.into() }
}

fn owner(uid: &str, blocks: bool) -> OwnerReference {
    serde_json::from_value(json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid,
        "blockOwnerDeletion": blocks }))
    .unwrap()
}

/// `flags`: `d`eleting, `o`rphan finalizer, `f`oreground finalizer.
fn meta(uid: &str, flags: &str, owners: &[&str]) -> ObjectMeta {
    let mut finalizers = Vec::new();
    if flags.contains('o') {
        finalizers.push("orphan".to_owned());
    }
    if flags.contains('f') {
        finalizers.push("foregroundDeletion".to_owned());
    }
    finalizers.push("example.com/other".to_owned());
    ObjectMeta {
        uid: Some(uid.into()),
        deletion_timestamp: flags.contains('d').then(|| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0))),
        finalizers: Some(finalizers),
        owner_references: Some(owners.iter().map(|uid| owner(uid, true)).collect()),
        ..ObjectMeta::default()
    }
}

fn observed(flags: &str, owners: &[(&str, Owner)], dependents: &[(&str, bool)]) -> Observed {
    let dependent = |(name, blocks): &(&str, bool)| Dependent {
        key: key(name),
        owners: vec![owner("me", *blocks), owner("another", false)],
        leaving: name.ends_with("leaving"),
    };
    Observed {
        key: key("replicasets/r"),
        meta: Some(meta("me", flags, &[])),
        owners: owners.iter().map(|(uid, state)| (owner(uid, true), *state)).collect(),
        dependents: dependents.iter().map(dependent).collect(),
    }
}

fn check(flags: &str, owners: &[(&str, Owner)], dependents: &[(&str, bool)], expect: &str) {
    assert_eq!(plan(&observed(flags, owners, dependents)).render(), expect, "{flags} {owners:?}");
}

#[test]
fn verdicts() {
    use Owner::{Absent, Leaving, Lives};
    let patch = "\n  patch replicasets/web/r";
    check("", &[], &[], "0 owners live");
    check("", &[("a", Lives)], &[], "1 owners live");
    check("", &[("a", Absent)], &[], "no owner lives: 0 leave, 1 are gone\n  delete replicasets/web/r");
    check("", &[("a", Lives), ("b", Absent)], &[], &format!("1 owners live, 0 leave, 1 are gone{patch}"));
    check("d", &[("a", Absent)], &[], "being deleted");
    check("df", &[], &[("pods/p", true), ("pods/q", false)], "1 dependents block it");
    check("df", &[], &[("pods/q", false)], &format!("no dependent blocks it{patch}"));
    check("do", &[], &[("pods/p", true)], &format!("orphaning 1 dependents\n  patch pods/web/p{patch}"));
    check(
        "",
        &[("a", Leaving)],
        &[("pods/p", true)],
        "no owner lives: 1 leave, 0 are gone\n  delete replicasets/web/r",
    );
    check(
        "",
        &[("a", Leaving)],
        &[("pods/p", true), ("pods/leaving", true)],
        &format!("no owner lives: 1 leave, 0 are gone{patch}\n  delete replicasets/web/r"),
    );
}

#[test]
fn the_way_of_deletion_follows_owner_and_object() {
    use Owner::{Absent, Leaving};
    let propagation = |flags: &str, owner: Owner, dependents: &[(&str, bool)]| {
        let plan = plan(&observed(flags, &[("a", owner)], dependents));
        let ApiAction::Delete { propagation, uid, .. } = &plan.actions[0] else { panic!("{}", plan.render()) };
        assert_eq!(uid.as_deref(), Some("me"));
        format!("{:?}", propagation.unwrap())
    };
    assert_eq!(propagation("", Absent, &[("pods/p", true)]), "Background");
    assert_eq!(propagation("", Leaving, &[]), "Background");
    assert_eq!(propagation("", Leaving, &[("pods/p", true)]), "Foreground");
    assert_eq!(propagation("o", Absent, &[]), "Orphan");
    assert_eq!(propagation("f", Absent, &[]), "Foreground");
}

#[test]
fn orphans_keep_their_other_owners_and_objects_their_other_finalizers() {
    let plan = plan(&observed("do", &[], &[("pods/p", true)]));
    let bodies: Vec<_> = plan
        .actions
        .iter()
        .map(|action| match action {
            ApiAction::Patch { body: PatchBody::Merge(body), .. } => body.clone(),
            other => panic!("{}", other.summary()),
        })
        .collect();
    assert_eq!(bodies[0]["metadata"]["ownerReferences"][0]["uid"], "another");
    assert_eq!(bodies[0]["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    assert_eq!(bodies[1]["metadata"]["finalizers"], json!(["example.com/other"]));
}

fn put(graph: &mut Graph, name: &str, flags: &str, owners: &[&str]) -> Attention {
    let uid = name.split_once('/').unwrap().1;
    graph.put(&key(name), Item::of(&meta(uid, flags, owners)))
}

fn now(keys: &[&str]) -> Attention {
    Attention { now: keys.iter().map(|name| key(name)).collect(), later: Vec::new() }
}

#[test]
fn a_change_draws_attention_to_whom_it_concerns() {
    let mut graph = Graph::default();
    let early = put(&mut graph, "pods/p", "", &["r"]);
    assert_eq!(early, Attention { now: Vec::new(), later: vec![key("pods/p")] }, "its owner may still appear");
    assert_eq!(put(&mut graph, "replicasets/r", "", &[]), Attention::default());
    assert_eq!(put(&mut graph, "pods/p", "", &["r"]), Attention::default());
    assert!(graph.suspects().is_empty());

    assert_eq!(put(&mut graph, "replicasets/r", "df", &[]), now(&["replicasets/r", "pods/p"]));
    assert_eq!(graph.suspects().len(), 2);
    assert_eq!(graph.remove(&key("pods/p")), now(&["replicasets/r"]), "the owner waited for it");

    put(&mut graph, "replicasets/r", "", &[]);
    put(&mut graph, "pods/p", "", &["r"]);
    assert_eq!(graph.remove(&key("replicasets/r")), now(&["pods/p"]));
    assert_eq!(graph.suspects(), [key("pods/p")]);
    assert_eq!(graph.remove(&key("replicasets/never")), Attention::default());
}

#[test]
fn a_reborn_owner_is_another() {
    let mut graph = Graph::default();
    graph.put(&key("replicasets/r"), Item::of(&meta("old", "", &[])));
    put(&mut graph, "pods/p", "", &["old"]);
    let attention = graph.put(&key("replicasets/r"), Item::of(&meta("new", "", &[])));
    assert_eq!(attention, now(&["pods/p"]));
    assert!(graph.by_uid("old").is_none() && graph.by_uid("new").is_some());
    assert_eq!(graph.suspects(), [key("pods/p")]);
}
