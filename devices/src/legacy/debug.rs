//! Ports that only developers look at.
//!
//! | port | device | read | write |
//! |---|---|---|---|
//! | 0x80 | POST code latch | the last code | a code; also every kernel's idea of a short delay |
//! | 0xE9 | Bochs debug console | 0xE9, which says that it is there | a character |
//! | 0xF4 | `isa-debug-exit`, as QEMU has it | 0 | value `v` ends the machine with status `(v << 1) | 1` |

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, value_of};

/// The POST code port, for [`crate::Bus::insert_ports`].
pub const POST_CODE_PORTS: &[(u16, u16)] = &[(0x80, 1)];
/// The debug console's port, for [`crate::Bus::insert_ports`].
pub const DEBUG_CONSOLE_PORTS: &[(u16, u16)] = &[(0xe9, 1)];
/// The debug exit's ports, for [`crate::Bus::insert_ports`].
pub const DEBUG_EXIT_PORTS: &[(u16, u16)] = &[(0xf4, 4)];

/// What a read of the debug console returns.
const DEBUG_CONSOLE_PRESENT: u8 = 0xe9;

/// The POST code latch; its own attachment, since it has no outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostCode {
    code: u8,
}

impl PostCode {
    /// The code last written, 0 after power-on.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The state to save.
    pub fn state(&self) -> &Self {
        self
    }

    /// Takes a saved state.
    pub fn restore(&mut self, state: Self) {
        *self = state;
    }
}

impl BusDevice for PostCode {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(byte) = data.first_mut() {
            *byte = self.code;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let Some(&code) = data.first() {
            self.code = code;
        }
    }
}

/// The debug console. It has no state to save.
pub struct DebugConsole {
    output: Box<dyn Write + Send>,
}

impl DebugConsole {
    /// Characters go to `output`, flushed at each newline; its errors are dropped.
    pub fn new(output: Box<dyn Write + Send>) -> Self {
        Self { output }
    }
}

impl BusDevice for DebugConsole {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(byte) = data.first_mut() {
            *byte = DEBUG_CONSOLE_PRESENT;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let Some(&byte) = data.first() {
            let written = self.output.write_all(&[byte]);
            if written.is_ok() && byte == b'\n' {
                // Nobody to tell: see `new`.
                let _ = self.output.flush();
            }
        }
    }
}

/// The exit port.
pub struct DebugExit {
    exit: Box<dyn Fn(u32) + Send>,
}

impl DebugExit {
    /// `exit` hears the exit status, an odd number. It is called with the device locked: note the
    /// request, act later.
    pub fn new(exit: Box<dyn Fn(u32) + Send>) -> Self {
        Self { exit }
    }
}

impl BusDevice for DebugExit {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let value = value_of(data) as u32;
        (self.exit)((value << 1) | 1);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::Bus;
    use crate::bus::lock;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_post_code_is_latched() {
        let bus = Bus::new();
        let post = Arc::new(Mutex::new(PostCode::default()));
        bus.insert_ports(POST_CODE_PORTS, post.clone()).unwrap();
        bus.write(0x80, &[0x42, 0x43]);
        assert_eq!(lock(&post).code(), 0x42);
        let mut data = [0; 2];
        bus.read(0x80, &mut data);
        assert_eq!(data, [0x42, 0xff]);
        let saved = serde_json::to_string(lock(&post).state()).unwrap();
        let mut other = PostCode::default();
        other.restore(serde_json::from_str(&saved).unwrap());
        assert_eq!(other.code(), 0x42);
    }

    #[test]
    fn the_console_says_that_it_is_there_and_prints() {
        let bus = Bus::new();
        let sink = Sink::default();
        let console = Arc::new(Mutex::new(DebugConsole::new(Box::new(sink.clone()))));
        bus.insert_ports(DEBUG_CONSOLE_PORTS, console).unwrap();
        let mut data = [0; 4];
        bus.read(0xe9, &mut data);
        assert_eq!(data, [0xe9, 0xff, 0xff, 0xff]);
        for byte in b"hi\n" {
            bus.write(0xe9, &[*byte]);
        }
        assert_eq!(*lock(&sink.0), b"hi\n");
    }

    #[test]
    fn exit_status_is_odd_in_every_width() {
        let bus = Bus::new();
        let statuses = Arc::new(Mutex::new(Vec::new()));
        let log = statuses.clone();
        let exit = DebugExit::new(Box::new(move |status| lock(&log).push(status)));
        bus.insert_ports(DEBUG_EXIT_PORTS, Arc::new(Mutex::new(exit))).unwrap();
        bus.write(0xf4, &[0x10]);
        bus.write(0xf4, &[0x34, 0x12]);
        bus.write(0xf4, &0xffff_ffffu32.to_le_bytes());
        assert_eq!(*lock(&statuses), [0x21, 0x2469, 0xffff_ffff]);
        let mut data = [0xff; 4];
        bus.read(0xf4, &mut data);
        assert_eq!(data, [0; 4]);
    }
}
