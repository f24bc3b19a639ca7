//! `edgerec fleet`: the operator's side. One file a subcommand.
//!
//! The configuration needs `[mqtt]` alone. Keys for signing are files of the operator, named on the
//! command line: no box ever has them.

mod boxes;
mod command;
mod document;
mod push;
mod rollout;
mod scene;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::app::fleet::access;
use crate::cli::outcome::Failure;
use crate::cli::run::on_runtime;
use crate::config::{Config, MqttConfig};
use crate::domain::fleet::rollout::Percent;
use crate::domain::fleet::signing::Signer;
use crate::fleet::operator::{FleetTopics, Operator, OperatorError};

/// What an operator does.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Publish a rule set for all boxes, or for one. It is checked first; its revision grows.
    Push(Push),
    /// Give a rule set to a few boxes first, then to more, then to all; take it back if they are not
    /// well.
    Rollout(Rollout),
    /// Show how the boxes stand.
    Status {
        /// Report as JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Go on showing how the boxes stand; as JSON: every message of theirs, one a line.
    Watch {
        /// Report as JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Have a box do something, and print its answer.
    Command(Order),
}

/// A rule set to publish.
#[derive(Debug, Args)]
pub struct Push {
    /// The rule set.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// For this box alone.
    #[arg(long = "box", value_name = "ID")]
    box_id: Option<String>,
    #[command(flatten)]
    signing: Signing,
}

/// How rule sets are signed.
#[derive(Debug, Args)]
struct Signing {
    /// Sign with this private key (Ed25519, PKCS#8 in PEM).
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// A signed rule set may be taken for so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    valid_days: u16,
}

/// A rule set to roll out. What is under way is kept in FILE.rollout until it is over.
#[derive(Debug, Args)]
pub struct Rollout {
    /// The rule set.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The share of the boxes that are online which get it first.
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    canary: Percent,
    /// The share that gets it with each further step.
    #[arg(long, value_name = "SHARE", default_value = "25%")]
    step: Percent,
    /// Boxes must be well within so many seconds after they got it.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    within: u32,
    /// And stay so for so many seconds before the next step. A box goes back by itself from rules that
    /// fail within 120 s: less does not wait for that.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    hold: u32,
    /// Take back a rollout that was interrupted.
    #[arg(long)]
    back: bool,
    #[command(flatten)]
    signing: Signing,
    /// Report as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// A command for a box.
#[derive(Debug, Args)]
pub struct Order {
    /// The box.
    #[arg(long = "box", value_name = "ID")]
    box_id: String,
    /// An action with its parameters: `{"Action": "CreateLiveRecord", …}`.
    #[arg(value_name = "JSON")]
    action: String,
    /// Sign it with this private key (Ed25519, PKCS#8 in PEM).
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Wait so many seconds for the answer; the command is void after that.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    within: u32,
}

/// Does what the operator wants.
///
/// # Errors
/// It cannot be done.
pub fn run(config: &Config, command: FleetCommand, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(mqtt) = &config.mqtt else {
        let what = "the configuration has no [mqtt]: edgerec fleet needs the broker and the fleet";
        return Err(Failure::Configuration(what.to_owned()));
    };
    let fleet = Fleet { mqtt, topics: FleetTopics::of(&mqtt.fleet) };
    on_runtime(async {
        match command {
            FleetCommand::Push(push) => push::push(&fleet, &push, out).await,
            FleetCommand::Rollout(asked) => rollout::rollout(&fleet, &asked, out).await,
            FleetCommand::Status { json } => boxes::status(&fleet, json, out).await,
            FleetCommand::Watch { json } => boxes::watch(&fleet, json, out).await,
            FleetCommand::Command(order) => command::command(&fleet, &order, out).await,
        }
    })?
}

/// The fleet of the configuration.
struct Fleet<'a> {
    mqtt: &'a MqttConfig,
    topics: FleetTopics,
}

impl Fleet<'_> {
    /// Says in a document for whom it is and until when, as what is signed has to.
    fn address(&self, document: &mut Value, box_id: Option<&str>, lasts: Duration) {
        document["fleet"] = json!(self.mqtt.fleet);
        if let Some(id) = box_id {
            document["box"] = json!(id);
        }
        let until = Timestamp::now().checked_add(lasts).unwrap_or(Timestamp::MAX);
        document["expires"] = json!(until.as_second());
    }

    async fn connect(&self) -> Result<Operator, Failure> {
        Operator::connect(&access(self.mqtt)).await.map_err(failed)
    }
}

fn failed(error: OperatorError) -> Failure {
    Failure::of(&error)
}

/// The name of a box is part of topics.
fn check_box(id: &str) -> Result<(), Failure> {
    let plain = |c: char| !c.is_control() && !matches!(c, '/' | '+' | '#');
    if !id.is_empty() && id.chars().all(plain) {
        return Ok(());
    }
    Err(Failure::Usage("--box: a box has no such name".to_owned()))
}

fn signer(path: &Path) -> Result<Signer, Failure> {
    let unusable = |why: &str| Failure::failed(format!("{} {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| unusable(&format!("cannot be read: {error}")))?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem)
        .map_err(|_| unusable("is no private key (PKCS#8 in PEM)"))?;
    Signer::from_pkcs8(der.secret_pkcs8_der()).ok_or_else(|| unusable("is no Ed25519 key"))
}
