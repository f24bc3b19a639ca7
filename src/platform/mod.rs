//! The only place that touches the operating system, behind seams that tests and the simulation
//! replace: clock, flash, net. SQLite reaches its one file by its own means; everything else of
//! ours goes through here.

pub mod beats;
pub mod block_device;
pub mod board;
pub mod clock;
pub mod flash;
pub mod links;
pub mod local_socket;
pub mod mounts;
pub mod net;
pub mod planted;
pub mod random;
pub mod sandbox;
pub mod scratch;
pub mod secret_file;
pub mod service_manager;
