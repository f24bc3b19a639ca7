//! `[rtmp]`, `[api]`, `[rules]` and `[mqtt]`: who reaches the box and where its rules come from.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::section::{Reading, Section};
use crate::config::upload::required;
use crate::domain::address::Address;
use crate::domain::fleet::keyring::RulesKey;
use crate::domain::secret::Secret;

/// Longest name of a box or fleet, in bytes: they are parts of MQTT topics.
const TOPIC_PART_BYTES_MAX: usize = 64;
/// Most keys that sign rule sets.
const PUBLIC_KEYS_MAX: usize = 8;

/// The RTMP listener as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtmpConfig {
    /// Where it listens; `None` (written as `""`) is nowhere.
    pub listen: Option<SocketAddr>,
    /// Key of the push authentication; empty for none.
    pub push_key: Secret,
}

/// The HTTP interface as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// Where it listens; `None` (written as `""`) is nowhere.
    pub listen: Option<SocketAddr>,
    /// Who may call; `None` is everybody on this machine, and nobody else.
    pub credentials: Option<ApiCredentials>,
}

/// Who may call the HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiCredentials {
    /// SecretId.
    pub secret_id: String,
    /// SecretKey.
    pub secret_key: Secret,
}

/// Where rules come from besides MQTT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesConfig {
    /// The file; `None` with `[mqtt]`.
    pub file: Option<RulesFile>,
    /// The API may make rules of its own.
    pub allow_local: bool,
}

/// A file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesFile {
    /// Where it is.
    pub path: PathBuf,
    /// It was named, so it must be there; the default one may be missing.
    pub named: bool,
}

/// The link to the fleet as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttConfig {
    /// The broker: `mqtt://` or `mqtts://`.
    pub url: Address,
    /// The fleet's name in topics.
    pub fleet: String,
    /// Certificates of the authorities to trust, PEM; `None` is the usual ones.
    pub ca: Option<Secret>,
    /// The box's own certificate and key, PEM.
    pub identity: Option<MqttIdentity>,
    /// Ed25519 keys of which one must have signed a rule set, base64; empty asks for no signature.
    pub rules_public_keys: Vec<RulesKey>,
}

/// What the box shows the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttIdentity {
    /// Certificate chain, PEM.
    pub cert: Secret,
    /// Private key, PEM.
    pub key: Secret,
}

impl RtmpConfig {
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let listen = read_listen(&mut section, "0.0.0.0:1935", reading);
        let push_key = section.secret("push_key", reading).unwrap_or_default();
        section.finish(reading);
        RtmpConfig { listen, push_key }
    }
}

impl ApiConfig {
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let listen = read_listen(&mut section, "127.0.0.1:8080", reading);
        let before = reading.count();
        let id = section.secret("secret_id", reading).unwrap_or_default();
        let secret_key = section.secret("secret_key", reading).unwrap_or_default();
        let credentials = match (id.is_empty(), secret_key.is_empty()) {
            (false, false) => {
                Some(ApiCredentials { secret_id: id.expose().to_owned(), secret_key })
            }
            (true, true) => None,
            (true, false) => {
                section.fault("secret_id", "is needed beside secret_key", reading);
                None
            }
            (false, true) => {
                section.fault("secret_key", "is needed beside secret_id", reading);
                None
            }
        };
        let open = listen.is_some_and(|addr| !addr.ip().is_loopback());
        if open && credentials.is_none() && reading.count() == before {
            let what = "is reachable from outside, so it needs secret_id and secret_key";
            section.fault("listen", what, reading);
        }
        section.finish(reading);
        ApiConfig { listen, credentials }
    }
}

fn read_listen(
    section: &mut Section<'_>,
    default: &str,
    reading: &mut Reading<'_>,
) -> Option<SocketAddr> {
    let parse = |text: &str| match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("is not an address like {default}")),
    };
    section
        .parsed("listen", reading, parse)
        .unwrap_or_else(|| parse(default).expect("the default is an address"))
}

impl RulesConfig {
    pub(super) fn read(mut section: Section<'_>, mqtt: bool, reading: &mut Reading<'_>) -> Self {
        if mqtt && section.has("file") {
            let what = "cannot be had with [mqtt]: rules come from the fleet then";
            section.fault("file", what, reading);
        }
        let named = section.path("file", reading);
        let file = match named {
            _ if mqtt => None,
            Some(path) => Some(RulesFile { path, named: true }),
            None => Some(RulesFile { path: reading.folder.join("rules.json"), named: false }),
        };
        let allow_local = section.flag("allow_local", reading).unwrap_or(true);
        section.finish(reading);
        RulesConfig { file, allow_local }
    }
}

impl MqttConfig {
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let url = required(&mut section, "url", reading, |section, key, reading| {
            section.parsed(key, reading, |text| {
                Address::parse(text, &["mqtts", "mqtt"]).map_err(|error| error.to_string())
            })
        });
        let fleet = required(&mut section, "fleet", reading, |section, key, reading| {
            section.parsed(key, reading, topic_part)
        });
        let ca = section.pem("ca", reading);
        let (has_cert, has_key) = (section.has("cert"), section.has("key"));
        let (cert, key) = (section.pem("cert", reading), section.pem("key", reading));
        if has_cert != has_key {
            let (missing, given) = if has_cert { ("key", "cert") } else { ("cert", "key") };
            section.fault(missing, format!("is needed beside {given}"), reading);
        }
        let keys = section.list("rules_public_keys", PUBLIC_KEYS_MAX, reading, public_key);
        section.finish(reading);
        let identity = cert.zip(key).map(|(cert, key)| MqttIdentity { cert, key });
        Some(MqttConfig { url: url?, fleet: fleet?, ca, identity, rules_public_keys: keys })
    }
}

/// A name that can be part of an MQTT topic.
pub(super) fn topic_part(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > TOPIC_PART_BYTES_MAX || !text.bytes().all(plain) {
        let what = "letters, digits, `.`, `_` and `-`";
        return Err(format!("is not 1 to {TOPIC_PART_BYTES_MAX} {what}"));
    }
    Ok(text.to_owned())
}

/// 32 bytes in base64.
fn public_key(text: &str) -> Result<RulesKey, String> {
    RulesKey::from_base64(text)
        .ok_or_else(|| "is not an Ed25519 public key (32 bytes) in base64".to_owned())
}
