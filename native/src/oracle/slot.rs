//! Executable slots: fixed code around room for one instruction.
//!
//! All sixteen registers belong to the instruction, RSP included, so a slot's registers lie
//! below 2 GiB and are reached by absolute addresses.

use super::GprState;
use crate::arena::{Arena, NativeError};
use crate::recovery::Record;
use iced_x86::code_asm::{AsmRegister64, CodeAssembler, qword_ptr, registers::gpr64::*};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// Threads that can be in the oracle at once; more wait.
const SLOTS: usize = 16;
/// Bytes of a slot's code: saving, loading, the instruction, storing.
const SLOT_SIZE: u64 = 512;
/// Room for the instruction.
const ROOM: usize = 16;
/// `MAP_32BIT` (include/uapi/asm/mman.h).
const MAP_32BIT: u32 = 0x40;

/// Registers of one slot.
#[repr(C, align(64))]
struct Context {
    gpr: [u64; 16],
    rflags: u64,
    host_rsp: u64,
    record: Record,
}

struct Slots {
    code: u64,
    /// Offset of the instruction in a slot's code.
    instruction: u64,
    contexts: u64,
    free: Mutex<Vec<usize>>,
    returned: Condvar,
}

/// A slot of this thread's own while it lives.
pub(super) struct Slot {
    slots: &'static Slots,
    index: usize,
}

static SLOTS_ONCE: OnceLock<Result<Slots, &'static NativeError>> = OnceLock::new();

/// The record of the slot that holds the code address `rip`. Async-signal-safe.
pub(crate) fn record_of(rip: u64) -> Option<*mut Record> {
    let Some(Ok(slots)) = SLOTS_ONCE.get() else { return None };
    let index = rip.checked_sub(slots.code)? / SLOT_SIZE;
    if index >= SLOTS as u64 {
        return None;
    }
    let context = context_address(slots.contexts, index as usize) as *mut Context;
    // SAFETY: the contexts are mapped for the life of the process.
    Some(unsafe { &raw mut (*context).record })
}

/// Waits for a slot.
pub(super) fn take() -> Result<Slot, &'static NativeError> {
    let slots = match SLOTS_ONCE.get_or_init(Slots::new) {
        Ok(slots) => slots,
        Err(error) => return Err(error),
    };
    let mut free = slots.free.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(index) = free.pop() {
            return Ok(Slot { slots, index });
        }
        free = slots.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
        self.slots.returned.notify_one();
    }
}

impl Slot {
    /// Executes an instruction that has passed `accept`. Returns the vector of its fault.
    pub(super) fn execute(&self, bytes: &[u8], state: &mut GprState) -> Option<u8> {
        let Ok(arena) = Arena::get() else { return None };
        let entry = self.slots.code + self.index as u64 * SLOT_SIZE;
        let mut room = [0x90; ROOM];
        room[..bytes.len()].copy_from_slice(bytes);
        arena.rewrite(entry + self.slots.instruction, &room);
        let context = context_address(self.slots.contexts, self.index) as *mut Context;
        // SAFETY: the context is mapped and this thread's while it holds the slot. The code is a
        // complete function of this signature.
        unsafe {
            (*context).gpr = state.gpr;
            (*context).rflags = state.rflags;
            (*context).record = Record {
                landing: entry + self.slots.instruction + ROOM as u64,
                ..Record::default()
            };
            let run: extern "sysv64" fn() = std::mem::transmute(entry);
            run();
            state.gpr = (*context).gpr;
            state.rflags = (*context).rflags;
            ((*context).record.faulted != 0).then_some((*context).record.vector as u8)
        }
    }
}

impl Slots {
    fn new() -> Result<Slots, &'static NativeError> {
        let arena = Arena::get()?;
        let size = SLOTS * size_of::<Context>();
        let flags = MapFlags::PRIVATE | MapFlags::from_bits_retain(MAP_32BIT);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let contexts = unsafe {
            mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, flags)
        }
        .map_err(|_| &NativeError::LowMemory)? as u64;
        let mut instruction = 0;
        let code = arena.append(|_| {
            let mut all = Vec::new();
            for i in 0..SLOTS {
                let (before, after) = assemble(context_address(contexts, i));
                instruction = before.len() as u64;
                all.extend(before);
                all.extend([0x90; ROOM]);
                all.extend(after);
                all.resize((i + 1) * SLOT_SIZE as usize, 0xCC);
            }
            all
        })?;
        let free = Mutex::new((0..SLOTS).collect());
        Ok(Slots { code, instruction, contexts, free, returned: Condvar::new() })
    }
}

fn context_address(contexts: u64, index: usize) -> u64 {
    contexts + (index * size_of::<Context>()) as u64
}

/// Registers by hardware number.
const GPRS: [AsmRegister64; 16] =
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
/// What a callee preserves by the System V ABI, RSP aside.
const PRESERVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

/// The code before and behind the instruction.
fn assemble(context: u64) -> (Vec<u8>, Vec<u8>) {
    let gpr =
        |i: usize| qword_ptr(context + std::mem::offset_of!(Context, gpr) as u64 + 8 * i as u64);
    let rflags = qword_ptr(context + std::mem::offset_of!(Context, rflags) as u64);
    let host_rsp = qword_ptr(context + std::mem::offset_of!(Context, host_rsp) as u64);
    let before = || -> Result<Vec<u8>, iced_x86::IcedError> {
        let mut a = CodeAssembler::new(64)?;
        for r in PRESERVED {
            a.push(r)?;
        }
        a.push(rflags)?;
        a.popfq()?;
        a.mov(host_rsp, rsp)?;
        for (i, r) in GPRS.into_iter().enumerate() {
            a.mov(r, gpr(i))?;
        }
        a.assemble(0)
    };
    let after = || -> Result<Vec<u8>, iced_x86::IcedError> {
        let mut a = CodeAssembler::new(64)?;
        for (i, r) in GPRS.into_iter().enumerate() {
            a.mov(gpr(i), r)?;
        }
        a.mov(rsp, host_rsp)?;
        a.pushfq()?;
        a.pop(rflags)?;
        a.cld()?;
        for r in PRESERVED.into_iter().rev() {
            a.pop(r)?;
        }
        a.ret()?;
        a.assemble(0)
    };
    // These fixed sequences assemble, or every test fails.
    (before().unwrap_or_default(), after().unwrap_or_default())
}
