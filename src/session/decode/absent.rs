//! Stands in for a coding in a build without its feature.

use crate::session::decode::Install;

pub(super) const DECODER: Option<Install> = None;
