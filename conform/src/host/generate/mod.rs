//! Makes cases: a form of an instruction, a seed and a number give the same case anywhere.

pub(super) use aim::slot_size;

mod aim;
mod encode;
pub mod forms;
mod target;
mod values;

use super::layout::{
    CODE, CODE_ROOM, CODE_SIZE, CONTENTS, FILL, Kind, MAP, MEMORY, PAGE, WINDOW, WINDOW_END,
};
use super::memory::{Base, Memory};
use super::random::Random;
use super::segments::{CODE16, CODE32, CODE64, DATA, DATA16, LDT, ldt_selector};
use super::state::{Case, State, decode};
use iced_x86::{Code, Instruction, OpKind};

/// Bytes around an instruction where no branch may lead without a trap.
const NEIGHBOURHOOD: u64 = 64;
/// Attempts at an encoding that decodes to the form wanted: one in 500 does for a VSIB operand in
/// 16-bit code.
const ATTEMPTS: u32 = 4000;

/// Makes cases of one code size.
pub struct Generator {
    seed: u64,
    bits: u32,
    /// Memory that cases start from, before they change what they use.
    memory: Base,
}

/// A case in the making.
struct Draft {
    random: Random,
    case: Case,
}

impl Generator {
    /// A generator of cases for 16-, 32- or 64-bit code.
    pub fn new(seed: u64, bits: u32) -> Generator {
        let mut memory = Box::new([0; MEMORY]);
        Random::new(seed, [0, u64::from(bits)]).fill(&mut memory[..]);
        Generator { seed, bits, memory: memory.into() }
    }

    /// The code size.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Case `number` of `form`; none where no encoding was found for it.
    pub fn case(&self, form: Code, number: u64) -> Option<Case> {
        let coordinates = [number, (form as u64) << 8 | u64::from(self.bits)];
        let mut random = Random::new(self.seed, coordinates);
        let (bytes, len) = self.encoding(&mut random, form)?;
        let mut code = [FILL; CODE_ROOM];
        code[..len].copy_from_slice(&bytes[..len]);
        let linear = place(&mut random, len);
        let mut state = State::new();
        values::fill(&mut random, &mut state);
        let cs_base = if self.bits == 16 { WINDOW } else { 0 };
        state.rip = linear - cs_base;
        let bits = self.bits;
        let memory = Memory::new(self.memory.clone());
        let case = Case { bits, form, number, code, len, linear, state, memory };
        let mut draft = Draft { random, case };
        draft.set_segments();
        draft.set_flags();
        draft.aim();
        draft.trap_loops();
        Some(draft.case)
    }

    fn encoding(&self, random: &mut Random, form: Code) -> Option<([u8; 15], usize)> {
        for _ in 0..ATTEMPTS {
            let Some(bytes) = encode::encode(random, form.op_code(), self.bits) else { continue };
            let insn = decode(self.bits, &bytes, WINDOW);
            // INT 0x80 is a system call of Linux.
            let system_call = insn.code() == Code::Int_imm8 && insn.immediate8() == 0x80;
            if !insn.is_invalid() && insn.code() == form && !system_call {
                return Some((bytes, insn.len()));
            }
        }
        None
    }
}

/// Where the instruction lies: mostly inside a page, sometimes across two, or where the second is
/// missing.
fn place(random: &mut Random, len: usize) -> u64 {
    let len = len as u64;
    let (page, end) = ((CODE + PAGE) as u64, (CODE + CODE_SIZE) as u64);
    let offset = match random.below(20) {
        0 => page - random.below(len),
        1 => end - 1 - random.below(len),
        2 => end - len,
        _ => CODE as u64 + random.below(CODE_SIZE as u64 - CODE_ROOM as u64),
    };
    WINDOW + offset
}

impl Draft {
    fn instruction(&self) -> Instruction {
        self.case.instruction()
    }

    fn set_segments(&mut self) {
        let random = &mut self.random;
        let state = &mut self.case.state;
        match self.case.bits {
            64 => {
                let mut free = || random.pick(&[0, 0, DATA]);
                state.selectors = [free(), CODE64, DATA, free(), 0, 0];
                let mut base = || match random.below(10) {
                    0..=4 => 0,
                    5..=7 => WINDOW + random.below(WINDOW_END - WINDOW),
                    _ => random.next() >> 17,
                };
                (state.fs_base, state.gs_base) = (base(), base());
            }
            32 => {
                // Entries 2, 3 and 4: a limit, expand-down, read-only.
                let odd = [ldt_selector(2), ldt_selector(3), ldt_selector(4)];
                let mut data =
                    |percent| if random.percent(percent) { random.pick(&odd) } else { DATA };
                let (es, ds, ss) = (data(12), data(12), data(6));
                let ss = if ss == ldt_selector(4) { DATA } else { ss };
                let other = [0, DATA, ldt_selector(2), ldt_selector(3), ldt_selector(4)];
                let (fs, gs) = (random.pick(&other), random.pick(&other));
                state.selectors = [es, CODE32, ss, ds, fs, gs];
            }
            _ => {
                let odd = [DATA16, DATA16, DATA16, ldt_selector(2), ldt_selector(7), 0];
                let mut data = || random.pick(&odd);
                state.selectors = [data(), CODE16, DATA16, data(), data(), data()];
            }
        }
        if self.case.bits != 64 {
            state.fs_base = base_of(state.selectors[4]);
            state.gs_base = base_of(state.selectors[5]);
            // The upper halves are not defined where 64-bit mode is left and entered.
            state.gpr[..8].iter_mut().for_each(|r| *r &= 0xFFFF_FFFF);
        }
    }

    /// A branch into its own neighbourhood would run on: it ends in the single-step trap.
    fn trap_loops(&mut self) {
        let insn = self.instruction();
        let near = matches!(
            insn.op0_kind(),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        );
        let rip = self.case.state.rip;
        let into_itself = |target: u64| target.abs_diff(rip) < NEIGHBOURHOOD;
        let indirect = insn.is_jmp_near_indirect() || insn.is_call_near_indirect();
        let target = if near { Some(insn.near_branch_target()) } else { None };
        let target = target.or_else(|| if indirect { self.indirect_target(&insn) } else { None });
        if target.is_some_and(into_itself) {
            self.case.state.rflags |= x86::flags::TF;
        }
    }

    /// Where an indirect near branch leads.
    fn indirect_target(&self, insn: &Instruction) -> Option<u64> {
        let size = slot_size(insn, self.case.bits);
        let mask = if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
        if insn.op0_kind() == OpKind::Register {
            let number = insn.op0_register().full_register().number() & 15;
            return Some(self.case.state.gpr[number] & mask);
        }
        let at = super::describe::operand_address(&self.case, insn)?;
        let bytes = (0..size as u64).rev();
        bytes
            .map(|i| offset_of(at.wrapping_add(i)).map(|at| u64::from(self.case.memory.byte(at))))
            .try_fold(0, |word, byte| Some(word << 8 | byte?))
    }

    fn set_flags(&mut self) {
        use x86::flags::{AC, ARITHMETIC, DF, FIXED_ONE, ID, IF, NT, TF};
        let insn = self.instruction();
        let next = insn.flow_control() == iced_x86::FlowControl::Next;
        // A gather may trap in its middle.
        let few = if insn.is_vsib() { 0 } else { 6 };
        let random = &mut self.random;
        let mut rflags = FIXED_ONE | IF | random.next() & ARITHMETIC;
        let mut set = |percent, flag| {
            if random.percent(percent) {
                rflags |= flag;
            }
        };
        set(20, DF);
        set(8, AC);
        set(10, ID);
        set(4, NT);
        // Half the branches end in the single-step trap at their target, half in what is there.
        set(if next { few } else { 50 }, TF);
        self.case.state.rflags = rflags;
    }

    /// Base address of a segment register.
    fn segment_base(&self, number: usize) -> u64 {
        let state = &self.case.state;
        match (self.case.bits, number) {
            (_, 4) => state.fs_base,
            (_, 5) => state.gs_base,
            (64, _) => 0,
            _ => base_of(state.selectors[number.min(5)]),
        }
    }

    /// Writes what lies in pages that belong to the case.
    fn write(&mut self, linear: u64, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            if let Some(at) = offset_of(linear.wrapping_add(i as u64)) {
                self.case.memory.set(at, byte);
            }
        }
    }
}

/// The base that a selector's descriptor gives.
pub(super) fn base_of(selector: u16) -> u64 {
    if selector & 4 == 0 {
        return 0;
    }
    LDT.get(usize::from(selector >> 3)).map_or(0, |entry| u64::from(entry.base))
}

/// The place of an address in a case's memory.
pub(super) fn offset_of(linear: u64) -> Option<usize> {
    let offset = linear.checked_sub(WINDOW)? as usize;
    if linear >= WINDOW_END || !matches!(MAP[offset / PAGE], Kind::Data | Kind::ReadOnly) {
        return None;
    }
    let page = CONTENTS.iter().position(|&page| page == offset / PAGE)?;
    Some(page * PAGE + offset % PAGE)
}
