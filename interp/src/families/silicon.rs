//! Every integer instruction against the host CPU itself.
//!
//! Random encodings over every opcode of the integer maps run with random registers, flags and
//! memory on the host and in the interpreter; registers, memory, defined flags and exceptions must
//! agree. The memory operand lies in a buffer that the guest maps at the address where the host
//! has it.

use super::*;
use crate::testkit::{DATA, Kit, Start};
use decoder::{Insn, Mnemonic, OpKind, decode, reg};
use native::{GprState, OracleError, run_gpr, run_gpr_mem};
use x86::regs::gpr;
use x86::{Fault, flags};

const PAGE: usize = 4096;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// An operand: random, small, or near a boundary of some width.
    fn operand(&mut self) -> u64 {
        let near = self.below(5).wrapping_sub(2);
        match self.below(6) {
            0 => self.next(),
            1 => self.below(64),
            2 => near,
            3 => (1u64 << self.below(64)).wrapping_add(near),
            4 => self.next() >> self.below(64),
            _ => (self.next() as i8) as u64,
        }
    }
}

/// A page of host memory, aligned, for memory operands.
struct HostPage {
    memory: Vec<u8>,
    start: usize,
}

impl HostPage {
    fn new() -> HostPage {
        let memory = vec![0; 2 * PAGE];
        let start = memory.as_ptr() as usize % PAGE;
        HostPage { start: (PAGE - start) % PAGE, memory }
    }
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + PAGE]
    }
    fn address(&self) -> u64 {
        self.memory.as_ptr() as u64 + self.start as u64
    }
}

/// Opcode maps with integer instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Map {
    One,
    Two,
    ThreeF0,
    Vex,
}

/// A random encoding with `opcode`.
fn encode(random: &mut Random, map: Map, opcode: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if map == Map::Vex {
        // C4 with any register bits, map 2 or 3, W, vvvv, L = 0, any implied prefix.
        bytes.push(0xC4);
        bytes.push(random.next() as u8 & 0xE0 | (2 + random.below(2) as u8));
        bytes.push(random.next() as u8 & 0xFB);
    } else {
        if random.chance(4) {
            bytes.push(0x66);
        }
        if random.chance(12) {
            bytes.push(0x67);
        }
        if random.chance(8) {
            bytes.push([0xF2, 0xF3, 0xF0][random.below(3) as usize]);
        }
        if random.chance(2) {
            bytes.push(0x40 | random.next() as u8 & 0xF);
        }
    }
    match map {
        Map::One | Map::Vex => {}
        Map::Two => bytes.push(0x0F),
        Map::ThreeF0 => bytes.extend([0x0F, 0x38]),
    }
    bytes.push(opcode);
    let modrm = random.next() as u8;
    bytes.push(if random.chance(2) { modrm | 0xC0 } else { modrm });
    for _ in 0..12 {
        let byte = if random.chance(3) { 0 } else { random.next() as u8 };
        bytes.push(byte);
    }
    bytes
}

/// Points the registers of a memory operand into the buffer.
fn aim(random: &mut Random, insn: &Insn, state: &mut GprState, buffer: u64) {
    let middle = buffer + 1024 + random.below(2048);
    state.gpr[gpr::RSP] = middle & !7;
    if insn.op.iter().any(|o| matches!(o.kind, OpKind::StringSource | OpKind::StringDest)) {
        state.gpr[gpr::RSI] = middle;
        state.gpr[gpr::RDI] = buffer + 1024 + random.below(2048);
    }
    match insn.mnemonic() {
        Mnemonic::Xlatb => state.gpr[gpr::RBX] = middle,
        Mnemonic::Leave => state.gpr[gpr::RBP] = middle,
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            if insn.has_mem() && insn.op[1].is_gpr() =>
        {
            let offset = random.below(8192).wrapping_sub(4096);
            state.gpr[usize::from(insn.op[1].reg & 15)] = offset;
        }
        _ => {}
    }
    if insn.has_mem() && insn.mem.base < 16 {
        let mut base = middle.wrapping_sub(insn.mem.disp);
        if insn.mem.index < 16 && insn.mem.index != insn.mem.base {
            let index = random.below(64);
            state.gpr[usize::from(insn.mem.index)] = index;
            base = base.wrapping_sub(index << insn.mem.shift);
        }
        if insn.mnemonic() == Mnemonic::Cmpxchg16b && !random.chance(8) {
            base = base.wrapping_sub(middle & 15);
        }
        state.gpr[usize::from(insn.mem.base)] = base;
    }
    // CMPXCHG and its kin should find what they compare with, now and then.
    if insn.mem.addr_size == 4 {
        for r in &mut state.gpr {
            *r = *r & 0xFFFF_FFFF | random.next() << 32;
        }
    }
}

/// The flags that the instruction leaves undefined, as RFLAGS bits.
fn undefined_flags(insn: &Insn) -> u64 {
    decoder::rflags_of(insn.to_iced(0).rflags_undefined())
}

/// Instructions whose result is the SDM's "undefined" (shift counts beyond the operand) or random.
fn is_indeterminate(insn: &Insn, state: &GprState) -> bool {
    let narrow = insn.op[0].kind == OpKind::Gpr16 || insn.mem.size == 2 && insn.has_mem();
    let count = match insn.op[2].kind {
        OpKind::Imm => insn.imm,
        _ => state.gpr[gpr::RCX],
    } & 31;
    match insn.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd => narrow && count > 16,
        Mnemonic::Bswap => insn.op[0].kind == OpKind::Gpr16,
        // Left alone by AMD and zero-extended by Intel where the comparison fails.
        Mnemonic::Cmpxchg => insn.op[0].kind == OpKind::Gpr32,
        // The host's selectors are the host's.
        Mnemonic::Push | Mnemonic::Mov => insn.op.iter().any(|o| o.kind == OpKind::Seg),
        // A reserved form of PREFETCHW: #UD on AMD, nothing on Intel.
        Mnemonic::Nop | Mnemonic::Reservednop => !insn.has_mem(),
        _ => false,
    }
}

/// CF of SHL and SHR is undefined where the count reaches the width.
fn carry_undefined(insn: &Insn, state: &GprState) -> bool {
    let width = if insn.op[0].is_gpr() {
        [8, 16, 32, 64][insn.op[0].kind as usize - OpKind::Gpr8 as usize]
    } else {
        u64::from(insn.mem.size) * 8
    };
    let count = if insn.op[1].kind == OpKind::Imm { insn.imm } else { state.gpr[gpr::RCX] } & 31;
    matches!(insn.mnemonic(), Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar)
        && count >= width
}

struct Bench {
    random: Random,
    host: HostPage,
    guest: Kit,
    compared: u64,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let host = HostPage::new();
        let mut guest = Kit::new(Start::User64);
        guest.map(host.address(), DATA);
        Bench { random: Random(seed), host, guest, compared: 0 }
    }

    /// Runs one encoding in both places, where the oracle takes it.
    fn compare(&mut self, bytes: &[u8]) {
        let Ok(insn) = decode(bytes, 64) else { return };
        if !is_integer(insn.mnemonic()) || insn.mem.base == reg::RIP {
            return;
        }
        let mut state = GprState::default();
        for r in &mut state.gpr {
            *r = self.random.operand();
        }
        state.rflags = self.random.next() & flags::ARITHMETIC | flags::FIXED_ONE;
        aim(&mut self.random, &insn, &mut state, self.host.address());
        let mut memory = [0; PAGE];
        for piece in memory.chunks_exact_mut(8) {
            piece.copy_from_slice(&self.random.operand().to_le_bytes());
        }
        if is_indeterminate(&insn, &state) {
            return;
        }
        self.host.bytes().copy_from_slice(&memory);
        let before = state;
        let host = if uses_memory(&insn) {
            run_gpr_mem(insn.as_bytes(), &mut state, self.host.bytes())
        } else {
            run_gpr(insn.as_bytes(), &mut state)
        };
        let expected = match host {
            Ok(()) => None,
            Err(OracleError::Fault(fault)) => Some(fault.vector),
            Err(OracleError::Refused(_) | OracleError::OutsideBuffer) => return,
            Err(OracleError::Host(error)) => panic!("{error}"),
        };
        self.guest.mmu.phys_write(DATA, &memory);
        self.guest.cpu.gpr = before.gpr;
        self.guest.cpu.rflags = before.rflags;
        self.guest.cpu.rip = 0x8000;
        let result = self.guest.step(insn.as_bytes());
        let mut mask = flags::ARITHMETIC & !undefined_flags(&insn);
        if carry_undefined(&insn, &before) {
            mask &= !flags::CF;
        }
        let name = || format!("{} ({:02x?})\nbefore {before:x?}", insn.to_iced(0), insn.as_bytes());
        assert_eq!(result.err().map(Fault::vector), expected, "{}", name());
        if expected.is_some() {
            return;
        }
        assert_eq!(self.guest.cpu.gpr.map(Hex), state.gpr.map(Hex), "{}", name());
        let (got, want) = (self.guest.cpu.rflags & mask, state.rflags & mask);
        assert_eq!(Hex(got), Hex(want), "flags of {}", name());
        let mut after = [0; PAGE];
        self.guest.mmu.phys_read(DATA, &mut after);
        assert!(after == self.host.bytes(), "memory differs after {}", name());
        self.compared += 1;
    }

    fn compare_map(&mut self, map: Map, opcodes: impl Iterator<Item = u8>, times: u32) {
        for opcode in opcodes {
            for _ in 0..times {
                let bytes = encode(&mut self.random, map, opcode);
                self.compare(&bytes);
            }
        }
    }
}

#[derive(PartialEq, Eq)]
struct Hex(u64);
impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The families that work on general-purpose registers and flags alone.
const INTEGER: &[&[Line]] = &[
    mov::FAMILY,
    convert::FAMILY,
    exchange::FAMILY,
    stack::FAMILY,
    binary::FAMILY,
    unary::FAMILY,
    multiply::FAMILY,
    shift::FAMILY,
    rotate::FAMILY,
    bit::FAMILY,
    bmi::FAMILY,
    condition::FAMILY,
    string::FAMILY,
    flag::FAMILY,
    hint::FAMILY,
];

fn is_integer(mnemonic: Mnemonic) -> bool {
    INTEGER.iter().any(|family| family.iter().any(|line| line.0 == mnemonic))
}

/// Whether the oracle needs the buffer.
fn uses_memory(insn: &Insn) -> bool {
    insn.has_mem()
        || insn.op.iter().any(|o| matches!(o.kind, OpKind::StringSource | OpKind::StringDest))
        || insn.to_iced(0).is_stack_instruction()
        || insn.mnemonic() == Mnemonic::Xlatb
}

#[test]
fn one_byte_opcodes() {
    let mut bench = Bench::new(1);
    bench.compare_map(Map::One, 0..=255, 600);
    assert!(bench.compared > 40_000, "only {} compared", bench.compared);
}

#[test]
fn two_byte_opcodes() {
    let mut bench = Bench::new(2);
    bench.compare_map(Map::Two, 0..=255, 1500);
    assert!(bench.compared > 50_000, "only {} compared", bench.compared);
}

#[test]
fn movbe_crc32_adcx_adox() {
    let mut bench = Bench::new(3);
    bench.compare_map(Map::ThreeF0, 0xF0..=0xFF, 2000);
    assert!(bench.compared > 1_500, "only {} compared", bench.compared);
}

#[test]
fn vex_encoded_bmi() {
    let mut bench = Bench::new(4);
    bench.compare_map(Map::Vex, 0xF0..=0xF7, 10_000);
    assert!(bench.compared > 10_000, "only {} compared", bench.compared);
}
