//! The features of the protocol itself.

use bitflags::bitflags;

/// The virtio feature bit (a mask) that announces protocol features.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;

/// The virtio feature bit (a mask) that makes the back-end log the pages that it writes to.
pub const F_LOG_ALL: u64 = 1 << 26;

bitflags! {
    /// The protocol features. GET_PROTOCOL_FEATURES offers them, and SET_PROTOCOL_FEATURES chooses
    /// from them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ProtocolFeatures: u64 {
        /// There may be more than one queue, and the front-end can ask for the number of queues.
        const MQ = 1;
        /// The log of dirty pages comes as a descriptor.
        const LOG_SHMFD = 1 << 1;
        /// The back-end can announce a migrated guest to its network.
        const RARP = 1 << 2;
        /// The back-end can acknowledge requests that have no reply of their own.
        const REPLY_ACK = 1 << 3;
        /// The front-end tells the back-end the network's MTU.
        const MTU = 1 << 4;
        /// The back-end can make requests over a channel of its own.
        const BACKEND_REQ = 1 << 5;
        /// The front-end tells the back-end the byte order of legacy devices.
        const CROSS_ENDIAN = 1 << 6;
        /// The front-end can begin and end sessions of a crypto device.
        const CRYPTO_SESSION = 1 << 7;
        /// Memory may be transferred on demand, by userfaultfd, after a migration.
        const PAGEFAULT = 1 << 8;
        /// The back-end has the device's configuration space.
        const CONFIG = 1 << 9;
        /// Requests of the back-end may bring descriptors.
        const BACKEND_SEND_FD = 1 << 10;
        /// The back-end can map its own registers into the guest.
        const HOST_NOTIFIER = 1 << 11;
        /// Requests in flight are kept in memory that outlives the back-end.
        const INFLIGHT_SHMFD = 1 << 12;
        /// The device can be reset.
        const RESET_DEVICE = 1 << 13;
        /// Kicks and calls may be messages.
        const INBAND_NOTIFICATIONS = 1 << 14;
        /// Memory regions can be added and removed one by one.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// The front-end passes the device status on.
        const STATUS = 1 << 16;
        /// Memory may be mapped with the methods of Xen.
        const XEN_MMAP = 1 << 17;
        /// Objects can be shared with other back-ends.
        const SHARED_OBJECT = 1 << 18;
        /// The device's state can be transferred.
        const DEVICE_STATE = 1 << 19;
        /// The back-end can map files into the guest.
        const SHMEM = 1 << 20;
    }
}
