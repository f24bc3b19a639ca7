//! A simulated world for the production code: flash, clock, randomness, and whoever does the jobs
//! of the catalog. One thread, one seed, one course of events. Behind the feature `simulation`;
//! no shipped binary has it.
//!
//! What is simulated stands at the edge of the operating system: recorder, ring, delivery and rules
//! run as they are. SQLite is the exception, as it reaches its file by its own means: it works on a
//! real file, and [`database`] says what a power cut leaves of it.

pub mod clock;
pub mod database;
pub mod flash;
pub mod jobs;
pub mod random;
pub mod timers;
