//! A medium as a drive uses it: the drive asks, and is told later.
//!
//! A [`Medium::threaded`] has a thread of its own that carries requests out one after the other, so
//! that no virtual CPU waits for the host's disk. A [`Medium::inline`] answers at once, in the
//! caller: for runs that must come out the same every time.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::BlockDevice;
use crate::bus::lock;

/// What a drive wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Bytes of the medium.
    Read {
        /// Where they begin.
        offset: u64,
        /// How many.
        len: usize,
    },
    /// Store bytes.
    Write {
        /// Where they begin.
        offset: u64,
        /// What is stored.
        data: Vec<u8>,
    },
    /// Answered when everything written before is on stable storage.
    Flush,
}

/// The bytes read, none for other requests; or what the host says.
pub type Answer = io::Result<Vec<u8>>;

/// Takes the answer of a request.
type Done = Box<dyn FnOnce(Answer) + Send>;

/// A medium in a drive. Clones are the same medium.
#[derive(Clone)]
pub struct Medium {
    size: u64,
    read_only: bool,
    server: Arc<Server>,
}

enum Server {
    Inline(Mutex<Box<dyn BlockDevice>>, Failures),
    Threaded { jobs: Option<Sender<Job>>, thread: Option<JoinHandle<()>> },
}

struct Job {
    request: Request,
    done: Done,
}

impl fmt::Debug for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Medium { size, read_only, .. } = self;
        f.debug_struct("Medium").field("size", size).field("read_only", read_only).finish()
    }
}

impl Medium {
    /// A medium that answers in the caller.
    pub fn inline(device: Box<dyn BlockDevice>) -> Medium {
        let (size, read_only) = (device.size(), device.read_only());
        Medium {
            size,
            read_only,
            server: Arc::new(Server::Inline(Mutex::new(device), Failures::default())),
        }
    }

    /// A medium with a thread of its own, called `name`. When the last clone is dropped, what was
    /// asked for is finished and everything written is flushed before the drop returns.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn threaded(device: Box<dyn BlockDevice>, name: &str) -> io::Result<Medium> {
        let (size, read_only) = (device.size(), device.read_only());
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(device, &queue))?;
        let server = Server::Threaded { jobs: Some(jobs), thread: Some(thread) };
        Ok(Medium { size, read_only, server: Arc::new(server) })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Asks for `request`. Requests are carried out in the order in which they are made. Either the
    /// answer is returned here, and `done` dropped; or `done` is called with it later, on another
    /// thread.
    pub fn submit(
        &self,
        request: Request,
        done: impl FnOnce(Answer) + Send + 'static,
    ) -> Option<Answer> {
        match &*self.server {
            Server::Inline(device, failures) => {
                let answer = carry_out(&mut **lock(device), &request);
                failures.note(&request, &answer);
                Some(answer)
            }
            Server::Threaded { jobs, .. } => {
                let job = Job { request, done: Box::new(done) };
                match jobs.as_ref().map(|jobs| jobs.send(job)) {
                    Some(Ok(())) => None,
                    Some(Err(_)) | None => {
                        Some(Err(io::Error::other("the medium's thread has ended")))
                    }
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Server::Threaded { jobs, thread } = self {
            *jobs = None;
            // The thread itself may be the last to hold a drive.
            if let Some(thread) = thread.take()
                && thread.thread().id() != std::thread::current().id()
            {
                let _ = thread.join();
            }
        }
    }
}

fn serve(mut device: Box<dyn BlockDevice>, jobs: &Receiver<Job>) {
    let failures = Failures::default();
    while let Ok(Job { request, done }) = jobs.recv() {
        let answer = carry_out(&mut *device, &request);
        failures.note(&request, &answer);
        done(answer);
    }
    if let Err(failure) = device.flush() {
        tracing::error!(%failure, "flushing an image at the end");
    }
}

fn carry_out(device: &mut dyn BlockDevice, request: &Request) -> Answer {
    match request {
        Request::Read { offset, len } => {
            let mut data = vec![0; *len];
            device.read_at(*offset, &mut data).map(|()| data)
        }
        Request::Write { offset, data } => device.write_at(*offset, data).map(|()| Vec::new()),
        Request::Flush => device.flush().map(|()| Vec::new()),
    }
}

/// Puts the first failures into the log; a guest that goes on and on does not fill it.
#[derive(Default)]
struct Failures(AtomicU32);

impl Failures {
    const TOLD: u32 = 10;

    fn note(&self, request: &Request, answer: &Answer) {
        let Err(failure) = answer else { return };
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        if before > Self::TOLD {
            self.0.store(Self::TOLD + 1, Ordering::Relaxed);
            return;
        }
        let what = match request {
            Request::Read { offset, len } => format!("reading {len} bytes at {offset}"),
            Request::Write { offset, data } => {
                format!("writing {} bytes at {offset}", data.len())
            }
            Request::Flush => "flushing".to_owned(),
        };
        tracing::error!("{what}: {failure}");
        if before == Self::TOLD {
            tracing::error!("further failures of this medium are not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_give_the_same_answers_in_order() {
        let requests = [
            Request::Write { offset: 2, data: b"abc".to_vec() },
            Request::Read { offset: 0, len: 6 },
            Request::Flush,
            Request::Read { offset: 6, len: 4 },
        ];
        let inline = Medium::inline(Box::new(b"01234567".to_vec()));
        let now = requests.clone().map(|request| {
            let answer = inline.submit(request, |_| panic!("answered at once"));
            answer.expect("an answer").map_err(|error| error.to_string())
        });
        let threaded = Medium::threaded(Box::new(b"01234567".to_vec()), "test").unwrap();
        let (sender, answers) = channel();
        for request in requests {
            let sender = sender.clone();
            let done = move |answer: Answer| sender.send(answer).unwrap();
            assert!(threaded.submit(request, done).is_none());
        }
        let later = [(); 4].map(|()| answers.recv().unwrap().map_err(|error| error.to_string()));
        assert_eq!(now, later);
        assert_eq!(now[1], Ok(b"01abc5".to_vec()));
        assert!(now[3].is_err());
    }

    /// A medium that writes when it is let, and tells what it did.
    struct Gated {
        gate: Receiver<()>,
        events: Sender<&'static str>,
    }

    impl BlockDevice for Gated {
        fn size(&self) -> u64 {
            512
        }

        fn read_only(&self) -> bool {
            false
        }

        fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Ok(())
        }

        fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            self.gate.recv().map_err(io::Error::other)?;
            self.events.send("written").map_err(io::Error::other)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.events.send("flushed").map_err(io::Error::other)
        }
    }

    #[test]
    fn the_last_drop_waits_for_what_was_asked_and_flushes() {
        let (sender, events) = channel();
        let (open, gate) = channel();
        let medium = Medium::threaded(Box::new(Gated { gate, events: sender }), "test").unwrap();
        let second = medium.clone();
        assert!(medium.submit(Request::Write { offset: 0, data: vec![1] }, |_| ()).is_none());
        drop(medium);
        assert!(events.try_recv().is_err(), "another clone is left");
        // The last drop goes on when the write does, which is most likely later.
        let opener = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(30));
            open.send(()).unwrap();
        });
        drop(second);
        assert_eq!(events.try_iter().collect::<Vec<_>>(), ["written", "flushed"]);
        opener.join().unwrap();
    }
}
