//! A program under observation: its output line by line with the time of each, and its end.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Without a line of output.
    pub(crate) silence: Duration,
    /// Altogether.
    pub(crate) total: Duration,
}

/// A line of output.
pub(crate) struct Line {
    /// Time since the program's start.
    pub(crate) at: Duration,
    pub(crate) text: String,
}

/// How a program ended.
pub(crate) enum End {
    Exit(ExitStatus),
    /// It was stopped after this much time without output.
    Silent(Duration),
    /// It was stopped after this much time altogether.
    TooLong(Duration),
}

/// Kills and reaps the program when the observer leaves, on whatever way.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command`, shows `on_line` every line of its standard output and standard error together
/// with the process identifier, and returns its wall time.
pub(crate) fn observe(
    mut command: Command,
    limits: Limits,
    mut on_line: impl FnMut(Line, u32),
) -> Result<(End, Duration)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = Guard(command.spawn().with_context(|| format!("cannot start {name}"))?);
    let lines = {
        let (sender, lines) = channel();
        if let Some(output) = child.0.stdout.take() {
            read(output, start, sender.clone());
        }
        if let Some(output) = child.0.stderr.take() {
            read(output, start, sender);
        }
        lines
    };
    let pid = child.0.id();
    let end = match follow(&lines, start, limits, |line| on_line(line, pid)) {
        Some(end) => end,
        // Both outputs are closed: nothing more to see than the end.
        None => End::Exit(child.0.wait()?),
    };
    Ok((end, start.elapsed()))
}

/// Passes lines on until there are no more, or no time.
fn follow(
    lines: &Receiver<Line>,
    start: Instant,
    limits: Limits,
    mut on_line: impl FnMut(Line),
) -> Option<End> {
    loop {
        let left = limits.total.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Some(End::TooLong(limits.total));
        }
        match lines.recv_timeout(left.min(limits.silence)) {
            Ok(line) => on_line(line),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if left < limits.silence => {}
            Err(RecvTimeoutError::Timeout) => return Some(End::Silent(limits.silence)),
        }
    }
}

fn read(output: impl Read + Send + 'static, start: Instant, lines: Sender<Line>) {
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match output.read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if lines.send(Line { at: start.elapsed(), text }).is_err() {
                return;
            }
        }
    });
}

/// CPU time that a process has used so far, of all its threads, to 10 ms.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the second field is in parentheses and may hold anything; utime and stime are
    // fields 14 and 15, in units of 1/100 s.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some(Duration::from_millis(10 * (user + system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { silence: Duration::from_secs(60), total: Duration::from_secs(60) };

    fn shell(script: &str, limits: Limits) -> (Vec<String>, End) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut lines = Vec::new();
        let (end, _) = observe(command, limits, |line, _| lines.push(line.text)).unwrap();
        lines.sort();
        (lines, end)
    }

    #[test]
    fn output_and_status_are_seen() {
        let (lines, end) = shell("echo one; echo two >&2; printf three; exit 3", LIMITS);
        assert_eq!(lines, ["one", "three", "two"]);
        assert!(matches!(end, End::Exit(status) if status.code() == Some(3)));
    }

    #[test]
    fn a_silent_program_is_stopped() {
        // Time enough for the shell to start, on a busy host too.
        let limits = Limits { silence: Duration::from_secs(3), ..LIMITS };
        let (lines, end) = shell("echo one; exec sleep 60", limits);
        assert_eq!(lines, ["one"]);
        assert!(matches!(end, End::Silent(_)));
    }

    #[test]
    fn a_program_that_takes_too_long_is_stopped() {
        let limits = Limits { total: Duration::from_millis(100), ..LIMITS };
        let (_, end) = shell("exec yes", limits);
        assert!(matches!(end, End::TooLong(_)));
    }

    #[test]
    fn cpu_time_is_read() {
        assert!(cpu_time(std::process::id()).is_some());
        assert!(cpu_time(u32::MAX).is_none());
    }
}
