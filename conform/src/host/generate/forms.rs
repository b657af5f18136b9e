//! Which forms of which instructions are generated, and why the others are not.

use crate::host::compare::is_amd;
use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic, OpCodeInfo};

/// Every form that the code size has, with the reason where it is not generated.
pub fn forms(bits: u32) -> Vec<(Code, Option<&'static str>)> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            info.is_instruction()
                && info.is_available_in_mode(bits)
                && info.encoding() != EncodingKind::MVEX
                && info.decoder_option() == 0
                && has_vendor(info, bits)
        })
        .map(|code| (code, reason(code)))
        .collect()
}

/// Whether the host's vendor decodes the form.
fn has_vendor(info: &OpCodeInfo, bits: u32) -> bool {
    match (is_amd(), bits) {
        (true, 16) => info.amd_decoder16(),
        (true, 32) => info.amd_decoder32(),
        (true, _) => info.amd_decoder64(),
        (false, 16) => info.intel_decoder16(),
        (false, 32) => info.intel_decoder32(),
        (false, _) => info.intel_decoder64(),
    }
}

/// Why a form is not generated.
pub fn reason(code: Code) -> Option<&'static str> {
    if code.op_code().fwait() {
        return Some("two instructions: FWAIT and the form that does not wait");
    }
    if code == Code::Movsxd_r16_rm16 {
        return Some("reserved: processors differ in how much of the source they read");
    }
    if matches!(code, Code::Nop_rm16 | Code::Nop_rm32 | Code::Nop_rm64) {
        return Some(RESERVED_NOP);
    }
    if code == Code::Popw_CS {
        return Some("of the 8086 alone");
    }
    EXCLUDED.iter().find(|(_, all)| all.contains(&code.mnemonic())).map(|(reason, _)| *reason)
}

/// Why hints are not forms of their own.
const RESERVED_NOP: &str = "an encoding of RESERVEDNOP, and run as that";

/// Instructions that user-mode code can execute, but whose results the host's CPU alone does not
/// determine.
pub const EXCLUDED: &[(&str, &[Mnemonic])] = &[
    ("enters the host's kernel", &[Mnemonic::Syscall, Mnemonic::Sysenter]),
    (
        "calls the host's hypervisor",
        &[Mnemonic::Vmcall, Mnemonic::Vmmcall, Mnemonic::Vmgexit, Mnemonic::Vmfunc],
    ),
    ("answers by the guest's CPUID policy", &[Mnemonic::Cpuid]),
    (
        "reads a clock, a counter, a random number or the processor's number",
        &[
            Mnemonic::Rdtsc,
            Mnemonic::Rdtscp,
            Mnemonic::Rdpmc,
            Mnemonic::Rdpru,
            Mnemonic::Rdrand,
            Mnemonic::Rdseed,
            Mnemonic::Rdpid,
        ],
    ),
    (
        "the host's kernel answers under CR4.UMIP",
        &[Mnemonic::Sgdt, Mnemonic::Sidt, Mnemonic::Sldt, Mnemonic::Str, Mnemonic::Smsw],
    ),
    (
        "under a hypervisor its exception is the hypervisor's, which intercepts it",
        &[
            Mnemonic::Int1,
            Mnemonic::Sysexit,
            Mnemonic::Sysexitq,
            Mnemonic::Vmrun,
            Mnemonic::Vmload,
            Mnemonic::Vmsave,
            Mnemonic::Stgi,
            Mnemonic::Clgi,
            Mnemonic::Skinit,
            Mnemonic::Pvalidate,
            Mnemonic::Invlpga,
        ],
    ),
    (
        "waits for the outside",
        &[
            Mnemonic::Monitor,
            Mnemonic::Monitorx,
            Mnemonic::Mwait,
            Mnemonic::Mwaitx,
            Mnemonic::Umonitor,
            Mnemonic::Umwait,
            Mnemonic::Tpause,
        ],
    ),
    (
        RESERVED_NOP,
        &[
            Mnemonic::Cldemote,
            Mnemonic::Endbr32,
            Mnemonic::Endbr64,
            Mnemonic::Prefetch,
            Mnemonic::Prefetchit0,
            Mnemonic::Prefetchit1,
            Mnemonic::Prefetchnta,
            Mnemonic::Prefetcht0,
            Mnemonic::Prefetcht1,
            Mnemonic::Prefetcht2,
            Mnemonic::Prefetchw,
            Mnemonic::Prefetchwt1,
            Mnemonic::Rdsspd,
            Mnemonic::Rdsspq,
        ],
    ),
    (
        "depends on how the CPU tracks state components in use (SDM vol. 1, section 13.6)",
        &[Mnemonic::Xsaveopt, Mnemonic::Xsaveopt64, Mnemonic::Xsavec, Mnemonic::Xsavec64],
    ),
];

/// Why guests are not offered an instruction that the host may have; none where they are.
pub fn not_offered(code: Code) -> Option<&'static str> {
    let needs = code.cpuid_features();
    NOT_OFFERED.iter().find(|(feature, _)| needs.contains(feature)).map(|(_, reason)| *reason)
}

/// Extensions that the guest's CPUID never reports, so that #UD is right.
const NOT_OFFERED: &[(CpuidFeature, &str)] = &[
    (CpuidFeature::MOVDIRI, "CPUID does not report MOVDIRI"),
    (CpuidFeature::MOVDIR64B, "CPUID does not report MOVDIR64B"),
    (CpuidFeature::SERIALIZE, "CPUID does not report SERIALIZE"),
    (CpuidFeature::PTWRITE, "CPUID does not report PTWRITE"),
    (CpuidFeature::CMPCCXADD, "CPUID does not report CMPCCXADD"),
    (CpuidFeature::RAO_INT, "CPUID does not report RAO-INT"),
    (CpuidFeature::ENQCMD, "CPUID does not report ENQCMD"),
    (CpuidFeature::RTM, "CPUID does not report RTM"),
    (CpuidFeature::HLE_or_RTM, "CPUID does not report RTM"),
    (CpuidFeature::UINTR, "CPUID does not report UINTR"),
    (CpuidFeature::CET_SS, "CPUID does not report shadow stacks"),
    (CpuidFeature::MCOMMIT, "CPUID does not report MCOMMIT"),
    (CpuidFeature::TBM, "CPUID does not report TBM"),
    (CpuidFeature::XOP, "CPUID does not report XOP"),
    (CpuidFeature::FMA4, "CPUID does not report FMA4"),
    (CpuidFeature::LWP, "CPUID does not report LWP"),
    (CpuidFeature::D3NOW, "CPUID does not report 3DNow!"),
    (CpuidFeature::D3NOWEXT, "CPUID does not report 3DNow!"),
    (CpuidFeature::AESKLE, "CPUID does not report Key Locker"),
    (CpuidFeature::SGX1, "CPUID does not report SGX"),
    (CpuidFeature::AMX_TILE, "CPUID does not report AMX"),
    (CpuidFeature::AMX_INT8, "CPUID does not report AMX"),
    (CpuidFeature::AMX_BF16, "CPUID does not report AMX"),
    (CpuidFeature::AMX_FP16, "CPUID does not report AMX"),
    (CpuidFeature::AMX_COMPLEX, "CPUID does not report AMX"),
];
