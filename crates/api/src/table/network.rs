//! Services, endpoints, ingresses, network policies.

use serde_json::Value;

use super::{
    AGE, NAME, NONE, Printer, UNSET, age_of, first_three, int_at, joined, label_map, label_selector, list_at, shown,
    str_at, str_or_none, text, wide,
};
use crate::meta;

pub(super) const SERVICE: Printer = Printer {
    columns: &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE, wide("Selector")],
    cells: |object, now| {
        let cluster_ip = match str_at(object, "/spec/clusterIPs/0") {
            "" => str_or_none(object, "/spec/clusterIP"),
            ip => ip.into(),
        };
        vec![
            meta::name(object).into(),
            str_at(object, "/spec/type").into(),
            cluster_ip,
            external_ip(object),
            joined(list_at(object, "/spec/ports").iter().map(service_port), ","),
            age_of(object, now),
            label_map(object, "/spec/selector"),
        ]
    },
};

fn external_ip(service: &Value) -> Value {
    let texts = |pointer: &str| list_at(service, pointer).iter().filter_map(Value::as_str).map(str::to_owned);
    match str_at(service, "/spec/type") {
        "ExternalName" => str_or_none(service, "/spec/externalName"),
        "LoadBalancer" => {
            let given = ingress_points(service).chain(texts("/spec/externalIPs")).collect::<Vec<_>>();
            if given.is_empty() { "<pending>".into() } else { given.join(",").into() }
        }
        _ => joined(texts("/spec/externalIPs"), ","),
    }
}

/// What a load balancer was given: addresses or names.
fn ingress_points(object: &Value) -> impl Iterator<Item = String> {
    list_at(object, "/status/loadBalancer/ingress").iter().filter_map(|point| {
        [str_at(point, "/ip"), str_at(point, "/hostname")].into_iter().find(|text| !text.is_empty()).map(str::to_owned)
    })
}

/// `80/TCP`, `443:30443/TCP`
fn service_port(port: &Value) -> String {
    let (number, protocol) = (int_at(port, "/port"), str_at(port, "/protocol"));
    match int_at(port, "/nodePort") {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

pub(super) const ENDPOINTS: Printer = Printer {
    columns: &[NAME, text("Endpoints"), AGE],
    cells: |object, now| {
        let mut all = Vec::new();
        for subset in list_at(object, "/subsets") {
            let addresses = list_at(subset, "/addresses").iter().map(|a| str_at(a, "/ip"));
            let ports = list_at(subset, "/ports");
            if ports.is_empty() {
                all.extend(addresses.map(str::to_owned));
                continue;
            }
            let addresses: Vec<&str> = addresses.collect();
            for port in ports {
                all.extend(addresses.iter().map(|address| socket(address, int_at(port, "/port"))));
            }
        }
        vec![meta::name(object).into(), first_three(&all, NONE), age_of(object, now)]
    },
};

fn socket(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

pub(super) const ENDPOINT_SLICE: Printer = Printer {
    columns: &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
    cells: |object, now| {
        let ports: Vec<String> = list_at(object, "/ports")
            .iter()
            .map(|port| match shown(port.get("port")) {
                number if number.is_empty() => "*".to_owned(),
                number => number,
            })
            .collect();
        let addresses: Vec<String> = list_at(object, "/endpoints")
            .iter()
            .flat_map(|endpoint| list_at(endpoint, "/addresses"))
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        vec![
            meta::name(object).into(),
            str_at(object, "/addressType").into(),
            first_three(&ports, UNSET),
            first_three(&addresses, UNSET),
            age_of(object, now),
        ]
    },
};

pub(super) const INGRESS: Printer = Printer {
    columns: &[NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE],
    cells: |object, now| {
        let hosts: Vec<String> = list_at(object, "/spec/rules")
            .iter()
            .map(|rule| str_at(rule, "/host"))
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect();
        let tls = !list_at(object, "/spec/tls").is_empty();
        vec![
            meta::name(object).into(),
            str_or_none(object, "/spec/ingressClassName"),
            first_three(&hosts, "*"),
            ingress_points(object).collect::<Vec<_>>().join(",").into(),
            if tls { "80, 443" } else { "80" }.into(),
            age_of(object, now),
        ]
    },
};

pub(super) const INGRESS_CLASS: Printer = Printer {
    columns: &[NAME, text("Controller"), text("Parameters"), AGE],
    cells: |object, now| {
        let parameters = match object.pointer("/spec/parameters") {
            None => NONE.to_owned(),
            Some(parameters) => {
                let group = match str_at(parameters, "/apiGroup") {
                    "" => String::new(),
                    group => format!(".{group}"),
                };
                format!("{}{group}/{}", str_at(parameters, "/kind"), str_at(parameters, "/name"))
            }
        };
        vec![
            meta::name(object).into(),
            str_at(object, "/spec/controller").into(),
            parameters.into(),
            age_of(object, now),
        ]
    },
};

pub(super) const NETWORK_POLICY: Printer = Printer {
    columns: &[NAME, text("Pod-Selector"), AGE],
    cells: |object, now| {
        vec![meta::name(object).into(), label_selector(object, "/spec/podSelector"), age_of(object, now)]
    },
};

pub(super) const IP_ADDRESS: Printer = Printer {
    columns: &[NAME, text("ParentRef"), AGE],
    cells: |object, now| {
        let parent = object.pointer("/spec/parentRef").map_or(NONE.to_owned(), |parent| {
            let mut of = str_at(parent, "/resource").to_lowercase();
            for (before, field) in [(".", "/group"), ("/", "/namespace"), ("/", "/name")] {
                let value = str_at(parent, field);
                if !value.is_empty() {
                    of.push_str(before);
                    of.push_str(value);
                }
            }
            of
        });
        vec![meta::name(object).into(), parent.into(), age_of(object, now)]
    },
};

pub(super) const SERVICE_CIDR: Printer = Printer {
    columns: &[NAME, text("CIDRs"), AGE],
    cells: |object, now| {
        let ranges: Vec<&str> = list_at(object, "/spec/cidrs").iter().filter_map(Value::as_str).collect();
        vec![meta::name(object).into(), ranges.join(",").into(), age_of(object, now)]
    },
};
