//! The protocol features of vhost-user, and the virtio feature bits that vhost-user defines.

use bitflags::bitflags;

/// The virtio feature bit (a mask) that announces protocol features.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;

/// The virtio feature bit (a mask) that makes the back-end log the pages that it writes to.
pub const F_LOG_ALL: u64 = 1 << 26;

bitflags! {
    /// A set of protocol features. The back-end offers a set in its reply to GET_PROTOCOL_FEATURES.
    /// The front-end chooses from that set with SET_PROTOCOL_FEATURES.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ProtocolFeatures: u64 {
        /// The device can have several queues, and the front-end can ask for the number of queues.
        const MQ = 1;
        /// The front-end shares the log of dirty pages by a descriptor.
        const LOG_SHMFD = 1 << 1;
        /// The back-end can announce a migrated guest to its network.
        const RARP = 1 << 2;
        /// The back-end can acknowledge requests that have no reply of their own.
        const REPLY_ACK = 1 << 3;
        /// The front-end can send the network's MTU to the back-end.
        const MTU = 1 << 4;
        /// The back-end can send requests to the front-end over a second socket.
        const BACKEND_REQ = 1 << 5;
        /// The front-end can send the byte order of a legacy device to the back-end.
        const CROSS_ENDIAN = 1 << 6;
        /// The front-end can begin and end sessions of a crypto device.
        const CRYPTO_SESSION = 1 << 7;
        /// The guest's memory can be transferred on demand, by userfaultfd, during a migration.
        const PAGEFAULT = 1 << 8;
        /// The front-end can access the device's configuration space by messages.
        const CONFIG = 1 << 9;
        /// Requests of the back-end can carry descriptors.
        const BACKEND_SEND_FD = 1 << 10;
        /// The back-end can pass doorbell registers that the front-end maps into the guest.
        const HOST_NOTIFIER = 1 << 11;
        /// Requests in flight are recorded in shared memory that outlives the back-end.
        const INFLIGHT_SHMFD = 1 << 12;
        /// The front-end can reset the device by a message.
        const RESET_DEVICE = 1 << 13;
        /// Kicks and calls can be messages instead of signals of eventfds.
        const INBAND_NOTIFICATIONS = 1 << 14;
        /// Memory regions can be added and removed one by one.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// The front-end can read and write the virtio device status by messages.
        const STATUS = 1 << 16;
        /// Memory can be mapped with the methods of Xen.
        const XEN_MMAP = 1 << 17;
        /// Objects can be shared with other back-ends.
        const SHARED_OBJECT = 1 << 18;
        /// The device's internal state can be transferred for a migration.
        const DEVICE_STATE = 1 << 19;
        /// The back-end can map files into the guest.
        const SHMEM = 1 << 20;
    }
}
