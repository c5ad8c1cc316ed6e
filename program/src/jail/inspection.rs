//! Checks whether a front-end really shares its memory.
//!
//! A front-end can pass the file of its memory and still map that file privately, as QEMU does
//! without `share=on`. The back-end then does not see the guest's writes, and the guest waits for
//! its disk forever. This module detects private mappings, and the back-end then refuses the
//! front-end's memory.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipc::{Interest, poll};
use rustix::net::sockopt::socket_peercred;
use vhost_user::{Connection, ConnectionError, Inspect, Message};

/// The front-end has mapped its memory privately, so no other process sees the writes to it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "its memory at {address:#x} is not shared; start the front-end's QEMU with share=on: -object \
     memory-backend-file,id=mem,mem-path=FILE,size=SIZE,share=on -machine memory-backend=mem"
)]
pub struct PrivateMemory {
    /// An address of the private memory, in the front-end's address space.
    pub address: u64,
}

/// Checks the memory mappings of front-ends.
///
/// A process in a jail sees no other process, so the inspector asks an [`Outside`]. The question is
/// a message with the front-end's socket as descriptor and addresses of 64 bits each as payload.
/// The payload of the answer is the first address whose memory is private. The payload is empty if
/// no memory is private.
#[derive(Debug)]
pub struct Inspector(Connection);

/// Answers the questions of an [`Inspector`]. It belongs to a process that sees all processes.
#[derive(Debug)]
pub struct Outside(Connection);

/// The maximum time that the inspector waits for an answer. Without an answer, serving continues.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes an inspector and the [`Outside`] that answers its questions.
///
/// # Errors
///
/// When the operating system is out of file descriptors.
pub fn inspection() -> io::Result<(Inspector, Outside)> {
    let (inside, outside) = UnixStream::pair()?;
    Ok((
        Inspector(Connection::new(inside)?),
        Outside(Connection::new(outside)?),
    ))
}

impl Inspect for Inspector {
    /// Checks that the front-end's mappings at these addresses are shared. If no answer arrives,
    /// the memory counts as shared.
    fn inspect(
        &mut self,
        front_end: BorrowedFd<'_>,
        user_addrs: &[u64],
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let payload: Vec<_> = user_addrs
            .iter()
            .flat_map(|addr| addr.to_le_bytes())
            .collect();
        let question = Message::request(0, &payload);
        if self.0.send(&question, &[front_end]).is_err() {
            return Ok(());
        }
        match self.answer().and_then(|answer| answer.as_number()) {
            Some(address) => Err(PrivateMemory { address }.into()),
            None => Ok(()),
        }
    }
}

impl Inspector {
    fn answer(&mut self) -> Option<Message> {
        poll([Interest::readable(&self.0)], Some(PATIENCE)).ok()?;
        self.0.recv().ok().flatten().map(|(answer, _)| answer)
    }
}

impl Outside {
    /// Answers one question, if a question has arrived. Never blocks, because a hostile peer may
    /// control the process of the inspector.
    ///
    /// # Errors
    ///
    /// When the connection to the inspector has ended, or the inspector breaks the protocol. After
    /// an error, the caller has to drop this object.
    pub fn answer(&mut self) -> Result<(), ConnectionError> {
        let Some((question, fds)) = self.0.recv()? else {
            return Ok(());
        };
        let front_end = fds.into_iter().next().map(UnixStream::from);
        let (user_addrs, _) = question.payload.as_chunks();
        let user_addrs = user_addrs.iter().copied().map(u64::from_le_bytes);
        let private = front_end.and_then(|front_end| private_memory(&front_end, user_addrs));
        let address = private.map(u64::to_le_bytes);
        let payload = address.as_ref().map_or(&[][..], |bytes| bytes);
        self.0.send(&question.head.reply(payload), &[])
    }
}

impl AsFd for Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The first of these addresses at which the front-end has a private mapping. `None` means that
/// none of these mappings is private, or that the mappings cannot be read.
fn private_memory(
    front_end: &UnixStream,
    mut user_addrs: impl Iterator<Item = u64>,
) -> Option<u64> {
    let peer = socket_peercred(front_end).ok()?;
    let maps = format!("/proc/{}/maps", peer.pid.as_raw_nonzero());
    user_addrs.find(|address| {
        let maps = File::open(&maps).map(BufReader::new);
        maps.is_ok_and(|maps| is_private(maps, *address))
    })
}

/// Whether the text `maps` of proc_pid_maps(5) lists a private mapping at `address`.
fn is_private(maps: impl BufRead, address: u64) -> bool {
    let mut lines = maps.lines().map_while(Result::ok);
    lines.any(|line| {
        mapping(&line)
            .is_some_and(|(start, end, private)| private && start <= address && address < end)
    })
}

/// Parses a line of proc_pid_maps(5). Returns the first address of the mapping, the address after
/// its last address, and whether the mapping is private.
fn mapping(line: &str) -> Option<(u64, u64, bool)> {
    let mut fields = line.split(' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let private = fields.next()?.ends_with('p');
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?, private))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use virtio::test_utils::anonymous_file;
    use vm_memory::MmapRegion;
    use vm_memory::mmap::MmapRegionBuilder;

    const MAPS: &str = "7f0000000000-7f0000001000 rw-s 00000000 00:01 5 /dev/shm/ram\n\
                        7f0000001000-7f0000002000 rw-p 00000000 00:01 5 /dev/shm/ram\n\
                        garbage\n\
                        7f0000003000-7f0000004000 ---p 00000000 00:00 0";

    #[test]
    fn maps_tell_private_from_shared() {
        for (address, private) in [
            (0x7f00_0000_0000, false),
            (0x7f00_0000_0fff, false),
            (0x7f00_0000_1000, true),
            (0x7f00_0000_2000, false),
            (0x7f00_0000_3fff, true),
            (0x7f00_0000_4000, false),
            (u64::MAX, false),
        ] {
            assert_eq!(
                is_private(MAPS.as_bytes(), address),
                private,
                "{address:#x}"
            );
        }
    }

    fn announce(region: &MmapRegion) -> Result<(), String> {
        let (_peer, ours) = UnixStream::pair().unwrap();
        let (mut inspector, mut outside) = inspection().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                poll([Interest::readable(&outside)], None).unwrap();
                outside.answer().unwrap();
            });
            let inspected = inspector.inspect(ours.as_fd(), &[0, region.as_ptr() as u64]);
            inspected.map_err(|error| error.to_string())
        })
    }

    /// The test process itself is the front-end.
    #[test]
    fn private_memory_of_a_front_end_is_found() {
        let map = |flags| {
            let file = vm_memory::FileOffset::from_arc(anonymous_file(0x1000), 0);
            let builder = MmapRegionBuilder::new(0x1000).with_file_offset(file);
            let access = libc::PROT_READ | libc::PROT_WRITE;
            builder
                .with_mmap_prot(access)
                .with_mmap_flags(flags)
                .build()
                .unwrap()
        };
        assert_eq!(announce(&map(libc::MAP_SHARED)), Ok(()));
        let private = map(libc::MAP_PRIVATE | libc::MAP_NORESERVE);
        let address = private.as_ptr() as u64;
        assert_eq!(
            announce(&private),
            Err(PrivateMemory { address }.to_string())
        );
    }

    #[test]
    fn memory_counts_as_shared_without_an_answer() {
        let (mut inspector, outside) = inspection().unwrap();
        let (_peer, ours) = UnixStream::pair().unwrap();
        drop(outside);
        assert!(inspector.inspect(ours.as_fd(), &[0x1000]).is_ok());
    }
}
