//! Services, as the agent tells of them: which address a name has, and which pods an address stands for.
//!
//! Owns: the table, and whom a request to a Service goes to. The agent tells only of Services that lead to pods of this
//! host; for others, the cluster's DNS is asked and the kernel chooses. May not know: who listens where, HTTP.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use cri::ServiceTable;

/// One state of the table.
#[derive(Debug, Default)]
pub struct Services {
    endpoints: HashMap<SocketAddr, Box<[SocketAddr]>>,
    /// `name.namespace`.
    names: HashMap<String, IpAddr>,
}

impl Services {
    pub fn new(table: ServiceTable) -> Self {
        let mut services = Self::default();
        for frontend in table.frontends {
            if let Some(name) = frontend.name {
                services.names.insert(name, frontend.address.ip());
            }
            services.endpoints.insert(frontend.address, frontend.endpoints.into());
        }
        services
    }

    /// The endpoint for one request, as the kernel does it for a connection: at random from all, wherever they are.
    /// `None`: it is the kernel's to choose.
    pub fn choose(&self, address: &SocketAddr, dice: u32) -> Option<SocketAddr> {
        let endpoints = self.endpoints.get(address)?;
        let at = (u64::from(dice) * endpoints.len() as u64) >> u32::BITS;
        endpoints.get(usize::try_from(at).ok()?).copied()
    }

    /// What the cluster's DNS would say of a whole name. `None`: ask it.
    pub fn address_of(&self, name: &str, cluster_domain: &str) -> Option<IpAddr> {
        let within = name.strip_suffix(cluster_domain)?.strip_suffix(".svc.")?;
        match within.bytes().any(|byte| byte.is_ascii_uppercase()) {
            false => self.names.get(within).copied(),
            true => self.names.get(&within.to_ascii_lowercase()).copied(),
        }
    }
}

/// The newest table. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct KnownServices {
    newest: Arc<Mutex<Arc<Services>>>,
}

impl KnownServices {
    pub fn get(&self) -> Arc<Services> {
        Arc::clone(&self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set(&self, table: ServiceTable) {
        let services = Arc::new(Services::new(table));
        // The one before is freed outside of the lock.
        let before = std::mem::replace(&mut *self.newest.lock().unwrap_or_else(PoisonError::into_inner), services);
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cri::ServiceFrontend;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn services(frontends: &[(&str, &str, &[&str])]) -> Services {
        let frontend = |(at, name, endpoints): &(&str, &str, &[&str])| ServiceFrontend {
            address: address(at),
            name: (!name.is_empty()).then(|| (*name).to_owned()),
            endpoints: endpoints.iter().map(|text| address(text)).collect(),
        };
        Services::new(ServiceTable { frontends: frontends.iter().map(frontend).collect() })
    }

    #[test]
    fn every_endpoint_has_the_same_chance() {
        let services = services(&[("10.96.0.7:80", "", &["10.32.0.2:80", "10.32.0.3:80", "10.32.0.4:80"])]);
        let mut chosen = BTreeMap::<SocketAddr, u32>::new();
        for dice in (0..=u32::MAX).step_by(1 << 16) {
            *chosen.entry(services.choose(&address("10.96.0.7:80"), dice).expect("one")).or_default() += 1;
        }
        assert_eq!(chosen.len(), 3, "{chosen:?}");
        assert!(chosen.values().all(|count| (21_840..=21_850).contains(count)), "{chosen:?}");
        let last = services.choose(&address("10.96.0.7:80"), u32::MAX);
        assert_eq!(last, Some(address("10.32.0.4:80")));
    }

    #[test]
    fn what_is_not_in_the_table_is_the_kernels() {
        let services = services(&[("10.96.0.7:80", "", &["10.32.0.2:8080"]), ("10.96.0.8:80", "", &[])]);
        let check = |at: &str, expect: Option<&str>| {
            assert_eq!(services.choose(&address(at), 7), expect.map(address), "{at}");
        };
        check("10.96.0.7:80", Some("10.32.0.2:8080"));
        check("10.96.0.7:81", None);
        check("10.96.0.8:80", None);
        check("10.32.0.2:8080", None);
    }

    #[test]
    fn names_are_those_of_services() {
        let services = services(&[("10.96.0.7:80", "web.shop", &["10.32.0.2:80"])]);
        let check = |name: &str, found: bool| {
            let expect = found.then(|| address("10.96.0.7:80").ip());
            assert_eq!(services.address_of(name, "cluster.local"), expect, "{name}");
        };
        check("web.shop.svc.cluster.local", true);
        check("Web.SHOP.svc.cluster.local", true);
        check("web.shop.svc.cluster.local.", false);
        check("web.shop.svc.other.local", false);
        check("a.web.shop.svc.cluster.local", false);
        check("web.shop.pod.cluster.local", false);
        check("web.shop.svccluster.local", false);
        check("web.shop", false);
    }

    #[test]
    fn the_newest_table_counts() {
        let known = KnownServices::default();
        assert!(known.get().address_of("web.shop.svc.cluster.local", "cluster.local").is_none());
        let frontend = ServiceFrontend {
            address: address("10.96.0.7:80"),
            name: Some("web.shop".to_owned()),
            endpoints: vec![address("10.32.0.2:80")],
        };
        known.clone().set(ServiceTable { frontends: vec![frontend] });
        assert!(known.get().address_of("web.shop.svc.cluster.local", "cluster.local").is_some());
        known.set(ServiceTable::default());
        assert!(known.get().choose(&address("10.96.0.7:80"), 0).is_none());
    }
}
