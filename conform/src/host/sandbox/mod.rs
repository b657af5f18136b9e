//! The host CPU's answer: a child process that executes one instruction after the other.
//!
//! The child shares with its parent the window's pages and a batch of jobs. It lives in its signal
//! handler: the handler notes the outcome of a job, loads the registers of the next one into the
//! signal frame and returns, which makes the kernel load them; the exception that ends the job is
//! the next signal. A seccomp filter leaves the child three system calls, so that whatever it
//! executes can harm nobody.

mod child;
mod entry;
mod process;
mod signals;
#[cfg(test)]
mod tests;
mod worker;

pub(super) use process::{Limits, Remote, Trouble};

use super::layout::{CODE_ROOM, CONTENTS, MEMORY, PAGE, PAGES};
use super::memory::{Base, LINES, Line, Memory};
use super::segments::LdtEntry;
use super::state::{Case, Outcome, State};
use libc::c_int;
use std::arch::x86_64::__cpuid_count;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Jobs handed over at once: enough that the two processes seldom wait for each other.
pub(super) const BATCH: usize = 128;
/// Processor time that a batch may take before the child is thought to hang, so that a busy host
/// makes no difference; and time by the clock, in case it sleeps.
const PATIENCE: Duration = Duration::from_secs(5);
const CLOCK_PATIENCE: Duration = Duration::from_secs(300);
/// How often the parent looks whether the child is still alive.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of the child's signal stack: room for the largest signal frame (AVX-512 and AMX).
const STACK: usize = 256 << 10;
/// Bit of `AT_HWCAP2`: the kernel lets user code use WRFSBASE (Documentation/arch/x86/x86_64/fsgs).
const HWCAP2_FSGSBASE: u64 = 1 << 1;

/// Why instructions cannot be executed on this host.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// A system call failed.
    #[error("cannot set up the child process ({step}): {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The kernel is too old.
    #[error("the host's kernel does not enable FSGSBASE (Linux 5.9 or newer does)")]
    NoFsGsBase,
    /// The child ended before its first job.
    #[error("the child process ended while it was set up, at step {0:?}")]
    Setup(child::Step),
    /// There is no engine to test.
    #[error("cannot make the engine: {0}")]
    Engine(String),
    /// The process that looks after an engine's is gone.
    #[error("the process that runs an engine was killed from outside; is there enough memory?")]
    Keeper,
}

/// The host gave no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NoAnswer {
    /// The child was killed by this signal (SIGSYS: the instruction made a system call).
    Killed(c_int),
    /// The child ended with this status.
    Ended(c_int),
    /// It did not come back.
    Hang,
}

/// One job, in shared memory.
#[repr(C)]
struct Job {
    before: State,
    after: State,
    code: [u8; CODE_ROOM],
    /// Offset of the instruction in the window.
    code_offset: u32,
    vector: u32,
    error: u32,
    address: u64,
    memory_before: Lines,
    memory_after: Lines,
}

/// Lines of memory that are not as in the base.
#[repr(C)]
struct Lines {
    count: u32,
    lines: [Line; LINES],
}

/// What both processes share. The window comes first: the child maps its pages again, where the
/// cases have them.
#[repr(C)]
struct Shared {
    window: [u8; PAGES * PAGE],
    /// What the cases of a batch start from, and the window holds between them.
    base: [u8; MEMORY],
    /// Number of the batch that the parent asks for.
    asked: AtomicU32,
    /// Number of the batch that the child has done.
    done: AtomicU32,
    /// Jobs in the batch.
    count: u32,
    /// The job that the child executes.
    index: u32,
    /// Whether it executes one.
    active: u32,
    /// How far the child has come in setting itself up.
    step: AtomicU32,
    /// Offsets in an XSAVE area, 0 for what the host does not have: upper halves of YMM registers,
    /// opmask registers, upper halves of ZMM0 to ZMM15, ZMM16 to ZMM31.
    extended: [u32; 4],
    jobs: [Job; BATCH],
}

/// The child process.
pub(super) struct Sandbox {
    shared: *mut Shared,
    file: OwnedFd,
    stack: *mut u8,
    ldt: Vec<LdtEntry>,
    pid: libc::pid_t,
    batch: u32,
    /// What the window holds.
    base: Option<Base>,
    /// Processor time after which it is thought to hang.
    patience: Duration,
}

// SAFETY: the pointers are to mappings that the Sandbox owns.
unsafe impl Send for Sandbox {}

fn system(step: &'static str) -> SandboxError {
    SandboxError::System { step, source: std::io::Error::last_os_error() }
}

impl Sandbox {
    /// Starts a child that has the given LDT.
    pub(super) fn new(ldt: &[LdtEntry]) -> Result<Sandbox, SandboxError> {
        // SAFETY: reads the auxiliary vector.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
            return Err(SandboxError::NoFsGsBase);
        }
        // SAFETY: a valid name; the descriptor is new and owned by nobody else.
        let file = unsafe {
            let fd = libc::memfd_create(c"ringshift-conform".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(system("memfd_create"));
            }
            OwnedFd::from_raw_fd(fd)
        };
        let size = size_of::<Shared>().next_multiple_of(PAGE);
        // SAFETY: the descriptor is ours.
        if unsafe { libc::ftruncate(file.as_raw_fd(), size as libc::off_t) } != 0 {
            return Err(system("ftruncate"));
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new mappings at addresses of the kernel's choice.
        let (shared, stack) = unsafe {
            let fd = file.as_raw_fd();
            let shared = libc::mmap(ptr::null_mut(), size, access, libc::MAP_SHARED, fd, 0);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let stack = libc::mmap(ptr::null_mut(), STACK, access, flags, -1, 0);
            (shared, stack)
        };
        if shared == libc::MAP_FAILED || stack == libc::MAP_FAILED {
            return Err(system("mmap"));
        }
        let mut sandbox = Sandbox {
            shared: shared.cast(),
            file,
            stack: stack.cast(),
            ldt: ldt.to_vec(),
            pid: 0,
            batch: 0,
            base: None,
            patience: PATIENCE,
        };
        let extended = child::COMPONENTS.map(|(number, _)| component(number));
        // SAFETY: the mapping is ours; no child exists yet.
        unsafe { (*sandbox.shared).extended = extended };
        sandbox.start()?;
        Ok(sandbox)
    }

    fn start(&mut self) -> Result<(), SandboxError> {
        // SAFETY: the mapping is ours; no child exists.
        unsafe {
            (*self.shared).window.fill(super::layout::FILL);
            (*self.shared).asked.store(0, Ordering::Relaxed);
            (*self.shared).done.store(0, Ordering::Relaxed);
            (*self.shared).active = 0;
            (*self.shared).step.store(0, Ordering::Relaxed);
        }
        self.batch = 0;
        self.base = None;
        // SAFETY: the child only makes system calls and executes `child::main`, which takes no
        // locks and does not allocate.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(system("fork"));
        }
        if pid == 0 {
            // SAFETY: this is a new process with one thread, as `main` demands.
            unsafe { child::main(self.shared, self.file.as_raw_fd(), self.stack, &self.ldt) };
        }
        self.pid = pid;
        // The first batch is empty: it answers when all is set up.
        self.ask(0);
        self.wait().map_err(|_| {
            // SAFETY: as above.
            let step = unsafe { (*self.shared).step.load(Ordering::Relaxed) };
            SandboxError::Setup(child::Step::from_number(step))
        })
    }

    /// Runs cases.
    pub(super) fn run(
        &mut self,
        cases: &[Case],
    ) -> Result<Vec<Result<Outcome, NoAnswer>>, SandboxError> {
        let mut outcomes = Vec::with_capacity(cases.len());
        while let Some(rest) = cases.get(outcomes.len()..).filter(|rest| !rest.is_empty()) {
            let base = rest[0].memory.base();
            let alike = rest.iter().take_while(|case| case.memory.shares_base(base)).count();
            let rest = &rest[..alike.min(BATCH)];
            self.load_base(base);
            for (i, case) in rest.iter().enumerate() {
                // SAFETY: the child waits for the batch; the index is below BATCH.
                unsafe { load(&mut (*self.shared).jobs[i], case) };
            }
            self.ask(rest.len() as u32);
            let failure = self.wait().err();
            let done = match failure {
                None => rest.len(),
                // SAFETY: the child is dead.
                Some(_) => unsafe { (*self.shared).index as usize }.min(rest.len() - 1),
            };
            for i in 0..done {
                // SAFETY: the child waits or is dead; the index is below BATCH.
                outcomes.push(Ok(outcome(unsafe { &(*self.shared).jobs[i] }, base)));
            }
            if let Some(failure) = failure {
                outcomes.push(Err(failure));
                self.start()?;
            }
        }
        Ok(outcomes)
    }

    /// Fills the window, where it holds something else.
    fn load_base(&mut self, base: &Base) {
        if self.base.as_ref().is_some_and(|old| Base::ptr_eq(old, base)) {
            return;
        }
        // SAFETY: the mapping is ours, and the child waits.
        let shared = unsafe { &mut *self.shared };
        shared.base = **base;
        for (page, bytes) in CONTENTS.iter().zip(base.chunks_exact(PAGE)) {
            shared.window[page * PAGE..(page + 1) * PAGE].copy_from_slice(bytes);
        }
        self.base = Some(base.clone());
    }

    fn ask(&mut self, count: u32) {
        self.batch += 1;
        // SAFETY: the mapping is ours, and the child waits.
        unsafe {
            (*self.shared).count = count;
            (*self.shared).index = 0;
            (*self.shared).asked.store(self.batch, Ordering::Release);
            let word = (*self.shared).asked.as_ptr();
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, 1);
        }
    }

    fn wait(&mut self) -> Result<(), NoAnswer> {
        let (start, used) = (Instant::now(), self.processor_time());
        loop {
            // SAFETY: the mapping is ours.
            let done = unsafe { &(*self.shared).done };
            let seen = done.load(Ordering::Acquire);
            if seen == self.batch {
                return Ok(());
            }
            let time = libc::timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as libc::c_long };
            // SAFETY: a valid word and time; returns when the word has changed, or in time.
            unsafe {
                libc::syscall(libc::SYS_futex, done.as_ptr(), libc::FUTEX_WAIT, seen, &time);
            }
            if done.load(Ordering::Acquire) == self.batch {
                return Ok(());
            }
            let mut status = 0;
            // SAFETY: a child of ours that nobody else waits for.
            if unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) } == self.pid {
                self.pid = 0;
                return Err(if libc::WIFSIGNALED(status) {
                    NoAnswer::Killed(libc::WTERMSIG(status))
                } else {
                    NoAnswer::Ended(libc::WEXITSTATUS(status))
                });
            }
            let used = self.processor_time().saturating_sub(used);
            if used > self.patience || start.elapsed() > CLOCK_PATIENCE {
                self.kill();
                return Err(NoAnswer::Hang);
            }
        }
    }

    /// What the child has used so far; 0 where that is not known.
    fn processor_time(&self) -> Duration {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes a clock's number and a time.
        let known = unsafe {
            libc::clock_getcpuclockid(self.pid, &mut clock) == 0
                && libc::clock_gettime(clock, &mut time) == 0
        };
        if known { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
    }

    fn kill(&mut self) {
        if self.pid > 0 {
            // SAFETY: a child of ours, not yet waited for.
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, ptr::null_mut(), 0);
            }
            self.pid = 0;
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.kill();
        let size = size_of::<Shared>().next_multiple_of(PAGE);
        // SAFETY: our mappings; nothing refers to them any more.
        unsafe {
            libc::munmap(self.shared.cast(), size);
            libc::munmap(self.stack.cast(), STACK);
        }
    }
}

/// Offset of a state component in an XSAVE area, 0 where user code cannot use it: CPUID leaf 0xD,
/// EBX of its subleaf; EAX and EDX of subleaf 0 say what XCR0 can enable, XGETBV what it does
/// (SDM vol. 2A, CPUID).
fn component(number: u32) -> u32 {
    let offset = __cpuid_count(0xD, number).ebx;
    let osxsave = __cpuid_count(1, 0).ecx >> 27 & 1 != 0;
    // SAFETY: XGETBV of XCR0 exists where the system uses XSAVE.
    let enabled = osxsave && unsafe { xcr0() } >> number & 1 != 0;
    if enabled { offset } else { 0 }
}

/// The state components that the system has enabled (SDM vol. 3A, section 2.6).
///
/// # Safety
/// CPUID says OSXSAVE.
#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: register 0 always exists.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

fn load(job: &mut Job, case: &Case) {
    job.before = case.state;
    let lines = case.memory.lines();
    job.memory_before.count = lines.len() as u32;
    job.memory_before.lines[..lines.len()].copy_from_slice(lines);
    job.code = case.code;
    job.code_offset = (case.linear - super::layout::WINDOW) as u32;
}

fn outcome(job: &Job, base: &Base) -> Outcome {
    let lines = &job.memory_after.lines[..(job.memory_after.count as usize).min(LINES)];
    Outcome {
        vector: job.vector as u8,
        error: job.error,
        address: job.address,
        state: job.after,
        memory: Memory::with_lines(base.clone(), lines.to_vec()),
    }
}
