//! What translated code and the engine share besides the guest's state, in low memory.

use crate::segments::CodeSegment;
use softmmu::{LowBox, LowError};
use std::mem::offset_of;

/// Size of the host stack on which translated code runs. Only return addresses and signal frames
/// lie on it; helpers run on the engine's stack.
const STACK_SIZE: usize = 128 << 10;
/// What calls leave free of it.
const STACK_RESERVE: usize = 64 << 10;

/// How many host addresses a block can keep at a time.
pub(crate) const POINTERS: usize = 8;

/// Why translated code stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Leave {
    /// Go on at `Cpu::rip` (a helper set it).
    Resync = 0,
    /// Through a direct exit; the argument is its link.
    Link = 1,
    /// At a block's entry, because of a request or the instruction limit; the argument is RIP.
    Poll = 2,
    /// Deliver an exception; the argument is the fault.
    Fault = 3,
    /// A near return that nothing predicted; the argument is its target.
    Return = 5,
    /// The CPU stopped.
    Stop = 4,
}

impl Leave {
    pub(crate) fn from_bits(bits: u32) -> Leave {
        match bits {
            1 => Leave::Link,
            2 => Leave::Poll,
            3 => Leave::Fault,
            4 => Leave::Stop,
            5 => Leave::Return,
            _ => Leave::Resync,
        }
    }
}

/// State of the run in progress.
#[repr(C, align(64))]
pub(crate) struct Runtime {
    /// Instructions left until the limit; may fall below zero.
    pub(crate) budget: i64,
    /// Saved arithmetic flags: OF in the low byte, LAHF's byte in the second.
    pub(crate) flags: u64,
    /// Whether the guest's vector registers and MXCSR are in the host's.
    pub(crate) vector_loaded: u32,
    /// Whether the guest's x87 state is in the host's.
    pub(crate) x87_loaded: u32,
    /// Then the pointers to its last instruction and operand, since the host's lead to host code.
    pub(crate) x87_fop: u32,
    pub(crate) x87_fip: u64,
    pub(crate) x87_fdp: u64,
    /// The host stack pointer at the entry.
    pub(crate) host_rsp: u64,
    /// The stack pointer of translated code, kept across exits.
    pub(crate) code_rsp: u64,
    /// A [`Leave`].
    pub(crate) leave: u32,
    pub(crate) host_mxcsr: u32,
    /// Its argument.
    pub(crate) argument: u64,
    /// Words that an instruction may use.
    pub(crate) temporary: u64,
    pub(crate) second_temporary: u64,
    /// Host addresses that several instructions of a block use.
    pub(crate) pointers: [u64; POINTERS],
    /// Address of the indirect cache of the key in force.
    pub(crate) indirect: u64,
    /// An interrupt was requested while the CPU took none.
    pub(crate) interrupt_waits: u32,
    /// One more than the number of a site whose group of accesses keeps failing.
    pub(crate) unmerge: u32,
    /// Site number of the last near return.
    pub(crate) return_site: u32,
    /// The code segment in force, as tags have it: its number in the upper half.
    pub(crate) code_tag: u64,
    /// Base and limit of it.
    pub(crate) code_segment: CodeSegment,
    /// What helpers work on.
    pub(crate) cpu: *mut x86::Cpu,
    pub(crate) mmu: *mut softmmu::Mmu,
    pub(crate) sites: *const crate::helper::Site,
    pub(crate) counts: *mut crate::stats::Counts,
    pub(crate) targets: *const crate::indirect::IndirectCache,
    pub(crate) segments: *const crate::segments::CodeSegments,
}

#[repr(C, align(4096))]
struct Area {
    stack: [u8; STACK_SIZE],
    runtime: Runtime,
}

/// The low memory of one engine.
pub(crate) struct Low(LowBox<Area>);

impl Low {
    pub(crate) fn new() -> Result<Low, LowError> {
        // SAFETY: integers and raw pointers may be zero.
        let low = Low(unsafe { LowBox::zeroed()? });
        Ok(low)
    }

    pub(crate) fn get(&mut self) -> &mut Runtime {
        &mut self.0.runtime
    }

    /// The runtime for translated code.
    pub(crate) fn as_ptr(&self) -> *mut Runtime {
        // SAFETY: the area is alive; no reference is made.
        unsafe { &raw mut (*self.0.as_ptr()).runtime }
    }

    /// The address of the field at `offset` of [`Runtime`].
    pub(crate) fn field(&self, offset: usize) -> i32 {
        (self.0.address() as usize + offset_of!(Area, runtime) + offset) as i32
    }

    /// The base of the code stack: its last word, which leads to `miss`, where returns go that
    /// have no call.
    pub(crate) fn stack_base(&self) -> i32 {
        (self.0.address() as usize + STACK_SIZE - 8) as i32
    }

    /// The lowest stack pointer at which a call may still be made. Signal frames fit below.
    pub(crate) fn stack_limit(&self) -> i32 {
        (self.0.address() as usize + STACK_RESERVE) as i32
    }

    /// Forgets the calls that were made, and returns to `miss` what returns anyway.
    pub(crate) fn reset_stack(&mut self, miss: u64) {
        self.0.stack[STACK_SIZE - 8..].copy_from_slice(&miss.to_le_bytes());
        self.0.runtime.code_rsp = self.stack_base() as u64;
    }
}
