//! Netlink, spoken directly: an encoder of messages with nested attributes, a blocking socket, and
//! the few rtnetlink requests a node's network needs. One encoder serves rtnetlink and nftables.
//! Knows nothing of pods and Services.

mod encode;
pub(crate) mod route;
mod socket;

pub(crate) use encode::{APPEND, Attributes, CREATE, EXCLUSIVE, Message, attributes};
pub(crate) use socket::{NetlinkError, NetlinkSocket};
