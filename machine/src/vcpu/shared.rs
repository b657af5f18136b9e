//! The part of a vCPU that other threads reach: its local APIC, pending events, sleep.

use devices::apic::{Deadline, LocalApic, Now, Reception};
use devices::{Clock, Timer, TimerClient, lock};
use softmmu::ExitRequest;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

/// Events that are not interrupts, bits of [`VcpuShared::take_events`].
pub(crate) mod event {
    /// A non-maskable interrupt.
    pub(crate) const NMI: u32 = 1 << 8;
    /// INIT.
    pub(crate) const INIT: u32 = 1 << 9;
    /// A start-up IPI; its vector is in bits 0 to 7.
    pub(crate) const STARTUP: u32 = 1 << 10;
}

/// Frequency of the platform's time-stamp counter: it counts machine nanoseconds, so that guest
/// time, the paravirtual clock and snapshots need no calibration.
pub const TSC_HZ: u64 = 1_000_000_000;

/// What other threads see of a vCPU.
pub struct VcpuShared {
    /// Position in the machine, 0 is the boot processor.
    pub(crate) index: usize,
    /// Lock order: after every device and interrupt controller, before nothing.
    pub(crate) apic: Mutex<LocalApic>,
    clock: Arc<dyn Clock>,
    timer: Box<dyn Timer>,
    events: AtomicU32,
    /// Guest TSC minus platform TSC, as the vCPU last set it.
    tsc_offset: AtomicU64,
    exit_request: OnceLock<Arc<ExitRequest>>,
    /// Deterministic runs: nobody pulls the vCPU out of guest code.
    undisturbed: AtomicBool,
    awake: Mutex<bool>,
    wake: Condvar,
}

impl VcpuShared {
    pub(crate) fn new(
        index: usize,
        apic: LocalApic,
        clock: Arc<dyn Clock>,
        timer: Box<dyn Timer>,
    ) -> VcpuShared {
        VcpuShared {
            index,
            apic: Mutex::new(apic),
            clock,
            timer,
            events: AtomicU32::new(0),
            tsc_offset: AtomicU64::new(0),
            exit_request: OnceLock::new(),
            undisturbed: AtomicBool::new(false),
            awake: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn attach(&self, exit_request: Arc<ExitRequest>) {
        let _ = self.exit_request.set(exit_request);
    }

    pub(crate) fn set_tsc_offset(&self, offset: u64) {
        self.tsc_offset.store(offset, Ordering::SeqCst);
    }

    /// The time-stamp counter before the guest's offset.
    pub(crate) fn platform_tsc(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Both clocks of the local APIC, now.
    pub(crate) fn now(&self) -> Now {
        let ns = self.clock.now_ns();
        Now { ns, tsc: ns.wrapping_add(self.tsc_offset.load(Ordering::SeqCst)) }
    }

    /// Arms the host timer for what the local APIC waits for.
    pub(crate) fn rearm(&self, apic: &LocalApic) {
        let offset = self.tsc_offset.load(Ordering::SeqCst);
        self.timer.arm(apic.next_deadline().map(|deadline| match deadline {
            Deadline::Nanoseconds(at) => at,
            Deadline::Tsc(at) => at.wrapping_sub(offset),
        }));
    }

    /// Carries out what a message or a pin did to the local APIC.
    pub(crate) fn receive(&self, reception: Reception) {
        match reception {
            Reception::Dropped | Reception::Smi => {}
            Reception::Interrupt | Reception::ExtInt => self.notify(ExitRequest::INTERRUPT),
            Reception::Nmi => self.post(event::NMI),
            Reception::Init => self.post(event::INIT),
            Reception::StartUp(vector) => self.post(event::STARTUP | u32::from(vector)),
        }
    }

    fn post(&self, bits: u32) {
        self.events.fetch_or(bits, Ordering::SeqCst);
        self.kick();
    }

    /// Puts an NMI back that the CPU blocks for now, without waking it.
    pub(crate) fn post_nmi_later(&self) {
        self.events.fetch_or(event::NMI, Ordering::SeqCst);
    }

    /// Takes the events that have come since the last call.
    pub(crate) fn take_events(&self) -> u32 {
        self.events.swap(0, Ordering::SeqCst)
    }

    /// Pulls the vCPU out of guest code or sleep, so that it looks around.
    pub(crate) fn kick(&self) {
        self.notify(ExitRequest::KICK);
    }

    pub(crate) fn ignore_requests(&self) {
        self.undisturbed.store(true, Ordering::Relaxed);
    }

    fn notify(&self, bits: u32) {
        if self.undisturbed.load(Ordering::Relaxed) {
            return;
        }
        if let Some(request) = self.exit_request.get() {
            request.set(bits);
        }
        *lock(&self.awake) = true;
        self.wake.notify_one();
    }

    /// Sleeps until somebody calls; returns at once if somebody has since the last sleep.
    pub(crate) fn sleep(&self) {
        let mut awake = lock(&self.awake);
        while !*awake {
            awake = self.wake.wait(awake).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *awake = false;
    }
}

impl VcpuShared {
    /// The local APIC's timer ran out, perhaps.
    pub(crate) fn apic_timer_expired(&self) {
        let mut apic = lock(&self.apic);
        let fired = apic.tick(self.now());
        self.rearm(&apic);
        drop(apic);
        if fired {
            self.notify(ExitRequest::INTERRUPT);
        }
    }
}

/// Calls the vCPU when its local APIC's deadline passes.
pub(crate) struct ApicTimer(pub(crate) Arc<VcpuShared>);

impl TimerClient for ApicTimer {
    fn timer_expired(&mut self, _now_ns: u64) {
        self.0.apic_timer_expired();
    }
}
