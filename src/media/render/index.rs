//! An index over the fragments of a clip that stays within a fixed size: one mark per group of
//! fragments, and when the marks run out every second is dropped and groups become twice as long.

/// Marks of where fragments begin in what is rendered, with the state needed to go on from there.
#[derive(Debug)]
pub struct FragmentIndex<S> {
    marks: Vec<Mark<S>>,
    marks_max: usize,
    group: u32,
}

/// Where a fragment begins.
#[derive(Debug, Clone)]
pub struct Mark<S> {
    /// First byte of the fragment in the rendered stream.
    pub offset: u64,
    /// What rendering the fragment starts from.
    pub state: S,
}

impl<S: Clone> FragmentIndex<S> {
    /// Holds at most `marks_max` marks (at least two).
    #[must_use]
    pub fn new(marks_max: usize) -> Self {
        FragmentIndex { marks: Vec::new(), marks_max: marks_max.max(2), group: 1 }
    }

    /// Says where `fragment` begins; to be called for every fragment from 0 on.
    pub fn push(&mut self, fragment: u32, offset: u64, state: &S) {
        if !fragment.is_multiple_of(self.group) {
            return;
        }
        if self.marks.len() == self.marks_max {
            let mut at = 0;
            self.marks.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.group = self.group.saturating_mul(2);
            if !fragment.is_multiple_of(self.group) {
                return;
            }
        }
        self.marks.push(Mark { offset, state: state.clone() });
    }

    /// The last mark for which `before` holds, with its fragment. `before` must hold for the
    /// first mark and, once false, stay false.
    #[must_use]
    pub fn locate(&self, before: impl Fn(&Mark<S>) -> bool) -> Option<(u32, &Mark<S>)> {
        let at = self.marks.partition_point(before).saturating_sub(1);
        let fragment = u32::try_from(at).unwrap_or(u32::MAX).saturating_mul(self.group);
        self.marks.get(at).map(|mark| (fragment, mark))
    }

    /// Memory of the marks in bytes, without what states point to.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.marks.capacity() * size_of::<Mark<S>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_grow_and_every_offset_is_found() {
        let mut index = FragmentIndex::new(8);
        for fragment in 0..1_000_u32 {
            index.push(fragment, u64::from(fragment) * 10, &fragment);
        }
        assert!(index.marks.len() <= 8);
        for offset in 0..10_000 {
            let (fragment, mark) = index.locate(|mark| mark.offset <= offset).unwrap();
            assert_eq!(mark.state, fragment);
            assert!(mark.offset <= offset && offset < mark.offset + 10 * u64::from(index.group));
        }
    }
}
