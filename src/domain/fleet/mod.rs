//! What a fleet sends its boxes, judged without I/O: rule sets as documents and commands, signed where
//! keys are set; when rules are gone back from; when the box may knock at the broker again, and when it tries
//! again to tell what the broker did not take. And the
//! operator's side of it: what signs, and how new rules reach a fleet in steps.

pub mod attempts;
pub mod command;
pub mod document;
pub mod keyring;
pub mod overlay;
pub mod refused;
pub mod rests;
pub mod rollout;
pub mod signing;
pub mod trial;
