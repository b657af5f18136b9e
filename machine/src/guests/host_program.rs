//! Running programs of the host that were written a moment ago.

use std::io;
use std::process::{Command, Output};
use std::time::Duration;

/// Attempts, and the time between two: five seconds altogether.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Runs `command` to its end, as [`Command::output`] does, where its program's file may have been
/// written by this process.
///
/// Another thread that starts a program at the same time forks, and its child has the file open for
/// writing for a moment longer: until then the host refuses to execute it (execve(2), ETXTBSY).
///
/// # Errors
/// The host's.
pub fn output_of_new(command: &mut Command) -> io::Result<Output> {
    for _ in 1..ATTEMPTS {
        match command.output() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
            result => return result,
        }
        std::thread::sleep(PAUSE);
    }
    command.output()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_that_somebody_still_writes_is_waited_for() {
        let path = std::env::temp_dir().join(format!("ringshift-new-{}", std::process::id()));
        fs::copy("/bin/true", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let writer = File::options().append(true).open(&path).unwrap();
        assert_eq!(
            Command::new(&path).output().unwrap_err().kind(),
            io::ErrorKind::ExecutableFileBusy
        );
        let closes = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(writer);
        });
        let output = output_of_new(&mut Command::new(&path));
        closes.join().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(output.unwrap().status.success());
    }
}
