use proptest::prelude::*;
use serde_json::json;

use super::*;

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(tag: u32, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(u64::from(tag << 3), &mut out);
    varint(value.cast_unsigned(), &mut out);
    out
}

fn bytes(tag: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(u64::from(tag << 3 | 2), &mut out);
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn message(tag: u32, fields: &[Vec<u8>]) -> Vec<u8> {
    bytes(tag, &fields.concat())
}

fn envelope(api_version: &str, kind: &str, fields: &[Vec<u8>]) -> Vec<u8> {
    let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())];
    [MAGIC.to_vec(), message(1, &type_meta), message(2, fields)].concat()
}

#[test]
fn a_deployment_reads_as_its_json() {
    let port = message(6, &[bytes(1, b""), number(3, 8080), number(2, 0)]);
    let limits = message(1, &[bytes(1, b"cpu"), message(2, &[bytes(1, b"100m")])]);
    let container =
        message(2, &[bytes(1, b"web"), bytes(2, b"nginx"), port, message(8, &[limits]), bytes(14, b""), number(16, 0)]);
    let template = message(3, &[message(2, &[container, number(11, 0)])]);
    let labels = message(11, &[bytes(1, b"app"), bytes(2, b"web")]);
    let metadata = message(1, &[bytes(1, b"web"), bytes(2, b""), bytes(8, b""), labels]);
    let selector = message(2, &[message(1, &[bytes(1, b"app"), bytes(2, b"web")])]);
    let spec = message(2, &[number(1, 0), selector, template, message(4, &[bytes(1, b"")])]);
    let body = envelope("apps/v1", "Deployment", &[metadata, spec]);
    let expect = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": {},
            "template": { "spec": { "containers": [{
                "name": "web", "image": "nginx", "ports": [{ "containerPort": 8080 }],
                "resources": { "limits": { "cpu": "100m" } },
            }] } },
        },
    });
    assert_eq!(decode(&body).unwrap(), expect);
}

#[test]
fn special_forms() {
    let data = message(2, &[bytes(1, b"key"), bytes(2, b"\xff\x00")]);
    let secret = envelope("v1", "Secret", &[data]);
    assert_eq!(decode(&secret).unwrap()["data"], json!({ "key": "/wA=" }));
    let created = message(8, &[number(1, 1_700_000_000)]);
    let map = envelope("v1", "ConfigMap", &[message(1, &[created, message(9, &[number(1, 5)])])]);
    let metadata = decode(&map).unwrap()["metadata"].clone();
    assert_eq!(metadata["creationTimestamp"], "2023-11-14T22:13:20Z");
    let port = |fields: &[Vec<u8>]| message(1, &[number(3, 80), message(4, fields)]);
    let service = envelope(
        "v1",
        "Service",
        &[message(2, &[port(&[number(1, 1), bytes(3, b"http")]), port(&[number(1, 0), number(2, 8080)])])],
    );
    let ports = decode(&service).unwrap()["spec"]["ports"].clone();
    assert_eq!(ports, json!([{ "port": 80, "targetPort": "http" }, { "port": 80, "targetPort": 8080 }]));
    let options = envelope("apps/v1", "DeleteOptions", &[number(1, 0), bytes(4, b"Background")]);
    let expect = json!({
        "apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background",
    });
    assert_eq!(decode(&options).unwrap(), expect);
}

#[test]
fn bad_bodies_are_errors() {
    let good = envelope("v1", "ConfigMap", &[message(1, &[bytes(1, b"name")])]);
    assert_eq!(decode(b"{}"), Err(ProtobufError::NoMagic));
    assert_eq!(decode(&good[..good.len() - 1]), Err(ProtobufError::Truncated));
    let unknown = envelope("v1", "Nonsense", &[]);
    assert!(matches!(decode(&unknown), Err(ProtobufError::UnknownKind { .. })));
    let wrong = envelope("v1", "ConfigMap", &[number(1, 7)]);
    assert_eq!(decode(&wrong), Err(ProtobufError::WireType { tag: 1, wire_type: 0 }));
    let text = envelope("v1", "ConfigMap", &[message(1, &[bytes(1, b"\xff\xfe")])]);
    assert_eq!(decode(&text), Err(ProtobufError::Utf8));
    let endless = envelope("v1", "ConfigMap", &[vec![0xff; 11]]);
    assert_eq!(decode(&endless), Err(ProtobufError::Truncated));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(&body);
        let _ = decode(&bytes);
        let _ = decode(&envelope("v1", "Pod", &[body]));
    }
}
