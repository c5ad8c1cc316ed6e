//! PCI addresses.

use std::fmt;
use std::str::FromStr;

/// The address of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// PCI domain (segment), 0 on most machines.
    pub domain: u32,
    /// The number of the bus in the domain.
    pub bus: u8,
    /// The number of the device on the bus, 0 to 31.
    pub device: u8,
    /// The number of the function in the device, 0 to 7.
    pub function: u8,
}

/// The error for text that is not a PCI address. The value is the text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a PCI address: write it like 0000:00:10.0, or vfio-user:PATH for a socket")]
pub struct BadAddress(pub String);

impl FromStr for Address {
    type Err = BadAddress;

    /// Reads `[domain:]bus:device.function`. All parts are hexadecimal. The domain has 4 to 8
    /// digits, the bus 2, the device 2 and the function 1.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        parse(text).ok_or_else(|| BadAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Address> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let address = Address {
        domain: hex(domain, 4..=8)?,
        bus: u8::try_from(hex(bus, 2..=2)?).ok()?,
        device: u8::try_from(hex(device, 2..=2)?).ok()?,
        function: u8::try_from(hex(function, 1..=1)?).ok()?,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

fn hex(digits: &str, len: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let all_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !all_hex || !len.contains(&digits.len()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_domain_are_read() {
        for (text, shown) in [
            ("0000:00:10.0", "0000:00:10.0"),
            ("00:1f.7", "0000:00:1f.7"),
            ("0001:AB:0c.1", "0001:ab:0c.1"),
            ("10000:01:00.0", "10000:01:00.0"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "10",
            "00:10",
            "00.10.0",
            "0:10.0",
            "00:1.0",
            "00:20.0",
            "00:10.8",
            "00:10.00",
            "000:00:10.0",
            ":00:10.0",
            "0000:00:10.0 ",
            "0000:00:+1.0",
            "0000:0000:10.0",
            "100000000:00:10.0",
            "/sys/bus/pci/devices/0000:00:10.0",
        ] {
            assert_eq!(text.parse::<Address>(), Err(BadAddress(text.into())));
        }
    }
}
