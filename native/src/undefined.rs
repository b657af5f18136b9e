//! Flags that the manual calls undefined and that generations of one vendor's processors leave
//! differently: asked of the host, once, because copies of the guest's instructions show them.

use crate::oracle::{GprState, run_gpr};
use std::sync::OnceLock;
use x86::flags;

/// What BSF and BSR leave in the arithmetic flags other than ZF, all of them undefined (SDM vol.
/// 2A).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitScanFlags {
    /// What was there before.
    Kept,
    /// PF by the index, set for a zero source, and the others cleared.
    ParityOfIndex,
}

fn probe() -> BitScanFlags {
    const BSF_EAX_ECX: &[u8] = &[0x0F, 0xBC, 0xC1];
    let mut state = GprState { gpr: [2; 16], rflags: flags::FIXED_ONE | flags::ARITHMETIC };
    let ran = run_gpr(BSF_EAX_ECX, &mut state).is_ok();
    if ran && state.rflags & flags::ARITHMETIC == 0 {
        BitScanFlags::ParityOfIndex
    } else {
        BitScanFlags::Kept
    }
}

/// The host's way.
pub fn bit_scan_flags() -> BitScanFlags {
    static HOST: OnceLock<BitScanFlags> = OnceLock::new();
    *HOST.get_or_init(probe)
}
