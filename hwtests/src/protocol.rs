//! The protocol between the harness and the agent in a guest, over a virtio serial port.
//!
//! A frame consists of the length of its data (32 bits), a kind (one byte), the id of a command (32
//! bits), and the data. Integers are little-endian.

use std::io::{self, Read, Write};

/// The name of the virtio serial port between the host and the agent.
pub const PORT: &str = "vvu-agent";

/// The maximum size of the data in a frame, in bytes.
pub const MAX_DATA: usize = 1 << 20;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Sent by the guest once per boot, when the agent has started.
    Hello = 1,
    /// Sent by the host to run a shell command. The data is the command.
    Run = 2,
    /// Sent by the host to send a signal to a command's process group. The data is the number of
    /// the signal (32 bits).
    Signal = 3,
    /// Sent by the host to switch the guest off.
    PowerOff = 4,
    /// Sent by the host to restart the guest.
    Reboot = 5,
    /// Sent by the guest with bytes of a command's standard output.
    Stdout = 6,
    /// Sent by the guest with bytes of a command's standard error.
    Stderr = 7,
    /// Sent by the guest when a command has ended. The data is the exit status (32 bits).
    Exit = 8,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        use FrameKind::{Exit, Hello, PowerOff, Reboot, Run, Signal, Stderr, Stdout};
        let all = [Hello, Run, Signal, PowerOff, Reboot, Stdout, Stderr, Exit];
        all.into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// One message between the host and the agent.
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

    /// Makes a frame whose data is a number (32 bits).
    pub fn number(kind: FrameKind, id: u32, number: i32) -> Self {
        Self::new(kind, id, number.to_le_bytes())
    }

    /// The data as a number. It is an error if the data does not have four bytes.
    pub fn as_number(&self) -> io::Result<i32> {
        let bytes = self.data[..]
            .try_into()
            .map_err(|_| invalid("the data is not a number of four bytes"))?;
        Ok(i32::from_le_bytes(bytes))
    }

    /// Writes the whole frame at once. It is an error if the data is longer than [`MAX_DATA`].
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

    /// Reads one frame. It is an error if the data is longer than [`MAX_DATA`].
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
