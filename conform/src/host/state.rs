//! What a case starts from and what comes out of it.

use super::layout::CODE_ROOM;
use super::memory::Memory;
use iced_x86::{Code, Decoder, Instruction};

/// Registers of a user-mode program. `repr(C)`, since two processes share it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct State {
    /// x87, MXCSR and XMM registers as FXSAVE64 stores them (SDM vol. 1, section 10.5.1).
    pub legacy: [u8; 512],
    /// Upper halves of YMM0 to YMM15.
    pub ymm_high: [[u8; 16]; 16],
    /// Upper halves of ZMM0 to ZMM15.
    pub zmm_high: [[u8; 32]; 16],
    /// ZMM16 to ZMM31.
    pub zmm_rest: [[u8; 64]; 16],
    /// K0 to K7.
    pub opmask: [u64; 8],
    /// RAX to R15 by hardware number.
    pub gpr: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// Selectors of ES, CS, SS, DS, FS, GS.
    pub selectors: [u16; 6],
    pub(crate) _pad: [u16; 2],
}

/// Offsets in [`State::legacy`].
pub mod legacy {
    /// x87 control word.
    pub const FCW: usize = 0;
    /// x87 status word.
    pub const FSW: usize = 2;
    /// Abridged tag word.
    pub const FTW: usize = 4;
    /// Last opcode.
    pub const FOP: usize = 6;
    /// Last instruction pointer.
    pub const FIP: usize = 8;
    /// Last operand pointer.
    pub const FDP: usize = 16;
    /// MXCSR.
    pub const MXCSR: usize = 24;
    /// MXCSR bits that exist.
    pub const MXCSR_MASK: usize = 28;
    /// ST(0) to ST(7), 16 bytes each.
    pub const ST: usize = 32;
    /// XMM0 to XMM15.
    pub const XMM: usize = 160;
    /// First byte behind what is defined.
    pub const END: usize = 416;
}

impl State {
    /// All zero, control words as after FNINIT and reset.
    pub const fn new() -> State {
        let mut legacy = [0; 512];
        legacy[legacy::FCW] = 0x7F;
        legacy[legacy::FCW + 1] = 0x03;
        legacy[legacy::MXCSR] = 0x80;
        legacy[legacy::MXCSR + 1] = 0x1F;
        State {
            legacy,
            ymm_high: [[0; 16]; 16],
            zmm_high: [[0; 32]; 16],
            zmm_rest: [[0; 64]; 16],
            opmask: [0; 8],
            gpr: [0; 16],
            rip: 0,
            rflags: 0x202,
            fs_base: 0,
            gs_base: 0,
            selectors: [0; 6],
            _pad: [0; 2],
        }
    }

    /// A 16-bit field of the legacy image.
    pub fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.legacy[at], self.legacy[at + 1]])
    }

    /// Sets a 16-bit field of the legacy image.
    pub fn set_word(&mut self, at: usize, value: u16) {
        self.legacy[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// A 32-bit field of the legacy image.
    pub fn dword(&self, at: usize) -> u32 {
        self.legacy[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Sets a 32-bit field of the legacy image.
    pub fn set_dword(&mut self, at: usize, value: u32) {
        self.legacy[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// A 64-bit field of the legacy image.
    pub fn qword(&self, at: usize) -> u64 {
        self.legacy[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Sets a 64-bit field of the legacy image.
    pub fn set_qword(&mut self, at: usize, value: u64) {
        self.legacy[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Vector register `n`, 0 to 31, up to its full width.
    pub fn vector(&self, n: usize) -> [u8; 64] {
        if n >= 16 {
            return self.zmm_rest[n & 15];
        }
        let mut bytes = [0; 64];
        let at = legacy::XMM + 16 * n;
        bytes[..16].copy_from_slice(&self.legacy[at..at + 16]);
        bytes[16..32].copy_from_slice(&self.ymm_high[n]);
        bytes[32..].copy_from_slice(&self.zmm_high[n]);
        bytes
    }

    /// Sets vector register `n`, 0 to 31.
    pub fn set_vector(&mut self, n: usize, bytes: &[u8; 64]) {
        if n >= 16 {
            self.zmm_rest[n & 15] = *bytes;
            return;
        }
        let at = legacy::XMM + 16 * n;
        self.legacy[at..at + 16].copy_from_slice(&bytes[..16]);
        self.ymm_high[n].copy_from_slice(&bytes[16..32]);
        self.zmm_high[n].copy_from_slice(&bytes[32..]);
    }
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

/// One instruction with everything it starts from.
#[derive(Clone, Debug)]
pub struct Case {
    /// Code size: 16, 32 or 64.
    pub bits: u32,
    /// The form it was generated for.
    pub form: Code,
    /// Number of the case within its form.
    pub number: u64,
    /// The instruction and INT3 behind it, to the end of the code pages.
    pub code: [u8; CODE_ROOM],
    /// Length of the instruction.
    pub len: usize,
    /// Linear address of the instruction.
    pub linear: u64,
    /// Registers.
    pub state: State,
    /// Memory.
    pub memory: Memory,
}

impl Case {
    /// The instruction's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.code[..self.len.min(CODE_ROOM)]
    }

    /// The instruction.
    pub fn instruction(&self) -> Instruction {
        decode(self.bits, self.bytes(), self.state.rip)
    }
}

/// Decodes as the engines do.
pub fn decode(bits: u32, bytes: &[u8], rip: u64) -> Instruction {
    Decoder::with_ip(bits, bytes, rip, decoder::options(x86::cpuid::Vendor::host())).decode()
}

/// How a case ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The exception that ended it: #BP or #DB behind the instruction when it completed.
    pub vector: u8,
    /// Its error code, 0 where it has none.
    pub error: u32,
    /// The address, for a page fault.
    pub address: u64,
    /// Registers at the exception.
    pub state: State,
    /// Memory at the exception.
    pub memory: Memory,
}
