//! What the machine allows at most: how often the disk can promise, how fast a checksum and a copy are.
//! A result near one of these is limited by it, not by the program.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::{conditions, disk_of, folder};

/// How long each probe runs.
const PROBE: Duration = Duration::from_secs(3);

/// Measures and prints all limits.
pub fn run() {
    let place = folder();
    println!("{} · {}", conditions(), disk_of(&place));
    println!("| limit | figure |\n|---|---|");
    for (name, size) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("3 MiB", 3 << 20)] {
        for (how, allocated) in [("append of", false), ("writing over", true)] {
            match synced_writes(&place.join("limits"), size, allocated) {
                Ok(mut times) => println!("| {how} {name} + fdatasync | {} |", describe(&mut times, size)),
                Err(error) => println!("| {how} {name} + fdatasync | FAILED: {error} |"),
            }
        }
    }
    match plain_appends(&place.join("limits")) {
        Ok(rate) => println!("| append of 1 MiB without sync | {rate:.2} GB/s |"),
        Err(error) => println!("| append of 1 MiB without sync | FAILED: {error} |"),
    }
    for (name, size) in [("64 KiB, in cache", 64 << 10), ("64 MiB, from memory", 64 << 20)] {
        let from = vec![0x5a_u8; size];
        let mut to = vec![0_u8; size];
        println!("| crc32c of {name} | {:.2} GB/s |", rate(size, || _ = black_box(crc32c::crc32c(black_box(&from)))));
        println!(
            "| memcpy of {name} | {:.2} GB/s |",
            rate(size, || black_box(&mut to).copy_from_slice(black_box(&from)))
        );
    }
}

/// What is written over again and again: a file whose length and blocks the filesystem knows already,
/// so that a sync writes data alone.
const ALLOCATED: usize = 64 << 20;

/// Seconds that each of many synced writes took.
fn synced_writes(path: &Path, size: usize, allocated: bool) -> io::Result<Vec<f64>> {
    let (mut file, block) = (fresh(path)?, vec![0x5a_u8; size]);
    if allocated {
        file.write_all(&vec![0_u8; ALLOCATED])?;
        file.sync_all()?;
        file.rewind()?;
    }
    let (begun, mut times, mut at) = (Instant::now(), Vec::new(), 0);
    while begun.elapsed() < PROBE {
        at += size;
        if allocated && at > ALLOCATED {
            file.rewind()?;
            at = size;
        }
        let one = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(one.elapsed().as_secs_f64());
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

fn describe(times: &mut [f64], size: usize) -> String {
    times.sort_by(f64::total_cmp);
    let total: f64 = times.iter().sum();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(0.0) * 1000.0;
    format!(
        "{:.0}/s, {:.1} MB/s; p50 {:.2} ms, p99 {:.2} ms",
        times.len() as f64 / total,
        (times.len() * size) as f64 / total / 1e6,
        at(0.5),
        at(0.99)
    )
}

/// GB/s into the page cache, at most 1 GiB.
fn plain_appends(path: &Path) -> io::Result<f64> {
    let (mut file, block) = (fresh(path)?, vec![0x5a_u8; 1 << 20]);
    let begun = Instant::now();
    let mut written = 0;
    while written < 1 << 30 && begun.elapsed() < PROBE {
        file.write_all(&block)?;
        written += block.len();
    }
    let rate = written as f64 / begun.elapsed().as_secs_f64() / 1e9;
    std::fs::remove_file(path)?;
    Ok(rate)
}

fn fresh(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).open(path)
}

/// GB/s of a piece of work on so many bytes.
fn rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    let (begun, mut rounds) = (Instant::now(), 0_u64);
    while begun.elapsed() < PROBE / 3 {
        for _ in 0..16 {
            work();
        }
        rounds += 16;
    }
    rounds as f64 * bytes as f64 / begun.elapsed().as_secs_f64() / 1e9
}
