//! What a worker notes of the signal that it dies of.

use super::super::layout::PAGE;
use iced_x86::{Decoder, Formatter, IntelFormatter};
use libc::{c_int, c_void, siginfo_t, ucontext_t};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::{mem, ptr};

/// Processor exceptions, and the two timers that end a hang.
const SIGNALS: [c_int; 7] = [
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGTRAP,
    libc::SIGPROF,
    libc::SIGALRM,
];
/// Bytes of the signal stack: the largest frame (AVX-512 and AMX), and handlers.
const STACK: usize = 256 << 10;
/// Bytes of the longest instruction.
const MAX_LEN: usize = 15;

/// A signal: in shared memory, so that it outlives the process.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Signal {
    /// Its number; 0 for none.
    pub(super) number: c_int,
    /// `si_code`.
    pub(super) code: c_int,
    /// `si_addr`.
    pub(super) address: u64,
    /// RIP.
    pub(super) rip: u64,
    /// How many bytes there are.
    pub(super) len: u32,
    /// What RIP is at.
    pub(super) bytes: [u8; MAX_LEN],
}

impl Signal {
    pub(super) const NONE: Signal =
        Signal { number: 0, code: 0, address: 0, rip: 0, len: 0, bytes: [0; MAX_LEN] };

    /// Whether it is what ends a hang.
    pub(super) fn is_timer(number: c_int) -> bool {
        matches!(number, libc::SIGPROF | libc::SIGALRM)
    }
}

/// Where it was: the host's instruction, and the address if there is one.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.get(..self.len as usize).unwrap_or_default();
        let insn = Decoder::with_ip(64, bytes, self.rip, 0).decode();
        write!(f, "host code at {:#x}", self.rip)?;
        if insn.is_invalid() {
            if !bytes.is_empty() {
                let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02X}")).collect();
                write!(f, ", bytes {}", hex.join(" "))?;
            }
        } else {
            let mut text = String::new();
            IntelFormatter::new().format(&insn, &mut text);
            write!(f, ", {text}")?;
        }
        match (self.number, self.code) {
            (libc::SIGPROF | libc::SIGALRM, _) => Ok(()),
            // SI_USER and what else a process sends.
            (_, ..=0) => f.write_str("; sent by a process"),
            // #GP and others that Linux gives no address.
            (_, libc::SI_KERNEL) => f.write_str("; no fault address"),
            (..) => write!(f, "; fault address {:#x}", self.address),
        }
    }
}

/// The name of a signal.
pub(super) fn name(number: c_int) -> String {
    match number {
        libc::SIGILL => "SIGILL".to_owned(),
        libc::SIGFPE => "SIGFPE".to_owned(),
        libc::SIGSEGV => "SIGSEGV".to_owned(),
        libc::SIGBUS => "SIGBUS".to_owned(),
        libc::SIGTRAP => "SIGTRAP".to_owned(),
        libc::SIGABRT => "SIGABRT".to_owned(),
        libc::SIGKILL => "SIGKILL".to_owned(),
        libc::SIGSYS => "SIGSYS".to_owned(),
        libc::SIGPROF => "SIGPROF".to_owned(),
        libc::SIGALRM => "SIGALRM".to_owned(),
        _ => format!("signal {number}"),
    }
}

/// Where the handler notes.
static RECORD: AtomicPtr<Signal> = AtomicPtr::new(ptr::null_mut());
/// Handlers that were there before, indexed like [`SIGNALS`].
static PREVIOUS: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

/// Notes signals in `record` from now on, before whoever handled them does. The engine may install
/// handlers of its own later, for the faults of guest instructions; what they do not know comes
/// here.
///
/// # Safety
/// `record` is valid as long as the process lives, which has one thread.
pub(super) unsafe fn install(record: *mut Signal) {
    RECORD.store(record, Ordering::Relaxed);
    PREVIOUS.get_or_init(|| {
        SIGNALS.map(|signal| {
            // SAFETY: all-zero is a valid sigaction; the call only reads the disposition.
            unsafe {
                let mut old: libc::sigaction = mem::zeroed();
                libc::sigaction(signal, ptr::null(), &mut old);
                old
            }
        })
    });
    // SAFETY: a new mapping for the stack, valid structs, and a handler of the SA_SIGINFO
    // signature that only makes system calls.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let stack = libc::mmap(ptr::null_mut(), STACK, access, flags, -1, 0);
        if stack != libc::MAP_FAILED {
            let stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: STACK };
            libc::sigaltstack(&stack, ptr::null_mut());
        }
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in SIGNALS {
            let mut new: libc::sigaction = mem::zeroed();
            new.sa_sigaction = handler as *const () as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut new.sa_mask);
            libc::sigaction(signal, &new, ptr::null_mut());
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
    }
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's pointers are valid.
    unsafe { note(signal, &*info, &*context.cast::<ucontext_t>()) };
    let slot = SIGNALS.iter().position(|&s| s == signal);
    let old = PREVIOUS.get().and_then(|all| slot.map(|i| &all[i]));
    let handles = |old: &&libc::sigaction| {
        !Signal::is_timer(signal)
            && ![libc::SIG_DFL, libc::SIG_IGN].contains(&old.sa_sigaction)
            && old.sa_flags & libc::SA_SIGINFO != 0
    };
    // SAFETY: SA_SIGINFO says that the handler has this signature. The rest are valid structs.
    unsafe {
        let mut now: libc::sigaction = mem::zeroed();
        if let Some(old) = old.filter(handles) {
            type Action = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            let action: Action = mem::transmute(old.sa_sigaction);
            action(signal, info, context);
            // It has left the signal to its default action, or has dealt with it.
            libc::sigaction(signal, ptr::null(), &mut now);
            if now.sa_sigaction != libc::SIG_DFL {
                return;
            }
        }
        // Not by letting the instruction fault again: a trap would not. The signal is blocked, and
        // so comes when this returns.
        libc::sigaction(signal, &now, ptr::null_mut());
        libc::raise(signal);
    }
}

/// Writes the record.
///
/// # Safety
/// Only in the handler.
unsafe fn note(signal: c_int, info: &siginfo_t, context: &ucontext_t) {
    let rip = context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    let mut bytes = [0; MAX_LEN];
    let to_page_end = (PAGE - rip as usize % PAGE).min(MAX_LEN);
    let len = [MAX_LEN, to_page_end].into_iter().find(|&len| read(rip, &mut bytes[..len]));
    // SAFETY: the record is valid; the address is there for processor exceptions, and nothing is
    // made of it otherwise.
    unsafe {
        *RECORD.load(Ordering::Relaxed) = Signal {
            number: signal,
            code: info.si_code,
            address: info.si_addr() as u64,
            rip,
            len: len.unwrap_or_default() as u32,
            bytes,
        };
    }
}

/// Reads own memory that may not be there.
fn read(address: u64, to: &mut [u8]) -> bool {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: to.len() };
    // SAFETY: the kernel checks the address, and writes no more than the slice.
    let got = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    got == to.len() as isize
}
