//! `edgerec run`: the service, until SIGTERM or SIGINT.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::{self, AppError, Ready, confinement};
use crate::cli::outcome::Failure;
use crate::config::{Config, Hardware};
use crate::platform::flash::SystemFlash;
use crate::platform::sandbox::{self, Level};

/// Runs the box, in the sandbox unless the configuration leaves it out. A second signal ends it at
/// once.
///
/// # Errors
/// It cannot start.
pub fn run(mut config: Config, board: Option<&str>) -> Result<(), Failure> {
    let hardware = board.map(|name| Hardware::load(&SystemFlash, name)).transpose();
    config.hardware = hardware.map_err(|faults| Failure::Configuration(faults.to_string()))?;
    if config.identity.sandbox {
        enter_sandbox(&config);
    } else {
        warn!("[box] sandbox = false: the box is not shut in");
    }
    on_runtime(serve(config))?
}

/// Shuts the process in, before its first thread; a kernel that cannot leaves it to the unit.
fn enter_sandbox(config: &Config) {
    let Level { paths, calls, faults } = sandbox::enter(&confinement::of(config));
    for fault in &faults {
        warn!(fault, "a part of the sandbox is not to be had here");
    }
    info!(%paths, %calls, "in the sandbox");
}

/// Runs a future to its end, on as many threads as there are cores.
///
/// # Errors
/// No threads can be started.
pub fn on_runtime<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no threads can be started: {error}")))?;
    Ok(runtime.block_on(work))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let no_signals = |error: io::Error| Failure::failed(format!("no signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let shutdown = CancellationToken::new();
    let mut service = pin!(app::run(config, shutdown.clone(), announce));
    let ended = tokio::select! {
        ended = &mut service => ended,
        () = either(&mut terminate, &mut interrupt) => {
            info!("asked to end");
            shutdown.cancel();
            tokio::select! {
                ended = &mut service => ended,
                () = either(&mut terminate, &mut interrupt) => {
                    return Err(Failure::failed("ended before everything was closed"));
                }
            }
        }
    };
    ended.map_err(|error| match &error {
        AppError::Rules(faults) => Failure::Configuration(faults.to_string()),
        AppError::Board(_) => Failure::Configuration(error.to_string()),
        AppError::Fleet(fault) => Failure::Configuration(format!("[mqtt] {fault}")),
        _ => Failure::of(&error),
    })
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Tells whoever started the box where it listens.
fn announce(ready: Ready) {
    let mut out = io::stdout().lock();
    // Whoever does not read it does not want to know.
    let _ = writeln!(out, "{}", ready_line(&ready)).and_then(|()| out.flush());
}

fn ready_line(ready: &Ready) -> String {
    let shown = |addr: Option<SocketAddr>| addr.map_or("-".to_owned(), |addr| addr.to_string());
    format!("ready rtmp={} api={}", shown(ready.rtmp), shown(ready.api))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_is_off_is_a_dash() {
        let rtmp = Some(SocketAddr::from(([127, 0, 0, 1], 1_935)));
        assert_eq!(ready_line(&Ready { rtmp, api: None }), "ready rtmp=127.0.0.1:1935 api=-");
    }
}
