//! The guest CPU's state, one `repr(C)` struct shared by both engines.

use crate::control::{cr0, cr4, dr6, dr7, efer};
use crate::cpuid::Policy;
use crate::flags;
use crate::fpu::{MXCSR_INIT, VectorReg, X87};
use crate::mode::{Mode, ModeKey};
use crate::segment::{DescriptorTable, SegReg, Segment, ar};
use std::sync::Arc;

/// What the CPU is doing (SDM vol. 3C, section 25.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Activity {
    /// Executing instructions.
    Running,
    /// HLT: waits for an interrupt, NMI or reset.
    Halted,
    /// Waits for a start-up IPI.
    WaitForSipi,
    /// Triple fault.
    Shutdown,
}

/// Guest CPU state: the interpreter's registers and the translator's context at once.
///
/// Hot fields come first. [`Cpu::mode`], [`Cpu::cpl`] and [`Cpu::key`] are derived: call
/// [`Cpu::update_mode`] after a change of CR0, CR4.SMAP, EFER, RFLAGS.VM, RFLAGS.AC or of a
/// segment register.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Cpu {
    /// RAX to R15 by hardware number.
    pub gpr: [u64; 16],
    /// Instruction pointer. While a handler runs it points behind the instruction.
    pub rip: u64,
    /// RFLAGS, bit 1 always set.
    pub rflags: u64,
    /// Instructions retired.
    pub instructions: u64,
    /// See [`ModeKey`].
    pub key: ModeKey,
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// Operating mode.
    pub mode: Mode,
    /// STI, MOV SS or POP SS was the last instruction: no interrupt (and after MOV SS no debug
    /// trap) before the end of the next one.
    pub shadow: Shadow,
    /// NMIs are blocked until the next IRET.
    pub nmi_blocked: bool,
    /// Running, halted, waiting or shut down.
    pub activity: Activity,
    /// Single-stepping or an enabled breakpoint: run one instruction at a time.
    pub stepping: bool,
    /// With [`Cpu::plain_limit`]: where `offset + plain_bias` (wrapping) is below it, an access of
    /// up to 64 bytes at `offset` of ES, SS or DS is at linear address `offset`, passes every check
    /// of segmentation and canonical form, and concerns no alignment check or breakpoint. Derived.
    pub plain_bias: u64,
    /// See [`Cpu::plain_bias`]. Zero where no access is plain.
    pub plain_limit: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub seg: [Segment; 6],
    /// LDT register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: DescriptorTable,
    /// IDTR.
    pub idtr: DescriptorTable,
    /// CR0.
    pub cr0: u64,
    /// CR2: page-fault linear address.
    pub cr2: u64,
    /// CR3, without the no-flush bit.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// Debug conditions (DR6 bits) met by the current instruction, reported at its end.
    pub pending_debug: u64,
    /// `rip` is at a repeated string instruction that has done some of its iterations.
    pub repeating: bool,
    /// FERR# is asserted: an x87 error waits to be reported while CR0.NE is clear.
    pub ferr: bool,
    /// IA32_EFER.
    pub efer: u64,
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u32,
    /// PKRU.
    pub pkru: u32,
    /// Guest TSC = platform TSC + this.
    pub tsc_offset: u64,
    /// IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub mtrr_def_type: u64,
    /// Fixed-range MTRRs, in MSR order 0x250, 0x258, 0x259, 0x268 to 0x26F.
    pub mtrr_fixed: [u64; 11],
    /// Variable-range MTRRs: base and mask by turns.
    pub mtrr_variable: [u64; 16],
    /// Initial APIC ID.
    pub apic_id: u32,
    /// What CPUID reports.
    pub policy: Arc<Policy>,
    /// MXCSR.
    pub mxcsr: u32,
    /// XINUSE: state components not in their initial configuration, for XSAVEOPT and XGETBV 1.
    pub xinuse: u64,
    /// Opmask registers.
    pub opmask: [u64; 8],
    /// Vector registers.
    pub vector: [VectorReg; 32],
    /// x87 and MMX registers.
    pub x87: X87,
}

/// The interrupt shadow left by an instruction (SDM vol. 3A, section 6.8.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Shadow {
    /// None.
    None = 0,
    /// After STI: maskable interrupts wait.
    Sti = 1,
    /// After MOV SS or POP SS: interrupts and debug traps wait.
    MovSs = 2,
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu::new()
    }
}

impl Cpu {
    /// The state after power-up or RESET (SDM vol. 3A, table 9-1).
    pub fn new() -> Cpu {
        let data = Segment::real(0, 0xFFFF, ar::P | ar::S | ar::RW | ar::ACCESSED);
        let mut code = data;
        code.selector = 0xF000;
        code.base = 0xFFFF_0000;
        let system =
            |kind: u32| Segment { limit: 0xFFFF, access: ar::P | kind << 8, ..Segment::default() };
        let mut seg = [data; 6];
        seg[SegReg::CS as usize] = code;
        let mut cpu = Cpu {
            gpr: [0; 16],
            rip: 0xFFF0,
            rflags: flags::FIXED_ONE,
            instructions: 0,
            key: ModeKey::default(),
            cpl: 0,
            mode: Mode::Real,
            shadow: Shadow::None,
            nmi_blocked: false,
            activity: Activity::Running,
            stepping: false,
            plain_bias: 0,
            plain_limit: 0,
            seg,
            ldtr: system(2),
            tr: system(0xB),
            gdtr: DescriptorTable { base: 0, limit: 0xFFFF },
            idtr: DescriptorTable { base: 0, limit: 0xFFFF },
            cr0: cr0::ET | cr0::CD | cr0::NW,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            xcr0: 1,
            xss: 0,
            dr: [0; 4],
            dr6: dr6::FIXED,
            dr7: dr7::FIXED,
            pending_debug: 0,
            repeating: false,
            ferr: false,
            efer: 0,
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_aux: 0,
            pkru: 0,
            tsc_offset: 0,
            tsc_adjust: 0,
            pat: 0x0007_0406_0007_0406,
            misc_enable: 1,
            debugctl: 0,
            spec_ctrl: 0,
            mtrr_def_type: 0,
            mtrr_fixed: [0; 11],
            mtrr_variable: [0; 16],
            apic_id: 0,
            policy: Policy::single(),
            mxcsr: MXCSR_INIT,
            xinuse: 0,
            opmask: [0; 8],
            vector: [VectorReg::default(); 32],
            x87: X87::INIT,
        };
        // The x87 control word is 0x40 after power-up, before FNINIT (SDM vol. 3A, table 9-1).
        cpu.x87.fcw = 0x40;
        cpu.x87.ftw = 0xFF;
        cpu.update_mode();
        cpu
    }

    /// The given segment register.
    #[inline(always)]
    pub fn seg(&self, r: SegReg) -> &Segment {
        &self.seg[r as usize]
    }

    /// CS.
    #[inline(always)]
    pub fn cs(&self) -> &Segment {
        &self.seg[SegReg::CS as usize]
    }

    /// SS.
    #[inline(always)]
    pub fn ss(&self) -> &Segment {
        &self.seg[SegReg::SS as usize]
    }

    /// Whether CR0.PE is set and RFLAGS.VM clear: descriptors and privilege levels are in force.
    #[inline(always)]
    pub fn is_protected(&self) -> bool {
        !matches!(self.mode, Mode::Real | Mode::Virtual8086)
    }

    /// 64-bit mode.
    #[inline(always)]
    pub fn is_long(&self) -> bool {
        self.mode == Mode::Long
    }

    /// EFER.LMA: 64-bit or compatibility mode.
    #[inline(always)]
    pub fn long_mode_active(&self) -> bool {
        self.efer & efer::LMA != 0
    }

    /// RFLAGS.IOPL.
    #[inline(always)]
    pub fn iopl(&self) -> u8 {
        (self.rflags >> flags::IOPL_SHIFT) as u8 & 3
    }

    /// Width of the stack pointer in bits: 16, 32 or 64 (SDM vol. 1, section 6.2.3).
    #[inline(always)]
    pub fn stack_bits(&self) -> u32 {
        if self.mode == Mode::Long {
            64
        } else if self.ss().is_32bit() {
            32
        } else {
            16
        }
    }

    /// Recomputes [`Cpu::mode`], [`Cpu::cpl`], [`Cpu::key`] and [`Cpu::stepping`].
    ///
    /// In protected and long mode the CPL is SS.DPL (SDM vol. 3A, section 5.5), in real mode 0,
    /// in V86 mode 3.
    pub fn update_mode(&mut self) {
        let cs = *self.cs();
        self.mode = if self.cr0 & cr0::PE == 0 {
            Mode::Real
        } else if self.rflags & flags::VM != 0 {
            Mode::Virtual8086
        } else if self.efer & efer::LMA == 0 {
            Mode::Protected
        } else if cs.is_64bit() {
            Mode::Long
        } else {
            Mode::Compatibility
        };
        self.cpl = match self.mode {
            Mode::Real => 0,
            Mode::Virtual8086 => 3,
            Mode::Protected | Mode::Compatibility | Mode::Long => self.ss().dpl(),
        };
        let size: u16 = match self.mode {
            Mode::Long => 2,
            Mode::Virtual8086 => 0,
            Mode::Real | Mode::Protected | Mode::Compatibility => u16::from(cs.is_32bit()),
        };
        let flat = self.mode == Mode::Long
            || [SegReg::CS, SegReg::DS, SegReg::ES, SegReg::SS]
                .iter()
                .all(|&r| self.seg(r).is_flat());
        let writable = self.mode == Mode::Long
            || (self.seg(SegReg::DS).writable()
                && self.seg(SegReg::ES).writable()
                && self.ss().writable());
        let smap_off = self.cr4 & cr4::SMAP != 0 && self.rflags & flags::AC != 0 && self.cpl < 3;
        let bit = |on: bool, mask: u16| if on { mask } else { 0 };
        self.key = ModeKey(
            size | bit(self.ss().is_32bit(), ModeKey::STACK32)
                | u16::from(self.cpl) << ModeKey::CPL_SHIFT
                | bit(self.is_protected(), ModeKey::PROTECTED)
                | bit(self.mode == Mode::Virtual8086, ModeKey::V86)
                | bit(flat && writable, ModeKey::FLAT)
                | bit(smap_off, ModeKey::SMAP_OFF)
                | bit(self.cr0 & cr0::PG != 0, ModeKey::PAGING),
        );
        self.update_stepping();
    }

    /// Recomputes [`Cpu::stepping`] after a change of RFLAGS.TF or DR7.
    pub fn update_stepping(&mut self) {
        self.stepping = self.rflags & flags::TF != 0 || self.dr7 & dr7::ANY_ENABLED != 0;
        self.update_plain();
    }

    /// Recomputes [`Cpu::plain_bias`] and [`Cpu::plain_limit`].
    fn update_plain(&mut self) {
        // The longest access that may begin below the limit.
        const LONGEST: u64 = 64;
        let aligned = self.cpl == 3 && self.rflags & flags::AC != 0 && self.cr0 & cr0::AM != 0;
        let flat = self.key.0 & ModeKey::FLAT != 0;
        (self.plain_bias, self.plain_limit) = if self.stepping || aligned || !flat {
            (0, 0)
        } else if self.mode != Mode::Long {
            (0, (1 << 32) - LONGEST)
        } else if self.cr4 & cr4::LA57 == 0 {
            (1 << 47, (1 << 48) - LONGEST)
        } else {
            (1 << 56, (1 << 57) - LONGEST)
        };
    }

    /// Whether a maskable interrupt would be taken now.
    #[inline(always)]
    pub fn interrupts_open(&self) -> bool {
        self.rflags & flags::IF != 0 && self.shadow == Shadow::None
    }

    /// Whether a non-maskable interrupt would be taken now (SDM vol. 3A, sections 6.7.1 and 6.8.3).
    /// Processors may block it behind STI too, and software relies on that for STI HLT.
    #[inline(always)]
    pub fn nmi_open(&self) -> bool {
        !self.nmi_blocked && self.shadow == Shadow::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_state() {
        let cpu = Cpu::new();
        assert_eq!(cpu.mode, Mode::Real);
        assert_eq!(cpu.cs().base + cpu.rip, 0xFFFF_FFF0);
        assert_eq!(cpu.key.bits(), 16);
        assert_eq!(cpu.stack_bits(), 16);
    }

    #[test]
    fn cpl_follows_ss() {
        let mut cpu = Cpu::new();
        cpu.cr0 |= cr0::PE;
        cpu.seg[SegReg::SS as usize] = Segment::from_descriptor(0x2B, 0x00CF_F200_0000_FFFF);
        cpu.update_mode();
        assert_eq!((cpu.mode, cpu.cpl), (Mode::Protected, 3));
        assert_eq!(cpu.stack_bits(), 32);
    }

    #[test]
    fn x87_area_has_the_architectural_layout() {
        assert_eq!(std::mem::offset_of!(X87, st), 32);
        assert_eq!(std::mem::offset_of!(X87, xstate_bv), 512);
        assert_eq!(size_of::<X87>(), 576);
    }
}
