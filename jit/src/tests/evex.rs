//! EVEX and opmask instructions, on hosts that have them.

use super::kit::{CODE, Start, compare, guests, with_stack};
use super::random::{Random, writes_stack_pointer};
use decoder::{Insn, decode};
use iced_x86::{CpuidFeature, FlowControl};
use x86::cpuid::{Feature, Policy};
use x86::flags;

/// Bytes of an EVEX instruction, or of a VEX one of the opmask group, with luck.
fn bytes(random: &mut Random) -> [u8; 15] {
    let mut bytes = [0; 15];
    bytes.fill_with(|| random.next() as u8);
    if random.below(4) == 0 {
        bytes[0] = 0xC5;
        bytes[1] |= 0x78;
        bytes[2] = [0x41, 0x42, 0x44, 0x45, 0x46, 0x47, 0x4A, 0x4B, 0x90, 0x91, 0x92, 0x93, 0x98]
            [random.below(13) as usize];
        return bytes;
    }
    bytes[0] = 0x62;
    // Maps 1 to 3, and the bit that is always one.
    bytes[1] = bytes[1] & 0xF0 | (1 + random.below(3) as u8);
    bytes[2] |= 4;
    bytes
}

/// What the host lacks the interpreter answers with #UD, which ends a snippet.
fn runs_here(insn: &Insn) -> bool {
    let iced = insn.to_iced(0);
    let features = iced.cpuid_features();
    let wanted = features.iter().any(|f| format!("{f:?}").starts_with("AVX512"));

    let gathers = iced.is_vsib() || features.contains(&CpuidFeature::AVX512PF);
    wanted
        && insn.handle != 0
        && !gathers
        && iced.flow_control() == FlowControl::Next
        && !writes_stack_pointer(&iced)
}

#[test]
fn copies_do_what_thunks_do() {
    if !Policy::host(1).has(Feature::Avx512F) {
        eprintln!("this host has no AVX-512: nothing to compare");
        return;
    }
    let mut random = Random(0x0BAD_5EED_0BAD_5EED);
    let mut guests = guests(Start::Long);
    for round in 0..3000 {
        let (mut code, mut listing) = (Vec::new(), String::new());
        let count = 1 + random.below(8);
        let mut made = 0;
        while made < count {
            let Ok(mut insn) = decode(&bytes(&mut random), 64) else { continue };
            insn.handle = native::prepare(&insn);
            if !runs_here(&insn) {
                continue;
            }
            listing += &format!("  {:02x?} {:?}\n", insn.as_bytes(), insn.code);
            code.extend(insn.as_bytes());
            made += 1;
        }
        let end = CODE + code.len() as u64;
        code.extend([0x0F, 0x0B]);
        let mut gprs = [0; 16];
        gprs.fill_with(|| random.register());
        let gprs = with_stack(gprs);
        let mut ends = Vec::new();
        for guest in &mut guests {
            guest.reset(&gprs);
            ends.push(guest.run(&code, 1000));
        }
        let what = format!("round {round}: {gprs:x?}\n{listing}");
        compare(&mut guests, &ends, flags::ALL, Some(end), &what);
    }
}
