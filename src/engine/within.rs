//! Readbacks and calls that get only a part of the state: one bot out of many, for example.

use std::sync::Arc;
use std::time::Duration;

use crate::body::BodySource;
use crate::engine::readback::{Action, Context, Flow, Next, Rare, Readback, Reply, Sink};
use crate::generation::Generation;
use crate::id::ChainId;
use crate::policy::Outcome;
use crate::proto::Origin;
use crate::request::Request;
use crate::response::Response;
use crate::route::Route;
use crate::timeouts::Retimed;

/// Adapts a readback over a part of the state, `T`, to the whole state, `S`. A bot that was written
/// to run alone can then run among a thousand. Pass the result to
/// [`Engine::submit_to`](crate::Engine::submit_to) or [`Next::read_to`].
///
/// `part` finds the part, and is called on each call of the readback. All requests that the
/// readback submits or returns are adapted with the same `part`. If `part` returns `None`, the part
/// no longer exists and the chain ends: a response in progress is abandoned, and a delayed step
/// stays pending until its delay is over. Find parts by a key that stays the same; indices of a
/// `Vec` shift when an element is removed.
///
/// [Keys](Next::key) of chains are passed on as they are: all parts share those of the engine.
///
/// Write `part` in the call itself, or as a function. For a closure stored in a variable, the
/// compiler does not infer that the returned reference borrows from the argument.
///
/// ```
/// use httpstream::{Context, Engine, Next, Reply, Request, within};
///
/// #[derive(Default)]
/// struct Bot { beats: u32 }
///
/// impl Bot {
///     fn on_beat(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
///         self.beats += 1;
///         Next::done()
///     }
/// }
///
/// struct World { bots: Vec<Bot> }
///
/// let mut world = World { bots: vec![Bot::default(), Bot::default()] };
/// let mut engine = Engine::<World>::new()?;
/// let beat = Request::get("http://127.0.0.1:1/beat").build()?;
/// for i in 0..2 {
///     let beat = beat.clone();
///     engine.submit_to(beat, within(move |w: &mut World| w.bots.get_mut(i), Bot::on_beat));
/// }
/// engine.run(&mut world)?;
/// assert_eq!(world.bots[1].beats, 1);
/// # Ok::<(), httpstream::Error>(())
/// ```
pub fn within<S, T: 'static>(
    part: impl Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    readback: impl FnMut(&mut T, Reply<'_>, &mut Context<'_, T>) -> Next<T> + 'static,
) -> impl Readback<S> + 'static {
    within_to(part, readback)
}

/// [`within`] for a type that implements [`Readback`].
///
/// ```
/// use httpstream::{Engine, Request, Unread, within_to};
///
/// struct Bot;
///
/// let mut bots = vec![Bot, Bot];
/// let mut engine = Engine::<Vec<Bot>>::new()?;
/// let request = Request::get("http://127.0.0.1:1/").build()?;
/// engine.submit_to(request, within_to(|bots: &mut Vec<Bot>| bots.get_mut(1), Unread));
/// engine.run(&mut bots)?;
/// # Ok::<(), httpstream::Error>(())
/// ```
pub fn within_to<S, T: 'static>(
    part: impl Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    readback: impl Readback<T> + 'static,
) -> impl Readback<S> + 'static {
    Within {
        part,
        readback: Box::new(readback),
    }
}

/// Does what [`within`] does, for a call. Pass the result to [`Engine::call`](crate::Engine::call),
/// [`Submitter::call`](crate::Submitter::call) or [`Next::call`]. If the part no longer exists when
/// the call is due, the chain ends.
///
/// ```
/// use httpstream::{Context, Engine, Next, within_call};
///
/// #[derive(Default)]
/// struct Bot { codes: Vec<String> }
///
/// let mut bots = vec![Bot::default(), Bot::default()];
/// let mut engine = Engine::<Vec<Bot>>::new()?;
/// let submitter = engine.submitter();
/// let typed = String::from("7KXW");
/// let hand_over = move |bot: &mut Bot, _: &mut Context<'_, Bot>| {
///     bot.codes.push(typed);
///     Next::done()
/// };
/// submitter.call(within_call(|bots: &mut Vec<Bot>| bots.get_mut(1), hand_over)).unwrap();
/// drop(submitter);
/// engine.run(&mut bots)?;
/// assert_eq!(bots[1].codes, ["7KXW"]);
/// # Ok::<(), httpstream::Error>(())
/// ```
pub fn within_call<S, T: 'static>(
    part: impl Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    f: impl FnOnce(&mut T, &mut Context<'_, T>) -> Next<T> + 'static,
) -> impl FnOnce(&mut S, &mut Context<'_, S>) -> Next<S> + 'static {
    move |state: &mut S, cx: &mut Context<'_, S>| {
        let next = with_part(&part, state, cx, Next::done(), f);
        outwards(&part, next)
    }
}

struct Within<P, T> {
    part: P,
    readback: Box<dyn Readback<T>>,
}

impl<P, T: 'static> Within<P, T> {
    /// Calls `call` with the inner readback and its part of the state, or returns `gone`.
    fn with<S, R>(
        &mut self,
        state: &mut S,
        cx: &mut Context<'_, S>,
        gone: R,
        call: impl FnOnce(&mut dyn Readback<T>, &mut T, &mut Context<'_, T>) -> R,
    ) -> R
    where
        P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    {
        let readback = &mut *self.readback;
        with_part(&self.part, state, cx, gone, |part, cx| {
            call(readback, part, cx)
        })
    }
}

/// Calls `call` with the part of the state and a context over it, or returns `gone`.
fn with_part<P, S, T: 'static, R>(
    part: &P,
    state: &mut S,
    cx: &mut Context<'_, S>,
    gone: R,
    call: impl FnOnce(&mut T, &mut Context<'_, T>) -> R,
) -> R
where
    P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
{
    let Some(found) = part(state) else {
        return gone;
    };
    let sink = &mut *cx.sink;
    let mut sink = PartSink { sink, part };
    call(found, &mut Context::new(&mut sink, cx.seen))
}

/// Converts the step of a readback or call over a part to a step over the whole state.
fn outwards<P, S, T: 'static>(part: &P, next: Next<T>) -> Next<S>
where
    P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
{
    Next {
        action: action_outwards(part, next.action),
        when: next.when,
        readback: next.readback.map(|readback| wrap(part, readback)),
    }
}

fn action_outwards<P, S, T: 'static>(part: &P, action: Action<T>) -> Action<S>
where
    P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
{
    match action {
        Action::Done => Action::Done,
        Action::Send(request) => Action::Send(request),
        Action::Instead(request) => Action::Instead(request),
        Action::Again => Action::Again,
        Action::Wait(mark) => Action::Wait(mark),
        Action::Pend => Action::Pend,
        Action::Call(call) => {
            let (call, mark) = *call;
            let call = Box::new(within_call(part.clone(), call));
            Action::Call(Box::new((call, mark)))
        }
        Action::Rare(rare) => {
            let Rare { action, terms } = *rare;
            let action = action_outwards(part, action);
            Action::Rare(Box::new(Rare { action, terms }))
        }
    }
}

impl<P, S, T> Readback<S> for Within<P, T>
where
    P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    T: 'static,
{
    fn prepare(&self, request: &Request) -> Option<Request> {
        self.readback.prepare(request)
    }

    fn on_interim(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) {
        self.with(state, cx, (), |readback, part, cx| {
            readback.on_interim(part, head, cx)
        });
    }

    fn on_head(&mut self, state: &mut S, head: &Response<'_>, cx: &mut Context<'_, S>) -> Flow {
        self.with(state, cx, Flow::Abort, |readback, part, cx| {
            readback.on_head(part, head, cx)
        })
    }

    fn reads_heads(&self) -> bool {
        self.readback.reads_heads()
    }

    fn on_data(&mut self, state: &mut S, data: &[u8], cx: &mut Context<'_, S>) -> Flow {
        self.with(state, cx, Flow::Abort, |readback, part, cx| {
            readback.on_data(part, data, cx)
        })
    }

    fn on_resume(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Flow {
        self.with(state, cx, Flow::Abort, |readback, part, cx| {
            readback.on_resume(part, cx)
        })
    }

    fn on_due(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        let next = self.with(state, cx, Next::done(), |readback, part, cx| {
            readback.on_due(part, cx)
        });
        outwards(&self.part, next)
    }

    fn on_retry(
        &mut self,
        state: &mut S,
        why: Outcome<'_>,
        after: Duration,
        cx: &mut Context<'_, S>,
    ) {
        self.with(state, cx, (), |readback, part, cx| {
            readback.on_retry(part, why, after, cx)
        });
    }

    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        let next = self.with(state, cx, Next::done(), |readback, part, cx| {
            readback.on_reply(part, reply, cx)
        });
        outwards(&self.part, next)
    }
}

/// Forwards the operations of a part's context, with each readback wrapped to find the part again.
struct PartSink<'a, S, P> {
    sink: &'a mut dyn Sink<S>,
    part: &'a P,
}

impl<S, P, T> Sink<T> for PartSink<'_, S, P>
where
    P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    T: 'static,
{
    fn start(&mut self, next: Next<T>) -> ChainId {
        self.sink.start(outwards(self.part, next))
    }

    fn preconnect(&mut self, origin: Origin, route: Option<Arc<Route>>) {
        self.sink.preconnect(origin, route);
    }

    fn cancel(&mut self, id: ChainId) -> bool {
        self.sink.cancel(id)
    }

    fn cancel_key(&mut self, name: &str) -> bool {
        self.sink.cancel_key(name)
    }

    fn cancel_others(&mut self, id: ChainId) -> usize {
        self.sink.cancel_others(id)
    }

    fn resume(&mut self, id: ChainId) -> bool {
        self.sink.resume(id)
    }

    fn write(&mut self, id: ChainId, bytes: &[u8]) -> Option<usize> {
        self.sink.write(id, bytes)
    }

    fn is_cancelled(&self, id: ChainId) -> bool {
        self.sink.is_cancelled(id)
    }

    fn retime(&mut self, id: ChainId, request: &Request) -> Option<&mut Retimed> {
        self.sink.retime(id, request)
    }

    fn write_from(&mut self, id: ChainId, source: Box<dyn BodySource>) -> bool {
        self.sink.write_from(id, source)
    }

    fn end(&mut self, generation: &Generation, own: ChainId, request: Option<&Request>) {
        self.sink.end(generation, own, request);
    }

    fn stop(&mut self) {
        self.sink.stop();
    }

    fn is_ending(&self, id: ChainId) -> bool {
        self.sink.is_ending(id)
    }
}

fn wrap<P, S, T>(part: &P, readback: Box<dyn Readback<T>>) -> Box<dyn Readback<S>>
where
    P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    T: 'static,
{
    Box::new(Within {
        part: part.clone(),
        readback,
    })
}
