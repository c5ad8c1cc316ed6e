//! Survives the loss of a peer's memory.
//!
//! A peer can truncate the file of its memory. A file system can lack space for a page, and the
//! kernel can lack a huge page. An access to such memory raises SIGBUS, which ends a process that
//! does not handle the signal.
//!
//! The handler in this module looks the address up among the ranges that are mapped from peers'
//! files. It replaces the missing page by a zeroed private page, and marks the range as lost. Then
//! the access continues, and sees zeroes. The code that made the access has to ask whether the
//! range is lost before anything depends on the zeroes. A SIGBUS at any other address ends the
//! process as usual.
//!
//! System calls raise no signal for missing memory. They fail with EFAULT.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{BUS_ADRERR, SIG_DFL, SIGBUS, c_int, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use vmm_sys_util::signal::register_signal_handler;

use super::pages::MIN_PAGE;

/// The newest entry. Each entry points to the next older entry by its `next` field.
static NEWEST: AtomicPtr<Entry> = AtomicPtr::new(null_mut());

/// The entries without a range.
static FREE: Mutex<Vec<&'static Entry>> = Mutex::new(Vec::new());

/// The number of replacements in all ranges that are still mapped. A replacement covers one page or
/// a whole range.
static REPLACED: AtomicUsize = AtomicUsize::new(0);

/// The maximum number of pages that are replaced one by one. Each replacement may add two mappings
/// to the process, and the kernel allows about 65,000 mappings. After that, the handler replaces
/// the whole range that contains a missing page.
const MAX_SINGLE: usize = 4096;

/// Keeps the process alive when a peer's memory is lost. Installs the handler of SIGBUS, so call
/// this function before a filter of system calls forbids the installation.
///
/// # Errors
///
/// When the operating system refuses the signal handler.
pub fn survive_losses() -> io::Result<()> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    if INSTALLED.get().is_none() {
        register_signal_handler(SIGBUS, handle).map_err(io::Error::from)?;
        INSTALLED.get_or_init(|| ());
    }
    Ok(())
}

/// Whether any range of any peer is lost. Costs only one load.
#[inline]
pub(super) fn any() -> bool {
    REPLACED.load(Ordering::Relaxed) != 0
}

/// An entry for a range of mapped pages. An entry is never freed, because the signal handler may
/// read it at any moment. When its range is unmapped, the entry serves for another range.
#[derive(Debug, Default)]
struct Entry {
    /// Incremented before and after each change of the range, so it is odd during the change.
    version: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    unit: AtomicUsize,
    /// The number of replacements in the range.
    replaced: AtomicUsize,
    next: Option<&'static Entry>,
}

/// A range of mapped pages in this process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub start: usize,
    pub len: usize,
    /// The size of the pages, which may be huge.
    pub unit: usize,
}

impl Place {
    fn contains(&self, address: usize) -> bool {
        address >= self.start && address - self.start < self.len
    }

    /// The start and the length of the part that contains the address, if the range is divided into
    /// parts of `unit` bytes. The last part may be shorter.
    fn part(&self, address: usize, unit: usize) -> (usize, usize) {
        let offset = (address - self.start) / unit * unit;
        (self.start + offset, unit.min(self.len - offset))
    }
}

impl Entry {
    /// The range of the entry. `None` if another thread changes the range at this moment.
    ///
    /// A thread that accesses a range keeps the range mapped. So the entry for this range does not
    /// change during the access.
    fn place(&self) -> Option<Place> {
        let version = self.version.load(Ordering::Acquire);
        let place = Place {
            start: self.start.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
            unit: self.unit.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let unchanged = self.version.load(Ordering::Relaxed) == version;
        (unchanged && version.is_multiple_of(2)).then_some(place)
    }

    /// Changes the range. Only the owner of the entry calls this function.
    fn set(&self, place: Place) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(place.start, Ordering::Relaxed);
        self.len.store(place.len, Ordering::Relaxed);
        self.unit.store(place.unit, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }
}

/// Registers a range of mapped pages with the signal handler, until this value is dropped. Drop it
/// before the pages are unmapped.
#[derive(Debug)]
pub(super) struct Registration(&'static Entry);

impl Registration {
    pub fn new(place: Place) -> Self {
        let entry = free_entry();
        entry.set(place);
        Self(entry)
    }

    /// Whether a page of the range was missing when it was accessed.
    pub fn is_lost(&self) -> bool {
        self.0.replaced.load(Ordering::Relaxed) != 0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.set(Place::default());
        let replaced = self.0.replaced.swap(0, Ordering::Relaxed);
        REPLACED.fetch_sub(replaced, Ordering::Relaxed);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.0);
    }
}

/// An entry without a range. Makes an entry if there is none.
fn free_entry() -> &'static Entry {
    // The lock also prevents two threads from making an entry at the same time.
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    free.pop().unwrap_or_else(|| {
        let next = newest();
        let entry: &'static Entry = Box::leak(Box::new(Entry {
            next,
            ..Entry::default()
        }));
        NEWEST.store(std::ptr::from_ref(entry).cast_mut(), Ordering::Release);
        entry
    })
}

fn newest() -> Option<&'static Entry> {
    // SAFETY: the pointer is null, or points to an entry that was leaked. The fields of a leaked
    // entry change only through atomics.
    unsafe { NEWEST.load(Ordering::Acquire).as_ref() }
}

/// The handler of SIGBUS. It uses only atomics and the system calls mmap and sigaction, so it is
/// safe in any code that the signal interrupts.
extern "C" fn handle(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid structure. A SIGBUS has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Only the kernel sends this code, and only for an access to memory that is missing.
    if code != BUS_ADRERR || !replace(address) {
        // The access that raised the signal is repeated, and ends the process.
        // SAFETY: the call passes no pointers.
        unsafe { libc::signal(SIGBUS, SIG_DFL) };
    }
}

/// Replaces the missing page at `address` by zeroes, and marks the page's range as lost. Returns
/// false if the address is in no range, or the kernel refuses.
fn replace(address: usize) -> bool {
    let entries = std::iter::successors(newest(), |entry| entry.next);
    let found = entries.filter_map(|entry| Some((entry, entry.place()?)));
    let Some((entry, place)) = found.into_iter().find(|(_, place)| place.contains(address)) else {
        return false;
    };
    // If possible, only the missing page is replaced, because requests in flight may write the
    // content of the other pages to a disk. The kernel replaces a huge page only as a whole.
    let units = [MIN_PAGE as usize, place.unit, place.len];
    let single = REPLACED.load(Ordering::Relaxed) < MAX_SINGLE;
    let replaced = units
        .into_iter()
        .skip(if single { 0 } else { 2 })
        .any(|unit| map_zeroes(place.part(address, unit)));
    if replaced {
        entry.replaced.fetch_add(1, Ordering::Relaxed);
        REPLACED.fetch_add(1, Ordering::Relaxed);
    }
    replaced
}

/// Maps zeroed private memory over a part of a registered range.
fn map_zeroes((start, len): (usize, usize)) -> bool {
    let address = std::ptr::without_provenance_mut::<c_void>(start);
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the interrupted access was to this range, and the range's `Registration` is dropped
    // before the pages are unmapped. So the range is still mapped from a peer's file. All accesses
    // to the range allow that its bytes change at any moment. The owner of the range unmaps the new
    // pages together with the other pages of the range.
    unsafe { mmap_anonymous(address, len, access, flags) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_part_is_aligned_to_its_unit_and_ends_with_the_range() {
        let place = Place {
            start: 0x10_0000,
            len: 0x5000,
            unit: 0x2000,
        };
        for (address, unit, part) in [
            (0x10_0000, 0x1000, (0x10_0000, 0x1000)),
            (0x10_1fff, 0x1000, (0x10_1000, 0x1000)),
            (0x10_1fff, 0x2000, (0x10_0000, 0x2000)),
            (0x10_4001, 0x2000, (0x10_4000, 0x1000)),
            (0x10_4fff, 0x5000, (0x10_0000, 0x5000)),
        ] {
            assert!(place.contains(address));
            assert_eq!(place.part(address, unit), part, "{address:#x}");
        }
        assert!(!place.contains(0xf_ffff) && !place.contains(0x10_5000));
    }

    #[test]
    fn an_entry_that_changes_has_no_range() {
        let entry = Entry::default();
        let place = Place {
            start: 1,
            len: 2,
            unit: 3,
        };
        entry.set(place);
        assert_eq!(entry.place(), Some(place));
        entry.version.fetch_add(1, Ordering::Relaxed);
        assert_eq!(entry.place(), None);
    }

    #[test]
    fn a_reader_never_sees_parts_of_two_ranges() {
        const CHANGES: usize = 1_000_000;
        let entry = Entry::default();
        let place = |number| Place {
            start: number,
            len: number,
            unit: number,
        };
        thread::scope(|scope| {
            scope.spawn(|| (1..=CHANGES).for_each(|number| entry.set(place(number))));
            let mut newest = 0;
            while newest < CHANGES {
                let Some(found) = entry.place() else {
                    continue;
                };
                assert_eq!(found, place(found.start));
                assert!(found.start >= newest, "an older range than {newest}");
                newest = found.start;
            }
        });
    }
}
