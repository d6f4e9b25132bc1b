//! Which address a pod gets next. Pure.
//!
//! A range is walked round and round, so a freed address comes back only after every other one was
//! used: connections and caches that remember the old pod do not meet a new one at once.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::cidr::Ipv4Cidr;

/// Addresses of one range in use, and where the walk stands.
#[derive(Debug, Clone)]
pub(super) struct AddressPool {
    range: Ipv4Cidr,
    /// Offsets never given out: the network address, the gateway, the broadcast address.
    first: u64,
    last: u64,
    next: u64,
    used: BTreeSet<Ipv4Addr>,
}

impl AddressPool {
    /// `reserved` addresses at the start of the range and the last one are never given out.
    pub(super) fn new(range: Ipv4Cidr, reserved: u64) -> Self {
        Self { range, first: reserved, last: range.size() - 2, next: reserved, used: BTreeSet::new() }
    }

    /// Marks an address that a pod has from before; the walk goes on after `resume`.
    pub(super) fn adopt(&mut self, address: Ipv4Addr) {
        self.used.insert(address);
    }

    /// Goes on after this address, which was the last one given out before a restart.
    pub(super) fn resume_after(&mut self, address: Ipv4Addr) {
        if self.range.contains(address) {
            self.next = u64::from(u32::from(address) - u32::from(self.range.network())) + 1;
        }
    }

    /// `None` when every address is in use.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in self.first..=self.last {
            if !(self.first..=self.last).contains(&self.next) {
                self.next = self.first;
            }
            let address = self.range.nth(self.next).expect("the walk stays inside the range");
            self.next += 1;
            if self.used.insert(address) {
                return Some(address);
            }
        }
        None
    }

    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }

    pub(super) fn range(&self) -> Ipv4Cidr {
        self.range
    }

    pub(super) fn in_use(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> AddressPool {
        AddressPool::new("10.0.0.0/29".parse().unwrap(), 2)
    }

    fn last_octets(pool: &mut AddressPool, count: usize) -> Vec<Option<u8>> {
        (0..count).map(|_| pool.take().map(|a| a.octets()[3])).collect()
    }

    #[test]
    fn walks_past_reserved_addresses_and_ends() {
        let mut pool = pool();
        assert_eq!(last_octets(&mut pool, 6), [Some(2), Some(3), Some(4), Some(5), Some(6), None]);
        assert_eq!(pool.in_use(), 5);
    }

    #[test]
    fn a_freed_address_comes_back_last() {
        let mut pool = pool();
        last_octets(&mut pool, 2);
        pool.release(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(last_octets(&mut pool, 4), [Some(4), Some(5), Some(6), Some(2)]);
    }

    #[test]
    fn goes_on_after_a_restart() {
        let mut pool = pool();
        pool.adopt(Ipv4Addr::new(10, 0, 0, 5));
        pool.resume_after(Ipv4Addr::new(10, 0, 0, 4));
        assert_eq!(last_octets(&mut pool, 3), [Some(6), Some(2), Some(3)]);
        pool.resume_after(Ipv4Addr::new(10, 0, 0, 7));
        assert_eq!(last_octets(&mut pool, 1), [Some(4)]);
        pool.resume_after(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(last_octets(&mut pool, 1), [None]);
    }
}
