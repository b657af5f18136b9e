//! The power management registers as a pure register machine.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::{
    ACPI_DISABLE, ACPI_ENABLE, GPE0, PM_TIMER, PM1A_CONTROL, PM1A_EVENT, SLEEP_TYPE_S3,
    SLEEP_TYPE_S5, SMI_COMMAND_PORT, SMI_STATUS_PORT,
};

bitflags! {
    /// PM1 status and enable registers.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Pm1: u16 {
        /// The PM timer's most significant bit has changed.
        const TIMER = 1 << 0;
        /// The firmware has released the global lock.
        const GLOBAL_LOCK = 1 << 5;
        const POWER_BUTTON = 1 << 8;
        const RTC = 1 << 10;
        /// What ends S3; the timer and the global lock are of no use there.
        const WAKING = Self::POWER_BUTTON.bits() | Self::RTC.bits();
    }
}

/// PM1 status: the machine has come out of a sleep state. It has no enable bit.
const WAK_STS: u16 = 1 << 15;
/// PM1 control: events raise SCI (rather than SMI, which this machine does not have).
const SCI_EN: u16 = 1 << 0;
/// PM1 control: bus master requests wake the CPU. Kept, without effect.
const BM_RLD: u16 = 1 << 1;
const SLP_TYP_SHIFT: u16 = 10;
const SLP_TYP: u16 = 7 << SLP_TYP_SHIFT;
/// PM1 control: enter the sleep state that SLP_TYP names. Write-only.
const SLP_EN: u16 = 1 << 13;

/// Bits of the PM timer.
const TIMER_MASK: u64 = 0xff_ffff;
/// Ticks between changes of the timer's most significant bit: 2.34 seconds.
const CARRY_TICKS: u64 = 1 << 23;

/// The registers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiPm {
    pm1_status: u16,
    pm1_enable: u16,
    pm1_control: u16,
    gpe0_status: u16,
    gpe0_enable: u16,
    smi_command: u8,
    smi_status: u8,
    /// In S3: the next enabled event wakes, and so does the power button.
    #[serde(default)]
    asleep: bool,
    /// The power button was pressed meanwhile.
    #[serde(default)]
    pressed: bool,
    /// Tick of the PM timer up to which its status bit knows.
    last_tick: u64,
}

/// What a register write asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepRequest {
    /// S5: power off.
    SoftOff,
    /// S3: the CPUs lose their state, RAM keeps its content, until [`AcpiPm::wake`] says so.
    SuspendToRam,
    /// A type that the machine does not offer, and ignores.
    Unsupported(
        /// SLP_TYP, 0 to 7.
        u8,
    ),
}

impl AcpiPm {
    /// The registers after reset, in legacy (not ACPI) mode.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the timer's status bit if its most significant bit has changed by tick `now` of
    /// [`super::PM_TIMER_HZ`].
    pub fn settle(&mut self, now: u64) {
        if now / CARRY_TICKS > self.last_tick / CARRY_TICKS {
            self.pm1_status |= Pm1::TIMER.bits();
        }
        self.last_tick = now;
    }

    /// The tick at which the timer raises SCI next, if it does. Call [`Self::settle`] first.
    pub fn next_carry(&self, now: u64) -> Option<u64> {
        let waits =
            self.sci_enabled() && self.pm1_enable & !self.pm1_status & Pm1::TIMER.bits() != 0;
        waits.then(|| (now / CARRY_TICKS + 1).saturating_mul(CARRY_TICKS))
    }

    /// Whether the machine is in ACPI mode.
    pub fn sci_enabled(&self) -> bool {
        self.pm1_control & SCI_EN != 0
    }

    /// The SCI output.
    pub fn sci(&self) -> bool {
        self.sci_enabled()
            && (self.pm1_status & self.pm1_enable != 0 || self.gpe0_status & self.gpe0_enable != 0)
    }

    /// The real-time clock's alarm goes off.
    pub fn raise_rtc(&mut self) {
        self.pm1_status |= Pm1::RTC.bits();
    }

    /// Ends S3 if an enabled event is up, or the power button was pressed, which needs no enable bit
    /// to wake (Intel 82801DB datasheet, table "Causes of Wake Events"). True once for each sleep.
    pub fn wake(&mut self) -> bool {
        let events = self.pm1_status & self.pm1_enable & Pm1::WAKING.bits();
        let enabled = events != 0 || self.gpe0_status & self.gpe0_enable != 0;
        let wakes = self.asleep && (enabled || self.pressed);
        if wakes {
            (self.asleep, self.pressed) = (false, false);
            self.pm1_status |= WAK_STS;
        }
        wakes
    }

    /// The power button goes down.
    pub fn press_power_button(&mut self) {
        self.pm1_status |= Pm1::POWER_BUTTON.bits();
        self.pressed = self.asleep;
    }

    /// The firmware releases the global lock (BIOS_RLS).
    pub fn release_global_lock(&mut self) {
        self.pm1_status |= Pm1::GLOBAL_LOCK.bits();
    }

    /// Raises general purpose event `event` (0 to 15); others do not exist.
    pub fn raise_gpe(&mut self, event: u8) {
        self.gpe0_status |= 1u16.checked_shl(event.into()).unwrap_or(0);
    }

    /// Reads the byte at `offset`: of the block, or of the SMI ports by their number. What is not
    /// a register reads as 0 inside the block.
    pub fn read(&mut self, offset: u64, now: u64) -> u8 {
        self.settle(now);
        let timer = now & TIMER_MASK;
        let (register, start) = match offset {
            SMI_COMMAND_PORT => return self.smi_command,
            SMI_STATUS_PORT => return self.smi_status,
            PM1A_EVENT..PM1A_CONTROL => {
                (u64::from(self.pm1_status) | (u64::from(self.pm1_enable) << 16), PM1A_EVENT)
            }
            PM1A_CONTROL..PM_TIMER => (self.pm1_control.into(), PM1A_CONTROL),
            PM_TIMER..GPE0 => (timer, PM_TIMER),
            GPE0..GPE0_END => {
                (u64::from(self.gpe0_status) | (u64::from(self.gpe0_enable) << 16), GPE0)
            }
            _ => return 0,
        };
        (register >> (8 * (offset - start))) as u8
    }

    /// Writes the byte at `offset`; returns what the write asks for.
    pub fn write(&mut self, offset: u64, value: u8, now: u64) -> Option<SleepRequest> {
        self.settle(now);
        // The byte's place in a 16-bit register.
        let shift = 8 * (offset & 1);
        let bits = u16::from(value) << shift;
        let lane = 0xff << shift;
        let replace =
            |register: u16, writable: u16| (register & !(lane & writable)) | (bits & writable);
        match offset {
            SMI_COMMAND_PORT => self.write_smi_command(value),
            SMI_STATUS_PORT => self.smi_status = value,
            PM1A_STATUS..PM1A_ENABLE => self.pm1_status &= !bits,
            PM1A_ENABLE..PM1A_CONTROL => {
                self.pm1_enable = replace(self.pm1_enable, Pm1::all().bits());
            }
            PM1A_CONTROL..PM1A_CONTROL_END => {
                self.pm1_control = replace(self.pm1_control, SCI_EN | BM_RLD | SLP_TYP);
                return (bits & SLP_EN != 0).then(|| self.sleep_request());
            }
            GPE0..GPE0_ENABLE => self.gpe0_status &= !bits,
            GPE0_ENABLE..GPE0_END => self.gpe0_enable = replace(self.gpe0_enable, 0xffff),
            _ => {}
        }
        None
    }

    fn sleep_request(&mut self) -> SleepRequest {
        match ((self.pm1_control & SLP_TYP) >> SLP_TYP_SHIFT) as u8 {
            SLEEP_TYPE_S5 => SleepRequest::SoftOff,
            SLEEP_TYPE_S3 => {
                self.asleep = true;
                SleepRequest::SuspendToRam
            }
            other => SleepRequest::Unsupported(other),
        }
    }

    /// The commands that a BIOS's SMI handler would carry out.
    fn write_smi_command(&mut self, value: u8) {
        self.smi_command = value;
        match value {
            ACPI_ENABLE => self.pm1_control |= SCI_EN,
            ACPI_DISABLE => self.pm1_control &= !SCI_EN,
            _ => {}
        }
    }
}

const PM1A_STATUS: u64 = PM1A_EVENT;
const PM1A_ENABLE: u64 = PM1A_EVENT + 2;
const PM1A_CONTROL_END: u64 = PM1A_CONTROL + 2;
const GPE0_ENABLE: u64 = GPE0 + 2;
const GPE0_END: u64 = GPE0 + 4;
