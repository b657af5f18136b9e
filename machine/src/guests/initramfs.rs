//! A small Linux user space in an initramfs: busybox and an `/init` script.

use super::cpio::{Archive, CpioError, Device};

/// What the guest does once its file systems are mounted.
#[derive(Clone, Copy, Debug)]
enum Task<'a> {
    Shell,
    Script(&'a str),
}

/// An initramfs to be built.
///
/// The guest powers off when its shell or its script ends.
#[derive(Clone, Debug)]
pub struct Initramfs<'a> {
    busybox: &'a [u8],
    task: Task<'a>,
    files: Vec<(&'a str, u32, &'a [u8])>,
}

/// Mounts what every program expects. The applets get links, so that scripts
/// find them whatever the shell they run in was built with.
const PROLOGUE: &str = "\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /root /run
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=linux
cd /root
";

/// The shell has a session and a controlling terminal of its own, for job
/// control; the terminal is the one that the kernel calls its console.
const SHELL: &str = "\
echo
echo \"Linux $(uname -r) $(uname -m). The machine powers off when this shell ends.\"
export PS1='\\w # '
setsid cttyhack sh
poweroff -f
";

const SCRIPT: &str = "\
sh /script
poweroff -f
";

impl<'a> Initramfs<'a> {
    /// A guest with an interactive shell on its console.
    pub fn shell(busybox: &'a [u8]) -> Self {
        Self { busybox, task: Task::Shell, files: Vec::new() }
    }

    /// A guest that runs the shell script `script`.
    pub fn script(busybox: &'a [u8], script: &'a str) -> Self {
        Self { busybox, task: Task::Script(script), files: Vec::new() }
    }

    /// Adds a file with permission bits `mode`, such as a program to run.
    #[must_use]
    pub fn file(mut self, path: &'a str, mode: u32, content: &'a [u8]) -> Self {
        self.files.push((path, mode, content));
        self
    }

    /// Builds the cpio archive, uncompressed.
    ///
    /// # Errors
    /// [`CpioError`] if an added file has an invalid path or one that is taken.
    pub fn build(&self) -> Result<Vec<u8>, CpioError> {
        let mut archive = Archive::new();
        // The kernel opens /dev/console for init before init can mount /dev.
        archive.device("dev/console", 0o600, Device::Character(5, 1))?;
        archive.device("dev/null", 0o666, Device::Character(1, 3))?;
        archive.file("bin/busybox", 0o755, self.busybox)?;
        let rest = match self.task {
            Task::Shell => SHELL,
            Task::Script(script) => {
                archive.file("script", 0o755, script.as_bytes())?;
                SCRIPT
            }
        };
        archive.file("init", 0o755, format!("{PROLOGUE}{rest}").as_bytes())?;
        for (path, mode, content) in &self.files {
            archive.file(path, *mode, content)?;
        }
        Ok(archive.finish())
    }
}
