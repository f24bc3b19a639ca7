//! Identities. Each is its own type, so that two of them never change places in a call.

use std::fmt;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// A session: a stream from start to end as recording sees it. Unique on the box, 63 bits.
    SessionId(u64)
}
number_id! {
    /// A recording: one template or task at work on one stream key. Unique on the box, 63 bits.
    RecordingId(u64)
}
number_id! {
    /// A timed or highlight task. Unique on the box, from 1, never used again.
    TaskId(u64)
}
number_id! {
    /// A file: a clip in one format. 63 bits, a hash of what the file is made of.
    FileId(u64)
}
number_id! {
    /// A slot of the ring by its number, which is also its file name.
    SlotIndex(u32)
}
number_id! {
    /// How often a slot has been given to a stream. Grows by one at each reuse; 0 is never used.
    SlotGeneration(u64)
}
number_id! {
    /// The position of a fragment in its session, from 0.
    FragmentSequence(u32)
}
number_id! {
    /// A recording template by the number that the API gives it. Unique on the box, never reused.
    TemplateNumber(u64)
}

impl FileId {
    /// The first eight hex digits of the 16-digit form, as used in names.
    #[must_use]
    pub fn short_hex(self) -> String {
        format!("{:016x}", self.0)[..8].to_owned()
    }
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

byte_id! {
    /// The identity of a ring directory, made once by `format`.
    DirectoryId
}
byte_id! {
    /// The identity of one boot of the machine.
    BootId
}
