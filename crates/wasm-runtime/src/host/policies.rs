//! Network policies, as the agent tells of them: whom a container may call without the kernel.
//!
//! Owns: the table. What it does not let pass is not refused here: it goes through the kernel, which judges all
//! connections. May not know: who listens where, Services, HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use cri::PolicyTable;

use crate::protocol::Egress;

/// The newest table. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct KnownPolicies {
    newest: Arc<Mutex<Newest>>,
}

#[derive(Debug, Clone, Default)]
struct Newest {
    /// Nothing was told yet.
    table: Option<Arc<PolicyTable>>,
    /// Counts tables.
    told: u64,
}

impl KnownPolicies {
    fn get(&self) -> Newest {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, table: PolicyTable) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let told = newest.told + 1;
        // The one before is freed outside of the lock.
        let before = std::mem::replace(&mut *newest, Newest { table: Some(Arc::new(table)), told });
        drop(newest);
        drop(before);
    }

    /// Another number when what was allowed may be so no more.
    pub fn told(&self) -> u64 {
        self.get().told
    }

    /// Whether the caller may reach the callee without being judged by the kernel.
    pub fn allow(&self, caller: &Egress, callee: SocketAddr) -> bool {
        // Without an address of its own it is the node, or alone in its host.
        let Some(source) = caller.source else { return true };
        match self.get().table {
            Some(table) => table.allows(source, callee),
            None => !caller.judged,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use cri::PolicyGroups;

    use super::*;

    #[test]
    fn who_is_not_known_is_the_kernels_to_judge() {
        let open = PolicyTable::default();
        let groups = |ingress| PolicyGroups { ingress, egress: None, peers: vec![0] };
        let address = |last: u8| IpAddr::from([10, 32, 0, last]);
        let pods = [(address(2), groups(None)), (address(3), groups(Some(1))), (address(4), groups(None))].into();
        let closed = PolicyTable { is_enforced: true, pods, ..PolicyTable::default() };
        let check = |table: Option<&PolicyTable>, judged: bool, source: Option<u8>, callee: &str, expect: bool| {
            let known = KnownPolicies::default();
            table.into_iter().cloned().for_each(|table| known.set(table));
            let caller = Egress { source: source.map(address), judged, ..Egress::default() };
            let callee = callee.parse().expect("an address");
            assert_eq!(known.allow(&caller, callee), expect, "{table:?} {judged} {source:?} {callee}");
        };
        check(None, false, Some(2), "10.32.0.3:80", true);
        check(None, true, Some(2), "10.32.0.3:80", false);
        check(None, true, None, "10.32.0.3:80", true);
        check(Some(&open), true, Some(2), "10.32.0.3:80", true);
        check(Some(&closed), false, Some(2), "10.32.0.3:80", false);
        check(Some(&closed), false, Some(2), "10.32.0.4:80", true);
        check(Some(&closed), false, Some(9), "10.32.0.4:80", false);
        check(Some(&closed), false, Some(2), "10.32.0.9:80", false);
        check(Some(&closed), false, None, "10.32.0.3:80", true);
    }

    #[test]
    fn every_table_is_another() {
        let known = KnownPolicies::default();
        known.set(PolicyTable::default());
        known.clone().set(PolicyTable::default());
        assert_eq!(known.told(), 2);
    }
}
