//! Messages without end, and messages that do not end.

use std::io::Write;
use std::os::fd::AsFd;

use anyhow::Result;
use ipc::SharedEventFd;
use vfio_user::index;
use vhost_user::Message;

use crate::villain::attack::{Attack, Siege};
use crate::villain::driver::{BAR, Driver};
use crate::villain::front_end::Guest;
use crate::villain::messages::{connect, exchange, version, vfio_user, vhost_user};
use crate::villain::repeat::Repeat;
use crate::villain::target::Target;
use crate::villain::victim::Victim;

pub const LIST: &[Attack] = &[
    Attack::new(
        Target::Socket,
        "a message that stops in the middle",
        half_a_message,
    ),
    Attack::new(
        Target::ProxyByFrontEnd,
        "a message that stops in the middle",
        half_a_message,
    ),
    Attack::new(
        Target::Function,
        "a request that stops in the middle",
        half_a_request,
    ),
    Attack::new(
        Target::ProxyByClient,
        "a request that stops in the middle",
        half_a_request,
    ),
    Attack::new(
        Target::Socket,
        "replies that are never read",
        unread_replies,
    )
    .busy(),
    Attack::new(
        Target::ProxyByFrontEnd,
        "replies that are never read",
        unread_replies,
    )
    .busy(),
    Attack::new(
        Target::Function,
        "replies that are never read",
        unread_answers,
    )
    .busy(),
    Attack::new(
        Target::ProxyByClient,
        "replies that are never read",
        unread_answers,
    )
    .busy(),
    Attack::new(Target::Socket, "a flood of bad messages", bad_messages).busy(),
    Attack::new(
        Target::Socket,
        "a flood of bad messages, log unread",
        bad_messages,
    )
    .busy()
    .unread(),
    Attack::new(
        Target::ProxyByFrontEnd,
        "a flood of bad messages",
        bad_messages,
    )
    .busy(),
    Attack::new(Target::Function, "a flood of bad requests", bad_requests).busy(),
    Attack::new(
        Target::ProxyByClient,
        "a flood of bad requests",
        bad_requests,
    )
    .busy(),
    Attack::new(
        Target::ProxyByClient,
        "a flood of bad requests, log unread",
        bad_requests,
    )
    .busy()
    .unread(),
    Attack::new(
        Target::Socket,
        "peers that come, send garbage and go",
        garbage,
    )
    .busy(),
    Attack::new(
        Target::ProxyByFrontEnd,
        "peers that come, send garbage and go",
        garbage,
    )
    .busy(),
    Attack::new(
        Target::Function,
        "peers that come, send garbage and go",
        garbage,
    )
    .busy(),
    Attack::new(
        Target::ProxyByClient,
        "peers that come, send garbage and go",
        garbage,
    )
    .busy(),
    Attack::new(
        Target::Socket,
        "rings that break again and again",
        broken_rings,
    )
    .busy(),
];

/// The number of messages that are sent at once.
const BATCH: usize = 64;

/// GET_FEATURES, a message that has a reply.
fn question() -> Vec<u8> {
    vhost_user(1, 0, &[])
}

fn half_a_message(victim: &Victim<'_>) -> Result<Siege> {
    let mut stream = connect(&victim.socket())?;
    stream.write_all(&question()[..7])?;
    Ok(Box::new(stream))
}

fn half_a_request(victim: &Victim<'_>) -> Result<Siege> {
    let mut stream = connect(&victim.socket())?;
    stream.write_all(&version())?;
    stream.write_all(&vfio_user(9, &[0; 16])[..20])?;
    Ok(Box::new(stream))
}

fn unread_replies(victim: &Victim<'_>) -> Result<Siege> {
    let mut stream = connect(&victim.socket())?;
    let kept = stream.try_clone()?;
    let batch = question().repeat(BATCH);
    let flood = Repeat::start(move || {
        // The program may drop the front-end. The attack then begins again with the next program.
        let _ = stream.write_all(&batch);
        true
    })?;
    Ok(Box::new((flood, kept)))
}

fn unread_answers(victim: &Victim<'_>) -> Result<Siege> {
    let mut stream = connect(&victim.socket())?;
    stream.write_all(&version())?;
    // DEVICE_GET_INFO.
    let batch = vfio_user(4, &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).repeat(BATCH);
    let flood = Repeat::start(move || {
        let _ = stream.write_all(&batch);
        true
    })?;
    Ok(Box::new(flood))
}

/// Messages that are refused by an acknowledgement, and do not end the connection.
fn bad_messages(victim: &Victim<'_>) -> Result<Siege> {
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    let bad = [
        // An unknown request, and SET_VRING_NUM, SET_VRING_BASE and SET_VRING_ENABLE of a queue
        // that does not exist.
        Message::request(999, &[]).needing_reply(),
        Message::request(8, &[0xff, 0xff, 0, 0, 3, 0, 0, 0]).needing_reply(),
        Message::request(10, &[0xff, 0xff, 0, 0, 3, 0, 0, 0]).needing_reply(),
        Message::request(18, &[0xff, 0xff, 0, 0, 1, 0, 0, 0]).needing_reply(),
    ];
    let flood = Repeat::start(move || {
        bad.iter()
            .all(|message| guest.messages.exchange(message, &[]).is_ok())
    })?;
    Ok(Box::new(flood))
}

/// Requests that are refused, or that the device does not expect.
fn bad_requests(victim: &Victim<'_>) -> Result<Siege> {
    let mut driver = Driver::connect(&victim.socket())?;
    let flood = Repeat::start(move || {
        let client = &mut driver.client;
        let _ = client.region_write(BAR, 0x2000, &[0xff; 7]);
        let _ = client.region_write(BAR, 0x14, &[0xff]);
        let _ = client.region_write(BAR, 0x14, &[0]);
        let _ = client.region_write(77, 0, &[0]);
        let _ = client.dma_unmap(1, 1);
        client.trigger_irqs(index::MSIX, 0xffff, 1).is_err()
    })?;
    Ok(Box::new(flood))
}

fn garbage(victim: &Victim<'_>) -> Result<Siege> {
    let socket = victim.socket();
    let flood = Repeat::start(move || {
        let Ok(mut stream) = connect(&socket) else {
            return true;
        };
        exchange(&mut stream, &[0xa5; 64]);
        true
    })?;
    Ok(Box::new(flood))
}

fn broken_rings(victim: &Victim<'_>) -> Result<Siege> {
    let kick = SharedEventFd::new()?;
    let mut guest = Guest::connect(&victim.socket(), victim.shared()?)?;
    let flood = Repeat::start(move || {
        let Ok(mut ring) = guest.start(0, Some(kick.as_fd()), None) else {
            return false;
        };
        // There is no descriptor with this number.
        ring.publish(u16::MAX);
        kick.signal().is_ok() && guest.messages.get_vring_base(0).is_ok()
    })?;
    Ok(Box::new(flood))
}
