//! The guest's own instruction, re-encoded: registers by the pinning, the memory operand at its
//! host address.

use super::memory::Access;
use super::merge::Member;
use super::{Strategy, Unit};
use crate::regs::{host, is_high_byte, is_in_context, same_part};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{
    Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpCodeOperandKind, OpKind,
    Register,
};
use interp::engine::block::Op;

/// Guest registers of the context in host scratch registers, for one instruction.
#[derive(Default)]
pub(super) struct Borrowed {
    pub(super) entries: Vec<Loan>,
}

/// A guest register of the context in a host register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Loan {
    pub(super) guest: u8,
    pub(super) host: u8,
    /// The instruction needs its value.
    read: bool,
    pub(super) written: bool,
}

impl Unit<'_> {
    pub(super) fn passthrough(&mut self, op: &Op, insn: &Instruction) -> bool {
        self.note_strategy(Strategy::Passthrough);
        if op.insn.handle != 0 {
            return self.vector(op, insn);
        }
        let kinds_ok = (0..insn.op_count()).all(|i| match insn.op_kind(i) {
            OpKind::Register => insn.op_register(i).is_gpr(),
            OpKind::Memory
            | OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => true,
            _ => false,
        });
        if !kinds_ok {
            return false;
        }
        if op.insn.has_mem() { self.with_memory(op, insn) } else { self.registers_only(insn) }
    }

    fn registers_only(&mut self, insn: &Instruction) -> bool {
        let mut copy = *insn;
        simplify(&mut copy);
        if let Some(copy) = self.on_context(&copy) {
            self.before_flag_use();
            self.note_copy();
            self.put(&copy);
            self.after_flag_write();
            self.keep_pointer();
            return true;
        }
        let Some(borrowed) = map_registers(&mut copy, insn, &[10, 11]) else { return false };
        if !self.encodes(&copy) {
            return false;
        }
        self.before_flag_use();
        self.borrow_registers(&borrowed);
        self.note_copy();
        self.put(&copy);
        self.give_back(&borrowed);
        self.after_flag_write();
        if borrowed.entries.len() <= 1 {
            self.keep_pointer();
        }
        true
    }

    /// The copy of an instruction that works on the context's memory where its one operand in a
    /// register of the context may be in memory as well.
    fn on_context(&mut self, insn: &Instruction) -> Option<Instruction> {
        let in_context =
            |&i: &u32| insn.op_kind(i) == OpKind::Register && is_in_context(insn.op_register(i));
        let mut operands = (0..insn.op_count()).filter(in_context);
        let (Some(operand), None) = (operands.next(), operands.next()) else { return None };
        let (code, memory) = with_operand_in_memory(insn.code(), operand)?;
        let register = insn.op_register(operand);
        let mut factory = InstructionInfoFactory::new();
        let written = is_written(factory.info(insn).op_access(operand));
        // Writing half a register clears the other half, and a store of less than is loaded later
        // would delay the load.
        if written && register.size() != 8 {
            return None;
        }
        let mut copy = *insn;
        copy.set_code(code);
        if memory != operand {
            copy.set_op_register(operand, insn.op_register(memory));
        }
        copy.set_op_kind(memory, OpKind::Memory);
        let slot = self.env.addresses.gpr(register.full_register().number() as u8);
        // A prefix without meaning for registers would have one now.
        copy.set_segment_prefix(Register::None);
        copy.set_memory_base(Register::None);
        copy.set_memory_index(Register::None);
        copy.set_memory_displacement64(slot as u64);
        copy.set_memory_displ_size(8);
        // The other operands, of which none is in the context.
        for i in 0..copy.op_count() {
            let register = copy.op_register(i);
            if copy.op_kind(i) == OpKind::Register && !is_high_byte(register) {
                let number = host(register.full_register().number() as u8)?;
                copy.set_op_register(i, same_part(register, number)?);
            }
        }
        self.encodes(&copy).then_some(copy)
    }

    fn with_memory(&mut self, op: &Op, insn: &Instruction) -> bool {
        let size = u32::from(op.insn.mem.size);
        if !self.can_access(op) || !matches!(size, 1..=16) || !size.is_power_of_two() {
            return false;
        }
        if is_bit_string(insn) {
            return self.bit_string(op, insn);
        }
        let mut copy = *insn;
        simplify(&mut copy);
        let Some(borrowed) = map_registers(&mut copy, insn, &[10]) else { return false };
        let member = self.member();
        let collapse = !borrowed.entries.is_empty() || self.needs_flag_restore_at_memory();
        set_host_address(&mut copy, collapse, member);
        if !self.encodes(&copy) {
            return false;
        }
        let write = memory_is_written(insn);
        let atomic = insn.has_lock_prefix() || write && insn.mnemonic() == Mnemonic::Xchg;
        let aligned = atomic || insn.mnemonic() == Mnemonic::Cmpxchg16b;
        let align = if aligned { size } else { 1 };
        let access = Access { size, write, align };
        self.copy_with_memory((op, insn), access, (&copy, &borrowed), (member, collapse));
        true
    }

    /// The copy of an instruction behind the access to its memory operand.
    pub(super) fn copy_with_memory(
        &mut self,
        (op, insn): (&Op, &Instruction),
        access: Access,
        (copy, borrowed): (&Instruction, &Borrowed),
        (member, collapse): (Option<Member>, bool),
    ) {
        let (slow, back) = (self.label(), self.label());
        match member {
            Some(member) => self.member_access(op, insn, member),
            None => {
                self.before_clobber();
                self.access(op, insn, access, slow, collapse);
            }
        }
        self.before_flag_use();
        self.borrow_registers(borrowed);
        self.note_copy();
        self.put(copy);
        self.give_back(borrowed);
        self.after_flag_write();
        if member.is_none() {
            self.place(back);
            self.add_slow(op, slow, back);
        }
    }

    /// Whether flags come back between the address translation and the instruction, which costs
    /// R10.
    pub(super) fn needs_flag_restore_at_memory(&self) -> bool {
        let effects = self.effects[self.index];
        let passes = if effects.writes != 0 { self.live_after() & !effects.kills } else { 0 };
        effects.reads | passes != 0
    }

    pub(super) fn borrow_registers(&mut self, borrowed: &Borrowed) {
        for loan in borrowed.entries.iter().filter(|loan| loan.read) {
            let slot = self.env.addresses.gpr(loan.guest);
            dynasm!(self.ops ; .arch x64 ; mov Rq(loan.host), [slot]);
        }
    }

    pub(super) fn give_back(&mut self, borrowed: &Borrowed) {
        for loan in borrowed.entries.iter().filter(|loan| loan.written) {
            let slot = self.env.addresses.gpr(loan.guest);
            dynasm!(self.ops ; .arch x64 ; mov [slot], Rq(loan.host));
        }
    }
}

/// The code that does the same with operand `operand` in memory, and which operand of it is the one
/// in memory.
fn with_operand_in_memory(code: Code, operand: u32) -> Option<(Code, u32)> {
    use Code::*;
    let reversed = match code {
        Mov_r64_rm64 => Mov_rm64_r64,
        Mov_rm64_r64 => Mov_r64_rm64,
        Mov_rm32_r32 => Mov_r32_rm32,
        Add_r64_rm64 => Add_rm64_r64,
        Add_rm64_r64 => Add_r64_rm64,
        Add_rm32_r32 => Add_r32_rm32,
        Or_r64_rm64 => Or_rm64_r64,
        Or_rm64_r64 => Or_r64_rm64,
        Or_rm32_r32 => Or_r32_rm32,
        Adc_r64_rm64 => Adc_rm64_r64,
        Adc_rm64_r64 => Adc_r64_rm64,
        Adc_rm32_r32 => Adc_r32_rm32,
        Sbb_r64_rm64 => Sbb_rm64_r64,
        Sbb_rm64_r64 => Sbb_r64_rm64,
        Sbb_rm32_r32 => Sbb_r32_rm32,
        And_r64_rm64 => And_rm64_r64,
        And_rm64_r64 => And_r64_rm64,
        And_rm32_r32 => And_r32_rm32,
        Sub_r64_rm64 => Sub_rm64_r64,
        Sub_rm64_r64 => Sub_r64_rm64,
        Sub_rm32_r32 => Sub_r32_rm32,
        Xor_r64_rm64 => Xor_rm64_r64,
        Xor_rm64_r64 => Xor_r64_rm64,
        Xor_rm32_r32 => Xor_r32_rm32,
        Cmp_r64_rm64 => Cmp_rm64_r64,
        Cmp_rm64_r64 => Cmp_r64_rm64,
        Cmp_r32_rm32 => Cmp_rm32_r32,
        Cmp_rm32_r32 => Cmp_r32_rm32,
        Test_rm64_r64 => return Some((code, 0)),
        Test_rm32_r32 => return Some((code, 0)),
        _ => INVALID,
    };
    let may_be_memory = |code: Code, operand: u32| {
        matches!(
            code.op_code().op_kind(operand),
            OpCodeOperandKind::r8_or_mem
                | OpCodeOperandKind::r16_or_mem
                | OpCodeOperandKind::r32_or_mem
                | OpCodeOperandKind::r64_or_mem
        )
    };
    if is_the_same_in_memory(code.mnemonic()) && may_be_memory(code, operand) {
        return Some((code, operand));
    }
    (reversed != INVALID && may_be_memory(reversed, operand)).then_some((reversed, operand))
}

/// Whether an instruction with a register operand does the same with the operand in memory. (XCHG
/// would lock the bus, and the bit instructions would take bits from elsewhere.)
fn is_the_same_in_memory(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Mov | Movzx
            | Movsx
            | Movsxd
            | Add
            | Or
            | Adc
            | Sbb
            | And
            | Sub
            | Xor
            | Cmp
            | Test
            | Inc
            | Dec
            | Neg
            | Not
            | Imul
            | Shl
            | Shr
            | Sar
            | Rol
            | Ror
            | Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
    )
}

/// Replaces explicit general-purpose registers by those that hold them, borrowing from `scratch`
/// for those in the context. None where that is impossible.
pub(super) fn map_registers(
    copy: &mut Instruction,
    insn: &Instruction,
    scratch: &[u8],
) -> Option<Borrowed> {
    let mut borrowed = Borrowed::default();
    for i in 0..insn.op_count() {
        if insn.op_kind(i) != OpKind::Register {
            continue;
        }
        let register = insn.op_register(i);
        if !register.is_gpr() || is_high_byte(register) {
            continue;
        }
        let number = register.full_register().number() as u8;
        let target = match host(number) {
            Some(number) => number,
            None => match borrowed.entries.iter().find(|loan| loan.guest == number) {
                Some(loan) => loan.host,
                None => {
                    let host = *scratch.get(borrowed.entries.len())?;
                    let loan = Loan { guest: number, host, read: false, written: false };
                    borrowed.entries.push(loan);
                    host
                }
            },
        };
        if target != number {
            copy.set_op_register(i, same_part(register, target)?);
        }
    }
    if !borrowed.entries.is_empty() {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(insn);
        for i in 0..insn.op_count() {
            if insn.op_kind(i) != OpKind::Register {
                continue;
            }
            let register = insn.op_register(i);
            let number = register.full_register().number() as u8;
            let access = info.op_access(i);
            let untouched = matches!(access, OpAccess::None | OpAccess::NoMemAccess);
            // What is written whole need not be read.
            let replaced = access == OpAccess::Write && register.size() >= 4;
            let loan = borrowed.entries.iter_mut().find(|loan| loan.guest == number);
            if let Some(loan) = loan.filter(|_| register.is_gpr()) {
                loan.written |= is_written(access);
                loan.read |= !untouched && !replaced;
            }
        }
    }
    Some(borrowed)
}

/// Makes R11 the memory operand's address, with the displacement that it has in a group, or
/// R10 + R11.
pub(super) fn set_host_address(copy: &mut Instruction, collapsed: bool, member: Option<Member>) {
    let both = !collapsed && member.is_none();
    let displacement = member.map_or(0, Member::displacement);
    copy.set_segment_prefix(Register::None);
    copy.set_memory_base(Register::R11);
    copy.set_memory_index(if both { Register::R10 } else { Register::None });
    copy.set_memory_index_scale(1);
    copy.set_memory_displacement64(displacement as i64 as u64);
    copy.set_memory_displ_size(match displacement {
        0 => 0,
        -128..=127 => 1,
        _ => 8,
    });
}

/// Whether a register's bits are an offset in memory too.
pub(super) fn is_bit_string(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && insn.op1_kind() == OpKind::Register
}

/// Whether the memory operand is written, or read and written.
pub(super) fn memory_is_written(insn: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(insn);
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory && is_written(info.op_access(i)))
}

/// Whether an access writes its operand, if only under a condition.
pub(super) fn is_written(access: OpAccess) -> bool {
    match access {
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
            true
        }
        OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess => false,
    }
}

/// Takes away prefixes without meaning, and turns encodings that 64-bit code does not have into
/// ones that it has.
pub(super) fn simplify(copy: &mut Instruction) {
    copy.set_has_rep_prefix(false);
    copy.set_has_repne_prefix(false);
    copy.set_has_xacquire_prefix(false);
    copy.set_has_xrelease_prefix(false);
    let code = match copy.code() {
        Code::Inc_r16 => Code::Inc_rm16,
        Code::Inc_r32 => Code::Inc_rm32,
        Code::Dec_r16 => Code::Dec_rm16,
        Code::Dec_r32 => Code::Dec_rm32,
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_RAX_moffs64 => Code::Mov_r64_rm64,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        Code::Mov_moffs64_RAX => Code::Mov_rm64_r64,
        other => other,
    };
    if code != copy.code() {
        copy.set_code(code);
    }
}
