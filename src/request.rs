//! Request

/// What cannot be sent
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid;
impl std::fmt::Display for Invalid {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
impl std::error::Error for Invalid {}
/// Request
#[derive(Clone, Debug)]
pub struct Request;
/// Builder
#[derive(Debug)]
pub struct RequestBuilder;
