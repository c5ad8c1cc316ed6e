//! Version negotiation. In the first message, each end states its version and its limits.

use serde_json::{Value, json};

use crate::wire::{Fields, MAX_DATA, MAX_FDS, Payload};

/// The major version of the protocol. Different major versions are not compatible.
pub(crate) const MAJOR: u16 = 0;
/// The newest minor version that this crate speaks.
pub(crate) const MINOR: u16 = 1;

/// The payload of VERSION, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    /// The maximum number of file descriptors that the sender accepts in one message.
    pub(crate) max_fds: usize,
    /// The maximum number of bytes that the sender accepts in one access to a region.
    pub(crate) max_data: usize,
    /// Whether the sender knows REGION_WRITE_MULTI.
    pub(crate) write_multiple: bool,
}

impl Version {
    /// The version and the limits that this crate proposes.
    pub(crate) fn ours() -> Self {
        Self {
            major: MAJOR,
            minor: MINOR,
            max_fds: MAX_FDS,
            max_data: MAX_DATA,
            write_multiple: false,
        }
    }

    /// The server's answer to a client's proposal. The minor version of the answer is at most the
    /// client's, and the answer has REGION_WRITE_MULTI only if the client knows this command.
    pub(crate) fn answer(proposed: &Self) -> Self {
        Self {
            minor: proposed.minor.min(MINOR),
            write_multiple: proposed.write_multiple,
            ..Self::ours()
        }
    }

    pub(crate) fn encode(&self) -> Payload {
        let mut capabilities = json!({
            "max_msg_fds": self.max_fds,
            "max_data_xfer_size": self.max_data,
        });
        if self.write_multiple {
            capabilities["write_multiple"] = Value::Bool(true);
        }
        let json = json!({ "capabilities": capabilities }).to_string();
        Payload::default()
            .u16(self.major)
            .u16(self.minor)
            .bytes(json.as_bytes())
            .bytes(&[0])
    }

    /// Reads the payload. `None` means that the payload is too short or does not have valid JSON. A
    /// missing limit gets the protocol's default. A limit above this crate's limit is lowered to
    /// this crate's limit.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let (major, minor) = (fields.u16()?, fields.u16()?);
        let text = fields.0.strip_suffix(&[0]).unwrap_or(fields.0);
        let data: Value = match text {
            [] => Value::Null,
            text => serde_json::from_slice(text).ok()?,
        };
        let capabilities = &data["capabilities"];
        let limit = |name: &str, default: usize, max: usize| match &capabilities[name] {
            Value::Null => Some(default),
            value => Some(value.as_u64()?.min(max as u64) as usize),
        };
        Some(Self {
            major,
            minor,
            max_fds: limit("max_msg_fds", 1, MAX_FDS)?,
            max_data: limit("max_data_xfer_size", MAX_DATA, MAX_DATA)?,
            write_multiple: capabilities["write_multiple"].as_bool().unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_was_encoded_decodes_to_itself() {
        let ours = Version::ours();
        assert_eq!(Version::decode(&ours.encode().0), Some(ours));
        let proposed = Version {
            minor: 0,
            write_multiple: true,
            ..ours
        };
        let answer = Version::answer(&proposed);
        assert_eq!(answer, proposed);
        assert_eq!(Version::decode(&answer.encode().0), Some(answer));
    }

    #[test]
    fn missing_capabilities_have_the_protocols_defaults() {
        for text in ["", "\0", "{}\0", r#"{"capabilities":{"twin_socket":{}}}"#] {
            let payload = [&[0, 0, 1, 0], text.as_bytes()].concat();
            let version = Version::decode(&payload).unwrap();
            assert_eq!((version.max_fds, version.max_data), (1, MAX_DATA), "{text}");
        }
    }

    #[test]
    fn payloads_that_are_short_or_not_json_are_refused() {
        for text in [
            "{",
            "\0\0",
            r#"{"capabilities":{"max_msg_fds":"many"}}"#,
            r#"{"capabilities":{"max_msg_fds":-1}}"#,
        ] {
            let payload = [&[0, 0, 1, 0], text.as_bytes()].concat();
            assert_eq!(Version::decode(&payload), None, "{text}");
        }
        assert_eq!(Version::decode(&[0, 0, 1]), None);
        let deep = [&[0u8, 0, 1, 0][..], &[b'['; 100_000]].concat();
        assert_eq!(Version::decode(&deep), None);
    }
}
