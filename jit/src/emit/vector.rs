//! x87, MMX, SSE, AVX and AVX-512 instructions as copies, on registers loaded when first needed.

use super::memory::Access;
use super::passthrough::{map_registers, set_host_address, simplify};
use super::{Cold, Unit};
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, Mnemonic};
use interp::engine::block::Op;
use native::{MemoryUse, Prepared, Traits, Unit as Kind};

/// What a block must have loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Vectors,
    X87,
    Both,
}

impl Unit<'_> {
    /// What a copy of `op` needs; none where the helper must run it.
    ///
    /// Whatever needs something later in the block must say so here: what the entry did not load
    /// may be in the host's registers all the same, left there by the block before, and loading
    /// it then would bring back old values from the context.
    fn needs(&self, op: &Op) -> Option<Needs> {
        if op.insn.mnemonic() == Mnemonic::Vzeroupper {
            return self.copies_vzeroupper().then_some(Needs::Vectors);
        }
        if matches!(op.insn.mnemonic(), Mnemonic::Fldcw | Mnemonic::Fnstsw) {
            return self.key.x87().then_some(Needs::X87);
        }
        let thunk = traits(op)?;
        if !thunk.needs.iter().all(|&feature| self.env.policy.has(feature)) {
            return None;
        }
        match thunk.unit {
            Kind::Sse if self.key.sse() && !thunk.uses_x87 => Some(Needs::Vectors),
            Kind::Vex if self.key.avx() && !thunk.uses_x87 => Some(Needs::Vectors),
            Kind::X87 if self.key.x87() => Some(Needs::X87),
            // CVTPI2PS and its like use both files.
            Kind::Mmx if self.key.x87() && self.key.sse() => Some(Needs::Both),
            Kind::Opmask | Kind::Evex if self.key.avx512() && self.env.host.avx512 => {
                Some(Needs::Vectors)
            }
            Kind::Sse | Kind::Vex | Kind::X87 | Kind::Mmx | Kind::Opmask | Kind::Evex => None,
        }
    }

    /// Whether any of the instructions needs registers loaded.
    pub(super) fn needs_units(&self, insns: &[Op]) -> bool {
        insns.iter().any(|op| self.needs(op).is_some())
    }

    /// At the block's entry, where flags are free: loads what the block's instructions need.
    pub(super) fn load_units_at_entry(&mut self, insns: &[Op]) {
        if self.env.helpers_only {
            return;
        }
        let needs: Vec<_> = insns.iter().filter_map(|op| self.needs(op)).collect();
        if needs.iter().any(|&n| n != Needs::X87) {
            let (label, back) = (self.label(), self.label());
            let loaded = self.env.addresses.vector_loaded;
            dynasm!(self.ops ; .arch x64 ; cmp DWORD [loaded], 0 ; je =>label ; =>back);
            self.cold.push(Cold::LoadVectors { label, back });
            self.vectors = true;
        }
        if needs.iter().any(|&n| n != Needs::Vectors) {
            let (label, back) = (self.label(), self.label());
            let loaded = self.env.addresses.x87_loaded;
            dynasm!(self.ops ; .arch x64 ; cmp DWORD [loaded], 0 ; je =>label ; =>back);
            self.cold.push(Cold::LoadX87 { label, back });
            self.x87 = true;
        }
    }

    fn copies_vzeroupper(&self) -> bool {
        self.env.policy.has(x86::cpuid::Feature::Avx) && self.key.avx()
    }

    /// Loads what a helper in this block has saved.
    pub(super) fn load_units(&mut self, needs: Needs) {
        if needs != Needs::X87 && !self.vectors {
            self.call(self.env.stubs.load_vectors);
            self.vectors = true;
        }
        if needs != Needs::Vectors && !self.x87 {
            self.carried = None;
            self.call(self.env.stubs.load_x87);
            self.x87 = true;
        }
    }

    /// VZEROUPPER.
    pub(crate) fn vzeroupper(&mut self, _: &Op, insn: &Instruction) -> bool {
        if !self.copies_vzeroupper() || !self.encodes(insn) {
            return false;
        }
        self.load_units(Needs::Vectors);
        self.note_copy();
        self.put(insn);
        true
    }

    /// A copy of a vector or x87 instruction.
    pub(super) fn vector(&mut self, op: &Op, insn: &Instruction) -> bool {
        let Some(needs) = self.needs(op) else { return false };
        let Some(thunk) = traits(op) else { return false };
        let memory = thunk.memory != MemoryUse::None;
        let mut copy = *insn;
        simplify(&mut copy);
        let scratch: &[u8] = if memory { &[10] } else { &[10, 11] };
        let Some(borrowed) = map_registers(&mut copy, insn, scratch) else { return false };
        if !memory {
            if !self.encodes(&copy) {
                return false;
            }
            self.load_units(needs);
            self.before_flag_use();
            self.borrow_registers(&borrowed);
            self.note_copy();
            self.put(&copy);
            self.give_back(&borrowed);
            self.after_flag_write();
            if borrowed.entries.len() <= 1 {
                self.keep_pointer();
            }
            if thunk.unit == Kind::X87 {
                self.owe_x87_pointers(op, insn);
            }
            return true;
        }
        let member = self.member();
        set_host_address(&mut copy, true, member);
        let size = u32::from(thunk.memory_size);
        if !self.can_access(op) || !matches!(size, 1..=64) || !self.encodes(&copy) {
            return false;
        }
        self.load_units(needs);
        let write = matches!(thunk.memory, MemoryUse::Write | MemoryUse::ReadWrite);
        let access = Access { size, write, align: u32::from(thunk.alignment) };
        // Loading units has destroyed R11: then a member comes by its slot, if it has one.
        let member = self.member().filter(|_| member.is_some());
        set_host_address(&mut copy, true, member);
        self.copy_with_memory((op, insn), access, (&copy, &borrowed), (member, true));
        if thunk.unit == Kind::X87 {
            self.owe_x87_pointers(op, insn);
        }
        true
    }
}

/// What is to be done around an instruction that the host executes.
fn traits(op: &Op) -> Option<Traits> {
    match native::thunk(op.insn.handle)? {
        Prepared::Cached(thunk) => Some(thunk.traits),
        Prepared::Uncached => native::traits(&op.insn),
    }
}
