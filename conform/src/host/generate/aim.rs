//! Points registers and memory to where an instruction has something to do: addresses into the
//! window, counts that end, divisors that fit, branch targets and selectors that exist.

use super::target::{page, target};
use super::{Draft, NEIGHBOURHOOD};
use crate::host::layout::{CODE, CODE_SIZE, WINDOW};
use crate::host::segments::{CODE32, CODE64, DATA, TRIED};
use crate::host::state::legacy;
use iced_x86::{ConstantOffsets, Decoder, FlowControl, Instruction, Mnemonic, OpKind, Register};
use x86::regs::gpr::{RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP};

/// Room for the largest frame of a far call.
const FRAME: u64 = 64;

impl Draft {
    pub(super) fn aim(&mut self) {
        let insn = self.instruction();
        self.aim_implicit(&insn);
        let linear = self.aim_explicit(&insn);
        self.aim_values(&insn, linear);
        if insn.is_stack_instruction() || uses_rsp(&insn) {
            self.aim_stack(&insn);
        }
        self.aim_transfer(&insn, linear);
        self.aim_selectors(&insn, linear);
    }

    /// Sets the bits of a register that an address of this size uses.
    fn set_address(&mut self, number: usize, size: u32, value: u64) {
        let r = &mut self.case.state.gpr[number & 15];
        *r = match size {
            2 => *r & !0xFFFF | value & 0xFFFF,
            // In 64-bit mode the rest stays random: it must not count.
            4 => *r & !0xFFFF_FFFF | value & 0xFFFF_FFFF,
            _ => value,
        };
        if self.case.bits != 64 {
            *r &= 0xFFFF_FFFF;
        }
    }

    /// String instructions, MASKMOV, CLZERO, and their counts.
    fn aim_implicit(&mut self, insn: &Instruction) {
        for i in 0..insn.op_count() {
            let (number, size) = match insn.op_kind(i) {
                OpKind::MemorySegSI => (RSI, 2),
                OpKind::MemorySegESI => (RSI, 4),
                OpKind::MemorySegRSI => (RSI, 8),
                OpKind::MemoryESDI | OpKind::MemorySegDI => (RDI, 2),
                OpKind::MemoryESEDI | OpKind::MemorySegEDI => (RDI, 4),
                OpKind::MemoryESRDI | OpKind::MemorySegRDI => (RDI, 8),
                _ => continue,
            };
            let segment = match insn.op_kind(i) {
                OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => 0,
                _ => segment_number(insn.memory_segment()),
            };
            let address = target(&mut self.random, insn.memory_size().size() as u64);
            let base = self.segment_base(segment);
            self.set_address(number, size, address.wrapping_sub(base));
        }
        if insn.is_string_instruction() && (insn.has_rep_prefix() || insn.has_repne_prefix()) {
            let count = match self.random.below(20) {
                0 => 0,
                1 => self.random.below(5000),
                _ => self.random.below(48),
            };
            // The unused upper part may be anything, but the count must end soon.
            self.case.state.gpr[RCX] = count;
        }
        if insn.mnemonic() == Mnemonic::Clzero {
            self.case.state.gpr[RAX] = target(&mut self.random, 64);
        }
    }

    /// The explicit memory operand. Returns its linear address, where it has one that was chosen.
    fn aim_explicit(&mut self, insn: &Instruction) -> Option<u64> {
        (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory)?;
        let size = match insn.memory_size().size() {
            0 if insn.is_save_restore_instruction() => 1024,
            0 => 64,
            size => size as u64,
        };
        let linear = target(&mut self.random, size);
        let base = self.segment_base(segment_number(insn.memory_segment()));
        let offset = linear.wrapping_sub(base);
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let displacement = insn.memory_displacement64();
        if insn.is_vsib() {
            self.aim_vector_index(insn);
            if base == Register::None {
                self.patch_displacement(offset);
            } else {
                let value = offset.wrapping_sub(displacement);
                self.set_address(base.number(), base.size() as u32, value);
            }
            return None;
        }
        if base == Register::RIP || base == Register::EIP {
            let next = insn.next_ip();
            self.patch_displacement(linear.wrapping_sub(self.rip_base()).wrapping_sub(next));
            return Some(linear);
        }
        let scale = u64::from(insn.memory_index_scale());
        if base == Register::None && index == Register::None {
            self.patch_displacement(offset);
            return Some(linear);
        }
        let rest = offset.wrapping_sub(displacement);
        if index == Register::AL {
            // XLAT
            let al = self.case.state.gpr[RAX] & 0xFF;
            self.set_address(RBX, base.size() as u32, rest.wrapping_sub(al));
        } else if index == Register::None {
            self.set_address(base.number(), base.size() as u32, rest);
        } else if base == Register::None || base.number() == index.number() {
            let factor = scale + u64::from(base != Register::None);
            self.set_address(index.number(), index.size() as u32, rest / factor);
        } else {
            if self.random.percent(60) {
                let small = self.random.below(64);
                self.set_address(index.number(), index.size() as u32, small);
            }
            let index = self.case.state.gpr[index.number() & 15];
            let value = rest.wrapping_sub(index.wrapping_mul(scale));
            self.set_address(base.number(), base.size() as u32, value);
        }
        Some(linear)
    }

    /// Difference between linear addresses and RIP.
    fn rip_base(&self) -> u64 {
        self.case.linear.wrapping_sub(self.case.state.rip)
    }

    /// Elements of a VSIB index: mostly small, so that base + index stays in the window.
    fn aim_vector_index(&mut self, insn: &Instruction) {
        let register = insn.memory_index().number() & 31;
        let wide = insn.is_vsib64();
        let size = if wide { 8 } else { 4 };
        let mut index = [0; 64];
        for chunk in index.chunks_mut(size) {
            let value = match self.random.below(24) {
                0 => self.random.integer(),
                1 | 2 => self.random.below(2048).wrapping_sub(1024),
                _ => self.random.below(128).wrapping_sub(32),
            };
            chunk.copy_from_slice(&value.to_le_bytes()[..size]);
        }
        self.case.state.set_vector(register, &index);
    }

    /// Rewrites the displacement of the memory operand.
    fn patch_displacement(&mut self, value: u64) {
        let bytes = self.case.code;
        let mut decoder = Decoder::with_ip(
            self.case.bits,
            &bytes[..self.case.len],
            self.case.state.rip,
            decoder::options(x86::cpuid::Vendor::host()),
        );
        let insn = decoder.decode();
        let offsets: ConstantOffsets = decoder.get_constant_offsets(&insn);
        let (at, size) = (offsets.displacement_offset(), offsets.displacement_size());
        if (2..=8).contains(&size) {
            self.case.code[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }

    /// Operands that decide what happens: divisors, comparands, bit offsets, table limits.
    fn aim_values(&mut self, insn: &Instruction, linear: Option<u64>) {
        let size = operand_size(insn);
        let mask = if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
        match insn.mnemonic() {
            Mnemonic::Div | Mnemonic::Idiv if self.random.percent(65) => {
                let signed = insn.mnemonic() == Mnemonic::Idiv;
                if size == 1 {
                    let al = self.random.next() as u8;
                    let ah = if signed && al >= 0x80 { 0xFF } else { self.random.below(2) as u8 };
                    let rax = &mut self.case.state.gpr[RAX];
                    *rax = *rax & !0xFFFF | u64::from(ah) << 8 | u64::from(al);
                } else {
                    let negative = self.case.state.gpr[RAX] >> (8 * size - 1) & 1 != 0;
                    let high = if signed && negative { u64::MAX } else { 0 };
                    let rdx = &mut self.case.state.gpr[RDX];
                    *rdx = *rdx & !mask | high & mask;
                }
            }
            Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b
                if self.random.percent(50) =>
            {
                let [rax, rdx] = [RAX, RDX].map(|r| self.case.state.gpr[r].to_le_bytes());
                match (insn.mnemonic(), linear) {
                    (Mnemonic::Cmpxchg8b, Some(at)) => {
                        self.write(at, &[&rax[..4], &rdx[..4]].concat());
                    }
                    (Mnemonic::Cmpxchg16b, Some(at)) => self.write(at, &[rax, rdx].concat()),
                    (_, Some(at)) => self.write(at, &rax[..size.min(8)]),
                    (_, None) => {
                        let r = insn.op0_register().full_register();
                        let value = self.case.state.gpr[RAX];
                        self.case.state.gpr[r.number() & 15] = value;
                    }
                }
            }
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
                if linear.is_some()
                    && insn.op1_kind() == OpKind::Register
                    && self.random.percent(85) =>
            {
                let offset = self.random.below(16384).wrapping_sub(8192);
                let r = insn.op1_register();
                self.set_address(r.number(), 8, offset);
            }
            Mnemonic::Loop
            | Mnemonic::Loope
            | Mnemonic::Loopne
            | Mnemonic::Jcxz
            | Mnemonic::Jecxz
            | Mnemonic::Jrcxz
                if self.random.percent(50) =>
            {
                // About to be zero, in a part of the register or in all of it.
                let width = self.random.pick(&[2, 4, 8]);
                let count = self.random.below(3);
                self.set_address(RCX, width, count);
            }
            Mnemonic::Bound => {
                let low = self.random.integer() as i32;
                let high = low.wrapping_add(self.random.below(1000) as i32);
                if let Some(at) = linear {
                    let value = low.wrapping_add(self.random.below(1200) as i32 - 100);
                    self.set_address(insn.op0_register().number(), 4, value as u32 as u64);
                    if size == 4 {
                        self.write(at, &[low.to_le_bytes(), high.to_le_bytes()].concat());
                    }
                }
            }
            Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => {
                if let Some(at) = linear.filter(|_| self.random.percent(80)) {
                    let value = self.random.next() as u32 & 0xFFFF;
                    self.write(at, &value.to_le_bytes());
                }
            }
            Mnemonic::Fxrstor | Mnemonic::Fxrstor64 | Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
                self.aim_restore(insn, linear);
            }
            Mnemonic::Xsave | Mnemonic::Xsave64 | Mnemonic::Xgetbv => {
                let few = self.random.next() & 7;
                self.case.state.gpr[RAX] = self.case.state.gpr[RAX] & !0xFF | few;
                if insn.mnemonic() == Mnemonic::Xgetbv {
                    self.case.state.gpr[RCX] = self.random.below(3);
                }
            }
            Mnemonic::Fldenv | Mnemonic::Fldcw | Mnemonic::Frstor => {}
            Mnemonic::Wrfsbase | Mnemonic::Wrgsbase if self.random.percent(80) => {
                let r = insn.op0_register();
                let value = self.random.next() >> 17;
                self.set_address(r.number(), r.size() as u32, value);
            }
            _ => {}
        }
    }

    /// An area that FXRSTOR and XRSTOR mostly accept.
    fn aim_restore(&mut self, insn: &Instruction, linear: Option<u64>) {
        let Some(at) = linear else { return };
        let xrstor = matches!(insn.mnemonic(), Mnemonic::Xrstor | Mnemonic::Xrstor64);
        if self.random.percent(85) {
            let area = self.case.state.legacy;
            self.write(at, &area);
            let mxcsr = self.random.next() as u32 & 0xFFFF;
            self.write(at.wrapping_add(legacy::MXCSR as u64), &mxcsr.to_le_bytes());
        }
        if xrstor {
            let few = self.random.next() & 7;
            self.case.state.gpr[RAX] = self.case.state.gpr[RAX] & !0xFF | few;
            if self.random.percent(85) {
                let mut header = [0; 64];
                header[0] = self.random.next() as u8 & 7;
                if self.random.percent(10) {
                    header[self.random.below(64) as usize] = self.random.next() as u8;
                }
                self.write(at.wrapping_add(512), &header);
            }
        }
    }

    fn aim_stack(&mut self, insn: &Instruction) {
        let size = match insn.stack_pointer_increment().unsigned_abs() {
            0 => 8,
            n => u64::from(n).min(64),
        };
        let mut linear = target(&mut self.random, size);
        if self.random.percent(85) {
            linear = page(2) + self.random.below(0x800) + 0x400;
            if self.random.percent(80) {
                linear &= !7;
            }
        }
        let base = self.segment_base(2);
        // A 16-bit stack pointer's upper half is not kept by every way back from a handler.
        let rsp = linear.wrapping_sub(base);
        self.case.state.gpr[RSP] = if self.case.bits == 64 { rsp } else { rsp & 0xFFFF_FFFF };
        let far_call = insn.is_call_far() || insn.is_call_far_indirect();
        if far_call && self.case.bits != 64 && self.case.state.gpr[RSP] < FRAME {
            // Into 64-bit code, the frame would lie at the top of the kernel's half, and Linux on AMD's
            // processors takes the fault again and again without telling the process (observed on
            // Zen 5).
            self.case.state.gpr[RSP] += FRAME;
        }
        if matches!(insn.mnemonic(), Mnemonic::Enter | Mnemonic::Leave) {
            let frame = target(&mut self.random, 8).wrapping_sub(base);
            self.case.state.gpr[RBP] = match self.random.below(3) {
                0 if self.case.bits != 64 => frame & 0xFFFF_FFFF,
                0 => frame,
                _ => self.case.state.gpr[RSP].wrapping_add(8 * self.random.below(16)),
            };
            if self.case.bits == 16 {
                // Only BP counts.
                self.case.state.gpr[RBP] |= self.random.next() & 0xFFFF_0000;
            }
        }
    }

    /// A place to go to: mostly INT3 in the code pages.
    fn destination(&mut self) -> u64 {
        let linear = match self.random.below(10) {
            0..=6 => WINDOW + CODE as u64 + self.random.below(CODE_SIZE as u64),
            7 => target(&mut self.random, 1),
            _ => return self.random.integer(),
        };
        let near = linear.abs_diff(self.case.linear) < NEIGHBOURHOOD;
        let away = if near { 2 * NEIGHBOURHOOD } else { 0 };
        linear.wrapping_add(away).wrapping_sub(self.rip_base())
    }

    fn aim_transfer(&mut self, insn: &Instruction, linear: Option<u64>) {
        let flow = insn.flow_control();
        let stack = self.case.state.gpr[RSP].wrapping_add(self.segment_base(2));
        match flow {
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                let to = self.destination().to_le_bytes();
                if let Some(at) = linear {
                    self.write(at, &to[..operand_size(insn).min(8)]);
                } else if insn.op0_kind() == OpKind::Register {
                    let r = insn.op0_register();
                    self.case.state.gpr[r.number() & 15] = u64::from_le_bytes(to);
                    if self.case.bits != 64 {
                        self.case.state.gpr[r.number() & 15] &= 0xFFFF_FFFF;
                    }
                }
            }
            FlowControl::Return => {
                let width = slot_size(insn, self.case.bits);
                let code = self.code_selector();
                let frame = [self.destination(), u64::from(code)];
                let flags = self.case.state.rflags ^ (self.random.next() & 0xD5);
                let sp = self.case.state.gpr[RSP];
                let ss = if self.random.percent(85) { u64::from(DATA) } else { self.selector() };
                let words = [frame[0], frame[1], flags, sp, ss];
                for (i, word) in words.iter().enumerate() {
                    let at = stack.wrapping_add((i * width) as u64);
                    self.write(at, &word.to_le_bytes()[..width]);
                }
            }
            _ => {}
        }
    }

    fn code_selector(&mut self) -> u16 {
        let selector = match self.random.below(10) {
            0..=4 => CODE64,
            5 | 6 => CODE32,
            _ => self.random.pick(&TRIED),
        };
        // Linux does not bring a 64-bit program with a stack segment of the LDT to its signal
        // handler.
        let odd_stack = self.case.state.selectors[2] & 4 != 0;
        if odd_stack && selector & !3 == CODE64 & !3 { CODE32 } else { selector }
    }

    fn selector(&mut self) -> u64 {
        u64::from(self.random.pick(&TRIED))
    }

    /// Far pointers, segment registers, and the instructions that look at selectors.
    fn aim_selectors(&mut self, insn: &Instruction, linear: Option<u64>) {
        let far = matches!(
            insn.mnemonic(),
            Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss
        );
        if (far || insn.is_jmp_far_indirect() || insn.is_call_far_indirect())
            && let Some(at) = linear
        {
            let offset = slot_size(insn, self.case.bits);
            let to = self.destination().to_le_bytes();
            let selector = if far { self.selector() as u16 } else { self.code_selector() };
            self.write(at, &to[..offset]);
            self.write(at.wrapping_add(offset as u64), &selector.to_le_bytes());
        }
        if insn.is_jmp_far() || insn.is_call_far() {
            // The selector ends the instruction; the offset is in front of it.
            let len = self.case.len;
            let offset = slot_size(insn, self.case.bits);
            let to = self.destination().to_le_bytes();
            let selector = self.code_selector().to_le_bytes();
            if let Some(start) = len.checked_sub(2 + offset) {
                self.case.code[start..start + offset].copy_from_slice(&to[..offset]);
                self.case.code[len - 2..len].copy_from_slice(&selector);
            }
        }
        let takes_selector = match insn.mnemonic() {
            Mnemonic::Mov => insn.op0_register().is_segment_register(),
            Mnemonic::Pop => insn.op0_register().is_segment_register(),
            Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Verr | Mnemonic::Verw | Mnemonic::Arpl => {
                true
            }
            _ => false,
        };
        if !takes_selector || self.random.percent(5) {
            return;
        }
        let selector = self.selector();
        if insn.mnemonic() == Mnemonic::Pop {
            let stack = self.case.state.gpr[RSP].wrapping_add(self.segment_base(2));
            self.write(stack, &selector.to_le_bytes());
        } else if let Some(at) = linear {
            self.write(at, &selector.to_le_bytes()[..2]);
        } else {
            let last = insn.op_count().saturating_sub(1);
            let r = if insn.mnemonic() == Mnemonic::Arpl { 0 } else { last };
            let number = insn.op_register(r).number() & 15;
            let old = self.case.state.gpr[number];
            self.case.state.gpr[number] = old & !0xFFFF | selector;
        }
    }
}

/// Bytes of each element of a far pointer's offset or of a return frame.
pub(in crate::host) fn slot_size(insn: &Instruction, bits: u32) -> usize {
    match insn.op_code().operand_size() {
        16 => 2,
        32 => 4,
        64 => 8,
        _ => match bits {
            16 => 2,
            32 => 4,
            _ => 8,
        },
    }
}

/// Bytes of the first operand.
fn operand_size(insn: &Instruction) -> usize {
    if insn.op0_kind() == OpKind::Register {
        insn.op0_register().size().max(1)
    } else {
        insn.memory_size().size().max(1)
    }
}

fn uses_rsp(insn: &Instruction) -> bool {
    insn.stack_pointer_increment() != 0
        || matches!(insn.mnemonic(), Mnemonic::Enter | Mnemonic::Leave)
}

fn segment_number(r: Register) -> usize {
    match r {
        Register::ES => 0,
        Register::CS => 1,
        Register::SS => 2,
        Register::FS => 4,
        Register::GS => 5,
        _ => 3,
    }
}
