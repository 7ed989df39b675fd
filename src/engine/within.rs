//! Readbacks and calls over a part of the state: a bot inside a world.

use crate::engine::readback::{Action, Context, Flow, Next, Readback, Reply, Sink};
use crate::id::ChainId;
use crate::response::Response;

/// Reads with a part of the state, so that a bot which was written to run alone runs among a
/// thousand. Goes to [`Engine::submit_to`](crate::Engine::submit_to) and [`Next::read_to`].
///
/// `part` finds the part each time it is needed. What the readback submits or answers with is read
/// by the same part. When `part` answers `None` the part is gone and the chain ends: a response
/// under way is given up. What is delayed for a part that is gone stays pending until its delay is
/// over. Find parts by a key that stays theirs: the index of a `Vec` shifts.
///
/// Write `part` where it is handed over, or as a function: of a closure in a variable the compiler
/// does not see that what it answers is lent from what it is given.
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
///     engine.submit_to(beat.clone(), within(move |w: &mut World| w.bots.get_mut(i), Bot::on_beat));
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

/// [`within`] for an `impl Readback<T>`.
pub fn within_to<S, T: 'static>(
    part: impl Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    readback: impl Readback<T> + 'static,
) -> impl Readback<S> + 'static {
    Within {
        part,
        readback: Box::new(readback),
    }
}

/// [`within`] for a call: what [`Engine::call`](crate::Engine::call),
/// [`Submitter::call`](crate::Submitter::call) and [`Next::call`] take, over a part of the state.
/// When the part is gone by then, the chain ends.
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
    /// Calls the inner readback with its part of the state, or answers `gone`.
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

/// Calls `call` with the part of the state and a context over it, or answers `gone`.
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

/// What a part's readback or call answers, as the engine wants it.
fn outwards<P, S, T: 'static>(part: &P, next: Next<T>) -> Next<S>
where
    P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
{
    Next {
        action: match next.action {
            Action::Done => Action::Done,
            Action::Send(request) => Action::Send(request),
            Action::Again => Action::Again,
            Action::Wait(mark) => Action::Wait(mark),
            Action::Pend => Action::Pend,
            Action::Call(call) => {
                let (call, mark) = *call;
                let call = Box::new(within_call(part.clone(), call));
                Action::Call(Box::new((call, mark)))
            }
        },
        when: next.when,
        readback: next.readback.map(|readback| wrap(part, readback)),
    }
}

impl<P, S, T> Readback<S> for Within<P, T>
where
    P: Fn(&mut S) -> Option<&mut T> + Clone + 'static,
    T: 'static,
{
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

    fn on_due(&mut self, state: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        let next = self.with(state, cx, Next::done(), |readback, part, cx| {
            readback.on_due(part, cx)
        });
        outwards(&self.part, next)
    }

    fn on_reply(&mut self, state: &mut S, reply: Reply<'_>, cx: &mut Context<'_, S>) -> Next<S> {
        let next = self.with(state, cx, Next::done(), |readback, part, cx| {
            readback.on_reply(part, reply, cx)
        });
        outwards(&self.part, next)
    }
}

/// Passes on what is asked of a part's context, each readback wrapped to find the part again.
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

    fn cancel(&mut self, id: ChainId) -> bool {
        self.sink.cancel(id)
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

    fn stop(&mut self) {
        self.sink.stop();
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
