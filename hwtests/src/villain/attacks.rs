//! The attacks, by the means that the peer uses.

mod connections;
mod dma;
mod events;
mod floods;
mod kicks;
mod memory;
mod requests;

use super::attack::Attack;

/// All attacks.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    let lists = [
        events::LIST,
        kicks::LIST,
        memory::LIST,
        requests::LIST,
        dma::LIST,
        floods::LIST,
        connections::LIST,
    ];
    lists.into_iter().flatten()
}
