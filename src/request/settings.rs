//! `[validation]`: what a body must look like.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::config::{Choice, Raw, Section, Value};

/// `[validation]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `mode`: what happens to a body that breaks its schema.
    pub mode: Mode,
    /// `generations`: the JSON Schema of that route.
    pub generations: SchemaSource,
    /// `edits`: the JSON Schema of that route.
    pub edits: SchemaSource,
    /// `unknown_fields`: what happens to a field the schema does not name.
    pub unknown_fields: UnknownFields,
}

impl Settings {
    /// Reads the section; what is not written stays as in `base`.
    pub(crate) fn read(section: &mut Section<'_, '_>, base: &Self) -> Self {
        Self {
            mode: section.value("mode", &base.mode),
            generations: section.value("generations", &base.generations),
            edits: section.value("edits", &base.edits),
            unknown_fields: section.value("unknown_fields", &base.unknown_fields),
        }
    }
}

/// `validation.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Faults are 422.
    Strict,
    /// Faults are counted and the body is forwarded.
    Warn,
    /// Only JSON itself is checked.
    Off,
}

impl Choice for Mode {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("strict", Self::Strict), ("warn", Self::Warn), ("off", Self::Off)];
}

/// Where a schema comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaSource {
    /// `"builtin"`.
    Builtin,
    /// A JSON Schema file, draft 2020-12.
    File(PathBuf),
}

impl Value for SchemaSource {
    fn expected() -> Cow<'static, str> {
        "\"builtin\" or the path of a JSON Schema file".into()
    }

    fn read(raw: &Raw<'_>) -> Option<Self> {
        match raw.text()?.as_ref() {
            "builtin" => Some(Self::Builtin),
            path => raw.path().filter(|_| !path.is_empty()).map(Self::File),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Builtin => "builtin".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// `validation.unknown_fields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Forwarded; a near miss of a known name is refused all the same.
    Forward,
    /// Refused.
    Refuse,
}

impl Choice for UnknownFields {
    const CHOICES: &'static [(&'static str, Self)] = &[("forward", Self::Forward), ("refuse", Self::Refuse)];
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Strict,
            generations: SchemaSource::Builtin,
            edits: SchemaSource::Builtin,
            unknown_fields: UnknownFields::Forward,
        }
    }
}
