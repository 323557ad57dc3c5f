//! Takes a configuration apart key by key, the environment before the file, and notes every mistake on the way.
//!
//! A [`Section`] knows a key by being asked for it, so a key is one line where it is read: its name, its default and
//! its parser. What nobody asked for is unknown.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Environment;
use super::problems::{Problem, one_line};
use super::raw::Raw;
use super::settings::{self, Setting, Settings};

/// What the name of every variable that stands for a key begins with.
const PREFIX: &str = "SCM_GATEWAY__";

/// The variables not read yet, and what was found wrong so far.
pub(super) struct Input {
    variables: BTreeMap<String, String>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) settings: Settings,
}

/// One table of the file together with the variables that stand for its keys.
pub(super) struct Section<'i> {
    input: &'i mut Input,
    /// What the keys' places begin with: nothing, `server.` or `projects[0].`
    path: String,
    /// What the names of the keys' variables begin with.
    prefix: String,
    table: Table,
    known: Vec<&'static str>,
    origins: BTreeMap<&'static str, Origin>,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    File,
    Variable,
}

impl Input {
    pub(super) fn new(environment: &Environment) -> Self {
        let ours = environment.iter().filter(|(name, _)| name.starts_with(PREFIX));
        let variables = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { variables, problems: Vec::new(), warnings: Vec::new(), settings: Settings::default() }
    }

    /// Reads the whole configuration; what is left over becomes problems.
    pub(super) fn root<T>(&mut self, table: Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        self.section(String::new(), PREFIX.to_owned(), table, read)
    }

    fn section<T>(
        &mut self,
        path: String,
        prefix: String,
        table: Table,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let (known, origins) = (Vec::new(), BTreeMap::new());
        let mut section = Section { input: self, path, prefix, table, known, origins };
        let value = read(&mut section);
        section.finish();
        value
    }

    fn any_below(&self, prefix: &str) -> bool {
        self.variables.keys().any(|name| name.starts_with(prefix))
    }

    /// Reports the variables that nothing below `prefix` asked for.
    fn left_over(&mut self, prefix: &str, message: &str) {
        self.variables.retain(|name, _| {
            let left = name.starts_with(prefix);
            if left {
                self.problems.push(Problem::new(name, message));
            }
            !left
        });
    }
}

impl Section<'_> {
    /// Takes a key that has a default, which is written as a variable's value would be.
    pub(super) fn take<T>(&mut self, key: &'static str, default: &str, parse: impl Fn(&Raw) -> Result<T, String>) -> T {
        let value = self.optional(key, &parse);
        if self.origin(key).is_none() {
            self.record_default(key, default);
        }
        // After a problem the default only serves to read on: the configuration is refused in the end.
        value.unwrap_or_else(|| parse(&Raw::Variable(default.to_owned())).expect("a default is a good value"))
    }

    /// Notes the value that a key without one amounts to.
    pub(super) fn record_default(&mut self, key: &'static str, default: &str) {
        let value = settings::shown(&Raw::Variable(default.to_owned()));
        self.input.settings.0.push(Setting::new(&format!("{}{key}", self.path), &value, "default"));
    }

    /// Takes a key that may be absent. `None` also stands for a value that was refused, which is noted.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        self.optional_redacted(key, settings::shown, parse)
    }

    /// Takes a key whose value is not shown as it is.
    pub(super) fn optional_redacted<T>(
        &mut self,
        key: &'static str,
        shown: impl FnOnce(&Raw) -> String,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        let raw = self.raw(key)?;
        let source = match raw {
            Raw::File(_) => "file".to_owned(),
            Raw::Variable(_) => self.variable(key),
        };
        match parse(&raw) {
            Ok(value) => {
                self.input.settings.0.push(Setting::new(&format!("{}{key}", self.path), &shown(&raw), &source));
                Some(value)
            }
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }

    /// Takes back that a key has a value: another one goes before it.
    pub(super) fn mark_overridden(&mut self, key: &str) {
        let assignment = format!("{}{key} = ", self.path);
        self.input.settings.0.retain(|setting| !setting.assignment().starts_with(&assignment));
    }

    /// Takes a key that must be there. `missing` says what it is for.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        missing: &str,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.optional(key, parse);
        self.expect(key, missing);
        value
    }

    /// Notes a problem if a key that was taken was not there.
    pub(super) fn expect(&mut self, key: &'static str, missing: &str) {
        if self.origin(key).is_none() {
            self.problem(key, format!("is missing; it is {missing}"));
        }
    }

    /// Reads a table below this one; an absent one is empty.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let table = match self.raw(key) {
            None => Table::new(),
            Some(Raw::File(Value::Table(table))) => table,
            Some(raw) => {
                self.problem(key, raw.mistaken_for("a table"));
                Table::new()
            }
        };
        let (path, prefix) = (format!("{}{key}.", self.path), format!("{}__", self.variable(key)));
        self.input.section(path, prefix, table, read)
    }

    /// Reads an array of tables, continued by the variables numbered after its last one. `None` after a wrong type,
    /// which is noted; an absent array is empty.
    pub(super) fn list<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Section<'_>) -> T) -> Option<Vec<T>> {
        let mut values = match self.raw(key) {
            None => Vec::new(),
            Some(Raw::File(Value::Array(values))) => values,
            Some(raw) => {
                self.problem(key, raw.mistaken_for(&format!("[[{key}]] tables")));
                return None;
            }
        }
        .into_iter();
        let list = format!("{}__", self.variable(key));
        let mut entries = Vec::new();
        for index in 0.. {
            let (path, prefix) = (format!("{}{key}[{index}]", self.path), format!("{list}{index}__"));
            let table = match values.next() {
                Some(Value::Table(table)) => table,
                Some(other) => {
                    let message = Raw::File(other).mistaken_for("a table");
                    self.input.problems.push(Problem::new(path, message));
                    continue;
                }
                None if self.input.any_below(&prefix) => Table::new(),
                None => break,
            };
            entries.push(self.input.section(format!("{path}."), prefix, table, &mut read));
        }
        let message =
            format!("unknown variable; those of `{key}` are numbered from 0 without gaps, as in {list}0__KEY");
        self.input.left_over(&list, &message);
        Some(entries)
    }

    /// How many entries [`Section::list`] will find.
    pub(super) fn count(&self, key: &str) -> usize {
        let in_file = self.table.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        let has = |index: &usize| self.input.any_below(&format!("{}__{index}__", self.variable(key)));
        in_file + (in_file..).take_while(has).count()
    }

    /// Where the value of a key that was taken came from; `None` without one.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        self.origins.get(key).copied()
    }

    /// How a key is called in a message: its variable if that gave the value, else its place in the file.
    pub(super) fn place(&self, key: &str) -> String {
        match self.origin(key) {
            Some(Origin::Variable) => self.variable(key),
            _ => format!("{}{key}", self.path),
        }
    }

    pub(super) fn problem(&mut self, key: &str, message: impl AsRef<str>) {
        self.input.problems.push(Problem::new(self.place(key), message));
    }

    /// Notes a mistake that has no key here.
    pub(super) fn problem_at(&mut self, problem: Problem) {
        self.input.problems.push(problem);
    }

    pub(super) fn warning(&mut self, key: &str, message: &str) {
        let place = self.place(key);
        self.warning_at(&place, message);
    }

    /// Notes a value that has no key here.
    pub(super) fn setting_at(&mut self, place: &str, value: &str, source: &str) {
        self.input.settings.0.push(Setting::new(place, value, source));
    }

    /// Notes a warning that has no key here.
    pub(super) fn warning_at(&mut self, place: &str, message: &str) {
        self.input.warnings.push(one_line(&format!("{place}: {message}")));
    }

    fn raw(&mut self, key: &'static str) -> Option<Raw> {
        self.known.push(key);
        let in_file = self.table.remove(key).map(Raw::File);
        let variable = self.input.variables.remove(&self.variable(key)).map(Raw::Variable);
        let raw = variable.or(in_file)?;
        let origin = match raw {
            Raw::File(_) => Origin::File,
            Raw::Variable(_) => Origin::Variable,
        };
        self.origins.insert(key, origin);
        Some(raw)
    }

    fn variable(&self, key: &str) -> String {
        format!("{}{}", self.prefix, key.to_ascii_uppercase())
    }

    /// Reports the keys and variables that nobody asked for.
    fn finish(self) {
        let known: Vec<_> = self.known.iter().map(|key| format!("`{key}`")).collect();
        let message = format!("unknown key; the keys here are {}", known.join(", "));
        for key in self.table.keys() {
            let place = format!("{}{}", self.path, shown(key));
            self.input.problems.push(Problem::new(place, &message));
        }
        self.input.left_over(&self.prefix, &message.replacen("key", "variable", 1));
    }
}

/// An unknown key as it is shown: quoted where TOML would quote it, and cut, since it may be anything.
fn shown(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let cut: String = key.chars().take(64).collect();
    match !key.is_empty() && key.chars().all(bare) {
        true => cut,
        false => format!("{cut:?}"),
    }
}
