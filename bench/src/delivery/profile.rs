//! Where Weir's CPU time goes: perf samples it in two cases of the comparison, and the stacks become flame
//! graphs in text.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::peers::{ALONE, Contender, Place, TAIL, pin_harness};
use super::{Measured, measure, otlp, tail};
use crate::flame::Flame;
use crate::load;
use crate::process::{Peer, conditions, folder};
use crate::sink::Sink;

/// Samples per second of CPU time; no divisor of what happens at regular times.
const RATE: &str = "997";
/// Bytes of the stack that are kept with a sample.
const STACK: &str = "dwarf,32768";

/// Profiles both cases; writes `bench/results/profile/CASE.txt` and `CASE.folded`.
pub fn run(records: u64) {
    let conditions = conditions();
    pin_harness();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/profile");
    std::fs::create_dir_all(&results).expect("bench/results is writable");
    let Some(file) = TAIL.iter().find(|contender| contender.program == "weir") else { return };
    for (contender, round) in [(file, tail_round as Round), (&ALONE, otlp_round)] {
        eprintln!("profile: {}", contender.name());
        match profile(contender, records, round) {
            Ok((measured, flame)) => {
                let name = contender.configuration;
                let text = format!(
                    "{conditions}\nweir, {name}: {} records, {:.0} a second, {:.2} s of CPU, lost {}; {} samples ({RATE} per second of CPU, which slow it down)\n\n\
                     By path, from the thread inwards; parts below 1 % are left out\n\n{}\nBy function at the top\n\n{}",
                    measured.sent,
                    measured.per_s(),
                    measured.cpu_s,
                    measured.lost,
                    flame.samples(),
                    flame.tree(),
                    flame.functions()
                );
                println!("{text}");
                std::fs::write(results.join(format!("{name}.txt")), text).expect("bench/results is writable");
                std::fs::write(results.join(format!("{name}.folded")), flame.folded())
                    .expect("bench/results is writable");
            }
            Err(why) => println!("{}: {why}", contender.name()),
        }
    }
}

type Round = fn(&Contender, u64, &mut Option<Recorder>) -> Result<Measured, String>;

fn profile(contender: &Contender, records: u64, round: Round) -> Result<(Measured, Flame), String> {
    let mut recorder = None;
    let measured = round(contender, records, &mut recorder)?;
    let recorder = recorder.ok_or("nothing was recorded")?;
    let program = contender.find().ok_or("SKIPPED: not installed")?;
    let program = program.canonicalize().map_err(|error| error.to_string())?;
    Ok((measured, Flame::of(&recorder.end()?, &program)))
}

fn tail_round(contender: &Contender, records: u64, recorder: &mut Option<Recorder>) -> Result<Measured, String> {
    let (place, sink) = (Place::new(), Sink::start());
    let (peer, mut file, first) = tail::started(contender, &place, &sink, 20_000)?;
    *recorder = Some(Recorder::begin(&peer)?);
    let ids = first..first + records;
    measure(&peer, &place, &sink, ids.clone(), || {
        tail::append(&mut file, ids).expect("the log file can be written");
        0
    })
}

fn otlp_round(contender: &Contender, records: u64, recorder: &mut Option<Recorder>) -> Result<Measured, String> {
    let (place, sink) = (Place::new(), Sink::start());
    let (peer, first) = otlp::started(contender, &place, &sink, 20_000)?;
    *recorder = Some(Recorder::begin(&peer)?);
    let records = otlp::whole_batches(records);
    measure(&peer, &place, &sink, first..first + records, || load::send(place.listen, records, first).in_doubt)
}

/// perf at work on a process.
struct Recorder {
    child: Child,
    file: PathBuf,
}

impl Recorder {
    fn begin(peer: &Peer) -> Result<Recorder, String> {
        let file = folder().join("perf.data");
        let child = Command::new("perf")
            .args(["record", "-q", "-e", "cpu-clock", "-F", RATE, "--call-graph", STACK, "-o"])
            .arg(&file)
            .args(["-p", &peer.pid().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("perf does not start: {error}"))?;
        // It says nothing when it has begun.
        std::thread::sleep(std::time::Duration::from_millis(500));
        Ok(Recorder { child, file })
    }

    /// What was sampled, as text. The process has ended by then, or perf is told to end.
    fn end(mut self) -> Result<String, String> {
        let pid = self.child.id().to_string();
        // It may have ended with the process.
        let _ = Command::new("kill").args(["-INT", &pid]).stderr(Stdio::null()).status();
        self.child.wait().map_err(|error| error.to_string())?;
        let script = Command::new("perf")
            .args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"])
            .arg(&self.file)
            .stderr(Stdio::null())
            .output()
            .map_err(|error| format!("perf does not read what it recorded: {error}"))?;
        Ok(String::from_utf8_lossy(&script.stdout).into_owned())
    }
}
