//! What the oracle may run without harm to the process.

use super::{GprState, OracleError};
use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};
use std::ops::Range;

/// Checks that `bytes` are one instruction that only touches registers, flags and `buffer`.
pub(super) fn check(bytes: &[u8], state: &GprState, buffer: Range<u64>) -> Result<(), OracleError> {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_invalid() || insn.len() != bytes.len() {
        return Err(OracleError::Refused("not exactly one instruction"));
    }
    if let Some(reason) = refusal(&insn) {
        return Err(OracleError::Refused(reason));
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&insn);
    for used in info.used_registers() {
        let r = used.register();
        let reads = used.access() == OpAccess::Read || used.access() == OpAccess::CondRead;
        let segment_read = r.is_segment_register() && reads;
        if !(r.is_gpr() || segment_read || r.is_ip()) {
            return Err(OracleError::Refused("touches other registers"));
        }
    }
    let register = |r: Register, _, _| Some(value(state, r));
    for used in info.used_memory() {
        if used.access() == OpAccess::NoMemAccess {
            continue;
        }
        if matches!(used.base(), Register::RIP | Register::EIP)
            || matches!(used.segment(), Register::FS | Register::GS)
        {
            return Err(OracleError::OutsideBuffer);
        }
        let start = used.virtual_address(0, register).ok_or(OracleError::OutsideBuffer)?;
        let start = bit_string_address(&insn, state, start);
        let size = used.memory_size().size() as u64;
        let inside =
            start >= buffer.start && start.checked_add(size).is_some_and(|e| e <= buffer.end);
        if size == 0 || !inside {
            return Err(OracleError::OutsideBuffer);
        }
    }
    Ok(())
}

fn refusal(insn: &Instruction) -> Option<&'static str> {
    if insn.flow_control() != FlowControl::Next {
        return Some("control transfer");
    }
    if insn.is_save_restore_instruction() {
        return Some("saves or restores state");
    }
    if (insn.has_rep_prefix() || insn.has_repne_prefix()) && insn.is_string_instruction() {
        return Some("repeated string instruction");
    }
    if !insn.cpuid_features().iter().all(|f| FEATURES.contains(f)) {
        return Some("not an integer instruction");
    }
    for i in 0..insn.op_count() {
        let r =
            if insn.op_kind(i) == OpKind::Register { insn.op_register(i) } else { Register::None };
        if r.is_segment_register() && i == 0 {
            return Some("writes a segment register");
        }
    }
    match insn.mnemonic() {
        // POPF could set TF or AC; ENTER's nesting reads more than iced can tell.
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq | Mnemonic::Enter => {
            Some("changes TF or AC")
        }
        Mnemonic::Rdtsc | Mnemonic::Cpuid => Some("not deterministic"),
        _ => None,
    }
}

/// BT and its kin reach beyond their operand by a bit offset in a register.
fn bit_string_address(insn: &Instruction, state: &GprState, start: u64) -> u64 {
    let kin =
        matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Btc | Mnemonic::Btr | Mnemonic::Bts);
    if !kin || insn.op0_kind() != OpKind::Memory || insn.op1_kind() != OpKind::Register {
        return start;
    }
    let r = insn.op1_register();
    let (offset, bits) = match r.size() {
        2 => (value(state, r) as i16 as i64, 16),
        4 => (value(state, r) as i32 as i64, 32),
        _ => (value(state, r) as i64, 64),
    };
    start.wrapping_add((offset.div_euclid(bits) * (bits / 8)) as u64)
}

fn value(state: &GprState, r: Register) -> u64 {
    if !r.is_gpr() {
        return 0;
    }
    let full = state.gpr[r.full_register().number()];
    match r.size() {
        1 if matches!(r, Register::AH | Register::BH | Register::CH | Register::DH) => {
            state.gpr[r.number() - 4] >> 8 & 0xFF
        }
        1 => full & 0xFF,
        2 => full & 0xFFFF,
        4 => full & 0xFFFF_FFFF,
        _ => full,
    }
}

/// Features whose instructions work on general-purpose registers alone (together with the check
/// of the registers used).
const FEATURES: [CpuidFeature; 18] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::CMPXCHG16B,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::POPCNT,
    CpuidFeature::LZCNT,
    CpuidFeature::BMI1,
    CpuidFeature::BMI2,
    CpuidFeature::ADX,
    CpuidFeature::MOVBE,
    CpuidFeature::SSE4_2,
    CpuidFeature::TBM,
];
