//! What a front-end can do wrong.

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use virtio::{ConfigError, StartError};

use crate::transport::ResourceError;
use crate::vhost_user::{Message, PayloadError};

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request with its name, as the outermost error.
    #[error("{name}: {error}")]
    Named {
        /// The request's name.
        name: String,
        /// What is wrong with it.
        error: Box<RequestError>,
    },
    #[error("request {0} is unknown")]
    Unknown(u32),
    #[error("request belongs to a feature that was not offered")]
    NotOffered,
    #[error("request needs protocol feature {0:?}, which was not negotiated")]
    NotNegotiated(VhostUserProtocolFeatures),
    #[error("a reply to nothing that was asked")]
    UnexpectedReply,
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error(transparent)]
    Resource(ResourceError),
    #[error("what should come with the request is missing")]
    NoResource,
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("protocol features {0:#x} were not offered")]
    ProtocolFeatures(u64),
    #[error("there is no queue {0}")]
    Queue(u32),
    #[error("queue size {size} is no power of two from 1 to {max}")]
    QueueSize { size: u32, max: u16 },
    #[error("available index {0} does not fit 16 bits")]
    Base(u32),
    #[error("a vring is enabled with 1 and disabled with 0, not {0}")]
    Enable(u32),
    #[error("address {0:#x} is in no memory region")]
    Address(u64),
    #[error("configuration space access of {size} bytes at {offset} is out of range")]
    ConfigRange { offset: u32, size: u32 },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("memory table: {0}")]
    Memory(String),
    #[error("queue {queue} cannot be started: {error}")]
    Start { queue: u16, error: StartError },
}

impl RequestError {
    /// Says which message the error is about.
    pub fn of(self, message: &Message) -> Self {
        Self::Named {
            name: message.name(),
            error: Box::new(self),
        }
    }
}
