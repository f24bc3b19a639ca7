//! Configuration: `edgerec.toml` as written -> as used. Unknown keys are faults, and every fault
//! is reported at once, with line and column. Secrets may be in files of their own and never show
//! themselves. Relative paths start at the folder of the file.

mod control;
mod hardware;
mod limits;
mod quantity;
mod ring;
mod rules_file;
mod section;
mod upload;
mod upload_plan;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::domain::day_windows::time_zone;
use crate::domain::faults::Faults;
use crate::domain::fleet::document::Addressee;
use crate::domain::service::limits::ServiceLimits;
use crate::platform::flash::{Flash, Open, SystemFlash};

pub use control::{
    ApiConfig, ApiCredentials, MqttConfig, MqttIdentity, RtmpConfig, RulesConfig, RulesFile,
};
pub use hardware::Hardware;
pub use quantity::{BitRate, parse_bit_rate, parse_duration, parse_size};
pub use ring::{Endurance, RingConfig};
pub use rules_file::RulesDocument;
use section::{Reading, Section};
pub use upload::{CallbackConfig, S3Config, Target, TencentVodConfig, UploadConfig};
pub use upload_plan::UploadPlanConfig;

/// Longest configuration file, in bytes.
const CONFIG_BYTES_MAX: u64 = 256 << 10;
/// Longest name of a time zone, in bytes.
const TIMEZONE_BYTES_MAX: usize = 64;

/// The whole configuration as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[box]`
    pub identity: BoxConfig,
    /// `[ring]`
    pub ring: RingConfig,
    /// `[rtmp]`
    pub rtmp: RtmpConfig,
    /// `[api]`
    pub api: ApiConfig,
    /// `[rules]`
    pub rules: RulesConfig,
    /// `[mqtt]`: the fleet; `None` is no fleet.
    pub mqtt: Option<MqttConfig>,
    /// `[upload]`; `None` leaves files in the ring.
    pub upload: Option<UploadConfig>,
    /// `[callback]`
    pub callback: Option<CallbackConfig>,
    /// `[limits]`
    pub limits: ServiceLimits,
    /// What the hardware has, where `run --board` names it.
    pub hardware: Option<Hardware>,
}

/// Who the box is and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxConfig {
    /// Its name; `None` takes the one that `format` made.
    pub id: Option<String>,
    /// Name of its time zone, for upload windows and the console.
    pub timezone: String,
    /// The process shuts itself in, as far as the kernel can.
    pub sandbox: bool,
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults {
    /// The file.
    pub path: PathBuf,
    /// Its faults; places are `line 3, column 8, ring.slot`.
    pub faults: Faults,
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used:\n{}", self.path.display(), self.faults)
    }
}

impl std::error::Error for ConfigFaults {}

impl Config {
    /// Reads the file at `path`, and the secrets that it has in files.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Config, ConfigFaults> {
        Config::load_from(&SystemFlash, path)
    }

    /// As [`load`](Self::load), from any flash.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_from(flash: &dyn Flash, path: &Path) -> Result<Config, ConfigFaults> {
        let parsed = read_text(flash, path, CONFIG_BYTES_MAX)
            .map_err(|error| {
                let mut faults = Faults::new();
                faults.add("", format!("the file cannot be read: {error}"));
                faults
            })
            .and_then(|text| {
                let folder = path.parent().unwrap_or_else(|| Path::new(""));
                Config::parse(&text, folder, flash)
            });
        parsed.map_err(|faults| ConfigFaults { path: path.to_owned(), faults })
    }

    /// Parses the text of a file in `folder`; `flash` is for the secrets in files.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, folder: &Path, flash: &dyn Flash) -> Result<Config, Faults> {
        parse_document(text, Reading::new(text, folder, flash), Config::read)
    }

    /// Who the box is in its fleet, if it is in one; `made_id` is the name that `format` made.
    #[must_use]
    pub fn addressee(&self, made_id: &str) -> Option<Addressee> {
        let fleet = self.mqtt.as_ref()?.fleet.clone();
        let box_id = self.identity.id.clone().unwrap_or_else(|| made_id.to_owned());
        Some(Addressee { fleet, box_id })
    }

    fn read(mut file: Section<'_>, reading: &mut Reading<'_>) -> Config {
        let mut section = |name: &str, reading: &mut Reading<'_>| {
            file.table(name, reading).unwrap_or_else(|| Section::absent(name))
        };
        let identity = BoxConfig::read(section("box", reading), reading);
        let ring = RingConfig::read(section("ring", reading), reading);
        let rtmp = RtmpConfig::read(section("rtmp", reading), reading);
        let api = ApiConfig::read(section("api", reading), reading);
        let limits = limits::read(section("limits", reading), reading);
        let rules = section("rules", reading);
        let mqtt = file.table("mqtt", reading);
        let rules = RulesConfig::read(rules, mqtt.is_some(), reading);
        let mqtt = mqtt.and_then(|section| MqttConfig::read(section, reading));
        let upload =
            file.table("upload", reading).and_then(|section| UploadConfig::read(section, reading));
        let callback = file
            .table("callback", reading)
            .and_then(|section| CallbackConfig::read(section, reading));
        file.finish(reading);
        Config { identity, ring, rtmp, api, rules, mqtt, upload, callback, limits, hardware: None }
    }
}

impl BoxConfig {
    fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let id = section.parsed("id", reading, control::topic_part);
        let timezone = section.parsed("timezone", reading, |text| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
            let named = text.len() <= TIMEZONE_BYTES_MAX && text.bytes().all(plain);
            if !named || time_zone(text).is_none() {
                return Err("is not a time zone like Asia/Shanghai".to_owned());
            }
            Ok(text.to_owned())
        });
        let sandbox = section.flag("sandbox", reading).unwrap_or(true);
        section.finish(reading);
        let timezone = timezone.unwrap_or_else(|| "Asia/Shanghai".to_owned());
        BoxConfig { id, timezone, sandbox }
    }
}

/// The folder that a file is in; of a bare name, the current one.
#[must_use]
pub fn folder_of(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new(".")).to_owned()
}

/// Reads a document of TOML into what it stands for.
///
/// # Errors
/// Everything that is wrong with it.
fn parse_document<'a, T>(
    text: &str,
    mut reading: Reading<'a>,
    read: impl FnOnce(Section<'_>, &mut Reading<'a>) -> T,
) -> Result<T, Faults> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        reading.fault(error.span().as_ref(), "", error.message());
    }
    // What was recovered from broken text would bring faults that nobody wrote.
    if !errors.is_empty() {
        return Err(reading.into_faults());
    }
    let value = read(Section::of("", document.get_ref()), &mut reading);
    reading.into_faults().into_result(value)
}

/// The text of a file of at most `bytes_max` bytes.
fn read_text(flash: &dyn Flash, path: &Path, bytes_max: u64) -> io::Result<String> {
    let file = flash.open(path, Open::Read)?;
    let len = file.len()?;
    if len > bytes_max {
        return Err(io::Error::other(format!("it has {len} bytes, {bytes_max} at most")));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::eviction::OnFull;

    const FULL: &str = r#"
[box]
id = "box-01"
timezone = "Asia/Shanghai"
[ring]
path = "ring"
capacity = "8MiB"
slot = "1MiB"
sync_interval = "1s"
keep_all = true
create = true
on_full = "keep_undelivered"
hls_clip_max = "12h"
[rtmp]
listen = "0.0.0.0:1935"
push_key = "canary1"
[api]
listen = "0.0.0.0:8080"
secret_id = "AKID"
secret_key = { file = "secret" }
[rules]
allow_local = false
[mqtt]
url = "mqtts://user:canary2@broker:8883"
fleet = "venue"
ca = "ca.pem"
cert = """-----BEGIN CERTIFICATE-----
x"""
key = { file = "secret" }
rules_public_keys = ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
[upload]
target = "s3"
endpoint = "https://s3.example"
bucket = "b"
region = "r"
access_key_id = "id"
secret_access_key = "canary4"
prefix = "p/"
bandwidth = "8Mbit"
windows = ["22:00-06:00"]
[callback]
url = "https://hook.example/a"
key = "canary5"
appid = 1250000000
"#;

    fn parse(text: &str) -> Result<Config, Faults> {
        Config::parse(text, Path::new("/etc/edgerec"), &SystemFlash)
    }

    fn faults_of(text: &str) -> String {
        parse(text).expect_err("faulty").to_string()
    }

    #[test]
    fn defaults_of_the_design() {
        let config = parse("").expect("valid");
        assert_eq!(config.ring.path, Path::new("/data/edgerec"));
        assert_eq!((config.ring.capacity_bytes, config.ring.slot_bytes), (24 << 30, 16 << 20));
        assert_eq!(config.ring.sync_interval, Duration::from_secs(1));
        assert!(!config.ring.keep_all && !config.ring.create);
        assert_eq!(
            (config.ring.on_full, config.ring.hls_clip_max),
            (OnFull::OverwriteOldest, None)
        );
        assert_eq!(config.rtmp.listen, Some("0.0.0.0:1935".parse().expect("address")));
        assert!(config.rtmp.push_key.is_empty());
        assert_eq!(config.api.listen, Some("127.0.0.1:8080".parse().expect("address")));
        assert_eq!(config.api.credentials, None);
        let file = RulesFile { path: "/etc/edgerec/rules.json".into(), named: false };
        assert_eq!(config.rules, RulesConfig { file: Some(file), allow_local: true });
        assert_eq!((config.mqtt, config.upload, config.callback), (None, None, None));
        assert_eq!(config.identity.id, None);
        assert_eq!(config.identity.timezone, "Asia/Shanghai");
    }

    #[test]
    fn a_full_file_is_read_with_its_secrets_and_shows_none() {
        let dir = tempfile::tempdir().expect("scratch");
        fs::write(dir.path().join("secret"), "canary3\n").expect("written");
        fs::write(dir.path().join("ca.pem"), "canary6").expect("written");
        let path = dir.path().join("edgerec.toml");
        fs::write(&path, FULL).expect("written");
        let config = Config::load(&path).expect("valid");
        assert_eq!(config.ring.path, dir.path().join("ring"));
        assert_eq!(config.ring.hls_clip_max, Some(Duration::from_secs(43_200)));
        let credentials = config.api.credentials.as_ref().expect("given");
        assert_eq!(credentials.secret_key.expose(), "canary3");
        let mqtt = config.mqtt.as_ref().expect("given");
        assert_eq!(mqtt.ca.as_ref().expect("given").expose(), "canary6");
        assert_eq!(mqtt.url.credentials().expect("given").1.expose(), "canary2");
        assert!(mqtt.identity.is_some());
        assert_eq!(config.rules, RulesConfig { file: None, allow_local: false });
        let callback = config.callback.as_ref().expect("given");
        assert_eq!((callback.appid, callback.key.expose()), (1_250_000_000, "canary5"));
        let upload = config.upload.as_ref().expect("given");
        assert_eq!(upload.plan.bandwidth, Some(BitRate(8_000_000)));
        let Target::S3(s3) = &upload.target else { panic!("s3") };
        assert_eq!((s3.bucket.as_str(), s3.secret_access_key.expose()), ("b", "canary4"));
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn every_fault_is_reported_at_once_with_its_place() {
        let faults = faults_of(
            "surprise = 1\n[ring]\n  slot = \"17\"\ncapacity = 5\nsync_interval = \"1h\"\n\
             on_full = \"explode\"\npth = \"x\"\n[rtmp]\nlisten = \"here\"\n[api]\n\
             listen = \"0.0.0.0:80\"\n[mqtt]\nurl = \"http://u:canary@b\"\ncert = \"/nowhere\"\n\
             rules_public_keys = [\"short\"]\n[upload]\ntarget = \"s3\"\nwindows = [\"noon\", 1]\n\
             path = \"x\"\n[callback]\nkey = \"a b\"\n",
        );
        assert_eq!(
            faults,
            "line 1, column 1, surprise: is not a known key\n\
             line 3, column 10, ring.slot: is not a size like 24GiB\n\
             line 4, column 12, ring.capacity: is a number, a string is expected\n\
             line 5, column 17, ring.sync_interval: is outside 100ms..=10s\n\
             line 6, column 11, ring.on_full: `explode` is neither `overwrite_oldest` nor \
             `keep_undelivered`\n\
             line 7, column 1, ring.pth: is not a known key\n\
             line 9, column 10, rtmp.listen: is not an address like 0.0.0.0:1935\n\
             line 10, column 1, api.listen: is reachable from outside, so it needs secret_id and \
             secret_key\n\
             line 12, column 1, mqtt.fleet: is missing\n\
             line 12, column 1, mqtt.key: is needed beside cert\n\
             line 13, column 7, mqtt.url: begins with `http:`, allowed is mqtts:// or mqtt://\n\
             line 14, column 8, mqtt.cert: `/nowhere` cannot be read: No such file or directory \
             (os error 2)\n\
             line 15, column 22, mqtt.rules_public_keys[0]: is not an Ed25519 public key \
             (32 bytes) in base64\n\
             line 16, column 1, upload.endpoint: is missing\n\
             line 16, column 1, upload.bucket: is missing\n\
             line 16, column 1, upload.access_key_id: is missing\n\
             line 16, column 1, upload.secret_access_key: is missing\n\
             line 18, column 12, upload.windows[0]: is not a stretch of a day like 22:00-06:00\n\
             line 18, column 20, upload.windows[1]: is not a string\n\
             line 19, column 1, upload.path: is not a known key\n\
             line 20, column 1, callback.url: is missing\n\
             line 20, column 1, callback.key: is not at most 32 letters and digits"
        );
    }

    #[test]
    fn the_vod_platform_needs_a_key_only() {
        let section = "[ring]\npath = \"/r\"\ncapacity = \"1GiB\"\n[upload]\n\
                       target = \"tencent-vod\"\naccess_key_id = \"AKID\"\n\
                       secret_access_key = \"canary\"\n";
        let vod = |more: &str| {
            let upload = parse(&format!("{section}{more}")).expect("good").upload;
            let Some(Target::TencentVod(vod)) = upload.map(|upload| upload.target) else {
                panic!("another target");
            };
            vod
        };
        let least = vod("");
        assert_eq!((least.endpoint, least.storage_endpoint, least.sub_app_id), (None, None, None));
        let full = vod("endpoint = \"https://v.example\"\nsub_app_id = 1500000001\n\
                        storage_endpoint = \"http://10.0.0.3:9000\"\nregion = \"ap-x\"\n");
        assert_eq!(
            full.storage_endpoint.map(|a| a.origin()).as_deref(),
            Some("http://10.0.0.3:9000")
        );
        assert_eq!((full.region.as_deref(), full.sub_app_id), (Some("ap-x"), Some(1_500_000_001)));
        let faults = faults_of(&format!("{section}sub_app_id = 0\nbucket = \"b\"\n"));
        assert!(
            faults.contains("upload.sub_app_id") && faults.contains("upload.bucket"),
            "{faults}"
        );
    }

    #[test]
    fn a_number_of_an_account_needs_no_address_and_a_key_does() {
        let config = parse("[callback]\nappid = 7\n").expect("valid");
        let callback = config.callback.expect("given");
        assert_eq!((callback.url, callback.appid), (None, 7));
        let faults = faults_of("[callback]\nappid = 7\nkey = \"k\"\n");
        assert_eq!(faults, "line 1, column 1, callback.url: is missing");
        let faults = faults_of("[callback]\nurl = \"http://u:p@h/\"\n");
        assert!(faults.ends_with("credentials do not belong in the address"), "{faults}");
    }

    #[test]
    fn broken_text_is_reported_where_it_breaks() {
        let faults = faults_of("[ring]\nslot = \"1MiB\"\nslot = \"2MiB\"\n[rtmp\n");
        let places: Vec<&str> = faults.lines().map(|l| l.split(':').next().expect("at")).collect();
        assert_eq!(places, ["line 3, column 1", "line 4, column 6"], "{faults}");
    }

    #[test]
    fn small_rings_are_allowed_and_too_small_ones_are_not() {
        let ring = |capacity: &str, slot: &str| {
            parse(&format!("[ring]\ncapacity = \"{capacity}\"\nslot = \"{slot}\"\n"))
        };
        assert!(ring("8MiB", "1MiB").is_ok());
        let too_few = ring("8388607B", "1MiB").expect_err("too few").to_string();
        assert!(too_few.ends_with("ring.capacity: holds 7 slots, 8..=1000000 are allowed"));
        assert!(ring("8MiB", "1023KiB").is_err());
        assert!(ring("80MiB", "1048577B").is_err());
        assert!(ring("2TiB", "1MiB").is_err());
    }

    #[test]
    fn rules_come_from_a_file_or_from_the_fleet() {
        let both = "[rules]\nfile = \"r.json\"\n[mqtt]\nurl = \"mqtt://b\"\nfleet = \"f\"\n";
        let what = "cannot be had with [mqtt]";
        assert!(faults_of(both).contains(what));
        let named = parse("[rules]\nfile = \"r.json\"\n").expect("valid").rules.file;
        let expected = RulesFile { path: "/etc/edgerec/r.json".into(), named: true };
        assert_eq!(named, Some(expected));
    }

    #[test]
    fn listeners_can_be_turned_off_and_secrets_come_in_pairs() {
        let config = parse("[rtmp]\nlisten = \"\"\n[api]\nlisten = \"\"\n").expect("valid");
        assert_eq!((config.rtmp.listen, config.api.listen), (None, None));
        let one = faults_of("[api]\nsecret_key = \"k\"\n");
        assert_eq!(one, "line 1, column 1, api.secret_id: is needed beside secret_key");
        assert_eq!(faults_of("[upload]\n"), "line 1, column 1, upload.target: is missing");
    }

    #[test]
    fn a_missing_file_is_one_fault() {
        let faults = Config::load(Path::new("/nowhere/edgerec.toml")).expect_err("missing");
        assert!(faults.to_string().starts_with("/nowhere/edgerec.toml cannot be used:\n"));
        assert_eq!(faults.faults.iter().count(), 1);
    }

    proptest! {
        #[test]
        fn mutated_files_never_panic(at in 0..FULL.len(), byte in 0..128u8, cut in 0..FULL.len()) {
            let mut bytes = FULL.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = parse(&String::from_utf8_lossy(&bytes));
            let _ = parse(&FULL[..cut]);
        }
    }
}
