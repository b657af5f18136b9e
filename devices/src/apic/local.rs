//! The local APIC's state: modes, priorities, acceptance and dispatch.

use serde::{Deserialize, Serialize};

use super::bitmap::VectorBitmap;
use super::delivery::ApicAddress;
use super::message::{DeliveryMode, InterruptMessage, TriggerMode};
use super::mode::{
    AccessError, ApicMode, BASE_BSP, BASE_ENABLE, BASE_RESERVED, BASE_X2APIC, IA32_APIC_BASE,
    LOCAL_APIC_BASE, LOCAL_APIC_SIZE, LocalApicConfig,
};
use super::outcome::{Effect, Reception};
use super::registers::{
    LVT_ENTRIES, LVT_LEVEL, LVT_MASK, LVT_REMOTE_IRR, LvtEntry, SVR_ENABLE,
    SVR_SUPPRESS_EOI_BROADCAST, esr,
};
use super::timer::{ApicTimer, Deadline, Now, TimerMode};

/// One processor's local APIC.
///
/// It is built in the state after power-on: xAPIC mode, software-disabled, all
/// LVT entries masked. PC firmware leaves the bootstrap processor in virtual
/// wire mode instead: see [`LocalApic::enter_virtual_wire_mode`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApic {
    pub(super) config: LocalApicConfig,
    base: u64,
    mode: ApicMode,
    /// The ID in xAPIC mode, which software can change.
    pub(super) xapic_id: u8,
    pub(super) tpr: u8,
    /// Logical destination in xAPIC mode, bits 31:24.
    pub(super) xapic_ldr: u32,
    pub(super) dfr: u32,
    pub(super) svr: u32,
    pub(super) isr: VectorBitmap,
    pub(super) tmr: VectorBitmap,
    pub(super) irr: VectorBitmap,
    /// The error status register as software reads it.
    pub(super) esr: u32,
    /// Errors since software last wrote the error status register.
    pub(super) logged_errors: u32,
    pub(super) icr: u64,
    pub(super) lvt: [u32; LVT_ENTRIES],
    pub(super) timer: ApicTimer,
    /// Levels of the LINT0 and LINT1 pins.
    lint: [bool; 2],
}

impl LocalApic {
    /// A local APIC as after power-on.
    pub fn new(config: LocalApicConfig) -> Self {
        Self {
            config,
            base: LOCAL_APIC_BASE | BASE_ENABLE | if config.bootstrap { BASE_BSP } else { 0 },
            mode: ApicMode::XApic,
            xapic_id: config.id as u8,
            tpr: 0,
            xapic_ldr: 0,
            dfr: u32::MAX,
            svr: 0xFF,
            isr: VectorBitmap::default(),
            tmr: VectorBitmap::default(),
            irr: VectorBitmap::default(),
            esr: 0,
            logged_errors: 0,
            icr: 0,
            lvt: [LVT_MASK; LVT_ENTRIES],
            timer: ApicTimer::default(),
            lint: [false; 2],
        }
    }

    /// Power-on or RESET. The levels of the LINT pins are not the APIC's to
    /// reset.
    pub fn reset(&mut self) {
        *self = Self { lint: self.lint, ..Self::new(self.config) };
    }

    /// INIT: everything but the mode, the base address and the APIC ID goes
    /// back to its power-on state (SDM volume 3A, section "Local APIC State
    /// After an INIT Reset").
    pub fn init_reset(&mut self) {
        *self = Self {
            base: self.base,
            mode: self.mode,
            xapic_id: self.xapic_id,
            lint: self.lint,
            ..Self::new(self.config)
        };
    }

    /// The state in which PC firmware hands the bootstrap processor over:
    /// software-enabled, LINT0 passing the 8259A's interrupts, LINT1 NMIs
    /// (MultiProcessor Specification, section "Virtual Wire Mode").
    pub fn enter_virtual_wire_mode(&mut self) {
        self.svr |= SVR_ENABLE;
        self.lvt[LvtEntry::Lint0.index()] = 7 << 8;
        self.lvt[LvtEntry::Lint1.index()] = 4 << 8;
    }

    /// The operating mode.
    pub fn mode(&self) -> ApicMode {
        self.mode
    }

    /// What the APIC was built with.
    pub fn config(&self) -> &LocalApicConfig {
        &self.config
    }

    /// The APIC ID that messages address in the present mode.
    pub fn id(&self) -> u32 {
        match self.mode {
            ApicMode::X2Apic => self.config.id,
            ApicMode::XApic | ApicMode::Disabled => u32::from(self.xapic_id),
        }
    }

    /// Guest physical address of the register page; `None` when there is none,
    /// because the APIC is disabled or in x2APIC mode.
    pub fn mmio_base(&self) -> Option<u64> {
        (self.mode == ApicMode::XApic).then_some(self.base & !(LOCAL_APIC_SIZE - 1))
    }

    /// Reads IA32_APIC_BASE (MSR 1BH).
    pub fn apic_base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE. Disabling the APIC loses its state, APIC ID
    /// changes by software included.
    ///
    /// # Errors
    /// Reserved bits and illegal mode transitions: #GP(0).
    pub fn write_apic_base(&mut self, value: u64) -> Result<Effect, AccessError> {
        let address_bits = u32::from(self.config.physical_address_bits);
        let beyond_memory = u64::MAX.checked_shl(address_bits).unwrap_or(0);
        let unsupported = if self.config.x2apic { 0 } else { BASE_X2APIC };
        if value & (BASE_RESERVED | beyond_memory | unsupported) != 0 {
            return Err(AccessError::ReservedBits { msr: IA32_APIC_BASE, value });
        }
        let old = self.mode;
        let Some(new) = ApicMode::from_base(value).filter(|&new| old.may_become(new)) else {
            return Err(AccessError::IllegalTransition { from: old, value });
        };
        if new == ApicMode::Disabled && old != ApicMode::Disabled {
            self.reset();
        }
        if new == ApicMode::X2Apic {
            // The xAPIC's destination half means nothing as a 32-bit ID.
            self.icr &= u64::from(u32::MAX);
        }
        self.base = value;
        self.mode = new;
        Ok(Effect::BaseChanged)
    }

    /// CR8: the task priority class, 0 to 15. It works in every mode.
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Writes CR8. Only bits 3:0 of `class` exist; the processor refuses the
    /// others with #GP before.
    pub fn set_cr8(&mut self, class: u8) {
        self.tpr = class << 4;
    }

    /// Whether the software-enable bit of the SVR is set.
    pub fn software_enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0
    }

    /// The processor priority register: below or at its class, interrupts wait.
    pub fn processor_priority(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0) & 0xF0;
        if self.tpr & 0xF0 >= in_service { self.tpr } else { in_service }
    }

    /// The vector that the processor would get now, if it takes interrupts.
    pub fn interrupt_pending(&self) -> Option<u8> {
        if self.mode == ApicMode::Disabled {
            return None;
        }
        let requested = self.irr.highest()?;
        (requested & 0xF0 > self.processor_priority() & 0xF0).then_some(requested)
    }

    /// Interrupt acknowledge: moves the pending interrupt from IRR to ISR and
    /// returns its vector. When there is none any more, because software
    /// raised the TPR or masked it meanwhile, returns the spurious vector and
    /// marks nothing in service.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(vector) = self.interrupt_pending() else {
            return self.svr as u8;
        };
        self.irr.clear(vector);
        self.isr.set(vector);
        vector
    }

    /// Accepts a fixed interrupt into the IRR. Returns whether it did: not
    /// while disabled, and not with an illegal vector, which is an error that
    /// the APIC logs.
    pub fn accept(&mut self, vector: u8, trigger: TriggerMode) -> bool {
        if self.mode == ApicMode::Disabled || !self.software_enabled() {
            return false;
        }
        if vector < 16 {
            self.log_error(esr::RECEIVE_ILLEGAL_VECTOR);
            return false;
        }
        self.irr.set(vector);
        match trigger {
            TriggerMode::Edge => self.tmr.clear(vector),
            TriggerMode::Level => self.tmr.set(vector),
        }
        true
    }

    /// Takes in a message that was routed here.
    pub fn receive(&mut self, message: &InterruptMessage) -> Reception {
        if self.mode == ApicMode::Disabled {
            return Reception::Dropped;
        }
        self.dispatch(message.delivery_mode, message.vector, message.trigger)
    }

    fn dispatch(&mut self, mode: DeliveryMode, vector: u8, trigger: TriggerMode) -> Reception {
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if self.accept(vector, trigger) {
                    Reception::Interrupt
                } else {
                    Reception::Dropped
                }
            }
            DeliveryMode::Smi => Reception::Smi,
            DeliveryMode::Nmi => Reception::Nmi,
            DeliveryMode::Init => Reception::Init,
            DeliveryMode::StartUp => Reception::StartUp(vector),
            DeliveryMode::ExtInt => Reception::ExtInt,
            DeliveryMode::Reserved => Reception::Dropped,
        }
    }

    /// A local interrupt source fires: the performance counters, the thermal
    /// sensor. (Timer, errors and the LINT pins come by their own ways.)
    pub fn raise_local(&mut self, entry: LvtEntry) -> Reception {
        let lvt = self.lvt[entry.index()];
        if self.mode == ApicMode::Disabled || lvt & LVT_MASK != 0 {
            return Reception::Dropped;
        }
        if entry == LvtEntry::PerformanceCounter {
            // SDM volume 3A, "Local Vector Table": handling one sets the mask.
            self.lvt[entry.index()] |= LVT_MASK;
        }
        let mode = match entry {
            LvtEntry::Timer | LvtEntry::Error => DeliveryMode::Fixed,
            LvtEntry::ThermalSensor
            | LvtEntry::PerformanceCounter
            | LvtEntry::Lint0
            | LvtEntry::Lint1 => DeliveryMode::from_bits(lvt >> 8),
        };
        // Only LINT0 knows level interrupts, and only fixed ones.
        let level = entry == LvtEntry::Lint0 && lvt & LVT_LEVEL != 0 && mode == DeliveryMode::Fixed;
        if level && lvt & LVT_REMOTE_IRR != 0 {
            return Reception::Dropped;
        }
        let trigger = if level { TriggerMode::Level } else { TriggerMode::Edge };
        let reception = self.dispatch(mode, lvt as u8, trigger);
        if level && reception == Reception::Interrupt {
            self.lvt[entry.index()] |= LVT_REMOTE_IRR;
        }
        reception
    }

    /// Sets the level of LINT0 (`pin` 0) or LINT1 (any other `pin`). The
    /// polarity bit of the LVT is stored but has no effect: `level` is whether
    /// the board asserts the line, however it is wired.
    pub fn set_lint(&mut self, pin: u8, level: bool) -> Reception {
        let (index, entry) = match pin {
            0 => (0, LvtEntry::Lint0),
            _ => (1, LvtEntry::Lint1),
        };
        let rising = level && !self.lint[index];
        self.lint[index] = level;
        if !rising {
            return Reception::Dropped;
        }
        if self.mode == ApicMode::Disabled {
            return match entry {
                LvtEntry::Lint0 => Reception::ExtInt,
                _ => Reception::Nmi,
            };
        }
        self.raise_local(entry)
    }

    /// Whether the processor sees the 8259A's INTR: LINT0 is unmasked in
    /// ExtINT mode, or the APIC is globally disabled.
    pub fn extint_accepted(&self) -> bool {
        let lint0 = self.lvt[LvtEntry::Lint0.index()];
        self.mode == ApicMode::Disabled
            || lint0 & LVT_MASK == 0 && DeliveryMode::from_bits(lint0 >> 8) == DeliveryMode::ExtInt
    }

    /// End of interrupt: the highest interrupt in service is done. Returns its
    /// vector if that must be broadcast to the I/O APICs.
    pub fn eoi(&mut self) -> Option<u8> {
        let vector = self.isr.highest()?;
        self.isr.clear(vector);
        if !self.tmr.contains(vector) {
            return None;
        }
        let lint0 = &mut self.lvt[LvtEntry::Lint0.index()];
        if *lint0 & LVT_REMOTE_IRR != 0 && *lint0 as u8 == vector {
            *lint0 &= !LVT_REMOTE_IRR;
            self.sample_lint0();
        }
        (self.svr & SVR_SUPPRESS_EOI_BROADCAST == 0).then_some(vector)
    }

    /// Re-injects a level-triggered LINT0 that is still asserted.
    pub(super) fn sample_lint0(&mut self) {
        let lvt = self.lvt[LvtEntry::Lint0.index()];
        let level_fixed = lvt & LVT_LEVEL != 0
            && DeliveryMode::from_bits(lvt >> 8) == DeliveryMode::Fixed
            && lvt & LVT_REMOTE_IRR == 0;
        if self.lint[0] && level_fixed {
            let _ = self.raise_local(LvtEntry::Lint0);
        }
    }

    /// Logs errors for the ESR. The first one since software wrote the ESR
    /// raises the error interrupt.
    pub(super) fn log_error(&mut self, bits: u32) {
        let armed = self.logged_errors == 0;
        self.logged_errors |= bits;
        if armed {
            let _ = self.raise_local(LvtEntry::Error);
        }
    }

    pub(super) fn timer_mode(&self) -> TimerMode {
        TimerMode::from_lvt(self.lvt[LvtEntry::Timer.index()])
    }

    /// Brings the timer up to `now`. Returns whether its interrupt was raised.
    pub fn tick(&mut self, now: Now) -> bool {
        self.timer.advance(self.timer_mode(), now)
            && self.raise_local(LvtEntry::Timer) == Reception::Interrupt
    }

    /// When [`LocalApic::tick`] must be called; `None` while the timer stands
    /// or could not interrupt: a masked timer runs on without attention.
    pub fn next_deadline(&self) -> Option<Deadline> {
        if self.mode == ApicMode::Disabled || self.lvt[LvtEntry::Timer.index()] & LVT_MASK != 0 {
            return None;
        }
        self.timer.next_deadline(self.timer_mode())
    }

    /// Reads IA32_TSC_DEADLINE (MSR 6E0H): zero unless armed.
    pub fn tsc_deadline(&mut self, now: Now) -> u64 {
        let _ = self.tick(now);
        self.timer.tsc_deadline()
    }

    /// Writes IA32_TSC_DEADLINE. Zero disarms; a value that has passed fires
    /// at once. Ignored unless the timer is in TSC-deadline mode.
    pub fn write_tsc_deadline(&mut self, value: u64, now: Now) -> Effect {
        let _ = self.tick(now);
        self.timer.set_tsc_deadline(self.timer_mode(), value);
        let _ = self.tick(now);
        Effect::TimerChanged
    }

    /// The logical destination register in the present mode: software's in
    /// xAPIC mode, derived from the ID in x2APIC mode.
    pub(super) fn logical_destination(&self) -> u32 {
        match self.mode {
            ApicMode::X2Apic => (self.config.id >> 4) << 16 | 1 << (self.config.id & 0xF),
            ApicMode::XApic | ApicMode::Disabled => self.xapic_ldr,
        }
    }

    /// What message routing needs to know of this APIC.
    pub fn address(&self) -> ApicAddress {
        ApicAddress {
            mode: self.mode,
            id: self.id(),
            initial_id: self.config.id,
            logical_destination: self.logical_destination(),
            destination_format: self.dfr,
            priority: self.processor_priority(),
            software_enabled: self.software_enabled(),
        }
    }
}
