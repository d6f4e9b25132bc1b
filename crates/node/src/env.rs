//! The environment of a container: literals, references, `$(NAME)` expansion. Pure: ConfigMaps and
//! Secrets come in as values.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource};

use crate::downward::{self, Place};
use crate::objects::{ObjectData, ObjectKind, ObjectRef};
use crate::pod::backoff::Failure;

/// The reason of every failure here.
const REASON: &str = "CreateContainerConfigError";

/// The objects that were asked for; `None` is one that does not exist.
pub type Objects = BTreeMap<ObjectRef, Option<Arc<ObjectData>>>;

/// Every ConfigMap and Secret the environment of the container names.
pub fn references(namespace: &str, container: &Container) -> Vec<ObjectRef> {
    let object = |kind, name: &str| ObjectRef { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    let mut all = Vec::new();
    for source in container.env_from.iter().flatten() {
        all.extend(source.config_map_ref.as_ref().map(|r| object(ObjectKind::ConfigMap, &r.name)));
        all.extend(source.secret_ref.as_ref().map(|r| object(ObjectKind::Secret, &r.name)));
    }
    for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        all.extend(from.config_map_key_ref.as_ref().map(|r| object(ObjectKind::ConfigMap, &r.name)));
        all.extend(from.secret_key_ref.as_ref().map(|r| object(ObjectKind::Secret, &r.name)));
    }
    all
}

/// The variables of a container in order: `base` (service variables), `envFrom`, then `env`; later
/// ones replace earlier ones of the same name.
pub fn resolve(
    place: Place<'_>,
    container: &Container,
    base: &[(String, String)],
    objects: &Objects,
) -> Result<Vec<(String, String)>, Failure> {
    let mut env = Env::default();
    for (name, value) in base {
        env.set(name, value.clone());
    }
    let sources = Sources { place, container: &container.name, objects };
    for source in container.env_from.iter().flatten() {
        sources.env_from(source, &mut env)?;
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = &var.value {
            let value = expand(value, |name| env.get(name));
            env.set(&var.name, value);
        } else if let Some(from) = &var.value_from {
            if let Some(value) = sources.value_from(from)? {
                env.set(&var.name, value);
            }
        } else {
            env.set(&var.name, String::new());
        }
    }
    Ok(env.0)
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign; unknown names stay as written.
pub fn expand(text: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value_of(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// An ordered map of variables.
#[derive(Default)]
struct Env(Vec<(String, String)>);

impl Env {
    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

struct Sources<'a> {
    place: Place<'a>,
    container: &'a str,
    objects: &'a Objects,
}

impl Sources<'_> {
    fn object(&self, kind: ObjectKind, name: &str) -> Option<&Arc<ObjectData>> {
        let namespace = self.place.pod.namespace().to_owned();
        self.objects.get(&ObjectRef { kind, namespace, name: name.to_owned() })?.as_ref()
    }

    fn env_from(&self, source: &EnvFromSource, env: &mut Env) -> Result<(), Failure> {
        let config_map = source.config_map_ref.as_ref().map(|r| (ObjectKind::ConfigMap, &r.name, r.optional));
        let secret = source.secret_ref.as_ref().map(|r| (ObjectKind::Secret, &r.name, r.optional));
        let Some((kind, name, optional)) = config_map.or(secret) else { return Ok(()) };
        let Some(object) = self.object(kind, name) else {
            return if optional == Some(true) { Ok(()) } else { Err(absent(kind, name)) };
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in &object.data {
            env.set(&format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
        }
        Ok(())
    }

    fn value_from(&self, from: &EnvVarSource) -> Result<Option<String>, Failure> {
        let config = |error: downward::DownwardError| Failure::new(REASON, error.to_string());
        if let Some(selector) = &from.field_ref {
            return downward::field(self.place, selector).map(Some).map_err(config);
        }
        if let Some(selector) = &from.resource_field_ref {
            return downward::resource(self.place, self.container, selector).map(Some).map_err(config);
        }
        let config_map = from.config_map_key_ref.as_ref();
        let secret = from.secret_key_ref.as_ref();
        let config_map = config_map.map(|r| (ObjectKind::ConfigMap, &r.name, &r.key, r.optional));
        let reference = config_map.or(secret.map(|r| (ObjectKind::Secret, &r.name, &r.key, r.optional)));
        let Some((kind, name, key, optional)) = reference else {
            return Err(Failure::new(REASON, "env valueFrom names no source that this node knows"));
        };
        let optional = optional == Some(true);
        let Some(object) = self.object(kind, name) else {
            return if optional { Ok(None) } else { Err(absent(kind, name)) };
        };
        match object.data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => {
                let (namespace, word) = (self.place.pod.namespace(), kind.word());
                Err(Failure::new(REASON, format!("couldn't find key {key} in {word} {namespace}/{name}")))
            }
        }
    }
}

fn absent(kind: ObjectKind, name: &str) -> Failure {
    Failure::new(REASON, format!("{} {name:?} not found", kind.word().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::spec::PodView;

    fn check(env: Value, env_from: Value, expect: Result<&[(&str, &str)], &str>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1",
                         "labels": {"app": "web"}, "annotations": {"note": "hi"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "default", "containers": [{
                "name": "web", "env": env, "envFrom": env_from,
                "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}
        }))
        .unwrap();
        let mut objects = Objects::new();
        let object = |kind, name: &str| ObjectRef { kind, namespace: "shop".into(), name: name.into() };
        let data = BTreeMap::from([("color".to_owned(), b"red".to_vec()), ("size".to_owned(), b"L".to_vec())]);
        let data = Arc::new(ObjectData { data, resource_version: "1".into() });
        objects.insert(object(ObjectKind::ConfigMap, "style"), Some(data.clone()));
        objects.insert(object(ObjectKind::Secret, "keys"), Some(data));
        objects.insert(object(ObjectKind::ConfigMap, "gone"), None);
        let view = PodView::new(&pod);
        let place = Place {
            pod: view,
            pod_ip: Some(IpAddr::V4(Ipv4Addr::new(10, 32, 0, 9))),
            host_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            node_cpu_millis: 2000,
            node_memory_bytes: 1 << 30,
        };
        let base = [("BASE".to_owned(), "b".to_owned())];
        let found = resolve(place, &view.main_containers()[0], &base, &objects);
        match (found, expect) {
            (Ok(found), Ok(expect)) => {
                let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                assert_eq!(found[0], ("BASE", "b"));
                assert_eq!(&found[1..], expect, "{env}");
            }
            (Err(failure), Err(expect)) => assert_eq!(failure.message, expect),
            (found, expect) => panic!("{env}: {found:?} is not {expect:?}"),
        }
    }

    #[test]
    fn literals_expand_what_stands_before_them() {
        let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(BASE)-$(C)-$$(A)"}]);
        check(env, json!([]), Ok(&[("A", "1"), ("B", "1-b-$(C)-$(A)")]));
    }

    #[test]
    fn fields_of_the_pod() {
        let of = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let env = json!([
            {"name": "NAME", "valueFrom": of("metadata.name")}, {"name": "NS", "valueFrom": of("metadata.namespace")},
            {"name": "APP", "valueFrom": of("metadata.labels['app']")},
            {"name": "NOTE", "valueFrom": of("metadata.annotations['note']")},
            {"name": "IP", "valueFrom": of("status.podIP")}, {"name": "NODE", "valueFrom": of("spec.nodeName")},
        ]);
        let expect =
            [("NAME", "web-1"), ("NS", "shop"), ("APP", "web"), ("NOTE", "hi"), ("IP", "10.32.0.9"), ("NODE", "n1")];
        check(env, json!([]), Ok(&expect));
        check(json!([{"name": "X", "valueFrom": of("spec.x")}]), json!([]), Err("unsupported fieldPath: spec.x"));
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let of =
            |resource: &str, divisor: &str| json!({"resourceFieldRef": {"resource": resource, "divisor": divisor}});
        let env = json!([
            {"name": "CPU", "valueFrom": of("limits.cpu", "0")}, {"name": "MILLI", "valueFrom": of("limits.cpu", "1m")},
            {"name": "MEM", "valueFrom": of("limits.memory", "1Mi")},
            {"name": "REQ", "valueFrom": of("requests.memory", "1")},
        ]);
        check(env, json!([]), Ok(&[("CPU", "2"), ("MILLI", "1500"), ("MEM", "64"), ("REQ", "0")]));
    }

    #[test]
    fn config_maps_and_secrets() {
        let key = |name: &str, key: &str| json!({"configMapKeyRef": {"name": name, "key": key}});
        let env = json!([{"name": "COLOR", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "color"}}}]);
        let from = json!([{"prefix": "P_", "configMapRef": {"name": "style"}}]);
        check(env, from, Ok(&[("P_color", "red"), ("P_size", "L"), ("COLOR", "red")]));
        let optional = json!([{"configMapRef": {"name": "gone", "optional": true}}]);
        check(json!([]), optional, Ok(&[]));
        check(json!([]), json!([{"configMapRef": {"name": "gone"}}]), Err("configmap \"gone\" not found"));
        let missing = json!([{"name": "X", "valueFrom": key("style", "weight")}]);
        check(missing, json!([]), Err("couldn't find key weight in ConfigMap shop/style"));
    }
}
