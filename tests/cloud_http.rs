//! The door of the cloud API, from outside: who is let in, and that every answer is one that the
//! official SDK understands. What the SDK makes of an answer is from the contract's record of it.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use support::cloud_api::{Answer, Request, Signer, ask, ask_ok, code, send, send_raw, unix_now};
use support::edge_box::{BoxPlan, EdgeBox};
use support::wait::wait_for;

const ID: &str = "AKIDEXAMPLE";
/// In no log by chance.
const KEY: &str = "canarySecretKey71c0";
const SOON: Duration = Duration::from_secs(20);
/// More than a request may have, in bytes.
const TOO_LONG: usize = (1 << 20) + 1;

fn box_with_secret() -> EdgeBox {
    let keys = format!("secret_id = \"{ID}\"\nsecret_key = \"{KEY}\"\n");
    BoxPlan::default().api_setting(&keys).env("EDGEREC_LOG", "trace").start()
}

fn signer() -> Signer {
    Signer::new(ID, KEY)
}

/// The parameters of an older request.
fn old_style(action: &str, nonce: u64) -> Value {
    json!({"Action": action, "Version": "2018-08-01", "Nonce": nonce.to_string()})
}

/// What the official SDK does with an answer of the box: the code it raises, or `ok`.
#[track_caller]
fn understood(answer: &Answer) -> String {
    let text = include_str!("data/contracts/sdk_client_behaviour.json");
    let contract: Value = serde_json::from_str(text).expect("JSON");
    let content_type = answer.header("content-type");
    assert_eq!(content_type.len(), 1, "{answer:?}");
    let body = answer.json();
    // An answer is like one of the record if it has the same members where it counts.
    let shape = |body: &Value| {
        let response = &body["Response"];
        (response.is_object(), response["Error"].is_object(), response["RequestId"].is_string())
    };
    let cases = contract["cases"].as_array().expect("cases");
    let like = cases.iter().find(|case| {
        let given: Value =
            serde_json::from_str(case["body"].as_str().expect("text")).expect("JSON");
        case["content_type"] == content_type[0]
            && case["status"] == answer.status
            && shape(&given) == shape(&body)
    });
    let like = like.unwrap_or_else(|| panic!("the SDK was never given the like: {answer:?}"));
    let is_error = shape(&body).1;
    match like["outcome"].as_str() {
        Some("ok") => assert!(!is_error, "the SDK loses the error: {answer:?}"),
        _ => assert_eq!(like["code"], "InvalidParameterValue", "the SDK loses it: {answer:?}"),
    }
    let id = body["Response"]["RequestId"].as_str().expect("it is text");
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
    answer.code()
}

/// Sends a request; what the SDK makes of the answer.
#[track_caller]
fn outcome(to: SocketAddr, request: &Request) -> String {
    understood(&send(to, request))
}

#[test]
fn the_record_of_the_sdk_tells_good_answers_from_lost_ones() {
    let answer = |status, content_type: &str, body: &str| Answer {
        status,
        headers: vec![("content-type".to_owned(), content_type.to_owned())],
        body: body.as_bytes().to_vec(),
    };
    let id = "00000000-0000-4000-8000-000000000002";
    let error =
        format!(r#"{{"Response":{{"Error":{{"Code":"X","Message":"m"}},"RequestId":"{id}"}}}}"#);
    assert_eq!(understood(&answer(200, "application/json", &error)), "X");
    for (status, content_type, body) in [
        (400, "application/json", error.as_str()),
        (200, "application/json; charset=utf-8", error.as_str()),
        (200, "application/json", r#"{"Response":{"Error":{"Code":"X","Message":"m"}}}"#),
        (200, "application/json", r#"{"TemplateId":5,"RequestId":"x"}"#),
    ] {
        let lost = answer(status, content_type, body);
        let told = std::panic::catch_unwind(|| understood(&lost));
        assert!(told.is_err(), "taken for good: {lost:?}");
    }
}

#[test]
fn every_form_of_a_signed_request_is_answered_so_that_the_sdk_understands() {
    let edge = box_with_secret();
    let (to, signer) = (edge.api(), signer());
    let describe = "DescribeLiveRecordTemplates";
    let create = json!({"TemplateName": "门-a_b", "FlvParam": {"Enable": "1"}});
    let created = signer.tc3(to, Request::json("CreateLiveRecordTemplate", &create));
    assert_eq!(outcome(to, &created), "ok");

    // TC3 in a GET: a form's content type is signed though there is no body.
    let get = Request::get("/?TemplateId=404")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-TC-Action", "DescribeLiveRecordTemplate")
        .header("X-TC-Version", "2018-08-01");
    assert_eq!(outcome(to, &signer.tc3(to, get)), "FailedOperation.NotFound");

    for (nonce, method) in [(1, None), (2_u64.pow(62), Some("HmacSHA1")), (3, Some("HmacSHA256"))] {
        let mut params = old_style(describe, nonce);
        if let Some(method) = method {
            params["SignatureMethod"] = json!(method);
        }
        let query = format!("/?{}", signer.v1(to, "GET", &params));
        let answer = send(to, &Request::get(&query));
        assert_eq!(understood(&answer), "ok", "{method:?}");
        let shown = &answer.response()["Templates"];
        assert!(shown.to_string().contains("门-a_b"), "{shown}");
        params["Nonce"] = json!((nonce + 100).to_string());
        params["IsDelayLive"] = json!("1");
        let form = Request::form("/", &signer.v1(to, "POST", &params));
        let answer = send(to, &form);
        assert_eq!(
            (understood(&answer).as_str(), &answer.response()["Templates"]),
            ("ok", &json!([]))
        );
    }
    let no_action = signer.tc3(to, Request::json("", &json!({})));
    assert_eq!(outcome(to, &no_action), "MissingParameter");
    assert!(!edge.log().contains(KEY), "the key is in the log");
}

#[test]
fn two_answers_never_have_the_same_request_id() {
    let edge = EdgeBox::start();
    let one = || ask(edge.api(), "DescribeLiveRecordRules", &json!({}))["RequestId"].to_string();
    assert_ne!(one(), one());
}

#[test]
fn what_is_not_signed_rightly_is_refused_and_does_nothing() {
    let edge = box_with_secret();
    let (to, signer) = (edge.api(), signer());
    let create = |name: &str| {
        let parameters = json!({"TemplateName": name, "FlvParam": {"Enable": 1}});
        Request::json("CreateLiveRecordTemplate", &parameters)
    };
    let signed = |name: &str| signer.tc3(to, create(name));
    let stranger = Signer::new("AKIDSTRANGER", KEY);
    let guess = Signer::new(ID, "guess");
    let old = format!("/?{}", signer.v1(to, "GET", &old_style("DescribeLiveRecordRules", 9)));
    let nonceless = json!({"Action": "DescribeLiveRecordRules", "Version": "2018-08-01"});
    let nonceless = format!("/?{}", signer.v1(to, "GET", &nonceless));
    let cases = [
        ("not signed", create("a1"), "AuthFailure.InvalidAuthorization"),
        ("other body", signed("a2").body(create("a3").body), "AuthFailure.SignatureFailure"),
        (
            "other blanks",
            signed("a4").body(format!("{} ", create("a4").body)),
            "AuthFailure.SignatureFailure",
        ),
        (
            "other query",
            Request { target: "/?Description=x".into(), ..signed("a5") },
            "AuthFailure.SignatureFailure",
        ),
        ("other host", signed("a6").header("Host", "box.example"), "AuthFailure.SignatureFailure"),
        (
            "other type",
            signed("a7").header("Content-Type", "application/json; charset=utf-8"),
            "AuthFailure.SignatureFailure",
        ),
        (
            "other time",
            signed("a8").header("X-TC-Timestamp", &(unix_now() + 7).to_string()),
            "AuthFailure.SignatureFailure",
        ),
        ("unknown id", stranger.tc3(to, create("a9")), "AuthFailure.SecretIdNotFound"),
        ("wrong key", guess.tc3(to, create("b1")), "AuthFailure.SignatureFailure"),
        (
            "no form",
            signed("b2").header("Authorization", "TC3-HMAC-SHA256 x"),
            "AuthFailure.InvalidAuthorization",
        ),
        ("temporary key", signed("b3").header("X-TC-Token", "t"), "AuthFailure.TokenFailure"),
        (
            "old, other value",
            Request::get(&old.replace("2018-08-01", "2018-08-02")),
            "AuthFailure.SignatureFailure",
        ),
        ("old, no nonce", Request::get(&nonceless), "AuthFailure.InvalidAuthorization"),
        (
            "old, in a body",
            Request::json("", &json!({})).body(&old[2..]),
            "AuthFailure.InvalidAuthorization",
        ),
    ];
    for (what, request, expected) in &cases {
        assert_eq!(outcome(to, request), *expected, "{what}");
    }
    let shown = send(to, &signer.tc3(to, Request::json("DescribeLiveRecordTemplates", &json!({}))));
    let templates = shown.response()["Templates"].clone();
    assert!(
        templates.as_array().expect("a list").iter().all(|t| t["TemplateName"] == "all"),
        "{templates}"
    );

    // The right one is let in, so it was the change that was refused.
    assert_eq!(outcome(to, &signed("c1")), "ok");
    let answer = send(to, &Request::get("/v2/index.php?Action=DescribeVodPlayInfo&fileName=x"));
    assert_eq!((answer.status, &answer.json()["code"]), (200, &json!(4_100)), "{answer:?}");
    assert!(!edge.log().contains(KEY), "the key is in the log");
}

#[test]
fn a_request_is_good_for_five_minutes_to_both_sides_and_an_older_one_once() {
    let edge = box_with_secret();
    let to = edge.api();
    let describe = || Request::json("DescribeLiveRecordRules", &json!({}));
    // Twenty seconds to both sides of the bound: the machine may be slow.
    for (off_by, expected) in [
        (-320, "AuthFailure.SignatureExpire"),
        (-280, "ok"),
        (280, "ok"),
        (320, "AuthFailure.SignatureExpire"),
    ] {
        let signer = signer().off_by(off_by);
        assert_eq!(outcome(to, &signer.tc3(to, describe())), expected, "TC3 {off_by} s");
        let old = signer.v1(to, "GET", &old_style("DescribeLiveRecordRules", 5));
        assert_eq!(outcome(to, &Request::get(&format!("/?{old}"))), expected, "old {off_by} s");
    }
    let query = signer().v1(to, "GET", &old_style("DescribeLiveRecordRules", 77));
    let overheard = Request::get(&format!("/?{query}"));
    assert_eq!(outcome(to, &overheard), "ok");
    assert_eq!(outcome(to, &overheard), "AuthFailure.SignatureFailure", "it was sent again");
    let fresh = signer().v1(to, "GET", &old_style("DescribeLiveRecordRules", 78));
    assert_eq!(outcome(to, &Request::get(&format!("/?{fresh}"))), "ok");
}

#[test]
fn without_a_secret_only_programs_of_this_machine_are_served() {
    let edge = EdgeBox::start();
    let to = edge.api();
    let create = |name: &str| {
        let parameters = json!({"TemplateName": name, "FlvParam": {"Enable": 1}});
        Request::json("CreateLiveRecordTemplate", &parameters)
    };
    let port = to.port();
    for foreign in [
        create("a").header("Host", &format!("box.example:{port}")),
        create("b").header("Host", "192.0.2.1"),
        create("c").header("Origin", "http://evil.example"),
        create("d").header("Origin", "null"),
        create("e").header("Origin", &format!("http://127.0.0.1:{}", port - 1)),
        Request::get("/?Action=DescribeLiveRecordRules").header("Host", "rebound.example"),
    ] {
        let answer = send(to, &foreign);
        assert_eq!(answer.status, 403, "{foreign:?}: {answer:?}");
    }
    let own = create("own")
        .header("Host", &format!("localhost:{port}"))
        .header("Origin", &format!("http://localhost:{port}"));
    assert_eq!(outcome(to, &own), "ok");
    let shown = ask_ok(to, "DescribeLiveRecordTemplates", &json!({}))["Templates"].clone();
    let shown = shown.as_array().expect("a list").iter();
    let names: Vec<&Value> = shown.map(|template| &template["TemplateName"]).collect();
    assert_eq!(names, ["all", "own"]);
}

#[test]
fn without_a_secret_the_box_listens_nowhere_but_on_this_machine() {
    let edge = BoxPlan::default().prepare();
    edge.cli_ok(&["format"]);
    let path = edge.dir().join("edgerec.toml");
    let config = fs::read_to_string(&path).expect("written");
    let (before, api) = config.split_once("[api]").expect("a section");
    fs::write(&path, format!("{before}[api]{}", api.replacen("127.0.0.1", "0.0.0.0", 1)))
        .expect("written");
    let (status, log) = edge.run_to_its_end(SOON);
    assert_eq!(status.code(), Some(64), "{log}");
    assert!(log.contains("secret"), "{log}");
}

#[test]
fn what_cannot_be_read_is_told_why() {
    let edge = EdgeBox::start();
    let to = edge.api();
    let describe = || Request::json("DescribeLiveRecordRules", &json!({}));
    let nested = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
    let many = json!({"a": vec![0; 2_000]}).to_string();
    for (what, request, expected) in [
        ("no JSON", describe().body("{"), "InvalidParameter"),
        ("a list", describe().body("[]"), "InvalidParameter"),
        ("two documents", describe().body("{}{}"), "InvalidParameter"),
        ("twice the same", describe().body(r#"{"a":1,"a":2}"#), "InvalidParameter"),
        ("too deep", describe().body(nested), "InvalidParameter"),
        ("too many", describe().body(many), "InvalidParameter"),
        ("too long", describe().body("x".repeat(TOO_LONG)), "InvalidParameter"),
        ("unknown parameter", describe().body(r#"{"Extra":1}"#), "UnknownParameter"),
        (
            "in the query too",
            Request { target: "/?Extra=1".into(), ..describe() },
            "UnknownParameter",
        ),
        ("another form", describe().header("Content-Type", "text/xml"), "UnsupportedProtocol"),
        ("no name", describe().header("X-TC-Action", "a b"), "InvalidAction"),
        ("no such action", describe().header("X-TC-Action", "MakeCoffee"), "InvalidAction"),
        ("other version", describe().header("X-TC-Version", "2017-01-01"), "NoSuchVersion"),
        (
            "broken escape",
            Request::get("/?Action=DescribeLiveRecordRules&a=%zz"),
            "InvalidParameter",
        ),
        ("two actions", Request::get("/?Action=A&Action=B"), "InvalidParameter"),
    ] {
        assert_eq!(outcome(to, &request), expected, "{what}");
    }
    assert_eq!(outcome(to, &describe()), "ok", "it goes on");
    for no_call in [Request::get("/"), Request::json("", &json!({}))] {
        assert_eq!(send(to, &no_call).status, 404, "nobody is asked: {no_call:?}");
    }
}

#[test]
fn long_bodies_are_refused_however_they_come() {
    let edge = EdgeBox::start();
    let to = edge.api();
    let head = |rest: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nX-TC-Action: DropLiveStream\r\n\
                 Content-Type: application/json\r\n{rest}\r\n\r\n"
        )
    };
    let mut chunked = head("Transfer-Encoding: chunked").into_bytes();
    for _ in 0..20 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b' '; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(understood(&send_raw(to, &chunked)), "InvalidParameter");
    let longest = format!("{}{}", "{}", " ".repeat(TOO_LONG - 3));
    let described = Request::json("DescribeLiveRecordRules", &json!({})).body(longest);
    assert_eq!(outcome(to, &described), "ok", "as long as a body may be");
}

#[test]
fn each_action_has_its_own_rate_and_made_up_names_take_none_of_it() {
    let limits = "[limits]\nrequests_per_second = 2\n";
    let edge = BoxPlan::default().sections(limits).start();
    let to = edge.api();
    let describe = || ask(to, "DescribeLiveRecordRules", &json!({}));
    // How many come within one second of the box is up to the machine, so until it happens.
    let refused = wait_for(SOON, "three within a second", || {
        let answers: Vec<Value> = (0..20).map(|_| describe()).collect();
        answers.into_iter().find(|answer| code(answer) != "ok")
    });
    assert_eq!(code(&refused), "RequestLimitExceeded");
    wait_for(SOON, "another action and a later second are free", || {
        let other = code(&ask(to, "DescribeLiveRecordTemplates", &json!({}))).to_owned();
        (other == "ok" && code(&describe()) == "ok").then_some(())
    });
    let names = |from: u32| {
        for number in from..from + 300 {
            let made_up = format!("Made{number}Up");
            assert_eq!(code(&ask(to, &made_up, &json!({}))), "InvalidAction");
        }
    };
    // Once every name would have been counted in the same second, this second is as good as any.
    let real = [
        "DescribeLiveCallbackRules",
        "DescribeLiveCallbackTemplates",
        "DescribeLiveStreamOnlineList",
    ];
    for (round, action) in (0..).zip(real) {
        names(round * 1_000);
        assert_eq!(code(&ask(to, action, &json!({}))), "ok", "round {round}");
    }
}
