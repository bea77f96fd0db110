//! Space of mounted filesystems: the mounts from `/proc/self/mountinfo` (proc_pid_mountinfo(5)),
//! their space from statvfs(3).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use weir_model::MetricDescription;
use weir_model::build::Kind::{Gauge, UpDownCounter};
use weir_pipeline::{Fault, FaultKind, MetricsBuilder};

use super::area::metric;
use super::isolation::Isolation;
use crate::kernel_files::{KernelFile, Root, lines, text, words};
use crate::name_filter::NameFilter;

pub(super) const USAGE: MetricDescription<'static> = metric(
    "system.filesystem.usage",
    "By",
    UpDownCounter,
    "Space by state: used, free for everybody, reserved for root. Together they are the limit.",
);
pub(super) const LIMIT: MetricDescription<'static> =
    metric("system.filesystem.limit", "By", UpDownCounter, "Size of the filesystem.");
pub(super) const UTILIZATION: MetricDescription<'static> = metric(
    "system.filesystem.utilization",
    "1",
    Gauge,
    "Fraction of the space that is used, as `df` shows it: used / (used + free for everybody).",
);
// Not in the semantic conventions; the name that the OpenTelemetry Collector's `hostmetrics` sends.
pub(super) const INODES_USAGE: MetricDescription<'static> = metric(
    "system.filesystem.inodes.usage",
    "{inode}",
    UpDownCounter,
    "Inodes by state; a filesystem without free inodes takes no new files.",
);
pub(super) const HUNG: MetricDescription<'static> = metric(
    "system.filesystem.hung",
    "1",
    Gauge,
    "1 for a mount that does not answer (Weir's own metric); absent for mounts that answer.",
);

/// Types that hold no files of people, or are full by nature (read-only images).
pub(super) const PSEUDO_TYPES: [&str; 32] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "squashfs",
    "sysfs",
    "tracefs",
    "udev",
];

/// Mounts that containers and the system make for themselves.
pub(super) const SYSTEM_MOUNTS: [&str; 10] = [
    "/dev",
    "/dev/*",
    "/proc/*",
    "/sys",
    "/sys/*",
    "/run/credentials/*",
    "/run/user/*",
    "/var/lib/containers/storage/*",
    "/var/lib/docker/*",
    "/var/lib/kubelet/pods/*",
];

/// Types of local disks and memory, whose statvfs answers from memory. Every other type (NFS, SMB,
/// FUSE, Ceph, unknown ones) may hang and is asked on a thread of its own.
const NEVER_HANG: [&str; 11] =
    ["btrfs", "ext2", "ext3", "ext4", "msdos", "overlay", "squashfs", "tmpfs", "vfat", "xfs", "zfs"];

/// The space of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes per block (`f_frsize`).
    pub(super) block_bytes: u64,
    /// All blocks.
    pub(super) blocks: u64,
    /// Blocks that are free.
    pub(super) blocks_free: u64,
    /// Blocks that are free for everybody.
    pub(super) blocks_available: u64,
    /// All inodes; 0 where the filesystem has no fixed number.
    pub(super) inodes: u64,
    /// Inodes that are free.
    pub(super) inodes_free: u64,
}

/// How the space is asked for; tests put in one that hangs.
pub(super) type AskSpace = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// Asks the kernel.
pub(super) fn ask_kernel(path: &Path) -> io::Result<Space> {
    let space = nix::sys::statvfs::statvfs(path)?;
    Ok(Space {
        block_bytes: space.fragment_size(),
        blocks: space.blocks(),
        blocks_free: space.blocks_free(),
        blocks_available: space.blocks_available(),
        inodes: space.files(),
        inodes_free: space.files_free(),
    })
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device_number: String,
    /// Where it is mounted on the watched machine.
    mountpoint: String,
    /// Where this process sees it.
    path: PathBuf,
    mode: &'static str,
    kind: String,
    device: String,
}

impl Mount {
    fn record(&self, out: &mut MetricsBuilder, space: &Space) {
        let of = |state| {
            [
                ("system.device", self.device.as_str()),
                ("system.filesystem.type", &self.kind),
                ("system.filesystem.mode", self.mode),
                ("system.filesystem.mountpoint", &self.mountpoint),
                ("system.filesystem.state", state),
            ]
        };
        let [device, kind, mode, mountpoint, _] = of("");
        let bytes = |blocks: u64| blocks.saturating_mul(space.block_bytes);
        let used = space.blocks.saturating_sub(space.blocks_free);
        let available = space.blocks_available;
        let reserved = space.blocks_free.saturating_sub(available);
        for (state, blocks) in [("used", used), ("free", available), ("reserved", reserved)] {
            out.record(&USAGE, &of(state), bytes(blocks));
        }
        out.record(&LIMIT, &[device, kind, mode, mountpoint], bytes(space.blocks));
        let usable = used.saturating_add(available);
        if usable > 0 {
            out.record(&UTILIZATION, &of("used"), used as f64 / usable as f64);
        }
        if space.inodes > 0 {
            out.record(&INODES_USAGE, &of("used"), space.inodes.saturating_sub(space.inodes_free));
            out.record(&INODES_USAGE, &of("free"), space.inodes_free);
        }
    }

    fn may_hang(&self) -> bool {
        !NEVER_HANG.contains(&self.kind.as_str())
    }
}

/// All mounts that are watched.
pub(super) struct Filesystems {
    root: Root,
    mountinfo: KernelFile,
    /// The text that `mounts` was read from: it changes seldom, so it is parsed seldom.
    last_text: Vec<u8>,
    mounts: Vec<Mount>,
    types: NameFilter,
    mountpoints: NameFilter,
    ask: AskSpace,
    isolation: Isolation<io::Result<Space>>,
}

impl Filesystems {
    pub(super) fn new(root: &Root, types: NameFilter, mountpoints: NameFilter, ask: AskSpace) -> Filesystems {
        Filesystems {
            root: root.clone(),
            mountinfo: KernelFile::new(root.view("mountinfo")),
            last_text: Vec::new(),
            mounts: Vec::new(),
            types,
            mountpoints,
            ask,
            isolation: Isolation::new(),
        }
    }

    /// Looks what is mounted; asks no filesystem.
    pub(super) fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        self.read_mounts(buffer)?;
        match self.mounts.as_slice() {
            [] => Err(Fault::new(FaultKind::NotFound, "no filesystem is mounted that is not excluded")),
            [mount] => Ok(format!("1 filesystem ({})", mount.mountpoint)),
            mounts => Ok(format!("{} filesystems", mounts.len())),
        }
    }

    fn read_mounts(&mut self, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        let text = self.mountinfo.read(buffer)?;
        if text != self.last_text {
            self.mounts = mounts_of(text, &self.root, &self.types, &self.mountpoints);
            self.last_text = text.to_vec();
        }
        Ok(())
    }

    /// Begins a poll: reads what is mounted, asks the filesystems that may hang on their threads
    /// and records the others.
    pub(super) fn begin(
        &mut self,
        buffer: &mut Vec<u8>,
        out: &mut MetricsBuilder,
        faults: &mut Vec<Fault>,
    ) -> Result<(), Fault> {
        self.read_mounts(buffer)?;
        self.isolation.begin();
        for mount in &self.mounts {
            if mount.may_hang() {
                let (ask, path) = (self.ask.clone(), mount.path.clone());
                if let Err(error) = self.isolation.ask(&mount.mountpoint, move || ask(&path)) {
                    let message = format!("mount {} was not asked for its space: {error}", mount.mountpoint);
                    faults.push(Fault::new(FaultKind::Other, message));
                }
            }
        }
        for mount in self.mounts.iter().filter(|mount| !mount.may_hang()) {
            take(mount, (self.ask)(&mount.path), out, faults);
        }
        Ok(())
    }

    /// Ends a poll: records the answers that come before the deadline, and which are missing.
    pub(super) async fn end(&mut self, deadline: Instant, out: &mut MetricsBuilder, faults: &mut Vec<Fault>) {
        while let Some((mountpoint, answer)) = self.isolation.next(deadline).await {
            if let Some(mount) = self.mounts.iter().find(|mount| mount.mountpoint == mountpoint) {
                take(mount, answer, out, faults);
            }
        }
        for mountpoint in self.isolation.not_asked() {
            let message =
                format!("mount {mountpoint} was not asked for its space: too many other mounts do not answer");
            faults.push(Fault::new(FaultKind::TimedOut, message));
        }
        for mount in &self.mounts {
            let Some(open_for) = self.isolation.open_for(&mount.mountpoint) else { continue };
            out.record(&HUNG, &[("system.filesystem.mountpoint", &mount.mountpoint)], 1_u64);
            let message = format!(
                "mount {} ({}) does not answer statvfs since {} s; everything else was collected",
                mount.mountpoint,
                mount.kind,
                open_for.as_secs()
            );
            faults.push(Fault::new(FaultKind::TimedOut, message));
        }
    }
}

/// Records what a filesystem answered.
fn take(mount: &Mount, answer: io::Result<Space>, out: &mut MetricsBuilder, faults: &mut Vec<Fault>) {
    match answer {
        // As `df` does: filesystems without blocks are no place for files.
        Ok(space) if space.blocks > 0 => mount.record(out, &space),
        Ok(_) => {}
        Err(error) if is_hidden(&error) => {}
        Err(error) => {
            let message = format!(
                "mount {} ({}) answers statvfs with an error: {error}; \
                 if that is as it should be, add it to `exclude_mounts`",
                mount.mountpoint, mount.kind
            );
            faults.push(Fault::new(FaultKind::Other, message));
        }
    }
}

/// Whether a mount is gone, covered by another one or somebody else's. That is normal: FUSE mounts
/// of people are closed even to root.
fn is_hidden(error: &io::Error) -> bool {
    let hidden = [Errno::ENOENT, Errno::ENOTDIR, Errno::EACCES, Errno::EPERM];
    error.raw_os_error().is_some_and(|code| hidden.contains(&Errno::from_raw(code)))
}

/// The mounts of a `mountinfo` that pass the filters, each filesystem once: the last mount at a
/// place covers the ones before, and of several mounts of a device the first counts (the others
/// are bind mounts). Subvolumes of btrfs share a device, but are different things to people.
fn mounts_of(text: &[u8], root: &Root, types: &NameFilter, mountpoints: &NameFilter) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in lines(text).filter_map(|line| parse(line, root)) {
        mounts.retain(|other| other.mountpoint != mount.mountpoint);
        mounts.push(mount);
    }
    mounts.retain(|mount| types.allows(&mount.kind) && mountpoints.allows(&mount.mountpoint));
    let mut seen = HashSet::new();
    mounts.retain(|mount| mount.kind == "btrfs" || seen.insert(mount.device_number.clone()));
    mounts
}

/// A line: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse(line: &[u8], root: &Root) -> Option<Mount> {
    let mut fields = words(line);
    let device_number = text(fields.nth(2)?).into_owned();
    let mountpoint = unescape(fields.nth(1)?);
    let options = fields.next()?;
    // Any number of optional fields, ended by a hyphen.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = text(fields.next()?).into_owned();
    let device = text(&unescape(fields.next()?)).into_owned();
    let of_filesystem = fields.next().unwrap_or_default();
    let read_only = [options, of_filesystem].iter().any(|o| o.split(|&byte| byte == b',').any(|o| o == b"ro"));
    let below = mountpoint.strip_prefix(b"/").unwrap_or(&mountpoint);
    Some(Mount {
        device_number,
        path: root.join(OsStr::from_bytes(below)),
        mountpoint: text(&mountpoint).into_owned(),
        mode: if read_only { "ro" } else { "rw" },
        kind,
        device,
    })
}

/// The kernel writes space, tab, newline, backslash and `#` as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..3).filter(|_| first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> NameFilter {
        NameFilter::new(&[], None, &[])
    }

    fn mounts(text: &str) -> Vec<Mount> {
        mounts_of(text.as_bytes(), &Root::new("/host"), &all(), &all())
    }

    #[test]
    fn escapes_and_optional_fields_are_read() {
        let found = mounts(
            "36 35 98:0 / /mnt/my\\040disk\\134x rw,noatime master:1 shared:2 - fuse.s3 my\\040bucket rw\n\
             37 35 98:1 / /data ro - ext4 /dev/sdb1 rw\n",
        );
        assert_eq!(found[0].mountpoint, "/mnt/my disk\\x");
        assert_eq!(found[0].path, Path::new("/host/mnt/my disk\\x"));
        assert_eq!((found[0].device.as_str(), found[0].kind.as_str(), found[0].mode), ("my bucket", "fuse.s3", "rw"));
        assert!(found[0].may_hang() && !found[1].may_hang());
        assert_eq!(found[1].mode, "ro");
        assert_eq!(unescape(b"\\04"), b"\\04", "a torn escape stays as it is");
        assert_eq!(unescape(b"\\999"), b"\\999");
    }

    #[test]
    fn bind_mounts_and_covered_mounts_are_left_out_but_subvolumes_stay() {
        let found = mounts(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 8:1 /etc/hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
             3 1 8:2 / /mnt rw - ext4 /dev/sdb1 rw\n\
             4 1 0:40 / /mnt rw - nfs4 server:/export rw\n\
             5 1 0:30 /@home /home rw - btrfs /dev/sdc rw\n\
             6 1 0:30 /@srv /srv rw - btrfs /dev/sdc rw\n\
             torn line\n",
        );
        let points: Vec<_> = found.iter().map(|m| (m.mountpoint.as_str(), m.kind.as_str())).collect();
        assert_eq!(points, [("/", "ext4"), ("/mnt", "nfs4"), ("/home", "btrfs"), ("/srv", "btrfs")]);
    }
}
