//! The log, on standard error: what a user should know and no command asked for, such as an image that
//! cannot be written.

use std::io::{self, IsTerminal, Write};
use tracing_subscriber::filter::LevelFilter;

/// Standard error. A terminal may be in raw mode, where a new line does not begin at the left.
struct Lines {
    terminal: bool,
}

impl Write for Lines {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        if self.terminal {
            for line in data.split_inclusive(|&byte| byte == b'\n') {
                match line.strip_suffix(b"\n") {
                    Some(line) => stderr.write_all(&[line, b"\r\n"].concat())?,
                    None => stderr.write_all(line)?,
                }
            }
        } else {
            stderr.write_all(data)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Shows errors from now on.
pub(crate) fn install() {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::ERROR)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(|| Lines { terminal: io::stderr().is_terminal() })
        .init();
}
