//! How an exchange ended, by reference.

use crate::error::Error;
use crate::response::{Reply, Response};

/// How an exchange ended: a reference to an error or to a response.
///
/// It is created from an `&Error`, a `&Response` or a `&Reply`, so that one function can judge all
/// of them.
///
/// ```
/// use httpstream::{Outcome, Reply};
///
/// fn describe<'a>(outcome: impl Into<Outcome<'a>>) -> String {
///     let outcome = outcome.into();
///     match (outcome.error(), outcome.response()) {
///         (Some(error), _) => format!("{error:#}"),
///         (_, Some(response)) => response.status().to_string(),
///         (None, None) => String::new(),
///     }
/// }
///
/// let reply: Reply<'_> = Err(httpstream::Gone.into());
/// assert_eq!(describe(&reply), "the engine is gone");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    came: Came<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Came<'a> {
    Failed(&'a Error),
    Answered(&'a Response<'a>),
}

impl<'a> Outcome<'a> {
    /// Returns why there is no response, or only part of one.
    pub fn error(self) -> Option<&'a Error> {
        match self.came {
            Came::Failed(error) => Some(error),
            Came::Answered(_) => None,
        }
    }

    /// Returns the response, whatever its status.
    pub fn response(self) -> Option<&'a Response<'a>> {
        match self.came {
            Came::Answered(response) => Some(response),
            Came::Failed(_) => None,
        }
    }
}

impl<'a> From<&'a Error> for Outcome<'a> {
    fn from(error: &'a Error) -> Self {
        Self {
            came: Came::Failed(error),
        }
    }
}

impl<'a, 'r: 'a> From<&'a Response<'r>> for Outcome<'a> {
    fn from(response: &'a Response<'r>) -> Self {
        Self {
            came: Came::Answered(response),
        }
    }
}

impl<'a, 'r: 'a> From<&'a Reply<'r>> for Outcome<'a> {
    fn from(reply: &'a Reply<'r>) -> Self {
        match reply {
            Ok(response) => response.into(),
            Err(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Gone};
    use crate::request::Request;
    use crate::response::testing::lend;

    #[test]
    fn it_is_made_of_errors_responses_and_replies() {
        let error = Error::from(Gone);
        let kind = |outcome: Outcome<'_>| outcome.error().map(Error::kind);
        assert_eq!(kind(Outcome::from(&error)), Some(ErrorKind::Gone));
        let reply: Reply<'_> = Err(error);
        assert_eq!(kind(Outcome::from(&reply)), Some(ErrorKind::Gone));
        assert!(Outcome::from(&reply).response().is_none());

        let request = Request::get("http://a/").build().unwrap();
        lend(&request, "HTTP/1.1 204 \r\n\r\n", b"", |response| {
            let status = |outcome: Outcome<'_>| outcome.response().map(|r| r.status().as_u16());
            assert_eq!(status(Outcome::from(&response)), Some(204));
            let reply: Reply<'_> = Ok(response);
            assert_eq!(status(Outcome::from(&reply)), Some(204));
            assert!(Outcome::from(&reply).error().is_none());
        });
    }
}
