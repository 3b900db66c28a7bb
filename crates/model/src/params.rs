//! All dense weights of a network in one flat slice, with named views.
//!
//! Gradients and optimizer moments use the same layout, so that an all-reduce, an optimizer step or
//! a copy is one call on one slice. Knows names, shapes and positions; not what a weight is for.

use crate::init::{self, Init};

/// A range of the flat slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Position of the first float.
    pub offset: usize,
    /// Length in floats, of all dimensions.
    pub len: usize,
}

impl View {
    /// This view of the weights `w`.
    pub fn of(self, w: &[f32]) -> &[f32] {
        &w[self.offset..self.offset + self.len]
    }

    /// This view of the weights or gradients `w`, to write.
    pub fn of_mut(self, w: &mut [f32]) -> &mut [f32] {
        &mut w[self.offset..self.offset + self.len]
    }
}

/// A named tensor of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name within the network, such as `mlp.0.bias`.
    pub name: String,
    /// Row-major shape; a weight matrix is (outputs, inputs).
    pub shape: Vec<usize>,
    /// Where it lives in the flat slice.
    pub view: View,
    /// The distribution of its first values.
    pub init: Init,
}

/// The tensors of a network, end to end in the order they were added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// All tensors, in order of their offsets.
    pub entries: Vec<Entry>,
}

impl Layout {
    /// Total number of floats.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.view.offset + entry.view.len)
    }

    /// Whether there is no weight at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a tensor; its name must be new.
    pub fn push(&mut self, name: &str, shape: &[usize], init: Init) -> View {
        assert!(self.get(name).is_none(), "two tensors are called {name}");
        let view = View { offset: self.len(), len: shape.iter().product() };
        self.entries.push(Entry { name: name.to_owned(), shape: shape.to_vec(), view, init });
        view
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// First values of all weights, a function of `seed`, `network` and the names and shapes alone.
    pub fn init(&self, seed: u64, network: &str) -> Vec<f32> {
        let mut w = vec![0.0; self.len()];
        for entry in &self.entries {
            init::dense_init(seed, network, &entry.name, entry.init, entry.view.of_mut(&mut w));
        }
        w
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_lie_end_to_end() {
        let mut layout = Layout::default();
        let a = layout.push("a", &[2, 3], Init::Constant(1.0));
        let b = layout.push("b", &[0, 9], Init::Constant(2.0));
        let c = layout.push("c", &[1], Init::Constant(3.0));
        assert_eq!((a.offset, b.offset, c.offset, layout.len()), (0, 6, 6, 7));
        assert_eq!(layout.init(1, "n"), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0]);
        assert_eq!(layout.get("c").map(|entry| entry.view), Some(c));
    }
}
