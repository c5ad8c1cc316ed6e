//! A device whose lies come from the input of a fuzzer.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc::{Interest, poll};

use crate::pci::mock::{MockFunction, Profile};
use crate::pci::{BarFile, DmaMemory, PciError, PciFunction};

/// The length of the files behind BARs up to which steps write and truncate.
const FILE_LEN: u64 = 0x10_0000;

/// A device that is honest except for its lies.
///
/// The first byte of the input chooses the profile. The rest consists of parts. A part begins with
/// two bytes: its kind, and the number of bytes that follow. A part is a lie that holds from the
/// start, or a [`Step`] that the device takes later.
#[derive(Debug)]
pub(super) struct Liar {
    mock: Arc<MockFunction>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The values that the driver reads instead of the true ones. The key is the number of the
    /// read.
    answers: BTreeMap<u16, u64>,
    reads: u16,
    /// The registers, if the configuration space names wrong places. Registers keep the last
    /// written value then.
    registers: Option<BTreeMap<(u8, u64), u64>>,
    steps: VecDeque<Step>,
    /// Whether the device wrote to the memory of the message queues. The mock reads its buffers
    /// from this memory, so it cannot use them any more.
    scribbled: bool,
}

/// A change of the device while the driver uses it.
#[derive(Debug)]
enum Step {
    Connect,
    Leave,
    Fail,
    Message(Vec<u8>),
    /// An interrupt without a reason.
    Interrupt(u8),
    /// An entry of the used ring of a queue, and the number of entries that the index announces.
    Used(u16, u32, u32, u16),
    /// Bytes of the memory of the message queues.
    Scribble(usize, Vec<u8>),
    /// Bytes of the front-end's memory.
    Window(u64, Vec<u8>),
    TruncateWindow(u64),
    TruncateDoorbells(u64),
}

impl Liar {
    pub fn new(input: &[u8]) -> Self {
        let (&choice, mut rest) = input.split_first().unwrap_or((&0, &[]));
        let mut profile = profile(choice);
        let (mut state, mut patches) = (State::default(), Vec::new());
        while let [kind, len, tail @ ..] = rest {
            let (part, tail) = tail.split_at(tail.len().min(usize::from(*len)));
            rest = tail;
            match kind & 0xf {
                0 => patches.push(part),
                1 => resize(&mut profile, number(part, 0, 2)),
                2 => drop(
                    state
                        .answers
                        .insert(number(part, 0, 1) as u16, number(part, 1, 8)),
                ),
                kind => state.steps.extend(step(kind, part)),
            }
        }
        if !patches.is_empty() {
            state.registers = Some(BTreeMap::new());
        }
        let mock = MockFunction::new(profile);
        for patch in patches {
            let (at, bytes) = patch.split_at(patch.len().min(1));
            let at = number(at, 0, 1);
            let len = bytes.len().min(256 - at as usize);
            mock.write_config(at, &bytes[..len]).expect("inside");
        }
        mock.state().lies.hold_tx = choice & 0x40 != 0;
        mock.state().lies.fixed_queue_size = choice & 0x80 != 0;
        let state = Mutex::new(state);
        Self { mock, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the driver has an interrupt to handle: a change of the configuration or a message.
    fn has_interrupt(&self) -> bool {
        let device = self.mock.state();
        let events = device.vectors.iter().take(2).map(Interest::readable);
        let ready = events.map(|event| poll([event], Some(Duration::ZERO)));
        ready.flatten().flatten().any(|readable| readable)
    }

    fn take(&self, step: Step) {
        let scribbled = self.state().scribbled;
        let mut device = self.mock.state();
        match step {
            Step::Connect => device.connect(),
            Step::Leave if scribbled => {}
            Step::Leave => device.leave(),
            Step::Fail => device.break_down(),
            Step::Message(bytes) if !scribbled && device.dma.is_some() => drop(device.put(&bytes)),
            Step::Message(_) => {}
            Step::Interrupt(vector) => {
                if let Some(eventfd) = device.vectors.get(usize::from(vector)) {
                    eventfd.signal().expect("room for a signal");
                }
            }
            Step::Used(queue, id, len, steps) if device.is_enabled(queue) => {
                device.lie_in_ring(queue, id, len, steps);
            }
            Step::Used(..) => {}
            Step::Scribble(offset, bytes) => {
                let Some((_, memory)) = &device.dma else {
                    return;
                };
                memory.copy_in(offset % (memory.len() - bytes.len()), &bytes);
                device.lies.hold_tx = true;
                self.state().scribbled = true;
            }
            Step::Window(offset, bytes) => {
                let written = self.mock.window().write_all_at(&bytes, offset % FILE_LEN);
                written.expect("memory");
            }
            Step::TruncateWindow(len) => {
                self.mock.window().set_len(len % FILE_LEN).expect("memory");
            }
            Step::TruncateDoorbells(len) => {
                self.mock.doorbells().set_len(len % 0x2000).expect("memory");
            }
        }
    }
}

/// One of the known devices, perhaps with doorbells that can be mapped.
fn profile(choice: u8) -> Profile {
    let profile = match choice & 3 {
        1 => Profile::qemu(),
        2 => Profile::crosvm(),
        _ => Profile::ours(),
    };
    Profile {
        doorbells_mapped: choice & 4 != 0,
        ..profile
    }
}

/// Changes the size of a BAR, which stays a power of two, or removes the BAR.
fn resize(profile: &mut Profile, value: u64) {
    let shift = value >> 8 & 0x1f;
    let size = if shift == 0 { 0 } else { 1 << (shift + 4) };
    profile.bars[(value % 6) as usize] = size;
}

fn step(kind: u8, part: &[u8]) -> Option<Step> {
    let rest = |at: usize| part.get(at..).unwrap_or_default().to_vec();
    Some(match kind {
        3 => Step::Connect,
        4 => Step::Leave,
        5 => Step::Fail,
        6 => Step::Message(part.to_vec()),
        7 => Step::Interrupt(number(part, 0, 1) as u8),
        8 => Step::Used(
            number(part, 0, 1) as u16 % 2,
            number(part, 1, 4) as u32,
            number(part, 5, 4) as u32,
            number(part, 9, 2) as u16,
        ),
        9 => Step::Scribble(number(part, 0, 4) as usize, rest(4)),
        10 => Step::Window(number(part, 0, 4), rest(4)),
        11 => Step::TruncateWindow(number(part, 0, 4)),
        12 => Step::TruncateDoorbells(number(part, 0, 2)),
        _ => return None,
    })
}

/// The number in up to `len` bytes of `part` from `at` on. Bytes that `part` does not have are 0.
fn number(part: &[u8], at: usize, len: usize) -> u64 {
    let bytes = part.iter().skip(at).take(len);
    bytes
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl PciFunction for Liar {
    fn name(&self) -> String {
        "liar".to_owned()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.mock.read_config(offset, data)
    }

    fn write_config(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.mock.write_config(offset, data)
    }

    fn bar_size(&self, bar: u8) -> u64 {
        self.mock.bar_size(bar)
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) -> io::Result<()> {
        assert!(offset + data.len() as u64 <= self.bar_size(bar), "outside");
        let mut state = self.state();
        let lie = state.answers.get(&state.reads).copied();
        state.reads = state.reads.wrapping_add(1);
        match &state.registers {
            Some(registers) => {
                let value = registers.get(&(bar, offset)).copied().unwrap_or(0);
                data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
            }
            None => self.mock.read_bar(bar, offset, data)?,
        }
        if let Some(value) = lie {
            data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        }
        Ok(())
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(offset + data.len() as u64 <= self.bar_size(bar), "outside");
        match &mut self.state().registers {
            Some(registers) => drop(registers.insert((bar, offset), number(data, 0, 8))),
            None => self.mock.write_bar(bar, offset, data)?,
        }
        Ok(())
    }

    fn bar_file(&self, bar: u8, offset: u64, len: u64) -> Option<BarFile> {
        self.mock.bar_file(bar, offset, len)
    }

    fn iova_ranges(&self) -> Vec<RangeInclusive<u64>> {
        self.mock.iova_ranges()
    }

    fn map_dma(&self, iova: u64, memory: &Arc<DmaMemory>) -> Result<(), PciError> {
        self.mock.map_dma(iova, memory)
    }

    fn unmap_dma(&self, iova: u64) -> io::Result<()> {
        self.mock.unmap_dma(iova)
    }

    fn vector_count(&self) -> u16 {
        self.mock.vector_count()
    }

    fn set_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.mock.set_vectors(eventfds)
    }

    fn reset(&self) -> io::Result<bool> {
        self.mock.reset()
    }

    /// The driver asks for this descriptor before each wait, so the device takes its next steps
    /// here, until one of them ends the wait.
    fn hangup(&self) -> Option<BorrowedFd<'_>> {
        while !self.has_interrupt() {
            let step = self.state().steps.pop_front();
            let Some(step) = step else {
                self.mock.unplug();
                break;
            };
            self.take(step);
        }
        self.mock.hangup()
    }
}
