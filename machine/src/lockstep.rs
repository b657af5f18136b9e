//! Lockstep: the same machine twice, one interpreted and one translated, compared as they run.
//!
//! Both run on time that stands still within a slice of instructions and moves on between slices;
//! requests and interrupts are looked at only between slices. So everything that a guest can see
//! is a function of the number of instructions it has executed, whatever the engine, and two
//! machines built alike stay alike for as long as the engines agree.

use crate::chipset::Peripherals;
use crate::config::{Config, EngineKind, Kernel};
use crate::control::StopReason;
use crate::firmware::Firmware;
use crate::machine::{Machine, MachineError};
use devices::ManualClock;
use iced_x86::Formatter;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use x86::Cpu;
use x86::compare::{Difference, differences};
use x86::cpuid::Model;

/// Instructions between two comparisons of registers.
const SLICE: u64 = 1000;
/// Instructions between two comparisons after a difference was found, to narrow it down.
const FINE_SLICE: u64 = 16;
/// Nanoseconds of machine time that an instruction takes.
const NS_PER_INSTRUCTION: u64 = 10;
/// Slices between two comparisons of guest memory.
const SLICES_PER_MEMORY_CHECK: u64 = 20_000;
/// Bytes of memory compared at a time.
const CHUNK: usize = 64 << 10;

/// What to run in lockstep.
pub struct Options {
    /// What to boot.
    pub kernel: Kernel,
    /// Bytes of RAM.
    pub memory: u64,
    /// Instructions after which to stop; `None` runs to the guest's end.
    pub instructions: Option<u64>,
    /// Translations are kept until the guest invalidates them: see [`Machine::set_strict`].
    pub strict: bool,
}

/// What else a machine is built with.
pub enum Board {
    /// The kernel of the options, with these peripherals.
    Kernel(Peripherals),
    /// Firmware, which boots from its drives.
    Firmware(Firmware),
}

/// Makes the board of each machine, all alike: with media of their own that answer in the caller
/// ([`devices::block::Medium::inline`]).
type MakeBoard<'a, E> = &'a dyn Fn() -> Result<Board, E>;

/// How a lockstep run ended.
#[derive(Debug)]
pub enum Verdict {
    /// No difference, over this many instructions; with the reason if the guest ended.
    Same {
        /// Instructions compared.
        instructions: u64,
        /// Why the guest ended, if it did before the limit.
        reason: Option<StopReason>,
    },
    /// The engines differ.
    Differ(Box<Report>),
}

/// A difference, with what a person needs to find its cause.
#[derive(Debug)]
pub struct Report {
    /// The last instruction count at which both agreed.
    pub agreed: u64,
    /// The count at which they differ.
    pub differ: u64,
    /// The state at `agreed`.
    pub before: Box<Cpu>,
    /// Registers that differ: the interpreter's value, then the translator's.
    pub registers: Vec<Difference>,
    /// The first byte of memory that differs: address, the interpreter's value, the translator's.
    pub memory: Option<(u64, u8, u8)>,
    /// The instructions in between, as the interpreter executed them: address and assembly.
    pub executed: Vec<(u64, String)>,
}

/// One of the two machines.
pub(crate) struct Side {
    pub(crate) machine: Machine,
    clock: Arc<ManualClock>,
    now: u64,
}

impl Side {
    /// The kernel of `options`, with nothing else.
    pub(crate) fn new(
        options: &Options,
        engine: EngineKind,
        output: Box<dyn Write + Send>,
    ) -> Result<Side, MachineError> {
        Side::on(options, &|| Ok(Board::Kernel(Peripherals::default())), engine, output)
    }

    fn on<E: From<MachineError>>(
        options: &Options,
        board: MakeBoard<'_, E>,
        engine: EngineKind,
        output: Box<dyn Write + Send>,
    ) -> Result<Side, E> {
        let clock = Arc::new(ManualClock::new(EPOCH_NS));
        let config = Config {
            memory: options.memory,
            cpus: 1,
            cpu: Model::default(),
            engine,
            kernel: options.kernel.clone(),
            serial_output: output,
            timeout: None,
            count: false,
        };
        let mut machine = Machine::deterministic(config, clock.clone(), board()?)?;
        if options.strict {
            machine.set_strict();
        }
        Ok(Side { machine, clock, now: 0 })
    }

    pub(crate) fn cpu(&self) -> &Cpu {
        self.machine.boot_cpu()
    }

    /// Runs `count` instructions, or up to where the CPU halts, and lets time pass.
    pub(crate) fn slice(&mut self, count: u64) {
        let deadline = self.machine.run_timers();
        let before = self.cpu().instructions;
        self.machine.run_slice(count);
        let done = self.cpu().instructions - before;
        self.now += count.max(done) * NS_PER_INSTRUCTION;
        // A halted CPU sleeps to the next alarm.
        if done == 0 {
            self.now = self.now.max(deadline.unwrap_or(0));
        }
        self.clock.set(self.now);
    }

    fn run_to(&mut self, steps: &[u64]) {
        for &count in steps {
            self.slice(count);
        }
    }
}

/// 1 January 2025, the wall-clock time at which deterministic machines start.
const EPOCH_NS: u64 = 1_735_689_600_000_000_000;

/// Runs both engines side by side. `output` is what the guest writes to COM1 on the interpreted
/// machine.
///
/// # Errors
/// [`MachineError`] where a machine cannot be built.
pub fn run(options: &Options, output: Box<dyn Write + Send>) -> Result<Verdict, MachineError> {
    run_board(options, &|| Ok(Board::Kernel(Peripherals::default())), output)
}

/// As [`run`], with machines on the boards that `board` makes.
///
/// # Errors
/// [`MachineError`] where a machine cannot be built, and what `board` fails with.
pub fn run_board<E: From<MachineError>>(
    options: &Options,
    board: MakeBoard<'_, E>,
    output: Box<dyn Write + Send>,
) -> Result<Verdict, E> {
    let mut pair = Pair::new(options, board, output)?;
    let limit = options.instructions.unwrap_or(u64::MAX);
    loop {
        if let Some(report) = pair.step(SLICE) {
            return Ok(Verdict::Differ(Box::new(narrow(options, board, report, pair.slices)?)));
        }
        let instructions = pair.first.cpu().instructions;
        let reason = pair.first.machine.control().reason();
        if reason.is_some() || instructions >= limit {
            if let Some(report) = pair.compare_memory() {
                return Ok(Verdict::Differ(Box::new(report)));
            }
            return Ok(Verdict::Same { instructions, reason });
        }
    }
}

struct Pair {
    first: Side,
    second: Side,
    slices: u64,
}

impl Pair {
    fn new<E: From<MachineError>>(
        options: &Options,
        board: MakeBoard<'_, E>,
        output: Box<dyn Write + Send>,
    ) -> Result<Pair, E> {
        Ok(Pair {
            first: Side::on(options, board, EngineKind::Interp, output)?,
            second: Side::on(options, board, EngineKind::Jit, Box::new(std::io::sink()))?,
            slices: 0,
        })
    }

    /// Runs both for a slice. A report if they differ then.
    fn step(&mut self, count: u64) -> Option<Report> {
        let before = Box::new(self.first.cpu().clone());
        self.first.slice(count);
        self.second.slice(count);
        self.slices += 1;
        let registers = differences(self.first.cpu(), self.second.cpu());
        if !registers.is_empty() {
            return Some(Report {
                agreed: before.instructions,
                differ: self.first.cpu().instructions,
                before,
                registers,
                memory: None,
                executed: Vec::new(),
            });
        }
        if self.slices.is_multiple_of(SLICES_PER_MEMORY_CHECK) {
            return self.compare_memory();
        }
        None
    }

    fn compare_memory(&self) -> Option<Report> {
        let memory = self.first.machine.first_memory_difference(&self.second.machine, CHUNK)?;
        let before = Box::new(self.first.cpu().clone());
        let differ = before.instructions;
        let agreed = differ.saturating_sub(SLICES_PER_MEMORY_CHECK * SLICE);
        Some(Report {
            agreed,
            differ,
            before,
            registers: Vec::new(),
            memory: Some(memory),
            executed: Vec::new(),
        })
    }
}

/// Runs everything again up to the slice before the difference and goes on in smaller steps, then
/// a third time to list the instructions.
fn narrow<E: From<MachineError>>(
    options: &Options,
    board: MakeBoard<'_, E>,
    coarse: Report,
    slices: u64,
) -> Result<Report, E> {
    if coarse.registers.is_empty() {
        return Ok(coarse);
    }
    let mut steps = vec![SLICE; slices as usize - 1];
    let mut pair = Pair::new(options, board, Box::new(std::io::sink()))?;
    pair.first.run_to(&steps);
    pair.second.run_to(&steps);
    let mut report = coarse;
    for fine in 0..SLICE.div_ceil(FINE_SLICE) {
        if let Some(narrowed) = pair.step(FINE_SLICE) {
            report = narrowed;
            steps.extend(std::iter::repeat_n(FINE_SLICE, fine as usize));
            break;
        }
    }
    // Where smaller steps hide the difference (short slices are interpreted more), the report
    // stays with the whole slice.
    drop(pair);
    let mut side = Side::on(options, board, EngineKind::Interp, Box::new(std::io::sink()))?;
    side.run_to(&steps);
    side.machine.run_timers();
    for _ in report.agreed..report.differ {
        let line = side.machine.disassemble_next();
        report.executed.push(line);
        side.machine.run_slice(1);
    }
    Ok(report)
}

/// The assembly of one instruction, Intel syntax.
pub(crate) fn assembly(bytes: &[u8], bits: u32, rip: u64) -> String {
    let mut text = String::new();
    match decoder::decode(bytes, bits) {
        Ok(insn) => {
            iced_x86::IntelFormatter::new().format(&insn.to_iced(rip), &mut text);
        }
        Err(error) => text = format!("no instruction ({error:?})"),
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "The engines agree up to instruction {} and differ at {}.",
            self.agreed, self.differ
        )?;
        if let Some((address, interpreted, translated)) = self.memory {
            writeln!(
                f,
                "Memory at {address:#x}: interpreted {interpreted:#04x}, translated {translated:#04x}."
            )?;
        }
        if !self.registers.is_empty() {
            writeln!(f, "Registers that differ (interpreted, translated):")?;
        }
        for difference in &self.registers {
            writeln!(f, "  {difference}")?;
        }
        writeln!(f, "State where they agreed:")?;
        for (i, row) in self.before.gpr.chunks(4).enumerate() {
            let row: Vec<_> =
                row.iter().enumerate().map(|(j, v)| format!("{}={v:016x}", i * 4 + j)).collect();
            writeln!(f, "  {}", row.join(" "))?;
        }
        writeln!(
            f,
            "  cs={:04x} rip={:x} rflags={:x} cpl={} mode={:?}",
            self.before.cs().selector,
            self.before.rip,
            self.before.rflags,
            self.before.cpl,
            self.before.mode
        )?;
        if !self.executed.is_empty() {
            writeln!(f, "Instructions in between:")?;
        }
        for (address, text) in &self.executed {
            writeln!(f, "  {address:016x}  {text}")?;
        }
        Ok(())
    }
}
