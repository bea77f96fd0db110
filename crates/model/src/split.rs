//! stub, replaced soon
use crate::batch::Records;
impl Records {
    /// stub
    pub fn split_at(&self, _at: usize) -> (Records, Records) { (self.clone(), self.clone()) }
}
