//! The decoded instruction.

use crate::offered;
use crate::operand::{MemOperand, OpKind, Operand, reg};
use iced_x86::{
    Code, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, OpKind as IcedKind,
    Register,
};
use x86::cpuid::{Policy, Vendor};

/// The longest legal instruction in bytes (SDM vol. 2A, section 2.3.11).
pub const MAX_LENGTH: usize = 15;

/// Prefix bits of [`Insn::prefixes`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Prefixes(pub u8);

impl Prefixes {
    /// LOCK, on an instruction that accepts it.
    pub const LOCK: u8 = 1;
    /// F3: REP or REPE.
    pub const REP: u8 = 2;
    /// F2: REPNE.
    pub const REPNE: u8 = 4;

    /// LOCK.
    #[inline(always)]
    pub fn lock(self) -> bool {
        self.0 & Self::LOCK != 0
    }
    /// REP, REPE or REPNE.
    #[inline(always)]
    pub fn any_rep(self) -> bool {
        self.0 & (Self::REP | Self::REPNE) != 0
    }
    /// REPNE.
    #[inline(always)]
    pub fn repne(self) -> bool {
        self.0 & Self::REPNE != 0
    }
}

/// A decoded instruction, independent of the address it was decoded at.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Insn {
    /// The memory operand; meaningful when an operand is [`OpKind::Mem`], and its `seg` and
    /// `addr_size` also for string instructions.
    pub mem: MemOperand,
    /// Immediate, sign-extended to the operand size and then to 64 bits; branch displacement;
    /// far offset.
    pub imm: u64,
    /// Opaque handle for an engine, zero after decoding.
    pub handle: usize,
    /// Second immediate (ENTER, EXTRQ, INSERTQ) or far selector.
    pub imm2: u16,
    /// iced's code: mnemonic, encoding and operand forms in one.
    pub code: Code,
    /// Operands, in the order of the SDM's notation, up to four. (A fifth exists only in
    /// instructions that the engines copy whole.)
    pub op: [Operand; 4],
    /// Length in bytes, 1 to 15.
    pub len: u8,
    /// Effective operand size in bytes of the encoding: 2, 4 or 8 (1 is told by the operand).
    pub op_size: u8,
    /// LOCK, REP, REPNE.
    pub prefixes: Prefixes,
    /// Number of operands.
    pub op_count: u8,
    /// Code size it was decoded for: 16, 32 or 64.
    pub bits: u8,
    /// LZCNT or TZCNT are not there for the guest it was decoded for.
    pub hides_counts: bool,
    /// The instruction's bytes.
    pub bytes: [u8; MAX_LENGTH],
}

/// Why bytes are not an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Not an instruction: #UD.
    Invalid,
    /// The bytes given end before the instruction does; fetch more (or fault).
    NeedMore,
    /// Longer than 15 bytes: #GP(0).
    TooLong,
}

/// Decodes one instruction as the host's processor does: [`decode_for`] its vendor.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8], bits: u32) -> Result<Insn, DecodeError> {
    decode_for(Vendor::host(), bytes, bits)
}

/// Decodes one instruction as a processor of `vendor` does.
///
/// `bytes` are the bytes at the instruction pointer, as many as can be fetched without a fault
/// (15 are enough). `bits` is the code size: 16, 32 or 64.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_for(vendor: Vendor, bytes: &[u8], bits: u32) -> Result<Insn, DecodeError> {
    decode_with(options(vendor), bytes, bits)
}

/// [`decode_for`] a guest whose CPUID is that of `policy`: an integer or system instruction that it
/// does not report is [`DecodeError::Invalid`], or an older one where it is that with a prefix
/// (LZCNT and TZCNT).
///
/// # Errors
/// As [`decode_for`].
pub fn decode_offered(policy: &Policy, bytes: &[u8], bits: u32) -> Result<Insn, DecodeError> {
    let hidden = offered::options(policy);
    let mut insn = decode_with(options(policy.vendor()) | hidden, bytes, bits)?;
    insn.hides_counts = hidden != 0;
    if offered::offered(policy, insn.code, bits) { Ok(insn) } else { Err(DecodeError::Invalid) }
}

fn decode_with(options: u32, bytes: &[u8], bits: u32) -> Result<Insn, DecodeError> {
    let window = &bytes[..bytes.len().min(MAX_LENGTH)];
    // A fixed address in the middle of the space: displacements below are differences, and
    // none of them wraps.
    let ip = 0x1000;
    let mut decoder = Decoder::with_ip(bits, window, ip, options);
    let raw = refine(decoder.decode(), window, bits, ip, options);
    if raw.is_invalid() {
        return Err(match decoder.last_error() {
            DecoderError::NoMoreBytes if window.len() < MAX_LENGTH => DecodeError::NeedMore,
            // iced reports an instruction that would need a 16th byte as invalid.
            _ if decoder.position() >= MAX_LENGTH => DecodeError::TooLong,
            _ => DecodeError::Invalid,
        });
    }
    Ok(Insn::from_iced(&raw, &window[..raw.len()], bits))
}

impl Insn {
    /// The mnemonic.
    #[inline]
    pub fn mnemonic(&self) -> Mnemonic {
        self.code.mnemonic()
    }

    /// The instruction's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The 11 bits that FOP keeps of an x87 instruction: the low three of the escape byte, and the
    /// ModR/M byte (SDM vol. 1, section 8.1.9). Of others, something without meaning.
    pub fn x87_opcode(&self) -> u16 {
        let escape = self.as_bytes().iter().position(|b| (0xD8..=0xDF).contains(b)).unwrap_or(0);
        let byte = |i: usize| u16::from(self.bytes[i % MAX_LENGTH]);
        (byte(escape) & 7) << 8 | byte(escape + 1)
    }

    /// iced's instruction, decoded again as if at address `rip`.
    pub fn to_iced(&self, rip: u64) -> Instruction {
        let bits = u32::from(self.bits);
        let hidden = match self.mnemonic() {
            Mnemonic::Bsf if self.hides_counts => DecoderOptions::NO_MPFX_0FBC,
            Mnemonic::Bsr if self.hides_counts => DecoderOptions::NO_MPFX_0FBD,
            _ => 0,
        };
        let decode = |vendor| {
            let options = options(vendor) | hidden;
            let raw = Decoder::with_ip(bits, self.as_bytes(), rip, options).decode();
            refine(raw, self.as_bytes(), bits, rip, options)
        };
        // Where the vendors differ, the code says whose rules held.
        let raw = decode(Vendor::Intel);
        if raw.code() == self.code { raw } else { decode(Vendor::Amd) }
    }

    /// Whether any explicit operand is [`OpKind::Mem`].
    #[inline]
    pub fn has_mem(&self) -> bool {
        self.op.iter().any(|o| o.kind == OpKind::Mem)
    }

    /// How many places in memory the instruction reads or writes, as the TLB sees it: operands and
    /// the stack. Strings count for one iteration, tables of descriptors not at all.
    pub fn memory_accesses(&self) -> u8 {
        let operands = self.op.iter().filter(|o| match o.kind {
            OpKind::Mem => self.mem.size != 0,
            OpKind::StringSource | OpKind::StringDest => true,
            _ => false,
        });
        let stack = matches!(
            self.mnemonic(),
            Mnemonic::Push
                | Mnemonic::Pop
                | Mnemonic::Call
                | Mnemonic::Ret
                | Mnemonic::Leave
                | Mnemonic::Enter
                | Mnemonic::Pushf
                | Mnemonic::Pushfd
                | Mnemonic::Pushfq
                | Mnemonic::Popf
                | Mnemonic::Popfd
                | Mnemonic::Popfq
        );
        operands.count() as u8 + u8::from(stack)
    }

    fn from_iced(raw: &Instruction, window: &[u8], bits: u32) -> Insn {
        let mut bytes = [0; MAX_LENGTH];
        bytes[..window.len()].copy_from_slice(window);
        let mut prefixes = 0;
        if raw.has_lock_prefix() {
            prefixes |= Prefixes::LOCK;
        }
        if raw.has_rep_prefix() {
            prefixes |= Prefixes::REP;
        }
        if raw.has_repne_prefix() {
            prefixes |= Prefixes::REPNE;
        }
        let mut insn = Insn {
            mem: MemOperand {
                disp: 0,
                base: reg::NONE,
                index: reg::NONE,
                shift: 0,
                seg: segment_number_of(raw, bits),
                addr_size: default_addr_size(window, bits),
                size: raw.memory_size().size().min(255) as u8,
            },
            imm: 0,
            handle: 0,
            imm2: 0,
            code: raw.code(),
            op: [Operand::default(); 4],
            len: window.len() as u8,
            op_size: op_size(raw, bits),
            prefixes: Prefixes(prefixes),
            op_count: raw.op_count() as u8,
            bits: bits as u8,
            hides_counts: false,
            bytes,
        };
        for i in 0..raw.op_count().min(4) {
            insn.set_operand(raw, i);
        }
        insn
    }

    fn set_operand(&mut self, raw: &Instruction, i: u32) {
        let kind = match raw.op_kind(i) {
            IcedKind::Register => {
                self.op[i as usize] = Operand::from_register(raw.op_register(i));
                return;
            }
            IcedKind::NearBranch16 | IcedKind::NearBranch32 | IcedKind::NearBranch64 => {
                let rel = raw.near_branch_target().wrapping_sub(raw.next_ip());
                self.imm = match raw.op_kind(i) {
                    IcedKind::NearBranch16 => rel as i16 as u64,
                    IcedKind::NearBranch32 => rel as i32 as u64,
                    _ => rel,
                };
                OpKind::Near
            }
            IcedKind::FarBranch16 => {
                self.imm = u64::from(raw.far_branch16());
                self.imm2 = raw.far_branch_selector();
                OpKind::Far
            }
            IcedKind::FarBranch32 => {
                self.imm = u64::from(raw.far_branch32());
                self.imm2 = raw.far_branch_selector();
                OpKind::Far
            }
            IcedKind::Immediate8_2nd => {
                self.imm2 = u16::from(raw.immediate8_2nd());
                OpKind::Imm2
            }
            IcedKind::Immediate8
            | IcedKind::Immediate16
            | IcedKind::Immediate32
            | IcedKind::Immediate64
            | IcedKind::Immediate8to16
            | IcedKind::Immediate8to32
            | IcedKind::Immediate8to64
            | IcedKind::Immediate32to64 => {
                self.imm = raw.immediate(i);
                OpKind::Imm
            }
            IcedKind::Memory => {
                self.set_memory(raw);
                OpKind::Mem
            }
            IcedKind::MemorySegSI | IcedKind::MemorySegESI | IcedKind::MemorySegRSI => {
                self.mem.addr_size = string_addr_size(raw.op_kind(i));
                OpKind::StringSource
            }
            IcedKind::MemorySegDI | IcedKind::MemorySegEDI | IcedKind::MemorySegRDI => {
                // MASKMOVQ and MASKMOVDQU: DS:rDI with an override allowed.
                self.mem.addr_size = string_addr_size(raw.op_kind(i));
                self.mem.base = 7;
                OpKind::Mem
            }
            IcedKind::MemoryESDI | IcedKind::MemoryESEDI | IcedKind::MemoryESRDI => {
                self.mem.addr_size = string_addr_size(raw.op_kind(i));
                OpKind::StringDest
            }
        };
        self.op[i as usize].kind = kind;
    }

    fn set_memory(&mut self, raw: &Instruction) {
        let base = raw.memory_base();
        let index = raw.memory_index();
        let mem = &mut self.mem;
        mem.disp = raw.memory_displacement64();
        mem.shift = raw.memory_index_scale().trailing_zeros() as u8;
        if base == Register::RIP || base == Register::EIP {
            mem.base = reg::RIP;
            mem.disp = mem.disp.wrapping_sub(raw.next_ip());
            mem.addr_size = if base == Register::RIP { 8 } else { 4 };
            return;
        }
        if base != Register::None {
            mem.base = base.number() as u8;
        }
        if index != Register::None {
            mem.index = index.number() as u8;
        }
    }
}

/// iced's options for a processor of `vendor`. AMD's differ in near branches with an operand-size
/// prefix in 64-bit mode, which they truncate to 16 bits (AMD APM vol. 3, section 1.2.4), in far
/// pointers with REX.W, whose offset they leave at 32 bits (CALL far, JMP far, LSS), in UD0, which
/// has no ModRM byte there, and in LOCK MOV CR0 for CR8.
pub fn options(vendor: Vendor) -> u32 {
    DecoderOptions::FORCE_RESERVED_NOP
        | match vendor {
            Vendor::Intel => 0,
            Vendor::Amd => DecoderOptions::AMD,
        }
}

/// F3 90 is PAUSE, but with REX.B the opcode is XCHG R8, and F3 means nothing.
fn refine(raw: Instruction, bytes: &[u8], bits: u32, ip: u64, options: u32) -> Instruction {
    let len = raw.len();
    if raw.code() != Code::Pause || bits != 64 || len < 3 || bytes[len - 2] & 0xF1 != 0x41 {
        return raw;
    }
    let mut plain = [0; MAX_LENGTH];
    let plain = &mut plain[..len];
    plain.copy_from_slice(&bytes[..len]);
    for prefix in plain.iter_mut().filter(|b| **b == 0xF3) {
        // A segment override, which 64-bit mode ignores.
        *prefix = 0x3E;
    }
    Decoder::with_ip(bits, plain, ip, options).decode()
}

/// The segment of the memory operand. 64-bit mode ignores overrides with ES, CS, SS and DS, so that
/// a base of RSP or RBP still means SS: a bad address takes #SS then (SDM vol. 1, section 3.3.7.1).
fn segment_number_of(raw: &Instruction, bits: u32) -> u8 {
    let r = raw.memory_segment();
    if bits != 64 || matches!(r, Register::FS | Register::GS) {
        return segment_number(r);
    }
    match raw.memory_base() {
        Register::RSP | Register::RBP | Register::ESP | Register::EBP => 2,
        _ => 3,
    }
}

fn segment_number(r: Register) -> u8 {
    if r.is_segment_register() { r as u8 - Register::ES as u8 } else { 3 }
}

/// The address size by mode and the 67 prefix, looked up in the legacy prefixes.
fn default_addr_size(bytes: &[u8], bits: u32) -> u8 {
    let mut overridden = false;
    for &b in bytes {
        match b {
            0x67 => overridden = true,
            0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65 | 0x66 | 0xF0 | 0xF2 | 0xF3 => {}
            0x40..=0x4F if bits == 64 => {}
            _ => break,
        }
    }
    match (bits, overridden) {
        (16, false) | (32, true) => 2,
        (64, false) => 8,
        _ => 4,
    }
}

fn string_addr_size(kind: IcedKind) -> u8 {
    match kind {
        IcedKind::MemorySegSI | IcedKind::MemorySegDI | IcedKind::MemoryESDI => 2,
        IcedKind::MemorySegESI | IcedKind::MemorySegEDI | IcedKind::MemoryESEDI => 4,
        _ => 8,
    }
}

/// The operand size in bytes: what the encoding demands (o16, o32, o64 in the SDM's notation) or
/// else the mode's default.
fn op_size(raw: &Instruction, bits: u32) -> u8 {
    match raw.code().op_code().operand_size() {
        16 => 2,
        32 => 4,
        64 => 8,
        _ if bits == 16 => 2,
        _ => 4,
    }
}

#[cfg(test)]
mod tests;
