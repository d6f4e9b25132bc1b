//! IPv4 prefixes and their arithmetic. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 prefix; the bits beyond its length are always zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Cidr {
    address: Ipv4Addr,
    length: u8,
}

/// The text or pair is no IPv4 prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an IPv4 prefix such as 10.32.0.0/18")]
pub struct InvalidCidr {
    pub text: String,
}

impl Ipv4Cidr {
    /// Host bits of `address` are cleared. `None` when `length` is over 32.
    pub fn new(address: Ipv4Addr, length: u8) -> Option<Self> {
        (length <= 32).then(|| Self { address: Ipv4Addr::from(u32::from(address) & mask(length)), length })
    }

    /// A prefix of one address.
    pub fn host(address: Ipv4Addr) -> Self {
        Self { address, length: 32 }
    }

    pub fn network(self) -> Ipv4Addr {
        self.address
    }

    pub fn length(self) -> u8 {
        self.length
    }

    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.length))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.length) == u32::from(self.address)
    }

    pub fn overlaps(self, other: Self) -> bool {
        let length = self.length.min(other.length);
        u32::from(self.address) & mask(length) == u32::from(other.address) & mask(length)
    }

    /// How many addresses it has.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.length))
    }

    /// The address `offset` places after the network address; `None` beyond the end.
    pub fn nth(self, offset: u64) -> Option<Ipv4Addr> {
        let offset = u32::try_from(offset).ok().filter(|_| offset < self.size())?;
        Some(Ipv4Addr::from(u32::from(self.address) + offset))
    }

    /// Lower and upper half; `None` for a single address.
    pub fn halves(self) -> Option<(Self, Self)> {
        if self.length == 32 {
            return None;
        }
        let length = self.length + 1;
        let upper = u32::from(self.address) | (1 << (32 - u32::from(length)));
        Some((Self { address: self.address, length }, Self { address: Ipv4Addr::from(upper), length }))
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Ipv4Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr { text: text.to_owned() };
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        Self::new(address, length.parse().map_err(|_| invalid())?).ok_or_else(invalid)
    }
}

impl TryFrom<String> for Ipv4Cidr {
    type Error = InvalidCidr;

    fn try_from(text: String) -> Result<Self, InvalidCidr> {
        text.parse()
    }
}

impl From<Ipv4Cidr> for String {
    fn from(cidr: Ipv4Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Ipv4Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_prints() {
        for (given, expect) in [
            ("10.32.0.0/18", Ok("10.32.0.0/18")),
            ("10.32.5.9/18", Ok("10.32.0.0/18")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("10.0.0.1/32", Ok("10.0.0.1/32")),
            ("10.0.0.1", Err(())),
            ("10.0.0.1/33", Err(())),
            ("fd00::/64", Err(())),
        ] {
            let got = given.parse::<Ipv4Cidr>().map(|c| c.to_string());
            assert_eq!(got.as_deref().map_err(|_| ()), expect, "{given}");
        }
    }

    #[test]
    fn halves_and_addresses() {
        let (lower, upper) = cidr("10.32.64.0/18").halves().unwrap();
        assert_eq!((lower, upper), (cidr("10.32.64.0/19"), cidr("10.32.96.0/19")));
        assert_eq!(lower.nth(1), Some("10.32.64.1".parse().unwrap()));
        assert_eq!(lower.nth(8192), None);
        assert_eq!(cidr("0.0.0.0/0").size(), 1 << 32);
        assert_eq!(cidr("1.2.3.4/32").halves(), None);
    }

    #[test]
    fn overlap_is_symmetric() {
        for (a, b, expect) in [
            ("10.32.0.0/12", "10.40.0.0/16", true),
            ("10.32.0.0/12", "10.48.0.0/16", false),
            ("0.0.0.0/0", "10.0.0.0/8", true),
            ("10.96.0.10/32", "10.96.0.0/16", true),
        ] {
            assert_eq!(cidr(a).overlaps(cidr(b)), expect, "{a} {b}");
            assert_eq!(cidr(b).overlaps(cidr(a)), expect, "{b} {a}");
        }
    }
}
