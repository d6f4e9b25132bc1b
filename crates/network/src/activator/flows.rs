//! Connections that pass us by: what the kernel's connection tracking knows of them.
//!
//! Owns: reading them, and telling the open ones and the new ones from the rest. May not know: what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::netlink::{NetlinkError, NetlinkSocket};
use crate::service_proxy::{Flow, Frontend, flows};

/// Where a client's connection comes from.
type Client = (Ipv4Addr, u16);

/// Flows to some frontends: whether each is open.
pub(super) type Seen = BTreeMap<(Frontend, Client), bool>;

/// Blocks for as long as the kernel takes to list all flows of the machine.
pub(super) fn look(socket: &mut NetlinkSocket, frontends: &BTreeSet<Frontend>) -> Result<Seen, NetlinkError> {
    let flows = flows(socket)?.into_iter();
    let ours = flows.filter(|flow| frontends.contains(&flow.frontend));
    Ok(ours.map(|Flow { frontend, client, is_open }| ((frontend, client), is_open)).collect())
}

/// The frontends with a connection that is open, or that came and went between two looks.
pub(super) fn used(before: &Seen, now: &Seen) -> BTreeSet<Frontend> {
    let is_use = |(flow, is_open): &(&(Frontend, Client), &bool)| **is_open || !before.contains_key(flow);
    now.iter().filter(is_use).map(|((frontend, _), _)| *frontend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_proxy::IpProtocol;

    #[test]
    fn a_connection_counts_while_it_is_open_and_once_after() {
        let frontend = |port| Frontend { address: Ipv4Addr::new(10, 96, 0, 7), protocol: IpProtocol::Tcp, port };
        let seen = |rows: &[(u16, u16, bool)]| -> Seen {
            rows.iter().map(|(port, client, open)| ((frontend(*port), (Ipv4Addr::LOCALHOST, *client)), *open)).collect()
        };
        let check = |before: &[(u16, u16, bool)], now: &[(u16, u16, bool)], expect: &[u16]| {
            let used: Vec<u16> = used(&seen(before), &seen(now)).iter().map(|frontend| frontend.port).collect();
            assert_eq!(used, expect, "{before:?} then {now:?}");
        };
        check(&[], &[], &[]);
        check(&[], &[(80, 1, true), (81, 2, false)], &[80, 81]);
        check(&[(80, 1, true)], &[(80, 1, true)], &[80]);
        check(&[(80, 1, false)], &[(80, 1, false)], &[]);
        check(&[(80, 1, true)], &[(80, 1, false)], &[]);
        check(&[(80, 1, false)], &[(80, 1, false), (80, 2, false)], &[80]);
    }
}
