//! The protocol between the harness and the agent in a guest, over a virtio serial port.
//!
//! A frame has the length of its data (32 bits), a kind (one byte), the 32-bit id of a command, and
//! the data. Integers are little-endian.

use std::io::{self, Read, Write};

/// The name of the virtio serial port.
pub const PORT: &str = "vvu-agent";

/// The maximum size of the data in a frame, in bytes.
pub const MAX_DATA: usize = 1 << 20;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// From the guest, once per boot: the agent has started.
    Hello = 1,
    /// From the host: run the data as a shell command.
    Run = 2,
    /// From the host: send a signal (32-bit number) to the command's process group.
    Signal = 3,
    /// From the host: switch the guest off.
    PowerOff = 4,
    /// From the host: restart the guest.
    Reboot = 5,
    /// From the guest: bytes of a command's standard output.
    Stdout = 6,
    /// From the guest: bytes of a command's standard error.
    Stderr = 7,
    /// From the guest: the command ended with this status (32-bit).
    Exit = 8,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        use FrameKind::{Exit, Hello, PowerOff, Reboot, Run, Signal, Stderr, Stdout};
        let all = [Hello, Run, Signal, PowerOff, Reboot, Stdout, Stderr, Exit];
        all.into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The kind of the frame.
    pub kind: FrameKind,
    /// The id of the command, or 0 for kinds that are not about a command.
    pub id: u32,
    /// The data of the frame. Its meaning depends on the kind.
    pub data: Vec<u8>,
}

impl Frame {
    /// Makes a frame with data.
    pub fn new(kind: FrameKind, id: u32, data: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            id,
            data: data.into(),
        }
    }

    /// Makes a frame with a number as its data.
    pub fn number(kind: FrameKind, id: u32, number: i32) -> Self {
        Self::new(kind, id, number.to_le_bytes())
    }

    /// The data as a number.
    pub fn as_number(&self) -> io::Result<i32> {
        let bytes = self.data[..]
            .try_into()
            .map_err(|_| invalid("the data is not a number of four bytes"))?;
        Ok(i32::from_le_bytes(bytes))
    }

    /// Writes the frame in one piece.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        if self.data.len() > MAX_DATA {
            return Err(invalid("the data does not fit in a frame"));
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
            return Err(invalid("the frame is too long"));
        }
        let kind = FrameKind::from_byte(kind);
        let kind = kind.ok_or_else(|| invalid("the kind of the frame is unknown"))?;
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

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_written_and_read_is_the_same() {
        let frames = [
            Frame::new(FrameKind::Hello, 0, []),
            Frame::new(FrameKind::Run, 7, "echo hi"),
            Frame::number(FrameKind::Exit, 7, -3),
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
    fn invalid_frames_are_refused() {
        let long = [0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0];
        assert_eq!(
            Frame::read_from(&mut &long[..]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let unknown = [0, 0, 0, 0, 99, 0, 0, 0, 0];
        assert!(Frame::read_from(&mut &unknown[..]).is_err());
        assert!(Frame::new(FrameKind::Hello, 0, []).as_number().is_err());
    }
}
