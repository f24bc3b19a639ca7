//! A simulated broker: documents of the fleet arrive twice, late, in another order, or poisoned.

use edgerec::sim::random::Random;

/// The camera that no document ever has recorded.
pub const SECRET: &str = "secret";

#[derive(Default)]
pub struct Broker {
    revision: u64,
    history: Vec<Vec<u8>>,
    /// The newest good revision that arrived.
    pub arrived: u64,
}

/// What arrives, and its revision if it is good.
pub struct Arrival {
    pub bytes: Vec<u8>,
    pub revision: Option<u64>,
}

impl Broker {
    /// Publishes new rules, of which some have a camera not recorded.
    pub fn publish(&mut self, random: &mut Random) -> Arrival {
        self.revision += random.between(1, 3);
        let revision = self.revision;
        let template = |of: u64| if of == 0 { "none" } else { "all" };
        let (gate, hall) = (template(random.below(6)), template(random.below(4)));
        let text = format!(
            r#"{{"revision": {revision}, "apply": {{"mode": "restart", "within_s": 0}},
            "templates": [{{"TemplateName": "none"}},
             {{"TemplateName": "all", "Mp4Param": {{"Enable": 1, "RecordInterval": 120}},
              "FlvParam": {{"Enable": 1, "RecordInterval": 300}}}}],
            "rules": [
             {{"DomainName": "", "AppName": "live", "StreamName": "gate", "TemplateName": "{gate}"}},
             {{"DomainName": "", "AppName": "live", "StreamName": "hall", "TemplateName": "{hall}"}},
             {{"DomainName": "", "AppName": "live", "StreamName": "{SECRET}",
               "TemplateName": "none"}}]}}"#
        );
        self.history.push(text.clone().into_bytes());
        Arrival { bytes: text.into_bytes(), revision: Some(revision) }
    }

    /// What arrives beside the new: something old once more, or something that is no document.
    pub fn noise(&self, random: &mut Random) -> Arrival {
        let bytes = match random.below(6) {
            0 => Vec::new(),
            1 => b"{\"revision\": 99999, \"rules\": [".to_vec(),
            2 => {
                br#"{"revision": 99999, "fleet": "another", "templates": [], "rules": []}"#.to_vec()
            }
            3 => vec![0xff; 20_000],
            4 => br#"{"revision": 99999, "templates": [], "rules": [], "surprise": 1}"#.to_vec(),
            _ => {
                let at = random.below(self.history.len() as u64) as usize;
                self.history.get(at).cloned().unwrap_or_default()
            }
        };
        Arrival { bytes, revision: None }
    }
}
