//! Tables of the file, read key by key: faults are collected with line and column, and keys that
//! nobody took are unknown.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::read_text;
use crate::domain::faults::{Fault, FaultKind, Faults, quoted};
use crate::domain::secret::Secret;
use crate::platform::flash::Flash;

/// Longest file that holds a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// What reading the file needs and finds.
pub(super) struct Reading<'a> {
    pub(super) text: &'a str,
    /// The folder of the file: paths are relative to it.
    pub(super) folder: &'a Path,
    pub(super) flash: &'a dyn Flash,
    found: Vec<(usize, Fault)>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(text: &'a str, folder: &'a Path, flash: &'a dyn Flash) -> Self {
        Reading { text, folder, flash, found: Vec::new() }
    }

    /// Adds a fault at a place in the text (0 without a span).
    pub(super) fn fault(&mut self, span: Option<&Range<usize>>, key: &str, what: impl AsRef<str>) {
        let at = span.map_or(0, |span| span.start);
        let mut place = span.map_or_else(String::new, |span| position(self.text, span.start));
        if !place.is_empty() && !key.is_empty() {
            place.push_str(", ");
        }
        place.push_str(key);
        self.found
            .push((at, Fault { kind: FaultKind::Value, place, what: what.as_ref().to_owned() }));
    }

    /// Faults so far.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// All faults in the order of the text.
    pub(super) fn into_faults(mut self) -> Faults {
        self.found.sort_by_key(|(at, _)| *at);
        let mut faults = Faults::new();
        for (_, fault) in self.found {
            faults.add(fault.place, fault.what);
        }
        faults
    }

    /// The content of a file that holds a secret, without the line end.
    fn read_secret(&self, path: &Path) -> Result<Secret, String> {
        let text = read_text(self.flash, path, SECRET_BYTES_MAX)
            .map_err(|error| format!("{} cannot be read: {error}", quoted(&show(path))))?;
        Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
    }
}

fn show(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `line 3, column 8` of a byte in the text.
pub(super) fn position(text: &str, byte: usize) -> String {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}")
}

/// One table while its keys are taken.
pub(super) struct Section<'a> {
    name: String,
    /// Where the table begins; `None` for a table that is not there.
    span: Option<Range<usize>>,
    entries: Vec<(&'a str, Range<usize>, &'a Spanned<DeValue<'a>>)>,
}

impl<'a> Section<'a> {
    /// The whole document, or a table inside it.
    pub(super) fn of(name: impl Into<String>, table: &'a DeTable<'a>) -> Self {
        let entries =
            table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span(), value)).collect();
        Section { name: name.into(), span: None, entries }
    }

    /// A table that is not there: everything in it has its default.
    pub(super) fn absent(name: &str) -> Self {
        Section { name: name.to_owned(), span: None, entries: Vec::new() }
    }

    fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Adds a fault about a key that is (or is not) in the table.
    pub(super) fn fault(&self, key: &str, what: impl AsRef<str>, reading: &mut Reading<'_>) {
        reading.fault(self.span.as_ref(), &self.key(key), what);
    }

    fn take(&mut self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let index = self.entries.iter().position(|(name, _, _)| *name == key)?;
        Some(self.entries.swap_remove(index).2)
    }

    /// Whether a key is in the table and not yet taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _, _)| *name == key)
    }

    /// A table inside this one; `None` if it is not there.
    pub(super) fn table(&mut self, key: &str, reading: &mut Reading<'_>) -> Option<Section<'a>> {
        let value = self.take(key)?;
        let Some(table) = value.get_ref().as_table() else {
            let what = format!("is {}, a table is expected", kind(value.get_ref()));
            reading.fault(Some(&value.span()), &self.key(key), what);
            return None;
        };
        let mut section = Section::of(self.key(key), table);
        section.span = Some(value.span());
        Some(section)
    }

    /// A string as it is.
    pub(super) fn text(&mut self, key: &str, reading: &mut Reading<'_>) -> Option<&'a str> {
        self.text_at(key, reading).map(|(text, _)| text)
    }

    fn text_at(&mut self, key: &str, reading: &mut Reading<'_>) -> Option<(&'a str, Range<usize>)> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::String(text) if text.chars().any(char::is_control) => {
                reading.fault(Some(&value.span()), &self.key(key), "has a control character");
                None
            }
            DeValue::String(text) => Some((text.as_ref(), value.span())),
            other => {
                let what = format!("is {}, a string is expected", kind(other));
                reading.fault(Some(&value.span()), &self.key(key), what);
                None
            }
        }
    }

    /// A string that `parse` understands.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        reading: &mut Reading<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, span) = self.text_at(key, reading)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(what) => {
                reading.fault(Some(&span), &self.key(key), what);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str, reading: &mut Reading<'_>) -> Option<bool> {
        let value = self.take(key)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(*flag);
        }
        let what = format!("is {}, true or false is expected", kind(value.get_ref()));
        reading.fault(Some(&value.span()), &self.key(key), what);
        None
    }

    /// A whole number inside `range`.
    pub(super) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<u32>,
        reading: &mut Reading<'_>,
    ) -> Option<u32> {
        let value = self.take(key)?;
        let what = match value.get_ref() {
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                let number = parsed.and_then(|number| u32::try_from(number).ok());
                match number.filter(|number| range.contains(number)) {
                    Some(number) => return Some(number),
                    None => format!("is outside {range:?}"),
                }
            }
            other => format!("is {}, a whole number is expected", kind(other)),
        };
        reading.fault(Some(&value.span()), &self.key(key), what);
        None
    }

    /// A list of strings that `parse` understands.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        max: usize,
        reading: &mut Reading<'_>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array().filter(|array| array.len() <= max) else {
            let what = format!("is not an array of at most {max} strings");
            reading.fault(Some(&value.span()), &self.key(key), what);
            return Vec::new();
        };
        let mut list = Vec::new();
        for (index, element) in array.iter().enumerate() {
            let text = element.get_ref().as_str().ok_or_else(|| "is not a string".to_owned());
            match text.and_then(&parse) {
                Ok(value) => list.push(value),
                Err(what) => {
                    let key = format!("{}[{index}]", self.key(key));
                    reading.fault(Some(&element.span()), &key, what);
                }
            }
        }
        list
    }

    /// A path, relative to the folder of the file.
    pub(super) fn path(&mut self, key: &str, reading: &mut Reading<'_>) -> Option<PathBuf> {
        let folder = reading.folder;
        self.parsed(key, reading, |text| {
            if text.is_empty() { Err("is empty".to_owned()) } else { Ok(folder.join(text)) }
        })
    }

    /// A secret: the text itself, or `{ file = "…" }`.
    pub(super) fn secret(&mut self, key: &str, reading: &mut Reading<'_>) -> Option<Secret> {
        let index = self.entries.iter().position(|(name, _, _)| *name == key)?;
        let span = self.entries[index].2.span();
        if !self.entries[index].2.get_ref().is_table() {
            return self.text(key, reading).map(Secret::new);
        }
        let mut table = self.table(key, reading)?;
        let path = table.path("file", reading);
        if path.is_none() {
            table.fault("file", "is missing or wrong", reading);
        }
        table.finish(reading);
        self.load(key, &span, &path?, reading)
    }

    /// The content of a file: a path, `{ file = "…" }`, or the PEM text itself.
    pub(super) fn pem(&mut self, key: &str, reading: &mut Reading<'_>) -> Option<Secret> {
        let index = self.entries.iter().position(|(name, _, _)| *name == key)?;
        let value = self.entries[index].2;
        match value.get_ref().as_str() {
            None => self.secret(key, reading),
            Some(text) if text.trim_start().starts_with("-----BEGIN ") => {
                self.take(key);
                Some(Secret::new(text))
            }
            Some(_) => {
                let path = self.path(key, reading)?;
                self.load(key, &value.span(), &path, reading)
            }
        }
    }

    fn load(
        &self,
        key: &str,
        span: &Range<usize>,
        path: &Path,
        reading: &mut Reading<'_>,
    ) -> Option<Secret> {
        match reading.read_secret(path) {
            Ok(secret) => Some(secret),
            Err(what) => {
                reading.fault(Some(span), &self.key(key), what);
                None
            }
        }
    }

    /// Everything has been taken; what is left is unknown.
    pub(super) fn finish(self, reading: &mut Reading<'_>) {
        for (key, span, _) in &self.entries {
            let plain = key.len() <= 64
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            let shown = if plain { (*key).to_owned() } else { quoted(key) };
            reading.fault(Some(span), &self.key(&shown), "is not a known key");
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
