//! Where the pods' addresses come from.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A range of IPv4 addresses that are local to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRange {
    first: u32,
    /// Blocks of 256 addresses, of which the first and the last are left out.
    blocks: u32,
}

impl PodRange {
    /// Loopback addresses. 127.0.0.0/15 is left to others.
    pub const LOOPBACK: Self = Self { first: u32::from_be_bytes([127, 2, 0, 0]), blocks: 250 << 8 };

    /// Returns the address that stands at a place; places beyond the end begin anew.
    pub fn at(&self, place: u64) -> Ipv4Addr {
        let (block, host) = ((place / 254) % u64::from(self.blocks), place % 254);
        let offset = u32::try_from(block * 256 + host + 1).unwrap_or_default();
        Ipv4Addr::from(self.first.wrapping_add(offset))
    }
}

impl FromStr for PodRange {
    type Err = String;

    /// Reads `10.244.0.0/16`: a prefix of 8 to 24 bits.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a range of IPv4 addresses, like `10.244.0.0/16`, of 8 to 24 bits");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        if !(8..=24).contains(&bits) {
            return Err(wrong());
        }
        Ok(Self { first: u32::from(address) & (u32::MAX << (32 - bits)), blocks: 1 << (24 - bits) })
    }
}

impl fmt::Display for PodRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.at(0), self.at(u64::from(self.blocks) * 254 - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_of_a_range_ends_in_0_or_255() {
        let range: PodRange = "10.244.7.0/16".parse().unwrap_or(PodRange::LOOPBACK);
        assert_eq!(range.to_string(), "10.244.0.1 to 10.244.255.254");
        assert_eq!(range.at(254), Ipv4Addr::new(10, 244, 1, 1));
        assert_eq!(range.at(256 * 254), range.at(0));
        assert_eq!(PodRange::LOOPBACK.to_string(), "127.2.0.1 to 127.251.255.254");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["10.244.0.0", "10.244.0.0/31", "pods/16", "10.244.0.0/x"] {
            assert!(text.parse::<PodRange>().is_err(), "{text}");
        }
    }
}
