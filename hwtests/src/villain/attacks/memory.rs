//! Memory that is not what it seems.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use ipc::SharedEventFd;
use rustix::pipe::pipe;
use vhost_user::{MemoryTable, Request};

use crate::villain::attack::{Attack, Siege};
use crate::villain::driver::{ACCESS, Driver};
use crate::villain::front_end::Guest;
use crate::villain::shared::{SIZE, Shared, region};
use crate::villain::target::Target;
use crate::villain::victim::Victim;

pub const LIST: &[Attack] = &[
    Attack::new(Target::Socket, "memory that shrinks under a ring", shrink),
    Attack::new(
        Target::ProxyByFrontEnd,
        "memory that shrinks under a ring",
        shrink_behind_proxy,
    ),
    Attack::new(
        Target::Function,
        "memory that shrinks under a ring",
        shrink_of_client,
    ),
    Attack::new(
        Target::ProxyByClient,
        "memory that shrinks under a ring",
        shrink_of_device_vm,
    ),
    Attack::new(
        Target::Socket,
        "memory in files of other kinds",
        other_kinds,
    ),
    Attack::new(
        Target::ProxyByFrontEnd,
        "memory in files of other kinds",
        other_kinds,
    ),
    Attack::new(
        Target::Function,
        "memory in files of other kinds",
        other_kinds_of_client,
    ),
    Attack::new(
        Target::ProxyByClient,
        "memory in files of other kinds",
        other_kinds_of_client,
    ),
    Attack::new(Target::Socket, "more regions than there may be", regions),
];

fn shrink(victim: &Victim<'_>) -> Result<Siege> {
    let (kick, call) = (SharedEventFd::new()?, SharedEventFd::new()?);
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    guest.start(0, Some(kick.as_fd()), Some(call.as_fd()))?;
    guest.shared.file.set_len(0)?;
    kick.signal()?;
    Ok(Box::new((guest, kick, call)))
}

/// The file of the proxy has its length again when the attack ends.
struct Truncated(Shared);

impl Drop for Truncated {
    fn drop(&mut self) {
        let _ = self.0.file.set_len(SIZE);
    }
}

fn shrink_behind_proxy(victim: &Victim<'_>) -> Result<Siege> {
    let device = victim.device.as_ref().context("no device VM")?;
    let guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    guest.shared.file.set_len(0)?;
    let truncated = Truncated(guest.shared.clone());
    // The device VM reads the front-end's memory through the proxy. It may be told of an error.
    let _ = device.function.read_bar(MEMORY, 0, &mut [0; 64]);
    let _ = device.function.write_bar(MEMORY, 0, &[0; 64]);
    Ok(Box::new((guest, truncated)))
}

/// The BAR of a VVU function that has the front-end's memory.
const MEMORY: u8 = 4;

fn shrink_of_client(victim: &Victim<'_>) -> Result<Siege> {
    let interrupt = SharedEventFd::new()?;
    let mut driver = Driver::connect(&victim.socket())?;
    driver.start(&[interrupt.as_fd()])?;
    driver.shared.file.set_len(0)?;
    // The program may drop a client whose memory is lost.
    let _ = driver.notify(0);
    Ok(Box::new((driver, interrupt)))
}

/// The proxy reads its message queues in the client's memory.
fn shrink_of_device_vm(victim: &Victim<'_>) -> Result<Siege> {
    let events = [SharedEventFd::new()?, SharedEventFd::new()?];
    let mut driver = Driver::connect(&victim.socket())?;
    driver.start(&events.each_ref().map(AsFd::as_fd))?;
    driver.shared.file.set_len(0)?;
    let _ = driver.notify(0).and_then(|()| driver.notify(1));
    Ok(Box::new((driver, events)))
}

/// Descriptors of files that are not anonymous memory.
fn kinds(victim: &Victim<'_>) -> Result<Vec<OwnedFd>> {
    let (reader, writer) = pipe()?;
    let on_disk = File::options();
    let on_disk = on_disk
        .clone()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(victim.file("memory"))?;
    on_disk.set_len(SIZE)?;
    let zeroes = File::options().read(true).write(true).open("/dev/zero")?;
    let folder = File::open("/proc")?;
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    Ok(vec![
        reader,
        writer,
        on_disk.into(),
        zeroes.into(),
        folder.into(),
        socket.into(),
    ])
}

fn other_kinds(victim: &Victim<'_>) -> Result<Siege> {
    for file in kinds(victim)? {
        let mut guest = Guest::greet(&victim.socket(), victim.shared()?)?;
        let table = MemoryTable::new(vec![region(file.as_fd())])?;
        // The program may refuse the memory, and may drop the front-end.
        if guest.messages.request(Request::SetMemTable(table)).is_ok() {
            let _ = guest.start(0, Some(SharedEventFd::new()?.as_fd()), None);
        }
    }
    Ok(Box::new(()))
}

fn other_kinds_of_client(victim: &Victim<'_>) -> Result<Siege> {
    let mut driver = Driver::connect(&victim.socket())?;
    for file in kinds(victim)? {
        let _ = driver.client.dma_map(SIZE, SIZE, file.as_fd(), 0, ACCESS);
        let _ = driver.client.dma_unmap(SIZE, SIZE);
    }
    Ok(Box::new(driver))
}

/// The number of regions that the front-end tries to add. The program takes 509 at most.
const REGIONS: u64 = 1024;

fn regions(victim: &Victim<'_>) -> Result<Siege> {
    let mut guest = Guest::greet(&victim.socket(), victim.shared()?)?;
    let file = guest.shared.file.clone();
    for number in 0..REGIONS {
        let at = number * SIZE;
        let mut region = region(file.as_fd());
        (region.guest_addr, region.user_addr) = (at, at);
        let table = MemoryTable::new(vec![region])?;
        let _ = guest.messages.request(Request::AddMemReg(table));
    }
    Ok(Box::new(guest))
}
