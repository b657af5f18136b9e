//! The x87 environment and state in memory (SDM vol. 1, section 8.1.10, figures 8-9 to 8-12).

use super::control::{initialize, set_control, set_top};
use super::memory;
use super::{CS, EXCEPTIONS, check_available, check_pending, update_error};
use crate::access::{self, Intent};
use crate::flow::Flow;
use decoder::Insn;
use softmmu::Mmu;
use x86::fpu::X87;
use x86::{Cpu, Fault};

/// Length of the environment with 16- and 32-bit operand size, and of the eight registers.
const SHORT: usize = 14;
const LONG: usize = 28;
const REGISTERS: usize = 80;

/// Bytes of an environment in the format of mode and operand size.
struct Format {
    /// 32-bit fields.
    wide: bool,
    /// Protected-mode layout, with selectors; else linear addresses.
    protected: bool,
}

impl Format {
    fn of(cpu: &Cpu, insn: &Insn) -> Format {
        let wide = matches!(usize::from(insn.mem.size), LONG | 108);
        Format { wide, protected: cpu.is_protected() }
    }

    fn len(&self) -> usize {
        if self.wide { LONG } else { SHORT }
    }

    /// #AC by the size of the fields.
    fn check_alignment(&self, cpu: &Cpu, address: u64) -> Result<(), Fault> {
        access::check_alignment(cpu, address, if self.wide { 4 } else { 2 })
    }

    /// Field `i` (0 is the control word).
    fn field(&self, bytes: &[u8], i: usize) -> u32 {
        let size = if self.wide { 4 } else { 2 };
        let mut word = [0; 4];
        word[..size].copy_from_slice(&bytes[i * size..(i + 1) * size]);
        u32::from_le_bytes(word)
    }

    fn set_field(&self, bytes: &mut [u8], i: usize, value: u32) {
        let size = if self.wide { 4 } else { 2 };
        bytes[i * size..(i + 1) * size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

/// The full tag word: two bits for each physical register, 0 valid, 1 zero, 2 special, 3 empty.
fn full_tags(x87: &X87) -> u16 {
    (0..8u8).fold(0, |tags, n| {
        let st = &x87.st[usize::from(n.wrapping_sub(x87.top()) & 7)];
        let exponent = u16::from_le_bytes([st[8], st[9]]) & 0x7FFF;
        let integer_bit = st[7] & 0x80 != 0;
        let tag = if x87.ftw >> n & 1 == 0 {
            3
        } else if exponent == 0x7FFF {
            2
        } else if exponent == 0 {
            if st[..8].iter().all(|&b| b == 0) { 1 } else { 2 }
        } else if integer_bit {
            0
        } else {
            2
        };
        tags | tag << (2 * n)
    })
}

fn save_environment(cpu: &Cpu, format: &Format, bytes: &mut [u8]) {
    let x87 = &cpu.x87;
    // The unused halves of 32-bit fields read as ones.
    let upper = 0xFFFF_0000;
    for (i, word) in [x87.fcw, x87.fsw, full_tags(x87)].into_iter().enumerate() {
        format.set_field(bytes, i, upper | u32::from(word));
    }
    let (ip, dp) = (x87.fip as u32, x87.fdp as u32);
    // 64-bit mode keeps 64-bit offsets and no selectors.
    let (cs, ds) = match cpu.is_long() {
        true => (cpu.seg[usize::from(CS)].selector, 0),
        false => ((x87.fip >> 32) as u16, (x87.fdp >> 32) as u16),
    };
    let opcode = u32::from(x87.fop & 0x7FF);
    if format.protected {
        format.set_field(bytes, 3, ip);
        format.set_field(bytes, 4, u32::from(cs) | opcode << 16);
        format.set_field(bytes, 5, dp);
        format.set_field(bytes, 6, upper | u32::from(ds));
        return;
    }
    let linear = |selector: u16, offset: u32| (u32::from(selector) << 4).wrapping_add(offset);
    let (ip, dp) = (linear(cs, ip), linear(ds, dp));
    if format.wide {
        format.set_field(bytes, 3, upper | ip & 0xFFFF);
        format.set_field(bytes, 4, (ip >> 16) << 12 | opcode);
        format.set_field(bytes, 5, upper | dp & 0xFFFF);
        format.set_field(bytes, 6, (dp >> 16) << 12);
    } else {
        format.set_field(bytes, 3, ip);
        format.set_field(bytes, 4, (ip >> 16 & 0xF) << 12 | opcode);
        format.set_field(bytes, 5, dp);
        format.set_field(bytes, 6, (dp >> 16 & 0xF) << 12);
    }
}

fn load_environment(x87: &mut X87, long: bool, format: &Format, bytes: &[u8]) {
    let field = |i| format.field(bytes, i);
    let fsw = field(1) as u16;
    set_top(x87, (fsw >> 11) as u8 & 7);
    x87.fsw = fsw;
    let tags = field(2) as u16;
    x87.ftw = (0..8).fold(0, |all, n| all | u8::from(tags >> (2 * n) & 3 != 3) << n);
    if format.protected {
        // In the 16-bit format the opcode is not saved.
        let opcode = if format.wide { (field(4) >> 16) as u16 & 0x7FF } else { 0 };
        x87.fop = opcode;
        // 64-bit mode keeps 64-bit offsets and no selectors.
        let selector = |i| if long { 0 } else { u64::from(field(i) as u16) << 32 };
        x87.fip = u64::from(field(3)) | selector(4);
        x87.fdp = u64::from(field(5)) | selector(6);
    } else {
        let high = if format.wide { 0xFFFF } else { 0xF };
        x87.fop = field(4) as u16 & 0x7FF;
        x87.fip = u64::from(field(3) & 0xFFFF | (field(4) >> 12 & high) << 16);
        x87.fdp = u64::from(field(5) & 0xFFFF | (field(6) >> 12 & high) << 16);
    }
    set_control(x87, field(0) as u16);
}

/// FNSTENV. Afterwards all exceptions are masked.
pub(super) fn fnstenv(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    let format = Format::of(cpu, insn);
    let mut bytes = [0; LONG];
    save_environment(cpu, &format, &mut bytes);
    let address = access::mem_linear(cpu, insn, format.len() as u32, Intent::Write)?;
    format.check_alignment(cpu, address)?;
    memory::write(cpu, mmu, address, &bytes[..format.len()])?;
    cpu.x87.fcw |= EXCEPTIONS;
    update_error(&mut cpu.x87);
    Ok(Flow::Next)
}

/// FLDENV.
pub(super) fn fldenv(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    check_pending(cpu, mmu)?;
    let format = Format::of(cpu, insn);
    let mut bytes = [0; LONG];
    let address = access::mem_linear(cpu, insn, format.len() as u32, Intent::Read)?;
    format.check_alignment(cpu, address)?;
    memory::read(cpu, mmu, address, &mut bytes[..format.len()])?;
    let long = cpu.is_long();
    load_environment(&mut cpu.x87, long, &format, &bytes);
    Ok(Flow::Next)
}

/// FNSAVE. Afterwards the state is as after FNINIT.
pub(super) fn fnsave(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    let format = Format::of(cpu, insn);
    let mut bytes = [0; LONG + REGISTERS];
    let (environment, registers) = bytes.split_at_mut(format.len());
    save_environment(cpu, &format, environment);
    for (slot, st) in registers.chunks_exact_mut(10).zip(&cpu.x87.st) {
        slot.copy_from_slice(&st[..10]);
    }
    let len = format.len() + REGISTERS;
    let address = access::mem_linear(cpu, insn, len as u32, Intent::Write)?;
    format.check_alignment(cpu, address)?;
    memory::write(cpu, mmu, address, &bytes[..len])?;
    initialize(&mut cpu.x87);
    Ok(Flow::Next)
}

/// FRSTOR.
pub(super) fn frstor(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    check_pending(cpu, mmu)?;
    let format = Format::of(cpu, insn);
    let len = format.len() + REGISTERS;
    let mut bytes = [0; LONG + REGISTERS];
    let address = access::mem_linear(cpu, insn, len as u32, Intent::Read)?;
    format.check_alignment(cpu, address)?;
    memory::read(cpu, mmu, address, &mut bytes[..len])?;
    let long = cpu.is_long();
    load_environment(&mut cpu.x87, long, &format, &bytes);
    for (st, slot) in cpu.x87.st.iter_mut().zip(bytes[format.len()..len].chunks_exact(10)) {
        st[..10].copy_from_slice(slot);
        st[10..].fill(0);
    }
    Ok(Flow::Next)
}
