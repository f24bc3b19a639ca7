//! `edgerec provision`: what a factory gives a box: its identity, its broker and certificates, its
//! ring, and the first key of its API. Writes `edgerec.toml` and the secrets beside it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::outcome::{Failure, print, print_json};
use crate::config::{Config, folder_of};
use crate::platform::flash::{Flash, SystemFlash};
use crate::platform::random::random_bytes;
use crate::platform::secret_file;
use crate::ring::identity::{RingIdentity, identity_path};

/// The first line of a configuration that was made here.
pub(super) const MADE_HERE: &str = "# Made by `edgerec provision`.";
/// The files beside the configuration, by their use.
pub(super) const API_KEY: &str = "api.key";
pub(super) const CA: &str = "mqtt.ca.pem";
pub(super) const CERT: &str = "mqtt.cert.pem";
pub(super) const KEY: &str = "mqtt.key.pem";
/// Longest certificate chain or key, in bytes.
const PEM_BYTES_MAX: usize = 64 << 10;

/// What the box gets.
#[derive(Debug, Args)]
pub struct Provision {
    /// Its name; without one the ring makes one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Where its ring is to be.
    #[arg(long, value_name = "PATH", default_value = "/data/edgerec")]
    ring: PathBuf,
    /// The ring's budget, like 24GiB.
    #[arg(long, value_name = "SIZE")]
    capacity: String,
    /// Where its API listens.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    api: SocketAddr,
    /// The broker: mqtts://HOST:PORT.
    #[arg(long, value_name = "URL", requires = "fleet")]
    broker: Option<String>,
    /// The fleet that it is in.
    #[arg(long, value_name = "NAME", requires = "broker")]
    fleet: Option<String>,
    /// Certificates of the authorities that the broker's is from, PEM.
    #[arg(long, value_name = "FILE", requires = "broker")]
    ca: Option<PathBuf>,
    /// The box's own certificate, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["broker", "key"])]
    cert: Option<PathBuf>,
    /// The key of its certificate, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["broker", "cert"])]
    key: Option<PathBuf>,
    /// A key that signs rule sets, Ed25519 in base64; may be given more than once.
    #[arg(long = "rules-key", value_name = "KEY", requires = "broker")]
    rules_keys: Vec<String>,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

/// Writes the configuration, makes the ring, and tells the key of the API this once.
///
/// # Errors
/// There is a configuration, it would not be one that can be used, or the ring cannot be made;
/// nothing of it is left then but what there is of the ring.
pub fn provision(path: &Path, wanted: &Provision, out: &mut dyn Write) -> Result<(), Failure> {
    let flash = SystemFlash;
    if flash.exists(path) {
        let what = "is there already: `edgerec factory-reset` takes a provisioned box back";
        return Err(Failure::failed(format!("{} {what}", path.display())));
    }
    let api_key = letters(random_bytes::<24>());
    let files = files_of(wanted, &api_key)?;
    let folder = folder_of(path);
    let draft = path.with_extension("toml.draft");
    let mut made: Vec<PathBuf> = Vec::new();
    let result = write_all(wanted, &folder, &draft, &files, &mut made)
        .and_then(|config| take_into_use(&config, &draft, path));
    let id = match result {
        Ok(id) => id,
        Err(failure) => {
            for file in made.into_iter().chain([path.to_owned()]) {
                // It is told what failed; what cannot be removed is replaced by the next attempt.
                let _ = flash.remove_file(&file);
            }
            return Err(failure);
        }
    };
    if wanted.json {
        return print_json(
            out,
            &json!({
                "box": id, "config": path.to_string_lossy(), "ring": wanted.ring.to_string_lossy(),
                "secret_id": id, "secret_key": api_key,
            }),
        );
    }
    print(out, format_args!("{id} is provisioned: {}", path.display()))?;
    print(out, format_args!("secret_id  {id}\nsecret_key {api_key}"))?;
    print(out, "The key is shown this once; it is what the API asks for.")
}

/// The secrets, by the names of their files.
fn files_of(wanted: &Provision, api_key: &str) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let mut files = vec![(API_KEY, api_key.as_bytes().to_vec())];
    for (name, from) in [(CA, &wanted.ca), (CERT, &wanted.cert), (KEY, &wanted.key)] {
        let Some(from) = from else { continue };
        let failed = |what: String| Failure::failed(format!("{}: {what}", from.display()));
        let bytes = std::fs::read(from).map_err(|error| failed(error.to_string()))?;
        if bytes.len() > PEM_BYTES_MAX {
            return Err(failed(format!("has {} bytes, {PEM_BYTES_MAX} at most", bytes.len())));
        }
        files.push((name, bytes));
    }
    Ok(files)
}

/// Writes the secrets and the draft, and reads it as the box would.
fn write_all(
    wanted: &Provision,
    folder: &Path,
    draft: &Path,
    files: &[(&'static str, Vec<u8>)],
    made: &mut Vec<PathBuf>,
) -> Result<Config, Failure> {
    SystemFlash.create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
    let id = wanted.id.clone().unwrap_or_else(|| format!("box-{}", letters(random_bytes::<6>())));
    let text = text_of(wanted, &id);
    let files = files.iter().map(|(name, bytes)| (folder.join(name), bytes.as_slice()));
    for (path, bytes) in files.chain([(draft.to_owned(), text.as_bytes())]) {
        made.push(path.clone());
        secret_file::write(&path, bytes).map_err(|error| cannot_write(&path, &error))?;
    }
    Config::load(draft).map_err(|faults| Failure::Configuration(faults.to_string()))
}

/// Makes the ring unless there is one, and gives the draft its name; says the box's.
fn take_into_use(config: &Config, draft: &Path, path: &Path) -> Result<String, Failure> {
    let (flash, ring) = (SystemFlash, &config.ring);
    if !flash.exists(&identity_path(&ring.path)) {
        RingIdentity::plan(&ring.path, ring.capacity_bytes, ring.slot_bytes)
            .and_then(|plan| plan.create(&flash, &ring.path))
            .map_err(|error| Failure::of(&error))?;
    }
    let folder = folder_of(path);
    flash
        .rename(draft, path)
        .and_then(|()| flash.sync_dir(&folder))
        .map_err(|error| cannot_write(path, &error))?;
    Ok(config.identity.id.clone().expect("the draft names it"))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be written: {error}", path.display()))
}

/// The configuration as text.
fn text_of(wanted: &Provision, id: &str) -> String {
    let mut text = format!(
        "{MADE_HERE}\n\n[box]\nid = {}\n\n[ring]\npath = {}\ncapacity = {}\n\n\
         [api]\nlisten = {}\nsecret_id = {}\nsecret_key = {{ file = {} }}\n",
        quoted(id),
        quoted(&wanted.ring.to_string_lossy()),
        quoted(&wanted.capacity),
        quoted(&wanted.api.to_string()),
        quoted(id),
        quoted(API_KEY),
    );
    let line = |text: std::fmt::Arguments<'_>, out: &mut String| {
        out.write_fmt(text).expect("text grows");
    };
    if let Some((broker, fleet)) = wanted.broker.as_ref().zip(wanted.fleet.as_ref()) {
        let (broker, fleet) = (quoted(broker), quoted(fleet));
        line(format_args!("\n[mqtt]\nurl = {broker}\nfleet = {fleet}\n"), &mut text);
        for (key, name, given) in
            [("ca", CA, &wanted.ca), ("cert", CERT, &wanted.cert), ("key", KEY, &wanted.key)]
        {
            if given.is_some() {
                line(format_args!("{key} = {}\n", quoted(name)), &mut text);
            }
        }
        if !wanted.rules_keys.is_empty() {
            let keys: Vec<String> = wanted.rules_keys.iter().map(|key| quoted(key)).collect();
            line(format_args!("rules_public_keys = [{}]\n", keys.join(", ")), &mut text);
        }
    }
    text
}

/// A TOML string: JSON's escapes are TOML's too.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text can be quoted")
}

/// Bytes as letters and digits, two each.
fn letters<const N: usize>(bytes: [u8; N]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
