//! The back-end's side of a conversation.
//!
//! It answers one front-end at a time, whatever transport it comes through, keeps the state of
//! memory and vrings, and gives each complete vring to the device's runner. The call and error
//! notifiers of a running vring are replaced there. Before any other change the vring is stopped,
//! and afterwards it is started again, so that the front-end may send its messages in any order.

mod conversation;
mod memory;
mod mistake;
mod vring;

use std::os::fd::BorrowedFd;

use virtio::Runner;

use crate::causes::WithCauses;
use crate::features::ProtocolFeatures;
use crate::message::{Head, Reply};
use crate::transport::{Event, Incoming, Transport, TransportError};
use conversation::Conversation;
use mistake::Mistake;

/// The protocol features of a session, of which a transport may lack some.
const PROTOCOL_FEATURES: ProtocolFeatures = ProtocolFeatures::MQ
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// Serves front-ends with the device of `runner`, one after the other, until `stop` is readable or
/// no further front-end can come. Every vring is stopped, with its requests finished, on return.
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
    let mut conversation = Conversation::new(runner, offered);
    loop {
        match transport.next(stop)? {
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
            Event::Closed | Event::Woken => return Ok(()),
        }
        conversation.restart();
    }
}

/// What a request leads to.
enum Outcome {
    Reply(Reply),
    Silence,
    /// The front-end made a mistake that it cannot be told of in any other way.
    Drop,
}

fn take(conversation: &mut Conversation<'_>, incoming: Incoming) -> Outcome {
    let Incoming { head, request } = incoming;
    tracing::debug!("{}", head.name());
    let request = request.map_err(Mistake::from);
    let result = request.and_then(|request| conversation.handle(head, request));
    // The request itself may have been the one that agreed on acknowledgements.
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
