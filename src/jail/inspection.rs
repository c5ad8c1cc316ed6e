//! A look at whether a front-end really shares its memory.
//!
//! A front-end may pass the file that its memory comes from and yet have it mapped privately; QEMU
//! does so without `share=on`. Nothing that it or its guest writes is seen here then, and the guest
//! waits for its disk forever, so this is worth a look where one is possible.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use vhost_user::{Connection, ConnectionError, Inspect, Message};

/// The front-end keeps what it writes to itself.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "its memory at {address:#x} is not shared; start the front-end's QEMU with share=on: -object \
     memory-backend-file,id=mem,mem-path=FILE,size=SIZE,share=on -machine memory-backend=mem"
)]
pub struct PrivateMemory {
    /// Where the front-end has it, in its own address space.
    pub address: u64,
}

/// Looks at the mappings of front-ends.
///
/// A process in a jail cannot, so it asks one outside, its [`Outside`]. The question is the
/// front-end's socket and addresses, 64 bits each; the answer is the first address whose memory is
/// private, or nothing. Both are the payload of a message.
#[derive(Debug)]
pub struct Inspector(Connection);

/// The end that answers an [`Inspector`], in a process that sees all processes.
#[derive(Debug)]
pub struct Outside(Connection);

/// How long an answer may take. It is worth waiting for, but not for long.
const PATIENCE: Duration = Duration::from_secs(1);

/// An inspector and who answers it.
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
    /// Checks that memory is mapped as shared memory by the front-end. What cannot be known is
    /// taken to be well.
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
        if self.0.send_with_fds(&question, &[front_end]).is_err() {
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
        let deadline = Timespec::try_from(PATIENCE).ok()?;
        let fd = self.0.as_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&deadline)).ok()?;
        self.0.recv().ok().flatten().map(|(answer, _)| answer)
    }
}

impl Outside {
    /// Answers what was asked.
    ///
    /// # Errors
    ///
    /// When the inspector is gone or breaks the protocol; there is nothing more to answer then.
    pub fn answer(&mut self) -> Result<(), ConnectionError> {
        while let Some((question, fds)) = self.0.recv()? {
            let front_end = fds.into_iter().next().map(UnixStream::from);
            let (user_addrs, _) = question.payload.as_chunks();
            let user_addrs = user_addrs.iter().copied().map(u64::from_le_bytes);
            let private = front_end.and_then(|front_end| private_memory(&front_end, user_addrs));
            let address = private.map(u64::to_le_bytes);
            let payload = address.as_ref().map_or(&[][..], |bytes| bytes);
            self.0.send(&question.head.reply(payload))?;
        }
        Ok(())
    }
}

impl AsFd for Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The first of a front-end's addresses whose memory it does not share.
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

/// Whether a process with these maps (see proc_pid_maps(5)) has a private mapping at an address.
fn is_private(maps: impl BufRead, address: u64) -> bool {
    let mut lines = maps.lines().map_while(Result::ok);
    lines.any(|line| {
        mapping(&line)
            .is_some_and(|(start, end, private)| private && start <= address && address < end)
    })
}

/// First address, one past the last, and whether it is private.
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
                let fd = outside.as_fd();
                poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
                outside.answer().unwrap();
            });
            let inspected = inspector.inspect(ours.as_fd(), &[0, region.as_ptr() as u64]);
            inspected.map_err(|error| error.to_string())
        })
    }

    /// The front-end is this very process.
    #[test]
    fn a_front_end_that_keeps_its_memory_to_itself_is_found_out() {
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
    fn what_cannot_be_known_is_taken_to_be_well() {
        let (mut inspector, outside) = inspection().unwrap();
        let (_peer, ours) = UnixStream::pair().unwrap();
        drop(outside);
        assert!(inspector.inspect(ours.as_fd(), &[0x1000]).is_ok());
    }
}
