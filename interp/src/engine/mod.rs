//! The interpreter's engine: cached decoded blocks and the loop that runs them.

pub mod block;
mod cache;
mod steps;

use crate::events::{self, TripleFault};
use crate::flow::Flow;
use crate::sync;
use block::Block;
use cache::BlockCache;
use decoder::{Insn, Mnemonic};
use softmmu::{ExitRequest, Mmu};
use x86::cpu::Shadow;
use x86::{Activity, Cpu, Fault, Mode, Vector, flags};

/// Why [`Engine::run`] returned.
#[derive(Clone, Debug)]
pub enum Exit {
    /// The instruction limit is reached.
    Limit,
    /// [`ExitRequest`] was raised: an interrupt can be taken, or somebody wants the CPU out.
    Request,
    /// The CPU is not running any more: see `Cpu::activity`.
    Stopped,
    /// Triple fault. `Cpu::activity` is [`Activity::Shutdown`].
    TripleFault(Box<TripleFault>),
}

/// Counters since the engine was made.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stats {
    /// Blocks executed.
    pub blocks_run: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Blocks thrown away because their bytes were written.
    pub blocks_invalidated: u64,
    /// Instructions executed one at a time (interrupt shadows, single-stepping, breakpoints).
    pub single_steps: u64,
    /// Exceptions delivered, by vector.
    pub exceptions: [u64; 32],
    /// All of them.
    pub faults: u64,
}

/// Interprets one vCPU.
#[derive(Default)]
pub struct Engine {
    cache: BlockCache,
    /// Counters.
    pub stats: Stats,
}

/// How a block, or a part of it, ended.
enum End {
    /// Go on at `Cpu::rip`, the page mapping is still valid.
    Branch,
    /// Look everything up again.
    Sync,
    /// The CPU stopped.
    Stop,
    /// Deliver this.
    Fault(Fault),
}

impl Engine {
    /// An engine with empty caches.
    pub fn new() -> Engine {
        Engine::default()
    }

    /// Runs until an [`Exit`], at the latest after `limit` instructions of this call, or
    /// about as many exceptions.
    pub fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, limit: u64) -> Exit {
        let end = cpu.instructions.saturating_add(limit);
        if cpu.activity != Activity::Running {
            return Exit::Stopped;
        }
        // The linear page last looked up and the physical page behind it. Valid as long as blocks
        // end in `End::Branch`: whatever changes translation ends in `End::Sync`.
        let mut page = PageMemo::NONE;
        // A guest can fault for ever without retiring an instruction.
        let mut faults = 0;
        loop {
            if mmu.exit_request.load() != 0 && leave_requested(cpu, mmu) {
                return Exit::Request;
            }
            // Other vCPUs' stores to code come with the requests, own ones with the last block.
            if mmu.code_dirty {
                self.drop_code(&mmu.take_code_writes());
                page = PageMemo::NONE;
            }
            if cpu.instructions >= end || faults > limit {
                return Exit::Limit;
            }
            let result = if needs_single_step(cpu) {
                page = PageMemo::NONE;
                self.single_step(cpu, mmu)
            } else {
                self.next_block(cpu, mmu, &mut page, end - cpu.instructions)
            };
            match result {
                End::Branch => {}
                End::Sync => page = PageMemo::NONE,
                End::Stop => return Exit::Stopped,
                End::Fault(fault) => {
                    page = PageMemo::NONE;
                    faults += 1;
                    if let Err(triple) = self.raise(cpu, mmu, fault) {
                        return Exit::TripleFault(triple);
                    }
                }
            }
        }
    }

    /// Drops every decoded block.
    pub fn flush(&mut self) {
        self.cache.clear();
    }

    fn raise(
        &mut self,
        cpu: &mut Cpu,
        mmu: &mut Mmu,
        fault: Fault,
    ) -> Result<(), Box<TripleFault>> {
        if fault == Fault::WAIT {
            mmu.bus.pause();
            return Ok(());
        }
        self.stats.exceptions[usize::from(fault.vector()) & 31] += 1;
        self.stats.faults += 1;
        cpu.shadow = Shadow::None;
        let result = events::raise(cpu, mmu, fault);
        if result.is_err() {
            cpu.activity = Activity::Shutdown;
        }
        result
    }

    fn next_block(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, page: &mut PageMemo, room: u64) -> End {
        let linear = code_linear(cpu);
        let gpa = if page.linear == linear & !0xFFF {
            page.gpa | linear & 0xFFF
        } else {
            match mmu.fetch_translate(linear) {
                // Device memory may change at any time: nothing of it is kept.
                Ok(found) if !found.ram => return self.single_step(cpu, mmu),
                Ok(found) => {
                    *page = PageMemo { linear: linear & !0xFFF, gpa: found.gpa & !0xFFF };
                    found.gpa
                }
                Err(fault) => return End::Fault(fault),
            }
        };
        let bits = cpu.key.bits();
        let index = match self.cache.find(gpa, bits) {
            Some(index) => index,
            None => match self.cache.decode(&cpu.policy, mmu, linear, gpa, bits) {
                Ok(index) => {
                    self.stats.blocks_decoded += 1;
                    index
                }
                Err(fault) => return End::Fault(fault),
            },
        };
        let block = self.cache.get(index);
        if let Some(second) = block.second_page {
            match mmu.fetch_translate(block::second_page(linear, bits)) {
                Ok(found) if found.gpa == second => {}
                Ok(_) => {
                    self.cache.remove(index);
                    return End::Sync;
                }
                Err(fault) => return End::Fault(fault),
            }
        }
        let past_limit = cpu.mode != Mode::Long
            && cpu.rip + u64::from(block.len) > u64::from(cpu.cs().limit) + 1;
        if past_limit || block.ops.len() as u64 > room {
            return self.single_step(cpu, mmu);
        }
        self.stats.blocks_run += 1;
        run_ops(cpu, mmu, block)
    }

    /// Executes one instruction with everything that blocks leave out: interrupt shadows, RF, TF,
    /// breakpoints, the CS limit of each instruction.
    fn single_step(&mut self, cpu: &mut Cpu, mmu: &mut Mmu) -> End {
        // Data breakpoints that the frame of an event hit, or bits that MOV SS has held back.
        if cpu.pending_debug != 0 && cpu.shadow != Shadow::MovSs {
            return End::Fault(Fault::trap(Vector::DB));
        }
        self.stats.single_steps += 1;
        let linear = code_linear(cpu);
        let hit = sync::match_code_breakpoint(cpu, linear);
        // Behind a load of SS, Intel's processors hold code breakpoints back too; AMD's only traps.
        if hit != 0 && (cpu.shadow != Shadow::MovSs || cpu.policy.is_amd()) {
            cpu.pending_debug |= hit;
            return End::Fault(Fault::new(Vector::DB));
        }
        let op = match block::decode_one(&cpu.policy, mmu, linear, cpu.key.bits()) {
            Ok(op) => op,
            Err(fault) => return End::Fault(fault),
        };
        let start = cpu.rip;
        if cpu.mode != Mode::Long && start + u64::from(op.insn.len) > u64::from(cpu.cs().limit) + 1
        {
            return End::Fault(Fault::GP0);
        }
        cpu.shadow = Shadow::None;
        let trap = cpu.rflags & flags::TF != 0;
        let resume = cpu.rflags & flags::RF;
        cpu.rflags &= !flags::RF;
        cpu.rip = block::advance(cpu, start, op.insn.len);
        let end = match (op.exec)(cpu, mmu, &op.insn) {
            Ok(flow) => {
                // As in blocks, an instruction counts once, when it is done.
                cpu.instructions += u64::from(flow != Flow::Again);
                match flow {
                    Flow::Again => {
                        cpu.rip = start;
                        // Breakpoints stay suppressed until the whole string is done.
                        cpu.rflags |= resume;
                        End::Sync
                    }
                    Flow::Next | Flow::Branch | Flow::Sync => End::Sync,
                    Flow::Stop => End::Stop,
                }
            }
            Err(fault) => {
                if !fault.is_trap() {
                    cpu.rip = start;
                    cpu.rflags |= resume;
                    // General detect reports itself in the pending conditions.
                    if !fault.is(Vector::DB) {
                        cpu.pending_debug = 0;
                    }
                }
                return End::Fault(fault);
            }
        };
        // A load of SS drops its own single-step trap, but keeps a data breakpoint's for the
        // instruction behind it (SDM vol. 3A, section 6.8.3).
        if trap && cpu.shadow != Shadow::MovSs && !took_over_tf(cpu, &op.insn) {
            cpu.pending_debug |= x86::control::dr6::BS;
        }
        if cpu.pending_debug != 0 && cpu.shadow != Shadow::MovSs {
            return End::Fault(Fault::trap(Vector::DB));
        }
        end
    }
}

/// Answers requests: reads the mail about code, and says whether guest code must be left because
/// the vCPU's thread is wanted, or an interrupt or NMI can be taken now. `Mmu::code_dirty` may be
/// set afterwards.
#[cold]
pub fn leave_requested(cpu: &Cpu, mmu: &mut Mmu) -> bool {
    let request = mmu.exit_request.load();
    if request & ExitRequest::CODE != 0 {
        mmu.sync_code_pages();
    }
    request & ExitRequest::KICK != 0
        || request & ExitRequest::INTERRUPT != 0 && cpu.interrupts_open()
        || request & ExitRequest::NMI != 0 && cpu.nmi_open()
}

/// Whether the instruction decided about single-stepping anew and left TF clear, so that its own
/// single-step trap is off: software interrupts (SDM vol. 3B, section 18.3.1.4), SYSCALL, SYSRET.
fn took_over_tf(cpu: &Cpu, insn: &Insn) -> bool {
    cpu.rflags & flags::TF == 0
        && matches!(
            insn.mnemonic(),
            Mnemonic::Int
                | Mnemonic::Int1
                | Mnemonic::Int3
                | Mnemonic::Into
                | Mnemonic::Syscall
                | Mnemonic::Sysret
                | Mnemonic::Sysretq
        )
}

/// Whether blocks are not exact enough for the next instruction.
#[inline(always)]
pub fn needs_single_step(cpu: &Cpu) -> bool {
    cpu.stepping || cpu.shadow != Shadow::None || cpu.rflags & flags::RF != 0
}

/// The linear address of the next instruction.
#[inline(always)]
pub fn code_linear(cpu: &Cpu) -> u64 {
    if cpu.mode == Mode::Long { cpu.rip } else { cpu.cs().base.wrapping_add(cpu.rip) & 0xFFFF_FFFF }
}

#[derive(Clone, Copy)]
struct PageMemo {
    linear: u64,
    gpa: u64,
}

impl PageMemo {
    /// Matches no page: page addresses have their low 12 bits clear.
    const NONE: PageMemo = PageMemo { linear: 1, gpa: 0 };
}

fn run_ops(cpu: &mut Cpu, mmu: &mut Mmu, block: &Block) -> End {
    let mut done = 0;
    let mut end = End::Branch;
    for op in &block.ops {
        let start = cpu.rip;
        cpu.rip = block::advance(cpu, start, op.insn.len);
        match (op.exec)(cpu, mmu, &op.insn) {
            Ok(Flow::Next) => {
                done += 1;
                if mmu.code_dirty {
                    break;
                }
            }
            Ok(Flow::Branch) => {
                done += 1;
                break;
            }
            Ok(Flow::Sync) => {
                done += 1;
                end = End::Sync;
                break;
            }
            Ok(Flow::Again) => {
                cpu.rip = start;
                break;
            }
            Ok(Flow::Stop) => {
                done += 1;
                end = End::Stop;
                break;
            }
            Err(fault) => {
                if !fault.is_trap() {
                    cpu.rip = start;
                }
                end = End::Fault(fault);
                break;
            }
        }
    }
    cpu.instructions += done;
    if let Some(last) = block.ops.get((done as usize).wrapping_sub(1)) {
        mmu.stats.accesses += u64::from(last.accesses);
    }
    end
}
