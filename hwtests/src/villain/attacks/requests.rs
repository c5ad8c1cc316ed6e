//! Requests that get around limits or cost memory.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ipc::SharedEventFd;
use vhost_user::{MemoryTable, Request};
use virtio::test_utils::DriverRing;

use crate::villain::attack::{Attack, Siege};
use crate::villain::disk;
use crate::villain::driver::Driver;
use crate::villain::front_end::Guest;
use crate::villain::shared::{DATA, SIZE, region};
use crate::villain::target::Target;
use crate::villain::victim::Victim;

pub const LIST: &[Attack] = &[
    Attack::new(Target::Socket, "more than --bps by stops", stops).with("--bps=1M"),
    Attack::new(Target::Function, "more than --bps by resets", resets).with("--bps=1M"),
    Attack::new(Target::Socket, "requests of very many pieces", pieces),
];

/// The limit on bytes per second.
const RATE: u64 = 1 << 20;
/// The length of each request.
const LENGTH: u32 = 512 << 10;
/// The time for which the peer tries to get more than the limit.
const TIME: Duration = Duration::from_secs(2);
/// The bytes that the peer may get beyond the limit: a burst, and requests that began in time.
const BEYOND: u64 = 3 * LENGTH as u64;

/// Counts the requests that a device has carried out.
fn count(ring: &mut DriverRing) -> u64 {
    std::iter::from_fn(|| ring.pop_used()).count() as u64
}

/// Checks that no more requests were carried out than the limit allows.
fn check(requests: u64, time: Duration) -> Result<()> {
    let bytes = requests * u64::from(LENGTH);
    let allowed = (RATE as f64 * time.as_secs_f64()) as u64 + BEYOND;
    ensure!(
        bytes <= allowed,
        "the peer gets {bytes} bytes in {time:?}, not {allowed}"
    );
    Ok(())
}

fn stops(victim: &Victim<'_>) -> Result<Siege> {
    let kick = SharedEventFd::new()?;
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    let (begin, mut done) = (Instant::now(), 0);
    while begin.elapsed() < TIME {
        let mut ring = guest.start(0, Some(kick.as_fd()), None)?;
        for _ in 0..4 {
            disk::submit(&guest.shared, &mut ring, true, 0, LENGTH)?;
        }
        kick.signal()?;
        guest.messages.get_vring_base(0)?;
        done += count(&mut ring);
    }
    check(done, begin.elapsed())?;
    Ok(Box::new(guest))
}

fn resets(victim: &Victim<'_>) -> Result<Siege> {
    let call = SharedEventFd::new()?;
    let mut driver = Driver::connect(&victim.socket())?;
    let (begin, mut done) = (Instant::now(), 0);
    let shared = driver.shared.clone();
    while begin.elapsed() < TIME {
        let mut rings = driver.start(&[call.as_fd()])?;
        for ring in &mut rings {
            for _ in 0..4 {
                disk::submit(&shared, ring, true, 0, LENGTH)?;
            }
            driver.notify(0)?;
            driver.reset()?;
            done += count(ring);
        }
    }
    check(done, begin.elapsed())?;
    Ok(Box::new(driver))
}

/// The length of each of many small regions, and their number.
const PIECE: u64 = 0x1000;
const PIECES: u64 = 500;
/// The addresses of the small regions.
const SMALL: u64 = SIZE - PIECE * PIECES;

/// Each buffer lies in hundreds of regions. With 8 buffers a request is just not refused.
fn pieces(victim: &Victim<'_>) -> Result<Siege> {
    let kick = SharedEventFd::new()?;
    let mut guest = Guest::greet(&victim.socket(), victim.shared()?)?;
    let file = guest.shared.file.clone();
    for number in 0..=PIECES {
        let mut region = region(file.as_fd());
        if number == 0 {
            region.size = SMALL;
        } else {
            let at = SMALL + PIECE * (number - 1);
            (region.guest_addr, region.user_addr, region.file_offset) = (at, at, at);
            region.size = PIECE;
        }
        guest
            .messages
            .request(Request::AddMemReg(MemoryTable::new(vec![region])?))?;
    }
    for queue in 0..16 {
        let mut ring = guest.shared.ring(queue, 1024)?;
        guest.start_ring(queue, &ring, Some(kick.as_fd()), None)?;
        for buffers in [8, 16, 512] {
            let mut chain = vec![(DATA, 16, false)];
            chain.extend((0..buffers).map(|_| (SMALL, (PIECE * PIECES) as u32, true)));
            chain.push((DATA + 0x20, 1, true));
            ring.add(&chain);
        }
        kick.signal()?;
    }
    Ok(Box::new(guest))
}
