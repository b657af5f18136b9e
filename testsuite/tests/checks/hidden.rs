//! What the guest's CPUID does not report is undefined, whatever the host has, and LZCNT and TZCNT
//! are the scans that ignore a prefix (SDM vol. 2, "#UD" of each instruction).

use super::Ended;
use super::world::{DATA, Mode, World};
use std::sync::Arc;
use x86::Fault;
use x86::cpuid::{Feature, Model, Policy};
use x86::regs::gpr;

/// Instructions on EAX to EDX, or on the memory at EBX where addresses have 32 bits, and a feature
/// of each.
const ROWS: &[(Feature, &str, &[u8])] = &[
    (Feature::Bmi1, "ANDN", &[0xC4, 0xE2, 0x70, 0xF2, 0xC2]),
    (Feature::Bmi1, "BEXTR", &[0xC4, 0xE2, 0x70, 0xF7, 0xC2]),
    (Feature::Bmi1, "BLSI", &[0xC4, 0xE2, 0x78, 0xF3, 0xD9]),
    (Feature::Bmi1, "BLSMSK", &[0xC4, 0xE2, 0x78, 0xF3, 0xD1]),
    (Feature::Bmi1, "BLSR", &[0xC4, 0xE2, 0x78, 0xF3, 0xC9]),
    (Feature::Bmi2, "BZHI", &[0xC4, 0xE2, 0x70, 0xF5, 0xC2]),
    (Feature::Bmi2, "MULX", &[0xC4, 0xE2, 0x73, 0xF6, 0xC2]),
    (Feature::Bmi2, "PDEP", &[0xC4, 0xE2, 0x73, 0xF5, 0xC2]),
    (Feature::Bmi2, "PEXT", &[0xC4, 0xE2, 0x72, 0xF5, 0xC2]),
    (Feature::Bmi2, "RORX", &[0xC4, 0xE3, 0x7B, 0xF0, 0xC1, 0x01]),
    (Feature::Bmi2, "SARX", &[0xC4, 0xE2, 0x72, 0xF7, 0xC2]),
    (Feature::Bmi2, "SHLX", &[0xC4, 0xE2, 0x71, 0xF7, 0xC2]),
    (Feature::Bmi2, "SHRX", &[0xC4, 0xE2, 0x73, 0xF7, 0xC2]),
    (Feature::Adx, "ADCX", &[0x66, 0x0F, 0x38, 0xF6, 0xC1]),
    (Feature::Adx, "ADOX", &[0xF3, 0x0F, 0x38, 0xF6, 0xC1]),
    (Feature::Movbe, "MOVBE, a load", &[0x0F, 0x38, 0xF0, 0x03]),
    (Feature::Movbe, "MOVBE, a store", &[0x0F, 0x38, 0xF1, 0x03]),
    (Feature::Popcnt, "POPCNT", &[0xF3, 0x0F, 0xB8, 0xC1]),
    (Feature::Sse42, "CRC32", &[0xF2, 0x0F, 0x38, 0xF1, 0xC1]),
    (Feature::Cmov, "CMOVE", &[0x0F, 0x44, 0xC1]),
    (Feature::Cx8, "CMPXCHG8B", &[0x0F, 0xC7, 0x0B]),
    (Feature::Tsc, "RDTSC", &[0x0F, 0x31]),
    (Feature::Rdrand, "RDRAND", &[0x0F, 0xC7, 0xF0]),
    (Feature::Rdseed, "RDSEED", &[0x0F, 0xC7, 0xF8]),
    (Feature::Clfsh, "CLFLUSH", &[0x0F, 0xAE, 0x3B]),
    (Feature::Clflushopt, "CLFLUSHOPT", &[0x66, 0x0F, 0xAE, 0x3B]),
    (Feature::Clwb, "CLWB", &[0x66, 0x0F, 0xAE, 0x33]),
    (Feature::Fxsr, "FXSAVE", &[0x0F, 0xAE, 0x03]),
    (Feature::Sse, "SFENCE", &[0x0F, 0xAE, 0xF8]),
    (Feature::Sse2, "LFENCE", &[0x0F, 0xAE, 0xE8]),
    (Feature::Sse2, "MFENCE", &[0x0F, 0xAE, 0xF0]),
    (Feature::Sse2, "MOVNTI", &[0x0F, 0xC3, 0x03]),
    (Feature::Mmx, "EMMS", &[0x0F, 0x77]),
    (Feature::Avx, "VMOVUPS", &[0xC5, 0xF8, 0x10, 0xC1]),
];

/// NOPs of two-byte opcodes, which no feature tells: NOPL, PREFETCHT0, ENDBR32, PREFETCHW.
const LONG_NOPS: &[(&str, &[u8])] = &[
    ("NOPL", &[0x0F, 0x1F, 0x00]),
    ("PREFETCHT0", &[0x0F, 0x18, 0x0B]),
    ("ENDBR32", &[0xF3, 0x0F, 0x1E, 0xFB]),
    ("PREFETCHW", &[0x0F, 0x0D, 0x0B]),
];

/// Model-specific registers, and features of which one brings each.
const MSRS: &[(&str, u32, &[Feature])] = &[
    ("IA32_TSC_ADJUST", 0x3B, &[Feature::TscAdjust]),
    ("IA32_MTRRCAP", 0xFE, &[Feature::Mtrr]),
    ("IA32_SYSENTER_CS", 0x174, &[Feature::Sep]),
    ("IA32_SYSENTER_ESP", 0x175, &[Feature::Sep]),
    ("IA32_SYSENTER_EIP", 0x176, &[Feature::Sep]),
    ("IA32_MTRR_PHYSMASK0", 0x201, &[Feature::Mtrr]),
    ("IA32_MTRR_FIX64K", 0x250, &[Feature::Mtrr]),
    ("IA32_PAT", 0x277, &[Feature::Pat]),
    ("IA32_MTRR_DEF_TYPE", 0x2FF, &[Feature::Mtrr]),
    ("IA32_EFER", 0xC000_0080, &[Feature::Syscall, Feature::LongMode, Feature::Nx]),
    ("IA32_STAR", 0xC000_0081, &[Feature::Syscall]),
    ("IA32_LSTAR", 0xC000_0082, &[Feature::LongMode]),
    ("IA32_FS_BASE", 0xC000_0100, &[Feature::LongMode]),
    ("IA32_KERNEL_GS_BASE", 0xC000_0102, &[Feature::LongMode]),
    ("IA32_TSC_AUX", 0xC000_0103, &[Feature::Rdtscp, Feature::Rdpid]),
];

/// Bits of IA32_EFER, and the feature of each: SCE, LME, NXE.
const EFER_BITS: [(Feature, u32); 3] =
    [(Feature::Syscall, 1 << 0), (Feature::LongMode, 1 << 8), (Feature::Nx, 1 << 11)];

/// What is wrong where `code` should run to its end, or be undefined.
fn problem(world: &mut World, mode: Mode, what: &str, code: &[u8], there: bool) -> Option<String> {
    let wanted = if there { Ended::AtEnd } else { Ended::Fault(Fault::UD) };
    differs(world, mode, what, code, wanted)
}

fn differs(
    world: &mut World,
    mode: Mode,
    what: &str,
    code: &[u8],
    wanted: Ended,
) -> Option<String> {
    let ended = (0..2).map(|_| run(world, mode, code)).find(|ended| *ended != wanted)?;
    Some(format!("{what} ({mode:?}, {}): {ended:?}, not {wanted:?}", world.engine()))
}

fn run(world: &mut World, mode: Mode, code: &[u8]) -> Ended {
    world.begin(mode, code);
    world.cpu.gpr[gpr::RBX] = DATA;
    world.run()
}

fn worlds(policy: &Arc<Policy>) -> [World; 2] {
    [World::interpreted(), World::translated()].map(|world| world.with_policy(policy.clone()))
}

/// RDMSR of every register, and WRMSR of each of IA32_EFER's bits.
fn check_msrs(world: &mut World, policy: &Policy, problems: &mut Vec<String>, name: &str) {
    let msr = policy.has(Feature::Msr);
    let wanted = |there| match (msr, there) {
        (false, _) => Ended::Fault(Fault::UD),
        (true, true) => Ended::AtEnd,
        (true, false) => Ended::Fault(Fault::GP0),
    };
    let mov = |opcode: u8, value: u32| [&[opcode][..], &value.to_le_bytes()].concat();
    let mut check = |what: &str, code: &[u8], there: bool| {
        let problem = differs(world, Mode::Protected, what, code, wanted(there));
        problems.extend(problem.map(|problem| format!("{name}: {problem}")));
    };
    for &(what, number, features) in MSRS {
        let there = features.iter().any(|&feature| policy.has(feature));
        check(what, &[mov(0xB9, number), vec![0x0F, 0x32]].concat(), there);
    }
    for (feature, bit) in EFER_BITS {
        let code = [mov(0xB9, 0xC000_0080), mov(0xB8, bit), mov(0xBA, 0), vec![0x0F, 0x30]];
        check(&format!("EFER bit of {feature:?}"), &code.concat(), policy.has(feature));
    }
}

fn check(policy: Policy, problems: &mut Vec<String>, name: &str) {
    let policy = Arc::new(policy);
    let mut modes = vec![Mode::Real, Mode::Protected, Mode::Paged];
    if policy.has(Feature::LongMode) {
        modes.push(Mode::Long);
    }
    let rows = ROWS.iter().map(|&(feature, what, code)| (what, code, policy.has(feature)));
    let nops = LONG_NOPS.iter().map(|&(what, code)| (what, code, policy.has_long_nop()));
    for mut world in worlds(&policy) {
        check_msrs(&mut world, &policy, problems, name);
        for (what, code, there) in rows.clone().chain(nops.clone()) {
            for &mode in &modes {
                let vex_in_real_mode = mode == Mode::Real && matches!(code[0], 0xC4 | 0xC5);
                let there = there && !vex_in_real_mode;
                let problem = problem(&mut world, mode, what, code, there);
                problems.extend(problem.map(|problem| format!("{name}: {problem}")));
            }
        }
    }
}

#[test]
fn features_that_are_hidden() {
    let mut problems = Vec::new();
    check(Policy::host(1), &mut problems, "host");
    let mut features: Vec<_> = ROWS.iter().map(|row| row.0).collect();
    features.extend([Feature::Pat, Feature::Mtrr, Feature::Sep, Feature::Nx, Feature::LongMode]);
    features.dedup();
    for feature in features {
        let mut policy = Policy::host(1);
        policy.remove(feature);
        check(policy, &mut problems, &format!("host,-{feature:?}"));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn processors_by_name() {
    let mut problems = Vec::new();
    for name in ["486", "pentium", "core2", "x86-64-v2", "x86-64-v3", "x86-64-v4"] {
        let model: Model = name.parse().expect("a model");
        match model.policy(1) {
            Ok(policy) => check(policy, &mut problems, name),
            Err(error) => eprintln!("SKIPPED: {error}"),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn counts_of_zeros_are_scans() {
    // EAX of LZCNT and TZCNT of ECX, then of BSR and BSF.
    let rows: [(Feature, &[u8], u64, u64); 2] = [
        (Feature::Lzcnt, &[0xF3, 0x0F, 0xBD, 0xC1], 19, 12),
        (Feature::Bmi1, &[0xF3, 0x0F, 0xBC, 0xC1], 8, 8),
    ];
    for (feature, code, count, scan) in rows {
        for hidden in [false, true] {
            let mut policy = Policy::host(1);
            if hidden {
                policy.remove(feature);
            }
            for mut world in worlds(&Arc::new(policy)) {
                for mode in [Mode::Real, Mode::Protected, Mode::Long] {
                    // Real mode has words.
                    let wide = if mode.bits() == 16 { 16 } else { 0 };
                    let expected = if hidden { scan } else { count - wide * u64::from(count > 8) };
                    for _ in 0..2 {
                        world.begin(mode, code);
                        world.cpu.gpr[gpr::RAX] = 0x77;
                        world.cpu.gpr[gpr::RCX] = 0x1100;
                        assert_eq!(world.run(), Ended::AtEnd);
                        let what = (feature, mode, hidden, world.engine());
                        assert_eq!(world.cpu.gpr[gpr::RAX], expected, "{what:?}");
                        // Of zero: the operand's size and CF, or the destination unchanged and ZF.
                        world.begin(mode, code);
                        world.cpu.gpr[gpr::RAX] = 0x77;
                        assert_eq!(world.run(), Ended::AtEnd);
                        let (cf, zf) = (x86::flags::CF, x86::flags::ZF);
                        let size = if mode.bits() == 16 { 16 } else { 32 };
                        if hidden {
                            assert_eq!(world.cpu.gpr[gpr::RAX], 0x77, "{what:?}");
                            assert_ne!(world.cpu.rflags & zf, 0, "{what:?}");
                        } else {
                            assert_eq!(world.cpu.gpr[gpr::RAX], size, "{what:?}");
                            assert_eq!(world.cpu.rflags & (cf | zf), cf, "{what:?}");
                        }
                    }
                }
            }
        }
    }
}
