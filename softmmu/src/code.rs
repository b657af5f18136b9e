//! Pages that hold cached code, and who must know when it changes.
//!
//! Both engines cache code by physical address. A page with cached code has no write tag in
//! any TLB, so that stores to it take the slow path. There a map of 64-byte granules tells
//! stores to code from stores beside it: kernels mix code and data, and JITs write new
//! functions into pages that already run. A store that hits a marked granule unmarks it and
//! tells every vCPU, whose engine drops the blocks that touch it and marks again what it
//! decodes anew. So the map needs no reference counts, and a page whose last granule is
//! rewritten becomes an ordinary page.
//!
//! Boot loaders keep variables and patched operands between instructions. A page where stores hit
//! granules again and again gets a map of its bytes, and from then on only stores to bytes of code
//! count.

use hashbrown::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::exit::ExitRequest;
use crate::mmu::Mmu;
use crate::ram::{GuestRam, PAGE_SIZE, PageFlags};

/// Bytes per granule of the code map.
pub const GRANULE: u64 = 64;

/// Mail that a vCPU has not read yet beyond which it is told to drop everything.
const MAILBOX_LIMIT: usize = 1024;

/// Hits of granules after which a page gets a map of bytes.
const HITS_BEFORE_BYTES: u32 = 16;

/// Pages of which hits are known: a bound to the memory for maps of bytes, 10 MB at most.
const MAX_HIT_PAGES: usize = 1 << 14;

/// Cached code that is no longer valid. Blocks that touch any of its bytes must be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeWrite {
    /// First guest-physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
}

impl CodeWrite {
    /// All cached code.
    pub const EVERYTHING: CodeWrite = CodeWrite { gpa: 0, len: u64::MAX };

    /// Whether a block at `gpa..gpa + len` is affected.
    pub fn touches(&self, gpa: u64, len: u64) -> bool {
        gpa < self.gpa.saturating_add(self.len) && self.gpa < gpa.saturating_add(len)
    }
}

/// What a vCPU learns from another one or from a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CodeEvent {
    /// The page at this address has code now: drop write tags.
    Marked(u64),
    /// Code was written.
    Written(CodeWrite),
}

/// Where a vCPU receives events.
#[derive(Debug)]
pub(crate) struct Mailbox {
    exit: Arc<ExitRequest>,
    events: Mutex<Vec<CodeEvent>>,
    /// There are events that the vCPU has not acted upon.
    behind: AtomicBool,
    /// The vCPU executes nothing, and will read its mail before it does.
    parked: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailbox {
    fn post(&self, event: CodeEvent) {
        let mut events = lock(&self.events);
        if events.len() >= MAILBOX_LIMIT {
            events.clear();
            events.push(CodeEvent::Written(CodeWrite::EVERYTHING));
        } else {
            events.push(event);
        }
        self.behind.store(true, Ordering::SeqCst);
        drop(events);
        self.exit.set(ExitRequest::CODE);
    }

    /// Empties the mailbox.
    pub(crate) fn take(&self) -> Vec<CodeEvent> {
        self.exit.clear(ExitRequest::CODE);
        std::mem::take(&mut *lock(&self.events))
    }

    /// The vCPU has acted upon what it took.
    pub(crate) fn done(&self) {
        let events = lock(&self.events);
        if events.is_empty() {
            self.behind.store(false, Ordering::SeqCst);
        }
    }

    /// Whether a store of this vCPU could still miss a mark.
    fn lags(&self) -> bool {
        self.behind.load(Ordering::SeqCst) && !self.parked.load(Ordering::SeqCst)
    }

    pub(crate) fn set_parked(&self, parked: bool) {
        self.parked.store(parked, Ordering::SeqCst);
    }
}

/// The vCPUs that cache code of a [`GuestRam`].
#[derive(Debug, Default)]
pub(crate) struct CodeWatch {
    mailboxes: Mutex<Vec<Arc<Mailbox>>>,
    /// Number of mailboxes, to skip the lock where there is nobody else.
    count: AtomicU32,
    /// Orders changes of granule maps and page flags; what is known of pages that were hit.
    marks: Mutex<HashMap<u64, HitPage>>,
}

/// A page in which stores hit cached code.
#[derive(Debug, Default)]
struct HitPage {
    hits: u32,
    /// The bytes that are code, once granules have proved too coarse.
    bytes: Option<Box<ByteMap>>,
    /// The end of the last store that hit.
    end: u64,
}

/// A bit for each byte of a page: a word for each granule.
#[derive(Debug)]
struct ByteMap([u64; GRANULES]);

const GRANULES: usize = (PAGE_SIZE / GRANULE) as usize;
const _: () = assert!(GRANULE == u64::BITS as u64);

/// The granules that `len` bytes at `gpa`, within one page, touch, with a bit for each byte.
fn byte_masks(gpa: u64, len: u64) -> impl Iterator<Item = (usize, u64)> {
    let first = gpa % PAGE_SIZE;
    let end = (first + len.max(1)).min(PAGE_SIZE);
    (first / GRANULE..end.div_ceil(GRANULE)).map(move |granule| {
        let base = granule * GRANULE;
        let (from, to) = (first.max(base) - base, end.min(base + GRANULE) - base);
        (granule as usize, (u64::MAX >> (GRANULE - (to - from))) << from)
    })
}

impl ByteMap {
    /// Everything in the granules of `word` is taken for code.
    fn of_granules(word: u64) -> ByteMap {
        ByteMap(std::array::from_fn(|n| if word >> n & 1 != 0 { u64::MAX } else { 0 }))
    }

    fn mark(&mut self, gpa: u64, len: u64) {
        for (granule, mask) in byte_masks(gpa, len) {
            self.0[granule] |= mask;
        }
    }

    /// A store: unmarks its bytes and, if `ahead`, those behind it up to one that is not code or to
    /// the granule's end. Returns what is invalid then, and the granules that have no code any
    /// more.
    fn hit(&mut self, gpa: u64, len: u64, ahead: bool) -> (Option<CodeWrite>, u64) {
        let (mut end, mut empty) = (None, 0);
        for (granule, mask) in byte_masks(gpa, len) {
            let word = &mut self.0[granule];
            if *word & mask == 0 {
                continue;
            }
            let last = 63 - (*word & mask).leading_zeros();
            let run = if ahead { (*word >> last).trailing_ones() } else { 1 };
            *word &= !(mask | (u64::MAX >> (u64::BITS - run)) << last);
            end = Some(page_of(gpa) + granule as u64 * GRANULE + u64::from(last + run));
            if *word == 0 {
                empty |= 1 << granule;
            }
        }
        let end = end.map(|end| end.max(gpa + len));
        (end.map(|end| CodeWrite { gpa, len: end - gpa }), empty)
    }
}

impl CodeWatch {
    pub(crate) fn register(&self, exit: Arc<ExitRequest>) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox {
            exit,
            events: Mutex::new(Vec::new()),
            behind: AtomicBool::new(false),
            parked: AtomicBool::new(false),
        });
        lock(&self.mailboxes).push(mailbox.clone());
        self.count.fetch_add(1, Ordering::AcqRel);
        mailbox
    }

    pub(crate) fn unregister(&self, mailbox: &Arc<Mailbox>) {
        lock(&self.mailboxes).retain(|other| !Arc::ptr_eq(other, mailbox));
        self.count.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether another vCPU than `sender` has yet to act upon a mark.
    pub(crate) fn others_lag(&self, sender: &Arc<Mailbox>) -> bool {
        self.count.load(Ordering::Acquire) > 1
            && lock(&self.mailboxes).iter().any(|other| !Arc::ptr_eq(sender, other) && other.lags())
    }

    /// Tells everybody but `sender`.
    fn broadcast(&self, sender: Option<&Arc<Mailbox>>, event: CodeEvent) {
        let others = self.count.load(Ordering::Acquire) - u32::from(sender.is_some());
        if others == 0 {
            return;
        }
        for mailbox in lock(&self.mailboxes).iter() {
            if !sender.is_some_and(|sender| Arc::ptr_eq(sender, mailbox)) {
                mailbox.post(event);
            }
        }
    }
}

/// The granules that `len` bytes at `gpa`, within one page, touch.
fn granule_mask(gpa: u64, len: u64) -> u64 {
    let first = gpa % PAGE_SIZE / GRANULE;
    let last = (gpa % PAGE_SIZE + len.max(1) - 1).min(PAGE_SIZE - 1) / GRANULE;
    (u64::MAX >> (63 - (last - first))) << first
}

/// The address of the page.
fn page_of(gpa: u64) -> u64 {
    gpa & !(PAGE_SIZE - 1)
}

/// From the first to the last of the granules of `hit`, in the page of `gpa`.
fn granules(gpa: u64, hit: u64) -> CodeWrite {
    let first = u64::from(hit.trailing_zeros());
    let last = 63 - u64::from(hit.leading_zeros());
    CodeWrite { gpa: page_of(gpa) + first * GRANULE, len: (last - first + 1) * GRANULE }
}

/// Calls `visit` with the piece of `gpa..gpa + len` in each page.
pub(crate) fn for_each_page(gpa: u64, len: u64, mut visit: impl FnMut(u64, u64)) {
    let (mut gpa, mut left) = (gpa, len);
    while left > 0 {
        let piece = left.min(PAGE_SIZE - gpa % PAGE_SIZE);
        visit(gpa, piece);
        left -= piece;
        match gpa.checked_add(piece) {
            Some(next) => gpa = next,
            None => return,
        }
    }
}

impl GuestRam {
    /// Marks cached code within one page. Returns true when the page had none before, so that
    /// write tags must go; other vCPUs are told.
    pub(crate) fn mark_code_in_page(&self, sender: &Arc<Mailbox>, gpa: u64, len: u64) -> bool {
        if !self.flags(gpa).has(PageFlags::RAM) {
            return false;
        }
        let Some(word) = self.granule_word(gpa) else { return false };
        let mask = granule_mask(gpa, len);
        let mut marks = lock(&self.code.marks);
        let bytes = marks.get_mut(&page_of(gpa)).and_then(|page| page.bytes.as_mut());
        if bytes.is_none() && word.load(Ordering::Acquire) & mask == mask {
            return false;
        }
        if let Some(bytes) = bytes {
            bytes.mark(gpa, len);
        }
        word.fetch_or(mask, Ordering::AcqRel);
        let new = !self.set_flags(gpa, PageFlags::HAS_CODE).has(PageFlags::HAS_CODE);
        // The engine reads the code bytes next: either it sees what another vCPU stored, or
        // that vCPU sees the mark (see `note_write_in_page`).
        fence(Ordering::SeqCst);
        if new {
            self.code.broadcast(Some(sender), CodeEvent::Marked(page_of(gpa)));
        }
        new
    }

    /// After a store within one page: sets the dirty flag and, where the store hit cached
    /// code, unmarks it, tells other vCPUs and returns what became invalid.
    pub(crate) fn note_write_in_page(
        &self,
        sender: Option<&Arc<Mailbox>>,
        gpa: u64,
        len: u64,
    ) -> Option<CodeWrite> {
        self.set_flags(gpa, PageFlags::DIRTY);
        if sender.is_none() || self.code.count.load(Ordering::Relaxed) > 1 {
            // Pairs with the fence of `mark_code_in_page`.
            fence(Ordering::SeqCst);
        }
        if !self.flags(gpa).has(PageFlags::HAS_CODE) {
            return None;
        }
        let word = self.granule_word(gpa)?;
        let mask = granule_mask(gpa, len);
        if word.load(Ordering::Acquire) & mask == 0 {
            return None;
        }
        let mut marks = lock(&self.code.marks);
        let hit = word.load(Ordering::Acquire) & mask;
        if hit == 0 {
            return None;
        }
        if marks.len() >= MAX_HIT_PAGES {
            // Granules say the same, if less exactly.
            marks.clear();
        }
        let page = marks.entry(page_of(gpa)).or_default();
        let (write, empty) = match &mut page.bytes {
            Some(bytes) => {
                let hit = bytes.hit(gpa, len, page.end == gpa);
                page.end = if hit.0.is_some() { gpa + len } else { page.end };
                hit
            }
            None => {
                page.hits += 1;
                if page.hits >= HITS_BEFORE_BYTES {
                    let left = word.load(Ordering::Acquire) & !hit;
                    page.bytes = Some(Box::new(ByteMap::of_granules(left)));
                }
                (Some(granules(gpa, hit)), hit)
            }
        };
        if empty != 0 && word.fetch_and(!empty, Ordering::AcqRel) & !empty == 0 {
            self.clear_flags(gpa, PageFlags::HAS_CODE);
        }
        drop(marks);
        let write = write?;
        self.code.broadcast(sender, CodeEvent::Written(write));
        Some(write)
    }

    /// Tells the vCPUs that a device wrote RAM (DMA), so that cached code there is dropped.
    pub fn note_device_write(&self, gpa: u64, len: u64) {
        for_each_page(gpa, len, |gpa, len| {
            self.note_write_in_page(None, gpa, len);
        });
    }
}

impl Mmu {
    /// Marks the whole page of `gpa` as code: see [`Mmu::mark_code_range`], which is better.
    pub fn mark_code(&mut self, gpa: u64) {
        self.mark_code_range(gpa & !(PAGE_SIZE - 1), PAGE_SIZE);
    }

    /// Marks `len` bytes at `gpa` as cached code, before the engine decodes them. A later
    /// store to one of their 64-byte granules, by any vCPU or device, unmarks the granule and
    /// is reported by [`Mmu::take_code_writes`] on every vCPU; then the engine drops its
    /// blocks there. Ranges may be marked again and overlap.
    ///
    /// Other vCPUs lose their write tags when they read their mail. Before the engine decodes
    /// it waits for that with [`Mmu::wait_for_code_sync`]; alone, it need not.
    pub fn mark_code_range(&mut self, gpa: u64, len: u64) {
        let ram = self.ram.clone();
        for_each_page(gpa, len, |gpa, len| {
            if ram.mark_code_in_page(&self.mailbox, gpa, len) {
                self.tlb.drop_writes_to(gpa);
            }
        });
    }

    /// Reads the mail of other vCPUs and devices about code. The engine calls it when
    /// [`ExitRequest::CODE`] is set, and then looks at `code_dirty`.
    pub fn sync_code_pages(&mut self) {
        for event in self.mailbox.take() {
            match event {
                CodeEvent::Marked(gpa) => self.tlb.drop_writes_to(gpa),
                CodeEvent::Written(write) => {
                    if write == CodeWrite::EVERYTHING {
                        self.tlb.drop_writes();
                    }
                    self.report_code_write(write);
                }
            }
        }
        self.mailbox.done();
    }

    /// Waits until no other vCPU can store to a marked page unseen: each has read its mail or
    /// is parked. Reads the own mail meanwhile, since others may wait for this vCPU.
    pub fn wait_for_code_sync(&mut self) {
        while self.ram.code.others_lag(&self.mailbox) {
            self.sync_code_pages();
            std::thread::yield_now();
        }
    }

    /// Declares that this vCPU executes nothing for a while (HLT, stopped), so that nobody
    /// waits for it.
    pub fn park(&self) {
        self.mailbox.set_parked(true);
    }

    /// Ends [`Mmu::park`] and reads the mail.
    pub fn unpark(&mut self) {
        self.mailbox.set_parked(false);
        self.sync_code_pages();
    }

    /// Takes the list of invalid code and clears `code_dirty`.
    pub fn take_code_writes(&mut self) -> Vec<CodeWrite> {
        self.code_dirty = false;
        std::mem::take(&mut self.code_written)
    }

    fn report_code_write(&mut self, write: CodeWrite) {
        self.stats.code_writes += 1;
        self.code_dirty = true;
        if self.code_written.last() != Some(&write) {
            self.code_written.push(write);
        }
    }

    /// After a store on the slow path to `len` bytes of RAM within one page.
    pub(crate) fn note_write(&mut self, gpa: u64, len: u64, flags: PageFlags) {
        if flags.has(PageFlags::HAS_CODE) {
            self.stats.code_page_stores += 1;
        }
        if let Some(write) = self.ram.note_write_in_page(Some(&self.mailbox), gpa, len) {
            self.report_code_write(write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granule_masks() {
        assert_eq!(granule_mask(0x1000, 1), 1);
        assert_eq!(granule_mask(0x103F, 2), 3);
        assert_eq!(granule_mask(0x1FFF, 1), 1 << 63);
        assert_eq!(granule_mask(0x1000, 4096), !0);
        assert_eq!(granule_mask(0x1FC0, 4096), 1 << 63);
        assert_eq!(granule_mask(0x1080, 0), 1 << 2);
    }

    #[test]
    fn stores_beside_code_do_not_count() {
        let written = |gpa, len| Some(CodeWrite { gpa, len });
        let mut map = ByteMap::of_granules(1 << 1);
        assert_eq!(map.hit(0x5000, 0x40, true), (None, 0));
        map.0[1] = 0;
        map.mark(0x5044, 4);
        map.mark(0x5048, 8);
        map.mark(0x5060, 0x30);
        assert_eq!(map.hit(0x5040, 4, true), (None, 0));
        assert_eq!(map.hit(0x5050, 16, true), (None, 0));
        assert_eq!(map.hit(0x5043, 2, false), (written(0x5043, 2), 0));
        assert_eq!(map.hit(0x5043, 2, false), (None, 0));
        // The operand at 0x5046, and what follows it up to the gap.
        assert_eq!(map.hit(0x5046, 1, true), (written(0x5046, 10), 0));
        assert_eq!(map.hit(0x5046, 10, true), (None, 0));
        // Up to the granule's end, and then into the next one.
        assert_eq!(map.hit(0x5062, 1, true), (written(0x5062, 0x1E), 0));
        assert_eq!(map.hit(0x507F, 2, true), (written(0x507F, 0x11), 1 << 2));
        assert_eq!(map.hit(0x5000, 0x1000, false), (written(0x5000, 0x1000), 1 << 1));
        assert_eq!(map.hit(0x5000, 0x1000, true), (None, 0));
    }

    #[test]
    fn pages_of_a_range() {
        let mut seen = Vec::new();
        for_each_page(0xFFE, 0x1004, |gpa, len| seen.push((gpa, len)));
        assert_eq!(seen, [(0xFFE, 2), (0x1000, 0x1000), (0x2000, 2)]);
    }
}
