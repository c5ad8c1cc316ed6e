//! A look at whether the front-end really shares its memory.
//!
//! A front-end may pass the file that its memory comes from and yet have it mapped privately; QEMU
//! does so without `share=on`. Nothing that it or its guest writes is seen here then, and the guest
//! waits for its disk for ever, so this is worth a look where one is possible.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use vhost::vhost_user::message::FrontendReq;

use super::{Connection, Message, decode_regions};

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

/// Checks that the memory which a SET_MEM_TABLE or ADD_MEM_REG announces is mapped as shared memory
/// by the front-end that sent it. What cannot be known is taken to be well.
///
/// # Errors
///
/// [`PrivateMemory`] for the first region that is not.
pub fn check_shared(connection: &Connection, message: &Message) -> Result<(), PrivateMemory> {
    let regions = match message.code() {
        Some(FrontendReq::SET_MEM_TABLE) => decode_regions(&message.payload),
        Some(FrontendReq::ADD_MEM_REG) => message.as_single_region().map(|region| vec![region]),
        _ => return Ok(()),
    };
    let (Ok(regions), Some(pid)) = (regions, connection.peer_pid()) else {
        return Ok(());
    };
    let maps = Path::new("/proc").join(pid.to_string()).join("maps");
    for address in regions.into_iter().map(|region| region.user_addr) {
        if File::open(&maps).is_ok_and(|maps| is_private(BufReader::new(maps), address)) {
            return Err(PrivateMemory { address });
        }
    }
    Ok(())
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
    use std::os::unix::net::UnixStream;

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

    fn announce(region: &MmapRegion) -> Result<(), PrivateMemory> {
        let (_peer, ours) = UnixStream::pair().unwrap();
        let fields = [0, 0, 0x1000, region.as_ptr() as u64, 0];
        let payload = fields.map(u64::to_le_bytes).concat();
        let message = Message::request(FrontendReq::ADD_MEM_REG, &payload);
        check_shared(&Connection::new(ours).unwrap(), &message)
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
        assert_eq!(announce(&private), Err(PrivateMemory { address }));
    }
}
