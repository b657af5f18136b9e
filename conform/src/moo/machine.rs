//! A real-mode machine that runs one test after the other.

use super::format::{ADDRESS_LIMIT, Reg, Registers, Test};
use crate::host::Engine;
use hashbrown::HashMap;
use interp::Exit;
use softmmu::{GuestRam, LowBox, LowError, Mmu, MmuError, MsrResult, PhysBus, RamError, RamRange};
use std::sync::Arc;
use thiserror::Error;
use x86::control::cr0;
use x86::regs::gpr;
use x86::{Activity, Cpu, SegReg, Vector, flags};

const PAGE: usize = 4096;
/// A test is one instruction, perhaps one of an exception handler, and HLT.
const MAX_INSTRUCTIONS: u64 = 64;

/// Why no machine could be made.
#[derive(Debug, Error)]
pub enum MachineError {
    /// No guest memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// No MMU.
    #[error(transparent)]
    Mmu(#[from] MmuError),
    /// No memory that translated code reaches.
    #[error(transparent)]
    Low(#[from] LowError),
    /// No translator.
    #[error(transparent)]
    Translator(#[from] jit::EngineError),
}

/// Memory only: IN gives bytes of FF, as the tests' hardware did.
struct OpenBus;

impl PhysBus for OpenBus {
    fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xFF);
    }
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, _port: u16, size: u8) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
    }
    fn port_write(&self, _port: u16, _size: u8, _value: u32) {}
    fn read_msr(&self, _msr: u32) -> MsrResult<u64> {
        MsrResult::Unknown
    }
    fn write_msr(&self, _msr: u32, _value: u64) -> MsrResult<()> {
        MsrResult::Unknown
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&self, _value: u8) {}
    fn host_tsc(&self) -> u64 {
        0
    }
}

/// What came out of a test.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Registers at the end.
    pub registers: Registers,
    /// Why the CPU ended, if not by HLT.
    pub trouble: Option<String>,
    /// The exceptions that the CPU raised, INT instructions excepted: bit n for vector n.
    pub raised: u32,
    /// Memory bytes that are not what the test expects: address, found, expected.
    pub memory: Vec<(u32, u8, u8)>,
}

impl Outcome {
    /// Whether the CPU raised this exception.
    pub(super) fn has_raised(&self, vector: Vector) -> bool {
        self.raised >> vector as u8 & 1 != 0
    }
}

/// What runs the tests.
enum Runner {
    Interp(Box<interp::Engine>),
    Jit(Box<jit::Engine>),
}

impl Runner {
    fn new(engine: Engine) -> Result<Runner, MachineError> {
        let helpers_only = match engine {
            Engine::Interp => return Ok(Runner::Interp(Box::default())),
            Engine::Jit => false,
            Engine::JitHelpers => true,
        };
        let config = jit::Config {
            threshold: 0,
            helpers_only,
            precise_flags: true,
            cache_size: 1 << 20,
            ..jit::Config::default()
        };
        Ok(Runner::Jit(Box::new(jit::Engine::new(config)?)))
    }

    fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu) -> Exit {
        match self {
            Runner::Interp(engine) => engine.run(cpu, mmu, MAX_INSTRUCTIONS),
            Runner::Jit(engine) => engine.run(cpu, mmu, MAX_INSTRUCTIONS),
        }
    }

    /// Exceptions delivered so far, by vector.
    fn exceptions(&self) -> [u64; 32] {
        match self {
            Runner::Interp(engine) => engine.stats.exceptions,
            Runner::Jit(engine) => engine.interp.stats.exceptions,
        }
    }
}

/// The machine.
pub(super) struct Machine {
    cpu: LowBox<Cpu>,
    /// The state that every test starts from.
    reset: Cpu,
    mmu: Mmu,
    runner: Runner,
    ram: Arc<GuestRam>,
}

impl Machine {
    /// A machine whose memory is all zero.
    ///
    /// # Errors
    /// [`MachineError`], when the host has no memory.
    pub(super) fn new(engine: Engine) -> Result<Machine, MachineError> {
        let ram = Arc::new(GuestRam::new(&[RamRange { gpa: 0, len: u64::from(ADDRESS_LIMIT) }])?);
        let mmu = Mmu::new(ram.clone(), Arc::new(OpenBus))?;
        let mut reset = Cpu::new();
        reset.cr0 = cr0::ET;
        reset.idtr.limit = 0x3FF;
        let cpu = LowBox::new(reset.clone())?;
        Ok(Machine { cpu, reset, mmu, runner: Runner::new(engine)?, ram })
    }

    /// Runs a test. `redirect` copies an interrupt vector over another one beforehand, and
    /// leaves that out of the comparison: (from, to).
    pub(super) fn run(&mut self, test: &Test, redirect: Option<(u8, u8)>) -> Outcome {
        for &(address, value) in &test.initial.ram {
            self.poke(address, &[value]);
        }
        if let Some((from, to)) = redirect {
            let mut entry = [0; 4];
            let _ = self.ram.read(u64::from(from) * 4, &mut entry);
            self.poke(u32::from(to) * 4, &entry);
        }
        self.load(&test.initial.registers);
        let before = self.runner.exceptions();
        let exit = self.runner.run(&mut self.cpu, &mut self.mmu);
        let trouble = match exit {
            Exit::Stopped if self.cpu.activity == Activity::Halted => None,
            Exit::Stopped => Some(format!("the CPU is {:?}", self.cpu.activity)),
            Exit::Limit => Some(format!("no HLT within {MAX_INSTRUCTIONS} instructions")),
            Exit::Request => Some("the engine asked for service".to_owned()),
            Exit::TripleFault(fault) => Some(format!("triple fault: {:?}", fault.chain)),
        };
        let after = self.runner.exceptions();
        let raised = (0..32).filter(|&v| after[v] != before[v]).fold(0, |set, v| set | 1 << v);
        Outcome {
            registers: self.registers(),
            trouble,
            raised,
            memory: self.compare(test, redirect),
        }
    }

    /// Writes memory as a device would, so that cached code is invalidated.
    fn poke(&self, address: u32, data: &[u8]) {
        // Addresses were checked when the file was read: all of them are RAM.
        let _ = self.ram.write(u64::from(address), data);
    }

    fn load(&mut self, from: &Registers) {
        let mut cpu = self.reset.clone();
        let get = |r| from.get(r).unwrap_or(0);
        for (r, number) in GPRS {
            cpu.gpr[number] = u64::from(get(r));
        }
        for (r, seg) in SEGMENTS {
            let slot = &mut cpu.seg[seg as usize];
            slot.selector = get(r);
            slot.base = u64::from(get(r)) << 4;
        }
        cpu.rip = u64::from(get(Reg::Ip));
        // The four top bits do not exist in an 80286 in real mode.
        cpu.rflags = u64::from(get(Reg::Flags)) & 0xFFF | flags::FIXED_ONE;
        cpu.update_mode();
        *self.cpu = cpu;
        self.mmu.set_privilege(0, false);
    }

    fn registers(&self) -> Registers {
        let mut out = Registers::default();
        for (r, number) in GPRS {
            out.0[r as usize] = Some(self.cpu.gpr[number] as u16);
        }
        for (r, seg) in SEGMENTS {
            out.0[r as usize] = Some(self.cpu.seg(seg).selector);
        }
        out.0[Reg::Ip as usize] = Some(self.cpu.rip as u16);
        out.0[Reg::Flags as usize] = Some(self.cpu.rflags as u16);
        out
    }

    /// Compares every byte that was written with what the test expects, listed or not, and makes
    /// memory zero again.
    fn compare(&mut self, test: &Test, redirect: Option<(u8, u8)>) -> Vec<(u32, u8, u8)> {
        let mut expected: HashMap<u32, u8> = test.initial.ram.iter().copied().collect();
        expected.extend(test.last.ram.iter().copied());
        let ignored = redirect.map_or(0..0, |(_, to)| u32::from(to) * 4..u32::from(to) * 4 + 4);
        let mut different = Vec::new();
        self.mmu.drop_write_tags();
        for page in (0..ADDRESS_LIMIT).step_by(PAGE) {
            let listed = |address: &u32| address & !(PAGE as u32 - 1) == page;
            if !self.ram.take_dirty(u64::from(page)) && !expected.keys().any(listed) {
                continue;
            }
            let mut bytes = [0; PAGE];
            let _ = self.ram.read(u64::from(page), &mut bytes);
            for (&address, &wanted) in expected.iter().filter(|(a, _)| listed(a)) {
                let found = std::mem::take(&mut bytes[address as usize % PAGE]);
                if found != wanted && !ignored.contains(&address) {
                    different.push((address, found, wanted));
                }
            }
            // What is left was not listed, and must be as it was before: zero.
            for (i, &found) in bytes.iter().enumerate().filter(|(_, b)| **b != 0) {
                let address = page + i as u32;
                if !ignored.contains(&address) {
                    different.push((address, found, 0));
                }
            }
            self.poke(page, &[0; PAGE]);
            self.ram.take_dirty(u64::from(page));
        }
        different.sort_unstable();
        different
    }
}

const GPRS: [(Reg, usize); 8] = [
    (Reg::Ax, gpr::RAX),
    (Reg::Bx, gpr::RBX),
    (Reg::Cx, gpr::RCX),
    (Reg::Dx, gpr::RDX),
    (Reg::Sp, gpr::RSP),
    (Reg::Bp, gpr::RBP),
    (Reg::Si, gpr::RSI),
    (Reg::Di, gpr::RDI),
];

const SEGMENTS: [(Reg, SegReg); 4] =
    [(Reg::Cs, SegReg::CS), (Reg::Ss, SegReg::SS), (Reg::Ds, SegReg::DS), (Reg::Es, SegReg::ES)];
