//! The state that all queues of a device share.

use std::sync::Arc;

use crate::Image;
use crate::cache::WriteCache;
use crate::limit::Throttle;
use crate::request::ID_LEN;

/// The state that all queues of a device share.
#[derive(Debug)]
pub(crate) struct Disk {
    pub image: Arc<Image>,
    /// The serial number, padded with NUL.
    pub id: [u8; ID_LEN],
    pub cache: WriteCache,
    /// The limits on the speed of the disk. `None` if the speed is not limited.
    pub throttle: Option<Arc<Throttle>>,
}
