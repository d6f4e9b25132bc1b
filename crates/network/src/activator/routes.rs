//! Which Services lead to which Deployments that may have no replicas. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::idle::{AFTER, After, MARK, Mark};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::endpoints::SlicesByService;
use crate::service_proxy::{Backend, Frontend, IpProtocol, NodeView, Warning, frontends_of, ready_backends};

/// A Deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What is wanted of a Deployment, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    /// `None` never goes to zero by itself.
    pub(crate) idle_after: Option<Duration>,
    pub(crate) replicas: i32,
    /// The attempt to bring it to zero that goes on.
    pub(crate) mark: Option<Mark>,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    /// Of the Services that select it.
    pub(crate) frontends: Vec<Frontend>,
}

impl Workload {
    /// Whether every connection that could be held would come here.
    pub(crate) fn is_captured(&self, captured: &BTreeSet<Frontend>) -> bool {
        self.frontends.iter().filter(|frontend| frontend.protocol == IpProtocol::Tcp).all(|one| captured.contains(one))
    }
}

/// Where connections to a frontend go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) workload: Key,
    /// Ready ones only.
    pub(crate) backends: Vec<Backend>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    pub(crate) workloads: BTreeMap<Key, Workload>,
    pub(crate) frontends: BTreeMap<Frontend, Route>,
}

impl Routes {
    pub(crate) fn compile(
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
        deployments: &[Arc<Deployment>],
        node: &NodeView,
    ) -> (Self, Vec<Warning>) {
        let slices = SlicesByService::new(slices);
        let mut routes = Self::default();
        let mut warnings = Vec::new();
        let willing: Vec<(Key, &Deployment)> = deployments
            .iter()
            .filter_map(|deployment| {
                let (key, workload) = workload(deployment, &mut warnings)?;
                routes.workloads.insert(key.clone(), workload);
                Some((key, &**deployment))
            })
            .collect();
        for service in services {
            let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else { continue };
            let mut selected = willing.iter().filter(|(_, deployment)| selects(service, deployment));
            let Some((key, _)) = selected.next() else { continue };
            if selected.next().is_some() {
                let message = format!("selects several Deployments with {AFTER}; connections wake only {}", key.name);
                warnings.push(Warning { namespace: namespace.clone(), service: name.clone(), message });
            }
            for (port, frontends) in frontends_of(service, node) {
                let backends = ready_backends(slices.of(namespace, name), port);
                for frontend in frontends {
                    if let Some(workload) = routes.workloads.get_mut(key) {
                        workload.frontends.push(frontend);
                    }
                    let route = Route { workload: key.clone(), backends: backends.clone() };
                    routes.frontends.insert(frontend, route);
                }
            }
        }
        (routes, warnings)
    }

    /// Whether a Deployment sleeps when nobody connects here for a while.
    pub(crate) fn connections_count(&self, frontend: &Frontend) -> bool {
        let workload = self.frontends.get(frontend).and_then(|route| self.workloads.get(&route.workload));
        workload.is_some_and(|workload| workload.idle_after.is_some())
    }

    /// The frontends whose connections come here: those without a ready endpoint, and those of Deployments that are
    /// about to go to zero. UDP has no connections that could be held.
    pub(crate) fn captured(&self, leaving: &BTreeSet<Key>) -> BTreeSet<Frontend> {
        let comes_here = |(frontend, route): &(&Frontend, &Route)| {
            frontend.protocol == IpProtocol::Tcp && (route.backends.is_empty() || leaving.contains(&route.workload))
        };
        self.frontends.iter().filter(comes_here).map(|(frontend, _)| *frontend).collect()
    }
}

fn workload(deployment: &Deployment, warnings: &mut Vec<Warning>) -> Option<(Key, Workload)> {
    let metadata = &deployment.metadata;
    let annotations = metadata.annotations.as_ref()?;
    let text = annotations.get(AFTER)?;
    let key = Key { namespace: metadata.namespace.clone()?, name: metadata.name.clone()? };
    if metadata.deletion_timestamp.is_some() {
        return None;
    }
    let Some(after) = After::parse(text) else {
        let message = format!("Deployment {}: {AFTER} is a time such as 30s or 5m, or never, not {text:?}", key.name);
        warnings.push(Warning { namespace: key.namespace, service: key.name, message });
        return None;
    };
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let resource_version = metadata.resource_version.clone().unwrap_or_default();
    let idle_after = match after {
        After::Never => None,
        After::Idle(time) => Some(time),
    };
    let mark = annotations.get(MARK).and_then(|mark| mark.parse().ok());
    let uid = metadata.uid.clone().unwrap_or_default();
    Some((key, Workload { idle_after, replicas, mark, uid, resource_version, frontends: Vec::new() }))
}

fn selects(service: &Service, deployment: &Deployment) -> bool {
    let selector =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let (Some(selector), Some(labels)) = (selector, template.and_then(|metadata| metadata.labels.as_ref())) else {
        return false;
    };
    service.metadata.namespace == deployment.metadata.namespace
        && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::net::Ipv4Addr;

    use serde_json::{Value, json};

    use super::*;

    fn from<T: serde::de::DeserializeOwned>(object: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(object).expect("a valid object"))
    }

    fn deployment(name: &str, labels: Value, replicas: i32, idle_after: &str) -> Arc<Deployment> {
        from(json!({
            "metadata": {"namespace": "default", "name": name, "annotations": {AFTER: idle_after}},
            "spec": {"replicas": replicas, "selector": {}, "template": {"metadata": {"labels": labels}}},
        }))
    }

    fn service(selector: Value) -> Arc<Service> {
        from(json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"clusterIP": "10.96.0.7", "type": "NodePort", "selector": selector, "ports": [
                {"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
        }))
    }

    fn slice(conditions: Value) -> Arc<EndpointSlice> {
        from(json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.32.0.2"], "conditions": conditions}],
        }))
    }

    fn check(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], deployments: &[Arc<Deployment>], expect: &str) {
        let node = NodeView { node_addresses: vec![Ipv4Addr::new(192, 0, 2, 2)], ..NodeView::default() };
        let (routes, warnings) = Routes::compile(services, slices, deployments, &node);
        let captured = routes.captured(&BTreeSet::new());
        assert!(routes.frontends.keys().all(|frontend| routes.connections_count(frontend)));
        let mut text = String::new();
        for (frontend, route) in &routes.frontends {
            let here = if captured.contains(frontend) { "here" } else { "there" };
            let Frontend { address, port, .. } = frontend;
            writeln!(text, "{address}:{port} {} {here} {}", route.workload.name, route.backends.len()).expect("memory");
        }
        for warning in warnings {
            writeln!(text, "! {}", warning.message).expect("memory");
        }
        assert_eq!(text, expect);
    }

    #[test]
    fn services_lead_here_while_nobody_is_ready() {
        let asleep = [deployment("web", json!({"app": "web", "tier": "a"}), 0, "5m")];
        let web = [service(json!({"app": "web"}))];
        let here = "10.96.0.7:80 web here 0\n10.96.0.7:53 web there 0\n192.0.2.2:30080 web here 0\n";
        check(&web, &[], &asleep, here);
        check(&web, &[slice(json!({"ready": false, "serving": true, "terminating": true}))], &asleep, here);
        let there = "10.96.0.7:80 web there 1\n10.96.0.7:53 web there 0\n192.0.2.2:30080 web there 1\n";
        check(&web, &[slice(json!({"ready": true}))], &asleep, there);
    }

    #[test]
    fn only_deployments_that_ask_for_it_are_found() {
        check(&[service(json!({"app": "web"}))], &[], &[deployment("web", json!({"app": "other"}), 0, "5m")], "");
        check(&[service(json!({}))], &[], &[deployment("web", json!({"app": "web"}), 0, "5m")], "");
        let mut plain = (*deployment("web", json!({"app": "web"}), 0, "5m")).clone();
        plain.metadata.annotations = None;
        check(&[service(json!({"app": "web"}))], &[], &[Arc::new(plain)], "");
        let mut elsewhere = (*deployment("web", json!({"app": "web"}), 0, "5m")).clone();
        elsewhere.metadata.namespace = Some("elsewhere".to_owned());
        check(&[service(json!({"app": "web"}))], &[], &[Arc::new(elsewhere)], "");
        let bad = [deployment("web", json!({"app": "web"}), 0, "soon")];
        let said =
            "! Deployment web: knarr.dev/scale-to-zero-after is a time such as 30s or 5m, or never, not \"soon\"\n";
        check(&[service(json!({"app": "web"}))], &[], &bad, said);
    }

    #[test]
    fn one_service_wakes_one_deployment() {
        let two = [deployment("a", json!({"app": "web"}), 0, "5m"), deployment("b", json!({"app": "web"}), 0, "5m")];
        let (routes, warnings) = Routes::compile(&[service(json!({"app": "web"}))], &[], &two, &NodeView::default());
        assert!(routes.frontends.values().all(|route| route.workload.name == "a"));
        assert_eq!(warnings.len(), 1);
    }
}
