//! Emission of one block.
//!
//! Hot code first, then the cold section: slow paths of memory accesses, side exits, trampolines
//! of links that are not patched yet. R10 and R11 are scratch inside an instruction; nothing of
//! them survives to the next.

mod assembler;
mod bit_string;
mod branch;
mod cold;
mod counter;
mod divide;
mod entry;
mod flags;
mod hint;
mod memory;
mod merge;
mod notes;
mod passthrough;
mod segment;
mod segment_branch;
mod segment_load;
mod segment_stack;
mod stack;
mod string;
mod system;
mod vector;
mod x87;

use crate::addresses::Addresses;
use crate::arena::Spot;
use crate::helper::Site;
use crate::key::Key;
use crate::liveness::{Effects, analyze, effects};
use crate::profile::Mix;
use crate::segments::CodeSegment;
use crate::strategy::{Emit, strategy};
use crate::stubs::Stubs;
use assembler::Assembler;
pub(crate) use cold::Cold;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
pub(crate) use flags::FlagState;
use iced_x86::{Encoder, Instruction, OpKind};
use interp::engine::block::Op;
use merge::Plan;
pub use notes::Strategy;
pub(crate) use notes::{Notes, Part};

/// A direct exit that may be linked to its target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkRequest {
    /// Offset of the 32-bit displacement of the jump.
    pub(crate) site: usize,
    /// Offset of the code that leaves instead.
    pub(crate) trampoline: usize,
    /// Target RIP.
    pub(crate) target: u64,
    /// The flags are in the slot, not in EFLAGS.
    pub(crate) saved: bool,
    /// The target's key.
    pub(crate) key: Key,
}

/// A link of an emitted block.
pub(crate) struct Exit {
    pub(crate) request: LinkRequest,
    /// Address of the displacement, and of the code that leaves instead.
    pub(crate) site: u64,
    pub(crate) trampoline: u64,
}

/// What does not change between blocks.
pub(crate) struct Environment<'a> {
    pub(crate) addresses: &'a Addresses,
    pub(crate) stubs: &'a Stubs,
    /// The inline cache of indirect branches for the block's key.
    pub(crate) indirect: i32,
    /// The same behind a STAC or CLAC in the block.
    pub(crate) indirect_behind: i32,
    /// The block's code segment.
    pub(crate) segment: CodeSegment,
    pub(crate) sites: &'a mut Vec<Site>,
    /// Accesses may share checks.
    pub(crate) merge: bool,
    /// The budget is kept.
    pub(crate) exact: bool,
    /// Number of the first link of the block.
    pub(crate) first_link: u32,
    /// The vector instructions that the guest's CPU has.
    pub(crate) policy: &'a x86::cpuid::Policy,
    /// What the host has.
    pub(crate) host: crate::stubs::Host,
    pub(crate) helpers_only: bool,
    pub(crate) precise_flags: bool,
    /// The first of the counters that the block is to keep: entries, then side exits.
    pub(crate) counter: Option<i32>,
}

/// A block's host code.
pub(crate) struct Emitted {
    pub(crate) hot: Vec<u8>,
    pub(crate) cold: Vec<u8>,
    /// Address of the entry with flags in EFLAGS.
    pub(crate) direct: u64,
    /// Address of the entry with flags in the slot.
    pub(crate) saved: u64,
    pub(crate) exits: Vec<Exit>,
    /// What the code is for.
    pub(crate) notes: Notes,
}

/// A block being emitted.
pub(crate) struct Unit<'a> {
    ops: Assembler,
    encoder: Encoder,
    env: Environment<'a>,
    key: Key,
    effects: Vec<Effects>,
    live: Vec<u32>,
    /// The instruction being emitted.
    index: usize,
    count: usize,
    /// Instructions of one copy of an unrolled loop, and RIP of the first.
    body: usize,
    start: u64,
    flags: FlagState,
    cold: Vec<Cold>,
    links: Vec<LinkRequest>,
    notes: Notes,
    /// Number of the block's first site.
    first_site: usize,
    /// Displacements of branches to the cold section, and where they lead.
    fixups: Vec<(usize, usize)>,
    /// Vector registers are in the host's for certain.
    vectors: bool,
    /// x87 state is in the host's for certain.
    x87: bool,
    /// Pointers of x87 copies that are still to be noted.
    x87_pointers: Option<Box<x87::Pointers>>,
    /// Nothing follows: an unconditional branch was emitted.
    ended: bool,
    /// An instruction could not be encoded: the block is the interpreter's.
    broken: bool,
    /// RIP of the current instruction and of the next.
    rip: u64,
    next: u64,
    plan: Plan,
    /// The group whose pointer R11 held in front of the current instruction, and behind it.
    carried: Option<usize>,
    resident: Option<usize>,
    /// How far the stack pointer is to be moved yet.
    owed: i32,
}

/// Emits the block of `insns` at `rip` for the arena's `spot`.
pub(crate) fn emit_block(
    spot: Spot,
    rip: u64,
    key: Key,
    insns: &[Op],
    env: Environment<'_>,
) -> Option<Emitted> {
    let copies = if env.helpers_only { 1 } else { unroll(rip, key, insns) };
    let count = insns.len() * copies;
    let insns: Vec<Op> = insns.iter().copied().cycle().take(count).collect();
    let mut at = rip;
    let mut iced = Vec::with_capacity(count);
    for (i, op) in insns.iter().enumerate() {
        if i % (count / copies) == 0 {
            at = rip;
        }
        iced.push(op.insn.to_iced(at));
        at = key.wrap(at.wrapping_add(u64::from(op.insn.len)));
    }
    let effects: Vec<Effects> = iced.iter().map(|insn| effects(insn, env.precise_flags)).collect();
    let live = analyze(&iced, &effects, env.precise_flags);
    let first_site = env.sites.len();
    let plan = if env.helpers_only || !env.merge {
        Plan::default()
    } else {
        Plan::new(key, &insns, &iced)
    };
    let unit = Unit {
        ops: Assembler::new(spot),
        encoder: Encoder::new(64),
        env,
        key,
        effects,
        live,
        index: 0,
        count,
        body: count / copies,
        start: rip,
        flags: FlagState::SAVED,
        cold: Vec::new(),
        links: Vec::new(),
        notes: Notes::default(),
        first_site,
        fixups: Vec::new(),
        vectors: false,
        x87: false,
        x87_pointers: None,
        ended: false,
        broken: false,
        rip,
        next: rip,
        plan,
        carried: None,
        resident: None,
        owed: 0,
    };
    unit.run(&insns, &iced)
}

/// How often to lay the body of a loop that is one block behind itself: the count and the poll at
/// the entry are then done once for all copies.
fn unroll(rip: u64, key: Key, insns: &[Op]) -> usize {
    const MAX_INSTRUCTIONS: usize = 32;
    const MAX_COPIES: usize = 4;
    let length = |op: &Op| u64::from(op.insn.len);
    let Some((last, body)) = insns.split_last() else { return 1 };
    let at = body.iter().fold(rip, |at, op| key.wrap(at.wrapping_add(length(op))));
    let branch = last.insn.to_iced(at);
    let kind = match key.mode().bits() {
        64 => OpKind::NearBranch64,
        32 => OpKind::NearBranch32,
        _ => OpKind::NearBranch16,
    };
    let closes = branch.is_jcc_short_or_near()
        && branch.op0_kind() == kind
        && key.wrap(branch.near_branch_target()) == rip;
    if closes { (MAX_INSTRUCTIONS / insns.len()).clamp(1, MAX_COPIES) } else { 1 }
}

impl<'a> Unit<'a> {
    fn run(mut self, insns: &[Op], iced: &[Instruction]) -> Option<Emitted> {
        self.note(Part::Entry);
        let (direct, saved) = self.entry(insns, iced);
        for (i, (op, insn)) in insns.iter().zip(iced).enumerate() {
            self.begin(i, op);
            self.note(Part::Instruction(i));
            self.instruction(op, insn)?;
            let run_goes_on = insns
                .get(i + 1)
                .zip(iced.get(i + 1))
                .is_some_and(|(op, insn)| self.owed != 0 && self.continues_run(i + 1, op, insn));
            if !run_goes_on {
                self.pay_stack();
            }
            let next = insns.get(i + 1).zip(iced.get(i + 1));
            if !next.is_some_and(|(op, insn)| self.may_owe_x87_pointers(i + 1, op, insn)) {
                self.pay_x87_pointers();
            }
        }
        if !self.ended {
            self.note(Part::End);
            let next = self.next;
            self.exit_to(next);
        }
        if self.broken {
            return None;
        }
        self.ops.begin_cold();
        self.emit_cold();
        self.note_strategies_at_sites();
        let links = self.links.iter().map(|link| (link.site, link.trampoline));
        for (site, target) in links.chain(self.fixups.iter().copied()) {
            self.ops.lead(site, target)?;
        }
        let (direct, saved) = (self.ops.address(direct), self.ops.address(saved));
        let exits = (self.links.iter())
            .map(|link| Exit {
                site: self.ops.address(link.site),
                trampoline: self.ops.address(link.trampoline),
                request: *link,
            })
            .collect();
        let (hot, cold) = self.ops.finalize().ok()?;
        Some(Emitted { hot, cold, direct, saved, exits, notes: self.notes })
    }

    /// Makes `op`, the one behind the current instruction, the current one.
    fn begin(&mut self, index: usize, op: &Op) {
        self.index = index;
        self.carried = self.resident.take();
        self.rip = if index.is_multiple_of(self.body) { self.start } else { self.next };
        self.next = self.key.wrap(self.rip.wrapping_add(u64::from(op.insn.len)));
    }

    fn instruction(&mut self, op: &Op, insn: &Instruction) -> Option<()> {
        if !self.env.helpers_only {
            let done = match strategy(op, self.key) {
                Emit::Helper => false,
                Emit::Passthrough => self.passthrough(op, insn),
                Emit::Custom(emit) => {
                    self.note_strategy(Strategy::Custom);
                    emit(self, op, insn)
                }
            };
            if done {
                return Some(());
            }
        }
        self.note_strategy(Strategy::Helper);
        self.call_helper(op);
        Some(())
    }

    /// Calls the interpreter's definition of the current instruction.
    fn call_helper(&mut self, op: &Op) {
        self.pay_x87_pointers();
        if !self.flags.slot {
            self.save_flags();
        }
        let site = self.site(op, false);
        dynasm!(self.ops ; .arch x64 ; mov r11d, site as i32);
        self.call(self.env.stubs.helper);
        self.flags = FlagState::SAVED;
        self.vectors = false;
        self.x87 = false;
        self.carried = None;
        self.resident = None;
    }

    /// Registers the current instruction as a place that calls a helper.
    fn site(&mut self, op: &Op, slow: bool) -> u32 {
        let number = self.env.sites.len() as u32;
        self.env.sites.push(Site {
            op: *op,
            rip: self.rip,
            next: self.next,
            rest: (self.count - self.index) as u32,
            key: self.key,
            changes_key: changes_key(op),
            slow,
            leaves: false,
            block: self.start,
            strategy: Strategy::Helper,
            behind: Mix::default(),
        });
        number
    }

    fn offset(&self) -> usize {
        self.ops.offset().0
    }

    fn label(&mut self) -> DynamicLabel {
        self.ops.new_dynamic_label()
    }

    fn place(&mut self, label: DynamicLabel) {
        dynasm!(self.ops ; .arch x64 ; =>label);
    }

    /// A call of a stub.
    fn call(&mut self, target: u64) {
        self.ops.push(0xE8);
        self.relative(target);
    }

    /// A jump to a stub.
    fn jump(&mut self, target: u64) {
        self.ops.push(0xE9);
        self.relative(target);
    }

    fn relative(&mut self, target: u64) {
        let end = self.ops.address(self.offset()) + 4;
        self.ops.push_i32(target.wrapping_sub(end) as i32);
    }

    /// Encodes an instruction with iced.
    fn put(&mut self, insn: &Instruction) {
        let at = self.ops.address(self.offset());
        let ok = self.encoder.encode(insn, at).is_ok();
        let mut buffer = self.encoder.take_buffer();
        if ok {
            self.ops.extend(&buffer);
        }
        self.broken |= !ok;
        buffer.clear();
        self.encoder.set_buffer(buffer);
    }

    /// Whether iced can encode it.
    fn encodes(&mut self, insn: &Instruction) -> bool {
        let at = self.ops.address(self.offset());
        let ok = self.encoder.encode(insn, at).is_ok();
        let mut buffer = self.encoder.take_buffer();
        buffer.clear();
        self.encoder.set_buffer(buffer);
        ok
    }

    /// The flags that are live before the current instruction, and behind it.
    fn live_before(&self) -> u32 {
        self.live[self.index]
    }
    fn live_after(&self) -> u32 {
        self.live[self.index + 1]
    }
}

/// Whether the instruction may change what a [`Key`] holds without saying so by its `Flow`:
/// floating-point control.
fn changes_key(op: &Op) -> bool {
    use decoder::Mnemonic::*;
    matches!(
        op.insn.mnemonic(),
        Ldmxcsr
            | Vldmxcsr
            | Fldcw
            | Fldenv
            | Frstor
            | Fninit
            | Fnclex
            | Fnsave
            | Fnstenv
            | Fxrstor
            | Fxrstor64
            | Xrstor
            | Xrstor64
    )
}
