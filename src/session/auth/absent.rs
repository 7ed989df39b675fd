//! Stands in for `digest` in a build without that feature: the types that `Auth` names.

use std::sync::Arc;

/// The credentials of Digest. Uninhabited, since there are none in this build.
pub(super) enum Digest {}

/// What Digest keeps for a request: nothing in this build.
#[derive(Default)]
pub(crate) struct Used;

impl Digest {
    /// # Errors
    /// Always, with a text that names the feature.
    pub(super) fn new(_: &str, _: &str) -> Result<Self, &'static str> {
        Err("this build lacks the feature `digest`")
    }

    pub(super) fn anew(&self) -> Arc<Self> {
        match *self {}
    }

    pub(super) fn authorize(
        &self,
        _: &mut Used,
        _: &str,
        _: &str,
        _: &mut dyn FnMut() -> u64,
    ) -> Option<Vec<u8>> {
        match *self {}
    }

    pub(super) fn on_unauthorized<'v>(
        &self,
        _: &mut Used,
        _: impl Iterator<Item = &'v [u8]>,
    ) -> bool {
        match *self {}
    }

    pub(super) fn on_info(&self, _: &Used, _: &[u8]) {
        match *self {}
    }
}
