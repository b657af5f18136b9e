//! Firmware's debug port, 0x402: lines for the log.

use std::io::{self, Write};

/// Longest line kept.
const LINE: usize = 512;

/// Collects lines and passes them to `tracing` at debug level, target `firmware`.
#[derive(Default)]
pub(crate) struct LogLines(Vec<u8>);

impl LogLines {
    fn end_line(&mut self) {
        if !self.0.is_empty() {
            tracing::debug!(target: "firmware", "{}", String::from_utf8_lossy(&self.0));
            self.0.clear();
        }
    }
}

impl Write for LogLines {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        for &byte in data {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ => self.0.push(byte),
            }
            if self.0.len() >= LINE {
                self.end_line();
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
