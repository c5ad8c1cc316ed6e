//! What the harness and the agent in the guest say to each other over a virtio serial port.
//!
//! A frame is a 32-bit length, a kind, a 32-bit number of the command it is about, and data. The
//! length counts the data only; integers are little-endian.

use std::io::{self, Read, Write};

/// Name of the virtio serial port.
pub const PORT: &str = "vvu-agent";

/// Most data in one frame.
pub const MAX_DATA: usize = 1 << 20;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Guest: the agent runs; sent once a boot.
    Hello = 1,
    /// Host: run the data as a shell command.
    Run = 2,
    /// Host: send a signal (32-bit) to the command's process group.
    Signal = 3,
    /// Host: switch the guest off.
    PowerOff = 4,
    /// Host: restart the guest.
    Reboot = 5,
    /// Guest: bytes of a command's standard output.
    Stdout = 6,
    /// Guest: bytes of a command's standard error.
    Stderr = 7,
    /// Guest: the command ended with this status (32-bit).
    Exit = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{Exit, Hello, PowerOff, Reboot, Run, Signal, Stderr, Stdout};
        let all = [Hello, Run, Signal, PowerOff, Reboot, Stdout, Stderr, Exit];
        all.into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// The command it is about; 0 where that means nothing.
    pub id: u32,
    /// Its data.
    pub data: Vec<u8>,
}

impl Frame {
    /// A frame with data.
    pub fn new(kind: Kind, id: u32, data: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            id,
            data: data.into(),
        }
    }

    /// A frame whose data is one number.
    pub fn number(kind: Kind, id: u32, number: i32) -> Self {
        Self::new(kind, id, number.to_le_bytes())
    }

    /// The number that the data is.
    pub fn as_number(&self) -> io::Result<i32> {
        let bytes = self.data[..]
            .try_into()
            .map_err(|_| invalid("a number is four bytes"))?;
        Ok(i32::from_le_bytes(bytes))
    }

    /// Writes the frame in one piece.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        if self.data.len() > MAX_DATA {
            return Err(invalid("more data than fits in a frame"));
        }
        let mut bytes = Vec::with_capacity(9 + self.data.len());
        bytes.extend((self.data.len() as u32).to_le_bytes());
        bytes.push(self.kind as u8);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(&self.data);
        writer.write_all(&bytes)
    }

    /// Reads one frame.
    pub fn read_from(reader: &mut impl Read) -> io::Result<Self> {
        let length = u32::from_le_bytes(read_array(reader)?) as usize;
        let [kind] = read_array(reader)?;
        let id = u32::from_le_bytes(read_array(reader)?);
        if length > MAX_DATA {
            return Err(invalid("a frame longer than allowed"));
        }
        let kind = Kind::from_byte(kind).ok_or_else(|| invalid("a frame of unknown kind"))?;
        let mut data = vec![0; length];
        reader.read_exact(&mut data)?;
        Ok(Self { kind, id, data })
    }
}

fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let frames = [
            Frame::new(Kind::Hello, 0, []),
            Frame::new(Kind::Run, 7, "echo hi"),
            Frame::number(Kind::Exit, 7, -3),
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            frame.write_to(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        for frame in &frames {
            assert_eq!(&Frame::read_from(&mut rest).unwrap(), frame);
        }
        assert!(rest.is_empty());
        assert_eq!(frames[2].as_number().unwrap(), -3);
    }

    #[test]
    fn nonsense_is_refused() {
        let long = [0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0];
        assert_eq!(
            Frame::read_from(&mut &long[..]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let unknown = [0, 0, 0, 0, 99, 0, 0, 0, 0];
        assert!(Frame::read_from(&mut &unknown[..]).is_err());
        assert!(Frame::new(Kind::Hello, 0, []).as_number().is_err());
    }
}
