//! Fetching Debian packages as an ordinary user, and taking one file out of each.
//!
//! apt does the work, with the host's sources and keys, so signatures are
//! checked as usual; but its lists and caches are in the user's cache, and both
//! amd64 and i386 packages are known to it there.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

/// The processor a package is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit.
    Amd64,
    /// 32-bit.
    I386,
}

impl Architecture {
    /// Debian's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::I386 => "i386",
        }
    }
}

/// A package, and the one file wanted of it.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    name: &'static str,
    architecture: Architecture,
    /// Beginning of the name of the package that has the file, if `name` only
    /// depends on it.
    depends_on: Option<&'static str>,
    /// Beginnings of the file's path in the package.
    paths: &'static [&'static str],
}

impl Package {
    /// A kernel, by the metapackage that depends on its current version.
    pub(super) const fn kernel(name: &'static str, architecture: Architecture) -> Self {
        let depends_on = Some("linux-image-");
        Self { name, architecture, depends_on, paths: &["boot/vmlinuz-"] }
    }

    /// Statically linked busybox.
    pub(super) const fn busybox(architecture: Architecture) -> Self {
        let paths = &["bin/busybox", "usr/bin/busybox"];
        Self { name: "busybox-static", architecture, depends_on: None, paths }
    }

    fn qualified(&self, name: &str) -> String {
        format!("{name}:{}", self.architecture.name())
    }
}

/// Files of one package, by their whole paths in it.
#[derive(Clone, Copy, Debug)]
pub struct FileSet {
    /// The package's name.
    pub name: &'static str,
    /// The processor it is built for; of no consequence for packages that suit all.
    pub architecture: Architecture,
    /// Paths in the package, without a slash in front. Their last parts differ.
    pub paths: &'static [&'static str],
}

/// Why a package's file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A program of the host is missing.
    #[error(
        "the program {0} was not found: fetching a guest needs a Debian host (or a container of one); a kernel and an initrd of your own can be run anywhere"
    )]
    NoProgram(&'static str),
    /// There is nowhere to keep files.
    #[error("neither XDG_CACHE_HOME nor HOME says where to keep fetched files")]
    NoCache,
    /// A program of the host failed.
    #[error("{program} {action} failed ({status}): {message}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it was to do.
        action: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said at the end.
        message: String,
    },
    /// A program of the host took too long, for a test.
    #[error("{program} {action} had not ended after {} seconds", limit.as_secs())]
    TooSlow {
        /// Its name.
        program: &'static str,
        /// What it was to do.
        action: String,
        /// How long it had.
        limit: Duration,
    },
    /// The archive was out of reach a short while ago, and a test does not try again so soon.
    #[error(
        "the package archive was out of reach {} seconds ago; remove {marker} to try again at once",
        ago.as_secs()
    )]
    LatelyOutOfReach {
        /// How long ago.
        ago: Duration,
        /// The file that says so.
        marker: PathBuf,
    },
    /// The metapackage depends on no kernel.
    #[error("the package {package} depends on no package named {prefix}*")]
    NoDependency {
        /// The metapackage.
        package: String,
        /// How the name should begin.
        prefix: &'static str,
    },
    /// The package does not have the file.
    #[error("the package file {package} holds no {path}*")]
    NotInPackage {
        /// The .deb file.
        package: String,
        /// How the path should begin.
        path: &'static str,
    },
    /// The cache cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl FetchError {
    /// Whether the archive was not reached, so that other packages cannot be had either.
    fn is_out_of_reach(&self) -> bool {
        match self {
            // apt-get's words for every file that it could not get.
            Self::Program { message, .. } => message.contains("Failed to fetch"),
            Self::TooSlow { .. } | Self::LatelyOutOfReach { .. } => true,
            Self::NoProgram(_)
            | Self::NoCache
            | Self::NoDependency { .. }
            | Self::NotInPackage { .. }
            | Self::Io { .. } => false,
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Io { path, source }
}

/// How long one of apt's programs may take for a test: a download of 130 MB from a slow archive.
const TEST_PATIENCE: Duration = Duration::from_secs(300);
/// How long tests leave an archive alone that was out of reach: longer than all of them take.
const TEST_PAUSE: Duration = Duration::from_secs(900);

/// The user's cache of fetched files.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    for_tests: bool,
}

impl Cache {
    /// The cache in `$XDG_CACHE_HOME/ringshift` or `~/.cache/ringshift`.
    ///
    /// # Errors
    /// [`FetchError::NoCache`] if the environment names neither.
    pub fn open() -> Result<Self, FetchError> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        // The XDG specification has relative paths ignored.
        let absolute = |path: &PathBuf| path.is_absolute();
        let base = variable("XDG_CACHE_HOME")
            .filter(absolute)
            .or_else(|| variable("HOME").filter(absolute).map(|home| home.join(".cache")))
            .ok_or(FetchError::NoCache)?;
        Ok(Self::at(base.join("ringshift")))
    }

    /// A cache in the directory `root`, which need not exist.
    pub fn at(root: PathBuf) -> Self {
        Self { root, for_tests: false }
    }

    /// For tests, of which there are many: they would rather go without than wait for an archive
    /// that answers slowly or not at all, and not each of them finds out anew.
    #[must_use]
    pub fn for_tests(self) -> Self {
        Self { for_tests: true, ..self }
    }

    /// The path of the file wanted of `package`, fetched unless it is here.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn file(&self, package: &Package, progress: &dyn Fn(&str)) -> Result<PathBuf, FetchError> {
        let directory = self.root.join("files");
        let path = directory.join(format!("{}_{}", package.name, package.architecture.name()));
        if path.is_file() {
            return Ok(path);
        }
        fs::create_dir_all(&directory).map_err(at(&directory))?;
        let _lock = self.lock(progress)?;
        // Another process may have fetched it while this one waited.
        if path.is_file() {
            return Ok(path);
        }
        let downloads = self.root.join("downloads");
        let archive = self.download(package, &downloads, progress)?;
        progress(&format!("unpacking {}", file_name(&archive)));
        unpack(&archive, &[Wanted { paths: package.paths, target: path.clone() }])?;
        fs::remove_dir_all(&downloads).map_err(at(&downloads))?;
        Ok(path)
    }

    /// The files of `set`, in its order, fetched unless they are here. They lie in one directory.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn files(
        &self,
        set: &FileSet,
        progress: &dyn Fn(&str),
    ) -> Result<Vec<PathBuf>, FetchError> {
        self.files_of(set, None, progress)
    }

    /// As [`Cache::files`], of the kernel that the metapackage `set.name` depends on now. Paths may
    /// be beginnings, or ends after a `*`.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn kernel_files(
        &self,
        set: &FileSet,
        progress: &dyn Fn(&str),
    ) -> Result<Vec<PathBuf>, FetchError> {
        self.files_of(set, Some("linux-image-"), progress)
    }

    fn files_of(
        &self,
        set: &FileSet,
        depends_on: Option<&'static str>,
        progress: &dyn Fn(&str),
    ) -> Result<Vec<PathBuf>, FetchError> {
        let folder = format!("{}_{}.files", set.name, set.architecture.name());
        let directory = self.root.join("files").join(folder);
        let targets: Vec<PathBuf> = set
            .paths
            .iter()
            .map(|path| directory.join(path.rsplit('/').next().unwrap_or(path)))
            .collect();
        let complete = || targets.iter().all(|target| target.is_file());
        if complete() {
            return Ok(targets);
        }
        fs::create_dir_all(&directory).map_err(at(&directory))?;
        let _lock = self.lock(progress)?;
        if complete() {
            return Ok(targets);
        }
        let downloads = self.root.join("downloads");
        let package = Package {
            name: set.name,
            architecture: set.architecture,
            depends_on,
            paths: set.paths,
        };
        let archive = self.download(&package, &downloads, progress)?;
        progress(&format!("unpacking {}", file_name(&archive)));
        let wanted: Vec<Wanted> = set
            .paths
            .chunks(1)
            .zip(&targets)
            .map(|(paths, target)| Wanted { paths, target: target.clone() })
            .collect();
        unpack(&archive, &wanted)?;
        fs::remove_dir_all(&downloads).map_err(at(&downloads))?;
        Ok(targets)
    }

    /// Downloads the package that has the wanted file; returns the path of the .deb.
    fn download(
        &self,
        package: &Package,
        downloads: &Path,
        progress: &dyn Fn(&str),
    ) -> Result<PathBuf, FetchError> {
        let marker = self.root.join("out-of-reach");
        if self.for_tests
            && let Some(ago) = age(&marker)
            && ago < TEST_PAUSE
        {
            return Err(FetchError::LatelyOutOfReach { ago, marker });
        }
        let limit = self.for_tests.then_some(TEST_PATIENCE);
        let result = Apt::new(&self.root, limit, progress)?.download(package, downloads);
        match &result {
            Ok(_) if marker.exists() => fs::remove_file(&marker).map_err(at(&marker))?,
            Err(error) if error.is_out_of_reach() => {
                fs::write(&marker, format!("{error}\n")).map_err(at(&marker))?;
            }
            Ok(_) | Err(_) => {}
        }
        result
    }

    /// Waits until no other process works on the cache; it stays so until the
    /// file is dropped.
    fn lock(&self, progress: &dyn Fn(&str)) -> Result<File, FetchError> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(at(&path))?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            progress("waiting for another Ringshift that is fetching packages");
            rustix::fs::flock(&file, FlockOperation::LockExclusive)
                .map_err(|error| at(&path)(error.into()))?;
        }
        Ok(file)
    }
}

/// How long ago a file was written; `None` if there is none, or the clock was set back since.
fn age(path: &Path) -> Option<Duration> {
    fs::metadata(path).and_then(|file| file.modified()).ok()?.elapsed().ok()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// apt with directories of our own.
struct Apt<'a> {
    options: Vec<String>,
    lists: PathBuf,
    /// How long one of its programs may take.
    limit: Option<Duration>,
    progress: &'a dyn Fn(&str),
}

impl<'a> Apt<'a> {
    fn new(
        root: &Path,
        limit: Option<Duration>,
        progress: &'a dyn Fn(&str),
    ) -> Result<Self, FetchError> {
        let root = root.join("apt");
        let lists = root.join("lists");
        for directory in [lists.join("partial"), root.join("archives/partial")] {
            fs::create_dir_all(&directory).map_err(at(&directory))?;
        }
        // Nothing is installed, as far as this apt knows.
        let status = root.join("status");
        File::create(&status).map_err(at(&status))?;
        let directory = |key: &str, path: &Path| format!("{key}={}", path.display());
        let options = [
            directory("Dir::State", &root),
            directory("Dir::State::lists", &lists),
            directory("Dir::State::status", &status),
            directory("Dir::Cache", &root),
            directory("Dir::Cache::archives", &root.join("archives")),
            directory("Dir::Log", &root),
            "APT::Architecture=amd64".into(),
            "APT::Architectures=amd64,i386".into(),
            // As root, apt would download as another user, who may not write here.
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
            // Lists that desktop programs ask for by the host's configuration.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
            "Acquire::http::Timeout=30".into(),
            "Acquire::https::Timeout=30".into(),
            "Acquire::Retries=2".into(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".into(), option]).collect();
        Ok(Self { options, lists, limit, progress })
    }

    /// Downloads the package that has the wanted file into the directory
    /// `downloads`, which is emptied first; returns the path of the .deb.
    fn download(&self, package: &Package, downloads: &Path) -> Result<PathBuf, FetchError> {
        let fresh = self.update_if_empty()?;
        let result = self.try_download(package, downloads);
        if fresh || result.is_ok() {
            return result;
        }
        // The lists are from an earlier day; the archive may have moved on.
        self.update()?;
        self.try_download(package, downloads)
    }

    fn try_download(&self, package: &Package, downloads: &Path) -> Result<PathBuf, FetchError> {
        if downloads.exists() {
            fs::remove_dir_all(downloads).map_err(at(downloads))?;
        }
        fs::create_dir_all(downloads).map_err(at(downloads))?;
        let name = match package.depends_on {
            Some(prefix) => self.dependency(&package.qualified(package.name), prefix)?,
            None => package.name.into(),
        };
        let qualified = package.qualified(&name);
        (self.progress)(&format!("fetching the Debian package {qualified}"));
        self.run("apt-get", &["-q", "download", &qualified], Some(downloads))?;
        let entries = fs::read_dir(downloads).map_err(at(downloads))?;
        let archive = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        archive.ok_or_else(|| {
            at(downloads)(io::Error::new(io::ErrorKind::NotFound, "apt-get left no package here"))
        })
    }

    /// Fetches package lists if there are none; says whether it did.
    fn update_if_empty(&self) -> Result<bool, FetchError> {
        let absent = !self.has_lists()?;
        if absent {
            self.update()?;
        }
        Ok(absent)
    }

    fn has_lists(&self) -> Result<bool, FetchError> {
        let mut entries = fs::read_dir(&self.lists).map_err(at(&self.lists))?;
        Ok(entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        }))
    }

    fn update(&self) -> Result<(), FetchError> {
        (self.progress)("fetching Debian's package lists");
        // Without the option apt calls a host without network a success. One
        // broken source among others is not our concern, though.
        match self.run("apt-get", &["-q", "update", "-o", "APT::Update::Error-Mode=any"], None) {
            Err(error) if !self.has_lists()? => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The first package that `package` depends on whose name begins with
    /// `prefix`.
    fn dependency(&self, package: &str, prefix: &'static str) -> Result<String, FetchError> {
        let record = self.run("apt-cache", &["show", "--no-all-versions", package], None)?;
        dependency(&record, prefix)
            .ok_or_else(|| FetchError::NoDependency { package: package.into(), prefix })
    }

    /// Runs one of apt's programs, reports its downloads, and returns its
    /// standard output.
    fn run(
        &self,
        program: &'static str,
        arguments: &[&str],
        directory: Option<&Path>,
    ) -> Result<String, FetchError> {
        let mut command = Command::new(program);
        command.args(&self.options).args(arguments).env("LC_ALL", "C");
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let mut child = spawn(program, command.stderr(Stdio::piped()))?;
        let errors = child.stderr.take().map(|stderr| {
            std::thread::spawn(move || io::read_to_string(stderr).unwrap_or_default())
        });
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                // Until nobody listens any more.
                let _ = lines.map(|line| sender.send(line)).find(Result::is_err);
            });
        }
        let start = Instant::now();
        let mut output = String::new();
        loop {
            let left =
                self.limit.map_or(Duration::MAX, |limit| limit.saturating_sub(start.elapsed()));
            let line = match lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    let (action, limit) = (arguments.join(" "), start.elapsed());
                    return Err(FetchError::TooSlow { program, action, limit });
                }
            };
            if line.starts_with("Get:") || line.starts_with("Fetched") {
                (self.progress)(&format!("  {line}"));
            }
            output.push_str(&line);
            output.push('\n');
        }
        let status = child.wait().map_err(at(Path::new(program)))?;
        if status.success() {
            return Ok(output);
        }
        let errors = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
        Err(FetchError::Program {
            program,
            action: arguments.join(" "),
            status,
            message: last_lines(&errors),
        })
    }
}

/// Starts `program` with its output in a pipe.
fn spawn(program: &'static str, command: &mut Command) -> Result<std::process::Child, FetchError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| {
        match error.kind() {
            io::ErrorKind::NotFound => FetchError::NoProgram(program),
            _ => at(Path::new(program))(error),
        }
    })
}

/// What matters of a failed program's errors, on one line.
fn last_lines(errors: &str) -> String {
    let lines: Vec<&str> = errors.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.as_slice() {
        [] => "it gave no reason".into(),
        [.., a, b, c] => format!("{a}; {b}; {c}"),
        lines => lines.join("; "),
    }
}

/// Finds in a package record a dependency whose name begins with `prefix`.
fn dependency(record: &str, prefix: &str) -> Option<String> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    depends
        .split([',', '|'])
        .filter_map(|alternative| alternative.split_whitespace().next())
        .find(|name| name.starts_with(prefix))
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
}

/// A file to be taken out of an archive.
struct Wanted {
    /// Beginnings of its path there, or ends after a `*`; the first entry with one of them is the
    /// file.
    paths: &'static [&'static str],
    /// Where it goes.
    target: PathBuf,
}

/// Takes the wanted files out of a .deb and puts each at its target in one step.
fn unpack(archive: &Path, wanted: &[Wanted]) -> Result<(), FetchError> {
    const PROGRAM: &str = "dpkg-deb";
    let mut command = Command::new(PROGRAM);
    command.arg("--fsys-tarfile").arg(archive).stderr(Stdio::null());
    let mut child = spawn(PROGRAM, &mut command)?;
    let missing = match child.stdout.take() {
        Some(stdout) => copy_entries(BufReader::new(stdout), wanted),
        None => Ok(wanted.first()),
    };
    // The rest of the package, which may be large, is of no interest; dpkg-deb
    // ends when nobody reads it.
    let _ = child.kill();
    let _ = child.wait();
    if let Some(wanted) = missing? {
        let path = wanted.paths.first().copied().unwrap_or_default();
        return Err(FetchError::NotInPackage { package: file_name(archive), path });
    }
    Ok(())
}

/// Copies the wanted entries of a tar stream to their targets; returns one that was not there.
fn copy_entries(stream: impl Read, wanted: &[Wanted]) -> Result<Option<&Wanted>, FetchError> {
    let mut left: Vec<&Wanted> = wanted.iter().collect();
    let whole = left.first().map_or(Path::new(""), |wanted| &wanted.target).to_owned();
    let mut tar = tar::Archive::new(stream);
    for entry in tar.entries().map_err(at(&whole))? {
        if left.is_empty() {
            break;
        }
        let mut entry = entry.map_err(at(&whole))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./");
        let matches = |pattern: &&str| match pattern.strip_prefix('*') {
            Some(end) => path.ends_with(end),
            None => path.starts_with(*pattern),
        };
        let is_wanted = |wanted: &&Wanted| wanted.paths.iter().any(matches);
        if let Some(index) = left.iter().position(is_wanted) {
            let target = &left.remove(index).target;
            let partial = target.with_extension("partial");
            let mut file = File::create(&partial).map_err(at(&partial))?;
            io::copy(&mut entry, &mut file).map_err(at(&partial))?;
            fs::rename(&partial, target).map_err(at(target))?;
        }
    }
    Ok(left.first().copied())
}
