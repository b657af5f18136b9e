//! Emission of stubs: load operands, execute, store results.
//!
//! A stub is `extern "sysv64" fn(cpu: *mut Cpu, scratch: *mut Scratch)`. While the guest's
//! instruction executes, the scratch block's address lies on top of the stack, where the signal
//! handler finds it.

use crate::facts::{Facts, Unit};
use crate::features::host_has_zmm;
use crate::thunk::Scratch;
use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register};
use std::mem::offset_of;
use x86::Cpu;
use x86::fpu::X87;

/// Registers for the two pointers, best first. RSP's stand-ins come last.
const POINTERS: [u8; 8] = [7, 6, 11, 2, 1, 0, 9, 10];
/// What a callee preserves by the System V ABI.
const PRESERVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// A stub's code and what the caller needs to know about it.
pub(crate) struct Stub {
    pub(crate) bytes: Vec<u8>,
    /// Offset of the code that a host fault continues at.
    pub(crate) landing: u64,
}

struct Emitter<'a> {
    facts: &'a Facts,
    encoder: Encoder,
    address: u64,
    length: u64,
    cpu: Register,
    scratch: Register,
}

fn gpr64(number: u8) -> Register {
    Register::RAX + u32::from(number)
}

/// Emits the stub for `address`; none if the instruction cannot be encoded, or leaves no register
/// free.
pub(crate) fn emit(facts: &Facts, address: u64) -> Option<Stub> {
    let used = facts.gpr_used;
    let mut free = POINTERS.into_iter().filter(|n| used >> n & 1 == 0).map(gpr64);
    let (cpu, scratch) = (free.next()?, free.next()?);
    let encoder = Encoder::new(64);
    let mut e = Emitter { facts, encoder, address, length: 0, cpu, scratch };
    let landing = e.whole().ok()?;
    Some(Stub { bytes: e.encoder.take_buffer(), landing })
}

impl Emitter<'_> {
    /// Returns the offset of the landing.
    fn whole(&mut self) -> Result<u64, IcedError> {
        self.enter()?;
        self.load()?;
        self.execute()?;
        self.store()?;
        self.leave(false)?;
        let landing = self.length;
        self.leave(true)?;
        Ok(landing)
    }

    fn put(&mut self, insn: &Instruction) -> Result<(), IcedError> {
        self.length += self.encoder.encode(insn, self.address + self.length)? as u64;
        Ok(())
    }

    /// An instruction with a register and a memory operand, in either order.
    fn load_from(&mut self, code: Code, r: Register, m: MemoryOperand) -> Result<(), IcedError> {
        self.put(&Instruction::with2(code, r, m)?)
    }

    fn store_to(&mut self, code: Code, m: MemoryOperand, r: Register) -> Result<(), IcedError> {
        self.put(&Instruction::with2(code, m, r)?)
    }

    fn in_cpu(&self, offset: usize) -> MemoryOperand {
        MemoryOperand::with_base_displ(self.cpu, offset as i64)
    }

    fn in_scratch(&self, offset: usize) -> MemoryOperand {
        MemoryOperand::with_base_displ(self.scratch, offset as i64)
    }

    fn preserved(&self) -> impl DoubleEndedIterator<Item = Register> + use<> {
        let written = self.facts.gpr_used;
        PRESERVED.into_iter().filter(move |n| written >> n & 1 != 0).map(gpr64)
    }

    fn enter(&mut self) -> Result<(), IcedError> {
        for r in self.preserved() {
            self.put(&Instruction::with1(Code::Push_r64, r)?)?;
        }
        // The arguments come in RDI and RSI. `scratch` is never RDI: `cpu` would be.
        if self.scratch != Register::RSI {
            self.put(&Instruction::with2(Code::Mov_r64_rm64, self.scratch, Register::RSI)?)?;
        }
        if self.cpu != Register::RDI {
            self.put(&Instruction::with2(Code::Mov_r64_rm64, self.cpu, Register::RDI)?)?;
        }
        self.put(&Instruction::with1(Code::Push_r64, self.scratch)?)
    }

    fn load(&mut self) -> Result<(), IcedError> {
        let facts = self.facts;
        if facts.uses_x87 {
            // Twice as fast as XRSTOR of the x87 component alone, and XSAVE. It also loads host
            // registers that the ABI lets us change, and the default MXCSR.
            let m = self.in_cpu(offset_of!(Cpu, x87));
            self.put(&Instruction::with1(Code::Fxrstor64_m512byte, m)?)?;
        }
        if facts.uses_mxcsr {
            let m = self.in_cpu(offset_of!(Cpu, mxcsr));
            self.put(&Instruction::with1(Code::Ldmxcsr_m32, m)?)?;
        }
        for n in bits(facts.vector_used) {
            let (code, r) = match facts.unit {
                Unit::X87 | Unit::Mmx | Unit::Sse => (Code::Movups_xmm_xmmm128, Register::XMM0),
                Unit::Vex | Unit::Opmask => (Code::VEX_Vmovups_ymm_ymmm256, Register::YMM0),
                Unit::Evex => (Code::EVEX_Vmovups_zmm_k1z_zmmm512, Register::ZMM0),
            };
            let m = self.in_cpu(vector(n));
            self.load_from(code, r + n, m)?;
        }
        for n in bits(u32::from(facts.opmask_used)) {
            let m = self.in_cpu(offset_of!(Cpu, opmask) + 8 * n as usize);
            // KMOVQ needs AVX512BW; no host with opmask registers and without it is supported.
            self.load_from(Code::VEX_Kmovq_kr_km64, Register::K0 + n, m)?;
        }
        if facts.flags_read != 0 {
            let m = self.in_scratch(offset_of!(Scratch, flags));
            self.put(&Instruction::with1(Code::Push_rm64, m)?)?;
            self.put(&Instruction::with(Code::Popfq))?;
        }
        for n in bits(u32::from(facts.gpr_used)) {
            let m = self.in_cpu(self.guest_gpr(n));
            self.load_from(Code::Mov_r64_rm64, Register::RAX + n, m)?;
        }
        Ok(())
    }

    fn execute(&mut self) -> Result<(), IcedError> {
        let insn = self.facts.with_memory_at(self.scratch, offset_of!(Scratch, mem) as u64);
        self.put(&insn)
    }

    fn store(&mut self) -> Result<(), IcedError> {
        let facts = self.facts;
        for n in bits(facts.vector_written) {
            let (code, r) = match facts.unit {
                Unit::X87 | Unit::Mmx | Unit::Sse => (Code::Movups_xmmm128_xmm, Register::XMM0),
                // VEX and EVEX writes clear the register up to its full width.
                _ if host_has_zmm() => (Code::EVEX_Vmovups_zmmm512_k1z_zmm, Register::ZMM0),
                _ => (Code::VEX_Vmovups_ymmm256_ymm, Register::YMM0),
            };
            let m = self.in_cpu(vector(n));
            self.store_to(code, m, r + n)?;
        }
        for n in bits(u32::from(facts.opmask_written)) {
            let m = self.in_cpu(offset_of!(Cpu, opmask) + 8 * n as usize);
            self.store_to(Code::VEX_Kmovq_m64_kr, m, Register::K0 + n)?;
        }
        for n in bits(u32::from(facts.gpr_written)) {
            let m = self.in_cpu(self.guest_gpr(n));
            self.store_to(Code::Mov_rm64_r64, m, Register::RAX + n)?;
        }
        if facts.flags_written != 0 {
            self.put(&Instruction::with(Code::Pushfq))?;
            let m = self.in_scratch(offset_of!(Scratch, flags));
            self.put(&Instruction::with1(Code::Pop_rm64, m)?)?;
        }
        if facts.uses_x87 {
            let m = self.in_cpu(offset_of!(Cpu, x87));
            self.put(&Instruction::with1(Code::Fxsave64_m512byte, m)?)?;
        }
        if facts.uses_mxcsr {
            let m = self.in_cpu(offset_of!(Cpu, mxcsr));
            self.put(&Instruction::with1(Code::Stmxcsr_m32, m)?)?;
        }
        Ok(())
    }

    /// Gives the host back what its ABI wants (x87 and MMX empty, default control words, upper
    /// halves clear), then returns.
    fn leave(&mut self, faulted: bool) -> Result<(), IcedError> {
        if self.facts.uses_x87 && faulted {
            // Nothing was saved, and an error may be pending.
            self.put(&Instruction::with(Code::Fninit))?;
        } else if self.facts.uses_x87 {
            self.leave_x87()?;
        }
        if self.facts.uses_mxcsr {
            let m = self.in_scratch(offset_of!(Scratch, host_mxcsr));
            self.put(&Instruction::with1(Code::Ldmxcsr_m32, m)?)?;
        }
        if matches!(self.facts.unit, Unit::Vex | Unit::Evex) {
            self.put(&Instruction::with(Code::VEX_Vzeroupper))?;
        }
        self.put(&Instruction::with1(Code::Pop_r64, Register::RSI)?)?;
        for r in self.preserved().rev() {
            self.put(&Instruction::with1(Code::Pop_r64, r)?)?;
        }
        self.put(&Instruction::with(Code::Retnq))
    }

    /// EMMS and FLDCW take 1 ns against FNINIT's 50, but must not meet a pending error.
    fn leave_x87(&mut self) -> Result<(), IcedError> {
        let fsw = offset_of!(Cpu, x87) + offset_of!(X87, fsw);
        let m = self.in_cpu(fsw);
        self.put(&Instruction::with2(Code::Test_rm8_imm8, m, 0x80)?)?;
        let fcw = self.in_scratch(offset_of!(Scratch, host_fcw));
        let emms = Instruction::with(Code::Emms);
        let fldcw = Instruction::with1(Code::Fldcw_m2byte, fcw)?;
        let fninit = Instruction::with(Code::Fninit);
        let mut sizes = Encoder::new(64);
        let fast = (sizes.encode(&emms, 0)? + sizes.encode(&fldcw, 0)?) as u64;
        let slow = sizes.encode(&fninit, 0)? as u64;
        // Two short jumps of two bytes each.
        let to_slow = self.address + self.length + 2 + fast + 2;
        self.put(&Instruction::with_branch(Code::Jne_rel8_64, to_slow)?)?;
        self.put(&emms)?;
        self.put(&fldcw)?;
        self.put(&Instruction::with_branch(Code::Jmp_rel8_64, to_slow + slow)?)?;
        self.put(&fninit)
    }

    fn guest_gpr(&self, host: u32) -> usize {
        let guest = if self.facts.rsp_as == Some(host as u8) { 4 } else { host };
        offset_of!(Cpu, gpr) + 8 * guest as usize
    }
}

fn vector(n: u32) -> usize {
    offset_of!(Cpu, vector) + 64 * n as usize
}

/// The numbers of the bits set.
fn bits(mask: u32) -> impl Iterator<Item = u32> {
    (0..32).filter(move |n| mask >> n & 1 != 0)
}

const _: () = assert!(offset_of!(Cpu, x87) % 64 == 0 && align_of::<X87>() == 64);
