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
    /// `None` if the disk has no limits.
    pub throttle: Option<Arc<Throttle>>,
}
