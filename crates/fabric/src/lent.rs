//! One fabric for several trainings of one job, one after the other.

use std::cell::RefCell;
use std::rc::Rc;

use crate::{Fabric, Lost};

/// A handle of a fabric that others have handles of, too. They take turns: every process uses its
/// handles in the same order.
#[derive(Clone)]
pub struct Lent(Rc<RefCell<Box<dyn Fabric>>>);

impl Lent {
    /// The first handle of `fabric`.
    pub fn new(fabric: Box<dyn Fabric>) -> Lent {
        Lent(Rc::new(RefCell::new(fabric)))
    }
}

impl Fabric for Lent {
    fn rank(&self) -> usize {
        self.0.borrow().rank()
    }

    fn size(&self) -> usize {
        self.0.borrow().size()
    }

    fn exchange(
        &mut self,
        send: &[u32],
        counts: &[usize],
        recv: &mut Vec<u32>,
    ) -> Result<Vec<usize>, Lost> {
        self.0.borrow_mut().exchange(send, counts, recv)
    }
}
