//! What an instruction accesses in its case, piece by piece, and which faults a piece can give: so
//! that of two different faults each is known to be one that the case really holds.

use super::compare::Taken;
use super::generate::{offset_of, slot_size};
use super::layout::{CODE, CODE_SIZE, FILL, Kind, MAP, PAGE, WINDOW, WINDOW_END};
use super::segments::segment;
use super::state::{Case, Outcome, State};
use iced_x86::{
    Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};
use x86::fault::pf;
use x86::regs::gpr::{RAX, RSP};
use x86::{Vector, flags};

/// First linear address that no user program has (48-bit addresses).
pub(super) const USER_END: u64 = 0x7FFF_FFFF_F000;

/// Bytes of the largest XSAVE area in standard form, up to PKRU (SDM vol. 1, section 13.5.7).
const XSAVE_AREA: u64 = 2696;

/// Bytes of a cache line.
const LINE: u64 = 64;

/// Number of the stack segment's register.
const SS: usize = 2;

/// A piece of memory that an instruction reads or writes.
#[derive(Clone, Copy, Debug)]
struct Access {
    /// Number of the segment register.
    segment: usize,
    /// Effective address.
    offset: u64,
    /// Bytes.
    size: u64,
    write: bool,
    /// The bits of an effective address.
    width: u64,
}

/// The accesses of an instruction.
pub(super) struct Accesses<'a> {
    case: &'a Case,
    insn: &'a Instruction,
    pieces: Vec<Access>,
}

impl<'a> Accesses<'a> {
    /// Those of a case that the host ended like this.
    pub(super) fn new(case: &'a Case, insn: &'a Instruction, host: &Outcome) -> Accesses<'a> {
        // A string instruction faults with the registers of its iteration.
        let state = if insn.is_string_instruction() { &host.state } else { &case.state };
        let mut pieces = Vec::new();
        for used in InstructionInfoFactory::new().info(insn).used_memory() {
            memory(case, insn, state, used, &mut pieces);
        }
        stack(case, insn, &mut pieces);
        line(case, insn, &mut pieces);
        Accesses { case, insn, pieces }
    }

    /// Whether one of them can give this fault.
    pub(super) fn give(&self, fault: Taken) -> bool {
        self.pieces.iter().any(|piece| piece.gives(self.case, fault))
    }

    /// Whether segmentation refuses one of them with this fault.
    pub(super) fn refuse(&self, fault: Taken) -> bool {
        self.pieces.iter().any(|piece| piece.refuses(self.case, fault))
    }

    /// Whether the fault can come from looking at where a transfer leads, or at a segment that is
    /// loaded.
    pub(super) fn target_gives(&self, fault: Taken) -> bool {
        let code = fault.error;
        fault.is(&[Vector::GP, Vector::SS])
            && (code == 0 || self.selector().is_some_and(|s| code == u32::from(s & !3)))
    }

    /// Whether the fault is one of the stack segment that a return takes.
    pub(super) fn stack_gives(&self, fault: Taken) -> bool {
        let slot = slot_size(self.insn, self.case.bits) as u64;
        let released =
            if self.insn.op_count() > 0 { u64::from(self.insn.immediate16()) } else { 0 };
        let slots = if self.insn.mnemonic() == Mnemonic::Retf { 3 } else { 4 };
        let selector = self.stacked(slots * slot + released);
        fault.is(&[Vector::GP, Vector::SS])
            && selector.is_some_and(|s| fault.error == u32::from(s & !3))
    }

    /// The selector at this distance from the stack pointer.
    fn stacked(&self, distance: u64) -> Option<u16> {
        let (width, rsp) = stack_pointer(self.case);
        self.word(linear(self.case, SS, rsp.wrapping_add(distance) & width))
    }

    fn word(&self, at: u64) -> Option<u16> {
        let [low, high] = [at, at.wrapping_add(1)].map(|at| byte(self.case, at));
        Some(u16::from_le_bytes([low?, high?]))
    }

    /// The selector that LSL looks at.
    pub(super) fn inspected_selector(&self) -> Option<u16> {
        if self.insn.op1_kind() == OpKind::Memory {
            return self.word(super::describe::operand_address(self.case, self.insn)?);
        }
        let register = self.insn.op1_register();
        Some(super::describe::register_of(self.case, &self.case.state, register) as u16)
    }

    /// The selector that a far transfer or a load of a far pointer takes.
    fn selector(&self) -> Option<u16> {
        let (case, insn) = (self.case, self.insn);
        let slot = slot_size(insn, case.bits) as u64;
        match insn.mnemonic() {
            Mnemonic::Retf | Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
                self.stacked(slot)
            }
            _ if insn.is_jmp_far() || insn.is_call_far() => Some(insn.far_branch_selector()),
            _ => self.word(super::describe::operand_address(case, insn)?.wrapping_add(slot)),
        }
    }

    /// Whether an effective address with FS or GS is not canonical, while its linear address is: of
    /// a byte of the operand or, where a mask selects elements, of the one whose page fault this is.
    pub(super) fn offset_alone_not_canonical(&self, fault: Taken) -> bool {
        let element = match self.insn.memory_size().element_size() as u64 {
            0 => 1,
            size => size,
        };
        let one = selects_elements(self.insn) && fault.is(&[Vector::PF]);
        self.pieces.iter().filter(|piece| piece.segment >= 4).any(|piece| {
            let first = piece.linear(self.case);
            let bytes = if one {
                let start = fault.address.wrapping_sub(first) / element * element;
                start..start.saturating_add(element).min(piece.size)
            } else {
                0..piece.size
            };
            bytes.into_iter().any(|at| {
                !canonical(piece.offset.wrapping_add(at)) && canonical(first.wrapping_add(at))
            })
        })
    }
}

/// Whether elements of the memory operand are accessed one by one, as a mask selects them.
fn selects_elements(insn: &Instruction) -> bool {
    let by_vector = matches!(
        insn.mnemonic(),
        Mnemonic::Vmaskmovps | Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovd | Mnemonic::Vpmaskmovq
    );
    by_vector || insn.op_mask() != Register::None
}

impl Access {
    fn linear(&self, case: &Case) -> u64 {
        linear(case, self.segment, self.offset)
    }

    fn gives(&self, case: &Case, fault: Taken) -> bool {
        if fault.is(&[Vector::PF]) {
            return self.reaches(case, fault.address) && self.page_error(fault);
        }
        let misaligned = |to: u64| self.linear(case) & (to.next_power_of_two() - 1) != 0;
        fault.error == 0
            && (fault.is(&[Vector::AC])
                && case.state.rflags & flags::AC != 0
                && misaligned(self.size.min(64))
                || self.refuses(case, fault)
                || fault.is(&[Vector::GP]) && self.size >= 16 && misaligned(self.size.min(64)))
    }

    /// Whether segmentation refuses it with this fault.
    fn refuses(&self, case: &Case, fault: Taken) -> bool {
        let vector = if self.segment == SS { Vector::SS } else { Vector::GP };
        fault.error == 0 && fault.is(&[vector]) && self.refused(case)
    }

    /// Whether one of its bytes is at `address`. Those behind the first may or may not begin again
    /// at offset 0.
    fn reaches(&self, case: &Case, address: u64) -> bool {
        let all = linear_mask(case);
        let base = base(case, self.segment);
        let offset = address.wrapping_sub(base) & all;
        let straight = offset.wrapping_sub(self.offset) & all;
        let wrapped = offset.wrapping_sub(self.offset) & self.width;
        straight < self.size || offset <= self.width && wrapped < self.size
    }

    /// Whether the page of the fault is one that refuses this access with its error code.
    fn page_error(&self, fault: Taken) -> bool {
        let write = if self.write { pf::WRITE } else { 0 };
        if fault.address >= USER_END {
            return fault.error & !pf::PRESENT == pf::USER | write;
        }
        let kind = match fault.address.checked_sub(WINDOW) {
            Some(offset) if fault.address < WINDOW_END => MAP[offset as usize / PAGE],
            Some(_) | None => Kind::None,
        };
        match kind {
            Kind::None => fault.error == pf::USER | write,
            Kind::Data => false,
            Kind::ReadOnly | Kind::Code => {
                self.write && fault.error == pf::USER | pf::WRITE | pf::PRESENT
            }
        }
    }

    /// Whether segmentation refuses it: type, limit, an address that is not canonical.
    fn refused(&self, case: &Case) -> bool {
        if case.bits == 64 {
            let first = self.linear(case);
            let ends = [first, first.wrapping_add(self.size - 1)];
            return !ends.into_iter().all(canonical);
        }
        let segment = segment(case.state.selectors[self.segment]);
        let allowed = if self.write { segment.writable() } else { segment.readable() };
        !allowed || !segment.contains(self.offset as u32, self.size as u32)
    }
}

/// The pieces of an operand that iced-x86 knows of.
fn memory(
    case: &Case,
    insn: &Instruction,
    state: &State,
    used: &UsedMemory,
    pieces: &mut Vec<Access>,
) {
    let write = match used.access() {
        OpAccess::Read | OpAccess::CondRead => false,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
            true
        }
        OpAccess::None | OpAccess::NoMemAccess => return,
    };
    let sizes = [used.memory_size(), insn.memory_size()].map(|size| size.size() as u64);
    let size = sizes.into_iter().find(|size| *size != 0).unwrap_or(XSAVE_AREA);
    let width = match used.address_size() {
        iced_x86::CodeSize::Code16 => 0xFFFF,
        iced_x86::CodeSize::Code32 => 0xFFFF_FFFF,
        iced_x86::CodeSize::Code64 | iced_x86::CodeSize::Unknown => u64::MAX,
    };
    let elements = if insn.is_vsib() { 64 / used.vsib_size().max(4) as usize } else { 1 };
    for element in (0..elements).filter(|&n| elements == 1 || active(case, insn, n)) {
        let value = |r: Register, n: usize, size: usize| {
            let vector = || {
                let bytes = state.vector(r.number() & 31);
                bytes[n * size..].iter().take(size).rev().fold(0, |v, b| v << 8 | u64::from(*b))
            };
            Some(match r {
                _ if r.is_segment_register() => 0,
                _ if r.is_vector_register() => vector(),
                _ => super::describe::register_of(case, state, r),
            })
        };
        let Some(offset) = used.virtual_address(element, value) else { continue };
        let offset = offset.wrapping_add(bit_string_offset(case, insn, size)) & width;
        let segment = segment_of(case, used.segment(), used.base());
        pieces.push(Access { segment, offset, size, write, width });
    }
}

/// How far, in bytes, a bit instruction whose register counts bits of memory goes from its operand's
/// address (SDM vol. 2A, BT).
fn bit_string_offset(case: &Case, insn: &Instruction, size: u64) -> u64 {
    let of_string =
        matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
            && insn.op0_kind() == OpKind::Memory
            && insn.op1_kind() == OpKind::Register;
    if !of_string {
        return 0;
    }
    let value = super::describe::register_of(case, &case.state, insn.op1_register());
    let unused = 64 - 8 * size as u32;
    let bits = ((value << unused) as i64 >> unused) as u64;
    let units = bits as i64 >> (3 + size.trailing_zeros());
    (units as u64).wrapping_mul(size)
}

/// Number of an operand's segment register. 64-bit code has no overrides but FS and GS.
fn segment_of(case: &Case, segment: Register, base: Register) -> usize {
    let frame = [Register::RBP, Register::RSP, Register::EBP, Register::ESP].contains(&base);
    match segment {
        Register::FS => 4,
        Register::GS => 5,
        _ if case.bits == 64 => {
            if frame {
                SS
            } else {
                3
            }
        }
        Register::None => 3,
        segment => segment.number() % 6,
    }
}

/// Whether a gather or scatter does this element.
fn active(case: &Case, insn: &Instruction, element: usize) -> bool {
    if insn.op_mask() != Register::None {
        return case.state.opmask[insn.op_mask().number() & 7] >> element & 1 != 0;
    }
    // VEX: the sign bit of each element of the last operand.
    let size = insn.memory_size().size().max(4);
    let mask = case.state.vector(insn.op2_register().number() & 31);
    mask.get(element * size + size - 1).is_some_and(|byte| byte & 0x80 != 0)
}

/// The line of CLZERO, which is one of linear addresses.
fn line(case: &Case, insn: &Instruction, pieces: &mut Vec<Access>) {
    let width = match insn.code() {
        Code::Clzerow => 0xFFFF,
        Code::Clzerod => 0xFFFF_FFFF,
        Code::Clzeroq => u64::MAX,
        _ => return,
    };
    let segment = segment_of(case, insn.segment_prefix(), Register::RAX);
    let offset = case.state.gpr[RAX] & width;
    let offset = offset.wrapping_sub(linear(case, segment, offset) % LINE);
    pieces.push(Access { segment, offset, size: LINE, write: true, width });
}

/// What an instruction does with the stack besides.
fn stack(case: &Case, insn: &Instruction, pieces: &mut Vec<Access>) {
    let size = slot_size(insn, case.bits) as u64;
    let (width, rsp) = stack_pointer(case);
    let mut push = |offset: u64, write: bool| {
        let offset = rsp.wrapping_add(offset) & width;
        pieces.push(Access { segment: SS, offset, size, write, width });
    };
    match insn.mnemonic() {
        // The outer stack's pointer lies behind the parameters.
        Mnemonic::Retf => {
            let released = if insn.op_count() > 0 { u64::from(insn.immediate16()) } else { 0 };
            [2, 3].into_iter().for_each(|n| push(n * size + released, false));
        }
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            (0..5).for_each(|n| push(n * size, false));
        }
        // AMD's processors push as the code that is called would: in 32-bit code at ESP.
        Mnemonic::Call if case.bits == 64 && insn.is_call_far_indirect() => {
            let size = push_size(case, insn);
            for width in [u64::MAX, 0xFFFF_FFFF] {
                pieces.extend([1, 2].map(|n| {
                    let offset = rsp.wrapping_sub(n * size) & width;
                    Access { segment: SS, offset, size, write: true, width }
                }));
            }
        }
        // The final stack pointer must be writable (SDM vol. 2A, ENTER).
        Mnemonic::Enter => {
            let level = u64::from(insn.immediate8_2nd() & 31);
            let below = (level + 1) * size + u64::from(insn.immediate16());
            push(below.wrapping_neg(), true);
        }
        _ => {}
    }
}

/// Bytes of each element of the frame that a far CALL pushes. On AMD's processors REX.W widens it,
/// but not the pointer, so that iced-x86 takes the instruction for the narrower one.
pub(super) fn push_size(case: &Case, insn: &Instruction) -> u64 {
    let bytes = case.bytes();
    let opcode = bytes.iter().position(|byte| *byte == 0xFF).unwrap_or(0);
    let before = opcode.checked_sub(1).map_or(0, |at| bytes[at]);
    let wide = case.bits == 64 && insn.is_call_far_indirect() && before & 0xF8 == 0x48;
    if wide { 8 } else { slot_size(insn, case.bits) as u64 }
}

/// The bits of the stack pointer that count, and these.
fn stack_pointer(case: &Case) -> (u64, u64) {
    let width = match case.bits {
        64 => u64::MAX,
        _ if segment(case.state.selectors[SS]).is_32bit() => 0xFFFF_FFFF,
        _ => 0xFFFF,
    };
    (width, case.state.gpr[RSP] & width)
}

fn base(case: &Case, number: usize) -> u64 {
    match (case.bits, number) {
        (_, 4) => case.state.fs_base,
        (_, 5) => case.state.gs_base,
        (64, _) => 0,
        _ => segment(case.state.selectors[number]).base,
    }
}

fn linear_mask(case: &Case) -> u64 {
    if case.bits == 64 { u64::MAX } else { 0xFFFF_FFFF }
}

fn linear(case: &Case, segment: usize, offset: u64) -> u64 {
    base(case, segment).wrapping_add(offset) & linear_mask(case)
}

/// Whether bits 47 to 63 are the same.
fn canonical(linear: u64) -> bool {
    (linear as i64) << 16 >> 16 == linear as i64
}

/// The byte at a linear address of the window.
fn byte(case: &Case, linear: u64) -> Option<u8> {
    if let Some(at) = offset_of(linear) {
        return Some(case.memory.byte(at));
    }
    let at = linear.checked_sub(WINDOW + CODE as u64).filter(|at| *at < CODE_SIZE as u64)?;
    let first = case.linear - (WINDOW + CODE as u64);
    let code = at.checked_sub(first).and_then(|at| case.code.get(at as usize));
    Some(code.copied().unwrap_or(FILL))
}

#[cfg(test)]
mod tests {
    use super::super::generate::Generator;
    use super::*;

    /// First address of the upper canonical half.
    const UPPER: u64 = 0xFFFF_8000_0000_0000;
    /// vcvttps2uqq xmm1{k1}, qword ptr fs:[r8]
    const CONVERT: [u8; 7] = [0x64, 0x62, 0xD1, 0x7D, 0x09, 0x78, 0x08];
    /// movups xmm1, xmmword ptr fs:[r8]
    const MOVE: [u8; 5] = [0x64, 0x41, 0x0F, 0x10, 0x08];

    /// Whether the offset alone explains #GP, for an operand at `linear` with a base of `base` that
    /// gives a page fault at `fault`.
    fn explained(code: &[u8], base: u64, linear: u64, fault: u64) -> bool {
        let mut case = Generator::new(1, 64).case(Code::Nopd, 0).expect("a case");
        case.code[..code.len()].copy_from_slice(code);
        case.len = code.len();
        case.state.fs_base = base;
        case.state.gpr[8] = linear.wrapping_sub(base);
        let outcome = Outcome {
            vector: Vector::GP as u8,
            error: 0,
            address: 0,
            state: case.state,
            memory: case.memory.clone(),
        };
        let insn = case.instruction();
        let page_fault = Taken { vector: Vector::PF as u8, error: pf::USER, address: fault };
        Accesses::new(&case, &insn, &outcome).offset_alone_not_canonical(page_fault)
    }

    #[test]
    fn offsets_are_those_of_the_element_that_faults() {
        // The second element begins at the border, and so with a base its offset is below.
        assert!(explained(&CONVERT, 0x2000_E683, UPPER - 4, UPPER));
        assert!(!explained(&CONVERT, 0, UPPER - 4, UPPER));
        // Here the first element's offset is below, and that of the second at the border.
        assert!(explained(&CONVERT, 8, UPPER + 4, UPPER + 4));
        assert!(!explained(&CONVERT, 8, UPPER + 4, UPPER + 8));
        // Without a mask it is all one.
        assert!(explained(&MOVE, 8, UPPER + 4, UPPER + 8));
        assert!(!explained(&MOVE, 8, UPPER + 8, UPPER + 8));
    }
}
