use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::bus::value_of;
use crate::clock::{ManualClock, NS_PER_SECOND, ProbeTimer};
use crate::interrupt::ProbeIrq;

struct Board {
    clock: Arc<ManualClock>,
    sci: Arc<ProbeIrq>,
    timer: Arc<ProbeTimer>,
    changes: Arc<Mutex<Vec<PowerChange>>>,
    pm: AcpiPmDevice,
}

impl Board {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(0));
        let sci = Arc::new(ProbeIrq::new());
        let timer = Arc::new(ProbeTimer::new());
        let changes = Arc::new(Mutex::new(Vec::new()));
        let noted = changes.clone();
        let pm = AcpiPmDevice::new(
            clock.clone(),
            Box::new(sci.clone()),
            Box::new(timer.clone()),
            Box::new(move |change| noted.lock().unwrap().push(change)),
        );
        Self { clock, sci, timer, changes, pm }
    }

    fn inw(&mut self, offset: u64) -> u16 {
        let mut data = [0; 2];
        self.pm.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    fn outw(&mut self, offset: u64, value: u16) {
        self.pm.write(offset, &value.to_le_bytes());
    }

    /// What has happened to the power since the last call.
    fn changes(&self) -> Vec<PowerChange> {
        std::mem::take(&mut *self.changes.lock().unwrap())
    }

    fn timer(&mut self) -> u32 {
        let mut data = [0; 4];
        self.pm.read(PM_TIMER, &mut data);
        value_of(&data) as u32
    }
}

#[test]
fn smi_commands_switch_acpi_mode() {
    let mut board = Board::new();
    assert_eq!(board.inw(PM1A_CONTROL), 0);
    board.pm.write(SMI_COMMAND_PORT, &[ACPI_ENABLE, 0x55]);
    assert_eq!(board.inw(PM1A_CONTROL), 1);
    assert_eq!(board.inw(SMI_COMMAND_PORT), 0x55f1);
    board.pm.write(SMI_COMMAND_PORT, &[0x77]);
    assert_eq!(board.inw(PM1A_CONTROL), 1);
    board.pm.write(SMI_COMMAND_PORT, &[ACPI_DISABLE]);
    assert_eq!(board.inw(PM1A_CONTROL), 0);
    board.pm.enable_acpi();
    assert_eq!(board.inw(PM1A_CONTROL), 1);
}

#[test]
fn the_power_button_raises_sci_until_it_is_cleared() {
    let mut board = Board::new();
    board.pm.press_power_button();
    assert_eq!(board.inw(PM1A_EVENT), 0x100);
    board.outw(PM1A_EVENT + 2, 0x100);
    assert!(!board.sci.level(), "legacy mode has no SCI");
    board.pm.enable_acpi();
    assert!(board.sci.level());
    board.outw(PM1A_EVENT, 0x0001);
    assert!(board.sci.level());
    board.outw(PM1A_EVENT, 0x0100);
    assert!(!board.sci.level());
    assert_eq!(board.inw(PM1A_EVENT), 0);
}

#[test]
fn events_need_their_enable_bit() {
    let mut board = Board::new();
    board.pm.enable_acpi();
    board.pm.release_global_lock();
    board.pm.press_power_button();
    assert!(!board.sci.level());
    board.outw(PM1A_EVENT + 2, 0x0020);
    assert!(board.sci.level());
    board.pm.write(PM1A_EVENT, &[0x20]);
    assert!(!board.sci.level());
    board.pm.write(PM1A_EVENT + 3, &[0x01]);
    assert!(board.sci.level());
    assert_eq!(board.inw(PM1A_EVENT + 2), 0x0120);
    board.outw(PM1A_EVENT + 2, 0xffff);
    assert_eq!(board.inw(PM1A_EVENT + 2), 0x0521, "only events that exist can be enabled");
}

#[test]
fn general_purpose_events() {
    let mut board = Board::new();
    board.pm.enable_acpi();
    board.outw(GPE0 + 2, 0x8002);
    board.pm.raise_gpe(0);
    board.pm.raise_gpe(16);
    assert!(!board.sci.level());
    board.pm.raise_gpe(15);
    assert!(board.sci.level());
    assert_eq!(board.inw(GPE0), 0x8001);
    board.outw(GPE0, 0x8000);
    assert_eq!((board.inw(GPE0), board.inw(GPE0 + 2)), (1, 0x8002));
    assert!(!board.sci.level());
}

#[test]
fn sleep_type_0_powers_off() {
    let mut board = Board::new();
    board.outw(PM1A_CONTROL, 0x0001);
    assert_eq!(board.changes(), []);
    // Type 2 is ignored, and SLP_EN reads as 0.
    board.outw(PM1A_CONTROL, 0x2801);
    assert_eq!(board.changes(), []);
    assert_eq!(board.inw(PM1A_CONTROL), 0x0801);
    board.outw(PM1A_CONTROL, 0x2001);
    assert_eq!(board.changes(), [PowerChange::Off]);
    // The high byte alone does it too.
    board.pm.write(PM1A_CONTROL + 1, &[0x20]);
    assert_eq!(board.changes(), [PowerChange::Off]);
    assert!(board.pm.state().sci_enabled());
}

#[test]
fn an_enabled_alarm_ends_sleep_type_1() {
    let mut board = Board::new();
    board.outw(PM1A_CONTROL, 0x2401);
    assert_eq!(board.changes(), [PowerChange::Suspend]);
    board.pm.rtc_alarm();
    assert_eq!((board.changes(), board.inw(PM1A_EVENT)), (vec![], 0x0400));
    board.outw(PM1A_EVENT, 0x0400);
    board.outw(PM1A_EVENT + 2, 0x0400);
    assert_eq!(board.changes(), []);
    board.pm.rtc_alarm();
    assert_eq!((board.changes(), board.inw(PM1A_EVENT)), (vec![PowerChange::Wake], 0x8400));
    // Once; and the bit that says so is cleared as the others are.
    board.pm.rtc_alarm();
    board.outw(PM1A_EVENT, 0x8000);
    assert_eq!((board.changes(), board.inw(PM1A_EVENT)), (vec![], 0x0400));
}

#[test]
fn the_power_button_ends_sleep_though_it_is_not_enabled() {
    let mut board = Board::new();
    // Not one that was pressed before.
    board.pm.press_power_button();
    board.outw(PM1A_CONTROL, 0x2401);
    assert_eq!(board.changes(), [PowerChange::Suspend]);
    board.pm.press_power_button();
    assert_eq!((board.changes(), board.inw(PM1A_EVENT)), (vec![PowerChange::Wake], 0x8100));
    board.pm.press_power_button();
    board.outw(PM1A_CONTROL, 0x2401);
    assert_eq!(board.changes(), [PowerChange::Suspend]);
}

#[test]
fn a_general_purpose_event_ends_sleep() {
    let mut board = Board::new();
    board.outw(GPE0 + 2, 4);
    board.outw(PM1A_CONTROL, 0x2401);
    board.pm.raise_gpe(1);
    assert_eq!(board.changes(), [PowerChange::Suspend]);
    board.pm.raise_gpe(2);
    assert_eq!(board.changes(), [PowerChange::Wake]);
}

#[test]
fn what_is_up_already_ends_sleep_at_once() {
    let mut board = Board::new();
    board.pm.rtc_alarm();
    board.outw(PM1A_EVENT + 2, 0x0400);
    board.outw(PM1A_CONTROL, 0x2401);
    assert_eq!(board.changes(), [PowerChange::Suspend, PowerChange::Wake]);
}

#[test]
fn the_timer_does_not_end_sleep() {
    let mut board = Board::new();
    board.pm.enable_acpi();
    board.outw(PM1A_EVENT + 2, 0x0001);
    board.outw(PM1A_CONTROL, 0x2401);
    board.clock.set(3 * NS_PER_SECOND);
    board.pm.timer_expired(3 * NS_PER_SECOND);
    assert_eq!((board.changes(), board.inw(PM1A_EVENT)), (vec![PowerChange::Suspend], 1));
}

#[test]
fn the_timer_counts_24_bits() {
    let mut board = Board::new();
    assert_eq!(board.timer(), 0);
    board.clock.set(NS_PER_SECOND);
    assert_eq!(board.timer(), 3_579_545);
    board.clock.set(5 * NS_PER_SECOND);
    assert_eq!(board.timer(), (5 * 3_579_545) & 0xff_ffff);
    let mut byte = [0];
    board.pm.read(PM_TIMER + 1, &mut byte);
    assert_eq!(u32::from(byte[0]), (board.timer() >> 8) & 0xff);
    board.outw(PM_TIMER, 0);
    assert_ne!(board.timer(), 0, "read-only");
}

#[test]
fn the_timer_carry_raises_sci_on_both_halves() {
    let mut board = Board::new();
    board.pm.enable_acpi();
    board.outw(PM1A_EVENT + 2, 0x0001);
    for carry in 1..4 {
        let deadline = board.timer.deadline().unwrap();
        assert_eq!(deadline, ticks_to_ns(carry << 23, PM_TIMER_HZ));
        board.clock.set(deadline);
        board.pm.timer_expired(deadline);
        assert!(board.sci.level());
        assert_eq!(board.timer.deadline(), None, "no alarm while the status is up");
        board.outw(PM1A_EVENT, 0x0001);
        assert!(!board.sci.level());
    }
    // Without the enable bit the status rises all the same.
    board.outw(PM1A_EVENT + 2, 0);
    assert_eq!(board.timer.deadline(), None);
    board.clock.advance(3 * NS_PER_SECOND);
    assert_eq!(board.inw(PM1A_EVENT), 1);
}

#[test]
fn a_device_made_late_starts_without_events() {
    let clock = Arc::new(ManualClock::new(0));
    clock.set(60 * NS_PER_SECOND);
    let sci = Box::new(crate::interrupt::UnconnectedIrq);
    let timer = Box::new(crate::clock::UnconnectedTimer);
    let mut pm = AcpiPmDevice::new(clock, sci, timer, Box::new(|_| {}));
    let mut data = [0xff; 4];
    pm.read(PM1A_EVENT, &mut data);
    assert_eq!(data, [0; 4]);
}

#[test]
fn restore_drives_sci() {
    let mut board = Board::new();
    board.pm.enable_acpi();
    board.outw(PM1A_EVENT + 2, 0x0100);
    board.pm.press_power_button();
    let saved = serde_json::to_string(board.pm.state()).unwrap();
    let mut other = Board::new();
    other.pm.restore(serde_json::from_str(&saved).unwrap());
    assert!(other.sci.level());
    assert_eq!(other.pm.state(), board.pm.state());
}

proptest! {
    #[test]
    fn random_use_keeps_sci_true(
        accesses in prop::collection::vec(
            (0u64..0x44, any::<u32>(), 1usize..5, any::<bool>(), 0u64..3_000_000_000), 0..100),
    ) {
        let mut board = Board::new();
        board.pm.enable_acpi();
        for (offset, value, len, write, ns) in accesses {
            board.clock.advance(ns);
            let mut data = value.to_le_bytes();
            if write {
                board.pm.write(offset, &data[..len]);
                prop_assert_eq!(board.sci.level(), board.pm.state().sci());
            } else {
                board.pm.read(offset, &mut data[..len]);
            }
            prop_assert!(board.timer() <= 0xff_ffff);
        }
    }
}
