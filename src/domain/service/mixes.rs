//! What external mixers make of streams. The box mixes nothing itself: a mix declares that a stream
//! which a mixer publishes is made of others, so that recordings know which is which.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::service::{Changes, Kind, Refusal};

/// Mixes at the same time.
const MIXES_MAX: usize = 256;
/// Streams that go into one mix.
pub const INPUTS_MAX: usize = 16;
/// Longest name of a mix or stream, in bytes.
const NAME_BYTES_MAX: usize = 80;

/// What becomes of the name of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// OutputStreamType 0: the mixed stream takes the name of one of its inputs.
    TakesInput,
    /// OutputStreamType 1: it has a name of its own.
    New,
}

/// A declared mix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// MixStreamSessionId.
    pub session: String,
    /// Names of the streams that go in.
    pub inputs: Vec<String>,
    /// Name of what comes out.
    pub output: String,
    /// How that name stands to the inputs.
    pub kind: Output,
}

/// All mixes.
#[derive(Debug, Clone, Default)]
pub struct Mixes(BTreeMap<String, Mix>);

impl Mixes {
    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let mix = serde_json::from_str(content).map_err(|error| error.to_string())?;
        self.0.insert(key.to_owned(), mix);
        Ok(())
    }

    /// Declares a mix, or changes the inputs of one. `is_live` tells whether a stream of this name
    /// is live.
    ///
    /// # Errors
    /// Names or numbers of streams are not allowed, or the output is another one than before.
    pub fn declare(
        &mut self,
        mix: Mix,
        is_live: impl Fn(&str) -> bool,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        check_name(&mix.session, "MixStreamSessionId")?;
        if !(1..=INPUTS_MAX).contains(&mix.inputs.len()) {
            let what =
                format!("there are {} inputs, 1..={INPUTS_MAX} are allowed", mix.inputs.len());
            return Err(Refusal::new("InvalidParameter.InputNumLimitExceeded", what));
        }
        mix.inputs.iter().try_for_each(|input| check_name(input, "InputStreamName"))?;
        check_name(&mix.output, "OutputStreamName")?;
        let bad_output = |what| Err(Refusal::new("InvalidParameter.InvalidOutputStreamID", what));
        let is_input = mix.inputs.contains(&mix.output);
        let before = self.0.get(&mix.session);
        if before.is_some_and(|before| (&before.output, before.kind) != (&mix.output, mix.kind)) {
            let what = "the mix has another output already; cancel it first";
            return Err(Refusal::new("InvalidParameter.SessionOutputStreamChanged", what));
        }
        match mix.kind {
            Output::TakesInput if !is_input => {
                return bad_output("the output is none of the inputs");
            }
            Output::New if is_input => return bad_output("the output is one of the inputs"),
            Output::New if before.is_none() && is_live(&mix.output) => {
                return bad_output("a stream of that name is live");
            }
            _ => {}
        }
        let taken = |other: &Mix| other.output == mix.output && other.session != mix.session;
        if self.0.values().any(taken) {
            return bad_output("another mix has that output");
        }
        if before.is_none() && self.0.len() >= MIXES_MAX {
            let what = format!("there are {MIXES_MAX} mixes already");
            return Err(Refusal::new("FailedOperation.ProcessMixError", what));
        }
        changes.put(Kind::Mix, &mix.session, &mix);
        self.0.insert(mix.session.clone(), mix);
        Ok(())
    }

    /// Ends a mix.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn cancel(&mut self, session: &str, changes: &mut Changes) -> Result<(), Refusal> {
        if self.0.remove(session).is_none() {
            let what = "there is no such mix";
            return Err(Refusal::new("InvalidParameter.CancelSessionNotExist", what));
        }
        changes.delete(Kind::Mix, session);
        Ok(())
    }

    /// The mix whose mixer may publish to the stream name of one of its inputs.
    #[must_use]
    pub fn taking(&self, session: &str, stream: &str) -> Option<&Mix> {
        let mix = self.0.get(session)?;
        (mix.kind == Output::TakesInput && mix.output == stream).then_some(mix)
    }

    /// Whether a mix makes a stream of this name.
    #[must_use]
    pub fn makes(&self, stream: &str) -> bool {
        self.0.values().any(|mix| mix.output == stream)
    }

    /// How the mix that makes this stream stands to its inputs.
    #[must_use]
    pub fn output_kind(&self, stream: &str) -> Option<Output> {
        self.0.values().find(|mix| mix.output == stream).map(|mix| mix.kind)
    }
}

/// The `mix` parameter of a push URL: which mix the publisher is the mixer of.
#[must_use]
pub fn mix_of_query(query: &str) -> Option<&str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == "mix").map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// Letters, digits and `_`; stream names may have `-` and `.` too, as pushes have.
fn check_name(name: &str, field: &str) -> Result<(), Refusal> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        let what = format!("{field}: not 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-` and `.`");
        return Err(Refusal::new("InvalidParameter", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(session: &str, inputs: &[&str], output: &str, kind: Output) -> Mix {
        let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
        Mix { session: session.to_owned(), inputs, output: output.to_owned(), kind }
    }

    fn declare(mixes: &mut Mixes, mix: Mix) -> Result<(), &'static str> {
        let declared = mixes.declare(mix, |name| name == "live1", &mut Changes::new());
        declared.map_err(|refusal| refusal.code)
    }

    #[test]
    fn outputs_are_what_their_type_says() {
        let mut mixes = Mixes::default();
        let bad = Err("InvalidParameter.InvalidOutputStreamID");
        assert_eq!(declare(&mut mixes, mix("m", &["a", "b"], "c", Output::TakesInput)), bad);
        assert_eq!(declare(&mut mixes, mix("m", &["a", "b"], "a", Output::New)), bad);
        assert_eq!(declare(&mut mixes, mix("m", &["a", "b"], "live1", Output::New)), bad);
        assert_eq!(declare(&mut mixes, mix("m", &["a", "b"], "a", Output::TakesInput)), Ok(()));
        assert_eq!(declare(&mut mixes, mix("n", &["a", "b"], "a", Output::TakesInput)), bad);
        assert!(mixes.taking("m", "a").is_some() && mixes.taking("m", "b").is_none());
        assert!(mixes.makes("a") && !mixes.makes("b"));
    }

    #[test]
    fn a_mix_changes_its_inputs_but_not_its_output() {
        let mut mixes = Mixes::default();
        assert_eq!(declare(&mut mixes, mix("m", &["a"], "a", Output::TakesInput)), Ok(()));
        assert_eq!(declare(&mut mixes, mix("m", &["a", "c"], "a", Output::TakesInput)), Ok(()));
        let other = declare(&mut mixes, mix("m", &["a", "c"], "c", Output::TakesInput));
        assert_eq!(other, Err("InvalidParameter.SessionOutputStreamChanged"));
        let gone = mixes.cancel("x", &mut Changes::new()).map_err(|refusal| refusal.code);
        assert_eq!(gone, Err("InvalidParameter.CancelSessionNotExist"));
        mixes.cancel("m", &mut Changes::new()).expect("cancelled");
        assert!(!mixes.makes("a"));
    }

    #[test]
    fn numbers_and_names_are_bounded() {
        let mut mixes = Mixes::default();
        let many: Vec<String> = (0..17).map(|number| format!("s{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let over = declare(&mut mixes, mix("m", &many, "s0", Output::TakesInput));
        assert_eq!(over, Err("InvalidParameter.InputNumLimitExceeded"));
        let blank = declare(&mut mixes, mix("m m", &["a"], "a", Output::TakesInput));
        assert_eq!(blank, Err("InvalidParameter"));
        assert_eq!(mix_of_query("txTime=1&mix=m1&x=2"), Some("m1"));
        assert_eq!(mix_of_query("mixer=m1"), None);
    }
}
