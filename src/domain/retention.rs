//! How long the ring keeps what is written now, at the rates of late.
//!
//! Media leaves in the order of [`eviction`](crate::domain::eviction): what is delivered first, then
//! what is in the ring only, then what is not delivered. A slot of one rank leaves once all that leaves
//! before it has: what is spare, and what is older and of its rank or a lower one. Lower ranks give back
//! as much as they take, so the room is used up at the rates of its own rank and of higher ones.

use crate::domain::eviction::{Content, UploadPriority};

/// Bytes of the ring, by what they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Of slots that hold nothing.
    pub spare_bytes: u64,
    /// Of closed slots.
    pub held: Vec<(Content, u64)>,
}

impl Room {
    /// Seconds until media that is of this content in the end, and is written now, leaves; `None` if
    /// nothing pushes it out. `flows` are the bytes a second of all streams, by what becomes of them.
    #[must_use]
    pub fn keeps_s(&self, content: Content, flows: &[(Content, u64)]) -> Option<u64> {
        let ours = rank(content);
        let held = self.held.iter().filter(|(held, _)| rank(*held) <= ours);
        let flows = flows.iter().filter(|(flow, _)| rank(*flow) >= ours);
        seconds(self.spare_bytes, held, flows)
    }

    /// Seconds for which nothing that is to be delivered is lost if nothing is delivered from now on;
    /// `None` if nothing comes in.
    #[must_use]
    pub fn safe_offline_s(&self, flows: &[(Content, u64)]) -> Option<u64> {
        let held = self.held.iter();
        let held = held.filter(|(held, _)| !matches!(held, Content::Undelivered { .. }));
        seconds(self.spare_bytes, held, flows.iter())
    }
}

fn seconds<'a>(
    spare_bytes: u64,
    held: impl Iterator<Item = &'a (Content, u64)>,
    flows: impl Iterator<Item = &'a (Content, u64)>,
) -> Option<u64> {
    let bytes = held.fold(spare_bytes, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let per_second = flows.fold(0_u64, |sum, (_, rate)| sum.saturating_add(*rate));
    bytes.checked_div(per_second)
}

/// The smaller leaves first.
fn rank(content: Content) -> (u8, UploadPriority) {
    match content {
        Content::Delivered => (0, UploadPriority(0)),
        Content::RingOnly => (1, UploadPriority(0)),
        Content::Undelivered { priority } => (2, priority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNDELIVERED: Content = Content::Undelivered { priority: UploadPriority(1) };

    #[test]
    fn streams_of_one_kind_share_the_ring_by_their_rates() {
        let room = Room { spare_bytes: 1_000, held: vec![(Content::RingOnly, 9_000)] };
        let flows = [(Content::RingOnly, 40), (Content::RingOnly, 60)];
        assert_eq!(room.keeps_s(Content::RingOnly, &flows), Some(100));
        assert_eq!(room.keeps_s(Content::RingOnly, &[]), None, "nothing pushes it out");
    }

    #[test]
    fn what_is_delivered_makes_room_for_what_is_not() {
        let held = vec![(Content::Delivered, 3_000), (Content::RingOnly, 6_000)];
        let room = Room { spare_bytes: 1_000, held };
        let flows = [(Content::Delivered, 80), (Content::RingOnly, 20)];
        // The delivered leaves for both streams' sake, the other only once that is gone.
        assert_eq!(room.keeps_s(Content::Delivered, &flows), Some(40));
        assert_eq!(room.keeps_s(Content::RingOnly, &flows), Some(500));
        assert_eq!(room.keeps_s(UNDELIVERED, &flows), None);
    }

    #[test]
    fn without_a_link_all_that_nobody_waits_for_goes_first() {
        let held =
            vec![(UNDELIVERED, 5_000), (Content::Delivered, 2_000), (Content::RingOnly, 1_000)];
        let room = Room { spare_bytes: 2_000, held };
        let flows = [(Content::Delivered, 80), (Content::RingOnly, 20)];
        assert_eq!(room.safe_offline_s(&flows), Some(50));
    }

    /// The forecast is what the plan then does, simulated slot by slot.
    #[test]
    fn the_plan_of_evictions_keeps_it_as_long() {
        use crate::domain::eviction::{OnFull, SlotView, plan};
        use crate::domain::ids::SlotIndex;

        const SLOTS: u32 = 60;
        /// Seconds after which it begins anew who writes.
        const TURN: u64 = 3;
        // A slot a second in turns: two of three are delivered at once, one is in the ring only.
        let content = |second: u64| match second % TURN {
            0 => Content::RingOnly,
            _ => Content::Delivered,
        };
        let view = |slot, order| SlotView {
            slot: SlotIndex(slot),
            order,
            expires_at: None,
            content: content(order),
            leased: false,
            on_full: None,
        };
        let at_first: Vec<SlotView> = (0..SLOTS).map(|slot| view(slot, u64::from(slot))).collect();
        let flows = [(Content::Delivered, 2), (Content::RingOnly, 1)];
        let of = |ring: &[SlotView], content| {
            ring.iter().filter(|view| view.content == content).count() as u64 * TURN
        };
        let kinds = [Content::Delivered, Content::RingOnly];
        let held = kinds.map(|kind| (kind, of(&at_first, kind))).to_vec();
        let room = Room { spare_bytes: 0, held };
        for kind in kinds {
            // The newest slot of the kind, and how many seconds it stays from its own on.
            let newest = (0..u64::from(SLOTS)).rev().find(|order| content(*order) == kind);
            let newest = newest.expect("both kinds are there");
            let mut now = u64::from(SLOTS);
            let mut ring = at_first.clone();
            while ring.iter().any(|view| view.order == newest) {
                let next = plan(&ring, OnFull::OverwriteOldest, None).next();
                let (slot, _) = next.expect("one leaves");
                ring[slot.0 as usize] = view(slot.0, now);
                now += 1;
            }
            let forecast = room.keeps_s(kind, &flows).expect("it leaves");
            let stayed = now - u64::from(SLOTS);
            assert!(
                forecast.abs_diff(stayed) <= 2 * TURN,
                "{kind:?}: {forecast} s, and it was {stayed} s"
            );
        }
    }
}
