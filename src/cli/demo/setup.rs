//! What the demo's box is built from: a ring of its own in the system's temporary folder, and the
//! ordinary configuration and rules, made in code.

use std::fs;
use std::path::Path;

use crate::cli::demo::DemoError;
use crate::config::{Config, RulesFile, Target};
use crate::domain::rule_set::RuleSet;
use crate::platform::flash::Flash;
use crate::platform::scratch::ScratchDir;

/// The budget of the ring: slots, catalog and all.
const RING_BYTES: u64 = 256 << 20;
/// Left free beside the ring.
const SPARE_BYTES: u64 = 16 << 20;

/// Everything but what depends on where the ring and the files lie.
const CONFIG: &str = r#"
[box]
id = "demo"
[ring]
capacity = "256MiB"
slot = "4MiB"
create = true
hls_clip_max = "30m"
[rtmp]
listen = "127.0.0.1:0"
[api]
listen = "127.0.0.1:0"
[upload]
target = "directory"
path = "."
"#;

/// Every stream in every format.
const RULES: &str = r#"{
  "revision": 1,
  "templates": [
    {
      "TemplateName": "demo",
      "FlvParam": {"Enable": 1},
      "HlsParam": {"Enable": 1},
      "Mp4Param": {"Enable": 1},
      "AacParam": {"Enable": 1}
    }
  ],
  "rules": [{"DomainName": "", "AppName": "", "StreamName": "", "TemplateName": "demo"}]
}
"#;

/// A folder in the temporary one for ring and rules; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Setup(ScratchDir);

impl Setup {
    /// Makes the folder, if there is room for the ring.
    pub(super) fn new(flash: &dyn Flash) -> Result<Setup, DemoError> {
        let parent = std::env::temp_dir();
        let failed = |source| DemoError::Folder { path: std::env::temp_dir(), source };
        let free_bytes = flash.space(&parent).map_err(failed)?.free_bytes;
        let need_bytes = RING_BYTES + SPARE_BYTES;
        if free_bytes < need_bytes {
            return Err(DemoError::NoRoom { path: parent, free_bytes, need_bytes });
        }
        Ok(Setup(ScratchDir::new().map_err(failed)?))
    }

    /// The configuration of a box whose ring lies here and that delivers to `folder`.
    pub(super) fn config(&self, flash: &dyn Flash, folder: &Path) -> Result<Config, DemoError> {
        let mut config = Config::parse(CONFIG, self.0.path(), flash)?;
        RuleSet::parse(RULES.as_bytes())?;
        let rules = self.0.path().join("rules.json");
        fs::write(&rules, RULES)
            .map_err(|source| DemoError::Folder { path: rules.clone(), source })?;
        config.ring.path = self.0.path().join("ring");
        config.rules.file = Some(RulesFile { path: rules, named: true });
        if let Some(upload) = &mut config.upload {
            // Set here, not written above: a path need not be UTF-8.
            upload.target = Target::Directory { path: folder.to_owned() };
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::files::FileFormat;
    use crate::platform::flash::SystemFlash;

    #[test]
    fn the_configuration_is_an_ordinary_one_and_leaves_nothing_behind() {
        let setup = Setup::new(&SystemFlash).expect("room");
        let config = setup.config(&SystemFlash, Path::new("/here")).expect("sound");
        assert_eq!(config.ring.capacity_bytes, RING_BYTES);
        assert!(config.ring.path.starts_with(std::env::temp_dir()));
        let here = Target::Directory { path: "/here".into() };
        assert_eq!(config.upload.map(|upload| upload.target), Some(here));
        let file = config.rules.file.expect("named");
        let document = file.load(&SystemFlash).expect("sound").expect("there");
        let template = document.rules.template("demo").expect("there");
        for format in FileFormat::ALL {
            assert!(template.params(format).is_some(), "{format}");
        }
        let folder = config.ring.path.parent().expect("a folder of its own").to_owned();
        assert!(folder.join("rules.json").exists());
        drop(setup);
        assert!(!folder.exists());
    }
}
