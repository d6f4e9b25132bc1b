//! `LimitRange`: what containers get when they say nothing, and the bounds of what may be said.
//!
//! Follows `plugin/pkg/admission/limitranger`.

use serde_json::{Map, Value, json};

use super::amounts::{Amounts, Side, containers, of_container, of_pod, read};
use crate::meta;
use crate::quantity::Quantity;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn items(range: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let list = range.pointer("/spec/limits").and_then(Value::as_array).into_iter().flatten();
    list.map(|item| (item.get("type").and_then(Value::as_str).unwrap_or(""), item))
}

/// Fills in the defaults of a LimitRange where the containers of a pod say nothing.
pub fn fill(range: &Value, pod: &mut Value) {
    let mut defaults: [Map<String, Value>; 2] = Default::default();
    for (_, item) in items(range).filter(|(of, _)| *of == "Container") {
        for (into, field) in defaults.iter_mut().zip(["defaultRequest", "default"]) {
            into.extend(item.get(field).and_then(Value::as_object).cloned().unwrap_or_default());
        }
    }
    let mut told = Vec::new();
    for (list, called) in [("containers", "container"), ("initContainers", "init container")] {
        let found = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
        for container in found.into_iter().flatten().filter(|container| container.is_object()) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or("").to_owned();
            for (side, defaults) in [Side::Requests, Side::Limits].into_iter().zip(&defaults) {
                let set = fill_side(container, side, defaults);
                if !set.is_empty() {
                    let side = if side == Side::Requests { "request" } else { "limit" };
                    told.push(format!("{} {side} for {called} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let metadata = meta::metadata_mut(pod);
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            let text = format!("LimitRanger plugin set: {}", told.join("; "));
            annotations.insert(ANNOTATION.to_owned(), text.into());
        }
    }
}

/// The names that were set.
fn fill_side(container: &mut Value, side: Side, defaults: &Map<String, Value>) -> Vec<String> {
    let present = of_container(container, side);
    let missing: Vec<(&String, &Value)> = defaults.iter().filter(|(name, _)| !present.contains_key(*name)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    for step in ["resources", side.name()] {
        let at = if step == "resources" { &mut *container } else { &mut container["resources"] };
        if !at.get(step).is_some_and(Value::is_object) {
            at[step] = json!({});
        }
    }
    for (name, value) in &missing {
        container["resources"][side.name()][name.as_str()] = (*value).clone();
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

/// What of a pod is outside of the bounds of a LimitRange.
pub fn check_pod(range: &Value, pod: &Value) -> Vec<String> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let mut errors = Vec::new();
    for (of, item) in items(range) {
        match of {
            "Container" => {
                let all = containers(spec, "containers").iter().chain(containers(spec, "initContainers"));
                for container in all {
                    let (requests, limits) =
                        (of_container(container, Side::Requests), of_container(container, Side::Limits));
                    Bounds { of, item, requests: &requests, limits: &limits }.check(&mut errors);
                }
            }
            "Pod" => {
                let (requests, limits) = (of_pod(spec, Side::Requests, false), of_pod(spec, Side::Limits, false));
                Bounds { of, item, requests: &requests, limits: &limits }.check(&mut errors);
            }
            _ => {}
        }
    }
    errors
}

/// What of a PersistentVolumeClaim is outside of the bounds of a LimitRange.
pub fn check_claim(range: &Value, claim: &Value) -> Vec<String> {
    let requests = read(claim.pointer("/spec/resources/requests"));
    let mut errors = Vec::new();
    for (of, item) in items(range).filter(|(of, _)| *of == "PersistentVolumeClaim") {
        for (name, least) in read(item.get("min")) {
            match requests.get(&name) {
                None => errors.push(format!("minimum {name} usage per {of} is {least}.  No request is specified")),
                Some(asked) if *asked < least => {
                    errors.push(format!("minimum {name} usage per {of} is {least}, but request is {asked}"));
                }
                Some(_) => {}
            }
        }
        for (name, most) in read(item.get("max")) {
            match requests.get(&name) {
                None => errors.push(format!("maximum {name} usage per {of} is {most}.  No request is specified")),
                Some(asked) if *asked > most => {
                    errors.push(format!("maximum {name} usage per {of} is {most}, but request is {asked}"));
                }
                Some(_) => {}
            }
        }
    }
    errors
}

struct Bounds<'a> {
    of: &'a str,
    item: &'a Value,
    requests: &'a Amounts,
    limits: &'a Amounts,
}

impl Bounds<'_> {
    fn check(&self, errors: &mut Vec<String>) {
        errors.extend(read(self.item.get("min")).iter().filter_map(|(name, amount)| self.least(name, amount)));
        errors.extend(read(self.item.get("max")).iter().filter_map(|(name, amount)| self.most(name, amount)));
        let ratios = read(self.item.get("maxLimitRequestRatio"));
        errors.extend(ratios.iter().filter_map(|(name, amount)| self.ratio(name, amount)));
    }

    fn least(&self, name: &str, least: &Quantity) -> Option<String> {
        let head = format!("minimum {name} usage per {} is {least}", self.of);
        match (self.requests.get(name), self.limits.get(name)) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(asked), _) if asked < least => Some(format!("{head}, but request is {asked}")),
            (_, Some(limit)) if limit < least => Some(format!("{head}, but limit is {limit}")),
            _ => None,
        }
    }

    fn most(&self, name: &str, most: &Quantity) -> Option<String> {
        let head = format!("maximum {name} usage per {} is {most}", self.of);
        match (self.limits.get(name), self.requests.get(name)) {
            (None, _) => Some(format!("{head}.  No limit is specified")),
            (Some(limit), _) if limit > most => Some(format!("{head}, but limit is {limit}")),
            (_, Some(asked)) if asked > most => Some(format!("{head}, but request is {asked}")),
            _ => None,
        }
    }

    fn ratio(&self, name: &str, most: &Quantity) -> Option<String> {
        let head = format!("{name} max limit to request ratio per {} is {most}", self.of);
        let Some(asked) = self.requests.get(name).filter(|asked| !asked.is_zero()) else {
            return Some(format!("{head}, but no request is specified or request is 0"));
        };
        let Some(limit) = self.limits.get(name).filter(|limit| !limit.is_zero()) else {
            return Some(format!("{head}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.as_millis() as f64 / asked.as_millis() as f64;
        let exceeded = ratio * 1000.0 > most.as_millis() as f64;
        exceeded.then(|| format!("{head}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(item: Value) -> Value {
        json!({ "spec": { "limits": [item] } })
    }

    fn pod(resources: Value) -> Value {
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "resources": resources }] } })
    }

    #[test]
    fn defaults_go_where_nothing_is() {
        let range = range(json!({ "type": "Container", "default": { "cpu": "1", "memory": "1Gi" },
            "defaultRequest": { "cpu": "500m", "memory": "512Mi" } }));
        let check = |resources: Value, expect: Value, told: &str| {
            let mut pod = pod(resources);
            fill(&range, &mut pod);
            assert_eq!(pod["spec"]["containers"][0]["resources"], expect);
            assert_eq!(pod["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or(""), told);
        };
        check(
            Value::Null,
            json!({ "requests": { "cpu": "500m", "memory": "512Mi" }, "limits": { "cpu": "1", "memory": "1Gi" } }),
            "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c",
        );
        check(
            json!({ "requests": { "cpu": "2", "memory": "1Mi" }, "limits": { "cpu": "2" } }),
            json!({ "requests": { "cpu": "2", "memory": "1Mi" }, "limits": { "cpu": "2", "memory": "1Gi" } }),
            "LimitRanger plugin set: memory limit for container c",
        );
        let full = json!({ "requests": { "cpu": "1", "memory": "1" }, "limits": { "cpu": "1", "memory": "1" } });
        check(full.clone(), full, "");
    }

    #[test]
    fn bounds() {
        let check = |item: Value, resources: Value, expect: &[&str]| {
            assert_eq!(check_pod(&range(item), &pod(resources)), expect);
        };
        let min = json!({ "type": "Container", "min": { "cpu": "100m" } });
        check(min.clone(), json!({}), &["minimum cpu usage per Container is 100m.  No request is specified"]);
        check(
            min.clone(),
            json!({ "requests": { "cpu": "50m" } }),
            &["minimum cpu usage per Container is 100m, but request is 50m"],
        );
        check(min, json!({ "requests": { "cpu": "100m" } }), &[]);
        let max = json!({ "type": "Pod", "max": { "memory": "1Gi" } });
        check(max.clone(), json!({}), &["maximum memory usage per Pod is 1Gi.  No limit is specified"]);
        check(
            max.clone(),
            json!({ "limits": { "memory": "2Gi" } }),
            &["maximum memory usage per Pod is 1Gi, but limit is 2Gi"],
        );
        let mut together = pod(json!({ "requests": { "memory": "9Gi" } }));
        together["spec"]["resources"] = json!({ "requests": { "memory": "1Gi" }, "limits": { "memory": "1Gi" } });
        assert_eq!(check_pod(&range(max.clone()), &together), [""; 0], "what the pod says counts");
        together["spec"]["resources"]["limits"]["memory"] = "2Gi".into();
        assert_eq!(check_pod(&range(max), &together), ["maximum memory usage per Pod is 1Gi, but limit is 2Gi"]);
        let ratio = json!({ "type": "Container", "maxLimitRequestRatio": { "cpu": "2" } });
        check(
            ratio.clone(),
            json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "3" } }),
            &["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"],
        );
        check(ratio, json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "2" } }), &[]);
    }

    #[test]
    fn claims() {
        let range =
            range(json!({ "type": "PersistentVolumeClaim", "min": { "storage": "1Gi" }, "max": { "storage": "2Gi" } }));
        let check = |storage: &str, expect: &[&str]| {
            let claim = json!({ "spec": { "resources": { "requests": { "storage": storage } } } });
            assert_eq!(check_claim(&range, &claim), expect);
        };
        check("1Gi", &[]);
        check("3Gi", &["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]);
        check("1Mi", &["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]);
    }
}
