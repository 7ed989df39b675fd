//! Which content codings a session decodes.

/// Which content codings a session decodes. Not available yet; see
/// [`SessionBuilder::decode`](super::SessionBuilder::decode).
#[derive(Clone, Debug)]
pub struct Decode(());

impl Decode {
    /// All codings whose features are on.
    pub fn all() -> Self {
        Self(())
    }
}
