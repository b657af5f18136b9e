//! Merged address translations: accesses off one base register that lie close together need one
//! look into the TLB.
//!
//! The first access of a group, its leader, checks the whole window that the group touches and
//! leaves the window's host address in R11 and in a slot; the others use it, with a displacement.
//! Where the leader's check fails, the helper executes its instruction and execution goes on in a
//! block that begins behind it, so that no member ever runs unchecked. A group ends where its base
//! register gets an unknown value, and in front of everything that may change the mapping.

use super::Unit;
use super::memory::{Access, goes_to_its_register};
use super::passthrough::{is_bit_string, is_written, memory_is_written};
use crate::key::Key;
use crate::regs::{STACK, is_in_context};
use crate::runtime::POINTERS;
use crate::strategy::{Emit, strategy};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register, UsedRegister};
use interp::engine::block::Op;

/// The largest window of a group, in bytes: the larger, the more often it crosses a page.
const MAX_WINDOW: i64 = 256;

/// RSP's number.
const STACK_POINTER: usize = 4;

/// An instruction's place in a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    group: usize,
    leads: bool,
    /// Of the operand, from the window's beginning.
    offset: i32,
}

/// Accesses that share a check.
#[derive(Clone, Debug)]
struct Group {
    /// Guest number of the base register, and which of its values it is.
    base: usize,
    version: u32,
    /// The window, relative to that value.
    low: i64,
    high: i64,
    /// Whether write access was checked.
    write: bool,
    /// Instruction, and offset of its operand from the value.
    members: Vec<(usize, i64)>,
    /// Where the pointer is kept, once the plan is made; none where R11 is enough.
    slot: Option<usize>,
    /// The leader was emitted as one.
    established: bool,
}

/// The groups of a block.
#[derive(Default, Debug)]
pub(super) struct Plan {
    groups: Vec<Group>,
    members: Vec<Option<Member>>,
}

/// What is known of the registers while a plan is made.
struct Tracker {
    version: [u32; 16],
    /// How far a register has moved from the value of its version.
    moved: [i64; 16],
    factory: InstructionInfoFactory,
}

impl Plan {
    /// The plan for a block under `key`.
    pub(super) fn new(key: Key, ops: &[Op], insns: &[Instruction]) -> Plan {
        let mut plan = Plan { groups: Vec::new(), members: vec![None; ops.len()] };
        if !key.is_plain() {
            return plan;
        }
        let word = if key.is_long() { 8 } else { 4 };
        let mut tracker =
            Tracker { version: [0; 16], moved: [0; 16], factory: InstructionInfoFactory::new() };
        let mut closed = 0;
        let mut keeps = Vec::with_capacity(ops.len());
        for (i, (op, insn)) in ops.iter().zip(insns).enumerate() {
            if may_change_mapping(key, op, insn) {
                closed = plan.groups.len();
            } else if let Some(Operand { base, displacement, size, write }) =
                simple_operand(key, op, insn, word).or_else(|| stack_operand(op, insn, word))
            {
                let at = tracker.moved[base] + displacement;
                let version = tracker.version[base];
                let fits = |g: &Group| {
                    (g.base, g.version) == (base, version)
                        && (g.write || !write)
                        && g.high.max(at + size) - g.low.min(at) <= MAX_WINDOW
                };
                let member = (i, at);
                match plan.groups[closed..].iter_mut().rev().find(|g| fits(g)) {
                    Some(group) => {
                        group.low = group.low.min(at);
                        group.high = group.high.max(at + size);
                        group.members.push(member);
                    }
                    None => plan.groups.push(Group {
                        base,
                        version,
                        low: at,
                        high: at + size,
                        write,
                        members: vec![member],
                        slot: None,
                        established: false,
                    }),
                }
            }
            tracker.execute(insn, word);
            keeps.push(keeps_pointer(key, op, insn));
        }
        plan.settle(&keeps);
        plan
    }

    /// Drops the groups of one, finds slots for the others and enters their members. `keeps` tells
    /// which instructions keep R11.
    fn settle(&mut self, keeps: &[bool]) {
        let mut busy = [0; POINTERS];
        for (number, group) in self.groups.iter_mut().enumerate() {
            let (Some(&(first, _)), Some(&(last, _))) =
                (group.members.first(), group.members.last())
            else {
                continue;
            };
            if first == last {
                continue;
            }
            let between =
                |pair: &[(usize, i64)]| keeps[pair[0].0 + 1..pair[1].0].iter().all(|&k| k);
            if !group.members.windows(2).all(between) {
                let Some(slot) = busy.iter().position(|&until| until <= first) else { continue };
                busy[slot] = last + 1;
                group.slot = Some(slot);
            }
            for (k, &(i, at)) in group.members.iter().enumerate() {
                let offset = (at - group.low) as i32;
                self.members[i] = Some(Member { group: number, leads: k == 0, offset });
            }
        }
    }
}

impl Tracker {
    /// Follows the registers through an instruction.
    fn execute(&mut self, insn: &Instruction, word: u32) {
        let step = known_step(insn, word);
        let info = self.factory.info(insn);
        for used in info.used_registers() {
            let Some(n) = written_gpr(used) else { continue };
            match step {
                Some((register, by)) if register == n => self.moved[n] += by,
                Some(_) | None => {
                    self.version[n] += 1;
                    self.moved[n] = 0;
                }
            }
        }
    }
}

/// The number of the general-purpose register that is written, if one is.
pub(super) fn written_gpr(used: &UsedRegister) -> Option<usize> {
    let written = is_written(used.access()) && used.register().is_gpr();
    written.then(|| used.register().full_register().number())
}

/// A register that the instruction moves by a known distance, and the distance.
fn known_step(insn: &Instruction, word: u32) -> Option<(usize, i64)> {
    let whole = |r: Register| r.is_gpr() && r.size() as u32 == word;
    let number = |r: Register| r.full_register().number();
    let target = insn.op0_register();
    match insn.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop => {
            let pops_pointer = insn.mnemonic() == Mnemonic::Pop
                && insn.op0_kind() == OpKind::Register
                && number(target) == STACK_POINTER;
            (!pops_pointer).then(|| (STACK_POINTER, i64::from(insn.stack_pointer_increment())))
        }
        Mnemonic::Add | Mnemonic::Sub
            if insn.op0_kind() == OpKind::Register
                && whole(target)
                && !matches!(insn.op1_kind(), OpKind::Register | OpKind::Memory) =>
        {
            let by = i64::from(insn.immediate(1) as i32);
            let by = if insn.mnemonic() == Mnemonic::Add { by } else { -by };
            Some((number(target), by))
        }
        Mnemonic::Inc | Mnemonic::Dec if insn.op0_kind() == OpKind::Register && whole(target) => {
            Some((number(target), if insn.mnemonic() == Mnemonic::Inc { 1 } else { -1 }))
        }
        Mnemonic::Lea
            if whole(target)
                && insn.memory_base() == target
                && insn.memory_index() == Register::None =>
        {
            Some((number(target), i64::from(insn.memory_displacement64() as i32)))
        }
        _ => None,
    }
}

/// What an instruction accesses in memory.
struct Operand {
    /// Guest number of the base register.
    base: usize,
    displacement: i64,
    size: i64,
    write: bool,
}

/// The word that a push, pop, call or return accesses.
fn stack_operand(op: &Op, insn: &Instruction, word: u32) -> Option<Operand> {
    let size = i64::from(word);
    let by = i64::from(insn.stack_pointer_increment());
    let write = match insn.mnemonic() {
        Mnemonic::Push if by == -size && !op.insn.has_mem() && is_word_or_immediate(insn) => true,
        Mnemonic::Call if insn.is_call_near() || insn.is_call_near_indirect() => true,
        Mnemonic::Pop if by == size && !op.insn.has_mem() && is_word_or_immediate(insn) => false,
        Mnemonic::Ret if u32::from(op.insn.op_size) == word => false,
        _ => return None,
    };
    let displacement = if write { -size } else { 0 };
    Some(Operand { base: STACK_POINTER, displacement, size, write })
}

/// A general-purpose register or an immediate: what is pushed and popped without a check.
fn is_word_or_immediate(insn: &Instruction) -> bool {
    insn.op0_kind() != OpKind::Register || insn.op0_register().is_gpr()
}

/// The operand of a copy that can be a member.
fn simple_operand(key: Key, op: &Op, insn: &Instruction, word: u32) -> Option<Operand> {
    let base = insn.memory_base();
    let displacement = i64::from(insn.memory_displacement64() as i32);
    let copied = match strategy(op, key) {
        Emit::Passthrough => true,
        Emit::Custom(_) => insn.mnemonic() == Mnemonic::Mov,
        Emit::Helper => false,
    };
    let simple = op.insn.has_mem()
        && copied
        && base.is_gpr()
        && insn.memory_index() == Register::None
        && u32::from(op.insn.mem.addr_size) == word
        && key.is_plain_segment(op.insn.mem.seg)
        && (1..=64).contains(&op.insn.mem.size)
        && !insn.is_vsib()
        && !is_bit_string(insn)
        && alignment(op, insn) == 1
        // The window's beginning must be in reach of a displacement, too.
        && displacement >= i64::from(i32::MIN) + MAX_WINDOW;
    simple.then(|| Operand {
        base: base.full_register().number(),
        displacement,
        size: i64::from(op.insn.mem.size),
        write: writes(op, insn),
    })
}

/// The alignment that an access is checked for.
fn alignment(op: &Op, insn: &Instruction) -> u32 {
    match native::thunk(op.insn.handle) {
        Some(native::Prepared::Cached(thunk)) if op.insn.handle != 0 => u32::from(thunk.alignment),
        Some(_) | None if op.insn.handle != 0 => 0,
        Some(_) | None => {
            let atomic = insn.has_lock_prefix()
                || matches!(insn.mnemonic(), Mnemonic::Xchg | Mnemonic::Cmpxchg16b);
            if atomic { 0 } else { 1 }
        }
    }
}

fn writes(op: &Op, insn: &Instruction) -> bool {
    match native::thunk(op.insn.handle) {
        Some(native::Prepared::Cached(thunk)) if op.insn.handle != 0 => {
            !matches!(thunk.memory, native::MemoryUse::None | native::MemoryUse::Read)
        }
        Some(_) | None => memory_is_written(insn),
    }
}

/// Whether the emission of an instruction, which is no member, leaves R11 alone, as far as can be
/// told before. (Where this is wrong, a member does without its group.)
fn keeps_pointer(key: Key, op: &Op, insn: &Instruction) -> bool {
    let registers_only = || {
        let in_context =
            |&i: &u32| insn.op_kind(i) == OpKind::Register && is_in_context(insn.op_register(i));
        !op.insn.has_mem() && (0..insn.op_count()).filter(in_context).count() <= 1
    };
    match strategy(op, key) {
        Emit::Passthrough => registers_only(),
        Emit::Custom(_) => match insn.mnemonic() {
            Mnemonic::Mov => registers_only() && !may_change_mapping(key, op, insn),
            Mnemonic::Lea => goes_to_its_register(op, insn).is_some(),
            Mnemonic::Nop | Mnemonic::Reservednop => true,
            _ => insn.is_jcc_short_or_near(),
        },
        Emit::Helper => false,
    }
}

/// Whether translations of addresses may be others behind the instruction.
fn may_change_mapping(key: Key, op: &Op, insn: &Instruction) -> bool {
    match strategy(op, key) {
        Emit::Passthrough => false,
        Emit::Custom(_) => match insn.mnemonic() {
            Mnemonic::Push | Mnemonic::Pop | Mnemonic::Lea => false,
            Mnemonic::Nop => false,
            Mnemonic::Reservednop => insn.op0_kind() == OpKind::Register,
            Mnemonic::Call | Mnemonic::Ret => false,
            Mnemonic::Fldcw | Mnemonic::Fnstcw | Mnemonic::Fnstsw => false,
            Mnemonic::Div | Mnemonic::Idiv => false,
            // Control and segment registers are the helper's.
            Mnemonic::Mov => (0..insn.op_count())
                .any(|i| insn.op_kind(i) == OpKind::Register && !insn.op_register(i).is_gpr()),
            _ => !insn.is_jcc_short_or_near(),
        },
        Emit::Helper => true,
    }
}

impl Unit<'_> {
    /// The current instruction's place in a group, if its operand is to be reached that way. Any
    /// pointer that R11 holds is lost where it is not.
    pub(super) fn member(&self) -> Option<Member> {
        let member = self.plan.members.get(self.index).copied().flatten()?;
        let known = self.plan.groups[member.group].established
            && (self.carried == Some(member.group) || self.slot(member).is_some());
        (member.leads || known).then_some(member)
    }

    /// Whether instruction `index`, the one behind the current one, is a member that needs no check.
    pub(super) fn will_be_known(&self, index: usize) -> bool {
        let member = self.plan.members.get(index).copied().flatten();
        member.is_some_and(|member| {
            !member.leads
                && self.plan.groups[member.group].established
                && (self.resident == Some(member.group) || self.slot(member).is_some())
        })
    }

    fn slot(&self, member: Member) -> Option<i32> {
        let slot = self.plan.groups[member.group].slot?;
        Some(self.env.addresses.pointers + 8 * slot as i32)
    }

    /// Makes R11 plus [`Member::displacement`] the memory operand's host address. A leader destroys
    /// R10 and EFLAGS; the others keep them.
    pub(super) fn member_access(&mut self, op: &Op, insn: &Instruction, member: Member) {
        if member.leads {
            self.before_clobber();
            self.load_operand_base(op, insn, -i64::from(member.offset));
        }
        self.use_pointer(op, member);
    }

    /// The same for the word at the stack pointer plus `by`.
    pub(super) fn member_stack_access(&mut self, op: &Op, member: Member, by: i32) {
        if member.leads {
            self.before_clobber();
            let from = by - member.offset;
            self.add_constant(self.stack_word(), 11, STACK, from);
        }
        self.use_pointer(op, member);
    }

    /// Puts the group's pointer into R11, which holds the window's linear address where `member`
    /// leads.
    fn use_pointer(&mut self, op: &Op, member: Member) {
        let group = &self.plan.groups[member.group];
        if member.leads {
            let size = (group.high - group.low) as u32;
            let write = group.write;
            let slow = self.label();
            self.lookup(Access { size, write, align: 1 }, slow, true);
            if let Some(slot) = self.slot(member) {
                dynasm!(self.ops ; .arch x64 ; mov [slot], r11);
            }
            self.add_leaving(op, slow);
            self.plan.groups[member.group].established = true;
        } else if self.carried != Some(member.group)
            && let Some(slot) = self.slot(member)
        {
            dynasm!(self.ops ; .arch x64 ; mov r11, [slot]);
        }
        self.carried = Some(member.group);
        self.resident = Some(member.group);
    }

    /// R11 holds the pointer still that it held before the current instruction.
    pub(super) fn keep_pointer(&mut self) {
        self.resident = self.carried;
    }
}

impl Member {
    /// Displacement of the operand.
    pub(super) fn displacement(self) -> i32 {
        self.offset
    }
}
