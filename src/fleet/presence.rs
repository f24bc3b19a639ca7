//! Birth and death of a box as the fleet sees them. Each process has a mark and each connection of it
//! a number, so that a will that comes late cannot be taken for the death of what followed; and so
//! that a box hears it when another one has its name, which not every broker says.

use serde_json::{Value, json};

use crate::domain::ids::BootId;

/// What is the same in all that a process says.
#[derive(Debug)]
pub(super) struct Presence {
    boot_id: BootId,
    process: String,
}

impl Presence {
    /// Of a process in a boot; `mark` is random.
    pub(super) fn new(boot_id: BootId, mark: u64) -> Self {
        Presence { boot_id, process: format!("{mark:016x}") }
    }

    pub(super) fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// The box is there.
    pub(super) fn birth(&self, connection: u64) -> String {
        let mut said = self.said(true, connection);
        said["version"] = json!(env!("CARGO_PKG_VERSION"));
        said.to_string()
    }

    /// The box ends in order, and why.
    pub(super) fn farewell(&self, connection: u64, cause: &str) -> String {
        self.death(connection, cause)
    }

    /// What the broker says for the box when the link is lost.
    pub(super) fn will(&self, connection: u64) -> String {
        self.death(connection, "link lost")
    }

    /// Whether something that was said in the name of the box was said by another process.
    pub(super) fn is_of_another(&self, said: &[u8]) -> bool {
        let said: Option<Value> = serde_json::from_slice(said).ok();
        said.is_some_and(|said| said["process"].as_str().is_some_and(|of| of != self.process))
    }

    fn death(&self, connection: u64, cause: &str) -> String {
        let mut said = self.said(false, connection);
        said["cause"] = json!(cause);
        said.to_string()
    }

    fn said(&self, online: bool, connection: u64) -> Value {
        let boot_id = self.boot_id.to_string();
        json!({"online": online, "boot_id": boot_id, "process": self.process,
               "connection": connection})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_said_is_told_from_what_we_said() {
        let us = Presence::new(BootId([7; 16]), 1);
        let other = Presence::new(BootId([7; 16]), 2);
        for said in [us.birth(1), us.will(2), us.farewell(3, "shutdown")] {
            assert!(!us.is_of_another(said.as_bytes()) && other.is_of_another(said.as_bytes()));
        }
        for nonsense in ["", "{", "[]", "{\"process\": 7}"] {
            assert!(!us.is_of_another(nonsense.as_bytes()), "{nonsense}");
        }
    }
}
