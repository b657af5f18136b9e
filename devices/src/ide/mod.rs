//! The PIIX's IDE controller: two channels of two drives, ATA disks and ATAPI CD-ROMs, with PIO and
//! bus-master DMA.
//!
//! | port (second channel) | read | write |
//! |---|---|---|
//! | 0x1F0 (0x170) | data, 16 or 32 bits | data |
//! | 0x1F1 | error | features |
//! | 0x1F2 | sector count, ATAPI interrupt reason | sector count |
//! | 0x1F3 to 0x1F5 | LBA low, mid, high; ATAPI byte count in mid and high | the same |
//! | 0x1F6 | device | device: bit 4 selects the drive |
//! | 0x1F7 | status; takes the interrupt back | command |
//! | 0x3F6 (0x376) | alternate status | device control |
//!
//! | file | holds |
//! |---|---|
//! | `channel.rs` | the two drives' shared registers and interrupt, the bus attachment |
//! | `drive.rs` | one drive: task file, data phases |
//! | `disk.rs` | ATA commands of a disk |
//! | `cdrom.rs` | PACKET commands of a CD-ROM drive |
//! | `identify.rs` | what they say of themselves |
//! | `bus_master.rs` | BMIDE registers and PRD tables |
//! | `work.rs` | what drives ask their media for, and what follows from the answers |
//!
//! A command that needs the medium leaves the drive busy: the medium's thread carries the request
//! out, then goes on with the command and raises the interrupt. A reset does not wait for it; its
//! answer is dropped, and requests after the reset are made and carried out after it.
//!
//! Sources: ATA/ATAPI-6 (T13/1410D); INF-8090i (Mt. Fuji) for CD-ROM commands; Intel "Programming
//! Interface for Bus Master IDE Controller", revision 1.0.

mod bus_master;
mod cdrom;
mod channel;
mod disk;
mod drive;
mod identify;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod thread_tests;
mod work;

pub use bus_master::BusMasterPorts;
pub use channel::{Channel, ChannelState};
pub use drive::Media;

/// Ports of the first channel, for [`crate::Bus::insert_ports`].
pub const PRIMARY_PORTS: &[(u16, u16)] = &[(0x1f0, 8), (0x3f6, 1)];
/// Ports of the second channel.
pub const SECONDARY_PORTS: &[(u16, u16)] = &[(0x170, 8), (0x376, 1)];
