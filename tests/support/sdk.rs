//! A program written for the cloud: the official Python SDK with its typed clients (see `sdk.py`),
//! pointed at a box.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};

use serde_json::{Value, json};

use super::edge_box::EdgeBox;
use super::process::Process;
use super::python;

/// How the SDK signs, and in which HTTP method it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    pub sign_method: &'static str,
    pub req_method: &'static str,
    /// The signature leaves the body out; with TC3 only.
    pub unsigned_payload: bool,
}

impl Style {
    /// What the SDK does unless it is told otherwise.
    pub const DEFAULT: Style =
        Style { sign_method: "TC3-HMAC-SHA256", req_method: "POST", unsigned_payload: false };

    /// All that it can do.
    pub fn all() -> Vec<Style> {
        let sign_methods = ["TC3-HMAC-SHA256", "HmacSHA256", "HmacSHA1"];
        let mut styles = vec![Style { unsigned_payload: true, ..Style::DEFAULT }];
        for sign_method in sign_methods {
            for req_method in ["POST", "GET"] {
                styles.push(Style { sign_method, req_method, unsigned_payload: false });
            }
        }
        styles
    }
}

/// The SDK's own exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    pub code: String,
    pub message: String,
    pub request_id: String,
}

/// The SDK at work; its connection to the driver ends with it.
pub struct Sdk {
    process: Process,
    calls: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where it calls, and as whom.
    pub endpoint: String,
    pub secret_id: String,
    pub secret_key: String,
    /// Of temporary keys; empty for none.
    pub token: String,
    pub style: Style,
}

impl Sdk {
    /// Calls this box with these keys.
    #[track_caller]
    pub fn start(edge: &EdgeBox, secret_id: &str, secret_key: &str) -> Sdk {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/sdk.py");
        let mut command = Command::new(python());
        command.arg(script);
        let mut process = Process::converse(&command, "sdk.py", &edge.dir().join("sdk.log"));
        let calls = process.child().stdin.take().expect("stdin is piped");
        let answers = process.child().stdout.take().expect("stdout is piped");
        Sdk {
            process,
            calls,
            answers: BufReader::new(answers).lines(),
            endpoint: edge.api().to_string(),
            secret_id: secret_id.to_owned(),
            secret_key: secret_key.to_owned(),
            token: String::new(),
            style: Style::DEFAULT,
        }
    }

    /// An action of the live API that is answered; its members.
    #[track_caller]
    pub fn live(&mut self, action: &str, parameters: Value) -> Value {
        self.answered("live", action, parameters)
    }

    /// An action of the VOD API that is answered; its members.
    #[track_caller]
    pub fn vod(&mut self, action: &str, parameters: Value) -> Value {
        self.answered("vod", action, parameters)
    }

    /// An action of the live API that is refused: what the SDK raises.
    #[track_caller]
    pub fn live_raises(&mut self, action: &str, parameters: Value) -> Raised {
        self.raises("live", action, parameters)
    }

    /// An action of a service that is refused: what the SDK raises.
    #[track_caller]
    pub fn raises(&mut self, service: &str, action: &str, parameters: Value) -> Raised {
        let sent = parameters.to_string();
        match self.call(service, action, parameters) {
            Err(raised) => raised,
            Ok(answer) => panic!("{action} {sent} was to be refused: {answer}"),
        }
    }

    /// Calls an action with the SDK's models.
    ///
    /// # Errors
    /// What the SDK raised.
    #[track_caller]
    pub fn call(
        &mut self,
        service: &str,
        action: &str,
        parameters: Value,
    ) -> Result<Value, Raised> {
        self.ask(service, action, parameters, true)
    }

    /// Calls an action past the SDK's models: for what the cloud's API does not have.
    ///
    /// # Errors
    /// What the SDK raised.
    #[track_caller]
    pub fn call_untyped(
        &mut self,
        service: &str,
        action: &str,
        parameters: Value,
    ) -> Result<Value, Raised> {
        self.ask(service, action, parameters, false)
    }

    #[track_caller]
    fn answered(&mut self, service: &str, action: &str, parameters: Value) -> Value {
        let sent = parameters.to_string();
        match self.call(service, action, parameters) {
            Ok(answer) => answer,
            Err(raised) => panic!("{action} {sent} with {:?} raised {raised:?}", self.style),
        }
    }

    #[track_caller]
    fn ask(
        &mut self,
        service: &str,
        action: &str,
        parameters: Value,
        typed: bool,
    ) -> Result<Value, Raised> {
        let call = json!({
            "service": service, "action": action, "parameters": parameters, "typed": typed,
            "endpoint": self.endpoint, "secret_id": self.secret_id, "secret_key": self.secret_key,
            "token": self.token,
            "unsigned_payload": self.style.unsigned_payload,
            "sign_method": self.style.sign_method, "req_method": self.style.req_method,
        });
        let sent = writeln!(self.calls, "{call}").and_then(|()| self.calls.flush());
        let line = sent.ok().and_then(|()| self.answers.next()).and_then(Result::ok);
        let Some(line) = line else {
            self.process.kill();
            panic!("the driver of the SDK ended with {call}:\n{}", self.process.log_tail());
        };
        let mut told: Value = serde_json::from_str(&line).expect("the driver tells JSON");
        if let Some(raised) = told.get("raised") {
            let text = |name: &str| raised[name].as_str().unwrap_or_default().to_owned();
            let (code, message) = (text("code"), text("message"));
            return Err(Raised { code, message, request_id: text("request_id") });
        }
        Ok(told["response"].take())
    }
}
