//! A slice once more, one instruction at a time: what it executed, and whether anything undefined
//! was used.

use super::{End, Guest, PAGING_STRUCTURES};
use decoder::{Insn, MAX_LENGTH, decode_offered};
use iced_x86::{Formatter, Instruction, IntelFormatter, Mnemonic, RflagsBits};
use interp::engine::code_linear;
use x86::Cpu;
use x86::compare::differences;
use x86::control::cr0;

/// Whether a difference is one.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing undefined was used.
    Defined,
    /// These flags are undefined at the end, and nobody looked at them.
    FlagsUndefined(u64),
    /// Something undefined was used: what, and where.
    #[allow(dead_code, reason = "for whoever debugs the test")]
    Excused(String),
}

/// The slice.
pub(crate) struct Replay {
    pub(crate) verdict: Verdict,
    /// Registers in which single steps differ from the interpreter's blocks.
    pub(crate) differs: Vec<String>,
    /// Addresses and assembly.
    pub(crate) listing: Vec<String>,
}

/// Runs from `cpu` and `memory` to where the interpreter was at `end`.
pub(crate) fn replay(cpu: &Cpu, memory: &[u8], end: &Cpu, limit: u64) -> Replay {
    let mut guest = Guest::interpreted();
    guest.load(cpu, memory);
    let (mut undefined, mut excuse) = (0, None);
    let mut listing = Vec::new();
    let structures = PAGING_STRUCTURES.0 as usize..PAGING_STRUCTURES.1 as usize;
    // Exceptions retire nothing, and are bounded alike.
    for _ in 0..2 * limit + 2 {
        if guest.cpu.instructions >= end.instructions && guest.cpu.rip == end.rip {
            break;
        }
        let faults = faults(&guest);
        let next = fetch(&mut guest);
        let rip = guest.cpu.rip;
        let result = guest.step();
        let faulted = self::faults(&guest) != faults;
        let mut line = format!("{rip:x} ");
        if let Some((insn, raw)) = &next {
            IntelFormatter::new().format(raw, &mut line);
            if raw.rflags_read() & undefined != 0 || undefined != 0 && shows_flags(insn) {
                excuse.get_or_insert_with(|| format!("undefined flags read by {line}"));
            }
            if undefined_result(raw) {
                excuse.get_or_insert_with(|| format!("undefined result of {line}"));
            }
        }
        if faulted {
            line += "  (exception)";
            if undefined != 0 {
                excuse.get_or_insert_with(|| format!("undefined flags in the frame of {line}"));
            }
        } else if let Some((_, raw)) = &next {
            undefined = undefined & !defines(raw) | leaves_undefined(raw);
        }
        listing.push(line);
        let paged = guest.cpu.cr0 & cr0::PG != 0;
        let moved = guest.cpu.cr3 != cpu.cr3 || cpu.cr0 & cr0::PG == 0;
        if paged
            && excuse.is_none()
            && (moved || guest.memory()[structures.clone()] != memory[structures.clone()])
        {
            excuse = Some("paging structures of the guest's own making".into());
        }
        if matches!(result, End::TripleFault | End::GivenUp) {
            break;
        }
    }
    let differs = differences(&guest.cpu, end).iter().map(ToString::to_string).collect();
    let verdict = match excuse {
        Some(excuse) => Verdict::Excused(excuse),
        None if undefined != 0 => Verdict::FlagsUndefined(decoder::rflags_of(undefined)),
        None => Verdict::Defined,
    };
    Replay { verdict, differs, listing }
}

fn faults(guest: &Guest) -> u64 {
    match &guest.engine {
        super::Engine::Interp(engine) => engine.stats.faults,
        super::Engine::Jit(_) => 0,
    }
}

fn fetch(guest: &mut Guest) -> Option<(Insn, Instruction)> {
    let mut bytes = [0; MAX_LENGTH];
    let (valid, _) = guest.mmu.fetch_bytes(code_linear(&guest.cpu), &mut bytes);
    let cpu = &guest.cpu;
    let insn = decode_offered(&cpu.policy, &bytes[..valid], cpu.key.bits()).ok()?;
    let raw = insn.to_iced(cpu.rip);
    Some((insn, raw))
}

/// Whether flags go to memory or a register although iced does not count them as read.
fn shows_flags(insn: &Insn) -> bool {
    use Mnemonic::*;
    matches!(
        insn.mnemonic(),
        Int | Int1
            | Int3
            | Into
            | Syscall
            | Call
            | Jmp
            | Iret
            | Iretd
            | Iretq
            | Pushf
            | Pushfd
            | Pushfq
    )
}

/// Whether the destination itself is undefined in some cases: a scan of zero, a shift of more than
/// the operand's bits, a swap of two bytes.
fn undefined_result(raw: &Instruction) -> bool {
    use Mnemonic::*;
    let narrow = raw.op0_register().size() == 2 || raw.memory_size().size() == 2;
    match raw.mnemonic() {
        Bsf | Bsr => true,
        Shld | Shrd | Bswap => narrow,
        _ => false,
    }
}

fn counted(raw: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(raw.mnemonic(), Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd)
}

/// Flags that the instruction defines, whatever its operands. A count of zero changes nothing.
fn defines(raw: &Instruction) -> u32 {
    if counted(raw) { 0 } else { raw.rflags_modified() & !raw.rflags_undefined() }
}

fn leaves_undefined(raw: &Instruction) -> u32 {
    let shift = if counted(raw) { RflagsBits::OF | RflagsBits::CF | RflagsBits::AF } else { 0 };
    raw.rflags_undefined() & decoder::ARITHMETIC_BITS | shift
}
