//! A virtual CPU: its state, its MMU, its engine, and the loop that runs them on a host thread.

mod bus;
mod entry;
mod hypercall;
mod kvmclock;
mod runner;
mod shared;
mod spin;
mod suspend;

pub use bus::Fabric;
pub(crate) use bus::VcpuBus;
pub(crate) use kvmclock::KvmClock;
pub use runner::Runner;
pub(crate) use shared::{ApicTimer, event};
pub use shared::{TSC_HZ, VcpuShared};
pub(crate) use spin::SpinHint;
pub(crate) use suspend::Wakening;

use crate::control::{A20Gate, Control, StopReason};
use devices::lock;
use interp::events::{self, TripleFault};
use interp::{Exit, sync};
use softmmu::{ExitRequest, GuestRam, LowBox, Mmu};
use std::sync::Arc;
use x86::cpu::Shadow;
use x86::{Activity, Cpu, SegReg, Segment};

/// Instructions between two looks at the machine, when nothing asks for one.
const SLICE: u64 = 1 << 24;

/// Why guest code was left, counted for `--stats`.
#[derive(Clone, Copy, Default, Debug)]
pub struct ExitCounts {
    /// HLT with nothing to do: the host thread slept.
    pub halts: u64,
    /// External interrupts delivered.
    pub interrupts: u64,
    /// Non-maskable interrupts delivered.
    pub nmis: u64,
    /// Left because another thread asked.
    pub requests: u64,
    /// The instruction slice was over.
    pub slices: u64,
}

/// A virtual CPU.
pub struct Vcpu {
    /// Registers.
    pub cpu: LowBox<Cpu>,
    /// Memory.
    pub mmu: Mmu,
    /// What executes its code.
    pub engine: Runner,
    /// Counters.
    pub exits: ExitCounts,
    shared: Arc<VcpuShared>,
    fabric: Arc<Fabric>,
    control: Arc<Control>,
    a20: Arc<A20Gate>,
    ram: Arc<GuestRam>,
    wakening: Option<Wakening>,
    /// The boot processor in S3.
    suspended: bool,
    /// Started by a start-up IPI, whose sender waits for the first instruction.
    starting: bool,
}

impl Vcpu {
    pub(crate) fn new(
        cpu: LowBox<Cpu>,
        mmu: Mmu,
        engine: Runner,
        shared: Arc<VcpuShared>,
        fabric: Arc<Fabric>,
        control: Arc<Control>,
        a20: Arc<A20Gate>,
        ram: Arc<GuestRam>,
    ) -> Vcpu {
        shared.attach(mmu.exit_request.clone());
        let mut vcpu = Vcpu {
            cpu,
            mmu,
            engine,
            exits: ExitCounts::default(),
            shared,
            fabric,
            control,
            a20,
            ram,
            wakening: None,
            suspended: false,
            starting: false,
        };
        vcpu.sync_paging();
        vcpu
    }

    /// Position in the machine, 0 is the boot processor.
    pub fn index(&self) -> usize {
        self.shared.index
    }

    /// Runs until the machine stops.
    ///
    /// No lock is held while guest code runs or the thread sleeps. Who stops the machine sets
    /// `Control`'s flag first and then kicks every vCPU, which looks at the flag after each kick.
    pub fn run(&mut self) {
        self.run_until_stopped();
        // Nobody waits for this vCPU's mail any more.
        self.mmu.park();
    }

    fn run_until_stopped(&mut self) {
        while !self.control.is_stopping() {
            // Cleared before the looks below, so that what comes after them is seen next time.
            let looked_at = ExitRequest::INTERRUPT | ExitRequest::KICK | ExitRequest::NMI;
            self.mmu.exit_request.clear(looked_at);
            self.mmu.set_a20(self.a20.is_open());
            self.handle_events();
            if self.shared.take_start_up_sent() {
                self.let_others_start();
            }
            if let Err(triple) = self.take_nmi().and_then(|()| self.take_interrupt()) {
                self.triple_fault(&triple);
                return;
            }
            match self.cpu.activity {
                Activity::Running => self.execute(),
                Activity::Halted | Activity::WaitForSipi => {
                    self.exits.halts += 1;
                    self.sleep();
                }
                Activity::Shutdown => self.sleep(),
            }
        }
    }

    /// Makes requests of other threads and devices wait for the end of a slice.
    pub(crate) fn ignore_requests(&self) {
        self.shared.ignore_requests();
    }

    /// Changes engines, with empty caches.
    pub(crate) fn set_runner(&mut self, runner: Runner) {
        self.engine = runner;
    }

    /// For deterministic runs: takes events and an interrupt if it can, then executes exactly
    /// `count` instructions, or as many as there are until the CPU stops.
    pub(crate) fn run_slice(&mut self, count: u64) {
        self.mmu.exit_request.clear(ExitRequest::INTERRUPT | ExitRequest::KICK);
        self.mmu.set_a20(self.a20.is_open());
        self.handle_events();
        if let Err(triple) = self.take_interrupt() {
            self.triple_fault(&triple);
        }
        self.mmu.exit_request.clear(ExitRequest::INTERRUPT | ExitRequest::KICK);
        if self.cpu.activity != Activity::Running {
            return;
        }
        match self.engine.run(&mut self.cpu, &mut self.mmu, count) {
            Exit::Limit | Exit::Request | Exit::Stopped => {}
            Exit::TripleFault(triple) => self.triple_fault(&triple),
        }
    }

    /// Sleeps until an event. Meanwhile nobody waits until this vCPU has seen a change of code.
    fn sleep(&mut self) {
        self.mmu.park();
        self.shared.sleep();
        self.mmu.unpark();
    }

    /// Waits for those that this vCPU has sent a start-up IPI. Nobody waits for it meanwhile.
    fn let_others_start(&mut self) {
        self.mmu.park();
        let vcpus = &self.fabric.interrupts.vcpus;
        self.shared.let_others_start(vcpus, || self.control.is_stopping());
        self.mmu.unpark();
    }

    fn execute(&mut self) {
        let slice = if self.starting { 1 } else { SLICE };
        let exit = self.engine.run(&mut self.cpu, &mut self.mmu, slice);
        if self.starting && !matches!(exit, Exit::Request) {
            self.starting = false;
            self.shared.finish_start();
        }
        match exit {
            Exit::Limit => self.exits.slices += 1,
            Exit::Request => self.exits.requests += 1,
            Exit::Stopped => {}
            Exit::TripleFault(triple) => self.triple_fault(&triple),
        }
    }

    fn triple_fault(&mut self, triple: &TripleFault) {
        self.cpu.activity = Activity::Shutdown;
        let words = triple.explain(&self.cpu, &mut self.mmu);
        self.control.stop(StopReason::TripleFault(words));
    }

    fn handle_events(&mut self) {
        let mut events = self.shared.take_events();
        if events & event::SUSPEND != 0 {
            self.suspend();
        }
        if events & event::WAKE != 0 && self.suspended {
            self.wake();
        }
        if self.suspended {
            events &= !(event::INIT | event::STARTUP);
        }
        if events & event::INIT != 0 {
            self.init_reset();
        }
        if events & event::STARTUP != 0 {
            if self.cpu.activity == Activity::WaitForSipi {
                self.start_up(self.shared.start_up_vector());
                self.starting = true;
            } else {
                self.shared.finish_start();
            }
        }
        if events & event::FLUSH != 0 {
            self.mmu.flush_all();
        }
    }

    /// Delivers a non-maskable interrupt if one is pending and the CPU takes it now. Otherwise
    /// leaves the request bit set, so that the engine stops when it can be taken.
    fn take_nmi(&mut self) -> Result<(), Box<TripleFault>> {
        let takes = matches!(self.cpu.activity, Activity::Running | Activity::Halted);
        if !takes || !self.shared.nmi_pending() {
            return Ok(());
        }
        if self.cpu.nmi_open() {
            self.shared.take_nmi();
            self.exits.nmis += 1;
            self.cpu.activity = Activity::Running;
            self.cpu.shadow = Shadow::None;
            events::nmi(&mut self.cpu, &mut self.mmu)?;
        }
        if self.cpu.nmi_blocked {
            self.shared.latch_nmi();
        }
        if self.shared.nmi_pending() {
            self.mmu.exit_request.set(ExitRequest::NMI);
        }
        Ok(())
    }

    /// INIT (SDM vol. 3A, section 9.1 and table 9-1): as RESET, but caches, MSRs, x87 and vector
    /// state stay. Application processors then wait for a start-up IPI.
    fn init_reset(&mut self) {
        lock(&self.shared.apic).init_reset();
        self.shared.drop_nmis();
        let fresh =
            Cpu { policy: self.cpu.policy.clone(), apic_id: self.cpu.apic_id, ..Cpu::new() };
        let old = std::mem::replace(&mut *self.cpu, fresh);
        let cpu = &mut *self.cpu;
        cpu.instructions = old.instructions;
        cpu.gpr[2] = u64::from(SIGNATURE_IN_EDX);
        cpu.cr0 = old.cr0 & (x86::control::cr0::CD | x86::control::cr0::NW) | x86::control::cr0::ET;
        cpu.xcr0 = old.xcr0;
        cpu.xinuse = old.xinuse;
        cpu.mxcsr = old.mxcsr;
        cpu.vector = old.vector;
        cpu.opmask = old.opmask;
        cpu.x87 = old.x87;
        cpu.tsc_offset = old.tsc_offset;
        cpu.tsc_adjust = old.tsc_adjust;
        cpu.tsc_aux = old.tsc_aux;
        cpu.pat = old.pat;
        cpu.mtrr_def_type = old.mtrr_def_type;
        cpu.mtrr_fixed = old.mtrr_fixed;
        cpu.mtrr_variable = old.mtrr_variable;
        cpu.activity =
            if self.shared.index == 0 { Activity::Running } else { Activity::WaitForSipi };
        self.mmu.flush_all();
        self.sync_paging();
    }

    /// Tells the MMU of paging registers set from outside guest code.
    fn sync_paging(&mut self) {
        // The only error is a bad PDPTE; no state set here has PAE paging on.
        let _ = sync::paging_changed(&mut self.cpu, &mut self.mmu);
    }

    /// Start-up IPI: real mode at `vector` × 4096 (SDM vol. 3A, section 8.4.3).
    fn start_up(&mut self, vector: u8) {
        let cs = &mut self.cpu.seg[SegReg::CS as usize];
        *cs = Segment::real(u16::from(vector) << 8, cs.limit, cs.access);
        self.cpu.rip = 0;
        self.cpu.activity = Activity::Running;
        sync::mode_changed(&mut self.cpu, &mut self.mmu);
    }

    /// Delivers an external interrupt if one is pending and the CPU takes it now. Leaves the
    /// request bit set if one has to wait, so that the engine stops when it can be taken.
    fn take_interrupt(&mut self) -> Result<(), Box<TripleFault>> {
        if !matches!(self.cpu.activity, Activity::Running | Activity::Halted) {
            return Ok(());
        }
        if !self.cpu.interrupts_open() {
            if self.cpu.activity == Activity::Running
                && self.fabric.interrupts.is_pending(self.shared.index)
            {
                self.mmu.exit_request.set(ExitRequest::INTERRUPT);
            }
            return Ok(());
        }
        let Some(vector) = self.fabric.interrupts.acknowledge(self.shared.index) else {
            return Ok(());
        };
        self.exits.interrupts += 1;
        self.cpu.activity = Activity::Running;
        self.cpu.shadow = Shadow::None;
        events::external(&mut self.cpu, &mut self.mmu, vector)?;
        if self.fabric.interrupts.is_pending(self.shared.index) {
            self.mmu.exit_request.set(ExitRequest::INTERRUPT);
        }
        Ok(())
    }
}

/// EDX after INIT holds the processor's family, model and stepping; software uses CPUID.
const SIGNATURE_IN_EDX: u32 = 0x600;
