//! What an instruction uses, as iced-x86 knows it, and whether a thunk may run it.

use crate::features::{Needs, host_has, host_is_amd, needs};
use crate::masking::{Masking, masking};
use decoder::Insn;
use iced_x86::{
    Code, CpuidFeature, EncodingKind, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpCodeTableKind, OpKind, Register,
};

/// The execution unit an instruction belongs to: which state it works on, and which control bits
/// allow it (SDM vol. 3A, tables 2-2 and 13-1; vol. 1, section 13.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// x87.
    X87,
    /// MMX registers.
    Mmx,
    /// XMM registers by legacy encodings, some of them together with MMX registers.
    Sse,
    /// VEX encodings.
    Vex,
    /// Opmask registers by VEX encodings.
    Opmask,
    /// EVEX encodings.
    Evex,
}

/// How the memory operand is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryUse {
    /// There is none.
    None,
    /// Read.
    Read,
    /// Written, all of it.
    Write,
    /// Read and written.
    ReadWrite,
}

/// What is to be done around an instruction that the host executes.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// The unit whose control bits allow the instruction.
    pub unit: Unit,
    /// How the memory operand is used.
    pub memory: MemoryUse,
    /// Size of the memory operand in bytes, up to 64.
    pub memory_size: u8,
    /// Alignment that the memory operand must have, else #GP(0); 1 where any will do.
    pub alignment: u8,
    /// What an opmask lets through of the memory operand.
    pub masking: Option<Masking>,
    /// Whether x87 or MMX state is loaded and stored: a pending x87 error comes first.
    pub uses_x87: bool,
    /// The CPUID features without which the instruction is undefined.
    pub needs: Needs,
}

/// The traits of an instruction that has a thunk, be it cached or not.
pub fn traits(insn: &Insn) -> Option<Traits> {
    is_candidate(insn.code).then(|| facts(insn)).flatten().map(|facts| facts.traits())
}

/// Everything that a stub is made from.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The instruction with operands the stub can use: no memory base, no RSP.
    pub(crate) insn: Instruction,
    pub(crate) unit: Unit,
    pub(crate) needs: Needs,
    pub(crate) memory: MemoryUse,
    pub(crate) memory_size: u8,
    /// Alignment that the memory operand must have, 1 for none.
    pub(crate) alignment: u8,
    /// Vector registers used and written, by number.
    pub(crate) vector_used: u32,
    pub(crate) vector_written: u32,
    pub(crate) opmask_used: u8,
    pub(crate) opmask_written: u8,
    /// General-purpose registers of the host used and written.
    pub(crate) gpr_used: u16,
    pub(crate) gpr_written: u16,
    /// The host register that stands for the guest's RSP, where it is an operand.
    pub(crate) rsp_as: Option<u8>,
    /// RFLAGS bits.
    pub(crate) flags_read: u64,
    pub(crate) flags_written: u64,
    pub(crate) uses_mxcsr: bool,
    /// Loads and stores the x87 and MMX state.
    pub(crate) uses_x87: bool,
}

/// Host registers that stand for guest RSP, best first.
const RSP_STAND_INS: [u8; 3] = [8, 9, 10];

/// The facts of `insn`, or none where no thunk may run it.
pub(crate) fn facts(guest: &Insn) -> Option<Facts> {
    let mut insn = guest.to_iced(0x1000);
    let needs = needs(insn.cpuid_features())?;
    let allowed = insn.flow_control() == FlowControl::Next
        && !insn.is_privileged()
        && !insn.is_stack_instruction()
        && !insn.is_save_restore_instruction()
        && !insn.is_string_instruction()
        && !insn.has_lock_prefix()
        && !insn.is_vsib()
        && host_has(&needs)
        && !in_software(insn.mnemonic());
    if !allowed {
        return None;
    }
    insn.set_segment_prefix(Register::None);
    insn.set_has_rep_prefix(false);
    insn.set_has_repne_prefix(false);

    let mut memory_operand = None;
    for i in 0..insn.op_count() {
        match insn.op_kind(i) {
            OpKind::Memory => memory_operand = Some(i),
            OpKind::Register if is_allowed_register(insn.op_register(i)) => {}
            OpKind::Immediate8 | OpKind::Immediate8_2nd => {}
            _ => return None,
        }
    }
    let size = insn.memory_size().size();
    if memory_operand.is_some() {
        if size == 0 || size > 64 {
            return None;
        }
        insn.set_memory_base(Register::None);
        insn.set_memory_index(Register::None);
        insn.set_memory_index_scale(1);
        insn.set_memory_displacement64(0);
    }
    let rsp_as = replace_rsp(&mut insn)?;

    let mut facts = Facts {
        unit: unit(&insn)?,
        needs,
        memory: MemoryUse::None,
        memory_size: size as u8,
        alignment: 1,
        vector_used: 0,
        vector_written: 0,
        opmask_used: 0,
        opmask_written: 0,
        gpr_used: 0,
        gpr_written: 0,
        rsp_as,
        flags_read: decoder::rflags_of(insn.rflags_read()),
        flags_written: decoder::rflags_of(insn.rflags_modified()),
        uses_mxcsr: uses_mxcsr(insn.mnemonic()),
        uses_x87: false,
        insn,
    };
    facts.add_registers(memory_operand)?;
    facts.uses_x87 |= facts.unit == Unit::X87;
    facts.alignment = alignment(&facts);
    Some(facts)
}

impl Facts {
    pub(crate) fn traits(&self) -> Traits {
        Traits {
            unit: self.unit,
            memory: self.memory,
            memory_size: self.memory_size,
            alignment: self.alignment,
            masking: masking(&self.insn),
            uses_x87: self.uses_x87,
            needs: self.needs,
        }
    }

    /// The instruction with its memory operand, if it has one, at `base + displacement`.
    pub(crate) fn with_memory_at(&self, base: Register, displacement: u64) -> Instruction {
        let mut insn = self.insn;
        if self.memory != MemoryUse::None {
            insn.set_memory_base(base);
            insn.set_memory_displacement64(displacement);
            insn.set_memory_displ_size(u32::from(displacement != 0));
        }
        insn
    }

    fn add_registers(&mut self, memory_operand: Option<u32>) -> Option<()> {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(&self.insn);
        for used in info.used_registers() {
            let r = used.register();
            let written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            if r.is_vector_register() {
                self.vector_used |= 1 << r.number();
                self.vector_written |= u32::from(written) << r.number();
            } else if r.is_k() {
                self.opmask_used |= 1 << r.number();
                self.opmask_written |= u8::from(written) << r.number();
            } else if r.is_gpr() {
                let number = r.full_register().number();
                if number == 4 {
                    return None;
                }
                self.gpr_used |= 1 << number;
                self.gpr_written |= u16::from(written) << number;
            } else if r.is_mm() {
                self.uses_x87 = true;
            } else if !r.is_st() && !r.is_segment_register() {
                return None;
            }
        }
        if self.insn.mnemonic() == Mnemonic::Cvtpi2ps {
            // From memory it uses no MMX register, but enters MMX state all the same.
            self.uses_x87 = true;
        }
        if let Some(i) = memory_operand {
            self.memory = match info.op_access(i) {
                OpAccess::Read | OpAccess::CondRead => MemoryUse::Read,
                OpAccess::Write | OpAccess::CondWrite => MemoryUse::Write,
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => MemoryUse::ReadWrite,
                OpAccess::None | OpAccess::NoMemAccess => return None,
            };
        }
        Some(())
    }
}

/// Puts another register in the place of RSP. Returns its number, or none if that is impossible.
fn replace_rsp(insn: &mut Instruction) -> Option<Option<u8>> {
    let mut taken = 0u16;
    let mut found = false;
    for i in 0..insn.op_count() {
        if insn.op_kind(i) == OpKind::Register && insn.op_register(i).is_gpr() {
            let number = insn.op_register(i).full_register().number();
            found |= number == 4;
            taken |= 1 << number;
        }
    }
    if !found {
        return Some(None);
    }
    let stand_in = RSP_STAND_INS.into_iter().find(|n| taken >> n & 1 == 0)?;
    for i in 0..insn.op_count() {
        if insn.op_kind(i) != OpKind::Register {
            continue;
        }
        let r = insn.op_register(i);
        let base = match r {
            Register::SPL => Register::AL,
            Register::SP => Register::AX,
            Register::ESP => Register::EAX,
            Register::RSP => Register::RAX,
            _ => continue,
        };
        // The byte registers have AH to BH between BL and SPL.
        let gap = if r == Register::SPL { 4 } else { 0 };
        insn.set_op_register(i, base + u32::from(stand_in) + gap);
    }
    Some(Some(stand_in))
}

fn is_allowed_register(r: Register) -> bool {
    r.is_vector_register() || r.is_mm() || r.is_st() || r.is_k() || r.is_gpr()
}

fn unit(insn: &Instruction) -> Option<Unit> {
    let registers = |test: fn(Register) -> bool| {
        (0..insn.op_count())
            .any(|i| insn.op_kind(i) == OpKind::Register && test(insn.op_register(i)))
    };
    match insn.encoding() {
        EncodingKind::Legacy => {
            let info = insn.op_code();
            let escape = info.table() == OpCodeTableKind::Normal
                && (matches!(info.op_code(), 0xD8..=0xDF) || info.op_code() >> 8 >= 0xD8);
            Some(if escape {
                Unit::X87
            } else if registers(Register::is_vector_register) {
                Unit::Sse
            } else if registers(Register::is_mm) {
                Unit::Mmx
            } else if scalar_to_integer(insn.mnemonic()) {
                Unit::Sse
            } else {
                return None;
            })
        }
        EncodingKind::VEX if registers(Register::is_k) => Some(Unit::Opmask),
        EncodingKind::VEX if registers(Register::is_vector_register) => Some(Unit::Vex),
        EncodingKind::VEX if scalar_to_integer(insn.mnemonic()) => Some(Unit::Vex),
        EncodingKind::EVEX => Some(Unit::Evex),
        _ => None,
    }
}

/// Instructions that use no vector register where their source is in memory.
fn scalar_to_integer(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Cvtss2si
            | Cvttss2si
            | Cvtsd2si
            | Cvttsd2si
            | Vcvtss2si
            | Vcvttss2si
            | Vcvtsd2si
            | Vcvttsd2si
    )
}

/// Vector instructions that have a handler of their own in the interpreter, because they are not
/// about the values in registers, or because each of their elements can fault.
fn in_software(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        // State as a whole.
        Emms | Vzeroupper | Vzeroall | Ldmxcsr | Stmxcsr | Vldmxcsr | Vstmxcsr
        // Element-wise memory.
        | Maskmovq | Maskmovdqu | Vmaskmovdqu | Vmaskmovps | Vmaskmovpd | Vpmaskmovd | Vpmaskmovq
        // x87 control.
        | Fninit | Finit | Fnclex | Fclex | Fldcw | Fnstcw | Fstcw | Fnstsw | Fstsw | Fldenv
        | Fnstenv | Fstenv | Fnsave | Fsave | Frstor | Wait | Fneni | Fndisi | Fnsetpm | Feni
        | Fdisi | Fsetpm
    )
}

/// Whether an instruction can read the rounding mode or raise a SIMD exception. (Loading MXCSR
/// where it is not needed would only cost time.)
fn uses_mxcsr(mnemonic: Mnemonic) -> bool {
    /// Beginnings of the names of integer, logical and moving instructions.
    const WITHOUT: [&str; 20] = [
        "P",
        "Mov",
        "And",
        "Or",
        "Xor",
        "Unpck",
        "Shuf",
        "Aes",
        "Sha",
        "Gf2p8",
        "Lddqu",
        "Extr",
        "Insert",
        "Blend",
        "Broadcast",
        "Mask",
        "K",
        "Align",
        "Test",
        "Compress",
    ];
    let name = format!("{mnemonic:?}");
    if name.starts_with('F') && !name.starts_with("Fma") {
        return false;
    }
    let name = match name.strip_prefix('V') {
        Some(rest) => {
            let mut c = rest.chars();
            let first = c.next().map(|f| f.to_ascii_uppercase());
            first.into_iter().chain(c).collect()
        }
        None => name,
    };
    !WITHOUT.iter().any(|p| name.starts_with(p))
}

/// The alignment that #GP enforces (SDM vol. 2A, section 2.4; vol. 1, section 15.7).
fn alignment(facts: &Facts) -> u8 {
    use Mnemonic::*;
    if facts.memory == MemoryUse::None {
        return 1;
    }
    match facts.unit {
        Unit::Sse => match facts.insn.mnemonic() {
            Movups | Movupd | Movdqu | Lddqu | Pcmpestri | Pcmpestri64 | Pcmpestrm
            | Pcmpestrm64 | Pcmpistri | Pcmpistrm => 1,
            // Intel's demand alignment, AMD's do not.
            Sha1rnds4 | Sha1nexte | Sha1msg1 | Sha1msg2 | Sha256rnds2 | Sha256msg1 | Sha256msg2
                if host_is_amd() =>
            {
                1
            }
            _ if facts.memory_size == 16 => 16,
            _ => 1,
        },
        Unit::Vex | Unit::Evex => match facts.insn.mnemonic() {
            Vmovaps | Vmovapd | Vmovdqa | Vmovdqa32 | Vmovdqa64 | Vmovntps | Vmovntpd
            | Vmovntdq | Vmovntdqa => facts.memory_size,
            _ => 1,
        },
        // CVTPD2PI and CVTTPD2PI.
        Unit::Mmx if facts.memory_size == 16 => 16,
        Unit::X87 | Unit::Mmx | Unit::Opmask => 1,
    }
}

/// Whether a thunk could run instructions of this code on a host with every feature.
pub fn is_candidate(code: Code) -> bool {
    let features = code.cpuid_features();
    // CMOVcc is an integer instruction; FCMOVcc needs the x87 as well.
    needs(features).is_some() && features != [CpuidFeature::CMOV]
}
