/* httpstream: an HTTP/1.1 client engine for any event loop.
 *
 * Made from capi/src by `HTTPSTREAM_WRITE_HEADER=1 cargo test -p httpstream-capi --test header`: change it there.
 *
 * An engine is one file descriptor and one timeout. Watch httpstream_fd for reading, wait no longer than httpstream_timeout_ms, then
 * call httpstream_turn: callbacks run inside it, and nowhere else. A callback says what its chain does next: nothing more, the same
 * request again, or another one, at once or after a delay.
 *
 *     httpstream_submit(engine, request, 0, &readback, NULL);
 *     while (httpstream_pending(engine) > 0) {
 *         struct pollfd ready = {.fd = httpstream_fd(engine), .events = POLLIN};
 *         poll(&ready, 1, httpstream_timeout_ms(engine));
 *         httpstream_turn(engine, 1, NULL);
 *     }
 *
 * Handles are numbers, never pointers; 0 is none. One that was freed, or is of another kind or another thread, is recognised.
 * Functions answer HTTPSTREAM_OK (0), or a negative error whose words are in httpstream_last_error. Text is a pointer and a length
 * in bytes; a length of SIZE_MAX says that it is NUL-terminated.
 *
 * Threads: an engine belongs to the thread that made it, and only httpstream_wakeup and httpstream_stop may be called from others.
 * Requests and configurations belong to none; each call on one is done before the next begins. Several engines, on one thread or many, know nothing of each other.
 * Fork: a child can use its requests and configurations and make engines of its own; calls on an engine of its parent's fail with
 * HTTPSTREAM_ERROR_FORKED and change nothing, and the parent goes on undisturbed.
 * Signals: nothing here raises SIGPIPE, and no signal's disposition is touched. */

#ifndef HTTPSTREAM_H
#define HTTPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Changes when a program built with an older header would no longer work.
#define HTTPSTREAM_ABI_VERSION 1

// The call did what it says.
#define HTTPSTREAM_OK 0

// A pointer is null that must not be.
#define HTTPSTREAM_ERROR_NULL (-2)

// No such handle: never made, freed, or of another kind.
#define HTTPSTREAM_ERROR_HANDLE (-3)

// The engine or the reply belongs to another thread.
#define HTTPSTREAM_ERROR_THREAD (-4)

// This process was forked off the one that made the engine, which goes on there.
#define HTTPSTREAM_ERROR_FORKED (-5)

// Not while this engine turns: httpstream_turn, httpstream_free, httpstream_get_stats.
#define HTTPSTREAM_ERROR_BUSY (-6)

// A value that cannot be used: a URL, a field, a number, a name, text that is not UTF-8.
#define HTTPSTREAM_ERROR_ARGUMENT (-7)

// The operating system refused: no poll, no descriptor, no such file.
#define HTTPSTREAM_ERROR_IO (-8)

// From httpstream_turn: a callback answered garbage. Its chain is over, everything else went on.
#define HTTPSTREAM_ERROR_CALLBACK (-9)

// A fault inside the library, kept from crossing. The engine can be used on, and freed.
#define HTTPSTREAM_ERROR_PANIC (-10)

// The chain is over.
#define HTTPSTREAM_DONE 0

// The request that this chain sent last, once more.
#define HTTPSTREAM_AGAIN 1

// httpstream_next.request.
#define HTTPSTREAM_SEND 2

// The body is collected, and whole in on_reply. From on_data it counts as HTTPSTREAM_STREAM.
#define HTTPSTREAM_BUFFER 0

// The body is handed to on_data as it comes. The total timeout bounds it, pauses included.
#define HTTPSTREAM_STREAM 1

// The body is read to its end unseen, so that the connection can be used again.
#define HTTPSTREAM_DISCARD 2

// Nothing is handed out, and soon nothing read, until httpstream_resume; then as
// HTTPSTREAM_STREAM. The piece just handed out counts as taken.
#define HTTPSTREAM_PAUSE 3

// The connection is closed, and on_reply told HTTPSTREAM_KIND_ABORTED.
#define HTTPSTREAM_ABORT 4

// There is a response, whatever its status.
#define HTTPSTREAM_KIND_RESPONSE 0

// The request cannot be sent as it was built.
#define HTTPSTREAM_KIND_INVALID_REQUEST 1

// The configuration cannot be used.
#define HTTPSTREAM_KIND_INVALID_CONFIG 2

// The host has no address, or asking for it failed.
#define HTTPSTREAM_KIND_RESOLVE 3

// No address of the host could be connected to.
#define HTTPSTREAM_KIND_CONNECT 4

// TLS failed: the handshake, or later a record or an alert.
#define HTTPSTREAM_KIND_TLS 5

// The connection ended before the first byte of the response.
#define HTTPSTREAM_KIND_CLOSED_BEFORE_RESPONSE 6

// The connection ended inside the response; httpstream_reply_body has what came.
#define HTTPSTREAM_KIND_TRUNCATED 7

// Reading or writing failed.
#define HTTPSTREAM_KIND_IO 8

// The response breaks the protocol.
#define HTTPSTREAM_KIND_MALFORMED 9

// The response passes a limit.
#define HTTPSTREAM_KIND_TOO_LARGE 10

// A deadline passed; httpstream_reply_phase says in which phase.
#define HTTPSTREAM_KIND_TIMEOUT 11

// This machine ran out of file descriptors, ports or memory.
#define HTTPSTREAM_KIND_EXHAUSTED 12

// The chain was cancelled.
#define HTTPSTREAM_KIND_CANCELLED 13

// A callback answered HTTPSTREAM_ABORT.
#define HTTPSTREAM_KIND_ABORTED 14

// The engine is gone.
#define HTTPSTREAM_KIND_GONE 15

// A kind that this header has no number for.
#define HTTPSTREAM_KIND_OTHER 99

// The request was being built.
#define HTTPSTREAM_PHASE_BUILD 1

// Waiting: for its delay, a connection or a file descriptor.
#define HTTPSTREAM_PHASE_QUEUE 2

// Looking up the host.
#define HTTPSTREAM_PHASE_RESOLVE 3

// Connecting.
#define HTTPSTREAM_PHASE_CONNECT 4

// In the TLS handshake.
#define HTTPSTREAM_PHASE_TLS 5

// Writing the request.
#define HTTPSTREAM_PHASE_WRITE 6

// The request is written, no byte of the response has come.
#define HTTPSTREAM_PHASE_FIRST_BYTE 7

// Reading the header section.
#define HTTPSTREAM_PHASE_HEAD 8

// Reading the body.
#define HTTPSTREAM_PHASE_BODY 9

// A phase that this header has no number for.
#define HTTPSTREAM_PHASE_OTHER 99

// Not one byte of the request left this machine.
#define HTTPSTREAM_SENT_NO 0

// Some or all of it was written, and nothing came back: the peer may have processed it.
#define HTTPSTREAM_SENT_MAYBE 1

// The peer answered: it has seen the request.
#define HTTPSTREAM_SENT_YES 2

// What engines are made with. Belongs to no thread.
typedef uint64_t httpstream_config;

// An engine: a number, never a pointer. It belongs to the thread that made it.
typedef uint64_t httpstream_engine;

// What httpstream_turn did.
typedef struct httpstream_turned {
    // Events that the poll told.
    uint64_t events;
    // Requests answered, by a response or an error.
    uint64_t answered;
    // Something is left that waits for nothing but the next turn.
    bool more;
    // httpstream_stop was called.
    bool stopped;
} httpstream_turned;

// How an engine stands, and what it has done. Up to `paused` it counts what is there now, the rest
// since the start.
typedef struct httpstream_stats {
    // Set by the caller: sizeof(httpstream_stats). No more than that is written.
    size_t size;
    // Connections that are there or about to be: being made, busy and idle ones.
    uint64_t links_open;
    // Idle connections.
    uint64_t links_idle;
    // Connections whose host is being looked up, that are connecting or in the TLS handshake.
    uint64_t links_dialing;
    // Requests on a connection.
    uint64_t in_flight;
    // Requests that wait for a connection.
    uint64_t queued;
    // Requests that wait for their delay.
    uint64_t delayed;
    // Requests in flight of which a callback answered HTTPSTREAM_PAUSE.
    uint64_t paused;
    // Connections opened.
    uint64_t opened;
    // Requests sent on a connection that had served another.
    uint64_t reused;
    // Chains submitted.
    uint64_t submitted;
    // Requests answered by a response.
    uint64_t answered;
    // Requests answered by an error, cancellations included.
    uint64_t failed;
    // Requests sent again after a stale connection.
    uint64_t retried;
    // Bytes received.
    uint64_t bytes_in;
    // Bytes sent.
    uint64_t bytes_out;
    // Turns.
    uint64_t turns;
    // Turns that another thread asked for.
    uint64_t wakeups;
} httpstream_stats;

// A request. Belongs to no thread.
typedef uint64_t httpstream_request;

// A reply, or a part of one, lent to a callback: valid until the callback returns, and on its
// thread.
typedef uint64_t httpstream_reply;

// What a reply leads to. All zero before the callback is called, which is HTTPSTREAM_DONE.
typedef struct httpstream_next {
    // HTTPSTREAM_DONE, HTTPSTREAM_AGAIN or HTTPSTREAM_SEND.
    int32_t action;
    // Free `request` when the callback has returned, whatever the action is.
    bool frees_request;
    // For HTTPSTREAM_SEND.
    httpstream_request request;
    // Wait so many milliseconds before the request. UINT64_MAX: for ever, that is until
    // httpstream_cancel.
    uint64_t delay_ms;
    // Who reads from here on; null: the same goes on. It is copied and taken over when the
    // callback has returned, whatever the action is, and the former one released. So it must still
    // be there then: static, or on the heap, not a variable of the callback.
    const struct httpstream_readback *readback;
} httpstream_next;

// The callbacks that read for a chain, and what they are called with.
//
// They run inside httpstream_turn only, on its thread, and must return: no longjmp, no exception.
// They may call everything but httpstream_turn, httpstream_free and httpstream_get_stats of the
// engine that calls them; another engine may even be turned. A child process that is forked inside
// a callback must not return from it.
//
// The struct is copied when it is handed over; only `user` has to live on, until `release`.
typedef struct httpstream_readback {
    // The response is complete, or there will be none; `next` says what follows. Called exactly
    // once for each request of the chain, as long as the engine lives. Null: what comes is read to
    // the end and thrown away, and the chain is over.
    void (*on_reply)(void *user, httpstream_reply reply, struct httpstream_next *next);
    // The head has come: HTTPSTREAM_BUFFER, HTTPSTREAM_STREAM, HTTPSTREAM_DISCARD,
    // HTTPSTREAM_PAUSE (stream it after a resume) or HTTPSTREAM_ABORT. Null: HTTPSTREAM_BUFFER, or
    // without an on_reply HTTPSTREAM_DISCARD.
    int32_t (*on_head)(void *user, httpstream_reply head);
    // A piece of a streamed body has come, `len` bytes, at least one; pieces carry no meaning of
    // their own. Answers HTTPSTREAM_STREAM to go on, or one of the other three. Of `reply` only id
    // and URL are known. Null: what is streamed is passed over.
    int32_t (*on_data)(void *user, httpstream_reply reply, const uint8_t *data, size_t len);
    // `user` is no longer needed by this readback. Called exactly once, at the end of the
    // httpstream_turn in which the chain ended or took another readback, or inside
    // httpstream_free; never on a thread or in a process that is not the engine's. Null: nothing
    // is called.
    void (*release)(void *user);
    // Handed to each of them, not looked at.
    void *user;
} httpstream_readback;

// Names a chain of one engine: a request and everything that its readback answers, until
// HTTPSTREAM_DONE. Never used twice by one engine; another takes it for one that is over. 0 names
// none.
typedef uint64_t httpstream_id;

// Everything about a reply that is there without further work, in one call.
typedef struct httpstream_view {
    // Set by the caller: sizeof(httpstream_view). No more than that is written.
    size_t size;
    // httpstream_reply_kind.
    int32_t kind;
    // httpstream_reply_status.
    int32_t status;
    // httpstream_reply_body.
    const uint8_t *body;
    // Its length in bytes.
    size_t body_len;
    // httpstream_reply_id.
    httpstream_id id;
    // httpstream_reply_phase.
    int32_t phase;
    // httpstream_reply_request_sent.
    int32_t request_sent;
    // httpstream_reply_resend_is_safe.
    int32_t resend_is_safe;
    // httpstream_reply_attempts.
    int32_t attempts;
    // httpstream_reply_reused, 0 or 1.
    int32_t reused;
    // HTTP/1.`minor`: 0 or 1; -1 without a head.
    int32_t minor;
    // httpstream_reply_reason.
    const char *reason;
    // Its length in bytes.
    size_t reason_len;
    // httpstream_reply_header_count.
    size_t header_count;
    // httpstream_reply_trailer_count.
    size_t trailer_count;
    // httpstream_reply_elapsed_us.
    uint64_t elapsed_us;
    // httpstream_reply_method.
    const char *method;
    // Its length in bytes.
    size_t method_len;
    // The IP address that the response came from, in network byte order; httpstream_reply_peer has
    // it as text.
    uint8_t peer_address[16];
    // How many bytes of it there are: 4 or 16; 0 where the peer is not known.
    uint32_t peer_address_len;
    // Its port.
    uint32_t peer_port;
    // When the host's addresses were known: in microseconds since the submission, or since the end
    // of the delay. UINT64_MAX here and below: the step was not taken, as on a connection that was
    // there already, or it is not known, as of a failure.
    uint64_t resolve_us;
    // When the connection was established.
    uint64_t connect_us;
    // When the TLS handshake was over.
    uint64_t tls_us;
    // When the last byte of the request was written.
    uint64_t sent_us;
    // When the first byte of the response was read.
    uint64_t first_byte_us;
    // When the response was complete.
    uint64_t done_us;
} httpstream_view;

// One field line. The bytes are not NUL-terminated, and valid as long as the reply.
typedef struct httpstream_field {
    // The name as received.
    const uint8_t *name;
    // Its length in bytes.
    size_t name_len;
    // The value as received, without white space around it; any bytes but CR, LF and NUL.
    const uint8_t *value;
    // Its length in bytes.
    size_t value_len;
} httpstream_field;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Words for the last call that failed on this thread: which function, which argument, what is
// wrong with it. "" when none has. Never null. Valid until the next call that fails on this
// thread. Calls that succeed leave it alone.
const char *httpstream_last_error(void);

// The number of the last call that failed on this thread, HTTPSTREAM_OK when none has: for
// functions that answer no number. As errno, it says nothing after a call that succeeded.
int32_t httpstream_last_error_number(void);

// The name of an error: "HTTPSTREAM_ERROR_NULL" and so on, "HTTPSTREAM_OK" of HTTPSTREAM_OK,
// "HTTPSTREAM_ERROR_UNKNOWN" of other numbers. Valid for ever.
const char *httpstream_error_name(int32_t error);

// The version of the library: "0.1.0". Valid for ever.
const char *httpstream_version(void);

// The HTTPSTREAM_ABI_VERSION that the library was built with. A program works with a library that
// has the one of its header.
uint32_t httpstream_abi_version(void);

// Makes a configuration with the defaults, and writes it to `out`. Free it with
// httpstream_config_free; engines that were made with it do not need it any more. Any thread.
int32_t httpstream_config_new(httpstream_config *out);

// Frees a configuration. Any thread.
int32_t httpstream_config_free(httpstream_config config);

// Sets a number by its name, which is NUL-terminated. Sizes are in bytes, times in milliseconds.
//
// - "max_connections" (1024): connections open at once; "max_connections_per_origin" (256),
//   "max_idle_per_origin" (32)
// - "idle_timeout_ms" (60,000): how long an idle connection is kept; 0: not at all, UINT64_MAX:
//   until the server closes it
// - "timeout_resolve_ms", "timeout_connect_ms", "timeout_tls_ms" (10,000 each),
//   "timeout_write_ms", "timeout_first_byte_ms", "timeout_idle_ms" (30,000 each),
//   "timeout_total_ms" (300,000): deadlines, for requests that do not set their own; UINT64_MAX,
//   and whatever is longer than 24 days: none; 0 counts as 1
// - "limit_max_head_bytes" (65,536), "limit_max_fields" (128), "limit_max_body_bytes" (67,108,864;
//   of a collected body), "limit_max_interim" (16), "limit_max_trailer_bytes",
//   "limit_max_chunk_extension_bytes" (16,384 each), "limit_refuse_obs_fold" (0): bounds on
//   responses
// - "turn_events" (1024, at most 1,048,576), "turn_bytes" (524,288, of one connection): the bounds
//   of one turn; "read_buffer" (131,072)
// - "max_lookups" (64), "keep_names_ms", "keep_stale_names_ms" (86,400,000 each), "hosts_file"
//   (1): how names are looked up; "system_resolver" (0): 1 asks the C library, on threads of the
//   library's own, in place of the name servers
// - "public_only" (0): 1 dials no address that is not on the public internet, for URLs that come
//   from strangers
// - "nodelay" (0): 1 sets TCP_NODELAY on all connections
// - "timerfd" (0): 1 has the descriptor become readable at deadlines too, so that a host without
//   timers needs nothing else (Linux)
//
// HTTPSTREAM_ERROR_ARGUMENT: no such name, or a number that no engine can work with. Any thread.
int32_t httpstream_config_set(httpstream_config config, const char *name, uint64_t value);

// Sets the User-Agent of requests that carry none, in place of "httpstream/VERSION". A `len` of 0:
// none is sent. SIZE_MAX: `text` is NUL-terminated. HTTPSTREAM_ERROR_ARGUMENT: it cannot be a
// field's value. Any thread.
int32_t httpstream_config_user_agent(httpstream_config config, const char *text, size_t len);

// Adds a field to each request that has none of that name; with the User-Agent at most 31. A
// length of SIZE_MAX: NUL-terminated. HTTPSTREAM_ERROR_ARGUMENT: it cannot be sent; the words say
// which byte. Any thread.
int32_t httpstream_config_header(httpstream_config config,
                                 const char *name,
                                 size_t name_len,
                                 const char *value,
                                 size_t value_len);

// Sends what is meant for `pattern` to `address` instead: neither the name nor the port is looked
// at any further. Both are NUL-terminated.
//
// `pattern` is a host, "host:port", "*.domain" (every host below it) or "*"; the first that fits
// is taken. `address` is "127.0.0.1:8080" or "[::1]:8080". HTTPSTREAM_ERROR_ARGUMENT: the address
// cannot be read; a pattern that cannot is reported by httpstream_new. Any thread.
int32_t httpstream_config_resolve_to(httpstream_config config, const char *pattern, const char *address);

// Believes the root certificates in this file (PEM) and no others, in place of the system's.
// `path` is NUL-terminated; the file is read now. HTTPSTREAM_ERROR_IO: it cannot be read.
// HTTPSTREAM_ERROR_ARGUMENT: a certificate cannot be used, or there is none, or the library was
// built without TLS. Any thread.
int32_t httpstream_config_ca_file(httpstream_config config, const char *path);

// Makes an engine, and writes it to `out`. It belongs to this thread: all other calls but
// httpstream_wakeup and httpstream_stop are its alone.
//
// `config` is copied; 0: the defaults. Free the engine with httpstream_free before its thread
// ends: what is left then is lost, its descriptors included, and nothing is released.
//
// HTTPSTREAM_ERROR_ARGUMENT: the configuration cannot be used; the words name the setting.
// HTTPSTREAM_ERROR_IO: no poll or descriptor is to be had.
int32_t httpstream_new(httpstream_config config, httpstream_engine *out);

// Frees an engine: closes its connections and its descriptor. No callback runs but `release`, once
// for each chain that is not over. Take the descriptor out of your loop first. In a child process
// it fails and does nothing: the engine is the parent's.
int32_t httpstream_free(httpstream_engine engine);

// The descriptor to watch for reading, level-triggered; at least 0, or an error. It is the same
// for the engine's life and stays the engine's: do not close it, nor read from it. Readable, or
// the timeout is over: call httpstream_turn. From an edge-triggered loop, turn until `more` is
// false and `events` is 0.
int32_t httpstream_fd(httpstream_engine engine);

// How long poll(2) may wait: -1: there is nothing to wait for but the descriptor; 0: a turn is
// due; else milliseconds, rounded up. Below -1: an error. Ask again after each call to the engine,
// and before each wait. Inside a callback it is 0.
int32_t httpstream_timeout_ms(httpstream_engine engine);

// Does what is due: moves bytes, passes deadlines, runs callbacks. Never waits. May be called
// late, early or twice.
//
// At most `budget` turns while there is more to do; 0 counts as 1. One turn is bounded (see
// "turn_events" and "turn_bytes"), and what is left makes the timeout 0; so 1 is right where
// others use the loop, and more where that costs too much. What was done is written to `turned`,
// which may be null; also where this answers HTTPSTREAM_ERROR_CALLBACK.
//
// HTTPSTREAM_ERROR_BUSY: inside a callback of this engine. HTTPSTREAM_ERROR_CALLBACK: a callback
// answered what no header knows, or a request that cannot be sent; the words name the chain;
// everything else was done. HTTPSTREAM_ERROR_IO: the poll failed.
int32_t httpstream_turn(httpstream_engine engine, uint32_t budget, struct httpstream_turned *turned);

// Makes the descriptor readable, so that the loop turns. Any thread, and as the only call with
// httpstream_stop while others use the engine. Many before a turn are as one.
// HTTPSTREAM_ERROR_HANDLE: the engine was freed.
int32_t httpstream_wakeup(httpstream_engine engine);

// Has one httpstream_turn say `stopped`: the next, or the one that runs. The engine itself goes
// on. Any thread. HTTPSTREAM_ERROR_HANDLE: the engine was freed.
int32_t httpstream_stop(httpstream_engine engine);

// Closes idle connections, and lets none that is open now be used again. Inside a callback it is
// done at the end of httpstream_turn. After a change of the network, httpstream_network_changed
// does this and more.
int32_t httpstream_close_idle(httpstream_engine engine);

// Tells the engine that the network changed: an interface came up, a VPN connected, the machine
// slept. Idle connections are closed, and none that is open now is used again; names, name servers
// and doubts about addresses are forgotten; resolv.conf and the hosts file are read again.
// Requests in flight go on. Inside a callback it is done at the end of httpstream_turn.
int32_t httpstream_network_changed(httpstream_engine engine);

// Chains that are not over: queued, in flight, paused or delayed; inside a callback its own among
// them. Negative: an error.
int64_t httpstream_pending(httpstream_engine engine);

// Writes how the engine stands to `out`, whose `size` is set. Counts all connections and chains
// anew: cheap enough to be asked every second, not every turn. HTTPSTREAM_ERROR_BUSY: inside a
// callback of this engine. HTTPSTREAM_ERROR_ARGUMENT: `size` is not set.
int32_t httpstream_get_stats(httpstream_engine engine, struct httpstream_stats *out);

// Starts a chain: sends `request` after `delay_ms` milliseconds (UINT64_MAX: never, that is until
// httpstream_cancel) and has `readback` read what comes. A turn is then due. The id is written to
// `id`, which may be null.
//
// The request stays yours. The readback is copied, and released exactly once; where this fails,
// nothing was taken over, and nothing is released. May be called inside callbacks.
//
// HTTPSTREAM_ERROR_ARGUMENT: the request cannot be sent.
int32_t httpstream_submit(httpstream_engine engine,
                          httpstream_request request,
                          uint64_t delay_ms,
                          const struct httpstream_readback *readback,
                          httpstream_id *id);

// Ends a chain, whatever it is doing. 1: its on_reply is called once more, with
// HTTPSTREAM_KIND_CANCELLED, and what it answers is dropped; 0: it was over, or cancelled before.
// A turn is then due. May be called inside callbacks, also of the chain itself.
int32_t httpstream_cancel(httpstream_engine engine, httpstream_id id);

// Lets a chain go on of which a callback answered HTTPSTREAM_PAUSE. 1: it does, and a turn is due;
// 0: it was not paused, which it is when the callback has returned. May be called inside
// callbacks.
int32_t httpstream_resume(httpstream_engine engine, httpstream_id id);

// Makes a request, and writes it to `out`. Free it with httpstream_request_free. Lengths are in
// bytes, SIZE_MAX: NUL-terminated.
//
// `url` is absolute, http or https, its host in ASCII or an IP address. Path and query may be
// encoded or not; a fragment is dropped, credentials are refused. `method` is any but CONNECT.
//
// A request is a value: it can be sent any number of times, by any engine of any thread. It is
// fixed when it is sent first; what is set after that is refused. A call that fails on account of
// what it was given spoils it: each further call, and sending it, fails with the same words.
//
// HTTPSTREAM_ERROR_ARGUMENT: it cannot be sent; the words say which byte of what is wrong. Any
// thread.
int32_t httpstream_request_new(const char *method,
                               size_t method_len,
                               const char *url,
                               size_t url_len,
                               httpstream_request *out);

// Frees a request. Chains that send it go on. Any thread.
int32_t httpstream_request_free(httpstream_request request);

// Adds a field; several of one name stay several lines. Lengths are in bytes, SIZE_MAX:
// NUL-terminated. White space around the value is taken off. "Host" replaces the one of the URL;
// "Content-Length" must be the body's.
//
// HTTPSTREAM_ERROR_ARGUMENT: a name that is no token, a control byte in a value, a second Host or
// Content-Length, Transfer-Encoding, an Expect other than 100-continue; Upgrade, since there is no
// way to write behind a 101 from here: that does not spoil the request. Any thread.
int32_t httpstream_request_header(httpstream_request request,
                                  const char *name,
                                  size_t name_len,
                                  const char *value,
                                  size_t value_len);

// Sets the body, `len` bytes, which are copied; SIZE_MAX: NUL-terminated. Its length goes out as
// Content-Length. Null with a `len` of 0 is an empty one. Any thread.
int32_t httpstream_request_body(httpstream_request request, const void *body, size_t len);

// Sets the total deadline in milliseconds, from the submission, time in the queue included, to the
// end of the body, but without a delay. UINT64_MAX: none. Any thread.
int32_t httpstream_request_timeout_ms(httpstream_request request, uint64_t ms);

// Makes it a long poll: the server may be silent for so many milliseconds. The deadlines of first
// byte and idle become that and 10 s, the total is lifted to that and 40 s where it is shorter. A
// later httpstream_request_timeout_ms wins. Any thread.
int32_t httpstream_request_long_poll_ms(httpstream_request request, uint64_t ms);

// Sets a number by its name, which is NUL-terminated.
//
// - "idempotent" (by the method): 1: it may be sent again after the server may have processed it;
//   0: it may not
// - "fresh_connection" (0): 1: on a connection of its own making; "close" (0): 1: its connection
//   serves no request after it. 0 takes neither back.
// - "timeout_resolve_ms" and its kin, "max_body_bytes" and its kin (with or without "limit_"
//   before it): as in httpstream_config_set, for this request
//
// HTTPSTREAM_ERROR_ARGUMENT: no such name, or a number that cannot be used; this does not spoil
// the request. Any thread.
int32_t httpstream_request_option(httpstream_request request, const char *name, uint64_t value);

// Writes all about a reply that is there without further work to `out`, whose `size` is set: one
// call in place of a dozen, for bindings. HTTPSTREAM_ERROR_ARGUMENT: `size` is not set.
//
// This and what follows are for callbacks, with the reply they were given, on the engine's thread.
// A reply that is not lent to a running callback answers HTTPSTREAM_ERROR_HANDLE or
// HTTPSTREAM_ERROR_THREAD, or where no number is answered 0, false or null; what it was is then in
// httpstream_last_error_number. Pointers are valid until the callback returns, and not null but
// where this is said.
int32_t httpstream_reply_view(httpstream_reply reply, struct httpstream_view *out);

// The chain that the reply belongs to. 0: not a reply.
httpstream_id httpstream_reply_id(httpstream_reply reply);

// HTTPSTREAM_KIND_RESPONSE (0): there is a response, or its head, or a piece of it. Else why there
// is none, or not all of it: another HTTPSTREAM_KIND_*. Negative: an error.
int32_t httpstream_reply_kind(httpstream_reply reply);

// The name of a HTTPSTREAM_KIND_*: "Truncated"; "Response" of 0, "Other" of numbers without a
// name. Valid for ever. Any thread.
const char *httpstream_kind_name(int32_t kind);

// What failed, where and why, in words; "" of a response. NUL-terminated, UTF-8. Shows no path,
// query or field value. Null: not a reply.
const char *httpstream_reply_message(httpstream_reply reply);

// In which phase it failed, a HTTPSTREAM_PHASE_*; 0 of a response. Negative: an error.
int32_t httpstream_reply_phase(httpstream_reply reply);

// The name of a HTTPSTREAM_PHASE_*: "FirstByte"; "None" of 0, "Other" of numbers without a name.
// Valid for ever. Any thread.
const char *httpstream_phase_name(int32_t phase);

// Whether the request left this machine: HTTPSTREAM_SENT_NO, HTTPSTREAM_SENT_MAYBE or
// HTTPSTREAM_SENT_YES, as of a response. Negative: an error.
int32_t httpstream_reply_request_sent(httpstream_reply reply);

// 1: sending the request again can do no harm: it never left, or it is idempotent. 0: it can, or
// there is a response. Negative: an error.
int32_t httpstream_reply_resend_is_safe(httpstream_reply reply);

// The status code, 100 to 999, also of a failure after the head; 0: none was received. Negative:
// an error.
int32_t httpstream_reply_status(httpstream_reply reply);

// The reason phrase, `len` bytes, often 0, not NUL-terminated. `len` may be null. Null: not a
// reply.
const char *httpstream_reply_reason(httpstream_reply reply, size_t *len);

// The body, `len` bytes, its transfer coding removed; of a failure what had been collected of it;
// empty if it was streamed or discarded. `len` may be null. Null: not a reply.
const uint8_t *httpstream_reply_body(httpstream_reply reply, size_t *len);

// The value of the first field of that name, in any case, `len` bytes, not NUL-terminated. A
// `name_len` of SIZE_MAX: NUL-terminated. `len` may be null. Null: there is none, or not a reply.
const uint8_t *httpstream_reply_header(httpstream_reply reply,
                                       const char *name,
                                       size_t name_len,
                                       size_t *len);

// How many fields there are, several of one name counted each; 0 of a failure.
size_t httpstream_reply_header_count(httpstream_reply reply);

// The field at `index`, in the order received, from 0. Each of the four places may be null.
// HTTPSTREAM_ERROR_ARGUMENT: there are not so many.
int32_t httpstream_reply_header_at(httpstream_reply reply,
                                   size_t index,
                                   const uint8_t **name,
                                   size_t *name_len,
                                   const uint8_t **value,
                                   size_t *value_len);

// Writes the fields in the order received to `out`, which has room for `room` of them; answers how
// many there are, which may be more. `out` may be null where `room` is 0. One call in place of
// many, for bindings.
size_t httpstream_reply_headers(httpstream_reply reply, struct httpstream_field *out, size_t room);

// Writes the head as text to `out`, which has room for `room` bytes: the status line and each
// field line, each with CR LF at its end, a field as "name: value", in the order received. Answers
// its length; where that is more than `room`, what was written is the beginning of it, if that. 0:
// of a failure, or not a reply. `out` may be null where `room` is 0. One copy in place of many,
// for bindings that look at fields later or never.
size_t httpstream_reply_head(httpstream_reply reply, char *out, size_t room);

// How many trailer fields there are; 0 before the response is complete.
size_t httpstream_reply_trailer_count(httpstream_reply reply);

// The trailer field at `index`, as httpstream_reply_header_at.
int32_t httpstream_reply_trailer_at(httpstream_reply reply,
                                    size_t index,
                                    const uint8_t **name,
                                    size_t *name_len,
                                    const uint8_t **value,
                                    size_t *value_len);

// The method of the request, `len` bytes, not NUL-terminated; of failures too. `len` may be null.
// Null: not a reply.
const char *httpstream_reply_method(httpstream_reply reply, size_t *len);

// The URL that was asked for, of failures too, `len` bytes, not NUL-terminated, encoded as it went
// out, without fragment. It may hold secrets: do not log it. `len` may be null. Null: not a reply.
const char *httpstream_reply_url(httpstream_reply reply, size_t *len);

// How often the request was sent: 2 after a retry on a fresh connection. Of a failure, how often
// it was given a connection or the making of one: 0 if it never left its queue. Negative: an
// error.
int32_t httpstream_reply_attempts(httpstream_reply reply);

// The address that the response came from: "127.0.0.1:80", "[::1]:80". NUL-terminated; "" where it
// is not known, as of a failure. Null: not a reply.
const char *httpstream_reply_peer(httpstream_reply reply);

// Whether the connection had served another request before.
bool httpstream_reply_reused(httpstream_reply reply);

// Microseconds from the submission, or the end of the delay, to the end of the response, or to now
// where it has not ended well.
uint64_t httpstream_reply_elapsed_us(httpstream_reply reply);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HTTPSTREAM_H */
