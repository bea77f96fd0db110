//! The file: made when the first letter comes, opened again after a failure, set aside when it is
//! beyond repair.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Database, ReadTransaction, ReadableDatabase};

use crate::dead_letters::tables::{self, Totals, Writing};
use crate::dead_letters::trouble::{Result, Trouble};
use crate::dead_letters::unix_ms;

/// The name of the file in its folder.
pub const FILE_NAME: &str = "dead-letters.redb";

/// What redb may keep of the file in memory; its own default is 1 GiB.
const CACHE_BYTES: usize = 2 << 20;

/// A file that is larger than this and mostly empty is made smaller.
const COMPACT_FROM_BYTES: u64 = 4 << 20;

/// Where the letters are.
#[derive(Debug)]
enum Home {
    File(PathBuf),
    Memory,
}

/// The file and who may use it.
///
/// Whoever uses the database holds the lock shared; whoever opens or closes it holds it alone.
#[derive(Debug)]
pub(super) struct Store {
    home: Home,
    database: RwLock<Option<Database>>,
    /// Held while a transaction writes, so that totals are published in the order of the commits.
    writing: Mutex<()>,
    totals: Mutex<Totals>,
    trouble: Mutex<Option<String>>,
    aside: Mutex<Option<PathBuf>>,
    #[cfg(test)]
    pub faults: Option<std::sync::Arc<super::tests::Faults>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is replaced as a whole, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what reads a file that may be damaged: redb checks it when it opens it, but a panic of its
/// must never take a worker along.
fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(Trouble::Damage(format!("reading it panicked: {said}")))
    })
}

impl Store {
    pub fn in_folder(folder: &Path) -> Self {
        Self::new(Home::File(folder.join(FILE_NAME)))
    }

    pub fn in_memory() -> Self {
        Self::new(Home::Memory)
    }

    fn new(home: Home) -> Self {
        Self {
            home,
            database: RwLock::default(),
            writing: Mutex::default(),
            totals: Mutex::default(),
            trouble: Mutex::default(),
            aside: Mutex::default(),
            #[cfg(test)]
            faults: None,
        }
    }

    /// Letters and bytes by exporter, source and signal; nothing before the file was opened.
    pub fn totals(&self) -> Totals {
        locked(&self.totals).clone()
    }

    /// What is wrong with the file, in words.
    pub fn trouble(&self) -> Option<String> {
        locked(&self.trouble).clone()
    }

    /// Where the last file is that could not be read, if there was one since the start.
    pub fn set_aside_as(&self) -> Option<PathBuf> {
        locked(&self.aside).clone()
    }

    /// Runs a transaction that reads; `None` if there is no file. It may run more than once.
    pub fn read<T>(&self, work: impl Fn(&ReadTransaction) -> Result<T>) -> io::Result<Option<T>> {
        self.attempt(false, |database| work(&database.begin_read()?))
    }

    /// Runs a transaction that writes, which is on disk when it returns or not there at all; `None`
    /// if there is no file and none is to be made. It may run more than once.
    pub fn write<T>(&self, make: bool, work: impl Fn(&mut Writing<'_>) -> Result<T>) -> io::Result<Option<T>> {
        let _alone = locked(&self.writing);
        let done = self.attempt(make, |database| {
            let transaction = database.begin_write()?;
            let mut tables = Writing::begin(&transaction)?;
            let done = work(&mut tables)?;
            let totals = tables.finish()?;
            transaction.commit()?;
            Ok((done, totals))
        })?;
        Ok(done.map(|(done, totals)| {
            *locked(&self.totals) = totals;
            done
        }))
    }

    /// Tries until it is clear what is wrong: a file that seems damaged is opened again, which checks
    /// all of it; one that passes and still cannot be read is set aside.
    fn attempt<T>(&self, make: bool, work: impl Fn(&Database) -> Result<T>) -> io::Result<Option<T>> {
        let mut damaged = false;
        for _ in 0..4 {
            let slot = self.opened(make)?;
            let Some(database) = slot.as_ref() else { return Ok(None) };
            let result = contained(|| work(database));
            drop(slot);
            match result {
                Ok(done) => {
                    *locked(&self.trouble) = None;
                    return Ok(Some(done));
                }
                Err(Trouble::Disk(error)) => {
                    self.close();
                    return Err(self.failed(&error));
                }
                Err(Trouble::Taken) => return Err(self.taken()),
                Err(Trouble::Closed) => self.close(),
                Err(Trouble::Damage(why)) if !damaged => {
                    damaged = true;
                    tracing::warn!(%why, "the file of the dead letters seems damaged; opening it again");
                    self.close();
                }
                Err(Trouble::Damage(why)) => {
                    self.close();
                    self.set_aside(&why)?;
                }
            }
        }
        Err(self.failed(&io::Error::other("it fails again and again; the log says why")))
    }

    fn failed(&self, error: &io::Error) -> io::Error {
        let said = match &self.home {
            Home::File(path) => format!("cannot use the dead letters in {}: {error}", path.display()),
            Home::Memory => format!("cannot use the dead letters in memory: {error}"),
        };
        *locked(&self.trouble) = Some(said.clone());
        io::Error::new(error.kind(), said)
    }

    fn taken(&self) -> io::Error {
        let said = match &self.home {
            Home::File(path) => format!(
                "another process has {} open; ask the running agent for its dead letters, or stop it first",
                path.display()
            ),
            Home::Memory => "another process has the dead letters open".to_owned(),
        };
        *locked(&self.trouble) = Some(said.clone());
        io::Error::new(io::ErrorKind::WouldBlock, said)
    }

    fn close(&self) {
        let closed = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        // Closing writes, and what it cannot write is repaired when the file is opened.
        if let Err(error) = contained(|| Ok(closed.map(Database::close).transpose()?)) {
            tracing::debug!(?error, "the file of the dead letters was not closed cleanly");
        }
    }

    /// The database, opened or made where it is not; nothing where there is none.
    fn opened(&self, make: bool) -> io::Result<RwLockReadGuard<'_, Option<Database>>> {
        let shared = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if shared.is_some() {
            return Ok(shared);
        }
        drop(shared);
        let mut alone = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if alone.is_none()
            && let Some((database, totals)) = self.open(make)?
        {
            *locked(&self.totals) = totals;
            *alone = Some(database);
        }
        Ok(RwLockWriteGuard::downgrade(alone))
    }

    fn open(&self, make: bool) -> io::Result<Option<(Database, Totals)>> {
        let Home::File(path) = &self.home else { return self.said(self.open_in_memory()).map(Some) };
        if path.try_exists().map_err(|error| self.failed(&error))? {
            match contained(|| self.open_file(path)) {
                Err(Trouble::Damage(why)) => self.set_aside(&why)?,
                opened => return self.said(opened).map(Some),
            }
        }
        if !make {
            return Ok(None);
        }
        self.said(contained(|| self.make_file(path))).map(Some)
    }

    /// The words for what went wrong with opening.
    fn said<T>(&self, result: Result<T>) -> io::Result<T> {
        result.map_err(|trouble| match trouble {
            Trouble::Disk(error) => self.failed(&error),
            Trouble::Damage(why) => self.failed(&io::Error::other(why)),
            Trouble::Closed => self.failed(&io::Error::other("it was closed")),
            Trouble::Taken => self.taken(),
        })
    }

    fn open_file(&self, path: &Path) -> Result<(Database, Totals)> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(Trouble::Disk)?;
        self.begin(file)
    }

    /// Makes the file under another name, so that a crash leaves no half of one.
    fn make_file(&self, path: &Path) -> Result<(Database, Totals)> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Trouble::Disk)?;
        let new = path.with_extension("redb.new");
        // Records may be confidential.
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&new);
        let begun = self.begin(file.map_err(Trouble::Disk)?)?;
        fs::rename(&new, path).map_err(Trouble::Disk)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Trouble::Disk)?;
        Ok(begun)
    }

    fn begin(&self, file: File) -> Result<(Database, Totals)> {
        let backend = FileBackend::new(file)?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            return with_tables(builder.create_with_backend(super::tests::Faulty::new(backend, faults.clone()))?);
        }
        with_tables(builder.create_with_backend(backend)?)
    }

    fn open_in_memory(&self) -> Result<(Database, Totals)> {
        let mut builder = Database::builder();
        with_tables(builder.set_cache_size(CACHE_BYTES).create_with_backend(InMemoryBackend::new())?)
    }

    /// Renames a file that cannot be read, so that a new one can begin and a person can look at it.
    fn set_aside(&self, why: &str) -> io::Result<()> {
        let Home::File(path) = &self.home else { return Ok(()) };
        *locked(&self.totals) = Totals::new();
        let aside = path.with_extension(format!("redb.damaged-{}", unix_ms()));
        match fs::rename(path, &aside) {
            Ok(()) => {
                tracing::error!(
                    %why, kept = %aside.display(),
                    "the dead letters cannot be read; their file is set aside and a new one begins"
                );
                *locked(&self.aside) = Some(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.failed(&error)),
        }
        Ok(())
    }

    /// Gives the disk back what removed letters took, where that is most of the file.
    pub fn compact(&self) -> io::Result<()> {
        let Home::File(path) = &self.home else { return Ok(()) };
        let used: u64 = locked(&self.totals).values().map(|(_, bytes)| bytes).sum();
        let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
        if size < COMPACT_FROM_BYTES || size / 4 < used {
            return Ok(());
        }
        let _alone = locked(&self.writing);
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = slot.as_mut() else { return Ok(()) };
        let compacted =
            contained(|| database.compact().map(|_| ()).map_err(|error| Trouble::Disk(io::Error::other(error))));
        drop(slot);
        compacted.or_else(|trouble| {
            self.close();
            self.said(Err(trouble))
        })
    }

    #[cfg(test)]
    pub fn crash(&self) {
        self.close();
    }
}

fn with_tables(database: Database) -> Result<(Database, Totals)> {
    let transaction = database.begin_write()?;
    let totals = tables::make(&transaction)?;
    transaction.commit()?;
    Ok((database, totals))
}
