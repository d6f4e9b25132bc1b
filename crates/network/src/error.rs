//! Errors of setting a node's network up and of taking it down. (Those of one pod are
//! `cri::NetworkError`.)

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cidr::Ipv4Cidr;
use crate::config::InvalidConfig;
use crate::netlink::NetlinkError;

/// The node's network could not be set up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the network configuration cannot work")]
    Config(#[from] InvalidConfig),
    #[error("the pod network needs root rights (CAP_NET_ADMIN and CAP_SYS_ADMIN)")]
    NotRoot,
    /// Another route of the machine covers our addresses.
    #[error("{range} is in use on this machine: route {route} on link {link}; choose another {what} range")]
    RangeInUse { what: &'static str, range: Ipv4Cidr, route: Ipv4Cidr, link: String },
    #[error("a link named {name} exists and was not made by us ({kind}); remove it or choose another bridge name")]
    ForeignBridge { name: String, kind: String },
    #[error("the DNS server cannot listen on {address}: another program does")]
    DnsPortInUse { address: SocketAddr },
    #[error("the DNS server cannot listen on {address}")]
    DnsListen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// The kernel refused a netlink request; `why` is its own explanation.
    #[error("cannot {attempt}: {why}")]
    Kernel { attempt: String, why: String },
    #[error("cannot {attempt} {path}", path = path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Says which request the kernel refused.
pub(crate) trait Attempt<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, SetupError>;
}

impl<T> Attempt<T> for Result<T, NetlinkError> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, SetupError> {
        self.map_err(|error| {
            if error.is(nix::errno::Errno::EPERM) {
                return SetupError::NotRoot;
            }
            SetupError::Kernel { attempt: attempt(), why: error.to_string() }
        })
    }
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> Result<T, SetupError> {
        self.map_err(|error| SetupError::Kernel { attempt: attempt(), why: error.to_string() })
    }
}
