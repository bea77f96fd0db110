//! Temperature sensors in `/sys/class/hwmon` (kernel: Documentation/hwmon/sysfs-interface.rst).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_model::MetricDescription;
use weir_model::build::Kind::Gauge;
use weir_pipeline::{Fault, FaultKind, MetricsBuilder};

use super::area::metric;
use super::isolation::Isolation;
use crate::kernel_files::{Root, unreadable};

pub(super) const TEMPERATURE: MetricDescription<'static> =
    metric("hw.temperature", "Cel", Gauge, "Temperature of a sensor.");

/// Sensors come and go seldom (a disk is put in, a driver is loaded).
const SENSORS_VALID: Duration = Duration::from_secs(60);

/// A sensor, its file open.
#[derive(Debug)]
struct Sensor {
    /// Chip, device and number: unique on the machine and the same after the next start.
    id: String,
    name: String,
    location: Option<String>,
    file: File,
}

impl Sensor {
    /// Degrees Celsius. A sensor that has no reading now (asleep, not connected) answers an error.
    fn read(&self) -> Option<f64> {
        let mut text = [0; 32];
        let length = self.file.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..length)?).ok()?;
        text.trim().parse::<i32>().ok().map(|millidegrees| f64::from(millidegrees) / 1000.0)
    }
}

/// All sensors. A chip behind a slow or stuck bus must not delay anybody, so they are read on a
/// thread of their own.
pub(super) struct Temperatures {
    root: Root,
    sensors: Arc<[Sensor]>,
    found: Option<Instant>,
    isolation: Isolation<Vec<Option<f64>>>,
}

/// The name of the only question.
const ALL: &str = "temperatures";

impl Temperatures {
    pub(super) fn new(root: &Root) -> Temperatures {
        Temperatures { root: root.clone(), sensors: Arc::new([]), found: None, isolation: Isolation::new() }
    }

    pub(super) fn watch(&mut self) -> Result<String, Fault> {
        self.find()?;
        match self.sensors.len() {
            0 => Err(Fault::new(FaultKind::NotFound, "no sensors in /sys/class/hwmon")),
            1 => Ok("temperature of 1 sensor".to_owned()),
            count => Ok(format!("temperatures of {count} sensors")),
        }
    }

    fn find(&mut self) -> Result<(), Fault> {
        if self.found.is_some_and(|found| found.elapsed() < SENSORS_VALID) {
            return Ok(());
        }
        let folder = self.root.join("sys/class/hwmon");
        match sensors_in(&folder) {
            Ok(sensors) => self.sensors = sensors.into(),
            // Virtual machines have no such folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.sensors = Arc::new([]),
            Err(error) => return Err(unreadable(&folder, &error)),
        }
        self.found = Some(Instant::now());
        Ok(())
    }

    /// Begins a poll: the sensors are read from now on.
    pub(super) fn begin(&mut self) -> Result<(), Fault> {
        self.isolation.begin();
        if self.isolation.open_for(ALL).is_some() {
            return Ok(());
        }
        match self.find() {
            // What never worked is not watched; the start-up message says why.
            Err(_) if self.found.is_none() => return Ok(()),
            found => found?,
        }
        if self.sensors.is_empty() {
            return Ok(());
        }
        let sensors = self.sensors.clone();
        let asked = self.isolation.ask(ALL, move || sensors.iter().map(Sensor::read).collect());
        asked.map_err(|error| Fault::new(FaultKind::Other, format!("cannot read the temperature sensors: {error}")))
    }

    /// Ends a poll: records the readings if they come before the deadline.
    pub(super) async fn end(&mut self, deadline: Instant, out: &mut MetricsBuilder, faults: &mut Vec<Fault>) {
        while let Some((_, readings)) = self.isolation.next(deadline).await {
            for (sensor, reading) in self.sensors.iter().zip(readings) {
                let Some(degrees) = reading else { continue };
                let [id, name] = [("hw.id", sensor.id.as_str()), ("hw.name", sensor.name.as_str())];
                match &sensor.location {
                    Some(location) => {
                        out.record(&TEMPERATURE, &[id, name, ("hw.sensor_location", location)], degrees);
                    }
                    None => out.record(&TEMPERATURE, &[id, name], degrees),
                }
            }
        }
        if let Some(open_for) = self.isolation.open_for(ALL) {
            let seconds = open_for.as_secs();
            let message =
                format!("the temperature sensors do not answer since {seconds} s; everything else was collected");
            faults.push(Fault::new(FaultKind::TimedOut, message));
        }
    }
}

/// The sensors of all chips, in the order of their ids.
fn sensors_in(folder: &Path) -> io::Result<Vec<Sensor>> {
    let mut sensors = Vec::new();
    for chip in std::fs::read_dir(folder)? {
        let chip = chip?.path();
        // Very old drivers have their files one folder further.
        for place in [chip.clone(), chip.join("device")] {
            add_sensors(&chip, &place, &mut sensors);
        }
    }
    sensors.sort_by(|a, b| a.id.cmp(&b.id));
    sensors.dedup_by(|a, b| a.id == b.id);
    Ok(sensors)
}

/// The sensors of a chip whose files lie in `place`. A chip that goes away meanwhile has none.
fn add_sensors(chip: &Path, place: &Path, sensors: &mut Vec<Sensor>) {
    let line = |path: &Path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let Ok(entries) = std::fs::read_dir(place) else { return };
    let chip_name = line(&place.join("name")).unwrap_or_else(|| "unknown".to_owned());
    // The number in `hwmon3` changes from start to start, the device behind it seldom does.
    let device = std::fs::read_link(chip.join("device")).unwrap_or_else(|_| chip.to_owned());
    let device = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in entries.flatten() {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let Some(sensor) = file_name.strip_suffix("_input").filter(|sensor| sensor.starts_with("temp")) else {
            continue;
        };
        let Ok(file) = File::open(entry.path()) else { continue };
        let location = line(&place.join(format!("{sensor}_label"))).filter(|label| !label.is_empty());
        sensors.push(Sensor { id: format!("{chip_name}/{device}/{sensor}"), name: chip_name.clone(), location, file });
    }
}
