//! How a running machine is told to stop.

use crate::vcpu::VcpuShared;
use devices::legacy::acpi_pm::AcpiPmDevice;
use devices::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// Why the machine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The guest powered off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset: keyboard controller, port 0xCF9 or 0x92, ACPI reset register.
    Reset,
    /// The guest wrote this value to the ISA debug exit port.
    DebugExit(u32),
    /// A vCPU shut down by a triple fault; the post-mortem in words.
    TripleFault(String),
    /// The time limit passed.
    Timeout,
    /// The user left (Ctrl-A X), or the host asked the process to end.
    Quit,
}

/// The switch that stops a machine, shared by its devices and threads. The first reason counts.
#[derive(Default)]
pub struct Control {
    stopping: AtomicBool,
    reason: Mutex<Option<StopReason>>,
    vcpus: OnceLock<Vec<Arc<VcpuShared>>>,
    power: OnceLock<Weak<Mutex<AcpiPmDevice>>>,
}

impl Control {
    /// A switch for a machine that is being built.
    pub fn new() -> Arc<Control> {
        Arc::new(Control::default())
    }

    pub(crate) fn attach(&self, vcpus: Vec<Arc<VcpuShared>>) {
        let _ = self.vcpus.set(vcpus);
    }

    pub(crate) fn attach_power(&self, power: &Arc<Mutex<AcpiPmDevice>>) {
        let _ = self.power.set(Arc::downgrade(power));
    }

    /// Presses the machine's power button: the guest's kernel is told, if it listens, and wakes if
    /// it sleeps.
    pub fn press_power_button(&self) {
        if let Some(power) = self.power.get().and_then(Weak::upgrade) {
            lock(&power).press_power_button();
        }
    }

    /// Stops the machine for `reason`, unless it is stopping already.
    pub fn stop(&self, reason: StopReason) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.stopping.store(true, Ordering::SeqCst);
        self.kick_all();
    }

    /// Pulls every vCPU out of guest code or sleep.
    pub(crate) fn kick_all(&self) {
        for vcpu in self.vcpus.get().into_iter().flatten() {
            vcpu.kick();
        }
    }

    /// Makes every vCPU forget cached translations before its next instruction.
    pub(crate) fn flush_translations(&self) {
        for vcpu in self.vcpus.get().into_iter().flatten() {
            vcpu.request_flush();
        }
    }

    /// Whether [`Control::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The reason of the first [`Control::stop`].
    pub fn reason(&self) -> Option<StopReason> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The A20 gate, as the keyboard controller sets it; each vCPU applies it to its MMU.
pub struct A20Gate {
    open: AtomicBool,
    control: Arc<Control>,
}

impl A20Gate {
    pub(crate) fn new(control: Arc<Control>) -> A20Gate {
        A20Gate { open: AtomicBool::new(true), control }
    }

    /// Opens or closes the gate; the vCPUs follow before their next instruction.
    pub(crate) fn set(&self, open: bool) {
        if self.open.swap(open, Ordering::SeqCst) != open {
            self.control.kick_all();
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }
}
