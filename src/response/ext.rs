//! The methods of a [`Response`](super::Response) that a response of the `http` crate lacks.

use std::time::{Duration, SystemTime};

use http::header::{CONTENT_ENCODING, DATE, RETRY_AFTER};

use super::{Info, content, is_error, retry_after};
use crate::error::{Circumstances, Error, ErrorKind, Phase, Sent};

/// What a [`Response`](crate::Response) can do, for the [`http::Response`] that a future resolves
/// to. Sealed.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Error, Local, Request, ResponseExt, Sim};
///
/// async fn greeting(http: Local<String>) -> Result<(), Error> {
///     let page = http.fetch(Request::get("http://10.0.0.1/").build()?).await?;
///     let page = page.error_for_status()?;
///     assert_eq!(page.info().map(|info| info.attempts), Some(1));
///     let text = page.text()?.to_owned();
///     http.with(move |greeting, _| *greeting = text).await?;
///     Ok(())
/// }
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"));
/// let mut engine = Engine::<String, Sim>::on_network(&network, Config::default())?;
/// let http = engine.local();
/// engine.spawn(async {
///     if let Err(error) = greeting(http).await {
///         eprintln!("{error:#}");
///     }
/// });
/// let mut text = String::new();
/// engine.run(&mut text)?;
/// assert_eq!(text, "hello");
/// # Ok::<(), Error>(())
/// ```
pub trait ResponseExt: Sized + sealed::Sealed {
    /// Returns the body as UTF-8.
    ///
    /// # Errors
    /// As [`Response::text`](crate::Response::text).
    fn text(&self) -> Result<&str, Error>;

    /// Parses the body as JSON.
    ///
    /// # Errors
    /// As [`Response::json`](crate::Response::json).
    #[cfg(feature = "json")]
    fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error>;

    /// Returns the response unless its status is 400 or greater.
    ///
    /// # Errors
    /// As [`Response::error_for_status`](crate::Response::error_for_status). The error describes
    /// the exchange only as far as [`info`](Self::info) does: without one it has no
    /// [`request`](Error::request), and [`resend_is_safe`](Error::resend_is_safe) is false.
    fn error_for_status(self) -> Result<Self, Error>;

    /// Returns how long the server asks to wait.
    ///
    /// As [`Response::retry_after`](crate::Response::retry_after). Without a Date field, a date is
    /// measured from the system's clock at the time of the call; for a response from a simulation,
    /// from the simulated time of day at which it arrived.
    fn retry_after(&self) -> Option<Duration>;

    /// Returns facts about the exchange, from the response's extensions. `None` for a response that
    /// did not come from a future of this crate.
    fn info(&self) -> Option<&Info>;
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for http::Response<Vec<u8>> {}
}

impl ResponseExt for http::Response<Vec<u8>> {
    fn text(&self) -> Result<&str, Error> {
        content::text(self.body(), coding(self)).map_err(|why| malformed(self, why))
    }

    #[cfg(feature = "json")]
    fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        content::json(self.body(), coding(self)).map_err(|why| malformed(self, why))
    }

    fn error_for_status(self) -> Result<Self, Error> {
        if !is_error(self.status()) {
            return Ok(self);
        }
        let (at, wait) = (circumstances(&self), self.retry_after());
        let partial_body = self.into_body();
        let at = Circumstances { partial_body, ..at };
        Err(Error::of(ErrorKind::Status, at).with_retry_after(wait))
    }

    fn retry_after(&self) -> Option<Duration> {
        let value = |name| self.headers().get(name).map(http::HeaderValue::as_bytes);
        retry_after::delay(value(RETRY_AFTER)?, value(DATE), || {
            let simulated = self.info().and_then(|info| info.simulated_time);
            simulated.unwrap_or_else(SystemTime::now)
        })
    }

    fn info(&self) -> Option<&Info> {
        self.extensions().get()
    }
}

fn coding(response: &http::Response<Vec<u8>>) -> Option<&str> {
    response.headers().get(CONTENT_ENCODING)?.to_str().ok()
}

fn malformed(response: &http::Response<Vec<u8>>, why: String) -> Error {
    Error::from_text(ErrorKind::Malformed, why, circumstances(response))
}

/// Returns what is known of the exchange.
fn circumstances(response: &http::Response<Vec<u8>>) -> Circumstances {
    let info = response.info();
    let request = info.map(|info| &info.request);
    Circumstances {
        phase: Phase::Body,
        sent: Sent::Yes,
        resend_is_safe: info.is_some_and(Info::resend_is_safe),
        reused: info.is_some_and(|info| info.reused),
        attempts: info.map_or(0, |info| info.attempts.try_into().unwrap_or(u8::MAX)),
        origin: request.map(|request| request.origin()),
        request: request.cloned(),
        status: Some(response.status()),
        partial_body: Vec::new(),
    }
}
