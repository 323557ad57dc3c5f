//! Reads the tables below a table, and the vendor's variables as a table.

use toml::{Table, Value};

use super::{Raw, Section};
use crate::config::Environment;

impl Section<'_> {
    /// Reads a table below this one. An absent table is empty.
    pub(in crate::config) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let table = match self.raw(key) {
            None => Table::new(),
            Some(Raw::File(Value::Table(table))) => table,
            Some(raw) => {
                self.problem(key, raw.wrong_type("a table"));
                Table::new()
            }
        };
        let path = format!("{}.", self.name(key));
        let prefix = format!("{}__", self.variable(key));
        self.input.section(Some(path), prefix, table, read)
    }

    /// Reads a table below this one that may be absent: the file does not have it, and no variable sets one of its keys.
    pub(in crate::config) fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let variable = self.variable(key);
        let variables = &self.input.variables;
        let is_set = self.table.contains_key(key)
            || variables.contains_key(&variable)
            || self.input.has_variable(&format!("{variable}__"));
        if !is_set {
            self.known.push(key);
        }
        is_set.then(|| self.section(key, read))
    }

    /// Reads the vendor's variables with this prefix like a table. Empty variables count as unset.
    pub(in crate::config) fn vendor_variables<T>(
        &mut self,
        prefix: &str,
        environment: &Environment,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let set = environment.iter().filter(|(name, value)| name.starts_with(prefix) && !value.is_empty());
        self.input.variables.extend(set.map(|(name, value)| (name.clone(), value.clone())));
        self.input.section(None, prefix.to_owned(), Table::new(), read)
    }

    /// Reads an array of tables, continued by the variables with the indexes that follow. An absent array is empty.
    /// Returns `None` after a wrong type, which is reported.
    pub(in crate::config) fn list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Option<Vec<T>> {
        let mut values = match self.raw(key) {
            None => Vec::new(),
            Some(Raw::File(Value::Array(values))) => values,
            Some(raw) => {
                self.problem(key, raw.wrong_type(&format!("[[{key}]] tables")));
                return None;
            }
        }
        .into_iter();
        let list = format!("{}__", self.variable(key));
        let mut entries = Vec::new();
        for index in 0.. {
            let path = format!("{}[{index}]", self.name(key));
            let prefix = format!("{list}{index}__");
            let table = match values.next() {
                Some(Value::Table(table)) => table,
                Some(other) => {
                    self.input.report.problem(path, Raw::File(other).wrong_type("a table"));
                    continue;
                }
                None if self.input.has_variable(&prefix) => Table::new(),
                None => break,
            };
            entries.push(self.input.section(Some(format!("{path}.")), prefix, table, &mut read));
        }
        let message =
            format!("unknown variable; those of `{key}` are numbered from 0 without gaps, as in {list}0__KEY");
        self.input.report_unknown(&list, &message);
        Some(entries)
    }

    /// Returns the number of entries that [`Section::list`] will read.
    pub(in crate::config) fn count(&self, key: &str) -> usize {
        let in_file = self.table.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        let is_set = |index: &usize| self.input.has_variable(&format!("{}__{index}__", self.variable(key)));
        in_file + (in_file..).take_while(is_set).count()
    }
}
