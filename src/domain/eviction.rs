//! What leaves the ring when room is needed: one pure plan over a snapshot.
//!
//! Invariants: a leased slot never leaves. A slot with undelivered media leaves only where the
//! policy is [`OnFull::OverwriteOldest`], after everything else, and always with the reason
//! [`Reason::Undelivered`], so that the loss is entered in the ledger first. Age counts only
//! while the clock is trusted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::str::FromStr;

use crate::domain::faults::quoted;
use crate::domain::ids::SlotIndex;
use crate::domain::time::UnixMillis;

/// What happens to undelivered media when the ring is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnFull {
    /// The oldest of it leaves, with a loss entry.
    #[default]
    OverwriteOldest,
    /// It stays; new media is dropped, with a gap entry.
    KeepUndelivered,
}

impl FromStr for OnFull {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "overwrite_oldest" => Ok(OnFull::OverwriteOldest),
            "keep_undelivered" => Ok(OnFull::KeepUndelivered),
            other => {
                let what = "is neither `overwrite_oldest` nor `keep_undelivered`";
                Err(format!("{} {what}", quoted(other)))
            }
        }
    }
}

/// How important the upload of undelivered media is; more important media has the larger number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadPriority(pub u8);

/// What a slot holds, by the best of its media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Everything that was to be delivered is.
    Delivered,
    /// Nothing of it was to be delivered.
    RingOnly,
    /// Something of it is still to be delivered.
    Undelivered {
        /// The highest of what is still to be delivered.
        priority: UploadPriority,
    },
}

/// A slot that holds media, as the plan sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotView {
    /// Which one.
    pub slot: SlotIndex,
    /// Its age by the order of writing: the smaller is the older.
    pub order: u64,
    /// When the last of its media is past its StorageTime; `None` is no age limit.
    pub expires_at: Option<UnixMillis>,
    /// What it holds.
    pub content: Content,
    /// Somebody reads it or writes it.
    pub leased: bool,
    /// What its source says about a full ring; `None` is the ring's policy.
    pub on_full: Option<OnFull>,
}

/// Why a slot leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Past its StorageTime, and nothing of it is still to be delivered.
    Expired,
    /// Delivered, and the oldest.
    Delivered,
    /// Never to be delivered, and the oldest.
    RingOnly,
    /// Not delivered: a loss.
    Undelivered,
}

/// The slots that may leave, in the order in which they do; each is in the snapshot once. `now` is
/// `None` while the clock is not trusted. Few are wanted of many, so they are put in order as they are taken.
pub fn plan(
    snapshot: &[SlotView],
    policy: OnFull,
    now: Option<UnixMillis>,
) -> impl Iterator<Item = (SlotIndex, Reason)> {
    let leaving = snapshot.iter().filter(|view| !view.leased).filter_map(|view| {
        let reason = reason(view, policy, now)?;
        Some(Reverse((reason, rank(view, now), view.slot)))
    });
    let mut leaving: BinaryHeap<_> = leaving.collect();
    std::iter::from_fn(move || leaving.pop().map(|Reverse((reason, _, slot))| (slot, reason)))
}

/// Why the slot may leave, if it may.
fn reason(view: &SlotView, policy: OnFull, now: Option<UnixMillis>) -> Option<Reason> {
    match view.content {
        Content::Undelivered { .. } => (view.on_full.unwrap_or(policy) == OnFull::OverwriteOldest)
            .then_some(Reason::Undelivered),
        _ if is_expired(view, now) => Some(Reason::Expired),
        Content::Delivered => Some(Reason::Delivered),
        Content::RingOnly => Some(Reason::RingOnly),
    }
}

/// Of slots with the same reason the lowest leaves first: what is wanted no longer, then the less
/// important upload, then the older.
fn rank(view: &SlotView, now: Option<UnixMillis>) -> (bool, UploadPriority, u64) {
    let priority = match view.content {
        Content::Undelivered { priority } => priority,
        _ => UploadPriority(0),
    };
    (!is_expired(view, now), priority, view.order)
}

fn is_expired(view: &SlotView, now: Option<UnixMillis>) -> bool {
    matches!((view.expires_at, now), (Some(expires), Some(now)) if expires <= now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(slot: u32, order: u64, content: Content) -> SlotView {
        let slot = SlotIndex(slot);
        SlotView { slot, order, expires_at: None, content, leased: false, on_full: None }
    }

    fn undelivered(priority: u8) -> Content {
        Content::Undelivered { priority: UploadPriority(priority) }
    }

    fn slots(plan: &[(SlotIndex, Reason)]) -> Vec<u32> {
        plan.iter().map(|(slot, _)| slot.0).collect()
    }

    #[test]
    fn order_is_expired_delivered_ring_only_undelivered() {
        let snapshot = [
            view(0, 0, undelivered(5)),
            view(1, 1, undelivered(1)),
            view(2, 2, Content::RingOnly),
            view(3, 4, Content::Delivered),
            view(4, 3, Content::Delivered),
            SlotView { expires_at: Some(UnixMillis(10)), ..view(5, 9, Content::RingOnly) },
            SlotView { leased: true, ..view(6, 0, Content::Delivered) },
            view(7, 8, undelivered(1)),
        ];
        let in_order = |policy, now: Option<i64>| -> Vec<_> {
            plan(&snapshot, policy, now.map(UnixMillis)).collect()
        };
        let all = in_order(OnFull::OverwriteOldest, Some(10));
        assert_eq!(slots(&all), [5, 4, 3, 2, 1, 7, 0]);
        assert_eq!(all[0].1, Reason::Expired);
        assert_eq!(all[4].1, Reason::Undelivered);
        let kept = in_order(OnFull::KeepUndelivered, Some(10));
        assert_eq!(slots(&kept), [5, 4, 3, 2]);
        let untrusted = in_order(OnFull::KeepUndelivered, None);
        assert_eq!(slots(&untrusted), [4, 3, 2, 5]);
        assert!(untrusted.iter().all(|(_, reason)| *reason != Reason::Expired));
        let not_yet = in_order(OnFull::KeepUndelivered, Some(9));
        assert_eq!(slots(&not_yet), [4, 3, 2, 5]);
    }

    #[test]
    fn a_source_may_have_another_policy_than_the_ring() {
        let keep = Some(OnFull::KeepUndelivered);
        let give = Some(OnFull::OverwriteOldest);
        let snapshot = [
            SlotView { on_full: keep, ..view(0, 0, undelivered(0)) },
            SlotView { on_full: give, ..view(1, 1, undelivered(0)) },
            view(2, 2, undelivered(0)),
        ];
        let in_order = |policy| -> Vec<_> { plan(&snapshot, policy, None).collect() };
        assert_eq!(slots(&in_order(OnFull::OverwriteOldest)), [1, 2]);
        assert_eq!(slots(&in_order(OnFull::KeepUndelivered)), [1]);
    }

    fn any_view() -> impl Strategy<Value = SlotView> {
        let content = prop_oneof![
            Just(Content::Delivered),
            Just(Content::RingOnly),
            (0..3u8).prop_map(undelivered),
        ];
        let on_full = proptest::option::of(prop_oneof![
            Just(OnFull::OverwriteOldest),
            Just(OnFull::KeepUndelivered)
        ]);
        let expires = proptest::option::of(0..20i64);
        (0..40u32, 0..40u64, expires, content, any::<bool>(), on_full).prop_map(
            |(slot, order, expires, content, leased, on_full)| SlotView {
                slot: SlotIndex(slot),
                order,
                expires_at: expires.map(UnixMillis),
                content,
                leased,
                on_full,
            },
        )
    }

    fn by_slot(mut snapshot: Vec<SlotView>) -> Vec<SlotView> {
        snapshot.sort_by_key(|view| view.slot);
        snapshot.dedup_by_key(|view| view.slot);
        snapshot
    }

    proptest! {
        #[test]
        fn invariants_hold(
            snapshot in proptest::collection::vec(any_view(), 0..40).prop_map(by_slot),
            overwrite: bool,
            now in proptest::option::of(0..20i64),
        ) {
            let policy = if overwrite { OnFull::OverwriteOldest } else { OnFull::KeepUndelivered };
            let now = now.map(UnixMillis);
            let planned: Vec<_> = plan(&snapshot, policy, now).collect();
            let find = |slot: SlotIndex| {
                *snapshot.iter().find(|view| view.slot == slot).expect("from the snapshot")
            };
            let may_leave = |view: &SlotView| {
                !view.leased
                    && (!matches!(view.content, Content::Undelivered { .. })
                        || view.on_full.unwrap_or(policy) == OnFull::OverwriteOldest)
            };
            for (slot, reason) in &planned {
                let view = find(*slot);
                prop_assert!(may_leave(&view));
                let lost = matches!(view.content, Content::Undelivered { .. });
                prop_assert_eq!(lost, *reason == Reason::Undelivered);
                if *reason == Reason::Expired {
                    prop_assert!(view.expires_at.expect("limit") <= now.expect("trusted"));
                }
            }
            prop_assert!(planned.is_sorted_by_key(|(slot, why)| (*why, rank(&find(*slot), now))));
            // All leave that may, each once.
            let mut slots: Vec<_> = planned.iter().map(|(slot, _)| *slot).collect();
            slots.sort();
            prop_assert!(slots.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(planned.len(), snapshot.iter().filter(|view| may_leave(view)).count());
        }
    }
}
