//! The properties of each message. Sessions, transports and relays all use this table.
//!
//! Source: QEMU's `docs/interop/vhost-user.rst`, sections "Front-end message types" and "Back-end
//! message types".

use crate::features::ProtocolFeatures as Feature;

/// The number of descriptors that come with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Brings {
    /// No descriptor comes with the message.
    Nothing,
    /// Exactly one descriptor comes with the message.
    One,
    /// At most one descriptor comes with the message. The receiver does not need the descriptor.
    AtMostOne,
    /// One descriptor comes with the message, unless bit 8 of the payload is set.
    OneUnlessFlagged,
    /// One descriptor comes with the message for each memory region of the payload.
    OnePerRegion,
}

impl Brings {
    /// The minimum and the maximum number of descriptors that come with a message with this
    /// payload.
    pub(crate) fn count(self, payload: &[u8]) -> (usize, usize) {
        let exactly = |count| (count, count);
        match self {
            Self::Nothing => (0, 0),
            Self::One => (1, 1),
            Self::AtMostOne => (0, 1),
            Self::OneUnlessFlagged => {
                exactly(usize::from(payload.get(1).is_none_or(|b| b & 1 == 0)))
            }
            Self::OnePerRegion => {
                let count = payload.first_chunk().copied().map(u32::from_le_bytes);
                exactly(count.unwrap_or(0) as usize)
            }
        }
    }
}

/// The kind of answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The answer is an acknowledgement. The back-end sends an acknowledgement only if the request
    /// has the flag NEED_REPLY and REPLY_ACK was agreed on.
    Ack,
    /// The request has a reply of its own, which does not depend on REPLY_ACK.
    Reply {
        /// The number of descriptors that come with the reply.
        brings: Brings,
        /// The reaction to a failure of the request.
        on_error: OnError,
    },
}

/// The reaction to a failure of a request that has a reply of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnError {
    /// The back-end sends an empty reply.
    EmptyReply,
    /// The connection ends, because the front-end would take any reply for success.
    EndConnection,
}

/// The properties of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The number of the message in its header.
    pub number: u32,
    /// The message's name in the protocol.
    pub name: &'static str,
    /// The protocol feature that the message belongs to. It is empty if the message needs no
    /// protocol feature.
    pub needs: Feature,
    /// The number of descriptors that come with the message.
    pub brings: Brings,
    /// The kind of answer to the message.
    pub answer: Answer,
    /// Whether the message works over a transport that passes no descriptors on, for instance a
    /// virtio-vhost-user device.
    pub without_descriptors: bool,
}

/// The row of a message that has no descriptors and no reply of its own. All rows of the table are
/// derived from this row.
const PLAIN: Kind = Kind {
    number: 0,
    name: "",
    needs: Feature::empty(),
    brings: Brings::Nothing,
    answer: Answer::Ack,
    without_descriptors: true,
};

impl Kind {
    const fn needs(mut self, feature: Feature) -> Self {
        self.needs = feature;
        self
    }

    const fn brings(mut self, brings: Brings) -> Self {
        self.brings = brings;
        self
    }

    const fn replied(self) -> Self {
        self.replied_with(Brings::Nothing)
    }

    const fn replied_with(mut self, brings: Brings) -> Self {
        let on_error = OnError::EndConnection;
        self.answer = Answer::Reply { brings, on_error };
        self
    }

    const fn or_empty(mut self) -> Self {
        let (brings, on_error) = (Brings::Nothing, OnError::EmptyReply);
        self.answer = Answer::Reply { brings, on_error };
        self
    }

    const fn by_socket_only(mut self) -> Self {
        self.without_descriptors = false;
        self
    }

    /// The table's row for the front-end's request with this number.
    pub fn find(number: u32) -> Option<&'static Self> {
        FRONT_END.iter().find(|kind| kind.number == number)
    }

    /// Whether the request has a reply of its own.
    pub fn has_reply(&self) -> bool {
        self.answer != Answer::Ack
    }
}

/// The protocol features that work over a transport that passes no descriptors on. A feature works
/// over such a transport if all of its requests do. REPLY_ACK is added, because no request belongs
/// to it.
pub fn features_without_descriptors() -> Feature {
    let needed_by = |works: bool| {
        let rows = FRONT_END.iter();
        let rows = rows.filter(move |kind| kind.without_descriptors == works);
        rows.fold(Feature::empty(), |all, kind| all | kind.needs)
    };
    (needed_by(true) - needed_by(false)) | Feature::REPLY_ACK
}

macro_rules! table {
    (
        $(#[$doc:meta])* $codes:ident, $table:ident:
        $($(#[$row_doc:meta])* $name:ident = $number:literal: $row:expr;)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(non_camel_case_types)]
        #[non_exhaustive]
        pub enum $codes {
            $($(#[$row_doc])* $name = $number,)*
        }

        impl $codes {
            /// The request with this number. `None` means that the number is unknown.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The number of the request in a message's header.
            pub fn number(self) -> u32 {
                self as u32
            }
        }

        const $table: &[Kind] = &[
            $(Kind { number: $number, name: stringify!($name), ..$row },)*
        ];
    };
}

table! {
    /// The requests of a front-end.
    Code, FRONT_END:
    /// Asks for the virtio features that the back-end offers.
    GET_FEATURES = 1: PLAIN.replied();
    /// Chooses virtio features.
    SET_FEATURES = 2: PLAIN;
    /// Begins the conversation.
    SET_OWNER = 3: PLAIN;
    /// Has no effect. The protocol has deprecated this request.
    RESET_OWNER = 4: PLAIN;
    /// Shares memory regions, which replace all memory regions that were shared before.
    SET_MEM_TABLE = 5: PLAIN.brings(Brings::OnePerRegion);
    /// Shares the log of dirty pages.
    SET_LOG_BASE = 6:
        PLAIN.needs(Feature::LOG_SHMFD).brings(Brings::One).replied().by_socket_only();
    /// Passes the eventfd that signals changes of the log of dirty pages.
    SET_LOG_FD = 7: PLAIN.brings(Brings::One).by_socket_only();
    /// Sets the number of descriptors in a vring.
    SET_VRING_NUM = 8: PLAIN;
    /// Sets the addresses of the parts of a vring.
    SET_VRING_ADDR = 9: PLAIN;
    /// Sets the position at which a vring continues.
    SET_VRING_BASE = 10: PLAIN;
    /// Stops a vring, and asks for the position at which it stopped.
    GET_VRING_BASE = 11: PLAIN.replied();
    /// Starts a vring, and passes the eventfd of the vring's kicks.
    SET_VRING_KICK = 12: PLAIN.brings(Brings::OneUnlessFlagged);
    /// Passes the eventfd of a vring's calls.
    SET_VRING_CALL = 13: PLAIN.brings(Brings::OneUnlessFlagged);
    /// Passes the eventfd that signals an error of a vring.
    SET_VRING_ERR = 14: PLAIN.brings(Brings::OneUnlessFlagged);
    /// Asks for the protocol features that the back-end offers.
    GET_PROTOCOL_FEATURES = 15: PLAIN.replied();
    /// Chooses protocol features.
    SET_PROTOCOL_FEATURES = 16: PLAIN;
    /// Asks for the number of queues.
    GET_QUEUE_NUM = 17: PLAIN.needs(Feature::MQ).replied();
    /// Enables or disables a vring.
    SET_VRING_ENABLE = 18: PLAIN;
    /// Announces a migrated guest to its network.
    SEND_RARP = 19: PLAIN.needs(Feature::RARP);
    /// Sets the network's MTU.
    NET_SET_MTU = 20: PLAIN.needs(Feature::MTU);
    /// Passes the socket over which the back-end sends its own requests.
    SET_BACKEND_REQ_FD = 21: PLAIN.needs(Feature::BACKEND_REQ).brings(Brings::One).by_socket_only();
    /// Changes the translation of I/O virtual addresses. The back-end reports missing translations
    /// over the socket from SET_BACKEND_REQ_FD.
    IOTLB_MSG = 22: PLAIN.by_socket_only();
    /// Sets the byte order of a legacy device's vring.
    SET_VRING_ENDIAN = 23: PLAIN.needs(Feature::CROSS_ENDIAN);
    /// Reads the configuration space.
    GET_CONFIG = 24: PLAIN.needs(Feature::CONFIG).or_empty();
    /// Writes to the configuration space.
    SET_CONFIG = 25: PLAIN.needs(Feature::CONFIG);
    /// Begins a session of a crypto device.
    CREATE_CRYPTO_SESSION = 26: PLAIN.needs(Feature::CRYPTO_SESSION).replied().by_socket_only();
    /// Ends a session of a crypto device.
    CLOSE_CRYPTO_SESSION = 27: PLAIN.needs(Feature::CRYPTO_SESSION).by_socket_only();
    /// Asks for a userfaultfd in preparation for the transfer of memory on demand.
    POSTCOPY_ADVISE = 28:
        PLAIN.needs(Feature::PAGEFAULT).replied_with(Brings::One).by_socket_only();
    /// Says that memory is transferred on demand from now on.
    POSTCOPY_LISTEN = 29: PLAIN.needs(Feature::PAGEFAULT).by_socket_only();
    /// Says that all memory has been transferred.
    POSTCOPY_END = 30: PLAIN.needs(Feature::PAGEFAULT).replied().by_socket_only();
    /// Asks for shared memory in which the back-end records requests in flight.
    GET_INFLIGHT_FD = 31:
        PLAIN.needs(Feature::INFLIGHT_SHMFD).replied_with(Brings::One).by_socket_only();
    /// Passes the shared memory in which the back-end records requests in flight.
    SET_INFLIGHT_FD = 32:
        PLAIN.needs(Feature::INFLIGHT_SHMFD).brings(Brings::One).by_socket_only();
    /// Passes the socket of the vhost-user-gpu protocol.
    GPU_SET_SOCKET = 33: PLAIN.brings(Brings::One).by_socket_only();
    /// Resets the device and disables its vrings.
    RESET_DEVICE = 34: PLAIN.needs(Feature::RESET_DEVICE);
    /// Kicks a vring by message.
    VRING_KICK = 35: PLAIN.needs(Feature::INBAND_NOTIFICATIONS).by_socket_only();
    /// Asks for the maximum number of memory regions.
    GET_MAX_MEM_SLOTS = 36: PLAIN.needs(Feature::CONFIGURE_MEM_SLOTS).replied();
    /// Shares one more memory region.
    ADD_MEM_REG = 37:
        PLAIN.needs(Feature::CONFIGURE_MEM_SLOTS).brings(Brings::One).by_socket_only();
    /// Removes one memory region. Some front-ends send the region's descriptor again.
    REM_MEM_REG = 38:
        PLAIN.needs(Feature::CONFIGURE_MEM_SLOTS).brings(Brings::AtMostOne).by_socket_only();
    /// Sends the virtio device status to the back-end.
    SET_STATUS = 39: PLAIN.needs(Feature::STATUS);
    /// Asks for the virtio device status.
    GET_STATUS = 40: PLAIN.needs(Feature::STATUS).replied();
    /// Asks for an object to share with another back-end.
    GET_SHARED_OBJECT = 41:
        PLAIN.needs(Feature::SHARED_OBJECT).replied_with(Brings::One).by_socket_only();
    /// Passes a pipe or file for the transfer of the device's internal state.
    SET_DEVICE_STATE_FD = 42: PLAIN
        .needs(Feature::DEVICE_STATE)
        .brings(Brings::One)
        .replied_with(Brings::AtMostOne)
        .by_socket_only();
    /// Asks whether the device's internal state was transferred without errors.
    CHECK_DEVICE_STATE = 43: PLAIN.needs(Feature::DEVICE_STATE).replied().by_socket_only();
    /// Asks for the shared memory regions that the back-end has.
    GET_SHMEM_CONFIG = 44: PLAIN.needs(Feature::SHMEM).replied().by_socket_only();
}

table! {
    /// The requests that a back-end sends over the socket from SET_BACKEND_REQ_FD.
    BackEndCode, BACK_END:
    /// Reports that a translation of an I/O virtual address is missing, or that an access failed.
    IOTLB_MSG = 1: PLAIN.needs(Feature::BACKEND_REQ).by_socket_only();
    /// Says that the configuration space has changed.
    CONFIG_CHANGE_MSG = 2: PLAIN.needs(Feature::CONFIG).by_socket_only();
    /// Passes doorbell registers that the front-end maps into the guest.
    VRING_HOST_NOTIFIER_MSG = 3:
        PLAIN.needs(Feature::HOST_NOTIFIER).brings(Brings::OneUnlessFlagged).by_socket_only();
    /// Sends a call of a vring to the front-end by message.
    VRING_CALL = 4: PLAIN.needs(Feature::INBAND_NOTIFICATIONS).by_socket_only();
    /// Reports an error of a vring by message.
    VRING_ERR = 5: PLAIN.needs(Feature::INBAND_NOTIFICATIONS).by_socket_only();
    /// Offers an object to other back-ends.
    SHARED_OBJECT_ADD = 6: PLAIN.needs(Feature::SHARED_OBJECT).by_socket_only();
    /// Withdraws an object that was offered to other back-ends.
    SHARED_OBJECT_REMOVE = 7: PLAIN.needs(Feature::SHARED_OBJECT).by_socket_only();
    /// Asks for an object of another back-end.
    SHARED_OBJECT_LOOKUP = 8:
        PLAIN.needs(Feature::SHARED_OBJECT).replied_with(Brings::One).by_socket_only();
    /// Maps a file into the guest.
    SHMEM_MAP = 9: PLAIN.needs(Feature::SHMEM).brings(Brings::One).by_socket_only();
    /// Unmaps a file from the guest.
    SHMEM_UNMAP = 10: PLAIN.needs(Feature::SHMEM).by_socket_only();
}

impl BackEndCode {
    /// The table's row for the request.
    pub fn kind(self) -> &'static Kind {
        &BACK_END[self as usize - 1]
    }
}

impl Code {
    /// The table's row for the request.
    pub fn kind(self) -> &'static Kind {
        &FRONT_END[self as usize - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_where_their_numbers_say() {
        for (table, count) in [(FRONT_END, 44), (BACK_END, 10)] {
            let numbers: Vec<_> = table.iter().map(|kind| kind.number).collect();
            assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
        }
        for kind in FRONT_END {
            let code = Code::from_number(kind.number).unwrap();
            assert_eq!((code.kind(), Kind::find(kind.number)), (kind, Some(kind)));
            assert_eq!(format!("{code:?}"), kind.name);
        }
        assert_eq!((Code::from_number(0), Kind::find(45)), (None, None));
    }

    #[test]
    fn features_that_pass_descriptors_do_not_work_without() {
        let works = features_without_descriptors();
        assert_eq!(works.bits(), 0x1_225d);
    }

    /// The numbers and names agree with the independent `vhost` crate.
    #[test]
    fn the_reference_has_the_same_requests() {
        use vhost::vhost_user::message::{BackendReq, FrontendReq};
        for kind in FRONT_END {
            let reference = FrontendReq::try_from(kind.number).unwrap();
            assert_eq!(format!("{reference:?}"), kind.name);
        }
        for kind in BACK_END {
            let reference = BackendReq::try_from(kind.number).unwrap();
            assert_eq!(format!("{reference:?}"), kind.name);
        }
        assert!(FrontendReq::try_from(45).is_err() && BackendReq::try_from(11).is_err());
    }
}
