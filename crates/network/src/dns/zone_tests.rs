use serde_json::{Value, json};

use super::*;

fn config() -> ZoneConfig {
    ZoneConfig {
        domain: "cluster.local".into(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        cluster_pod_cidr: "10.32.0.0/12".parse().unwrap(),
    }
}

fn service(name: &str, spec: Value) -> Arc<Service> {
    let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn zone() -> Zone {
    let slice = json!({
        "metadata": {"namespace": "default", "name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "ports": [{"name": "pg", "port": 5432}],
        "endpoints": [
            {"addresses": ["10.32.0.3"], "hostname": "db-1"},
            {"addresses": ["10.32.0.2"], "hostname": "DB-0", "conditions": {"ready": true}},
            {"addresses": ["10.32.0.4"]},
            {"addresses": ["10.32.0.5"], "hostname": "db-9", "conditions": {"ready": false}},
        ],
    });
    let services = [
        service("web", json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}, {"port": 81}]})),
        service("kubernetes", json!({"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]})),
        service("dns", json!({"clusterIP": "10.96.0.8", "ports": [{"name": "DNS", "port": 53, "protocol": "UDP"}]})),
        service("db", json!({"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]})),
        service("out", json!({"type": "ExternalName", "externalName": "Example.ORG."})),
        service("pending", json!({"ports": [{"port": 80}]})),
    ];
    Zone::compile(config(), &services, &[Arc::new(serde_json::from_value(slice).unwrap())])
}

/// One line: addresses, `port:target`, pointers, texts, `=alias`.
fn check(name: &str, expect: &str) {
    let text = match zone().lookup(name) {
        Lookup::NoSuchName => "no such name".to_owned(),
        Lookup::NotOurs => "not ours".to_owned(),
        Lookup::Found(records) => {
            let mut words: Vec<String> = records.addresses.iter().map(ToString::to_string).collect();
            words.extend(records.services.iter().map(|record| format!("{}:{}", record.port, record.target)));
            words.extend(records.pointers);
            words.extend(records.texts);
            words.extend(records.alias.map(|alias| format!("={alias}")));
            words.join(" ")
        }
    };
    assert_eq!(text, expect, "{name}");
}

#[test]
fn services_with_an_address() {
    check("web.default.svc.cluster.local", "10.96.0.7");
    check("kubernetes.default.svc.cluster.local", "10.96.0.1");
    check("_http._tcp.web.default.svc.cluster.local", "80:web.default.svc.cluster.local");
    check("_dns._udp.dns.default.svc.cluster.local", "53:dns.default.svc.cluster.local");
    check("7.0.96.10.in-addr.arpa", "web.default.svc.cluster.local");
    check("dns-version.cluster.local", "1.1.0");
}

#[test]
fn headless_services_have_their_ready_endpoints() {
    check("db.default.svc.cluster.local", "10.32.0.2 10.32.0.3 10.32.0.4");
    check("db-0.db.default.svc.cluster.local", "10.32.0.2");
    check("10-32-0-4.db.default.svc.cluster.local", "10.32.0.4");
    check("db-9.db.default.svc.cluster.local", "no such name");
    check(
        "_pg._tcp.db.default.svc.cluster.local",
        "5432:10-32-0-4.db.default.svc.cluster.local 5432:db-0.db.default.svc.cluster.local \
         5432:db-1.db.default.svc.cluster.local",
    );
    check("2.0.32.10.in-addr.arpa", "db-0.db.default.svc.cluster.local");
    check("4.0.32.10.in-addr.arpa", "no such name");
}

#[test]
fn aliases_pods_and_what_lies_between() {
    check("out.default.svc.cluster.local", "=example.org");
    check("10-32-0-9.default.pod.cluster.local", "10.32.0.9");
    check("192-0-2-9.default.pod.cluster.local", "no such name");
    check("10-32-0-9.a.b.pod.cluster.local", "no such name");
    for between in ["cluster.local", "svc.cluster.local", "pod.cluster.local", "default.svc.cluster.local"] {
        check(between, "");
    }
    check("_tcp.web.default.svc.cluster.local", "");
}

#[test]
fn what_is_not_there() {
    check("nope.default.svc.cluster.local", "no such name");
    check("pending.default.svc.cluster.local", "no such name");
    check("web.other.svc.cluster.local", "no such name");
    check("example.org.default.svc.cluster.local", "no such name");
    check("_none._tcp.web.default.svc.cluster.local", "no such name");
    check("99.0.96.10.in-addr.arpa", "no such name");
    check("96.10.in-addr.arpa", "no such name");
}

#[test]
fn what_others_know() {
    for name in
        ["example.org", "local", "notcluster.local", "", "1.2.0.192.in-addr.arpa", "10.in-addr.arpa", "x.in-addr.arpa"]
    {
        check(name, "not ours");
    }
}
