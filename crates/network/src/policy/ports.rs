//! A set of ports of transport protocols, as a rule of a policy grants it. Pure.

use std::collections::BTreeMap;

use crate::service_proxy::IpProtocol;

/// First and last, both within.
pub type PortRange = (u16, u16);

/// Which ports may be connected to. Ranges of a protocol are sorted and do not touch each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Of every protocol, also those without ports.
    Any,
    Of(BTreeMap<IpProtocol, Vec<PortRange>>),
}

impl Default for Ports {
    fn default() -> Self {
        Self::Of(BTreeMap::new())
    }
}

impl Ports {
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Of(ranges) if ranges.is_empty())
    }

    pub fn contain(&self, protocol: IpProtocol, port: u16) -> bool {
        self.ranges(protocol).iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    pub fn ranges(&self, protocol: IpProtocol) -> &[PortRange] {
        match self {
            Self::Any => &[(0, u16::MAX)],
            Self::Of(ranges) => ranges.get(&protocol).map_or(&[], Vec::as_slice),
        }
    }

    pub(super) fn add(&mut self, protocol: IpProtocol, range: PortRange) {
        if let Self::Of(ranges) = self {
            let list = ranges.entry(protocol).or_default();
            list.push(range);
            *list = merged(std::mem::take(list));
        }
    }

    pub(super) fn join(&mut self, other: &Self) {
        match other {
            Self::Any => *self = Self::Any,
            Self::Of(ranges) => {
                for (protocol, list) in ranges {
                    list.iter().for_each(|range| self.add(*protocol, *range));
                }
            }
        }
    }
}

fn merged(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut found: Vec<PortRange> = Vec::new();
    for (first, last) in ranges {
        match found.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => found.push((first, last)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let check = |given: &[PortRange], expect: &[PortRange]| {
            let mut ports = Ports::default();
            given.iter().for_each(|range| ports.add(IpProtocol::Tcp, *range));
            assert_eq!(ports.ranges(IpProtocol::Tcp), expect, "{given:?}");
            assert!(ports.ranges(IpProtocol::Udp).is_empty());
        };
        check(&[], &[]);
        check(&[(80, 80), (443, 443)], &[(80, 80), (443, 443)]);
        check(&[(443, 443), (80, 80), (80, 80)], &[(80, 80), (443, 443)]);
        check(&[(81, 90), (80, 80)], &[(80, 90)]);
        check(&[(1, 100), (50, 60), (100, 65535), (0, 0)], &[(0, 65535)]);
    }

    #[test]
    fn any_port_stays_any() {
        let mut ports = Ports::default();
        assert!(ports.is_none());
        ports.add(IpProtocol::Udp, (53, 53));
        assert!(ports.contain(IpProtocol::Udp, 53) && !ports.contain(IpProtocol::Tcp, 53) && !ports.is_none());
        ports.join(&Ports::Any);
        ports.add(IpProtocol::Udp, (53, 53));
        assert_eq!(ports, Ports::Any);
        assert!(ports.contain(IpProtocol::Sctp, 9));
    }
}
