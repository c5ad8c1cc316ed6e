//! Serves a queue whose memory holds arbitrary bytes. The fuzz target in `fuzz/` uses this module,
//! and a test uses it with the fuzz target's stored inputs. This module also has the function that
//! `benches/` measures.

use std::cell::RefCell;
use std::sync::Arc;

use virtio::queue::{IN_ORDER, RING_FEATURES};
use virtio::test_utils::{anonymous_file, memory};
use virtio::vring::first_position;
use virtio::{Chain, GuestMemory, ServedQueue, Vring, VringLayout, Wake};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use vm_memory::{Bytes, GuestAddress};

use crate::Image;
use crate::device::{BlockDevice, Options};
use crate::engine::{EngineKind, RingSlot};
use crate::image::Abilities;
use crate::operation::SECTOR_SIZE;
use crate::request::{Limits, Request};
use crate::worker::Worker;

/// Number of descriptors of the queue. The descriptors begin at address 0. The available ring and
/// the used ring come after them.
const QUEUE_SIZE: u16 = 16;
const AVAIL: u64 = 0x100;
const USED: u64 = 0x140;

const MEMORY: u64 = 0x1_0000;
const DISK: u64 = 64 * SECTOR_SIZE;

/// Maximum number of times that the worker takes requests. Without a maximum, a random vring could
/// keep the worker busy forever.
const ROUNDS: u32 = 4;

/// The objects that a check needs and that are slow to create. All checks of a thread share these
/// objects.
struct Bench {
    memory: Arc<GuestMemory>,
    disk: Arc<std::fs::File>,
    device: BlockDevice,
}

impl Bench {
    fn new() -> Self {
        let disk = anonymous_file(DISK);
        let abilities = Abilities {
            discard: Some(4096),
            zero: true,
            secure_erase: true,
            ..Abilities::default()
        };
        let file = disk.try_clone().expect("another descriptor");
        Self {
            memory: memory(MEMORY),
            disk,
            device: BlockDevice::new(
                Arc::new(Image::from_file(file, DISK, abilities)),
                Options::default(),
            )
            .expect("the default options"),
        }
    }
}

/// Whether the chain is a valid request to a disk of 1 MiB.
pub fn parse(chain: &Chain, memory: &GuestMemory) -> bool {
    let limits = Limits {
        size: 1 << 20,
        read_only: false,
        logical_block: 512,
        discard: true,
        write_zeroes: true,
        secure_erase: true,
    };
    Request::parse(chain, memory, &limits).is_ok()
}

/// Serves a queue in memory that begins with the bytes of `input` after the first byte. The bits of
/// the first byte choose features. Bit 0 stands for indirect descriptors and EVENT_IDX, bit 1 for a
/// driver that cannot flush, bit 2 for a packed vring, and bit 3 for IN_ORDER.
///
/// # Panics
///
/// When the device does not give a request back, or changes the size of its image.
pub fn check(input: &[u8]) {
    thread_local!(static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) });
    BENCH.with_borrow_mut(|bench| serve(bench.get_or_insert_with(Bench::new), input));
}

fn serve(bench: &Bench, input: &[u8]) {
    let Some((&options, bytes)) = input.split_first() else {
        return;
    };
    let mut start = vec![0; MEMORY as usize];
    let len = bytes.len().min(start.len());
    start[..len].copy_from_slice(&bytes[..len]);
    let written = bench.memory.write_slice(&start, GuestAddress(0));
    written.expect("all of memory");

    let (mut queue, wake) = (queue(bench, options), Wake::new().expect("an eventfd"));
    let slot = RingSlot::default();
    let (mut ring, engine) = (slot.lock(), EngineKind::OnTheSpot);
    let mut worker = Worker::new(&bench.device.disk, engine, &mut ring, &mut queue, &wake);
    for _ in 0..ROUNDS {
        let taken = worker.take_batch();
        let reaped = worker.reap();
        let called = worker.call();
        let (Ok(taken), Ok(reaped), Ok(())) = (taken, reaped, called) else {
            break;
        };
        if !taken && !reaped {
            break;
        }
    }
    // The result is ignored, because `finish` may fail if the driver has broken the vring.
    let _ = worker.finish();
    assert!(worker.is_idle(), "a request was not given back");
    let size = bench.disk.metadata().expect("an open file").len();
    assert_eq!(size, DISK, "the image has another size");
}

fn queue(bench: &Bench, options: u8) -> ServedQueue {
    let layout = VringLayout {
        packed: options & 4 != 0,
        size: QUEUE_SIZE,
        desc: GuestAddress(0),
        avail: GuestAddress(AVAIL),
        used: GuestAddress(USED),
    };
    let rings = (RING_FEATURES * u64::from(options & 1)) | (IN_ORDER * u64::from(options >> 3 & 1));
    // If the driver cannot flush, the device puts the data of each write on stable storage before
    // it acknowledges the write.
    let flush = if options & 2 == 0 {
        1 << VIRTIO_BLK_F_FLUSH
    } else {
        0
    };
    let queue = ServedQueue::alone(Vring {
        index: 0,
        features: rings | flush,
        layout,
        next_avail: first_position(layout.packed),
        memory: bench.memory.clone(),
        kick: None,
        call: None,
        error: None,
    });
    queue.expect("a layout within memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use virtio::test_utils::AVAIL;

    #[test]
    fn every_input_of_the_corpus_is_served() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/queue");
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "no corpus");
    }

    proptest! {
        #[test]
        fn every_request_of_a_random_vring_is_given_back(
            options in 0..16u8,
            descriptors in prop::collection::vec(
                (0..MEMORY + 0x100, 0..0x600u32, 0..8u16, 0..18u16), 16
            ),
            heads in prop::collection::vec(0..17u16, 16),
            index in prop_oneof![9 => 0..17u16, 1 => any::<u16>()],
            kind in 0..16u32,
        ) {
            let mut input = vec![options];
            for (addr, len, flags, next) in descriptors {
                input.extend_from_slice(&addr.to_le_bytes());
                input.extend_from_slice(&len.to_le_bytes());
                // A packed descriptor has its id where a split descriptor has its flags, and its
                // flags after the id.
                let (first, second) = match options & 4 {
                    0 => (flags, next),
                    _ => (next, flags | AVAIL),
                };
                input.extend_from_slice(&first.to_le_bytes());
                input.extend_from_slice(&second.to_le_bytes());
            }
            input.extend_from_slice(&[0, 0]);
            input.extend_from_slice(&index.to_le_bytes());
            heads.iter().for_each(|head| input.extend_from_slice(&head.to_le_bytes()));
            // Each address that is a multiple of 16 holds a request header of the type `kind`.
            input.resize(0x400, 0);
            while input.len() < 0x4000 {
                input.extend_from_slice(&kind.to_le_bytes());
                input.extend_from_slice(&[0; 12]);
            }
            check(&input);
        }
    }
}
