//! Outgoing HTTP: who may be called.
//!
//! Owns: the policy of [`Egress`] for `wasi:http`. The name is judged before it is resolved, the
//! address after, so that a name cannot smuggle in an address that the name's rule would not allow.
//! May not know: how the call is made (see `outgoing`).

use std::net::IpAddr;

use wasmtime_wasi_http::Error;

use crate::host::dns::{self, Lookup};
use crate::host::services::Services;
use crate::protocol::Egress;

/// The addresses of `host` that the policy lets the guest call. Never empty.
pub async fn addresses(egress: &Egress, services: &Services, host: &str) -> Result<Vec<IpAddr>, Error> {
    let rule = judge_host(egress, host).ok_or(Error::HttpRequestDenied)?;
    resolve(egress, services, host, rule).await
}

/// Why a host name is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The pod's own localhost.
    Localhost,
    /// If it is a Service or pod name of this cluster.
    Cluster,
    /// The annotation names it.
    Listed,
}

/// The rule that lets a guest name `host`, if any.
fn judge_host(egress: &Egress, host: &str) -> Option<Rule> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = dns::literal(&host);
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return egress.own_localhost.then_some(Rule::Localhost);
    }
    if egress.allowed_hosts.iter().any(|pattern| matches_host(pattern, &host)) {
        return Some(Rule::Listed);
    }
    if address.is_some() {
        return None;
    }
    // Any other name may be a Service's short name (`backend`, `backend.other-namespace`): it is
    // looked up below the cluster domain and nowhere else.
    Some(Rule::Cluster)
}

fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        _ if pattern == "*" => true,
        Some(domain) => dns::is_within(host, domain),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

async fn resolve(egress: &Egress, services: &Services, host: &str, rule: Rule) -> Result<Vec<IpAddr>, Error> {
    if rule == Rule::Localhost {
        return Ok(vec![dns::literal(host).unwrap_or(IpAddr::from([127, 0, 0, 1]))]);
    }
    let within = (rule == Rule::Cluster).then_some(egress.cluster_domain.as_str());
    let found: Vec<IpAddr> = match dns::literal(host) {
        Some(address) => vec![address],
        None => match dns::lookup(egress, services, host, within).await {
            Lookup::Addresses(found) => found.into_iter().map(IpAddr::V4).collect(),
            // It is no name of the cluster, and the pod may call no other.
            Lookup::NotFound if rule == Rule::Cluster && host.contains('.') => return Err(Error::HttpRequestDenied),
            Lookup::NotFound => return Err(Error::DnsError { rcode: Some("NXDOMAIN".to_owned()), info_code: None }),
            Lookup::TimedOut => return Err(Error::DnsTimeout),
            Lookup::Unreachable => return Err(Error::DnsError { rcode: Some("SERVFAIL".to_owned()), info_code: None }),
        },
    };
    let allowed: Vec<IpAddr> = found.into_iter().filter(|address| judge_address(*address)).collect();
    if allowed.is_empty() { Err(Error::DestinationIpProhibited) } else { Ok(allowed) }
}

/// The machine itself and what only the machine may ask (cloud metadata) is nobody's Service.
pub fn judge_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => judge_address(IpAddr::V4(v4)),
            None => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str], own_localhost: bool) -> Egress {
        Egress {
            cluster_domain: "cluster.local".to_owned(),
            allowed_hosts: allowed.iter().map(|host| (*host).to_owned()).collect(),
            own_localhost,
            ..Egress::default()
        }
    }

    #[test]
    fn names_are_judged_before_they_are_resolved() {
        let check = |allowed: &[&str], own: bool, host: &str, expect: Option<Rule>| {
            assert_eq!(judge_host(&policy(allowed, own), host), expect, "{host} with {allowed:?}");
        };
        check(&[], false, "backend", Some(Rule::Cluster));
        check(&[], false, "backend.default.svc.cluster.local", Some(Rule::Cluster));
        check(&[], false, "backend.default.svc.cluster.local.", Some(Rule::Cluster));
        check(&[], false, "backend.default.svc", Some(Rule::Cluster));
        check(&[], false, "example.org", Some(Rule::Cluster));
        check(&["example.org"], false, "EXAMPLE.org", Some(Rule::Listed));
        check(&["*.example.org"], false, "a.example.org", Some(Rule::Listed));
        check(&["*.example.org"], false, "badexample.org", Some(Rule::Cluster));
        check(&["*"], false, "93.184.216.34", Some(Rule::Listed));
        check(&[], false, "10.96.0.1", None);
        check(&["*"], false, "localhost", None);
        check(&["*"], false, "127.0.0.1", None);
        check(&[], true, "localhost", Some(Rule::Localhost));
        check(&[], true, "127.0.0.1", Some(Rule::Localhost));
    }

    #[tokio::test]
    async fn other_names_are_denied() {
        let check = async |host: &str| {
            let error = resolve(&policy(&[], false), &Services::default(), host, Rule::Cluster).await.unwrap_err();
            assert!(matches!(error, Error::HttpRequestDenied), "{host}: {error}");
        };
        check("example.org").await;
        check("evilcluster.local").await;
    }

    #[test]
    fn addresses_are_judged_after() {
        let check =
            |address: &str, expect: bool| assert_eq!(judge_address(address.parse().unwrap()), expect, "{address}");
        check("10.96.0.1", true);
        check("127.0.0.1", false);
        check("169.254.169.254", false);
        check("0.0.0.0", false);
        check("::ffff:127.0.0.1", false);
        check("fe80::1", false);
        check("2001:db8::1", true);
    }
}
