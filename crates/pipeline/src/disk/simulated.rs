//! A disk that fails and forgets as POSIX allows: what was not synced may be there after a crash in
//! any part (by sectors of 512 bytes) and any order, names as well as bytes.
//!
//! Everything follows from the seed.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile, Listed};

const SECTOR_BYTES: usize = 512;

/// How likely things go wrong, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A sync fails; what it should have brought to the disk may never come there.
    pub sync: f64,
    /// A write fails with ENOSPC after a part of it.
    pub full: f64,
    /// A write fails with EIO after a part of it.
    pub write: f64,
    /// A read gives less than asked for.
    pub short_read: f64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    random: fastrand::Rng,
    faults: Faults,
    capacity: u64,
    operations: u64,
    crash_at: Option<u64>,
    is_crashed: bool,
    files: Vec<Content>,
    /// Names as the process sees them.
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<Renaming>,
    unreadable: Vec<(usize, Range<u64>)>,
    syncs: u64,
}

/// Names that change together or not at all.
type Renaming = Vec<(PathBuf, Option<usize>)>;

#[derive(Debug, Default)]
struct Content {
    /// As the process sees it.
    current: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

/// What of the changes that were not synced is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    All,
    None,
    /// Every change and every sector has its own luck.
    Some,
}

impl Fate {
    fn any(random: &mut fastrand::Rng) -> Self {
        [Fate::All, Fate::None, Fate::Some, Fate::Some][random.usize(0..4)]
    }

    fn keeps(self, random: &mut fastrand::Rng) -> bool {
        self == Fate::All || (self == Fate::Some && random.bool())
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    if bytes.len() < offset + new.len() {
        bytes.resize(offset + new.len(), 0);
    }
    bytes[offset..offset + new.len()].copy_from_slice(new);
}

impl Content {
    /// Brings changes to the disk, as far as fate has it.
    fn settle(&mut self, fate: Fate, random: &mut fastrand::Rng) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Cut(length) if fate.keeps(random) => self.synced.resize(length, 0),
                Change::Cut(_) => {}
                Change::Write(offset, bytes) => {
                    let end = offset + bytes.len();
                    let mut at = offset;
                    while at < end {
                        let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                        if fate.keeps(random) {
                            put(&mut self.synced, at, &bytes[at - offset..next - offset]);
                        }
                        at = next;
                    }
                    // The length may be there before the bytes: zeros, or what was there before.
                    if fate == Fate::Some && random.bool() && self.synced.len() < end {
                        let filler = if random.bool() { 0 } else { random.u8(..) };
                        self.synced.resize(end, filler);
                    }
                }
            }
        }
    }
}

impl World {
    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].current.len() as u64).sum()
    }

    fn happens(&mut self, likelihood: f64) -> bool {
        likelihood > 0.0 && self.random.f64() < likelihood
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

fn crashed() -> io::Error {
    io::Error::other("the machine has crashed")
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EIO)
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(seed: u64, capacity: u64) -> Self {
        let world = World {
            random: fastrand::Rng::with_seed(seed),
            faults: Faults::default(),
            capacity,
            operations: 0,
            crash_at: None,
            is_crashed: false,
            files: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            unreadable: Vec::new(),
            syncs: 0,
        };
        Self(Arc::new(Mutex::new(world)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Sets how likely things go wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.world().faults = faults;
    }

    /// Sets how much fits.
    pub fn set_capacity(&self, capacity: u64) {
        self.world().capacity = capacity;
    }

    /// Crashes before or after the operation that comes after so many others.
    pub fn crash_after(&self, operations: u64) {
        let mut world = self.world();
        world.crash_at = Some(world.operations + operations + 1);
    }

    /// Whether it has crashed: nothing works any more.
    pub fn is_crashed(&self) -> bool {
        self.world().is_crashed
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.world().used()
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// The machine starts again, with what is on the disk.
    pub fn restart(&self) {
        let mut world = self.world();
        let world = &mut *world;
        let fate = Fate::any(&mut world.random);
        for renaming in std::mem::take(&mut world.unsynced_names) {
            if !fate.keeps(&mut world.random) {
                continue;
            }
            for (path, file) in renaming {
                match file {
                    Some(file) => world.synced_names.insert(path, file),
                    None => world.synced_names.remove(&path),
                };
            }
        }
        world.names = world.synced_names.clone();
        for file in &mut world.files {
            let fate = Fate::any(&mut world.random);
            file.settle(fate, &mut world.random);
            file.current = file.synced.clone();
        }
        (world.crash_at, world.is_crashed) = (None, false);
    }

    /// The process starts again after it was killed: what it wrote is there, synced or not.
    pub fn restart_process(&self) {
        let mut world = self.world();
        (world.crash_at, world.is_crashed) = (None, false);
    }

    /// Looks at the disk without faults and without coming closer to the crash.
    pub fn quietly<T>(&self, look: impl FnOnce() -> T) -> T {
        let before = {
            let mut world = self.world();
            let crash_at = world.crash_at.take();
            (world.operations, crash_at, std::mem::take(&mut world.faults))
        };
        let seen = look();
        let mut world = self.world();
        (world.operations, world.crash_at, world.faults) = before;
        seen
    }

    /// Flips a bit of a file.
    pub fn flip(&self, path: &Path, bit: usize) {
        let mut world = self.world();
        let file = world.find(path).unwrap();
        let content = &mut world.files[file];
        content.current[bit / 8] ^= 1 << (bit % 8);
        if let Some(byte) = content.synced.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Makes a part of a file unreadable.
    pub fn spoil(&self, path: &Path, range: Range<u64>) {
        let mut world = self.world();
        let file = world.find(path).unwrap();
        world.unreadable.push((file, range));
    }

    /// The content of a file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.files[world.find(path).unwrap()].current.clone()
    }

    /// Does an operation, or crashes before or after it.
    fn operate<T>(&self, operation: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world();
        if world.is_crashed {
            return Err(crashed());
        }
        world.operations += 1;
        if world.crash_at == Some(world.operations) {
            if world.random.bool() {
                let _ = operation(&mut world);
            }
            world.is_crashed = true;
            return Err(crashed());
        }
        operation(&mut world)
    }
}

impl Disk for SimulatedDisk {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        self.operate(|_| Ok(()))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        self.operate(|world| {
            let inside = world.names.iter().filter(|(path, _)| path.parent() == Some(folder));
            Ok(inside
                .map(|(path, file)| Listed {
                    name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                    bytes: world.files[*file].current.len() as u64,
                })
                .collect())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.operate(|world| {
            if world.names.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let file = world.files.len();
            world.files.push(Content::default());
            world.names.insert(path.to_owned(), file);
            world.unsynced_names.push(vec![(path.to_owned(), Some(file))]);
            Ok(Arc::new(SimulatedFile { disk: self.clone(), file }) as Arc<dyn DiskFile>)
        })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.operate(|world| {
            let file = world.find(path)?;
            Ok(Arc::new(SimulatedFile { disk: self.clone(), file }) as Arc<dyn DiskFile>)
        })
    }

    fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.operate(|world| {
            let file = world.find(path)?;
            let content = &mut world.files[file];
            let length = usize::try_from(bytes).unwrap();
            content.current.resize(length, 0);
            content.unsynced.push(Change::Cut(length));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|world| {
            world.names.remove(path).ok_or(ErrorKind::NotFound)?;
            world.unsynced_names.push(vec![(path.to_owned(), None)]);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|world| {
            let file = world.names.remove(from).ok_or(ErrorKind::NotFound)?;
            world.names.insert(to.to_owned(), file);
            world.unsynced_names.push(vec![(from.to_owned(), None), (to.to_owned(), Some(file))]);
            Ok(())
        })
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.operate(|world| {
            if world.happens(world.faults.sync) {
                return Err(broken());
            }
            world.unsynced_names.clear();
            world.synced_names = world.names.clone();
            Ok(())
        })
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        self.operate(|world| Ok(world.capacity.saturating_sub(world.used())))
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
}

impl DiskFile for SimulatedFile {
    fn append(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        self.disk.operate(|world| {
            let free = usize::try_from(world.capacity.saturating_sub(world.used())).unwrap_or(usize::MAX);
            let mut result = Ok(());
            if bytes.len() > free || world.happens(world.faults.full) {
                result = Err(ErrorKind::StorageFull.into());
            } else if world.happens(world.faults.write) {
                result = Err(broken());
            }
            if result.is_err() {
                bytes.truncate(world.random.usize(0..=bytes.len().min(free)));
            }
            let content = &mut world.files[self.file];
            let offset = content.current.len();
            content.current.extend_from_slice(&bytes);
            content.unsynced.push(Change::Write(offset, bytes));
            result
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.operate(|world| {
            let content = &world.files[self.file].current;
            let offset = usize::try_from(offset).unwrap().min(content.len());
            let mut length = buffer.len().min(content.len() - offset);
            let asked = offset as u64..(offset + length) as u64;
            let overlap = |(file, bad): &&(usize, Range<u64>)| {
                *file == self.file && bad.start < asked.end && asked.start < bad.end
            };
            if let Some((_, bad)) = world.unreadable.iter().filter(overlap).min_by_key(|(_, bad)| bad.start) {
                // What lies before is given first.
                length = usize::try_from(bad.start).unwrap().saturating_sub(offset);
                if length == 0 {
                    return Err(broken());
                }
            }
            if length > 1 && world.faults.short_read > 0.0 && world.random.f64() < world.faults.short_read {
                length = world.random.usize(1..length);
            }
            buffer[..length].copy_from_slice(&world.files[self.file].current[offset..offset + length]);
            Ok(length)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate(|world| {
            world.syncs += 1;
            let fails = world.happens(world.faults.sync);
            let fate = if fails { Fate::any(&mut world.random) } else { Fate::All };
            let World { files, random, .. } = world;
            files[self.file].settle(fate, random);
            if fails { Err(broken()) } else { Ok(()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_is_sure_to_be_there_after_a_crash() {
        let (mut lost, mut kept, mut nameless) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimulatedDisk::new(seed, u64::MAX);
            let (folder, path) = (Path::new("q"), Path::new("q/1"));
            let file = disk.create(path).unwrap();
            file.append(&mut [IoSlice::new(b"synced")]).unwrap();
            file.sync().unwrap();
            disk.sync_folder(folder).unwrap();
            file.append(&mut [IoSlice::new(b"perhaps")]).unwrap();
            disk.create(Path::new("q/2")).unwrap();
            disk.restart();
            let content = disk.content(path);
            assert!(content.starts_with(b"synced"));
            if content == b"syncedperhaps" {
                kept += 1
            } else {
                lost += 1
            }
            nameless += usize::from(disk.list(folder).unwrap().len() == 1);
        }
        assert!(lost > 20 && kept > 20 && (20..180).contains(&nameless), "{lost} {kept} {nameless}");
    }
}
