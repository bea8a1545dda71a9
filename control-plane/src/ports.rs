//! Which port a compute gets.

use std::{
    fmt,
    net::{IpAddr, TcpListener},
    str::FromStr,
};

use crate::Error;

/// The ports that may be given to computes, both ends included. The default lies below the range
/// that Linux gives to outgoing connections, so that none of those takes a compute's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl Default for PortRange {
    fn default() -> PortRange {
        PortRange { first: 6500, last: 7499 }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<PortRange, String> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            Some(PortRange { first: first.parse().ok()?, last: last.parse().ok()? })
        });
        match parsed {
            Some(range) if range.first > 0 && range.first <= range.last => Ok(range),
            _ => Err(format!("{text:?} is not a range of ports; write it like 6500-7499")),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl PortRange {
    /// Whether a port is in both.
    pub(crate) fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The first port of the range that no endpoint has (`given`) and that nobody listens on.
    pub(crate) fn free(self, host: IpAddr, given: &[u16]) -> Result<u16, Error> {
        (self.first..=self.last)
            .find(|port| !given.contains(port) && is_free(host, *port))
            .ok_or_else(|| Error::Conflict(format!("no port of {self} is free for a compute")))
    }
}

/// Refuses a port that somebody else listens on.
pub(crate) fn check_free(host: IpAddr, port: u16) -> Result<(), Error> {
    if is_free(host, port) {
        return Ok(());
    }
    let hint = "stop the program that holds it, or choose another with --port";
    Err(Error::Conflict(format!("port {port} is taken: {hint}")))
}

fn is_free(host: IpAddr, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_range_is_written_and_read_alike() {
        let range: PortRange = "6500-6502".parse().expect("a good range");
        assert_eq!(range.to_string(), "6500-6502");
        for bad in ["", "6500", "6502-6500", "0-5", "a-b", "1-99999"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad} was taken for a range");
        }
    }

    #[test]
    fn a_port_that_is_listened_on_or_given_is_not_free() -> anyhow::Result<()> {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = TcpListener::bind((host, 0))?;
        let taken = listener.local_addr()?.port();
        let only = PortRange { first: taken, last: taken };
        assert!(matches!(only.free(host, &[]), Err(Error::Conflict(_))));
        assert!(matches!(check_free(host, taken), Err(Error::Conflict(_))));
        drop(listener);
        assert_eq!(only.free(host, &[])?, taken);
        assert!(matches!(only.free(host, &[taken]), Err(Error::Conflict(_))));
        Ok(())
    }
}
