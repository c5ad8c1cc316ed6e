//! Tests with a device that returns random values.

use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::pci::PciError;
use crate::pci::{BarFile, DmaMemory};

#[derive(Debug)]
struct Noise {
    config: [u8; 256],
    bars: [u64; 6],
    answers: Mutex<Vec<u64>>,
}

impl PciFunction for Noise {
    fn name(&self) -> String {
        "noise".to_owned()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.copy_from_slice(&self.config[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write_config(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn bar_size(&self, bar: u8) -> u64 {
        self.bars.get(usize::from(bar)).copied().unwrap_or(0)
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()> {
        assert!(offset + data.len() as u64 <= self.bar_size(bar));
        let answer = self.answers.lock().unwrap().pop().unwrap_or(0);
        data.copy_from_slice(&answer.to_le_bytes()[..data.len()]);
        Ok(())
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(offset + data.len() as u64 <= self.bar_size(bar));
        Ok(())
    }

    fn bar_file(&self, _bar: u8, _offset: u64, _len: u64) -> Option<BarFile> {
        None
    }

    fn iova_ranges(&self) -> Vec<RangeInclusive<u64>> {
        vec![0..=u64::MAX]
    }

    fn map_dma(&self, _iova: u64, _memory: &Arc<DmaMemory>) -> Result<(), PciError> {
        Ok(())
    }

    fn unmap_dma(&self, _iova: u64) -> io::Result<()> {
        Ok(())
    }

    fn vector_count(&self) -> u16 {
        64
    }

    fn set_vectors(&self, _eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn reset(&self) -> io::Result<bool> {
        Ok(false)
    }
}

proptest! {
    #[test]
    fn no_configuration_space_and_no_register_makes_the_driver_panic(
        mut changes in prop::collection::vec((0x34usize..256, any::<u8>()), 0..40),
        bars in prop::array::uniform6(prop_oneof![Just(0u64), 1u64..0x1_0000, Just(1 << 32)]),
        // Some of these register values let the driver get past its first checks.
        answers in prop::collection::vec(
            prop_oneof![
                Just(0u64), Just(0xf), Just(16), Just(0xffff_ffff), Just(1), Just(2), any::<u64>(),
            ],
            0..100,
        ),
        keep_bars: bool,
    ) {
        let profile = Profile::qemu();
        let mut config = profile.config_space();
        if keep_bars {
            changes.truncate(3);
        }
        for (at, value) in changes {
            config[at] = value;
        }
        let bars = if keep_bars { profile.bars } else { bars };
        let noise = Arc::new(Noise { config, bars, answers: Mutex::new(answers) });
        if let Ok(mut driver) = VvuDriver::new(noise, 1, None, IMPATIENT) {
            let _ = driver.start();
            let _ = driver.frontend_lost();
            let _ = driver.next_frontend();
        }
    }
}
