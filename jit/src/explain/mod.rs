//! Guest code beside the host code that it became.
//!
//! An [`Explanation`] is one translated block as data: its guest instructions, its host code in
//! pieces with the purpose of each, its links. `Display` of a [`View`] of it is the listing that
//! `ringshift explain` prints; the golden listings in `jit/src/golden` are the same data.

mod names;
mod render;
mod sample;
#[cfg(test)]
mod tests;

use crate::arena::Spot;
pub use crate::emit::Strategy;
pub use render::View;
pub use sample::{Code, ExplainError};

use crate::Engine;
use crate::cache::Place;
use crate::emit::{Notes, Part};
use crate::key::Key;
use hashbrown::HashMap;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, Mnemonic};
use interp::engine::block::Op;
use names::Names;
use softmmu::{Mmu, Rights};
use x86::Cpu;

/// What the emitter left behind about a block.
pub(crate) struct BlockNotes {
    pub(crate) notes: Notes,
    /// The guest's instructions, one copy of an unrolled loop.
    pub(crate) ops: Box<[Op]>,
    /// Addresses and lengths of the host code.
    pub(crate) spot: Spot,
    pub(crate) hot: usize,
    pub(crate) cold: usize,
}

impl BlockNotes {
    /// Address of the code at an offset, which counts through hot and cold code.
    fn address(&self, offset: usize) -> u64 {
        match offset.checked_sub(self.hot) {
            Some(cold) => self.spot.cold + cold as u64,
            None => self.spot.hot + offset as u64,
        }
    }

    /// The inverse; none for addresses outside of the block.
    fn offset(&self, address: u64) -> Option<usize> {
        let hot = address.wrapping_sub(self.spot.hot);
        let cold = address.wrapping_sub(self.spot.cold);
        if hot < self.hot as u64 {
            Some(hot as usize)
        } else {
            (cold < self.cold as u64).then(|| self.hot + cold as usize)
        }
    }
}

/// A translated block.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Linear address of the first instruction.
    pub linear: u64,
    /// Its physical address, where the code is a guest's.
    pub gpa: Option<u64>,
    /// What the translation relies on besides the bytes, in words.
    pub mode: String,
    /// Guest instructions, one copy of an unrolled loop.
    pub guest: Vec<GuestInsn>,
    /// Copies of an unrolled loop; 1 where there is none.
    pub copies: usize,
    /// The host code, in order.
    pub pieces: Vec<Piece>,
    /// Direct exits.
    pub links: Vec<LinkState>,
}

/// A guest instruction.
#[derive(Clone, Debug)]
pub struct GuestInsn {
    /// Instruction pointer: the linear address, but for segments with a base.
    pub rip: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Assembly, Intel syntax.
    pub text: String,
    /// How it was emitted.
    pub strategy: Strategy,
}

/// Host code with one purpose.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What it is for.
    pub purpose: Purpose,
    /// The code.
    pub lines: Vec<HostInsn>,
}

/// What a piece of host code is for. Instructions are counted from 0 over all copies of a loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Entering the block: flags, instruction count, poll.
    Entry,
    /// A guest instruction.
    Instruction(usize),
    /// Going on behind the last instruction.
    End,
    /// An instruction whose memory access, or another condition, needs the interpreter.
    SlowPath(usize),
    /// A branch taken in the middle of the block.
    SideExit(usize),
    /// Leaving at the entry, for a request or at the instruction limit.
    Poll,
    /// Forgetting which returns are expected, where the host stack of them is full.
    StackFull,
    /// A constant, not code.
    Constant,
    /// Loading the guest's vector registers.
    LoadVectors,
    /// Loading the guest's x87 state.
    LoadX87,
    /// Leaving through a link that has no target yet.
    Trampoline(usize),
}

impl Purpose {
    /// Whether it lies behind the code that is executed as a rule.
    pub fn is_cold(self) -> bool {
        match self {
            Purpose::Entry | Purpose::Instruction(_) | Purpose::End => false,
            Purpose::SlowPath(_)
            | Purpose::SideExit(_)
            | Purpose::Poll
            | Purpose::StackFull
            | Purpose::Constant
            | Purpose::LoadVectors
            | Purpose::LoadX87
            | Purpose::Trampoline(_) => true,
        }
    }

    /// The label of its first instruction. Instructions and links count from 1.
    pub fn label(self) -> String {
        match self {
            Purpose::Entry => "entry".into(),
            Purpose::Instruction(index) => format!("insn.{}", index + 1),
            Purpose::End => "end".into(),
            Purpose::SlowPath(index) => format!("slow.{}", index + 1),
            Purpose::SideExit(index) => format!("exit.{}", index + 1),
            Purpose::Poll => "poll".into(),
            Purpose::StackFull => "stack.full".into(),
            Purpose::Constant => "constant".into(),
            Purpose::LoadVectors => "vectors".into(),
            Purpose::LoadX87 => "x87".into(),
            Purpose::Trampoline(link) => format!("link.{}", link + 1),
        }
    }

    fn of(part: Part) -> Purpose {
        match part {
            Part::Entry => Purpose::Entry,
            Part::Instruction(index) => Purpose::Instruction(index),
            Part::End => Purpose::End,
            Part::Slow(index) => Purpose::SlowPath(index),
            Part::SideExit(index) => Purpose::SideExit(index),
            Part::Poll => Purpose::Poll,
            Part::StackFull => Purpose::StackFull,
            Part::Constant => Purpose::Constant,
            Part::LoadVectors => Purpose::LoadVectors,
            Part::LoadX87 => Purpose::LoadX87,
            Part::Trampoline(link) => Purpose::Trampoline(link),
        }
    }
}

/// A host instruction.
#[derive(Clone, Debug)]
pub struct HostInsn {
    /// Offset in the block's host code.
    pub offset: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Assembly, Intel syntax, with names for the addresses.
    pub text: String,
    /// The label that branches know it by, if one leads here.
    pub label: Option<String>,
    /// It is the guest's own instruction.
    pub copy: bool,
}

/// A direct exit.
#[derive(Clone, Debug)]
pub struct LinkState {
    /// Offset of the jump or call in the block's host code.
    pub offset: usize,
    /// Where it leads: instruction pointer.
    pub target: u64,
    /// Whether it goes straight to the target's translation.
    pub linked: bool,
}

impl Explanation {
    /// A view with the default settings: 100 columns, no colour, no cold section.
    pub fn view(&self) -> View<'_> {
        View::new(self)
    }

    /// The guest instruction that a number over all copies stands for.
    pub fn guest(&self, index: usize) -> &GuestInsn {
        &self.guest[index % self.guest.len()]
    }

    /// How many of the guest instructions were emitted by a strategy.
    pub fn count(&self, strategy: Strategy) -> usize {
        self.guest.iter().filter(|insn| insn.strategy == strategy).count()
    }

    /// Bytes of guest code.
    pub fn guest_bytes(&self) -> usize {
        self.guest.iter().map(|insn| insn.bytes.len()).sum()
    }

    /// Instructions and bytes of the host code, of the cold section or of the rest.
    pub fn host_size(&self, cold: bool) -> (usize, usize) {
        let pieces = self.pieces.iter().filter(|piece| piece.purpose.is_cold() == cold);
        pieces
            .fold((0, 0), |(count, bytes), piece| (count + piece.lines.len(), bytes + piece.size()))
    }
}

impl Piece {
    /// Bytes.
    pub fn size(&self) -> usize {
        self.lines.iter().map(|line| line.bytes.len()).sum()
    }
}

impl Engine {
    /// Watches for blocks that hold the instruction byte at linear address `rip`.
    pub fn watch(&mut self, rip: u64) {
        self.watch = Some((rip, None));
    }

    /// The block translated last that holds what is watched, if it was not dropped. The engine must
    /// have been made with [`crate::Config::notes`].
    pub fn watched(&self) -> Option<Explanation> {
        let index = self.watch?.1?;
        self.cache.is_alive(index).then(|| self.explain_block(index))?
    }

    /// The translated block that begins at the linear address `rip`, or else one that covers it.
    /// The engine must have been made with [`crate::Config::notes`].
    pub fn explain(&self, rip: u64) -> Option<Explanation> {
        self.explain_block(self.cache.at_linear(rip)?)
    }

    /// Translates the block at the CPU's state, however cold it is, and explains it.
    ///
    /// # Errors
    /// [`ExplainError`] where such code is only interpreted, or cannot be fetched.
    pub fn explain_here(
        &mut self,
        cpu: &mut Cpu,
        mmu: &mut Mmu,
    ) -> Result<Explanation, ExplainError> {
        if !self.attach(cpu, mmu) {
            return Err(ExplainError::OutOfReach);
        }
        let key = Key::of(cpu, mmu).ok_or(ExplainError::Interpreted)?;
        let linear = interp::engine::code_linear(cpu);
        mmu.fetch_translate(linear).map_err(|_| ExplainError::Unmapped(linear))?;
        let (place, _) = self.locate(cpu, mmu, key).ok_or(ExplainError::Interpreted)?;
        let index = match self.cache.find(&place) {
            Some(index) => index,
            None => self.translate(cpu, mmu, place).ok_or(ExplainError::Interpreted)?,
        };
        self.explain_block(index).ok_or(ExplainError::Interpreted)
    }

    fn explain_block(&self, index: u32) -> Option<Explanation> {
        let block = &self.cache.blocks[index as usize];
        let noted = self.notes.get(&index)?;
        let mut code = self.arena.read(noted.spot.hot, noted.hot)?;
        let cold = self.arena.read(noted.spot.cold, noted.cold)?;
        let tables = self.indirect.addresses();
        let mut names = Names::new(&self.addresses, &self.stubs?, &self.low, &tables);
        if let Some(profile) = &self.profile {
            names.set_counters(profile.region());
        }
        let copies = (noted.notes.strategies.len() / noted.ops.len().max(1)).max(1);
        let mut decoded = decode(&code, noted.spot.hot);
        decoded.extend(decode(&cold, noted.spot.cold));
        code.extend(cold);
        self.name_places(&mut names, noted, &decoded, (block.direct, block.saved));
        let links = (self.cache.links_of(index).iter())
            .filter_map(|link| {
                let offset = noted.offset(link.site)? - 1;
                Some(LinkState { offset, target: link.target, linked: link.to.is_some() })
            })
            .collect();
        Some(Explanation {
            linear: block.place.linear,
            gpa: Some(block.place.gpa),
            mode: mode_in_words(block.place.key),
            guest: guest_insns(noted, block.place),
            copies,
            pieces: pieces(noted, &decoded, &code, &names),
            links,
        })
    }

    /// Gives labels to the parts of the block, to branch targets inside of it, and to other blocks
    /// that it leads to.
    fn name_places(
        &self,
        names: &mut Names,
        noted: &BlockNotes,
        decoded: &[Instruction],
        (direct, saved): (u64, u64),
    ) {
        for &(offset, part) in noted.notes.marks.iter().rev() {
            names.set_code(noted.address(offset), Purpose::of(part).label());
        }
        names.set_code(direct, "entry".into());
        if direct != saved {
            names.set_code(saved, "entry.saved".into());
        }
        let mut others = 0;
        for insn in decoded.iter().filter(|insn| is_near_branch(insn)) {
            let target = insn.near_branch_target();
            if names.code(target).is_some() {
                continue;
            }
            if noted.offset(target).is_some() {
                others += 1;
                names.set_code(target, format!(".{others}"));
            } else if let Some((block, saved)) = self.cache.entered_at(target) {
                let entry = if saved { ".saved" } else { "" };
                names.set_code(target, format!("block {:#x}{entry}", block.place.rip));
            }
        }
    }
}

fn is_near_branch(insn: &Instruction) -> bool {
    insn.op_count() == 1 && insn.op0_kind() == iced_x86::OpKind::NearBranch64
}

fn decode(code: &[u8], base: u64) -> Vec<Instruction> {
    Decoder::with_ip(64, code, base, DecoderOptions::NONE).iter().collect()
}

fn formatter(names: Option<&Names>) -> IntelFormatter {
    let resolver = names.map(|names| Box::new(names.clone()) as Box<dyn iced_x86::SymbolResolver>);
    let mut formatter = IntelFormatter::with_options(resolver, None);
    let options = formatter.options_mut();
    options.set_uppercase_hex(false);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_space_after_operand_separator(true);
    options.set_show_branch_size(false);
    options.set_branch_leading_zeros(false);
    options.set_small_hex_numbers_in_decimal(true);
    formatter
}

fn guest_insns(noted: &BlockNotes, place: Place) -> Vec<GuestInsn> {
    let mut formatter = formatter(None);
    let mut rip = place.rip;
    let strategies = noted.notes.strategies.iter();
    (noted.ops.iter().zip(strategies))
        .map(|(op, &strategy)| {
            let mut text = String::new();
            let at = rip;
            rip = place.key.wrap(rip.wrapping_add(u64::from(op.insn.len)));
            let bytes = op.insn.as_bytes().to_vec();
            if op.is_invalid() {
                text.push_str("(no instruction)");
            } else {
                let insn = with_its_own_name(&op.insn, op.insn.to_iced(at));
                formatter.format(&insn, &mut text);
            }
            GuestInsn { rip: at, bytes, text, strategy }
        })
        .collect()
}

/// The engines decode hints (ENDBR64, PREFETCHT0) as the NOPs that they are; a listing calls them by
/// their names.
fn with_its_own_name(guest: &decoder::Insn, insn: Instruction) -> Instruction {
    if insn.mnemonic() != Mnemonic::Reservednop {
        return insn;
    }
    let (bits, bytes) = (u32::from(guest.bits), guest.as_bytes());
    let hint = Decoder::with_ip(bits, bytes, insn.ip(), DecoderOptions::NONE).decode();
    if hint.is_invalid() || hint.len() != insn.len() { insn } else { hint }
}

fn pieces(noted: &BlockNotes, decoded: &[Instruction], code: &[u8], names: &Names) -> Vec<Piece> {
    let mut formatter = formatter(Some(names));
    let mut used: HashMap<u64, ()> = HashMap::new();
    for insn in decoded.iter().filter(|insn| is_near_branch(insn)) {
        used.insert(insn.near_branch_target(), ());
    }
    let mut pieces: Vec<Piece> = (noted.notes.marks.iter())
        .map(|&(_, part)| Piece { purpose: Purpose::of(part), lines: Vec::new() })
        .collect();
    for insn in decoded {
        let Some(offset) = noted.offset(insn.ip()) else { continue };
        let mut text = String::new();
        formatter.format(insn, &mut text);
        let is_entry = names.code(insn.ip()).is_some_and(|name| name.starts_with("entry"));
        let label = (used.contains_key(&insn.ip()) || is_entry).then(|| names.code(insn.ip()));
        let number = noted.notes.marks.partition_point(|mark| mark.0 <= offset);
        let Some(piece) = number.checked_sub(1).and_then(|number| pieces.get_mut(number)) else {
            continue;
        };
        piece.lines.push(HostInsn {
            offset,
            bytes: code[offset..offset + insn.len()].to_vec(),
            text,
            label: label.flatten().map(str::to_owned),
            copy: noted.notes.copies.binary_search(&offset).is_ok(),
        });
    }
    pieces
}

/// The key in words.
fn mode_in_words(key: Key) -> String {
    let mode = key.mode();
    let mut words = format!("{}-bit code, ring {}", mode.bits(), mode.cpl());
    if mode.0 & x86::mode::ModeKey::V86 != 0 {
        words.push_str(", virtual-8086 mode");
    } else if mode.0 & x86::mode::ModeKey::PROTECTED == 0 {
        words.push_str(", real mode");
    }
    if mode.0 & x86::mode::ModeKey::FLAT == 0 && !mode.is_long() {
        words.push_str(", segments that are not flat");
    }
    words.push_str(if mode.0 & x86::mode::ModeKey::PAGING != 0 { ", paging" } else { "" });
    if key.rights() == Rights::SupervisorSmap {
        words.push_str(", SMAP");
    }
    let units =
        [(key.sse(), "SSE"), (key.avx(), "AVX"), (key.avx512(), "AVX-512"), (key.x87(), "x87")];
    let units: Vec<_> = units.iter().filter(|unit| unit.0).map(|unit| unit.1).collect();
    if units.is_empty() {
        words.push_str("; no vector or x87 copies");
    } else {
        words.push_str(&format!("; {} may run as copies", units.join(", ")));
    }
    words
}
