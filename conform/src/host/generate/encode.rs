//! Random encodings of a form: prefixes, opcode, ModR/M and random bytes behind it. Whether they
//! mean the form is decided by decoding them.

use crate::host::random::Random;
use iced_x86::{EncodingKind, MandatoryPrefix, OpCodeInfo, OpCodeOperandKind, OpCodeTableKind};

/// Longest instruction.
const LONGEST: usize = 15;

struct Bytes {
    bytes: Vec<u8>,
}

/// Bytes that may be an instruction of this form, and some behind it. None where the random
/// choice of prefixes left no room.
pub(super) fn encode(random: &mut Random, info: &OpCodeInfo, bits: u32) -> Option<[u8; LONGEST]> {
    let mut out = Bytes { bytes: Vec::with_capacity(32) };
    match info.encoding() {
        EncodingKind::Legacy => out.legacy(random, info, bits),
        EncodingKind::VEX => out.vex(random, info, bits),
        EncodingKind::EVEX => out.evex(random, info, bits),
        EncodingKind::XOP => out.xop(random, info, bits),
        EncodingKind::D3NOW => out.amd_3dnow(random, info, bits),
        // MVEX (Knights Corner), which the forms leave out, and what iced may add.
        _ => return None,
    }
    out.modrm_and_rest(random, info);
    let mut all = [0; LONGEST];
    all.copy_from_slice(out.bytes.get(..LONGEST)?);
    Some(all)
}

impl Bytes {
    fn prefixes(&mut self, random: &mut Random, info: &OpCodeInfo, bits: u32) {
        let mut prefixes = Vec::new();
        let default_size = if bits == 16 { 16 } else { 32 };
        let size = info.operand_size();
        let wants_66 = info.mandatory_prefix() == MandatoryPrefix::P66
            || size == 16 && default_size == 32
            || size == 32 && default_size == 16;
        if wants_66 || random.percent(4) {
            prefixes.push(0x66);
        }
        let address_size = info.address_size();
        if address_size != 0 && address_size != bits || address_size == 0 && random.percent(10) {
            prefixes.push(0x67);
        }
        match info.mandatory_prefix() {
            MandatoryPrefix::PF3 => prefixes.push(0xF3),
            MandatoryPrefix::PF2 => prefixes.push(0xF2),
            MandatoryPrefix::None | MandatoryPrefix::PNP | MandatoryPrefix::P66 => {
                let repeats = info.can_use_rep_prefix() || info.can_use_repne_prefix();
                if random.percent(if repeats { 60 } else { 2 }) {
                    prefixes.push(random.pick(&[0xF3, 0xF3, 0xF2]));
                }
            }
        }
        if random.percent(15) {
            prefixes.push(random.pick(&[0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65]));
        }
        if random.percent(if info.can_use_lock_prefix() { 25 } else { 2 }) {
            prefixes.push(0xF0);
        }
        if random.percent(3) {
            // One that repeats or overrides another.
            prefixes.push(random.pick(&[0x66, 0x67, 0x2E, 0x3E, 0x64, 0xF2, 0xF3]));
        }
        while !prefixes.is_empty() {
            let i = random.below(prefixes.len() as u64) as usize;
            self.bytes.push(prefixes.swap_remove(i));
        }
    }

    fn legacy(&mut self, random: &mut Random, info: &OpCodeInfo, bits: u32) {
        self.prefixes(random, info, bits);
        if bits == 64 {
            let wide = info.operand_size() == 64 && !info.default_op_size64();
            let w = if wide || random.percent(5) { 8 } else { 0 };
            if w != 0 || random.percent(40) {
                self.bytes.push(0x40 | w | random.next() as u8 & 7);
            }
        }
        match info.table() {
            OpCodeTableKind::T0F => self.bytes.push(0x0F),
            OpCodeTableKind::T0F38 => self.bytes.extend([0x0F, 0x38]),
            OpCodeTableKind::T0F3A => self.bytes.extend([0x0F, 0x3A]),
            _ => {}
        }
        self.opcode(random, info);
    }

    fn opcode(&mut self, random: &mut Random, info: &OpCodeInfo) {
        use OpCodeOperandKind::{r8_opcode, r16_opcode, r32_opcode, r64_opcode, sti_opcode};
        let in_opcode = [r8_opcode, r16_opcode, r32_opcode, r64_opcode, sti_opcode];
        let register = info.op_kinds().iter().any(|kind| in_opcode.contains(kind));
        let register = if register { random.next() as u32 & 7 } else { 0 };
        let opcode = info.op_code() | register;
        if info.op_code_len() == 2 {
            self.bytes.push((opcode >> 8) as u8);
        }
        self.bytes.push(opcode as u8);
    }

    /// A segment override before a VEX, EVEX or XOP prefix, or a prefix that makes #UD of it.
    fn few_prefixes(&mut self, random: &mut Random) {
        if random.percent(10) {
            self.bytes.push(random.pick(&[0x64, 0x65, 0x2E, 0x3E]));
        }
        if random.percent(8) {
            self.bytes.push(0x67);
        }
    }

    fn w(random: &mut Random, info: &OpCodeInfo) -> u8 {
        if info.is_wig() { random.next() as u8 & 1 } else { info.w() as u8 & 1 }
    }

    fn vvvv(random: &mut Random) -> u8 {
        if random.percent(50) { 0xF } else { random.next() as u8 & 0xF }
    }

    /// R, X and B inverted, in bits 7 to 5.
    fn rxb(random: &mut Random, bits: u32) -> u8 {
        if bits == 64 { random.next() as u8 & 0xE0 } else { 0xE0 }
    }

    fn vex(&mut self, random: &mut Random, info: &OpCodeInfo, bits: u32) {
        self.few_prefixes(random);
        let map = match info.table() {
            OpCodeTableKind::Normal => 0,
            OpCodeTableKind::T0F => 1,
            OpCodeTableKind::T0F38 => 2,
            _ => 3,
        };
        let l = if info.is_lig() { random.next() as u8 & 1 } else { (info.l() == 1) as u8 };
        let w = Self::w(random, info);
        let vvvv = Self::vvvv(random);
        let rxb = Self::rxb(random, bits);
        let low = vvvv << 3 | l << 2 | pp(info);
        if map == 1 && w == 0 && random.percent(50) {
            self.bytes.extend([0xC5, rxb & 0x80 | low]);
        } else {
            self.bytes.extend([0xC4, rxb | map, w << 7 | low]);
        }
        self.opcode(random, info);
    }

    fn xop(&mut self, random: &mut Random, info: &OpCodeInfo, bits: u32) {
        self.few_prefixes(random);
        let map = match info.table() {
            OpCodeTableKind::MAP8 => 8,
            OpCodeTableKind::MAP9 => 9,
            _ => 10,
        };
        let l = (info.l() == 1) as u8;
        let low = Self::vvvv(random) << 3 | l << 2 | pp(info);
        let w = Self::w(random, info);
        self.bytes.extend([0x8F, Self::rxb(random, bits) | map, w << 7 | low]);
        self.opcode(random, info);
    }

    fn evex(&mut self, random: &mut Random, info: &OpCodeInfo, bits: u32) {
        self.few_prefixes(random);
        let map = match info.table() {
            OpCodeTableKind::T0F => 1,
            OpCodeTableKind::T0F38 => 2,
            OpCodeTableKind::T0F3A => 3,
            OpCodeTableKind::MAP5 => 5,
            _ => 6,
        };
        let r = if bits == 64 { random.next() as u8 & 0x10 } else { 0x10 };
        let p0 = Self::rxb(random, bits) | r | map;
        let p1 = Self::w(random, info) << 7 | Self::vvvv(random) << 3 | 4 | pp(info);
        let l = if info.is_lig() { random.below(3) as u8 } else { info.l() as u8 & 3 };
        let masked = info.can_use_op_mask_register()
            && (info.require_op_mask_register() || random.percent(50));
        let mask = if masked { random.next() as u8 & 7 } else { 0 };
        let z = masked && info.can_use_zeroing_masking() && random.percent(50);
        let b = (info.can_broadcast() || info.can_use_rounding_control()) && random.percent(40);
        let v = bits != 64 || random.percent(70);
        let p2 = (z as u8) << 7 | l << 5 | (b as u8) << 4 | (v as u8) << 3 | mask;
        self.bytes.extend([0x62, p0, p1, p2]);
        self.opcode(random, info);
    }

    fn amd_3dnow(&mut self, random: &mut Random, info: &OpCodeInfo, bits: u32) {
        self.prefixes(random, info, bits);
        let modrm = 0xC0 | random.next() as u8;
        self.bytes.extend([0x0F, 0x0F, modrm, info.op_code() as u8]);
    }

    fn modrm_and_rest(&mut self, random: &mut Random, info: &OpCodeInfo) {
        let mut modrm = random.next() as u8;
        if random.percent(35) || info.is_rm_group() {
            modrm |= 0xC0;
        }
        if info.is_group() {
            modrm = modrm & !0x38 | (info.group_index() as u8 & 7) << 3;
        }
        if info.is_rm_group() {
            modrm = modrm & !7 | info.rm_group_index() as u8 & 7;
        }
        self.bytes.push(modrm);
        while self.bytes.len() < LONGEST {
            let odd = [0, 1, 0x7F, 0x80, 0xFF];
            let byte = if random.percent(30) { random.pick(&odd) } else { random.next() as u8 };
            self.bytes.push(byte);
        }
    }
}

fn pp(info: &OpCodeInfo) -> u8 {
    match info.mandatory_prefix() {
        MandatoryPrefix::None | MandatoryPrefix::PNP => 0,
        MandatoryPrefix::P66 => 1,
        MandatoryPrefix::PF3 => 2,
        MandatoryPrefix::PF2 => 3,
    }
}
