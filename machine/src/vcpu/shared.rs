//! The part of a vCPU that other threads reach: its local APIC, pending events, sleep.

use devices::apic::{Deadline, LocalApic, Now, Reception};
use devices::{Clock, Timer, TimerClient, lock};
use softmmu::ExitRequest;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Events that are not interrupts, bits of [`VcpuShared::take_events`].
pub(crate) mod event {
    /// INIT.
    pub(crate) const INIT: u32 = 1 << 0;
    /// A start-up IPI; see [`super::VcpuShared::start_up_vector`].
    pub(crate) const STARTUP: u32 = 1 << 1;
    /// Cached translations are to be dropped.
    pub(crate) const FLUSH: u32 = 1 << 2;
    /// S3 begins.
    pub(crate) const SUSPEND: u32 = 1 << 3;
    /// S3 ends. Taken after [`SUSPEND`] if both have come, and before INIT.
    pub(crate) const WAKE: u32 = 1 << 4;
}

/// How many non-maskable interrupts wait at most: one that is about to be taken, and one more
/// latched meanwhile (SDM vol. 3A, section 6.7.1; the same in KVM).
const MAX_NMIS: u32 = 2;

/// How long the sender of a start-up IPI waits for a CPU that does not start, at most.
const START_LIMIT: Duration = Duration::from_secs(1);

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
    /// Non-maskable interrupts that wait, at most [`MAX_NMIS`].
    nmis: AtomicU32,
    start_up_vector: AtomicU8,
    /// A start-up IPI has come that the CPU has not answered.
    starting: Mutex<bool>,
    /// [`VcpuShared::starting`] is over.
    started: Condvar,
    /// This CPU has sent a start-up IPI.
    start_up_sent: AtomicBool,
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
            nmis: AtomicU32::new(0),
            start_up_vector: AtomicU8::new(0),
            starting: Mutex::new(false),
            started: Condvar::new(),
            start_up_sent: AtomicBool::new(false),
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
            Reception::Nmi => {
                let more = |n| (n < MAX_NMIS).then_some(n + 1);
                let _ = self.nmis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
                self.kick();
            }
            Reception::Init => self.post(event::INIT),
            Reception::StartUp(vector) => {
                self.start_up_vector.store(vector, Ordering::SeqCst);
                *lock(&self.starting) = true;
                self.post(event::STARTUP);
            }
        }
    }

    /// Hands the vCPU bits of [`event`].
    pub(crate) fn post(&self, bits: u32) {
        self.events.fetch_or(bits, Ordering::SeqCst);
        self.kick();
    }

    /// The APIC ID that messages address.
    pub(crate) fn apic_id(&self) -> u32 {
        lock(&self.apic).id()
    }

    /// Asks the vCPU to drop cached translations.
    pub(crate) fn request_flush(&self) {
        self.post(event::FLUSH);
    }

    /// The vector of the last start-up IPI.
    pub(crate) fn start_up_vector(&self) -> u8 {
        self.start_up_vector.load(Ordering::SeqCst)
    }

    /// The CPU has executed its first instruction, or ignores start-up IPIs.
    pub(crate) fn finish_start(&self) {
        *lock(&self.starting) = false;
        self.started.notify_all();
    }

    /// Waits until [`VcpuShared::finish_start`], or until `limit` has passed. Returns whether it was
    /// called.
    fn wait_for_start(&self, limit: Duration) -> bool {
        let starting = lock(&self.starting);
        match self.started.wait_timeout_while(starting, limit, |starting| *starting) {
            Ok((starting, _)) => !*starting,
            Err(poisoned) => !*poisoned.into_inner().0,
        }
    }

    /// This CPU has sent a start-up IPI: it leaves guest code, to let the others start.
    pub(crate) fn note_start_up_sent(&self) {
        if !self.undisturbed.load(Ordering::Relaxed) {
            self.start_up_sent.store(true, Ordering::Relaxed);
            self.kick();
        }
    }

    /// Whether this CPU has sent a start-up IPI since the last call.
    pub(crate) fn take_start_up_sent(&self) -> bool {
        self.start_up_sent.swap(false, Ordering::Relaxed)
    }

    /// Waits until those of `vcpus` that got a start-up IPI execute code: on a processor that takes
    /// a microsecond, and firmware relies on it (SeaBIOS's resume from S3 takes the trampoline away
    /// at once). Here a thread has to wake up. Gives up after [`START_LIMIT`], and when
    /// `is_stopping` says so.
    pub(crate) fn let_others_start(
        &self,
        vcpus: &[Arc<VcpuShared>],
        is_stopping: impl Fn() -> bool,
    ) {
        // A CPU that runs ignores start-up IPIs; without this, two could wait for each other.
        self.finish_start();
        let begin = Instant::now();
        for vcpu in vcpus {
            while !vcpu.wait_for_start(START_LIMIT / 100) {
                if is_stopping() || begin.elapsed() > START_LIMIT {
                    return;
                }
            }
        }
    }

    /// Whether a non-maskable interrupt waits.
    pub(crate) fn nmi_pending(&self) -> bool {
        self.nmis.load(Ordering::SeqCst) != 0
    }

    /// Takes one of the non-maskable interrupts that wait.
    pub(crate) fn take_nmi(&self) {
        let less = |n: u32| n.checked_sub(1);
        let _ = self.nmis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    /// The CPU blocks non-maskable interrupts: of those that wait, only one is latched.
    pub(crate) fn latch_nmi(&self) {
        self.nmis.fetch_min(1, Ordering::SeqCst);
    }

    /// INIT drops what waits.
    pub(crate) fn drop_nmis(&self) {
        self.nmis.store(0, Ordering::SeqCst);
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
