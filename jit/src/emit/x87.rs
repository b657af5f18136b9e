//! x87 control and status words, and the pointers to the last instruction and its operand (SDM vol. 1,
//! section 8.1.8).
//!
//! The host's own pointers would be addresses of host code, so copies note the guest's in the runtime. Who
//! could look at them is not in the block: they are noted once, in front of its end or of a helper,
//! and in cold code where the block is left before.

use super::Unit;
use super::memory::Access;
use super::merge::written_gpr;
use super::vector::Needs;
use crate::key::FCW_MASKS;
use crate::regs::{CS, is_in_context};
use crate::strategy::{Emit, strategy};
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic};
use interp::engine::block::Op;

/// What copies have not noted yet.
#[derive(Clone, Copy)]
pub(crate) struct Pointers {
    /// Offset of the last instruction in the code segment, and its opcode.
    rip: u64,
    opcode: u16,
    /// The last one with an operand in memory. The registers of its address are as they were.
    operand: Option<(Op, Instruction)>,
}

impl Unit<'_> {
    /// FNSTCW: only software changes the control word, which the context has.
    pub(crate) fn fnstcw(&mut self, op: &Op, insn: &Instruction) -> bool {
        if !self.key.x87() || !self.can_access(op) {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        let word = self.env.addresses.x87_control();
        self.before_clobber();
        self.access(op, insn, Access { size: 2, write: true, align: 1 }, slow, true);
        dynasm!(self.ops ; .arch x64 ; movzx r10d, WORD [word] ; mov [r11], r10w);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// FLDCW. The helper loads what unmasks an exception: the host must not have any.
    pub(crate) fn fldcw(&mut self, op: &Op, insn: &Instruction) -> bool {
        if !self.key.x87() || !self.can_access(op) {
            return false;
        }
        self.load_units(Needs::X87);
        let (slow, back) = (self.label(), self.label());
        let (word, copy) = (self.env.addresses.x87_control(), self.env.addresses.temporary);
        self.before_clobber();
        self.access(op, insn, Access { size: 2, write: false, align: 1 }, slow, true);
        // What is checked is what is loaded: another CPU may change the operand.
        dynasm!(self.ops
            ; .arch x64
            ; movzx r10d, WORD [r11]
            ; mov [copy], r10w
            ; not r10d
            ; test r10b, FCW_MASKS as i8
            ; jnz =>slow
            ; fldcw [copy]
            ; fnstcw [word]
        );
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// FNSTSW.
    pub(crate) fn fnstsw(&mut self, op: &Op, insn: &Instruction) -> bool {
        if !self.key.x87() || !self.can_access(op) {
            return false;
        }
        self.load_units(Needs::X87);
        if !op.insn.has_mem() {
            self.note_copy();
            dynasm!(self.ops ; .arch x64 ; fnstsw ax);
            self.keep_pointer();
            return true;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        self.access(op, insn, Access { size: 2, write: true, align: 1 }, slow, true);
        self.note_copy();
        dynasm!(self.ops ; .arch x64 ; fnstsw [r11]);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// The current instruction was copied.
    pub(super) fn owe_x87_pointers(&mut self, op: &Op, insn: &Instruction) {
        let operand = match op.insn.has_mem() {
            true => Some((*op, *insn)),
            false => self.x87_pointers.as_ref().and_then(|owed| owed.operand),
        };
        let opcode = op.insn.x87_opcode();
        self.x87_pointers = Some(Box::new(Pointers { rip: self.rip, opcode, operand }));
    }

    /// Whether what is owed can wait until behind instruction `index`: a copy of any kind, a control
    /// or status word, or a branch out of the middle of the block, which leaves by way of cold code.
    pub(super) fn may_owe_x87_pointers(&self, index: usize, op: &Op, insn: &Instruction) -> bool {
        let Some(owed) = &self.x87_pointers else { return false };
        let quiet = match strategy(op, self.key) {
            Emit::Passthrough => true,
            Emit::Custom(_) => match insn.mnemonic() {
                Mnemonic::Fldcw | Mnemonic::Fnstcw | Mnemonic::Fnstsw => true,
                _ => insn.is_jcc_short_or_near() && index + 1 < self.count,
            },
            Emit::Helper => false,
        };
        let in_address = |n: usize| {
            owed.operand.as_ref().is_some_and(|(_, insn)| {
                [insn.memory_base(), insn.memory_index()]
                    .iter()
                    .any(|r| r.is_gpr() && r.full_register().number() == n)
            })
        };
        let mut factory = InstructionInfoFactory::new();
        let used = factory.info(insn).used_registers();
        let moves = used.iter().filter_map(written_gpr).any(in_address);
        quiet && !moves
    }

    /// Notes what is owed. Destroys R10, and R11 where an address has two registers of the context;
    /// keeps EFLAGS.
    pub(super) fn pay_x87_pointers(&mut self) {
        if let Some(owed) = self.x87_pointers.take() {
            self.note_x87_pointers(&owed);
        }
    }

    pub(super) fn note_x87_pointers(&mut self, owed: &Pointers) {
        let addresses = self.env.addresses;
        let (fop, fip, fdp) = (addresses.x87_fop, addresses.x87_fip, addresses.x87_fdp);
        dynasm!(self.ops ; .arch x64 ; mov DWORD [fop], i32::from(owed.opcode));
        if !self.key.is_long() {
            let selector = addresses.selector(CS);
            dynasm!(self.ops
                ; .arch x64
                ; mov DWORD [fip], owed.rip as i32
                ; movzx r10d, WORD [selector]
                ; mov [fip + 4], r10d
            );
        } else if let Ok(low) = i32::try_from(owed.rip as i64) {
            dynasm!(self.ops ; .arch x64 ; mov QWORD [fip], low);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r10, QWORD owed.rip as i64 ; mov [fip], r10);
        }
        let Some((op, insn)) = &owed.operand else { return };
        if is_in_context(insn.memory_base()) && is_in_context(insn.memory_index()) {
            self.resident = None;
        }
        self.operand_offset_in(op, insn, 10);
        dynasm!(self.ops ; .arch x64 ; mov [fdp], r10);
        if !self.key.is_long() {
            let selector = addresses.selector(op.insn.mem.seg);
            dynasm!(self.ops ; .arch x64 ; movzx r10d, WORD [selector] ; mov [fdp + 4], r10d);
        }
    }
}
