//! One integer instruction on the host CPU, as the reference in tests of the interpreter.

mod accept;
mod slot;

use crate::arena::NativeError;
use crate::recovery;
use std::ops::Range;
use thiserror::Error;
use x86::flags;

pub(crate) use slot::record_of;

/// General-purpose registers and RFLAGS, in and out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GprState {
    /// RAX to R15 by hardware number. RSP too is just an operand.
    pub gpr: [u64; 16],
    /// RFLAGS. Only the arithmetic flags and DF go in and come out; the others are returned as
    /// they were given.
    pub rflags: u64,
}

/// A processor exception that the instruction raised on the host.
///
/// The registers are returned as they were at the fault, that is unchanged for everything but
/// string instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostFault {
    /// Exception vector: 0 is #DE, 6 #UD, 13 #GP, 14 #PF.
    pub vector: u8,
}

/// Why the oracle gives no answer.
#[derive(Debug, Error)]
pub enum OracleError {
    /// The instruction raised an exception: an answer too.
    #[error("the host raised exception {}", .0.vector)]
    Fault(HostFault),
    /// The bytes are not exactly one 64-bit instruction of the kind that is run.
    #[error("not an instruction that the oracle runs: {0}")]
    Refused(&'static str),
    /// Its memory operand is not inside the buffer.
    #[error("memory operand outside the buffer")]
    OutsideBuffer,
    /// The host gives no executable memory.
    #[error(transparent)]
    Host(&'static NativeError),
}

/// Flags that go through the host.
const FLAGS: u64 = flags::ARITHMETIC | flags::DF;

/// Executes one 64-bit integer instruction without memory operands.
///
/// # Errors
/// [`OracleError::Fault`] when the instruction faults. The others when it is not run at all.
pub fn run_gpr(bytes: &[u8], state: &mut GprState) -> Result<(), OracleError> {
    run(bytes, state, 0..0)
}

/// Executes one 64-bit integer instruction whose memory operands, addressed by the registers in
/// `state`, lie within `buffer` (stack operands and one iteration of string instructions too).
///
/// # Errors
/// As [`run_gpr`].
pub fn run_gpr_mem(
    bytes: &[u8],
    state: &mut GprState,
    buffer: &mut [u8],
) -> Result<(), OracleError> {
    let start = buffer.as_mut_ptr() as u64;
    run(bytes, state, start..start + buffer.len() as u64)
}

fn run(bytes: &[u8], state: &mut GprState, buffer: Range<u64>) -> Result<(), OracleError> {
    accept::check(bytes, state, buffer)?;
    recovery::install().map_err(OracleError::Host)?;
    let slot = slot::take().map_err(OracleError::Host)?;
    let mut out = *state;
    out.rflags = state.rflags & FLAGS | flags::FIXED_ONE;
    let fault = slot.execute(bytes, &mut out);
    state.gpr = out.gpr;
    state.rflags = state.rflags & !FLAGS | out.rflags & FLAGS;
    match fault {
        Some(vector) => Err(OracleError::Fault(HostFault { vector })),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
