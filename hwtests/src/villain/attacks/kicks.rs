//! Kicks without requests.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use ipc::SharedEventFd;

use crate::villain::attack::{Attack, Siege};
use crate::villain::driver::{BAR, Driver, NOTIFY};
use crate::villain::eventfd::{endless, flood};
use crate::villain::front_end::Guest;
use crate::villain::target::Target;
use crate::villain::victim::Victim;

pub const LIST: &[Attack] = &[
    Attack::new(
        Target::Socket,
        "kicks that are always readable",
        endless_kicks,
    ),
    Attack::new(
        Target::Socket,
        "a kick that is signalled without end",
        kick_flood,
    ),
    Attack::new(Target::Socket, "256 queues without kicks", no_kicks)
        .with("--num-queues=256")
        .polling(),
    Attack::new(
        Target::ProxyByFrontEnd,
        "a kick that is always readable",
        endless_kick,
    ),
    Attack::new(
        Target::ProxyByFrontEnd,
        "a kick that is signalled without end",
        kick_flood,
    )
    .known(EACH_SIGNAL),
    Attack::new(
        Target::ProxyByFrontEnd,
        "a call that is always readable",
        endless_call,
    ),
    Attack::new(
        Target::Function,
        "a doorbell that is signalled without end",
        doorbell_flood,
    ),
    Attack::new(
        Target::ProxyByClient,
        "a doorbell that is signalled without end",
        call_flood,
    )
    .known(EACH_SIGNAL),
];

/// A proxy cannot see whether a signal brought a request, so it passes each of them on.
const EACH_SIGNAL: &str = "each signal wakes the proxy";

/// The number of queues of `vvu-block` unless an option says otherwise.
const QUEUES: u16 = 16;

fn endless_kicks(victim: &Victim<'_>) -> Result<Siege> {
    kick_with_endless(victim, QUEUES)
}

/// The disk of the device VM has one queue.
fn endless_kick(victim: &Victim<'_>) -> Result<Siege> {
    kick_with_endless(victim, 1)
}

fn kick_with_endless(victim: &Victim<'_>, queues: u16) -> Result<Siege> {
    let kick = endless()?;
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    for queue in 0..queues {
        guest.start(queue, Some(kick.as_fd()), None)?;
    }
    Ok(Box::new(guest))
}

fn kick_flood(victim: &Victim<'_>) -> Result<Siege> {
    let kick = SharedEventFd::new()?;
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    guest.start(0, Some(kick.as_fd()), None)?;
    let flood = flood(&kick)?;
    Ok(Box::new((guest, flood)))
}

fn no_kicks(victim: &Victim<'_>) -> Result<Siege> {
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    for queue in 0..256 {
        guest.start(queue, None, None)?;
    }
    Ok(Box::new(guest))
}

fn endless_call(victim: &Victim<'_>) -> Result<Siege> {
    let (kick, call) = (SharedEventFd::new()?, endless()?);
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    guest.start(0, Some(kick.as_fd()), Some(call.as_fd()))?;
    Ok(Box::new((guest, kick)))
}

/// The client signals the eventfd that stands for the notification register of queue 0.
fn doorbell_flood(victim: &Victim<'_>) -> Result<Siege> {
    let interrupt = SharedEventFd::new()?;
    let mut driver = Driver::connect(&victim.socket())?;
    driver.start(&[interrupt.as_fd()])?;
    let doorbells = driver.client.region_io_fds(BAR)?;
    let of_queue_0 = doorbells.iter().find(|doorbell| doorbell.offset == NOTIFY);
    let flood = flood(&of_queue_0.context("queue 0 has no doorbell")?.eventfd)?;
    Ok(Box::new((driver, flood)))
}

/// The client signals the eventfd that stands for the call of queue 0.
fn call_flood(victim: &Victim<'_>) -> Result<Siege> {
    let mut driver = Driver::connect(&victim.socket())?;
    let doorbells = driver.client.region_io_fds(DOORBELLS)?;
    let flood = flood(&doorbells.first().context("there is no doorbell")?.eventfd)?;
    Ok(Box::new((driver, flood)))
}

/// The BAR of a VVU function that has the doorbells.
const DOORBELLS: u32 = 2;
