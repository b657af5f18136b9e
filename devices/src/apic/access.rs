//! Register accesses: the memory-mapped page of xAPIC mode and the MSRs of
//! x2APIC mode.

use super::icr::{self, ICR_DELIVERY_STATUS, ICR_HIGH_XAPIC, ICR_LOW_WRITABLE};
use super::local::LocalApic;
use super::message::{DeliveryMode, Destination, InterruptMessage, TriggerMode};
use super::mode::{AccessError, ApicMode};
use super::outcome::Effect;
use super::registers::{
    DCR_WRITABLE, LVT_MASK, LvtEntry, Register, SVR_ENABLE, SVR_WRITABLE, VERSION, esr,
};
use super::timer::{Now, TimerMode};

/// First x2APIC MSR; the register number is the low byte.
const X2APIC_MSR_BASE: u32 = 0x800;

/// DFR bits 27:0 are reserved and read as ones.
const DFR_ONES: u32 = 0x0FFF_FFFF;

impl LocalApic {
    /// Reads from the register page at `offset` below
    /// [`LOCAL_APIC_SIZE`](super::LOCAL_APIC_SIZE).
    ///
    /// A register is the first four bytes of each 16; the SDM leaves accesses
    /// to the other bytes undefined, and here those bytes read as zero.
    /// Narrower reads within the register work. The page does not exist but in
    /// xAPIC mode: then every byte reads FFH, as from an empty bus.
    pub fn read_mmio(&mut self, offset: u64, data: &mut [u8], now: Now) {
        if self.mode() != ApicMode::XApic {
            data.fill(0xFF);
            return;
        }
        data.fill(0);
        let within = (offset & 0xF) as usize;
        if within >= 4 {
            return;
        }
        let value = self.read_xapic((offset & 0xFFF) as u32 >> 4, now);
        for (byte, value) in data.iter_mut().zip(&value.to_le_bytes()[within..]) {
            *byte = *value;
        }
    }

    /// Writes to the register page. Only aligned 32-bit stores reach a
    /// register, as the SDM demands of software; others are ignored.
    pub fn write_mmio(&mut self, offset: u64, data: &[u8], now: Now) -> Effect {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return Effect::None;
        };
        if self.mode() != ApicMode::XApic || offset & 0xF != 0 {
            return Effect::None;
        }
        self.write_xapic((offset & 0xFFF) as u32 >> 4, u32::from_le_bytes(bytes), now)
    }

    fn read_xapic(&mut self, number: u32, now: Now) -> u32 {
        match Register::from_number(number) {
            None | Some(Register::SelfIpi) => {
                self.log_error(esr::ILLEGAL_REGISTER_ADDRESS);
                0
            }
            Some(Register::Id) => u32::from(self.xapic_id) << 24,
            Some(Register::ArbitrationPriority) => u32::from(self.arbitration_priority()),
            Some(Register::DestinationFormat) => self.dfr,
            Some(Register::InterruptCommand) => self.icr as u32,
            Some(Register::InterruptCommandHigh) => (self.icr >> 32) as u32,
            Some(Register::RemoteRead | Register::EndOfInterrupt) => 0,
            Some(register) => self.read_common(register, now),
        }
    }

    fn write_xapic(&mut self, number: u32, value: u32, now: Now) -> Effect {
        match Register::from_number(number) {
            None | Some(Register::SelfIpi) => {
                self.log_error(esr::ILLEGAL_REGISTER_ADDRESS);
                Effect::None
            }
            Some(Register::Id) => {
                self.xapic_id = (value >> 24) as u8;
                Effect::None
            }
            Some(Register::LogicalDestination) => {
                self.xapic_ldr = value & 0xFF00_0000;
                Effect::None
            }
            Some(Register::DestinationFormat) => {
                self.dfr = value | DFR_ONES;
                Effect::None
            }
            Some(Register::InterruptCommandHigh) => {
                self.icr = self.icr & u64::from(u32::MAX) | u64::from(value) << 32 & ICR_HIGH_XAPIC;
                Effect::None
            }
            Some(Register::InterruptCommand) => {
                self.icr = self.icr & ICR_HIGH_XAPIC | u64::from(value) & ICR_LOW_WRITABLE;
                self.send_ipi(self.icr)
            }
            Some(register) => self.write_common(register, value, now),
        }
    }

    /// RDMSR of an address in 800H..8FFH.
    ///
    /// # Errors
    /// Outside x2APIC mode, and for registers that are reserved or write-only:
    /// #GP(0).
    pub fn read_msr(&mut self, msr: u32, now: Now) -> Result<u64, AccessError> {
        match self.x2apic_register(msr)? {
            Register::Id => Ok(u64::from(self.config.id)),
            Register::InterruptCommand => Ok(self.icr),
            Register::EndOfInterrupt | Register::SelfIpi => Err(AccessError::NoRegister(msr)),
            register => Ok(u64::from(self.read_common(register, now))),
        }
    }

    /// WRMSR to an address in 800H..8FFH.
    ///
    /// # Errors
    /// Outside x2APIC mode, for registers that are reserved or read-only, and
    /// for values with reserved bits set: #GP(0).
    pub fn write_msr(&mut self, msr: u32, value: u64, now: Now) -> Result<Effect, AccessError> {
        let register = self.x2apic_register(msr)?;
        let Some(writable) = self.x2apic_writable(register) else {
            return Err(AccessError::NoRegister(msr));
        };
        if value & !writable != 0 {
            return Err(AccessError::ReservedBits { msr, value });
        }
        Ok(match register {
            Register::InterruptCommand => {
                self.icr = value & !ICR_DELIVERY_STATUS;
                self.send_ipi(self.icr)
            }
            Register::SelfIpi => self.send(InterruptMessage {
                vector: value as u8,
                delivery_mode: DeliveryMode::Fixed,
                destination: Destination::Own,
                trigger: TriggerMode::Edge,
            }),
            register => self.write_common(register, value as u32, now),
        })
    }

    /// The register behind an x2APIC MSR, if it exists in x2APIC mode and that
    /// is the present mode.
    fn x2apic_register(&self, msr: u32) -> Result<Register, AccessError> {
        let register = msr
            .checked_sub(X2APIC_MSR_BASE)
            .filter(|_| self.mode() == ApicMode::X2Apic)
            .and_then(Register::from_number);
        match register {
            None
            | Some(
                Register::ArbitrationPriority
                | Register::RemoteRead
                | Register::DestinationFormat
                | Register::InterruptCommandHigh,
            ) => Err(AccessError::NoRegister(msr)),
            Some(register) => Ok(register),
        }
    }

    /// The bits that WRMSR may set in a register; `None` if it is read-only.
    fn x2apic_writable(&self, register: Register) -> Option<u64> {
        match register {
            Register::TaskPriority | Register::SelfIpi => Some(0xFF),
            // Zero is the only legal value of both.
            Register::EndOfInterrupt | Register::ErrorStatus => Some(0),
            Register::SpuriousVector => Some(u64::from(SVR_WRITABLE)),
            Register::InterruptCommand => Some(!icr::ICR_X2APIC_RESERVED),
            Register::Lvt(entry) => {
                Some(u64::from(entry.writable(self.config.tsc_deadline) | entry.read_only()))
            }
            Register::InitialCount => Some(u64::from(u32::MAX)),
            Register::DivideConfiguration => Some(u64::from(DCR_WRITABLE)),
            Register::Id
            | Register::Version
            | Register::ArbitrationPriority
            | Register::ProcessorPriority
            | Register::RemoteRead
            | Register::LogicalDestination
            | Register::DestinationFormat
            | Register::InService(_)
            | Register::TriggerMode(_)
            | Register::InterruptRequest(_)
            | Register::InterruptCommandHigh
            | Register::CurrentCount => None,
        }
    }

    /// Reads a register that is the same in both modes. The callers have dealt
    /// with the others, which read as zero here.
    fn read_common(&mut self, register: Register, now: Now) -> u32 {
        match register {
            Register::Version => VERSION,
            Register::TaskPriority => u32::from(self.tpr),
            Register::ProcessorPriority => u32::from(self.processor_priority()),
            Register::LogicalDestination => self.logical_destination(),
            Register::SpuriousVector => self.svr,
            Register::InService(index) => self.isr.word(index),
            Register::TriggerMode(index) => self.tmr.word(index),
            Register::InterruptRequest(index) => {
                let _ = self.tick(now);
                self.irr.word(index)
            }
            Register::ErrorStatus => self.esr,
            Register::Lvt(entry) => self.lvt[entry.index()],
            Register::InitialCount => self.timer.initial_count(),
            Register::CurrentCount => {
                let _ = self.tick(now);
                self.timer.current_count(now)
            }
            Register::DivideConfiguration => self.timer.divide_configuration(),
            Register::Id
            | Register::ArbitrationPriority
            | Register::EndOfInterrupt
            | Register::RemoteRead
            | Register::DestinationFormat
            | Register::InterruptCommand
            | Register::InterruptCommandHigh
            | Register::SelfIpi => 0,
        }
    }

    /// Writes a register that is the same in both modes. Writes to read-only
    /// registers get here in xAPIC mode and are ignored.
    fn write_common(&mut self, register: Register, value: u32, now: Now) -> Effect {
        match register {
            Register::TaskPriority => {
                self.tpr = value as u8;
                Effect::None
            }
            Register::EndOfInterrupt => self.eoi().map_or(Effect::None, Effect::Eoi),
            Register::SpuriousVector => {
                let _ = self.tick(now);
                self.svr = value & SVR_WRITABLE;
                if value & SVR_ENABLE == 0 {
                    for entry in &mut self.lvt {
                        *entry |= LVT_MASK;
                    }
                }
                Effect::TimerChanged
            }
            Register::ErrorStatus => {
                self.esr = self.logged_errors;
                self.logged_errors = 0;
                Effect::None
            }
            Register::Lvt(entry) => self.write_lvt(entry, value, now),
            Register::InitialCount => {
                let _ = self.tick(now);
                self.timer.set_initial_count(self.timer_mode(), value, now);
                Effect::TimerChanged
            }
            Register::DivideConfiguration => {
                let _ = self.tick(now);
                self.timer.set_divide_configuration(value, now);
                Effect::TimerChanged
            }
            Register::Id
            | Register::Version
            | Register::ArbitrationPriority
            | Register::ProcessorPriority
            | Register::RemoteRead
            | Register::LogicalDestination
            | Register::DestinationFormat
            | Register::InService(_)
            | Register::TriggerMode(_)
            | Register::InterruptRequest(_)
            | Register::InterruptCommand
            | Register::InterruptCommandHigh
            | Register::CurrentCount
            | Register::SelfIpi => Effect::None,
        }
    }

    fn write_lvt(&mut self, entry: LvtEntry, value: u32, now: Now) -> Effect {
        // A timer that ran out under the old entry must be judged by it.
        let _ = self.tick(now);
        let old = self.lvt[entry.index()];
        let mut new = value & entry.writable(self.config.tsc_deadline) | old & entry.read_only();
        if !self.software_enabled() {
            new |= LVT_MASK;
        }
        self.lvt[entry.index()] = new;
        match entry {
            LvtEntry::Timer => {
                self.timer.change_mode(TimerMode::from_lvt(old), TimerMode::from_lvt(new), now);
                Effect::TimerChanged
            }
            LvtEntry::Lint0 => {
                self.sample_lint0();
                Effect::None
            }
            LvtEntry::ThermalSensor
            | LvtEntry::PerformanceCounter
            | LvtEntry::Lint1
            | LvtEntry::Error => Effect::None,
        }
    }

    /// The arbitration priority register: the class of whatever is most urgent
    /// here, running, requested or allowed.
    fn arbitration_priority(&self) -> u8 {
        let requested = self.irr.highest().unwrap_or(0) & 0xF0;
        let in_service = self.isr.highest().unwrap_or(0) & 0xF0;
        let task = self.tpr & 0xF0;
        if task >= requested && task > in_service {
            self.tpr
        } else {
            task.max(in_service).max(requested)
        }
    }

    fn send_ipi(&mut self, icr: u64) -> Effect {
        match icr::decode(icr, self.mode() == ApicMode::X2Apic) {
            Some(message) => self.send(message),
            None => Effect::None,
        }
    }

    /// Sends a message; one to this APIC alone is taken in directly.
    fn send(&mut self, message: InterruptMessage) -> Effect {
        let own = message.destination == Destination::Own;
        match message.delivery_mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if message.vector < 16 {
                    let received = if own { esr::RECEIVE_ILLEGAL_VECTOR } else { 0 };
                    self.log_error(esr::SEND_ILLEGAL_VECTOR | received);
                    return Effect::None;
                }
                if own {
                    self.accept(message.vector, message.trigger);
                    return Effect::None;
                }
            }
            DeliveryMode::Smi
            | DeliveryMode::Nmi
            | DeliveryMode::Init
            | DeliveryMode::StartUp
            | DeliveryMode::ExtInt
            | DeliveryMode::Reserved => {}
        }
        Effect::Ipi(message)
    }
}
