//! stub, replaced soon
use weir_model::metrics::{Metrics, Temporality};
/// stub
pub struct Converter;
/// stub
pub struct Converted { /// m
 pub metrics: Metrics, /// d
 pub dropped: u64 }
impl Converter {
    /// stub
    pub fn new(_: Temporality, _: usize) -> Self { Self }
    /// stub
    pub fn needs(&self, _: &Metrics) -> bool { false }
    /// stub
    pub fn convert(&mut self, metrics: Metrics) -> Converted { Converted { metrics, dropped: 0 } }
}
