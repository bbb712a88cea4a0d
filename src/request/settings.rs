//! `[validation]`: what a body must look like.

use std::path::PathBuf;

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

/// Where a schema comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaSource {
    /// `"builtin"`.
    Builtin,
    /// A JSON Schema file, draft 2020-12.
    File(PathBuf),
}

/// `validation.unknown_fields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Forwarded; a near miss of a known name is refused all the same.
    Forward,
    /// Refused.
    Refuse,
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
