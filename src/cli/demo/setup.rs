//! What the demo's box is built from: a ring of its own in the system's temporary folder, and the
//! ordinary configuration and rules, made in code.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cli::demo::DemoError;
use crate::config::{Config, RulesFile, Target};
use crate::domain::rule_set::RuleSet;
use crate::platform::flash::Flash;
use crate::platform::random::random_u64;

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

/// A private folder that goes when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder below `parent`, which must have room for the ring.
    pub(super) fn new(flash: &dyn Flash, parent: &Path) -> Result<Scratch, DemoError> {
        let failed = |source: io::Error| DemoError::Folder { path: parent.to_owned(), source };
        let free_bytes = flash.space(parent).map_err(failed)?.free_bytes;
        let need_bytes = RING_BYTES + SPARE_BYTES;
        if free_bytes < need_bytes {
            return Err(DemoError::NoRoom { path: parent.to_owned(), free_bytes, need_bytes });
        }
        let path = parent.join(format!("edgerec-demo-{:016x}", random_u64()));
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Scratch(path))
    }

    /// The configuration of a box whose ring lies here and that delivers to `folder`.
    pub(super) fn config(&self, flash: &dyn Flash, folder: &Path) -> Result<Config, DemoError> {
        let mut config = Config::parse(CONFIG, &self.0, flash)?;
        RuleSet::parse(RULES.as_bytes())?;
        let rules = self.0.join("rules.json");
        fs::write(&rules, RULES)
            .map_err(|source| DemoError::Folder { path: rules.clone(), source })?;
        config.ring.path = self.0.join("ring");
        config.rules.file = Some(RulesFile { path: rules, named: true });
        if let Some(upload) = &mut config.upload {
            // Set here, not written above: a path need not be UTF-8.
            upload.target = Target::Directory { path: folder.to_owned() };
        }
        Ok(config)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary folder, where it will be.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::files::FileFormat;
    use crate::platform::flash::SystemFlash;

    #[test]
    fn the_configuration_is_an_ordinary_one_and_leaves_nothing_behind() {
        let parent = tempfile::tempdir().expect("scratch");
        let scratch = Scratch::new(&SystemFlash, parent.path()).expect("room");
        let config = scratch.config(&SystemFlash, Path::new("/here")).expect("sound");
        assert_eq!(config.ring.capacity_bytes, RING_BYTES);
        assert!(config.ring.path.starts_with(parent.path()));
        let here = Target::Directory { path: "/here".into() };
        assert_eq!(config.upload.map(|upload| upload.target), Some(here));
        let file = config.rules.file.expect("named");
        let document = file.load(&SystemFlash).expect("sound").expect("there");
        let template = document.rules.template("demo").expect("there");
        for format in FileFormat::ALL {
            assert!(template.params(format).is_some(), "{format}");
        }
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).expect("there").count(), 0);
    }
}
