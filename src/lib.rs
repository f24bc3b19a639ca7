//! edgerec: records camera and encoder streams to a flash ring on edge boxes, applies recording
//! rules, and delivers the files whenever there is a link.
//!
//! The modules below stand in layer order; a layer names only those above it in this list
//! (`tests/tidy.rs` holds the exact table). ARCHITECTURE.md is the map.

// L0: what the product means; pure.
pub mod domain;

// L1: formats and protocols as bytes <-> types without I/O; the operating system behind seams.
pub mod media;
pub mod platform;
pub mod wire;

// L2: media on flash.
pub mod ring;

// L3: peers that never name each other.
pub mod api;
pub mod delivery;
pub mod fleet;
pub mod ingest;
pub mod recorder;

// L4: configuration as written -> as used.
pub mod config;

// L5: builds, supervises, shuts down; decides nothing.
pub mod app;

// The command line, above everything.
pub mod cli;

// A simulated world, for tests.
#[cfg(feature = "simulation")]
pub mod sim;
