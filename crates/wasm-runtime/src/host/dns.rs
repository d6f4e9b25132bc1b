//! Resolving names for guests through the pod's nameservers (the cluster DNS), never through the
//! machine's own `resolv.conf`.
//!
//! The table of Services is looked at first: it comes from the same objects as the cluster's DNS, without a question.
//! Owns: the search list and the A query over UDP (RFC 1035). Pure encode and parse, one small loop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::host::services::Services;
use crate::host::sockets;
use crate::protocol::Egress;

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// Largest answer over UDP that we take; longer ones are cut at a record and still give addresses.
const ANSWER_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 253;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const HEADER_BYTES: usize = 12;

#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    Addresses(Vec<Ipv4Addr>),
    /// Every candidate name was answered with "no such name" or no addresses.
    NotFound,
    TimedOut,
    /// No nameserver could be asked.
    Unreachable,
}

/// The addresses of `host`, trying the search list as a resolver's stub does. With `within`, only
/// names in that domain are asked for.
pub async fn lookup(egress: &Egress, services: &Services, host: &str, within: Option<&str>) -> Lookup {
    let domain = egress.cluster_domain.as_str();
    // A pod that asks other servers than the cluster's is answered by those.
    let asks_cluster = egress.searches.iter().any(|search| search.strip_prefix("svc.") == Some(domain));
    let mut last = Lookup::NotFound;
    let names = candidates(host, &egress.searches, egress.ndots);
    for name in names.into_iter().filter(|name| within.is_none_or(|domain| is_within(name, domain))) {
        if asks_cluster {
            if let Some(IpAddr::V4(address)) = services.address_of(&name, domain) {
                return Lookup::Addresses(vec![address]);
            }
            if !may_exist(&name, domain) {
                continue;
            }
        }
        match query(egress, &name).await {
            Lookup::Addresses(found) if !found.is_empty() => return Lookup::Addresses(found),
            Lookup::Addresses(_) | Lookup::NotFound => {}
            failure => last = failure,
        }
    }
    last
}

/// Whether the cluster can have such a name with an address: `service.namespace.svc`, `pod.service.namespace.svc` or
/// `address.namespace.pod`. The search list makes others of names that are whole already.
fn may_exist(name: &str, domain: &str) -> bool {
    let Some(rest) = name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')) else { return true };
    let labels: Vec<&str> = rest.split('.').collect();
    match labels.as_slice() {
        [.., kind] if kind.eq_ignore_ascii_case("svc") => (3..=4).contains(&labels.len()),
        [.., kind] if kind.eq_ignore_ascii_case("pod") => labels.len() == 3,
        _ => false,
    }
}

/// Fully qualified names to try, in order.
fn candidates(host: &str, searches: &[String], ndots: usize) -> Vec<String> {
    if let Some(absolute) = host.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let mut names: Vec<String> = searches.iter().map(|search| format!("{host}.{}", search.trim_matches('.'))).collect();
    let as_it_is = if host.matches('.').count() >= ndots { 0 } else { names.len() };
    names.insert(as_it_is, host.to_owned());
    names
}

/// Whether `name` is below `domain`.
pub fn is_within(name: &str, domain: &str) -> bool {
    !domain.is_empty() && name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

async fn query(egress: &Egress, name: &str) -> Lookup {
    let id = rand::random::<u16>();
    let Some(question) = encode(id, name) else { return Lookup::NotFound };
    let mut last = Lookup::Unreachable;
    for _ in 0..ATTEMPTS {
        for server in &egress.nameservers {
            match tokio::time::timeout(ATTEMPT_TIMEOUT, ask(egress.source, *server, &question, id)).await {
                Ok(Ok(Some(answer))) => return answer,
                Ok(Ok(None)) => last = Lookup::Unreachable,
                Ok(Err(error)) => {
                    tracing::debug!(%server, name, %error, "nameserver did not answer");
                    last = Lookup::Unreachable;
                }
                Err(_) => last = Lookup::TimedOut,
            }
        }
    }
    last
}

async fn ask(source: Option<IpAddr>, server: SocketAddr, question: &[u8], id: u16) -> io::Result<Option<Lookup>> {
    let socket = sockets::connect_udp(source, server).await?;
    socket.send(question).await?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answer[..length].starts_with(&id.to_be_bytes()) {
            return Ok(parse(&answer[..length]));
        }
    }
}

fn encode(id: u16, name: &str) -> Option<Vec<u8>> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut message = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    message.extend(id.to_be_bytes());
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(TYPE_A.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Some(message)
}

/// `None`: not an answer, or the server failed; another one may know better.
fn parse(message: &[u8]) -> Option<Lookup> {
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let flags = word(2)?;
    let is_answer = flags & 0x8000 != 0;
    match flags & 0xf {
        _ if !is_answer => return None,
        0 => {}
        3 => return Some(Lookup::NotFound),
        _ => return None,
    }
    let mut at = HEADER_BYTES;
    for _ in 0..word(4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..word(6)? {
        // A truncated answer ends within a record; what came before it counts.
        let Some(record) = skip_name(message, at) else { break };
        let (Some(kind), Some(length)) = (word(record), word(record + 8)) else { break };
        let data = record + 10;
        at = data + usize::from(length);
        if let (TYPE_A, Some(&[a, b, c, d])) = (kind, message.get(data..at)) {
            found.push(Ipv4Addr::new(a, b, c, d));
        }
    }
    Some(Lookup::Addresses(found))
}

/// The offset behind the name at `at`.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

/// The host part as an address, if it is one.
pub fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    #[test]
    fn the_search_list_is_tried_as_resolv_conf_says() {
        let searches = ["default.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()];
        let check = |host: &str, expect: &[&str]| assert_eq!(candidates(host, &searches, 5), expect, "{host}");
        check("backend", &["backend.default.svc.cluster.local", "backend.svc.cluster.local", "backend"]);
        check("example.org.", &["example.org"]);
        check(
            "a.b.c.d.e.f",
            &["a.b.c.d.e.f", "a.b.c.d.e.f.default.svc.cluster.local", "a.b.c.d.e.f.svc.cluster.local"],
        );
    }

    fn answer(flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = encode(7, "web.default").unwrap();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (kind, data) in records {
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 5]);
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn answers_are_read() {
        let check = |message: &[u8], expect: Option<Lookup>| assert_eq!(parse(message), expect);
        let alias = b"\x03web\xc0\x10".as_slice();
        check(
            &answer(0x8180, &[(5, alias), (1, &[10, 96, 0, 1]), (1, &[10, 96, 0, 2])]),
            Some(Lookup::Addresses(vec![Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 96, 0, 2)])),
        );
        check(&answer(0x8180, &[]), Some(Lookup::Addresses(vec![])));
        check(&answer(0x8183, &[]), Some(Lookup::NotFound));
        check(&answer(0x8182, &[]), None);
        check(&answer(0x0100, &[]), None);
        check(b"short", None);
        let whole = answer(0x8180, &[(1, &[10, 0, 0, 1]), (1, &[10, 0, 0, 2])]);
        check(&whole[..whole.len() - 2], Some(Lookup::Addresses(vec![Ipv4Addr::new(10, 0, 0, 1)])));
        (0..whole.len()).for_each(|end| drop(parse(&whole[..end])));
    }

    #[test]
    fn names_that_cannot_be_asked_are_not() {
        let check = |name: &str, valid: bool| assert_eq!(encode(1, name).is_some(), valid, "{name}");
        check("a.b", true);
        check("", false);
        check("a..b", false);
        check(&"x".repeat(64), false);
    }

    #[tokio::test]
    async fn asks_the_given_server_only() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut question = [0; 512];
            loop {
                let (length, from) = server.recv_from(&mut question).await.unwrap();
                let known = question[..length].windows(8).any(|part| part == b"\x07default");
                let mut reply =
                    answer(if known { 0x8180 } else { 0x8183 }, if known { &[(1, &[10, 1, 2, 3])] } else { &[] });
                reply[..2].copy_from_slice(&question[..2]);
                server.send_to(&reply, from).await.unwrap();
            }
        });
        let egress =
            Egress { nameservers: vec![address], searches: vec!["default".to_owned()], ndots: 5, ..Egress::default() };
        let services = Services::default();
        let lookup = async |egress, host, within| lookup(egress, &services, host, within).await;
        assert_eq!(lookup(&egress, "web", None).await, Lookup::Addresses(vec![Ipv4Addr::new(10, 1, 2, 3)]));
        assert_eq!(lookup(&egress, "web", Some("cluster.local")).await, Lookup::NotFound);
        assert_eq!(lookup(&egress, "other.org.", None).await, Lookup::NotFound);
    }

    #[tokio::test]
    async fn services_of_this_host_are_known_without_a_question() {
        let frontend = cri::ServiceFrontend {
            address: "10.96.0.7:80".parse().unwrap(),
            name: Some("web.shop".to_owned()),
            endpoints: vec!["10.32.0.2:80".parse().unwrap()],
        };
        let services = Services::new(cri::ServiceTable { frontends: vec![frontend] });
        let egress = |searches: &[&str]| Egress {
            searches: searches.iter().map(|one| (*one).to_owned()).collect(),
            cluster_domain: "cluster.local".to_owned(),
            ndots: 5,
            ..Egress::default()
        };
        let of_pod = egress(&["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        let check = async |egress: &Egress, host: &str, known: bool| {
            let expect = if known { Lookup::Addresses(vec![[10, 96, 0, 7].into()]) } else { Lookup::Unreachable };
            assert_eq!(lookup(egress, &services, host, Some("cluster.local")).await, expect, "{host}");
        };
        for host in ["web", "web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.cluster.local."] {
            check(&of_pod, host, true).await;
        }
        check(&of_pod, "other", false).await;
        check(&egress(&["shop.svc.cluster.local"]), "web", false).await;
    }

    #[test]
    fn names_that_the_cluster_cannot_have() {
        let check = |name: &str, may: bool| assert_eq!(may_exist(name, "cluster.local"), may, "{name}");
        check("web.shop.svc.cluster.local", true);
        check("web-0.web.shop.svc.cluster.local", true);
        check("10-32-0-2.shop.pod.cluster.local", true);
        check("example.org", true);
        check("web.shop.svc.cluster.local.shop.svc.cluster.local", false);
        check("web.shop.svc.cluster.local.cluster.local", false);
        check("web.cluster.local", false);
        check("svc.cluster.local", false);
    }
}
