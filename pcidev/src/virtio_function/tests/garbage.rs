//! Tests with a driver that writes random values to random registers.

use proptest::prelude::*;

use super::*;

/// Random offsets of registers, and random offsets near registers.
fn place() -> impl Strategy<Value = u64> {
    let near = [
        0u64, 0x14, 0x16, 0x18, 0x1c, 0x20, 0x1000, 0x2000, 0x3000, 0x6000, 0x7ff8,
    ];
    (prop::sample::select(near.to_vec()), 0u64..12).prop_map(|(base, more)| (base + more) & 0x7fff)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_device_outlives_any_driver(
        writes in prop::collection::vec((place(), any::<u64>(), 0usize..4), 1..64),
        rings in prop::collection::vec((0u64..0x3000, any::<u16>()), 0..32),
    ) {
        let host = Host::start();
        let mut driver = host.driver();
        driver.start();
        for (at, value) in rings {
            driver.scribble(RINGS + at, value);
        }
        driver.notify(0);
        driver.notify(1);
        for (at, value, width) in writes {
            let bytes = &value.to_le_bytes()[..1 << width];
            // The server refuses a write that ends outside the BAR.
            let _ = driver.client.region_write(0, at, bytes);
        }
        driver.start();
        driver.request(0, BUFFERS);
        driver.finish(0, BUFFERS);
    }
}
