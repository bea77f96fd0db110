//! The disk of this machine.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Listed};

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        above.map_or(Ok(()), |above| self.create_folder(above))?;
        // Telemetry can hold what not everybody should read.
        match std::fs::DirBuilder::new().mode(0o750).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        above.map_or(Ok(()), |above| self.sync_folder(above))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let about = match entry.metadata() {
                Ok(about) => about,
                // Removed since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let (true, Ok(name)) = (about.is_file(), entry.file_name().into_string()) {
                listed.push(Listed { name, bytes: about.len() });
            }
        }
        Ok(listed)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().append(true).read(true).create_new(true).mode(0o640).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let about = nix::sys::statvfs::statvfs(folder)?;
        // The types differ from system to system.
        #[allow(clippy::useless_conversion, reason = "u32 on some systems")]
        let (blocks, block_bytes) = (u64::from(about.blocks_available()), u64::from(about.fragment_size()));
        Ok(blocks.saturating_mul(block_bytes))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn append(&self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        while !parts.is_empty() {
            match (&self.0).write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::read_full;

    #[test]
    fn what_is_appended_in_parts_is_read_back_at_any_offset() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, below) = (RealDisk, folder.path().join("a/b"));
        disk.create_folder(&below).unwrap();
        disk.create_folder(&below).unwrap();
        let path = below.join("1");
        let file = disk.create(&path).unwrap();
        // More parts than one system call takes.
        let texts: Vec<String> = (0..3000).map(|at| format!("{at},")).collect();
        let whole = texts.concat();
        file.append(&mut texts.iter().map(|text| IoSlice::new(text.as_bytes())).collect::<Vec<_>>()).unwrap();
        file.sync().unwrap();
        disk.sync_folder(&below).unwrap();
        assert_eq!(disk.list(&below).unwrap(), [Listed { name: "1".into(), bytes: whole.len() as u64 }]);
        let mut buffer = vec![0; 100];
        assert_eq!(read_full(&*disk.open(&path).unwrap(), &mut buffer, whole.len() as u64 - 50).unwrap(), 50);
        assert_eq!(&buffer[..50], &whole.as_bytes()[whole.len() - 50..]);
        disk.truncate(&path, 10).unwrap();
        file.append(&mut [IoSlice::new(b"end")]).unwrap();
        assert_eq!(read_full(&*file, &mut buffer, 0).unwrap(), 13);
        assert_eq!(&buffer[..13], b"0,1,2,3,4,end");
        assert_eq!(disk.create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let renamed = below.join("2");
        disk.create(&renamed).unwrap();
        disk.rename(&path, &renamed).unwrap();
        assert_eq!(disk.list(&below).unwrap(), [Listed { name: "2".into(), bytes: 13 }]);
        disk.remove(&renamed).unwrap();
        assert!(disk.list(&below).unwrap().is_empty());
        assert!(disk.free_bytes(&below).unwrap() > 0);
    }
}
