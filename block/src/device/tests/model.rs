//! Compares random requests, split into buffers at random, with a model of a disk.

use super::direct::whole;
use super::*;
use crate::Cache;
use proptest::prelude::*;

/// A request, and the offsets at which the driver divides it into buffers.
#[derive(Clone, Debug)]
struct Case {
    kind: u32,
    sector: u64,
    out: Vec<u8>,
    input: u32,
    cuts: Vec<u32>,
}

prop_compose! {
    fn data()(
        sectors in 0..9usize,
        odd in prop_oneof![9 => Just(0usize), 1 => 1..512usize],
        seed: u8,
    ) -> Vec<u8> {
        let len = sectors * 512 + odd;
        (0..len).map(|n| (n as u8).wrapping_mul(7) ^ seed).collect()
    }
}

prop_compose! {
    fn case()(
        kind in prop_oneof![
            4 => Just(READ), 4 => Just(WRITE), 1 => Just(FLUSH), 1 => Just(GET_ID), 1 => 15..27u32,
        ],
        sector in prop_oneof![8 => 0..SECTORS, 2 => SECTORS - 9..SECTORS + 2, 1 => any::<u64>()],
        data in data(),
        wrong_way in prop::bool::weighted(0.1),
        cuts in prop::collection::vec(0..4200u32, 0..12),
    ) -> Case {
        let writes = (kind == WRITE) != wrong_way;
        let input = if writes { 0 } else { data.len() as u32 };
        let out = if writes { data } else { Vec::new() };
        Case { kind, sector, out, input, cuts }
    }
}

/// Carries out a request on the bytes `disk`. Returns the status and the data that the
/// specification requires.
fn expected(disk: &mut [u8], case: &Case) -> (Option<u8>, Vec<u8>) {
    let untouched = vec![UNTOUCHED; case.input as usize];
    let len = case.out.len().max(case.input as usize) as u64;
    let start = case.sector.saturating_mul(512);
    let inside = len.is_multiple_of(512) && start.saturating_add(len) <= disk.len() as u64;
    let range = if inside {
        start as usize..(start + len) as usize
    } else {
        0..0
    };
    match case.kind {
        READ if case.out.is_empty() && inside => (OK, disk[range].to_vec()),
        WRITE if case.input == 0 && inside => {
            disk[range].copy_from_slice(&case.out);
            (OK, untouched)
        }
        FLUSH => (OK, untouched),
        GET_ID if case.out.is_empty() => {
            let id = b"serial-0123\0\0\0\0\0\0\0\0\0";
            let mut data = untouched;
            let len = data.len().min(20);
            data[..len].copy_from_slice(&id[..len]);
            (OK, data)
        }
        READ | WRITE | GET_ID => (IOERR, untouched),
        _ => (UNSUPP, untouched),
    }
}

fn compare_with_model(way: (EngineKind, Cache, bool), rings: u64, cases: &[Case]) {
    let (engine, cache, pinnable) = way;
    let Some(rig) = Rig::cached(engine, cache) else {
        return;
    };
    let mut driver = Driver::in_memory(whole(MEMORY_LEN, pinnable), 0, FEATURES | rings);
    driver.start(&rig.device);
    let mut disk = rig.image();
    for case in cases {
        let (status, data) = expected(&mut disk, case);
        let out = request(case.kind, case.sector, &case.out);
        let answer = driver.run(&out, case.input + 1, &case.cuts);
        assert_eq!(answer.status, status, "{case:?}");
        assert!(answer.data == data, "{case:?}");
    }
    assert_eq!(driver.stop(), driver.ring.position());
    assert!(rig.image() == disk);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_device_answers_like_a_model_of_a_disk(
        engine in prop_oneof![Just(EngineKind::Auto), Just(EngineKind::Threads)],
        cache in prop_oneof![
            2 => Just(Cache::Writeback), 2 => Just(Cache::None), 1 => Just(Cache::Writethrough),
        ],
        pinnable: bool,
        rings in (any::<bool>(), any::<bool>()).prop_map(|(event_idx, packed)| {
            (u64::from(event_idx) << VIRTIO_RING_F_EVENT_IDX) | (PACKED * u64::from(packed))
        }),
        cases in prop::collection::vec(case(), 1..40),
    ) {
        compare_with_model((engine, cache, pinnable), rings, &cases);
    }
}
