//! The back-end's side of a vhost-user connection.
//!
//! A session answers one front-end at a time, over any transport. It keeps the state of memory and
//! vrings. It starts a vring with the device's runner when all settings that the vring needs are
//! known. The call and error notifiers of a vring can be replaced while the vring runs. Before any
//! other change, the session stops the vring, and starts the vring again afterwards. The front-end
//! can therefore send its messages in any order.

mod conversation;
mod failure;
mod memory;
mod mistake;
mod vring;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use ipc::SharedEventFd;
use virtio::Runner;

use crate::causes::WithCauses;
use crate::features::ProtocolFeatures;
use crate::message::{Head, Reply};
use crate::transport::{Event, Incoming, Transport, TransportError};
use conversation::Conversation;
use mistake::Mistake;

/// The protocol features that a session offers. Some transports do not support all of these
/// features.
const PROTOCOL_FEATURES: ProtocolFeatures = ProtocolFeatures::MQ
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// Serves the device of `runner` to front-ends, one after the other, until `stop` is readable or no
/// further front-end can connect. When this function returns, every vring is stopped and its
/// requests are finished.
///
/// A front-end is dropped when a page of its memory is missing, for example because the front-end
/// has truncated the file.
///
/// # Errors
///
/// [`TransportError`] when the transport cannot be used any more.
pub fn serve(
    transport: &mut dyn Transport,
    runner: &mut Runner,
    stop: BorrowedFd<'_>,
) -> Result<(), TransportError> {
    let offered = transport.protocol_features(PROTOCOL_FEATURES);
    let failure = Arc::new(SharedEventFd::new().map_err(TransportError::Wait)?);
    let mut conversation = Conversation::new(runner, offered, failure.clone());
    loop {
        if let Err(lost) = conversation.check_memory() {
            tracing::warn!("dropping the front-end: {lost}");
            transport.disconnect()?;
            conversation.restart();
        }
        match transport.next([stop, failure.as_fd()])? {
            Event::Request(incoming) => {
                let head = incoming.head;
                match take(&mut conversation, incoming) {
                    Outcome::Reply(reply) => transport.reply(head, reply)?,
                    Outcome::Silence => {}
                    Outcome::Drop => {
                        transport.disconnect()?;
                        conversation.restart();
                    }
                }
                continue;
            }
            Event::Left => tracing::info!("the front-end left"),
            Event::Dropped(reason) => {
                tracing::warn!("dropped the front-end: {}", WithCauses(&reason));
            }
            // A vring has failed. The next round of the loop checks the front-end's memory, which
            // may be the cause.
            Event::Woken if failure.take().unwrap_or(false) => continue,
            Event::Closed | Event::Woken => return Ok(()),
        }
        conversation.restart();
    }
}

/// The action of the session after a request.
enum Outcome {
    Reply(Reply),
    Silence,
    /// The session drops the front-end, because the protocol has no answer that reports the
    /// front-end's mistake.
    Drop,
}

fn take(conversation: &mut Conversation<'_>, incoming: Incoming) -> Outcome {
    let Incoming { head, request } = incoming;
    tracing::debug!("{}", head.name());
    let request = request.map_err(Mistake::from);
    let result = request.and_then(|request| conversation.handle(head, request));
    // Read the agreed features only after the request was handled, because the request may have
    // changed them.
    let acks = conversation.acks();
    match result {
        Ok(Some(reply)) => Outcome::Reply(reply),
        Ok(None) if acks && head.needs_reply() => Outcome::Reply(Reply::ack(true)),
        Ok(None) => Outcome::Silence,
        Err(mistake) => refuse(head, &mistake, acks),
    }
}

fn refuse(head: Head, mistake: &Mistake, acks: bool) -> Outcome {
    let (name, why) = (head.name(), WithCauses(mistake));
    match head.refusal(acks) {
        Some(reply) => {
            tracing::warn!("refused {name}: {why}");
            Outcome::Reply(reply)
        }
        None => {
            tracing::warn!("dropping the front-end: {name}: {why}");
            Outcome::Drop
        }
    }
}

#[cfg(test)]
mod tests;
