//! An engine in a process of its own, so that a crash or a hang of it is a result like any other.
//!
//! Cases go there and outcomes come back in batches, through shared memory, as between the suite
//! and the child that runs them natively ([`super::Sandbox`]). When the worker dies, the parent
//! finds the number of the case that it was at, and goes on behind it.

use super::super::compare::Difference;
use super::super::guest::{GuestError, Subject};
use super::super::layout::{MEMORY, PAGE};
use super::super::memory::{Base, LINES};
use super::super::state::{Case, Outcome};
use super::signals::{self, Signal};
use super::{BATCH, Job, LOOK, SandboxError, load, outcome, system, worker};
use iced_x86::{Decoder, DecoderOptions, Encoder};
use libc::c_int;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Time after which a worker that its own timers have not ended is given up.
const LAST_RESORT: Duration = Duration::from_secs(900);

/// What an engine did instead of coming to an outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// It came to an end that no case should have, or panicked.
    Failed(String),
    /// Its process died: of what, and where.
    Crash(String, String),
    /// It did not come back: where it was.
    Hang(String),
    /// It was not run: too many before it crashed or hung.
    NotRun,
}

impl Trouble {
    /// As a difference from what the host did; none where nothing was run.
    pub(crate) fn difference(self, host: String) -> Option<Difference> {
        let (what, ours) = match self {
            Trouble::Failed(text) => ("ending".to_owned(), text),
            Trouble::Crash(signal, place) => (format!("crash by {signal}"), place),
            Trouble::Hang(place) => ("hang".to_owned(), place),
            Trouble::NotRun => return None,
        };
        Some(Difference { what, host, ours })
    }
}

/// How many crashes and hangs are still put up with. Each costs the time of a restart, a hang that
/// of patience besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    crashes: u32,
    hangs: u32,
}

impl Limits {
    /// For the cases of a form.
    pub(crate) const FORM: Limits = Limits { crashes: 100, hangs: 3 };

    fn spent(self) -> bool {
        self.crashes == 0 || self.hangs == 0
    }

    fn count(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Crash(..) => self.crashes = self.crashes.saturating_sub(1),
            Trouble::Hang(_) => self.hangs = self.hangs.saturating_sub(1),
            Trouble::Failed(_) | Trouble::NotRun => {}
        }
    }
}

/// What became of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Fate {
    /// It lives.
    Alive = 0,
    /// It died with a batch.
    Died = 1,
    /// It could not make the engine.
    NotMade = 2,
}

/// A short text in shared memory.
#[repr(C)]
pub(super) struct Text {
    len: u32,
    bytes: [u8; 252],
}

impl Text {
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Sets it, or as much as there is room for. It is not empty afterwards.
    pub(super) fn set(&mut self, text: &str) {
        let text = if text.is_empty() { "no reason given" } else { text };
        let len = text.floor_char_boundary(self.bytes.len());
        self.bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len = len as u32;
    }

    fn get(&self) -> Option<String> {
        let bytes = &self.bytes[..(self.len as usize).min(self.bytes.len())];
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// What of a case is not in its [`Job`].
#[repr(C)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) linear: u64,
    pub(super) bits: u32,
    pub(super) form: u32,
    pub(super) len: u32,
}

/// What the processes share. The worker may have written anywhere before it died: the parent
/// believes none of it blindly.
#[repr(C)]
pub(super) struct Shared {
    /// What the cases of a batch start from.
    pub(super) base: [u8; MEMORY],
    /// Its number, so that the worker notices another.
    pub(super) base_number: u32,
    /// Number of the batch that the parent asks for.
    pub(super) asked: AtomicU32,
    /// Number of the batch that is done, or that the worker died with.
    pub(super) done: AtomicU32,
    /// Jobs in the batch: the first, and the one behind the last.
    pub(super) first: u32,
    pub(super) end: u32,
    /// Whether the engine is to drop its caches first.
    pub(super) fresh: u32,
    /// The job that the worker is at.
    pub(super) index: AtomicU32,
    /// Whether there is an engine.
    pub(super) ready: AtomicU32,
    /// [`Fate`].
    pub(super) fate: AtomicU32,
    /// What waitpid(2) said of the worker.
    pub(super) status: c_int,
    /// The last signal that the worker took.
    pub(super) signal: Signal,
    /// Why there is no engine.
    pub(super) why: Text,
    pub(super) heads: [Head; BATCH],
    pub(super) jobs: [Job; BATCH],
    /// Why there is no outcome; empty where there is one.
    pub(super) texts: [Text; BATCH],
}

const SIZE: usize = size_of::<Shared>().next_multiple_of(PAGE);

/// An engine in a process of its own.
pub(crate) struct Remote {
    shared: *mut Shared,
    keeper: libc::pid_t,
    batch: u32,
    /// What the worker has.
    base: Option<Base>,
}

// SAFETY: the pointer is to a mapping that this owns.
unsafe impl Send for Remote {}

impl Remote {
    /// Starts the process, which makes the engine. To be called where as few threads as may be run:
    /// the process is a copy of this one.
    pub(crate) fn new(
        make: &dyn Fn() -> Result<Box<dyn Subject>, GuestError>,
    ) -> Result<Remote, SandboxError> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let shared = unsafe { libc::mmap(ptr::null_mut(), SIZE, access, flags, -1, 0) };
        if shared == libc::MAP_FAILED {
            return Err(system("mmap"));
        }
        let mut remote = Remote { shared: shared.cast(), keeper: 0, batch: 0, base: None };
        // The first batch is empty: it answers when there is an engine, or none.
        remote.ask(0..0, false);
        make_tables();
        // SAFETY: getpid(2) only returns.
        let parent = unsafe { libc::getpid() };
        // SAFETY: the child has one thread, shares the mapping, and never returns from `keep`.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(system("fork"));
        }
        if pid == 0 {
            // SAFETY: as above.
            unsafe { worker::keep(remote.shared, parent, make) };
        }
        remote.keeper = pid;
        // Other processes that are forked from here on have no business there.
        // SAFETY: our mapping; nothing in it changes.
        unsafe { libc::madvise(shared, SIZE, libc::MADV_DONTFORK) };
        match remote.wait()? {
            None => Ok(remote),
            Some(trouble) => Err(SandboxError::Engine(format!("{trouble:?}"))),
        }
    }

    /// Runs cases, at most [`BATCH`] that share their base. With `fresh`, the engine drops its
    /// caches first. What there was besides outcomes: see [`Remote::outcome`].
    pub(crate) fn run(
        &mut self,
        cases: &[&Case],
        fresh: bool,
        limits: &mut Limits,
    ) -> Result<Vec<Option<Trouble>>, SandboxError> {
        let mut troubles = Vec::with_capacity(cases.len());
        let mut fresh = fresh;
        while let Some(rest) = cases.get(troubles.len()..).filter(|rest| !rest.is_empty()) {
            if limits.spent() {
                troubles.resize(cases.len(), Some(Trouble::NotRun));
                break;
            }
            self.load_base(rest[0].memory.base());
            let range = troubles.len()..cases.len();
            for (i, case) in range.clone().zip(rest) {
                // SAFETY: the worker waits for the batch; an index beyond BATCH is a bug, and
                // checked.
                unsafe {
                    load(&mut (*self.shared).jobs[i], case);
                    (*self.shared).heads[i] = Head {
                        number: case.number,
                        linear: case.linear,
                        bits: case.bits,
                        form: case.form as u32,
                        len: case.len as u32,
                    };
                }
            }
            self.ask(range.clone(), std::mem::take(&mut fresh));
            let trouble = self.wait()?;
            let done = match trouble {
                None => range.end,
                // SAFETY: the worker is dead, and the next one waits.
                Some(_) => unsafe { (*self.shared).index.load(Ordering::Relaxed) as usize }
                    .clamp(range.start, range.end - 1),
            };
            troubles.resize(done, None);
            if let Some(trouble) = trouble {
                limits.count(&trouble);
                troubles.push(Some(trouble));
                // It has none yet.
                self.base = None;
            }
        }
        Ok(troubles)
    }

    /// The outcome of the case with index `i` in what ran last, where there was no other trouble.
    pub(crate) fn outcome(&self, i: usize, case: &Case) -> Result<Outcome, Trouble> {
        // SAFETY: the worker waits; an index beyond BATCH is a bug, and checked.
        let (job, text) = unsafe { (&(*self.shared).jobs[i], &(*self.shared).texts[i]) };
        if let Some(text) = text.get() {
            return Err(Trouble::Failed(text));
        }
        let lines = &job.memory_after.lines[..(job.memory_after.count as usize).min(LINES)];
        if lines.iter().any(|line| line.number as usize >= LINES) {
            return Err(Trouble::Failed("it has overwritten the suite's memory".to_owned()));
        }
        Ok(outcome(job, case.memory.base()))
    }

    fn load_base(&mut self, base: &Base) {
        if self.base.as_ref().is_some_and(|old| Base::ptr_eq(old, base)) {
            return;
        }
        // SAFETY: the mapping is ours, and the worker waits.
        let shared = unsafe { &mut *self.shared };
        shared.base = **base;
        shared.base_number = shared.base_number.wrapping_add(1);
        self.base = Some(base.clone());
    }

    fn ask(&mut self, range: Range<usize>, fresh: bool) {
        self.batch = self.batch.wrapping_add(1);
        // SAFETY: the mapping is ours, and the worker waits.
        unsafe {
            (*self.shared).first = range.start as u32;
            (*self.shared).end = range.end as u32;
            (*self.shared).fresh = fresh.into();
            (*self.shared).index.store(range.start as u32, Ordering::Relaxed);
            (*self.shared).fate.store(Fate::Alive as u32, Ordering::Relaxed);
            (*self.shared).signal = Signal::NONE;
            (*self.shared).asked.store(self.batch, Ordering::Release);
            let word = (*self.shared).asked.as_ptr();
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, 1);
        }
    }

    /// Waits for the batch. What the worker died of, if it did.
    fn wait(&mut self) -> Result<Option<Trouble>, SandboxError> {
        let start = Instant::now();
        // SAFETY: the mapping is ours.
        let done = unsafe { &(*self.shared).done };
        loop {
            let seen = done.load(Ordering::Acquire);
            if seen == self.batch {
                return self.trouble();
            }
            let time = libc::timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as libc::c_long };
            // SAFETY: a valid word and time; returns when the word has changed, or in time.
            unsafe {
                libc::syscall(libc::SYS_futex, done.as_ptr(), libc::FUTEX_WAIT, seen, &time);
            }
            if done.load(Ordering::Acquire) == self.batch {
                continue;
            }
            // SAFETY: a child of ours that nobody else waits for.
            let gone = unsafe { libc::waitpid(self.keeper, ptr::null_mut(), libc::WNOHANG) };
            if gone == self.keeper {
                self.keeper = 0;
                // It may have answered last.
                if done.load(Ordering::Acquire) != self.batch {
                    return Err(SandboxError::Keeper);
                }
            } else if start.elapsed() > LAST_RESORT {
                self.kill();
                return Err(SandboxError::Keeper);
            }
        }
    }

    /// What the worker died of, if it did.
    fn trouble(&self) -> Result<Option<Trouble>, SandboxError> {
        // SAFETY: the worker, or the next one, waits.
        let (fate, status, signal, why) = unsafe {
            let shared = &*self.shared;
            (shared.fate.load(Ordering::Relaxed), shared.status, shared.signal, shared.why.get())
        };
        if fate == Fate::Alive as u32 {
            return Ok(None);
        }
        if fate != Fate::Died as u32 {
            return Err(SandboxError::Engine(why.unwrap_or_else(|| cause(status))));
        }
        if !libc::WIFSIGNALED(status) {
            return Ok(Some(Trouble::Crash(cause(status), "no fault".to_owned())));
        }
        let number = libc::WTERMSIG(status);
        let place = match signal.number {
            0 => "the place is not known".to_owned(),
            n if n == number => signal.to_string(),
            n => format!("after {} in {signal}", signals::name(n)),
        };
        let timer = Signal::is_timer(number);
        Ok(Some(if timer { Trouble::Hang(place) } else { Trouble::Crash(cause(status), place) }))
    }

    fn kill(&mut self) {
        if self.keeper > 0 {
            // SAFETY: a child of ours, not yet waited for. Its own child dies with it.
            unsafe {
                libc::kill(self.keeper, libc::SIGKILL);
                libc::waitpid(self.keeper, ptr::null_mut(), 0);
            }
            self.keeper = 0;
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.kill();
        // SAFETY: our mapping; nothing refers to it any more.
        unsafe { libc::munmap(self.shared.cast(), SIZE) };
    }
}

/// Has the tables made that are made where they are first needed. In a process forked while another
/// thread makes one, who needs it would wait for that thread for ever: it is not there.
fn make_tables() {
    const NOP: [u8; 1] = [0x90];
    let nop = Decoder::new(64, &NOP, DecoderOptions::NONE).decode();
    let _ = Encoder::new(64).encode(&nop, 0);
    let _ = nop.op_code();
    let policy = x86::cpuid::Policy::single();
    let _ = decoder::decode_offered(&policy, &NOP, 64);
    x86::cpuid::Vendor::host();
}

/// How a process ended.
fn cause(status: c_int) -> String {
    if libc::WIFSIGNALED(status) {
        signals::name(libc::WTERMSIG(status))
    } else {
        format!("exit with status {}", libc::WEXITSTATUS(status))
    }
}
