//! The command line: one file a subcommand.
//!
//! Reports go to stdout, errors to stderr. Exit codes: 0 done, 1 failed, 2 usage, 64 bad
//! configuration.

pub mod args;
pub mod check_config;
pub mod demo;
pub mod events;
pub mod explain;
pub mod export;
pub mod factory_reset;
pub mod fleet;
pub mod format;
pub mod fsck;
pub mod landing;
pub mod link;
pub mod ls;
pub mod outcome;
pub mod provision;
pub mod rounds;
pub mod run;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::args::{Cli, Command};
use crate::cli::outcome::Failure;
use crate::config::Config;
use crate::platform::flash::SystemFlash;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that is gone.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { Failure::USAGE.into() };
        }
    };
    match dispatch(cli, &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                let _ = writeln!(io::stderr(), "edgerec: {text}");
            }
            failure.code().into()
        }
    }
}

fn dispatch(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    outcome::start_log(matches!(cli.command, Command::Run { .. }))?;
    let config = || load(&cli.config);
    match cli.command {
        Command::Run { board } => run::run(config()?, board.as_deref()),
        Command::Demo(arguments) => {
            run::on_runtime(demo::run(&arguments))?.map_err(|error| Failure::of(&error))
        }
        Command::Format { json } => format::format(&config()?, json, out),
        Command::CheckConfig { json } => {
            check_config::report(&check_config::check(&SystemFlash, &cli.config), json, out)
        }
        Command::Explain { stream, at, json } => {
            explain::explain(&config()?, &stream, at, json, out)
        }
        Command::Events { from, follow, json } => {
            events::events(&config()?, from, follow, json, out)
        }
        Command::Fleet(command) => fleet::run(&config()?, command, out),
        Command::Ls { watch, json } => ls::ls(&config()?, watch, json, out),
        Command::Export(export) => {
            let (order, output, json) = export.order()?;
            export::export(&config()?, &order, &output, json, out)
        }
        Command::Fsck { json } => fsck::fsck(&config()?, json, out),
        Command::Provision(wanted) => provision::provision(&cli.config, &wanted, out),
        Command::FactoryReset(wanted) => factory_reset::reset(&cli.config, &wanted, out),
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|faults| Failure::Configuration(faults.to_string()))
}
