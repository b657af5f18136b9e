//! Code that is in no guest: a few bytes, translated as a fresh CPU would meet them.

use super::Explanation;
use crate::{Config, Engine, EngineError};
use interp::sync;
use softmmu::{GuestRam, LowBox, LowError, Mmu, MmuError, NullBus, RamError, RamRange};
use std::sync::Arc;
use thiserror::Error;
use x86::control::{cr0, cr4, efer};
use x86::segment::ar;
use x86::{Cpu, SegReg, Segment};

/// Why code cannot be explained.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// There is no such width.
    #[error("there is no {0}-bit code: give 16, 32 or 64")]
    Bits(u32),
    /// There is no such ring, or this mode does not have it.
    #[error("{bits}-bit code does not run in ring {ring} here: give {allowed}")]
    Ring {
        /// Width of the code.
        bits: u32,
        /// What was asked for.
        ring: u8,
        /// What there is.
        allowed: &'static str,
    },
    /// Nothing to translate.
    #[error("there is no code at {0:#x}")]
    Empty(u64),
    /// The address is beyond what the mode can reach.
    #[error("address {rip:#x} is out of reach of {bits}-bit code")]
    Address {
        /// The address.
        rip: u64,
        /// Width of the code.
        bits: u32,
    },
    /// The first instruction goes on behind the last byte.
    #[error("the bytes end in the middle of the instruction at {0:#x}")]
    Truncated(u64),
    /// The bytes are no instruction.
    #[error("the bytes at {0:#x} are no instruction")]
    Invalid(u64),
    /// There is no translation of it.
    #[error("code in this state of the CPU is interpreted, not translated")]
    Interpreted,
    /// The page is not there.
    #[error("no code is mapped at {0:#x}")]
    Unmapped(u64),
    /// The CPU's state is too high in memory.
    #[error("the host gave memory above 2 GiB for the CPU's state")]
    OutOfReach,
    /// The translator's memory.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Guest memory.
    #[error("guest memory: {0}")]
    Ram(#[from] RamError),
    /// The MMU's tables.
    #[error("software MMU: {0}")]
    Mmu(#[from] MmuError),
    /// Low memory.
    #[error(transparent)]
    Low(#[from] LowError),
}

/// Code to be explained, and the state that it runs in.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// The bytes from `rip` on. Those behind the block do not matter.
    pub bytes: &'a [u8],
    /// Linear address of the first.
    pub rip: u64,
    /// 16 (real mode), 32 or 64.
    pub bits: u32,
    /// 0 or 3; 0 for 16-bit code.
    pub ring: u8,
}

/// Two pages for the code, page tables for it, and nothing else.
const RAM: u64 = 0x8000;
/// All that real mode reaches.
const REAL_MODE_RAM: u64 = 0x11_0000;
const TABLES: u64 = 0x2000;
const PAGE: u64 = 0x1000;

impl Code<'_> {
    /// Translates the block at the first byte and explains it.
    ///
    /// # Errors
    /// [`ExplainError`]
    pub fn explain(&self) -> Result<Explanation, ExplainError> {
        let config = Config { notes: true, exact_limit: false, count: false, ..Config::default() };
        self.explain_by(&mut Engine::new(config)?)
    }

    /// [`Code::explain`] by this engine.
    pub(crate) fn explain_by(&self, engine: &mut Engine) -> Result<Explanation, ExplainError> {
        self.check()?;
        let (len, at) = match self.bits {
            16 => (REAL_MODE_RAM, self.rip),
            // Where it lies in physical memory does not matter but for the offset in the page.
            _ => (RAM, self.rip & (PAGE - 1)),
        };
        let ram = Arc::new(GuestRam::new(&[RamRange { gpa: 0, len }])?);
        let mut mmu = Mmu::new(ram, Arc::new(NullBus))?;
        let mut cpu = LowBox::new(Cpu::new())?;
        let room = 2 * PAGE - (self.rip & (PAGE - 1));
        mmu.phys_write(at, &self.bytes[..self.bytes.len().min(room as usize)]);
        self.prepare(&mut cpu, &mut mmu);
        engine.block_limit = self.bytes.len() as u64;
        let explanation = engine.explain_here(&mut cpu, &mut mmu)?;
        Ok(Explanation { gpa: None, ..explanation })
    }

    fn check(&self) -> Result<(), ExplainError> {
        let (bits, ring) = (self.bits, self.ring);
        let limit = match bits {
            16 => 0xF_FFFF,
            32 => 0xFFFF_FFFF,
            64 => u64::MAX,
            _ => return Err(ExplainError::Bits(bits)),
        };
        match (bits, ring) {
            (16, 0) | (32 | 64, 0 | 3) => {}
            (16, _) => return Err(ExplainError::Ring { bits, ring, allowed: "0" }),
            _ => return Err(ExplainError::Ring { bits, ring, allowed: "0 or 3" }),
        }
        if self.rip > limit || bits == 64 && ((self.rip << 16) as i64 >> 16) as u64 != self.rip {
            return Err(ExplainError::Address { rip: self.rip, bits });
        }
        if self.bytes.is_empty() {
            return Err(ExplainError::Empty(self.rip));
        }
        // Zeros behind the bytes tell an instruction that is cut short from none at all.
        let mut window = [0; decoder::MAX_LENGTH];
        let len = self.bytes.len().min(window.len());
        window[..len].copy_from_slice(&self.bytes[..len]);
        match decoder::decode(&window, bits) {
            Ok(insn) if usize::from(insn.len) > self.bytes.len() => {
                Err(ExplainError::Truncated(self.rip))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(ExplainError::Invalid(self.rip)),
        }
    }

    /// The CPU in the mode asked for, flat, with paging but in real mode, floating point on.
    fn prepare(&self, cpu: &mut Cpu, mmu: &mut Mmu) {
        cpu.rip = self.rip;
        cpu.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT;
        // SSE, AVX and the three parts of AVX-512 (SDM vol. 1, section 13.3).
        cpu.xcr0 = 1 | cpu.policy.xcr0_mask() & 0xE6;
        if cpu.xcr0 & 6 == 6 {
            cpu.cr4 |= cr4::OSXSAVE;
        }
        cpu.x87 = x86::fpu::X87::INIT;
        if self.bits == 16 {
            cpu.cr0 = cr0::ET | cr0::NE;
            let base = self.rip & !0xFFFF;
            let rights = ar::P | ar::S | ar::RW | ar::ACCESSED;
            cpu.seg = [Segment::real(0, 0xFFFF, rights); 6];
            cpu.seg[SegReg::CS as usize] = Segment::real((base >> 4) as u16, 0xFFFF, rights);
            cpu.rip = self.rip - base;
        } else {
            let long = self.bits == 64;
            let dpl = u64::from(self.ring) << 45;
            let code = if long { 0x00AF_9B00_0000_FFFF } else { 0x00CF_9B00_0000_FFFF };
            let data = Segment::from_descriptor(16, 0x00CF_9300_0000_FFFF | dpl);
            cpu.seg = [data; 6];
            cpu.seg[SegReg::CS as usize] = Segment::from_descriptor(8, code | dpl);
            cpu.cr0 = cr0::ET | cr0::NE | cr0::PE | cr0::PG | cr0::WP;
            cpu.cr3 = TABLES;
            if long {
                cpu.cr4 |= cr4::PAE;
                cpu.efer = efer::LME | efer::LMA | efer::SCE;
            }
            self.map(mmu);
        }
        // The only error is a bad PDPTE of PAE paging.
        let _ = sync::paging_changed(cpu, mmu);
    }

    /// Page tables that map the page of the code, and the one behind it, to the first two pages.
    fn map(&self, mmu: &mut Mmu) {
        let levels: &[(u32, u64)] = if self.bits == 64 {
            &[(39, 9), (30, 9), (21, 9), (12, 9)]
        } else {
            &[(22, 10), (12, 10)]
        };
        let entry_size: u64 = if self.bits == 64 { 8 } else { 4 };
        for page in 0..2 {
            let linear = (self.rip & !(PAGE - 1)).wrapping_add(page * PAGE);
            for (level, &(shift, width)) in levels.iter().enumerate() {
                let table = TABLES + level as u64 * PAGE;
                let last = level + 1 == levels.len();
                let target = if last { page * PAGE } else { table + PAGE };
                let index = linear >> shift & ((1 << width) - 1);
                let entry = (target | 7).to_le_bytes();
                mmu.phys_write(table + index * entry_size, &entry[..entry_size as usize]);
            }
        }
    }
}
