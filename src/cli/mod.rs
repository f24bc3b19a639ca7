//! The command line: one file a subcommand.

pub mod check_config;
pub mod demo;
