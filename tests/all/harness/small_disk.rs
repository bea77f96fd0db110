//! A file system of a few megabytes, in a mount namespace of its own.

use std::path::Path;
use std::sync::mpsc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

type Work = Box<dyn FnOnce() + Send>;

/// The file system. Only what is done [`SmallDisk::inside`] sees it; it vanishes with the last process there.
pub struct SmallDisk {
    ask: mpsc::Sender<Work>,
}

impl SmallDisk {
    /// Mounts it on a folder. Needs [`Peer::Mount`](super::peers::Peer::Mount).
    pub fn mount(place: &Path, bytes: u64) -> SmallDisk {
        let (ask, asked) = mpsc::channel::<Work>();
        let place = place.to_owned();
        let disk = SmallDisk { ask };
        std::thread::spawn(move || {
            // Of this thread alone, and of what it starts.
            unshare(CloneFlags::CLONE_NEWNS).expect("root may");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("the namespace is ours");
            let options = format!("size={bytes}");
            mount(Some("small"), &place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).expect("root may");
            for work in asked {
                work();
            }
        });
        disk.inside(|| {});
        disk
    }

    /// Does something where the file system is seen.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let work = move || answer.send(work()).expect("it is waited for");
        self.ask.send(Box::new(work)).expect("the thread waits");
        answered.recv().expect("the thread does not panic")
    }
}
