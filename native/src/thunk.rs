//! A thunk: one guest instruction, executed by the host CPU on guest state.

use crate::facts::{Facts, Traits};
use crate::recovery::Record;
use crate::stub;
use x86::Cpu;
use x86::flags;
use x86::fpu::{MXCSR_INIT, X87};

/// What a stub uses besides the guest's registers: the bytes of the memory operand, flags, and
/// room for the signal handler's notes.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Scratch {
    pub(crate) record: Record,
    pub(crate) flags: u64,
    pub(crate) host_mxcsr: u32,
    pub(crate) host_fcw: u16,
    /// The memory operand: filled before, or found here afterwards.
    pub mem: MemoryBytes,
}

/// Up to 64 bytes of a memory operand.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct MemoryBytes(pub [u8; 64]);

impl Default for Scratch {
    #[inline(always)]
    fn default() -> Scratch {
        Scratch {
            record: Record::default(),
            flags: 0,
            host_mxcsr: MXCSR_INIT,
            host_fcw: X87::INIT.fcw,
            mem: MemoryBytes([0; 64]),
        }
    }
}

/// The host raised an exception: nothing was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThunkFault {
    /// Exception vector, such as 19 for #XM.
    pub vector: u8,
    /// MXCSR with the flags of the exception.
    pub mxcsr: u32,
}

/// A stub and what there is to do around it.
#[derive(Debug)]
pub struct Thunk {
    entry: u64,
    landing: u64,
    /// What surrounds the instruction.
    pub traits: Traits,
    flags_written: u64,
    /// Whether anything but memory changes: then a memory operand to be written has to be probed
    /// before the instruction is run.
    pub changes_registers: bool,
}

impl std::ops::Deref for Thunk {
    type Target = Traits;

    fn deref(&self) -> &Traits {
        &self.traits
    }
}

impl Thunk {
    /// Emits the thunk's code for `address`.
    pub(crate) fn emit(facts: &Facts, address: u64) -> Option<(Thunk, Vec<u8>)> {
        let stub = stub::emit(facts, address)?;
        let thunk = Thunk {
            entry: address,
            landing: address + stub.landing,
            traits: facts.traits(),
            flags_written: facts.flags_written,
            changes_registers: facts.uses_mxcsr
                || facts.uses_x87
                || facts.vector_written != 0
                || facts.opmask_written != 0
                || facts.gpr_written != 0
                || facts.flags_written != 0,
        };
        Some((thunk, stub.bytes))
    }

    /// Executes the instruction: registers, opmasks, MXCSR, x87 state and flags in `cpu`, the
    /// memory operand in `scratch`.
    ///
    /// The x87 instruction, opcode and operand pointers are left undefined.
    ///
    /// # Errors
    /// An unmasked exception; `cpu` is unchanged, but for x87 pointers.
    #[inline]
    pub fn run(&self, cpu: &mut Cpu, scratch: &mut Scratch) -> Result<(), ThunkFault> {
        scratch.record.landing = self.landing;
        scratch.record.faulted = 0;
        scratch.flags = cpu.rflags & flags::ARITHMETIC | flags::FIXED_ONE;
        if self.uses_x87 {
            // What the host's MXCSR becomes; the last stub may have left the guest's here.
            cpu.x87.mxcsr = MXCSR_INIT;
        }
        // SAFETY: the code at `entry` was emitted for this signature. It reads and writes only
        // the two arguments and registers that its ABI lets it, whatever the guest's state: an
        // exception of the instruction or of loading state arrives at `landing`.
        unsafe {
            let entry: extern "sysv64" fn(*mut Cpu, *mut Scratch) = std::mem::transmute(self.entry);
            entry(cpu, scratch);
        }
        if scratch.record.faulted != 0 {
            return Err(ThunkFault {
                vector: scratch.record.vector as u8,
                mxcsr: scratch.record.mxcsr,
            });
        }
        if self.flags_written != 0 {
            cpu.rflags = cpu.rflags & !self.flags_written | scratch.flags & self.flags_written;
        }
        Ok(())
    }
}
