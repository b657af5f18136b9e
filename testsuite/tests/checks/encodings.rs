//! Encodings: SDM vol. 2A, chapter 2.

use super::world::{DATA, Mode, World, selector};
use super::{Check, bytes};
use x86::Fault;
use x86::cpuid::{Feature, Policy};

/// Bytes that are an instruction, and bytes that are not, in their place.
fn row(name: &'static str, mode: Mode, good: &[u8], bad: &[u8], fault: Fault) -> Check {
    let mut code = vec![0x90; good.len().max(bad.len())];
    code[..good.len()].copy_from_slice(good);
    let bad = bad.to_vec();
    bytes(name, mode, &code, move |w| w.write(super::world::CODE, &bad), fault).good(|w| {
        for n in [3, 6, 7] {
            w.cpu.gpr[n] = DATA;
        }
    })
}

/// VEX encodings of ANDN, BEXTR, BLSR, BZHI, MULX, PDEP, PEXT, RORX, SARX on registers, and of
/// VADDPS.
const VEX: &[(&str, &[u8])] = &[
    ("ANDN", &[0xC4, 0xE2, 0x70, 0xF2, 0xC2]),
    ("BEXTR", &[0xC4, 0xE2, 0x70, 0xF7, 0xC2]),
    ("BLSR", &[0xC4, 0xE2, 0x78, 0xF3, 0xC9]),
    ("BZHI", &[0xC4, 0xE2, 0x70, 0xF5, 0xC2]),
    ("MULX", &[0xC4, 0xE2, 0x73, 0xF6, 0xC2]),
    ("PDEP", &[0xC4, 0xE2, 0x73, 0xF5, 0xC2]),
    ("PEXT", &[0xC4, 0xE2, 0x72, 0xF5, 0xC2]),
    ("RORX", &[0xC4, 0xE3, 0x7B, 0xF0, 0xC1, 0x01]),
    ("SARX", &[0xC4, 0xE2, 0x72, 0xF7, 0xC2]),
    ("VADDPS", &[0xC5, 0xF0, 0x58, 0xC2]),
];

fn vex(checks: &mut Vec<Check>) {
    let host = Policy::host(1);
    if ![Feature::Bmi1, Feature::Bmi2, Feature::Avx].iter().all(|&f| host.has(f)) {
        return;
    }
    for &(what, code) in VEX {
        // In real and V86 mode the bytes are LES or LDS of a register, which is undefined too.
        for mode in [Mode::Real, Mode::Virtual8086] {
            checks
                .push(row("VEX in real and V86 mode", mode, &[0x90], code, Fault::UD).detail(what));
        }
        for mode in [Mode::Protected, Mode::Long] {
            for (prefix, name) in
                [(0x66, "66"), (0xF2, "F2"), (0xF3, "F3"), (0xF0, "LOCK"), (0x48, "REX")]
            {
                if mode == Mode::Protected && name == "REX" {
                    continue;
                }
                let bad = [&[prefix], code].concat();
                checks.push(
                    row("prefixes before VEX", mode, code, &bad, Fault::UD)
                        .detail(format!("{name} {what}")),
                );
            }
        }
    }
    // VEX.vvvv names no register there.
    checks.push(
        row(
            "VEX.vvvv without an operand",
            Mode::Long,
            &[0xC4, 0xE3, 0x7B, 0xF0, 0xC1, 0x01],
            &[0xC4, 0xE3, 0x73, 0xF0, 0xC1, 0x01],
            Fault::UD,
        )
        .detail("RORX"),
    );
    checks.push(
        row(
            "VEX.vvvv without an operand",
            Mode::Long,
            &[0xC5, 0xF8, 0x28, 0xC1],
            &[0xC5, 0xF0, 0x28, 0xC1],
            Fault::UD,
        )
        .detail("VMOVAPS"),
    );
    checks.push(
        row(
            "VEX.L of an instruction of 128 bits",
            Mode::Long,
            &[0xC4, 0xE2, 0x70, 0xF2, 0xC2],
            &[0xC4, 0xE2, 0x74, 0xF2, 0xC2],
            Fault::UD,
        )
        .detail("ANDN"),
    );
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    vex(&mut checks);
    let lock = "LOCK where there is none";
    for mode in [Mode::Real, Mode::Protected, Mode::Long] {
        checks.push(
            row(lock, mode, &[0x90, 0x01, 0xC8], &[0xF0, 0x01, 0xC8], Fault::UD)
                .detail("ADD of registers"),
        );
        checks.push(
            row(lock, mode, &[0x90, 0x8B, 0x07], &[0xF0, 0x8B, 0x07], Fault::UD).detail("MOV"),
        );
        checks.push(
            row(lock, mode, &[0x90, 0x39, 0x07], &[0xF0, 0x39, 0x07], Fault::UD).detail("CMP"),
        );
        checks.push(row(lock, mode, &[0x90, 0x90], &[0xF0, 0x90], Fault::UD).detail("NOP"));
        checks.push(row(lock, mode, &[0x90, 0xA4], &[0xF0, 0xA4], Fault::UD).detail("MOVS"));
        let longest = [&[0x2E; 14][..], &[0x90]].concat();
        let longer = [&[0x2E; 15][..], &[0x90]].concat();
        checks.push(row("15 bytes", mode, &longest, &longer, Fault::GP0));
    }
    for byte in
        [0x06, 0x0E, 0x16, 0x1E, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0xCE, 0xD6, 0x82, 0xEA, 0x9A]
    {
        checks.push(
            row(
                "what 64-bit mode has not",
                Mode::Long,
                &[0x90; 7],
                &[byte, 0, 0, 0, 0, 0, 0],
                Fault::UD,
            )
            .detail(format!("{byte:02x}")),
        );
    }
    for (what, opcode) in [("SYSENTER", 0x34), ("SYSEXIT", 0x35)] {
        let name = "SYSENTER and SYSEXIT";
        let null = row(name, Mode::Protected, &[0x90; 2], &[0x0F, opcode], Fault::GP0);
        checks.push(null.detail(format!("{what}, IA32_SYSENTER_CS null")));
        let real = row(name, Mode::Real, &[0x90; 2], &[0x0F, opcode], Fault::GP0);
        let good = |w: &mut World| w.cpu.sysenter_cs = u64::from(selector::CODE32);
        checks.push(real.detail(format!("{what}, real mode")).good(good));
    }
    for number in [1, 5, 6, 7, 9, 15] {
        for (what, opcode) in [("from", 0x20), ("to", 0x22)] {
            let bad = [0x40 | number >> 3 << 2, 0x0F, opcode, 0xC0 | (number & 7) << 3];
            checks.push(
                row(
                    "control registers that are not there",
                    Mode::Long,
                    &[0x90; 4],
                    &bad,
                    Fault::UD,
                )
                .detail(format!("{what} CR{number}")),
            );
        }
    }
    for (what, code) in [
        ("SYSRET", &[0x48, 0x0F, 0x07][..]),
        ("HLT", &[0xF4]),
        ("WBINVD", &[0x0F, 0x09]),
        ("INVLPG", &[0x0F, 0x01, 0x3B]),
        ("LGDT", &[0x0F, 0x01, 0x13]),
        ("RDMSR", &[0x0F, 0x32]),
        ("CLI", &[0xFA]),
        ("IN", &[0xE4, 0x80]),
        ("OUT", &[0xE6, 0x80]),
    ] {
        checks.push(row("level 0 alone", Mode::User, &[0x90], code, Fault::GP0).detail(what));
    }
    checks
}
