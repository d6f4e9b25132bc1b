use std::fmt::Write;

use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Arc<Service> {
    named("default", "web", spec)
}

fn named(namespace: &str, name: &str, spec: Value) -> Arc<Service> {
    let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

/// `endpoints`: `(last octet, conditions)`.
fn slice(ports: Value, endpoints: &[(u8, Value)]) -> Arc<EndpointSlice> {
    let endpoint =
        |(last, conditions): &(u8, Value)| json!({"addresses": [format!("10.32.0.{last}")], "conditions": conditions});
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        }))
        .unwrap(),
    )
}

fn node() -> NodeView {
    NodeView {
        node_name: Some("here".to_owned()),
        node_addresses: vec![Ipv4Addr::new(192, 0, 2, 2)],
        pod_cidr: Some("10.32.0.0/24".parse().unwrap()),
        api_server: Some("127.0.0.1:6443".parse().unwrap()),
    }
}

fn render(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> String {
    let (tables, warnings) = compile(services, slices, &node());
    let mut text = String::new();
    for (frontend, backends) in &tables.frontends {
        let list: Vec<String> = backends.list.iter().map(|b| format!("{}:{}", b.address, b.port)).collect();
        let affine = if backends.affinity == Affinity::ClientIp { " by client" } else { "" };
        let Frontend { address, protocol, port } = frontend;
        writeln!(text, "{} {address}:{port} -> {}{affine}", protocol.name(), list.join(" ")).unwrap();
    }
    for warning in warnings {
        writeln!(text, "! {}/{}: {}", warning.namespace, warning.service, warning.message).unwrap();
    }
    text
}

fn check(spec: Value, slices: &[Arc<EndpointSlice>], expect: &str) {
    assert_eq!(render(&[service(spec)], slices), expect);
}

#[test]
fn ready_endpoints_of_the_named_port() {
    let ports = json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]);
    let slices = [slice(ports, &[(3, json!({"ready": true})), (2, json!({})), (4, json!({"ready": false}))])];
    let spec = json!({"clusterIP": "10.96.0.7", "ports": [
        {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "none", "port": 99}]});
    let expect =
        "TCP 10.96.0.7:80 -> 10.32.0.2:8080 10.32.0.3:8080\nUDP 10.96.0.7:53 -> 10.32.0.2:5353 10.32.0.3:5353\n";
    check(spec, &slices, expect);
}

#[test]
fn several_slices_are_one_list() {
    let slices = [
        slice(json!([{"port": 8080}]), &[(2, json!({})), (3, json!({}))]),
        slice(json!([{"port": 8081}]), &[(3, json!({})), (2, json!({}))]),
        slice(json!([]), &[(9, json!({}))]),
    ];
    let expect = "TCP 10.96.0.7:80 -> 10.32.0.2:8080 10.32.0.2:8081 10.32.0.3:8080 10.32.0.3:8081\n";
    check(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}), &slices, expect);
}

#[test]
fn terminating_endpoints_serve_when_nothing_else_does() {
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let spec = json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]});
    let ports = json!([{"port": 8080}]);
    let only = [slice(ports.clone(), &[(2, leaving.clone()), (3, json!({"ready": false}))])];
    check(spec.clone(), &only, "TCP 10.96.0.7:80 -> 10.32.0.2:8080\n");
    let both = [slice(ports, &[(2, leaving), (3, json!({"ready": true}))])];
    check(spec, &both, "TCP 10.96.0.7:80 -> 10.32.0.3:8080\n");
}

#[test]
fn headless_external_and_empty_services_have_no_frontend() {
    let slices = [slice(json!([{"port": 8080}]), &[(2, json!({}))])];
    check(json!({"clusterIP": "None", "ports": [{"port": 80}]}), &slices, "");
    check(json!({"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]}), &slices, "");
    check(json!({"clusterIP": "fd00::1", "ports": [{"port": 80}]}), &slices, "");
    check(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}), &[], "");
    check(json!({"clusterIP": "10.96.0.7"}), &slices, "");
}

#[test]
fn node_ports_external_addresses_and_affinity() {
    let slices = [slice(json!([{"port": 8080}]), &[(2, json!({}))])];
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.7", "externalIPs": ["198.51.100.1"],
        "sessionAffinity": "ClientIP", "ports": [{"port": 80, "nodePort": 30080}]});
    let expect = "TCP 10.96.0.7:80 -> 10.32.0.2:8080 by client\n\
        TCP 192.0.2.2:30080 -> 10.32.0.2:8080 by client\n\
        TCP 198.51.100.1:80 -> 10.32.0.2:8080 by client\n";
    check(spec, &slices, expect);
}

#[test]
fn loopback_leads_to_pods_of_this_node_only() {
    let node = NodeView { node_addresses: vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 2)], ..node() };
    let check = |spec: &Value, addresses: &[&str], expect: &[(&str, usize)]| {
        let mut slice = (*slice(json!([{"port": 8080}]), &[])).clone();
        let endpoints = addresses.iter().map(|ip| serde_json::from_value(json!({"addresses": [ip]})).unwrap());
        slice.endpoints = Some(endpoints.collect());
        let (tables, _) = compile(&[service(spec.clone())], &[Arc::new(slice)], &node);
        let found: Vec<_> = tables.frontends.iter().map(|(f, b)| (f.address.to_string(), b.list.len())).collect();
        let expect: Vec<_> = expect.iter().map(|(address, count)| ((*address).to_owned(), *count)).collect();
        assert_eq!(found, expect, "{addresses:?}");
    };
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [{"port": 80, "nodePort": 30080}]});
    let here_and_there = ["10.32.0.2", "10.32.64.2", "192.0.2.2"];
    check(&spec, &here_and_there, &[("10.96.0.7", 3), ("127.0.0.1", 2), ("192.0.2.2", 3)]);
    check(&spec, &["10.32.64.2"], &[("10.96.0.7", 1), ("192.0.2.2", 1)]);
}

#[test]
fn the_api_server_is_where_this_node_reaches_it() {
    let kubernetes =
        named("default", "kubernetes", json!({"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}));
    assert_eq!(render(&[kubernetes], &[]), "TCP 10.96.0.1:443 -> 127.0.0.1:6443\n");
    let other = named("other", "kubernetes", json!({"clusterIP": "10.96.0.2", "ports": [{"port": 443}]}));
    assert_eq!(render(&[other], &[]), "");
}

#[test]
fn too_much_is_said() {
    let many: Vec<Value> =
        (0..1030).map(|i| json!({"addresses": [format!("10.33.{}.{}", i / 256, i % 256)]})).collect();
    let mut wide = (*slice(json!([{"port": 8080}]), &[])).clone();
    wide.endpoints = Some(many.into_iter().map(|e| serde_json::from_value(e).unwrap()).collect());
    let spec = json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}, {"port": 81, "protocol": "ICMP"}]});
    let (tables, warnings) = compile(&[service(spec)], &[Arc::new(wide)], &node());
    assert_eq!(tables.frontends.values().map(|b| b.list.len()).collect::<Vec<_>>(), [1024]);
    let said: Vec<&str> = warnings.iter().map(|w| w.message.as_str()).collect();
    assert_eq!(
        said,
        ["1030 endpoints, of which only 1024 get traffic", "port 81 has the unknown protocol Some(\"ICMP\")"]
    );
}

#[test]
fn local_traffic_stays_on_its_node() {
    let mut slice = (*slice(json!([{"port": 8080}]), &[(2, json!({})), (3, json!({})), (4, json!({}))])).clone();
    for (endpoint, node) in slice.endpoints.iter_mut().flatten().zip([Some("here"), Some("there"), None]) {
        endpoint.node_name = node.map(str::to_owned);
    }
    let slices = [Arc::new(slice)];
    let spec =
        |policy: &str| json!({"clusterIP": "10.96.0.7", "internalTrafficPolicy": policy, "ports": [{"port": 80}]});
    check(spec("Cluster"), &slices, "TCP 10.96.0.7:80 -> 10.32.0.2:8080 10.32.0.3:8080 10.32.0.4:8080\n");
    check(spec("Local"), &slices, "TCP 10.96.0.7:80 -> 10.32.0.2:8080\n");
    let mut elsewhere = (*slices[0]).clone();
    elsewhere.endpoints.iter_mut().flatten().for_each(|one| one.node_name = Some("there".to_owned()));
    check(spec("Local"), &[Arc::new(elsewhere)], "");
}
