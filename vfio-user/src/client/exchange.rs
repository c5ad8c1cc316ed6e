//! One command and its reply.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Client, ClientError, Result, bad};
use crate::channel::{ChannelError, Outgoing, Packet};
use crate::wire::{Command, Header, Kind, Payload};

impl Client {
    /// Sends a command and waits for its reply.
    pub(super) fn call(
        &mut self,
        command: Command,
        request: Payload,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Packet> {
        let deadline = Instant::now() + self.timeout;
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let header = Header {
            id,
            command: command as u16,
            kind: Kind::Command { no_reply: false },
        };
        self.send(command, &header, &request.0, fds, deadline)?;
        loop {
            let packet = self.recv(command, deadline)?;
            match packet.header.kind {
                Kind::Command { no_reply } => self.refuse(command, &packet, no_reply, deadline)?,
                Kind::Reply { errno } => {
                    check_reply(command, &header, &packet, errno)?;
                    return Ok(packet);
                }
            }
        }
    }

    /// The device gets at memory only through the file descriptors that it was given.
    fn refuse(
        &self,
        waiting_for: Command,
        packet: &Packet,
        no_reply: bool,
        deadline: Instant,
    ) -> Result<()> {
        if no_reply {
            return Ok(());
        }
        let header = Header {
            kind: Kind::Reply {
                errno: Some(Errno::OPNOTSUPP.raw_os_error() as u32),
            },
            ..packet.header
        };
        self.send(waiting_for, &header, &[], &[], deadline)
    }

    fn send(
        &self,
        command: Command,
        header: &Header,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<()> {
        let bytes = [&header.encode(payload.len()), payload].concat();
        let mut message = Outgoing::new(&bytes, fds)?;
        while !self.channel.send(&mut message)? {
            self.wait(command, PollFlags::OUT, deadline)?;
        }
        Ok(())
    }

    fn recv(&mut self, command: Command, deadline: Instant) -> Result<Packet> {
        loop {
            if let Some(packet) = self.channel.recv()? {
                return Ok(packet);
            }
            self.wait(command, PollFlags::IN, deadline)?;
        }
    }

    fn wait(&self, command: Command, flags: PollFlags, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        let mut fds = [PollFd::from_borrowed_fd(self.channel.as_fd(), flags)];
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => Err(ClientError::TimedOut {
                command,
                limit: self.timeout,
            }),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(ChannelError::from(errno).into()),
        }
    }
}

fn check_reply(command: Command, sent: &Header, packet: &Packet, errno: Option<u32>) -> Result<()> {
    if packet.header.id != sent.id {
        return Err(bad(command, "answers another message"));
    }
    let Some(errno) = errno else {
        return match packet.header.command == sent.command {
            true => Ok(()),
            false => Err(bad(command, "answers another command")),
        };
    };
    let errno = match i32::try_from(errno) {
        Ok(0) | Err(_) => Errno::IO.raw_os_error(),
        Ok(errno) => errno,
    };
    Err(ClientError::Refused {
        command,
        source: io::Error::from_raw_os_error(errno),
    })
}
