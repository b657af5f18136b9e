//! Host faults of guest instructions, caught as signals.
//!
//! Code in the arena may raise a host exception only while it executes the one guest
//! instruction. The handler finds the [`Record`] of the execution, notes what happened, and
//! continues at the record's landing address. Signals from anywhere else go to whoever handled
//! them before.

use crate::arena::{Arena, NativeError};
use crate::oracle;
use libc::{c_int, c_void, siginfo_t, ucontext_t};
use std::sync::OnceLock;
use std::{mem, ptr};

/// The signals that the kernel turns processor exceptions into.
const SIGNALS: [c_int; 5] =
    [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP];

/// Where execution goes on after a host fault, and what the fault was.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Record {
    /// Address to continue at.
    pub(crate) landing: u64,
    /// Set by the handler: a fault happened.
    pub(crate) faulted: u32,
    /// Exception vector (`REG_TRAPNO` of the signal frame).
    pub(crate) vector: u32,
    /// MXCSR at the fault.
    pub(crate) mxcsr: u32,
    /// Exception error code.
    pub(crate) error_code: u32,
    /// Faulting address of a #PF.
    pub(crate) address: u64,
}

/// Handlers that were there before, indexed like [`SIGNALS`].
static PREVIOUS: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

/// Installs the handlers, once for the process.
pub(crate) fn install() -> Result<(), &'static NativeError> {
    Arena::get()?;
    PREVIOUS.get_or_init(|| {
        // Read all old handlers first: one that runs early must find them.
        let previous = SIGNALS.map(|signal| {
            // SAFETY: all-zero is a valid sigaction; the call only reads the disposition.
            unsafe {
                let mut old: libc::sigaction = mem::zeroed();
                libc::sigaction(signal, ptr::null(), &mut old);
                old
            }
        });
        for signal in SIGNALS {
            // SAFETY: the handler has the SA_SIGINFO signature and is async-signal-safe.
            unsafe {
                let mut new: libc::sigaction = mem::zeroed();
                new.sa_sigaction = handler as *const () as usize;
                new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigemptyset(&mut new.sa_mask);
                libc::sigaction(signal, &new, ptr::null_mut());
            }
        }
        previous
    });
    Ok(())
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid ucontext to SA_SIGINFO handlers.
    let recovered = unsafe { recover(&mut *context.cast::<ucontext_t>()) };
    if !recovered {
        chain(signal, info, context);
    }
}

/// Continues at the landing address if the signal comes from a guest instruction.
///
/// # Safety
/// `context` must be that of a signal just delivered to this thread.
unsafe fn recover(context: &mut ucontext_t) -> bool {
    let registers = &mut context.uc_mcontext.gregs;
    let rip = registers[libc::REG_RIP as usize] as u64;
    let Ok(arena) = Arena::get() else { return false };
    if !arena.addresses().contains(&rip) {
        return false;
    }
    let record: *mut Record = match oracle::record_of(rip) {
        Some(record) => record,
        // Thunks keep their record's address on top of the stack while the instruction runs.
        // SAFETY: see `Thunk`: RIP is in a thunk, so RSP is the stub's own.
        None => unsafe { *(registers[libc::REG_RSP as usize] as *const *mut Record) },
    };
    let fpregs = context.uc_mcontext.fpregs;
    // SAFETY: the record belongs to the execution that this thread interrupted; the kernel
    // always passes floating-point state on x86-64.
    unsafe {
        (*record).faulted = 1;
        (*record).vector = registers[libc::REG_TRAPNO as usize] as u32;
        (*record).error_code = registers[libc::REG_ERR as usize] as u32;
        (*record).address = registers[libc::REG_CR2 as usize] as u64;
        (*record).mxcsr = if fpregs.is_null() { 0 } else { (*fpregs).mxcsr };
        registers[libc::REG_RIP as usize] = (*record).landing as i64;
    }
    // Without TF, or single-stepping would go on behind the landing address.
    registers[libc::REG_EFL as usize] &= !(x86::flags::TF as i64);
    true
}

/// Gives the signal to the previous handler.
fn chain(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let slot = SIGNALS.iter().position(|&s| s == signal);
    let previous = PREVIOUS.get().and_then(|all| slot.map(|i| &all[i]));
    match previous {
        Some(old) if old.sa_sigaction == libc::SIG_IGN => {}
        Some(old) if old.sa_sigaction != libc::SIG_DFL => {
            if old.sa_flags & libc::SA_SIGINFO != 0 {
                type Action = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                // SAFETY: SA_SIGINFO says that the handler has this signature.
                let action: Action = unsafe { mem::transmute(old.sa_sigaction) };
                action(signal, info, context);
            } else {
                // SAFETY: without SA_SIGINFO the handler has this signature.
                let action: extern "C" fn(c_int) = unsafe { mem::transmute(old.sa_sigaction) };
                action(signal);
            }
        }
        // The default action: restore it and let the instruction fault again.
        Some(_) | None => {
            // SAFETY: all-zero with SIG_DFL is a valid disposition.
            unsafe {
                let mut default: libc::sigaction = mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &default, ptr::null_mut());
            }
        }
    }
}
