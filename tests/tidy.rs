//! The shape of the tree as law: layers, sizes, names, docs. Each rule is a function from text to
//! findings, tried on a sample that breaks it (a rule that cannot fail proves nothing) and then
//! applied to the tree.

use std::fs;
use std::path::{Path, PathBuf};

/// Which layer may name which. Peers are not in each other's rows.
const LAYERS: [(&str, &[&str]); 14] = [
    ("domain", &[]),
    ("media", &["domain"]),
    ("wire", &["domain"]),
    ("platform", &["domain"]),
    ("ring", &["domain", "media", "platform"]),
    ("ingest", &["domain", "media", "wire", "platform"]),
    ("recorder", &["domain", "media", "ring"]),
    ("delivery", &["domain", "media", "wire", "ring", "platform"]),
    ("fleet", &["domain", "wire", "platform"]),
    ("api", &["domain", "media", "wire", "ring", "platform"]),
    ("config", &["domain", "platform"]),
    ("app", BELOW_APP),
    ("cli", BELOW_CLI),
    ("sim", BELOW_CLI),
];
const BELOW_APP: &[&str] = &[
    "domain", "media", "wire", "platform", "ring", "ingest", "recorder", "delivery", "fleet",
    "api", "config",
];
const BELOW_CLI: &[&str] = &[
    "domain", "media", "wire", "platform", "ring", "ingest", "recorder", "delivery", "fleet",
    "api", "config", "app",
];
/// What `src/main.rs` may name.
const BELOW_MAIN: &[&str] = &["app", "config", "cli"];

/// Layers that do no I/O and read no clock, and what would be one.
const PURE_LAYERS: [&str; 3] = ["domain", "media", "wire"];
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "tokio",
    "tracing",
    "SystemTime",
    "Instant::now",
    "TcpStream",
    "UdpSocket",
];

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 100;
/// Names that say nothing.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "common", "helper", "helpers", "manager", "types", "misc"];
/// What lies at the top; a new entry is a decision.
const TOP_LEVEL: [&str; 19] = [
    ".ci",
    ".clippy.toml",
    ".config",
    ".deny.toml",
    ".git",
    ".gitignore",
    ".rustfmt.toml",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "board",
    "src",
    "systemd",
    "tests",
    "yocto",
];
/// Paths of one machine; split so that this file does not have them.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

// ---------------------------------------------------------------------------------------------
// Reading source text

/// The text with comments and the content of string and character literals turned to blanks;
/// lines stay where they are.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` if none begins there.
fn skip(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let before_is_word = at > 0 && is_word(chars[at - 1]);
    match rest {
        ['/', '/', ..] => at + rest.iter().take_while(|c| **c != '\n').count(),
        ['/', '*', ..] => at + block_comment(rest),
        ['"', ..] => at + string(rest, 0),
        ['r', ..] if !before_is_word => raw_string(chars, at, at + 1),
        ['b', 'r', ..] if !before_is_word => raw_string(chars, at, at + 2),
        ['\'', '\\', ..] => at + 3 + rest.iter().skip(3).take_while(|c| **c != '\'').count() + 1,
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
    .min(chars.len())
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a string literal whose quote is at `quote`.
fn string(rest: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// The end of a raw string whose hashes or quote begin at `from`; `at` if it is none.
fn raw_string(chars: &[char], at: usize, from: usize) -> usize {
    let hashes = chars[from..].iter().take_while(|c| **c == '#').count();
    if chars.get(from + hashes) != Some(&'"') {
        return at;
    }
    let mut end = from + hashes + 1;
    while end < chars.len() {
        let closing = chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count();
        if chars[end] == '"' && closing == hashes {
            return end + 1 + hashes;
        }
        end += 1;
    }
    end
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Code before the tests of a file, and the tests.
fn split_tests(code: &str) -> (&str, &str) {
    let at = if code.starts_with("#[cfg(test)]") { Some(0) } else { code.find("\n#[cfg(test)]") };
    code.split_at(at.unwrap_or(code.len()))
}

/// Places of `word` where it stands alone.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

// ---------------------------------------------------------------------------------------------
// Rules over one source file: path below the repository, and text

/// The layer of a file below `src/`; `main` for the program's own file.
fn layer_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    match inside {
        "main.rs" => Some("main"),
        "lib.rs" | "build.rs" => None,
        _ => Some(inside.split(['/', '.']).next().unwrap_or(inside)),
    }
}

/// Modules named by `crate::…` or `edgerec::…`, with their places.
fn named_modules(code: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for root in ["crate", "edgerec"] {
        for at in words(code, root) {
            let Some(rest) = code[at + root.len()..].strip_prefix("::") else { continue };
            for name in first_names(rest) {
                named.push((at, name));
            }
        }
    }
    named
}

/// The first segment of a path, or of each path of a group.
fn first_names(rest: &str) -> Vec<String> {
    let ident = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![ident(rest)] };
    let mut depth = 0;
    let mut members = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => members.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                members.last_mut().expect("one at least").push(c);
            }
        }
    }
    members.iter().map(|member| ident(member.trim())).filter(|name| !name.is_empty()).collect()
}

fn layers(path: &str, source: &str) -> Vec<String> {
    let Some(layer) = layer_of(path) else { return Vec::new() };
    let code = code_only(source);
    let row = LAYERS.iter().find(|(name, _)| *name == layer).map(|(_, below)| *below);
    let Some(below) = row.or((layer == "main").then_some(BELOW_MAIN)) else {
        return vec![format!("{path}: `{layer}` is not in the table of layers")];
    };
    let mut findings: Vec<String> = named_modules(&code)
        .into_iter()
        .filter(|(_, name)| name != layer && !below.contains(&name.as_str()))
        .map(|(at, name)| {
            format!("{path}:{}: the layer {layer} may not name {name}", line_of(&code, at))
        })
        .collect();
    for (at, _) in code.match_indices("super::super") {
        findings.push(format!("{path}:{}: name modules from crate::", line_of(&code, at)));
    }
    findings
}

fn purity(path: &str, source: &str) -> Vec<String> {
    if !layer_of(path).is_some_and(|layer| PURE_LAYERS.contains(&layer)) {
        return Vec::new();
    }
    let code = code_only(source);
    let (product, _) = split_tests(&code);
    IMPURE
        .iter()
        .flat_map(|word| words(product, word).map(move |at| (*word, at)))
        .map(|(word, at)| format!("{path}:{}: {word} in a pure layer", line_of(product, at)))
        .collect()
}

fn module_doc(path: &str, source: &str) -> Vec<String> {
    if source.starts_with("//!") {
        return Vec::new();
    }
    vec![format!("{path}: does not begin with its doc (//!)")]
}

fn file_length(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let lines = split_tests(&code).0.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines before its tests, {FILE_LINES_MAX} are allowed")]
}

fn function_length(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let (product, _) = split_tests(&code);
    let mut findings = Vec::new();
    for at in words(product, "fn") {
        let Some(end) = function_end(&product[at..]) else { continue };
        let lines = product[at..at + end].matches('\n').count() + 1;
        if lines > FUNCTION_LINES_MAX {
            let line = line_of(product, at);
            findings.push(format!("{path}:{line}: a function of {lines} lines"));
        }
    }
    findings
}

/// The end of the function whose `fn` begins the text; `None` for one without a body.
fn function_end(text: &str) -> Option<usize> {
    let mut braces = 0;
    let mut brackets = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            // A function pointer inside a list ends with the list.
            _ if brackets < 0 => return None,
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces <= 1 => return (braces == 1).then_some(at + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

fn no_unsafe(path: &str, source: &str) -> Vec<String> {
    if layer_of(path) == Some("platform") {
        return Vec::new();
    }
    let code = code_only(source);
    let found = words(&code, "unsafe");
    found.map(|at| format!("{path}:{}: unsafe outside platform", line_of(&code, at))).collect()
}

fn no_unwrap(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let (product, _) = split_tests(&code);
    let found = product.match_indices(".unwrap()");
    found.map(|(at, _)| format!("{path}:{}: unwrap", line_of(product, at))).collect()
}

fn no_empty_name(path: &str, _source: &str) -> Vec<String> {
    let names = path.trim_end_matches(".rs").split('/');
    let empty = names.filter(|name| EMPTY_NAMES.contains(name));
    empty.map(|name| format!("{path}: `{name}` names nothing")).collect()
}

/// Tests wait for conditions. A method called sleep is somebody's simulated clock.
fn no_sleep_in_tests(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let (product, tests) = split_tests(&code);
    let (from, tests) =
        if path.starts_with("tests/") { (0, &code[..]) } else { (product.len(), tests) };
    let mut findings = Vec::new();
    for word in ["sleep", "sleep_until", "sleep_ms"] {
        for at in words(tests, word) {
            let before = tests[..at].trim_end();
            let called = tests[at + word.len()..].trim_start().starts_with('(');
            if called && !before.ends_with('.') && !before.ends_with(" fn") {
                findings.push(format!("{path}:{}: a test sleeps", line_of(&code, from + at)));
            }
        }
    }
    findings
}

// ---------------------------------------------------------------------------------------------
// Rules over documents and the tree

/// Paths in back quotes that begin like ours and are not there.
fn dead_paths(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let name = quoted.split([' ', ':']).next().unwrap_or(quoted).trim_end_matches('/');
            let ours = ["src/", "tests/", "board/", "systemd/", "yocto/", ".ci/"]
                .iter()
                .any(|top| name.starts_with(top));
            let pattern = name.contains(['*', '<', '{', '…']);
            if ours && !pattern && !exists(name) {
                findings.push(format!("{path}:{}: `{name}` is not there", index + 1));
            }
        }
    }
    findings
}

/// What git does not keep is no part of the repository.
fn top_level(names: &[String], ignored: &str) -> Vec<String> {
    let is_ignored = |name: &str| ignored.lines().any(|line| line.strip_suffix('/') == Some(name));
    let is_agreed = |name: &str| TOP_LEVEL.contains(&name);
    let surprising = names.iter().filter(|name| !is_agreed(name) && !is_ignored(name));
    surprising.map(|name| format!("{name}: not agreed at the top of the repository")).collect()
}

fn no_machine_path(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for machine in MACHINE_PATHS {
        for (at, _) in text.match_indices(machine) {
            let before = text[..at].chars().next_back();
            // Inside a longer path or an address it is something else.
            let inside = before.is_some_and(|c| is_word(c) || matches!(c, '.' | '-' | '}' | '*'));
            if !inside {
                findings.push(format!("{path}:{}: {machine}… is one machine's", line_of(text, at)));
            }
        }
    }
    findings
}

// ---------------------------------------------------------------------------------------------
// The tree

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Text files below `top`, with their paths below the repository.
fn files(top: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root().join(top), &mut found);
    found.sort();
    found
}

fn collect(path: &Path, found: &mut Vec<(String, String)>) {
    let name = path.file_name().unwrap_or_default();
    if name == "target" || name == ".git" {
        return;
    }
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a readable folder") {
            collect(&entry.expect("a readable entry").path(), found);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        let below = path.strip_prefix(root()).expect("below the root").to_string_lossy();
        found.push((below.into_owned(), text));
    }
}

fn rust_files(tops: &[&str]) -> Vec<(String, String)> {
    let all = tops.iter().flat_map(|top| files(top));
    all.filter(|(path, _)| path.ends_with(".rs")).collect()
}

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn apply(rule: fn(&str, &str) -> Vec<String>, tops: &[&str]) {
    let sources = rust_files(tops);
    assert!(!sources.is_empty(), "no source found");
    let findings: Vec<String> = sources.iter().flat_map(|(path, text)| rule(path, text)).collect();
    assert_none(&findings);
}

/// A rule must find what breaks it and leave alone what does not.
fn try_rule(rule: fn(&str, &str) -> Vec<String>, path: &str, bad: &[&str], good: &[&str]) {
    for sample in bad {
        assert!(!rule(path, sample).is_empty(), "not found in {path}: {sample}");
    }
    for sample in good {
        assert_eq!(rule(path, sample), [""; 0], "in {path}: {sample}");
    }
}

#[test]
fn literals_and_comments_are_not_code() {
    let source = "a /* b /* c */ */ \"d\\\" e\" 'f' '\\'' r#\"g\" h\"# br\"i\" &'j // k\nl";
    let words: Vec<String> = code_only(source).split_whitespace().map(ToOwned::to_owned).collect();
    assert_eq!(words, ["a", "&'j", "l"]);
    assert_eq!(code_only(source).lines().count(), 2);
}

#[test]
fn layers_point_down() {
    let bad = [
        "use crate::ring::x;",
        "use crate::{domain::a, media::{b, ring}};",
        "fn f() { crate::ingest::g() }",
        "use super::super::ring;",
        "#[cfg(test)]\nmod tests { use crate::app::x; }",
    ];
    let good = ["use crate::domain::a; // crate::ring", "use crate::{domain, wire::{b, ring}};"];
    try_rule(layers, "src/wire/rtmp/chunk.rs", &bad, &good);
    try_rule(layers, "src/main.rs", &["use edgerec::ring::x;"], &["use edgerec::{app, cli};"]);
    try_rule(layers, "src/ingest/mod.rs", &["use crate::recorder::x;"], &["use crate::ingest::x;"]);
    try_rule(layers, "src/novel/mod.rs", &["//! Nothing."], &[]);
    for (index, (layer, below)) in LAYERS.iter().enumerate() {
        let lower: Vec<&str> = LAYERS[..index].iter().map(|(name, _)| *name).collect();
        assert!(below.iter().all(|name| lower.contains(name)), "{layer} does not point down");
    }
    apply(layers, &["src"]);
}

#[test]
fn pure_layers_touch_nothing() {
    let bad = ["use std::fs;", "use tokio::net::TcpListener;", "let t = Instant::now();"];
    let good = ["// std::fs", "#[cfg(test)]\nmod tests { use std::fs; }", "let tokio_like = 1;"];
    try_rule(purity, "src/domain/a.rs", &bad, &good);
    try_rule(purity, "src/ring/a.rs", &[], &bad);
    apply(purity, &["src"]);
}

#[test]
fn every_file_begins_with_its_doc() {
    try_rule(module_doc, "src/a.rs", &["use b;\n//! Late.", ""], &["//! First."]);
    apply(module_doc, &["src", "tests"]);
}

#[test]
fn files_are_short() {
    let line = "x\n".repeat(FILE_LINES_MAX);
    let with_tests = format!("{line}#[cfg(test)]\nmod tests {{}}\n{line}");
    try_rule(file_length, "src/a.rs", &[&format!("{line}x\n")], &[&line, &with_tests]);
    apply(file_length, &["src"]);
}

#[test]
fn functions_are_short() {
    let body = |lines: usize| format!("fn a(b: [u8; 2]) -> [u8; 2] {{{}}}\n", "\n".repeat(lines));
    let inside = format!("mod m {{ impl X {{ {} }} }}", body(100));
    let many = format!("trait T {{ fn a(); fn b() {{}} }} {}", body(10).repeat(20));
    let strings = format!("fn a() {{ \"{{\"; }}\n{}", "const B: u8 = 1;\n".repeat(200));
    try_rule(function_length, "src/a.rs", &[&body(100), &inside], &[&body(99), &many, &strings]);
    apply(function_length, &["src"]);
}

#[test]
fn unsafe_is_in_platform_only() {
    let bad = ["fn a() { unsafe { b() } }"];
    try_rule(no_unsafe, "src/media/a.rs", &bad, &["#![forbid(unsafe_code)] // unsafe"]);
    try_rule(no_unsafe, "src/platform/a.rs", &[], &bad);
    apply(no_unsafe, &["src"]);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let good = ["a.unwrap_or(b)", "// a.unwrap()", "#[cfg(test)]\nmod tests { a.unwrap() }"];
    try_rule(no_unwrap, "src/a.rs", &["let b = a.unwrap();"], &good);
    apply(no_unwrap, &["src"]);
}

#[test]
fn modules_have_names() {
    try_rule(no_empty_name, "src/utils.rs", &[""], &[]);
    try_rule(no_empty_name, "src/common/a.rs", &[""], &[]);
    try_rule(no_empty_name, "src/domain/common_name.rs", &[], &[""]);
    apply(no_empty_name, &["src", "tests"]);
}

#[test]
fn tests_do_not_sleep() {
    let bad = ["#[cfg(test)]\nmod tests { fn a() { std::thread::sleep(b) } }"];
    let good = ["fn a() { sleep(b) }", "#[cfg(test)]\nmod tests { fn sleep() { clock.sleep(b) } }"];
    try_rule(no_sleep_in_tests, "src/a.rs", &bad, &good);
    try_rule(no_sleep_in_tests, "tests/a.rs", &["tokio::time::sleep (b)"], &["\"sleep(1)\""]);
    apply(no_sleep_in_tests, &["src", "tests"]);
}

#[test]
fn documents_name_only_what_is_there() {
    let exists = |name: &str| name == "src/a.rs" || name == "src/b";
    let dead = dead_paths("README.md", "x `src/a.rs` `src/b/` `src/<c>`\n`src/d.rs`", exists);
    assert_eq!(dead, ["README.md:2: `src/d.rs` is not there"]);
    for path in ["README.md", "ARCHITECTURE.md"] {
        // A tree without the document has nothing wrong in it.
        let text = fs::read_to_string(root().join(path)).unwrap_or_default();
        assert_none(&dead_paths(path, &text, |name| root().join(name).exists()));
    }
}

#[test]
fn the_top_holds_only_what_was_agreed() {
    let found = ["src", "notes.txt", "target", "targets"].map(String::from);
    assert_eq!(top_level(&found, "target/\n").len(), 2);
    let entries = fs::read_dir(root()).expect("readable");
    let names: Vec<String> = entries
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    let ignored = fs::read_to_string(root().join(".gitignore")).expect("readable");
    assert_none(&top_level(&names, &ignored));
}

#[test]
fn no_file_names_one_machine() {
    let bad = format!("see {}tree", MACHINE_PATHS[0]);
    let good = format!("https://a.example{}tree", MACHINE_PATHS[0]);
    try_rule(no_machine_path, "a", &[&bad], &[&good, "/data/edgerec"]);
    let findings: Vec<String> =
        files("").iter().flat_map(|(path, text)| no_machine_path(path, text)).collect();
    assert_none(&findings);
}
