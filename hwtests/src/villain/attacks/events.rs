//! Eventfds that block.
//!
//! All descriptors of an eventfd share O_NONBLOCK and the counter. So a peer can clear the one and
//! fill the other after it gave the eventfd away, and a program that signals the eventfd blocks.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use ipc::SharedEventFd;
use vfio_user::index;
use vhost_user::{Request, VringFd};

use crate::villain::attack::{Attack, Siege};
use crate::villain::driver::{BAR, Driver};
use crate::villain::eventfd::{Contest, jam, steal};
use crate::villain::front_end::Guest;
use crate::villain::repeat::Repeat;
use crate::villain::target::Target;
use crate::villain::victim::Victim;
use crate::villain::{disk, shared::Shared};

pub const LIST: &[Attack] = &[
    Attack::new(Target::Socket, "a call that blocks", call),
    Attack::new(
        Target::Socket,
        "a call that blocks, given again and again",
        calls,
    )
    .busy(),
    Attack::new(Target::Socket, "an error signal that blocks", error),
    Attack::new(Target::Socket, "a kick whose signals are taken back", kick),
    Attack::new(Target::ProxyByFrontEnd, "a call that blocks", call),
    Attack::new(
        Target::ProxyByFrontEnd,
        "a call that blocks in between",
        call_in_between,
    )
    .busy(),
    Attack::new(
        Target::ProxyByFrontEnd,
        "an error signal that blocks",
        error,
    ),
    Attack::new(
        Target::ProxyByFrontEnd,
        "a kick whose signals are taken back",
        kick,
    )
    .known("each signal wakes the proxy"),
    Attack::new(Target::ProxyByClient, "an interrupt that blocks", trigger),
    Attack::new(
        Target::ProxyByClient,
        "an interrupt that blocks in between",
        triggers,
    )
    .busy(),
    Attack::new(
        Target::Function,
        "an interrupt of a queue that blocks",
        interrupt,
    ),
    Attack::new(Target::Function, "an interrupt that blocks", trigger),
    Attack::new(
        Target::Function,
        "an interrupt that blocks in between",
        triggers,
    )
    .busy(),
];

/// The number of times that a signal is caused while its eventfd is filled and emptied.
const ROUNDS: usize = 500;

fn call(victim: &Victim<'_>) -> Result<Siege> {
    let (kick, call) = (SharedEventFd::new()?, SharedEventFd::new()?);
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    let mut ring = guest.start(0, Some(kick.as_fd()), Some(call.as_fd()))?;
    jam(&call)?;
    disk::submit(&guest.shared, &mut ring, false, 0, 512)?;
    kick.signal()?;
    Ok(Box::new((guest, kick, call)))
}

/// A new eventfd of a running queue is signalled at once, by the thread that reads messages.
fn calls(victim: &Victim<'_>) -> Result<Siege> {
    let (kick, call) = (SharedEventFd::new()?, SharedEventFd::new()?);
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    let mut ring = guest.start(0, Some(kick.as_fd()), None)?;
    disk::submit(&guest.shared, &mut ring, false, 0, 512)?;
    kick.signal()?;
    let contest = Contest::start(&call)?;
    for _ in 0..ROUNDS {
        let call = VringFd {
            index: 0,
            fd: Some(call.as_fd()),
        };
        // The program may refuse an eventfd that is full, and may drop the front-end.
        let _ = guest.messages.request(Request::SetVringCall(call));
    }
    Ok(Box::new((guest, kick, contest)))
}

fn error(victim: &Victim<'_>) -> Result<Siege> {
    let (kick, error) = (SharedEventFd::new()?, SharedEventFd::new()?);
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    let mut ring = guest.start(0, Some(kick.as_fd()), None)?;
    let fd = Some(error.as_fd());
    guest
        .messages
        .request(Request::SetVringErr(VringFd { index: 0, fd }))?;
    jam(&error)?;
    // There is no descriptor with this number, so the ring is broken.
    ring.publish(u16::MAX);
    kick.signal()?;
    Ok(Box::new((guest, kick, error)))
}

fn kick(victim: &Victim<'_>) -> Result<Siege> {
    let (kick, call) = (SharedEventFd::new()?, SharedEventFd::new()?);
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    guest.start(0, Some(kick.as_fd()), Some(call.as_fd()))?;
    let thief = steal(&kick)?;
    Ok(Box::new((guest, thief)))
}

/// The device VM calls while the eventfd is filled and emptied.
fn call_in_between(victim: &Victim<'_>) -> Result<Siege> {
    let device = victim.device.as_ref().context("no device VM")?;
    let (kick, call) = (SharedEventFd::new()?, SharedEventFd::new()?);
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    guest.start(0, Some(kick.as_fd()), Some(call.as_fd()))?;
    let contest = Contest::start(&call)?;
    for _ in 0..ROUNDS {
        device.function.write_bar(DOORBELLS, 0, &[0, 0])?;
    }
    Ok(Box::new((guest, kick, contest)))
}

/// The BAR of a VVU function that has the doorbells, the call of queue 0 first.
const DOORBELLS: u8 = 2;

fn trigger(victim: &Victim<'_>) -> Result<Siege> {
    let interrupt = SharedEventFd::new()?;
    let mut driver = Driver::connect(&victim.socket())?;
    driver
        .client
        .set_irqs(index::MSIX, 0, &[Some(interrupt.as_fd())])?;
    jam(&interrupt)?;
    // The program may drop a client whose interrupt blocks.
    let _ = driver.client.trigger_irqs(index::MSIX, 0, 1);
    Ok(Box::new((driver, interrupt)))
}

fn triggers(victim: &Victim<'_>) -> Result<Siege> {
    let interrupt = SharedEventFd::new()?;
    let mut driver = Driver::connect(&victim.socket())?;
    driver
        .client
        .set_irqs(index::MSIX, 0, &[Some(interrupt.as_fd())])?;
    let contest = Contest::start(&interrupt)?;
    let trigger = Repeat::start(move || driver.client.trigger_irqs(index::MSIX, 0, 1).is_ok())?;
    Ok(Box::new((trigger, contest)))
}

fn interrupt(victim: &Victim<'_>) -> Result<Siege> {
    let interrupts = [SharedEventFd::new()?, SharedEventFd::new()?];
    let mut driver = Driver::connect(&victim.socket())?;
    let mut rings = driver.start(&interrupts.each_ref().map(AsFd::as_fd))?;
    let shared: &Shared = &driver.shared.clone();
    for (queue, (ring, interrupt)) in (0..).zip(rings.iter_mut().zip(&interrupts)) {
        jam(interrupt)?;
        disk::submit(shared, ring, false, 0, 512)?;
        driver.notify(queue)?;
    }
    // The other requests of the client are still answered.
    driver.client.region_read(BAR, 0, &mut [0; 4])?;
    Ok(Box::new((driver, interrupts)))
}
