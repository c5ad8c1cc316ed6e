//! A command and its reply.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ipc::{Interest, poll};
use rustix::io::Errno;

use super::{Client, ClientError, Result, bad};
use crate::channel::Packet;
use crate::wire::{Command, Header, Kind, Payload};

impl Client {
    /// Sends a command and waits for its reply. After the server missed a deadline, later commands
    /// fail at once. Otherwise, each of them would wait until its own deadline.
    pub(super) fn call(
        &mut self,
        command: Command,
        request: Payload,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Packet> {
        if self.ended {
            return Err(ClientError::Ended);
        }
        let reply = self.exchange(command, request, fds);
        self.ended = reply.as_ref().is_err_and(ClientError::ends_connection);
        reply
    }

    fn exchange(
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
            // A message of the server that is not the reply does not extend the deadline.
            self.time_left(command, deadline)?;
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

    /// Refuses a command of the server. All commands of a server ask for accesses to the client's
    /// memory. A server has to access this memory through the file descriptors that the client
    /// sent.
    fn refuse(
        &mut self,
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
        &mut self,
        command: Command,
        header: &Header,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<()> {
        self.channel.send(header, payload, fds)?;
        while !self.channel.flush()? {
            self.wait(command, Interest::writable(&self.channel), deadline)?;
        }
        Ok(())
    }

    fn recv(&mut self, command: Command, deadline: Instant) -> Result<Packet> {
        loop {
            if let Some(packet) = self.channel.recv()? {
                return Ok(packet);
            }
            self.wait(command, Interest::readable(&self.channel), deadline)?;
        }
    }

    fn wait(&self, command: Command, interest: Interest<'_>, deadline: Instant) -> Result<()> {
        let left = self.time_left(command, deadline)?;
        poll([interest], Some(left)).map_err(ClientError::from_io)?;
        Ok(())
    }

    /// The time left for the reply. Returns an error when the deadline has passed.
    fn time_left(&self, command: Command, deadline: Instant) -> Result<Duration> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::TimedOut {
                command,
                limit: self.timeout,
            });
        }
        Ok(left)
    }
}

fn check_reply(command: Command, sent: &Header, packet: &Packet, errno: Option<u32>) -> Result<()> {
    if packet.header.id != sent.id {
        return Err(bad(command, "it answers another message"));
    }
    let Some(errno) = errno else {
        return match packet.header.command == sent.command {
            true => Ok(()),
            false => Err(bad(command, "it answers another command")),
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
