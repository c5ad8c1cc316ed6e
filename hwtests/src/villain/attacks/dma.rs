//! Memory that a vfio-user client maps and unmaps.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use anyhow::Result;
use virtio::test_utils::anonymous_file;

use crate::villain::attack::{Attack, Siege};
use crate::villain::driver::{ACCESS, Driver};
use crate::villain::messages::{send_with, unanswered, version};
use crate::villain::shared::SIZE;
use crate::villain::target::Target;
use crate::villain::victim::Victim;

pub const LIST: &[Attack] = &[
    Attack::new(
        Target::Function,
        "2^64 bytes mapped and unmapped",
        all_addresses,
    ),
    Attack::new(
        Target::Function,
        "more mappings than there may be",
        mappings,
    ),
    Attack::new(
        Target::ProxyByClient,
        "more mappings than there may be",
        mappings,
    ),
];

/// The largest power of two that a process can map at once.
const LARGE: u64 = 1 << 46;
/// The size of a page.
const SMALL: u64 = 1 << 12;

fn all_addresses(victim: &Victim<'_>) -> Result<Siege> {
    let file = anonymous_file(LARGE);
    // The other mappings have no replies that say whether they succeed.
    let mut driver = Driver::connect(&victim.socket())?;
    driver
        .client
        .dma_map(LARGE, LARGE, file.as_fd(), 0, ACCESS)?;
    drop(driver);
    let stream = UnixStream::connect(victim.socket())?;
    send_with(&stream, &version(), &[])?;
    let mut size = LARGE;
    let mut count = u64::MAX / LARGE + 1;
    while size >= SMALL {
        map_and_unmap(&stream, size, count)?;
        // Smaller files take the addresses that are left.
        (size, count) = (size / 2, 2);
    }
    Ok(Box::new(stream))
}

/// Maps a file of this size and unmaps it, and does so again and again.
fn map_and_unmap(stream: &UnixStream, size: u64, count: u64) -> Result<()> {
    let file = anonymous_file(size);
    let bytes = |numbers: [u64; 4]| numbers.map(u64::to_le_bytes).concat();
    // The fields are: argsz and flags, offset in the file, address, size.
    let map = unanswered(2, &bytes([32 | 3 << 32, 0, 0, size]));
    // The fields are: argsz and flags, address, size.
    let unmap = unanswered(3, &bytes([24, 0, size, 0])[..24]);
    let both = [map, unmap].concat();
    (0..count).try_for_each(|_| send_with(stream, &both, &[file.as_fd()]))
}

/// The number of mappings that the client tries to have. The programs take 32,768 at most.
const MAPPINGS: u64 = 40_000;

fn mappings(victim: &Victim<'_>) -> Result<Siege> {
    let mut driver = Driver::connect(&victim.socket())?;
    let file = driver.shared.file.clone();
    for number in 0..MAPPINGS {
        let at = SIZE + 0x2000 * number;
        if driver
            .client
            .dma_map(at, 0x1000, file.as_fd(), 0, ACCESS)
            .is_err()
        {
            break;
        }
    }
    Ok(Box::new(driver))
}
