use serde_json::{Value, json};

use super::super::facts::cluster_dns;
use super::*;

/// Name, address, labels, named ports. Those at 10.32 are on this node. The one of the database has a debugger.
fn pods() -> Vec<PodFacts> {
    let pod = |namespace: &str, address: &str, labels: &[(&str, &str)], ports: &[(&str, u16)]| PodFacts {
        namespace: namespace.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        address: address.parse().unwrap(),
        linux_address: (address == "10.32.0.3").then_some(Ipv4Addr::new(10, 32, 0, 130)),
        is_here: !address.starts_with("10.40."),
        ports: ports.iter().map(|(name, port)| (((*name).to_owned(), IpProtocol::Tcp), *port)).collect(),
    };
    vec![
        pod("shop", "10.32.0.2", &[("app", "web"), ("tier", "front")], &[("http", 8080)]),
        pod("shop", "10.32.0.3", &[("app", "db"), ("pod-hash", "1")], &[("sql", 5432)]),
        pod("other", "10.32.0.4", &[("app", "client")], &[("http", 9090)]),
        pod("other", "10.40.0.5", &[("app", "web")], &[("http", 7070)]),
        cluster_dns("10.96.0.10".parse().unwrap()),
    ]
}

fn address(name: &str) -> Ipv4Addr {
    match name {
        "web" => "10.32.0.2",
        "db" => "10.32.0.3",
        "debugger" => "10.32.0.130",
        "client" => "10.32.0.4",
        "far" => "10.40.0.5",
        "dns" => "10.96.0.10",
        address => address,
    }
    .parse()
    .unwrap()
}

fn compiled(policies: &[Value]) -> (Tables, Vec<Warning>) {
    let policy = |(number, spec): (usize, &Value)| {
        let namespace = spec.get("in").and_then(Value::as_str).unwrap_or("shop");
        let object = json!({"metadata": {"namespace": namespace, "name": format!("p{number}")}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let policies: Vec<Arc<NetworkPolicy>> = policies.iter().enumerate().map(policy).collect();
    let namespace = |(name, team): (&str, &str)| {
        let object = json!({"metadata": {"name": name, "labels": {"team": team, "kubernetes.io/metadata.name": name}}});
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let namespaces = [("shop", "red"), ("other", "blue"), ("kube-system", "system")].map(namespace);
    compile(&policies, &namespaces, &pods())
}

/// `client>web:80`, or `client>web:53/UDP`.
fn check(policies: &[Value], allowed: &[&str], denied: &[&str]) {
    let (tables, warnings) = compiled(policies);
    assert_eq!(warnings, []);
    for (list, expect) in [(allowed, true), (denied, false)] {
        for text in list {
            let (source, rest) = text.split_once('>').unwrap();
            let (destination, port) = rest.split_once(':').unwrap();
            let (port, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
            let protocol = IpProtocol::parse(Some(protocol)).unwrap();
            let found = tables.allow(address(source), address(destination), protocol, port.parse().unwrap());
            assert_eq!(found, expect, "{text} with {policies:#?}");
        }
    }
}

#[test]
fn a_debugger_is_its_pod() {
    let to_db = json!({"podSelector": app("db"), "ingress": [{"from": [{"podSelector": app("web")}]}]});
    check(&[to_db], &["web>debugger:1", "debugger>db:1", "db>debugger:1"], &["client>debugger:1", "client>db:1"]);
    let from_db =
        json!({"podSelector": app("db"), "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": app("web")}]}]});
    check(&[from_db], &["debugger>web:1", "debugger>db:1"], &["debugger>dns:53", "db>dns:53"]);
    let from_peer = to_web(json!({"from": [{"podSelector": app("db")}]}));
    check(&[from_peer], &["debugger>web:1", "db>web:1"], &["client>web:1"]);
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

/// Ingress to the shop's web pod from these peers, at these ports.
fn to_web(rule: Value) -> Value {
    json!({"podSelector": app("web"), "ingress": [rule]})
}

fn from_client(rule: Value) -> Value {
    json!({"in": "other", "podSelector": app("client"), "policyTypes": ["Egress"], "egress": [rule]})
}

#[test]
fn nobody_is_isolated_without_a_policy() {
    check(&[], &["client>web:80", "web>client:1/UDP", "203.0.113.7>db:5432"], &[]);
    // one of another namespace
    check(&[json!({"in": "kube-system", "podSelector": {}})], &["client>web:80"], &[]);
    assert!(compiled(&[json!({"in": "kube-system", "podSelector": {}})]).0.is_empty());
    // one that selects only pods of other nodes
    let far = json!({"in": "other", "podSelector": app("web")});
    assert!(compiled(&[far]).0.is_empty());
}

#[test]
fn directions_are_isolated_apart() {
    let deny_ingress = json!({"podSelector": {}});
    check(
        std::slice::from_ref(&deny_ingress),
        &["web>client:80", "web>203.0.113.7:443", "web>web:80", "client>far:80"],
        &["client>web:80", "web>db:5432", "203.0.113.7>web:80", "far>web:80", "dns>web:9/UDP"],
    );
    let deny_egress = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    check(
        std::slice::from_ref(&deny_egress),
        &["client>web:80", "203.0.113.7>web:80", "web>web:80"],
        &["web>client:80", "web>db:5432", "web>dns:53/UDP", "web>203.0.113.7:443"],
    );
    check(&[deny_ingress, deny_egress], &["web>web:1"], &["client>web:80", "web>client:80"]);
}

#[test]
fn types_are_what_is_written_or_what_rules_there_are() {
    let check = |spec: Value, ingress: bool, egress: bool| {
        let (tables, _) = compiled(&[spec]);
        assert_eq!((!tables.ingress.isolated.is_empty(), !tables.egress.isolated.is_empty()), (ingress, egress));
    };
    check(json!({"podSelector": {}}), true, false);
    check(json!({"podSelector": {}, "egress": []}), true, false);
    check(json!({"podSelector": {}, "egress": [{}]}), true, true);
    check(json!({"podSelector": {}, "ingress": [{}], "policyTypes": ["Egress"]}), false, true);
    check(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}), true, true);
    check(json!({}), true, false);
}

#[test]
fn an_empty_rule_is_everybody_and_everything() {
    check(&[to_web(json!({}))], &["client>web:1", "203.0.113.7>web:9/UDP", "db>web:3/SCTP", "client>db:1"], &[]);
    check(&[to_web(json!({"from": [], "ports": []}))], &["client>web:1"], &[]);
    check(&[from_client(json!({}))], &["client>web:1", "client>203.0.113.7:9/UDP"], &[]);
}

#[test]
fn peers_by_pods_and_namespaces() {
    let red = json!({"matchLabels": {"team": "red"}});
    let blue = json!({"matchLabels": {"team": "blue"}});
    let from = |peers: Value| [to_web(json!({"from": peers}))];
    // pods of the policy's namespace
    check(&from(json!([{"podSelector": app("db")}])), &["db>web:80"], &["client>web:80", "far>web:80"]);
    check(&from(json!([{"podSelector": {}}])), &["db>web:80"], &["client>web:80", "203.0.113.7>web:80"]);
    check(&from(json!([{"podSelector": app("client")}])), &[], &["client>web:80"]);
    // whole namespaces
    check(&from(json!([{"namespaceSelector": blue}])), &["client>web:80", "far>web:80"], &["db>web:80", "dns>web:1"]);
    check(&from(json!([{"namespaceSelector": {}}])), &["client>web:80", "db>web:80"], &["203.0.113.7>web:80"]);
    // both: and
    let both = json!([{"namespaceSelector": blue, "podSelector": app("web")}]);
    check(&from(both), &["far>web:80"], &["client>web:80", "db>web:80"]);
    let either = json!([{"namespaceSelector": blue}, {"podSelector": app("db")}]);
    check(&from(either), &["far>web:80", "client>web:80", "db>web:80"], &["203.0.113.7>web:80"]);
    let none = json!([{"namespaceSelector": red, "podSelector": app("client")}]);
    check(&from(none), &[], &["client>web:80", "db>web:80"]);
    let expression = json!([{"namespaceSelector": {"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["other", "third"]}]}}]);
    check(&from(expression), &["client>web:80"], &["db>web:80"]);
    let not = json!([{"namespaceSelector": {}, "podSelector": {"matchExpressions": [
        {"key": "app", "operator": "NotIn", "values": ["db"]}]}}]);
    check(&from(not), &["client>web:80", "far>web:80"], &["db>web:80"]);
}

#[test]
fn blocks_have_exceptions() {
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    let policy = [from_client(json!({"to": [block("203.0.113.0/24", &["203.0.113.128/25", "203.0.113.0/29"])]}))];
    check(
        &policy,
        &["client>203.0.113.8:443", "client>203.0.113.127:443"],
        &["client>203.0.113.7:443", "client>203.0.113.128:443", "client>203.0.114.1:443", "client>web:80"],
    );
    // pods are in blocks too
    check(&[to_web(json!({"from": [block("10.32.0.4/32", &[])]}))], &["client>web:80"], &["db>web:80"]);
    check(&[to_web(json!({"from": [block("0.0.0.0/0", &["10.32.0.0/16"])]}))], &["far>web:80"], &["client>web:80"]);
    check(&[to_web(json!({"from": [block("0.0.0.0/0", &[])]}))], &["255.255.255.255>web:80", "0.0.0.0>web:1"], &[]);
    // blocks of several rules overlap
    let rules = json!({"in": "other", "podSelector": {}, "policyTypes": ["Egress"], "egress": [
        {"to": [block("10.0.0.0/8", &["10.32.0.0/16"])], "ports": [{"port": 80}]},
        {"to": [block("10.32.0.0/24", &[])], "ports": [{"port": 81}]}]});
    check(
        &[rules],
        &["client>10.1.1.1:80", "client>web:81", "client>10.32.0.99:81"],
        &["client>10.1.1.1:81", "client>web:80", "client>10.32.1.1:81", "client>10.32.1.1:80"],
    );
}

#[test]
fn ports_by_number_range_and_protocol() {
    let ports = |ports: Value| [to_web(json!({"ports": ports}))];
    check(
        &ports(json!([{"port": 80}])),
        &["client>web:80", "203.0.113.7>web:80"],
        &["client>web:81", "client>web:80/UDP"],
    );
    check(
        &ports(json!([{"port": 53, "protocol": "UDP"}])),
        &["client>web:53/UDP"],
        &["client>web:53", "client>web:54/UDP"],
    );
    check(
        &ports(json!([{"port": 8000, "endPort": 8100}])),
        &["client>web:8000", "client>web:8100"],
        &["client>web:7999", "client>web:8101", "client>web:8050/UDP"],
    );
    check(&ports(json!([{"protocol": "SCTP"}])), &["client>web:1/SCTP", "client>web:65535/SCTP"], &["client>web:1"]);
    check(&ports(json!([{"port": 80}, {"port": 81}])), &["client>web:80", "client>web:81"], &["client>web:82"]);
    // ports and peers of one rule: and
    let one = to_web(json!({"from": [{"podSelector": app("db")}], "ports": [{"port": 80}]}));
    check(&[one], &["db>web:80"], &["db>web:81", "client>web:80"]);
}

#[test]
fn named_ports_are_those_of_the_pod_that_is_called() {
    check(&[to_web(json!({"ports": [{"port": "http"}]}))], &["client>web:8080"], &["client>web:80", "client>web:9090"]);
    check(&[to_web(json!({"ports": [{"port": "nope"}]}))], &[], &["client>web:8080"]);
    check(&[to_web(json!({"ports": [{"port": "http", "protocol": "UDP"}]}))], &[], &["client>web:8080"]);
    let anywhere = from_client(json!({"ports": [{"port": "http"}]}));
    check(
        &[anywhere],
        &["client>web:8080", "client>far:7070"],
        &["client>web:7070", "client>db:5432", "client>203.0.113.7:8080"],
    );
    let to = json!([{"namespaceSelector": {}, "podSelector": app("db")}]);
    let some = from_client(json!({"to": to, "ports": [{"port": "http"}, {"port": "sql"}, {"port": 22}]}));
    check(&[some], &["client>db:5432", "client>db:22"], &["client>db:8080", "client>web:8080", "client>web:22"]);
    // two pods that one policy isolates, each with its own number
    let all = json!({"in": "other", "podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]});
    check(&[all], &["web>client:9090"], &["web>client:7070"]);
}

#[test]
fn policies_add_up() {
    let by_client =
        to_web(json!({"from": [{"namespaceSelector": {}, "podSelector": app("client")}], "ports": [{"port": 80}]}));
    let by_db = to_web(json!({"from": [{"podSelector": app("db")}], "ports": [{"port": 81}]}));
    let nobody = json!({"podSelector": {}});
    check(
        &[by_client, by_db, nobody],
        &["client>web:80", "db>web:81"],
        &["client>web:81", "db>web:80", "far>web:80", "client>db:5432"],
    );
}

#[test]
fn both_ends_have_to_agree() {
    let out = from_client(json!({"to": [{"namespaceSelector": {}, "podSelector": app("web")}]}));
    let into =
        to_web(json!({"from": [{"namespaceSelector": {}, "podSelector": app("client")}], "ports": [{"port": 80}]}));
    check(&[out, into], &["client>web:80", "client>far:443"], &["client>web:81", "client>db:5432", "db>web:80"]);
}

#[test]
fn the_clusters_dns_is_called_as_elsewhere() {
    let dns = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]);
    let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53}]);
    let by_pods = from_client(json!({"to": dns, "ports": ports}));
    check(&[by_pods], &["client>dns:53/UDP", "client>dns:53"], &["client>dns:54", "client>web:53"]);
    let by_name = from_client(json!({"to": dns, "ports": [{"port": "dns", "protocol": "UDP"}]}));
    check(&[by_name], &["client>dns:53/UDP"], &["client>dns:53"]);
    check(&[from_client(json!({"ports": ports}))], &["client>dns:53/UDP", "client>web:53"], &["client>dns:80"]);
}

#[test]
fn what_cannot_be_read_grants_nothing_and_is_said() {
    let check = |spec: Value, expect: &str, text: &str| {
        let (tables, warnings) = compiled(&[spec]);
        assert_eq!(warnings.iter().map(|one| one.message.as_str()).collect::<Vec<_>>(), [expect]);
        let (source, destination) = text.split_once('>').unwrap();
        assert!(!tables.allow(address(source), address(destination), IpProtocol::Tcp, 80), "{text}");
    };
    let block = |cidr: &str, except: &str| json!({"from": [{"ipBlock": {"cidr": cidr, "except": [except]}}]});
    check(
        to_web(block("fd00::/8", "fd00::/16")),
        "fd00::/8 is no IPv4 block, and pods have no other addresses",
        "client>web",
    );
    let expect = "the block 0.0.0.0/0 is left out: nonsense is no IPv4 block";
    check(to_web(block("0.0.0.0/0", "nonsense")), expect, "client>web");
    check(to_web(json!({"from": [{}]})), "a peer says nothing", "client>web");
    check(to_web(json!({"ports": [{"port": 90, "endPort": 80}]})), "90 to Some(80) are no ports", "client>web");
    check(
        to_web(json!({"ports": [{"port": 80, "protocol": "X"}]})),
        "the protocol Some(\"X\") is unknown",
        "client>web",
    );
    let odd = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
    let expect = "\"Like\" is not a valid label selector operator";
    check(to_web(json!({"from": [{"podSelector": odd}]})), expect, "client>web");
}

#[test]
fn groups_do_not_grow_with_pods_nor_with_policies() {
    let mut many = pods();
    for number in 0..200u8 {
        let mut pod = many[1].clone();
        pod.address = Ipv4Addr::new(10, 32, 1, number);
        pod.linux_address = None;
        // each has a label of its own that no selector asks for
        pod.labels.insert("pod-hash".to_owned(), number.to_string());
        many.push(pod);
    }
    let policy = |number: usize| {
        let spec = json!({"podSelector": app("db"), "ingress": [{"from": [{"podSelector": app("web")}], "ports": [{"port": 80}]}]});
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"namespace": "shop", "name": number.to_string()}, "spec": spec}),
            )
            .unwrap(),
        )
    };
    let policies: Vec<Arc<NetworkPolicy>> = (0..50).map(policy).collect();
    let (tables, _) = compile(&policies, &[], &many);
    assert_eq!((tables.ingress.isolated.len(), tables.peers.len()), (202, 1));
    assert_eq!(tables.ingress.elements().len(), 1);
    assert!(tables.allow(address("web"), Ipv4Addr::new(10, 32, 1, 9), IpProtocol::Tcp, 80));
}

#[test]
fn grants_are_bounded() {
    let mut direction = Direction::default();
    let peers = u32::try_from(ELEMENTS_MAX).unwrap() + 7;
    direction.grants = (0..peers).map(|peer| ((1, peer), Ports::Any)).collect();
    assert_eq!(bound(&mut direction), 7);
    assert_eq!(direction.elements().len(), ELEMENTS_MAX);
}

#[test]
fn what_changes_is_what_is_different() {
    let (old, _) = compiled(&[to_web(json!({"from": [{"podSelector": app("db")}], "ports": [{"port": 80}]}))]);
    let (new, _) = compiled(&[to_web(json!({"from": [{"podSelector": app("db")}], "ports": [{"port": 81}]}))]);
    let change = super::super::tables::changes(&old, &new);
    assert_eq!((change.count(), change.ingress.grants.deleted.len(), change.ingress.grants.added.len()), (2, 1, 1));
    assert_eq!(super::super::tables::changes(&new, &new).count(), 0);
    assert!(super::super::tables::changes(&Tables::default(), &new).count() >= 4);
}
