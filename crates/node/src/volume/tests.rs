use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::objects::{ObjectData, ObjectKind, ObjectRef};

fn pod(volumes: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "32Mi"}}}], "volumes": volumes}
    }))
    .unwrap()
}

fn objects(config: &[(&str, &str)]) -> Objects {
    let data: BTreeMap<String, Vec<u8>> =
        config.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    let data = Arc::new(ObjectData { data, resource_version: "1".into() });
    let key = |kind, name: &str| ObjectRef { kind, namespace: "ns".into(), name: name.into() };
    Objects::from([
        (key(ObjectKind::ConfigMap, "conf"), Some(data.clone())),
        (key(ObjectKind::Secret, "keys"), Some(data)),
    ])
}

fn write_pod(dir: &Path, pod: &Pod, objects: &Objects) -> Result<(), Failure> {
    let place = Place {
        pod: PodView::new(pod),
        pod_ip: None,
        host_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        node_cpu_millis: 1000,
        node_memory_bytes: 1 << 30,
    };
    let tokens = TokenTexts::from([(TokenKind::new(None, Some(600)), "secret".into())]);
    write_all(dir, place, Contents { objects, tokens: &tokens })
}

/// Writes one volume and compares the files a container would see.
fn check(volume: Value, expect: Result<&[(&str, &str, u32)], &str>) {
    let dir = tempfile::tempdir().unwrap();
    let result = write_pod(dir.path(), &pod(json!([volume])), &objects(&[("color", "red"), ("size", "L")]));
    let volume_dir = dir.path().join("v");
    match (result, expect) {
        (Ok(()), Ok(files)) => {
            for (path, text, mode) in files {
                let path = volume_dir.join(path);
                assert_eq!(std::fs::read_to_string(&path).unwrap(), *text);
                assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, *mode, "{volume}");
            }
            let shown = std::fs::read_dir(&volume_dir).unwrap().flatten();
            let shown = shown.filter(|e| !e.file_name().to_string_lossy().starts_with("..")).count();
            assert_eq!(shown, files.len(), "{volume}");
        }
        (Err(failure), Err(expect)) => assert_eq!(failure.message, expect),
        (result, expect) => panic!("{volume}: {result:?} is not {expect:?}"),
    }
}

#[test]
fn config_maps_and_secrets_become_files() {
    check(json!({"name": "v", "configMap": {"name": "conf"}}), Ok(&[("color", "red", 0o644), ("size", "L", 0o644)]));
    check(
        json!({"name": "v", "secret": {"secretName": "keys", "defaultMode": 0o400, "items": [{"key": "size", "path": "a/b", "mode": 0o440}]}}),
        Ok(&[("a/b", "L", 0o440)]),
    );
    check(json!({"name": "v", "configMap": {"name": "gone", "optional": true}}), Ok(&[]));
    check(json!({"name": "v", "emptyDir": {}}), Ok(&[]));
}

#[test]
fn projected_volumes_join_their_sources() {
    let sources = json!([
        {"configMap": {"name": "conf", "items": [{"key": "color", "path": "color"}]}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
        {"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}},
        ]}},
    ]);
    check(
        json!({"name": "v", "projected": {"sources": sources}}),
        Ok(&[
            ("color", "red", 0o644),
            ("labels", "app=\"web\"", 0o644),
            ("memory", "32", 0o644),
            ("token", "secret", 0o644),
        ]),
    );
}

#[test]
fn what_cannot_be_mounted_says_why() {
    let failed = |why: &str| format!("MountVolume.SetUp failed for volume \"v\" : {why}");
    let check = |volume: Value, why: &str| check(volume, Err(&failed(why)));
    check(json!({"name": "v", "configMap": {"name": "gone"}}), "configmap \"gone\" not found");
    check(
        json!({"name": "v", "secret": {"secretName": "keys", "items": [{"key": "x", "path": "x"}]}}),
        "references non-existent secret key: x",
    );
    check(
        json!({"name": "v", "configMap": {"name": "conf", "items": [{"key": "size", "path": "../up"}]}}),
        "invalid path \"../up\": it must stay within the volume",
    );
    let vault = json!([{"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 600}}]);
    check(json!({"name": "v", "projected": {"sources": vault}}), "there is no token for t");
    check(json!({"name": "v", "nfs": {"path": "/", "server": "s"}}), "this node does not support volumes of type nfs");
    check(
        json!({"name": "v", "hostPath": {"path": "/no/such/place"}}),
        "hostPath type check failed: /no/such/place does not exist",
    );
}

#[test]
fn a_changed_object_appears_at_once_and_an_equal_one_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(json!([{"name": "v", "configMap": {"name": "conf"}}]));
    let data = dir.path().join("v/..data");
    write_pod(dir.path(), &pod, &objects(&[("color", "red"), ("old", "1")])).unwrap();
    let first = std::fs::read_link(&data).unwrap();
    write_pod(dir.path(), &pod, &objects(&[("color", "red"), ("old", "1")])).unwrap();
    assert_eq!(std::fs::read_link(&data).unwrap(), first, "nothing changed");
    write_pod(dir.path(), &pod, &objects(&[("color", "blue")])).unwrap();
    assert_ne!(std::fs::read_link(&data).unwrap(), first);
    assert_eq!(std::fs::read_to_string(dir.path().join("v/color")).unwrap(), "blue");
    assert!(!dir.path().join("v/old").exists());
    assert!(!dir.path().join("v").join(first).exists(), "the old revision is removed");
}

#[test]
fn sub_paths_stay_in_their_volume() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    std::fs::create_dir_all(volume.join("real")).unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
    std::os::unix::fs::symlink("real", volume.join("inside")).unwrap();
    let root = std::fs::canonicalize(&volume).unwrap();
    assert_eq!(resolve_sub_path(&volume, "made/here").unwrap(), root.join("made/here"));
    assert_eq!(resolve_sub_path(&volume, "inside").unwrap(), root.join("real"));
    for bad in ["out", "out/passwd", "../x", "/etc"] {
        assert!(resolve_sub_path(&volume, bad).is_err(), "{bad}");
    }
}
