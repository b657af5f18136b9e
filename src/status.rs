//! The exit statuses of `ringshift`, a promise to scripts.

use machine::StopReason;

/// The guest powered off, or rebooted under `--no-reboot`; or the user left.
pub(crate) const OK: u8 = 0;
/// `ringshift demo`: the guest did not do what it should.
pub(crate) const DEMO_FAILED: u8 = 1;
/// Bad usage, or a file that is unreadable or malformed. clap uses the same.
pub(crate) const USAGE: u8 = 2;
/// Triple fault.
pub(crate) const TRIPLE_FAULT: u8 = 3;
/// `ringshift check`: no guest can run on this host.
pub(crate) const UNUSABLE: u8 = 1;
/// `--timeout` passed, as timeout(1) has it.
pub(crate) const TIMEOUT: u8 = 124;

/// What `ringshift run --help` says about exit statuses.
pub(crate) const HELP: &str = "\
Exit status:
  0    the guest powered off, or reset under --no-reboot, or you left
  N    the guest wrote V to the isa-debug-exit port 0xF4: N = (V << 1) | 1
  2    bad usage, or a file that cannot be read or is no kernel
  3    triple fault: the post-mortem is on standard error
  124  the timeout passed";

/// The exit status for the end of a run. The host keeps the low 8 bits of a debug exit.
pub(crate) fn of(reason: &StopReason) -> u8 {
    match reason {
        StopReason::PowerOff | StopReason::Reset | StopReason::Quit => OK,
        StopReason::DebugExit(status) => *status as u8,
        StopReason::TripleFault(_) => TRIPLE_FAULT,
        StopReason::Timeout => TIMEOUT,
    }
}

/// The engines differ (`--lockstep`).
pub(crate) const DIFFERENT: u8 = 1;
