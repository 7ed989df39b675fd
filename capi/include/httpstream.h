/* httpstream: an HTTP/1.1 client engine for any event loop.
 *
 * Generated from capi/src; edit it there, then run
 * `HTTPSTREAM_WRITE_HEADER=1 cargo test -p httpstream-capi --test header`.
 *
 * An engine is one file descriptor and one timeout. Watch httpstream_fd for reading, wait no longer
 * than httpstream_timeout_ms, then call httpstream_turn. Callbacks run inside httpstream_turn and
 * nowhere else. A callback decides what its chain does next: end, or send the same request or
 * another one, at once or after a delay.
 *
 *     httpstream_submit(engine, request, 0, &readback, NULL);
 *     while (httpstream_pending(engine) > 0) {
 *         struct pollfd ready = {.fd = httpstream_fd(engine), .events = POLLIN};
 *         poll(&ready, 1, httpstream_timeout_ms(engine));
 *         httpstream_turn(engine, 1, NULL);
 *     }
 *
 * Handles are numbers, never pointers; 0 is the null handle. A handle that was freed, is of another
 * kind or belongs to another thread is detected.
 *
 * Unless stated otherwise, functions return HTTPSTREAM_OK (0) or a negative error;
 * httpstream_last_error returns its message. Text is passed as a pointer and a length in bytes; a
 * length of SIZE_MAX means that the text is NUL-terminated.
 *
 * Threads: an engine belongs to the thread that created it. Other threads may call only
 * httpstream_wakeup and httpstream_stop. Requests and configurations belong to no thread;
 * concurrent calls on one of them run one after another. Engines are independent of each other, on
 * one thread or many.
 *
 * Fork: a child process can use its requests and configurations, and create engines of its own.
 * Calls on an engine of the parent fail with HTTPSTREAM_ERROR_FORKED and change nothing, and the
 * parent is not affected.
 *
 * Signals: the library never raises SIGPIPE and changes no signal's disposition. */

#ifndef HTTPSTREAM_H
#define HTTPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The version of the binary interface. It changes when programs built with an older header would
// no longer work.
#define HTTPSTREAM_ABI_VERSION 1

// The call succeeded.
#define HTTPSTREAM_OK 0

// A pointer that must not be null is null.
#define HTTPSTREAM_ERROR_NULL (-2)

// The handle is not valid: it was never created, was freed, or is of another kind.
#define HTTPSTREAM_ERROR_HANDLE (-3)

// The engine or the reply belongs to another thread.
#define HTTPSTREAM_ERROR_THREAD (-4)

// This process is a fork of the one that created the engine. The engine goes on in the parent.
#define HTTPSTREAM_ERROR_FORKED (-5)

// httpstream_turn, httpstream_free or httpstream_get_stats was called inside a callback of the
// same engine.
#define HTTPSTREAM_ERROR_BUSY (-6)

// A value cannot be used: a URL, a field, a number, a name, or text that is not UTF-8.
#define HTTPSTREAM_ERROR_ARGUMENT (-7)

// The operating system reported an error, such as too many open descriptors or no such file.
#define HTTPSTREAM_ERROR_IO (-8)

// Returned by httpstream_turn if a callback returned an invalid value. Its chain has ended;
// everything else was done.
#define HTTPSTREAM_ERROR_CALLBACK (-9)

// A panic inside the library was caught. The engine remains usable.
#define HTTPSTREAM_ERROR_PANIC (-10)

// Ends the chain.
#define HTTPSTREAM_DONE 0

// Sends the chain's last request once more.
#define HTTPSTREAM_AGAIN 1

// Sends the request in httpstream_next.request.
#define HTTPSTREAM_SEND 2

// Collects the body; on_reply gets all of it. Returned by on_data, it means HTTPSTREAM_STREAM.
#define HTTPSTREAM_BUFFER 0

// Passes the body to on_data as it arrives. The total timeout limits it, pauses included.
#define HTTPSTREAM_STREAM 1

// Reads the body to its end and drops it, so that the connection can be reused.
#define HTTPSTREAM_DISCARD 2

// Passes on no more data until httpstream_resume, then continues as HTTPSTREAM_STREAM. Reading
// from the socket soon stops as well. The piece that on_data has just been given counts as taken.
#define HTTPSTREAM_PAUSE 3

// Closes the connection. on_reply then reports HTTPSTREAM_KIND_ABORTED.
#define HTTPSTREAM_ABORT 4

// A response arrived, whatever its status.
#define HTTPSTREAM_KIND_RESPONSE 0

// The request cannot be sent as it was built.
#define HTTPSTREAM_KIND_INVALID_REQUEST 1

// The configuration cannot be used.
#define HTTPSTREAM_KIND_INVALID_CONFIG 2

// The host has no address, or the lookup failed.
#define HTTPSTREAM_KIND_RESOLVE 3

// Connecting failed for every address of the host.
#define HTTPSTREAM_KIND_CONNECT 4

// TLS failed, in the handshake or through a later record or alert.
#define HTTPSTREAM_KIND_TLS 5

// The connection ended before the first byte of the response.
#define HTTPSTREAM_KIND_CLOSED_BEFORE_RESPONSE 6

// The connection ended inside the response. httpstream_reply_body returns what had arrived.
#define HTTPSTREAM_KIND_TRUNCATED 7

// Reading or writing failed.
#define HTTPSTREAM_KIND_IO 8

// The response breaks the protocol.
#define HTTPSTREAM_KIND_MALFORMED 9

// The response exceeds a limit.
#define HTTPSTREAM_KIND_TOO_LARGE 10

// A deadline passed. httpstream_reply_phase returns the phase.
#define HTTPSTREAM_KIND_TIMEOUT 11

// This machine ran out of file descriptors, ports or memory.
#define HTTPSTREAM_KIND_EXHAUSTED 12

// The chain was canceled.
#define HTTPSTREAM_KIND_CANCELLED 13

// A callback returned HTTPSTREAM_ABORT.
#define HTTPSTREAM_KIND_ABORTED 14

// The engine no longer exists.
#define HTTPSTREAM_KIND_GONE 15

// A kind for which this header has no number.
#define HTTPSTREAM_KIND_OTHER 99

// The request was being built.
#define HTTPSTREAM_PHASE_BUILD 1

// The request waits for its delay, a connection or a file descriptor.
#define HTTPSTREAM_PHASE_QUEUE 2

// Looking up the host.
#define HTTPSTREAM_PHASE_RESOLVE 3

// Connecting.
#define HTTPSTREAM_PHASE_CONNECT 4

// Performing the TLS handshake.
#define HTTPSTREAM_PHASE_TLS 5

// Writing the request.
#define HTTPSTREAM_PHASE_WRITE 6

// The request is written and no byte of the response has arrived.
#define HTTPSTREAM_PHASE_FIRST_BYTE 7

// Reading the header section.
#define HTTPSTREAM_PHASE_HEAD 8

// Reading the body.
#define HTTPSTREAM_PHASE_BODY 9

// A phase for which this header has no number.
#define HTTPSTREAM_PHASE_OTHER 99

// No byte of the request left this machine.
#define HTTPSTREAM_SENT_NO 0

// Some or all of the request was written and no response arrived: the peer may have processed it.
#define HTTPSTREAM_SENT_MAYBE 1

// The peer answered, so it has received the request.
#define HTTPSTREAM_SENT_YES 2

// The settings of an engine. A configuration belongs to no thread.
typedef uint64_t httpstream_config;

// An engine: a number, never a pointer. It belongs to the thread that created it.
typedef uint64_t httpstream_engine;

// What httpstream_turn did.
typedef struct httpstream_turned {
    // Events that poll reported.
    uint64_t events;
    // Requests that ended, with a response or an error.
    uint64_t answered;
    // Work is left that waits only for the next turn.
    bool more;
    // httpstream_stop was called.
    bool stopped;
} httpstream_turned;

// An engine's current state and its totals. The members up to `paused` count what exists now; the
// others count since the engine was created.
typedef struct httpstream_stats {
    // The caller sets it to sizeof(httpstream_stats). No more bytes than that are written.
    size_t size;
    // Connections being established, busy or idle.
    uint64_t links_open;
    // Idle connections.
    uint64_t links_idle;
    // Connections not yet established: in the lookup of the host, connecting, or in the TLS
    // handshake.
    uint64_t links_dialing;
    // Requests that have a connection.
    uint64_t in_flight;
    // Requests that wait for a connection.
    uint64_t queued;
    // Requests that wait for their delay.
    uint64_t delayed;
    // Requests in flight that a callback paused with HTTPSTREAM_PAUSE.
    uint64_t paused;
    // Connections opened.
    uint64_t opened;
    // Requests sent on a connection that had served another.
    uint64_t reused;
    // Chains submitted.
    uint64_t submitted;
    // Requests that got a response.
    uint64_t answered;
    // Requests that failed, cancellations included.
    uint64_t failed;
    // Requests sent again because a reused connection turned out to be closed.
    uint64_t retried;
    // Bytes received.
    uint64_t bytes_in;
    // Bytes sent.
    uint64_t bytes_out;
    // Turns.
    uint64_t turns;
    // Turns that another thread caused.
    uint64_t wakeups;
} httpstream_stats;

// A request. It belongs to no thread.
typedef uint64_t httpstream_request;

// A reply, or part of one, lent to a callback. It is valid on the callback's thread until the
// callback returns.
typedef uint64_t httpstream_reply;

// What a chain does after a reply. The callback gets it zeroed, which means HTTPSTREAM_DONE.
typedef struct httpstream_next {
    // HTTPSTREAM_DONE, HTTPSTREAM_AGAIN or HTTPSTREAM_SEND.
    int32_t action;
    // Whether to free `request` after the callback has returned, whatever the action is.
    bool frees_request;
    // The request to send, for HTTPSTREAM_SEND.
    httpstream_request request;
    // Milliseconds to wait before sending the request. UINT64_MAX means forever, that is, until
    // httpstream_cancel.
    uint64_t delay_ms;
    // The callbacks for the rest of the chain; null keeps the current ones. The struct is copied
    // after the callback has returned, whatever the action is, so it must be static or on the
    // heap, not a local variable of the callback. The previous callbacks are then released.
    const struct httpstream_readback *readback;
} httpstream_next;

// The callbacks of a chain, and their user pointer.
//
// They run inside httpstream_turn only, on its thread, and must return: no longjmp, no C++
// exception. They may call every function except httpstream_turn, httpstream_free and
// httpstream_get_stats of the engine that calls them; other engines may even be turned. A child
// process that is forked inside a callback must not return from it.
//
// The struct is copied when it is passed in. Only `user` has to stay valid, until `release`.
typedef struct httpstream_readback {
    // Called when the response is complete or the request has failed; writes to `next` what the
    // chain does next. Called exactly once for each request of the chain as long as the engine
    // exists. If null, the response is read to its end and dropped, and the chain ends.
    void (*on_reply)(void *user, httpstream_reply reply, struct httpstream_next *next);
    // Called when the head has arrived. Returns HTTPSTREAM_BUFFER, HTTPSTREAM_STREAM,
    // HTTPSTREAM_DISCARD, HTTPSTREAM_PAUSE (which streams the body after a resume) or
    // HTTPSTREAM_ABORT. If null, the body is buffered if there is an on_reply, otherwise
    // discarded.
    int32_t (*on_head)(void *user, httpstream_reply head);
    // Called with a piece of a streamed body: `len` bytes, at least one. Where the body is split
    // has no meaning. Returns HTTPSTREAM_STREAM to go on, or HTTPSTREAM_DISCARD, HTTPSTREAM_PAUSE
    // or HTTPSTREAM_ABORT. Of `reply`, only the id, the method and the URL are available. If null,
    // a streamed body is discarded.
    int32_t (*on_data)(void *user, httpstream_reply reply, const uint8_t *data, size_t len);
    // Called when this readback no longer needs `user`: exactly once, at the end of the
    // httpstream_turn in which the chain ended or took another readback, or inside
    // httpstream_free. It is never called on another thread or in another process than the
    // engine's. May be null.
    void (*release)(void *user);
    // Passed to each callback; the library does not use it.
    void *user;
} httpstream_readback;

// Identifies a chain within one engine: a submitted request and all requests that its callbacks
// return, until HTTPSTREAM_DONE. An engine never uses an id twice, and treats another engine's id
// as one of a chain that has ended. 0 identifies no chain.
typedef uint64_t httpstream_id;

// Everything about a reply that is available without further work, in one call.
typedef struct httpstream_view {
    // The caller sets it to sizeof(httpstream_view). No more bytes than that are written.
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
    // The minor version, as in HTTP/1.`minor`: 0 or 1; -1 without a head.
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
    // The IP address that the response came from, in network byte order. httpstream_reply_peer
    // returns it as text.
    uint8_t peer_address[16];
    // The length of the address in bytes: 4 or 16; 0 if the peer is not known.
    uint32_t peer_address_len;
    // The peer's port.
    uint32_t peer_port;
    // When the lookup of the host ended, in microseconds since the submission or since the end of
    // the delay. Here and below, UINT64_MAX means that the step did not occur, as on a reused
    // connection, or that its time is not known, as after a failure.
    uint64_t resolve_us;
    // When the connection was established.
    uint64_t connect_us;
    // When the TLS handshake was complete.
    uint64_t tls_us;
    // When the last byte of the request was written.
    uint64_t sent_us;
    // When the first byte of the response was read.
    uint64_t first_byte_us;
    // When the response was complete.
    uint64_t done_us;
} httpstream_view;

// One field line. The bytes are not NUL-terminated. They are valid as long as the reply.
typedef struct httpstream_field {
    // The name, as received.
    const uint8_t *name;
    // Its length in bytes.
    size_t name_len;
    // The value, as received but without surrounding whitespace: any bytes except CR, LF and NUL.
    const uint8_t *value;
    // Its length in bytes.
    size_t value_len;
} httpstream_field;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the message of the last call that failed on this thread: the function, the argument, and
// what is wrong with it. Returns "" if no call has failed, never null. The text is valid until the
// next call that fails on this thread; calls that succeed do not change it.
const char *httpstream_last_error(void);

// Returns the error of the last call that failed on this thread, or HTTPSTREAM_OK if none has. Use
// it after functions that return no error number. Like errno, it means nothing after a call that
// succeeded.
int32_t httpstream_last_error_number(void);

// Returns the name of an error, such as "HTTPSTREAM_ERROR_NULL"; "HTTPSTREAM_OK" for
// HTTPSTREAM_OK, and "HTTPSTREAM_ERROR_UNKNOWN" for other numbers. The text is valid forever.
const char *httpstream_error_name(int32_t error);

// Returns the version of the library, such as "0.1.0". The text is valid forever.
const char *httpstream_version(void);

// Returns the HTTPSTREAM_ABI_VERSION that the library was built with. A program works with a
// library if it equals the one in the program's header.
uint32_t httpstream_abi_version(void);

// Creates a configuration with the default settings and writes it to `out`. Free it with
// httpstream_config_free; engines created with it no longer need it. Callable from any thread.
int32_t httpstream_config_new(httpstream_config *out);

// Frees a configuration. Callable from any thread.
int32_t httpstream_config_free(httpstream_config config);

// Sets a numeric setting. `name` is NUL-terminated. Sizes are in bytes and times in milliseconds;
// defaults are in parentheses.
//
// - "max_connections" (1024), "max_connections_per_origin" (256): connections open at once;
//   "max_idle_per_origin" (32)
// - "idle_timeout_ms" (60,000): how long an idle connection is kept; 0 keeps none, UINT64_MAX
//   keeps it until the server closes it
// - "timeout_resolve_ms", "timeout_connect_ms", "timeout_tls_ms" (10,000 each),
//   "timeout_write_ms", "timeout_first_byte_ms", "timeout_idle_ms" (30,000 each),
//   "timeout_total_ms" (300,000): timeouts of requests that do not set their own. UINT64_MAX, and
//   anything longer than 24 days, means none; 0 counts as 1.
// - "limit_max_head_bytes" (65,536), "limit_max_fields" (128), "limit_max_body_bytes" (67,108,864;
//   applies to buffered bodies), "limit_max_interim" (16), "limit_max_trailer_bytes",
//   "limit_max_chunk_extension_bytes" (16,384 each), "limit_refuse_obs_fold" (0): limits on
//   responses
// - "turn_events" (1024, at most 1,048,576), "turn_bytes" (524,288, per connection): limits on the
//   work of one turn; "read_buffer" (131,072)
// - "max_lookups" (64), "keep_names_ms", "keep_stale_names_ms" (86,400,000 each), "hosts_file"
//   (1): how host names are looked up. "system_resolver" (0): 1 uses the C library's resolver, on
//   threads that this library starts, instead of querying name servers.
// - "public_only" (0): 1 connects only to addresses on the public internet, for URLs from
//   untrusted sources
// - "nodelay" (0): 1 sets TCP_NODELAY on all connections
// - "timerfd" (0): 1 makes the descriptor readable at deadlines too, so that a host without timers
//   needs only the descriptor (Linux)
//
// HTTPSTREAM_ERROR_ARGUMENT: there is no such setting, or no engine can work with the value.
// Callable from any thread.
int32_t httpstream_config_set(httpstream_config config, const char *name, uint64_t value);

// Fails requests that set no low speed of their own if, on average over a window of `window_ms`
// milliseconds, fewer than `bytes_per_second` bytes are transferred. The error is
// HTTPSTREAM_KIND_TIMEOUT. By default there is no such check; 0 bytes, or a window longer than 24
// days, turns it off.
//
// Windows follow one another while the request is written, and from the first byte of the response
// on. They stop while the engine waits for the response, while the response is paused, and while
// the request's "download_rate" or "upload_rate" holds it back. Callable from any thread.
int32_t httpstream_config_low_speed(httpstream_config config, uint64_t bytes_per_second, uint64_t window_ms);

// Sets the User-Agent of requests without one of their own, in place of "httpstream/VERSION". A
// `len` of 0 sends none. A `len` of SIZE_MAX means that `text` is NUL-terminated.
//
// HTTPSTREAM_ERROR_ARGUMENT: the text is not a valid field value. Callable from any thread.
int32_t httpstream_config_user_agent(httpstream_config config, const char *text, size_t len);

// Adds a field to every request that has no field of that name. At most 31 are allowed, the
// User-Agent included. A length of SIZE_MAX means NUL-terminated.
//
// HTTPSTREAM_ERROR_ARGUMENT: the field cannot be sent; the message names the invalid byte.
// Callable from any thread.
int32_t httpstream_config_header(httpstream_config config,
                                 const char *name,
                                 size_t name_len,
                                 const char *value,
                                 size_t value_len);

// Connects requests that match `pattern` to `address`, in place of the URL's host and port and
// without a lookup. Both are NUL-terminated.
//
// `pattern` is a host, "host:port", "*.domain" (every host below the domain) or "*"; the first
// match applies. `address` has the form "127.0.0.1:8080" or "[::1]:8080".
//
// HTTPSTREAM_ERROR_ARGUMENT: the address is malformed. A malformed pattern is reported by
// httpstream_new. Callable from any thread.
int32_t httpstream_config_resolve_to(httpstream_config config, const char *pattern, const char *address);

// Trusts the root certificates in this PEM file and no others, in place of the system's. `path` is
// NUL-terminated. The file is read by this call.
//
// HTTPSTREAM_ERROR_IO: the file cannot be read. HTTPSTREAM_ERROR_ARGUMENT: the file contains no
// certificate or an invalid one, or the library was built without TLS. Callable from any thread.
int32_t httpstream_config_ca_file(httpstream_config config, const char *path);

// Creates an engine and writes it to `out`. It belongs to this thread: no other thread may use it,
// except for httpstream_wakeup and httpstream_stop.
//
// `config` is copied; 0 means the defaults. Free the engine with httpstream_free before its thread
// ends. Otherwise it is leaked with its descriptors, and nothing is released.
//
// HTTPSTREAM_ERROR_ARGUMENT: the configuration is invalid; the message names the setting.
// HTTPSTREAM_ERROR_IO: the system provides no poll or descriptor.
int32_t httpstream_new(httpstream_config config, httpstream_engine *out);

// Frees an engine, and closes its connections and its descriptor. Remove the descriptor from your
// event loop first. The only callback that runs is `release`, once for each chain that has not
// ended. In a child process this fails and does nothing, because the engine belongs to the parent.
int32_t httpstream_free(httpstream_engine engine);

// Returns the descriptor to watch for reading, level-triggered. A negative value is an error. When
// the descriptor is readable or the timeout has expired, call httpstream_turn. In an
// edge-triggered loop, turn until `more` is false and `events` is 0. The descriptor stays the same
// for the engine's life and belongs to the engine: do not close it or read from it.
int32_t httpstream_fd(httpstream_engine engine);

// Returns how long poll(2) may wait: in milliseconds, rounded up. 0 means that a turn is due, and
// -1 that there is nothing to wait for but the descriptor. A value below -1 is an error. Ask again
// before each wait and after each other call to the engine. Inside a callback the result is 0.
int32_t httpstream_timeout_ms(httpstream_engine engine);

// Does all work that is due: reads and writes, checks deadlines, runs callbacks. It never blocks,
// and may be called late, early or twice.
//
// It makes up to `budget` turns as long as there is more to do; 0 counts as 1. Each turn is
// limited (see "turn_events" and "turn_bytes"), and remaining work makes the timeout 0. A `budget`
// of 1 suits a loop with other users; choose a higher one if going round the loop costs too much.
// The result is written to `turned`, which may be null, and also if the call returns
// HTTPSTREAM_ERROR_CALLBACK.
//
// HTTPSTREAM_ERROR_BUSY: called inside a callback of this engine. HTTPSTREAM_ERROR_CALLBACK: a
// callback returned an invalid value or a request that cannot be sent; the message names the
// chain, and everything else was done. HTTPSTREAM_ERROR_IO: poll failed.
int32_t httpstream_turn(httpstream_engine engine, uint32_t budget, struct httpstream_turned *turned);

// Makes the descriptor readable, so that the loop turns the engine. Several wakeups before a turn
// count as one. Callable from any thread; this function and httpstream_stop are the only ones that
// other threads may call while the engine is in use.
//
// HTTPSTREAM_ERROR_HANDLE: the engine was freed.
int32_t httpstream_wakeup(httpstream_engine engine);

// Sets `stopped` in the result of the httpstream_turn that is running, or else of the next one.
// The engine can still be used afterwards. Callable from any thread.
//
// HTTPSTREAM_ERROR_HANDLE: the engine was freed.
int32_t httpstream_stop(httpstream_engine engine);

// Closes idle connections, and prevents connections in use from being reused. Inside a callback
// this takes effect at the end of httpstream_turn. After a change of the network, call
// httpstream_network_changed, which does this and more.
int32_t httpstream_close_idle(httpstream_engine engine);

// Tells the engine that the network changed: an interface came up, a VPN connected, or the machine
// woke from sleep. Idle connections are closed, and connections in use are not reused. Cached
// names, and the addresses and name servers noted as failing, are forgotten; resolv.conf and the
// hosts file are read again. Requests in flight go on. Inside a callback this takes effect at the
// end of httpstream_turn.
int32_t httpstream_network_changed(httpstream_engine engine);

// Returns the number of chains that have not ended: queued, in flight, paused or delayed, and,
// inside a callback, its own. A negative value is an error.
int64_t httpstream_pending(httpstream_engine engine);

// Writes statistics of the engine to `out`; set `out->size` first. All connections and chains are
// counted for each call, which is cheap enough for once a second, but not for every turn.
//
// HTTPSTREAM_ERROR_BUSY: called inside a callback of this engine. HTTPSTREAM_ERROR_ARGUMENT:
// `size` is not set.
int32_t httpstream_get_stats(httpstream_engine engine, struct httpstream_stats *out);

// Starts a chain: sends `request` after `delay_ms` milliseconds and passes the reply to the
// callbacks of `readback`. A turn is then due. A delay of UINT64_MAX lasts until
// httpstream_cancel. The chain's id is written to `id`, which may be null.
//
// The caller keeps the request. The readback is copied and released exactly once; if this call
// fails, it is not copied and not released. Callable inside callbacks.
//
// HTTPSTREAM_ERROR_ARGUMENT: the request cannot be sent.
int32_t httpstream_submit(httpstream_engine engine,
                          httpstream_request request,
                          uint64_t delay_ms,
                          const struct httpstream_readback *readback,
                          httpstream_id *id);

// Ends a chain, whatever it is doing. A turn is then due.
//
// Returns 1 if the chain is canceled: its on_reply is called once more, with
// HTTPSTREAM_KIND_CANCELLED, and `next->action` is ignored. Returns 0 if the chain had ended or
// was canceled before. Callable inside callbacks, including the chain's own.
int32_t httpstream_cancel(httpstream_engine engine, httpstream_id id);

// Resumes a chain that a callback paused with HTTPSTREAM_PAUSE.
//
// Returns 1 if the chain resumes; a turn is then due. Returns 0 if it was not paused; a pause
// begins when the callback has returned. Callable inside callbacks.
int32_t httpstream_resume(httpstream_engine engine, httpstream_id id);

// Creates a request and writes it to `out`. Free it with httpstream_request_free. Lengths are in
// bytes; SIZE_MAX means NUL-terminated.
//
// `url` is an absolute http or https URL whose host is ASCII or an IP address. Path and query may
// be percent-encoded or not; a fragment is dropped. Credentials are removed and sent as Basic
// authentication. `method` is any method except CONNECT.
//
// A request is a value: any engine on any thread can send it, any number of times. It is fixed
// when it is first sent; later changes fail. A call that fails because of its arguments
// invalidates the request: all further calls, and sending it, fail with the same message.
//
// HTTPSTREAM_ERROR_ARGUMENT: the request cannot be sent; the message says which byte of which part
// is invalid. Callable from any thread.
int32_t httpstream_request_new(const char *method,
                               size_t method_len,
                               const char *url,
                               size_t url_len,
                               httpstream_request *out);

// Frees a request. Chains that send it go on. Callable from any thread.
int32_t httpstream_request_free(httpstream_request request);

// Adds a field. Fields of the same name stay separate lines. Lengths are in bytes; SIZE_MAX means
// NUL-terminated. Whitespace around the value is removed. "Host" replaces the host of the URL;
// "Content-Length" must match the body.
//
// HTTPSTREAM_ERROR_ARGUMENT: the name is not a token, the value contains a control byte, or it is
// a second Host or Content-Length, a Transfer-Encoding, or an Expect other than 100-continue.
// Upgrade fails too, since this interface cannot write after a 101 response; that error does not
// invalidate the request. Callable from any thread.
int32_t httpstream_request_header(httpstream_request request,
                                  const char *name,
                                  size_t name_len,
                                  const char *value,
                                  size_t value_len);

// Sets the body to a copy of `len` bytes; SIZE_MAX means NUL-terminated. The length is sent as
// Content-Length. Null with a `len` of 0 is an empty body. Callable from any thread.
int32_t httpstream_request_body(httpstream_request request, const void *body, size_t len);

// Sets the total timeout in milliseconds. It runs from the submission, or from the end of a delay,
// to the end of the response's body, and includes the time in the queue. UINT64_MAX means none.
// Callable from any thread.
int32_t httpstream_request_timeout_ms(httpstream_request request, uint64_t ms);

// Makes the request a long poll: the server may be silent for `ms` milliseconds. The first-byte
// and idle timeouts become `ms` plus 10 s. A total timeout shorter than `ms` plus 40 s is raised
// to that; a later httpstream_request_timeout_ms overrides it. Callable from any thread.
int32_t httpstream_request_long_poll_ms(httpstream_request request, uint64_t ms);

// Fails the request if, on average over a window of `window_ms` milliseconds, fewer than
// `bytes_per_second` bytes are transferred; see httpstream_config_low_speed, which this overrides.
// 0 bytes, or a window longer than 24 days, turns the check off. Callable from any thread.
int32_t httpstream_request_low_speed(httpstream_request request,
                                     uint64_t bytes_per_second,
                                     uint64_t window_ms);

// Sets a numeric setting of the request. `name` is NUL-terminated; defaults are in parentheses.
//
// - "idempotent" (depends on the method): whether the request may be sent again after the server
//   may have processed it, 1 or 0
// - "fresh_connection" (0): 1 sends the request on a new connection. "close" (0): 1 closes the
//   connection after the response. 0 undoes neither.
// - "download_rate", "upload_rate" (0): the most bytes a second at which the response is read, and
//   the request written; 0 means no limit. An eighth of a second's worth may go at once, but at
//   least 1024 bytes. Meanwhile the idle and write timeouts are suspended, but not the total one.
// - "timeout_resolve_ms" and the other timeouts, "max_body_bytes" and the other limits (with or
//   without the prefix "limit_"): as in httpstream_config_set, for this request
//
// HTTPSTREAM_ERROR_ARGUMENT: there is no such setting, or its value is invalid; this does not
// invalidate the request. Callable from any thread.
int32_t httpstream_request_option(httpstream_request request, const char *name, uint64_t value);

// Writes everything about a reply that is available without further work to `out`; set `out->size`
// first. One call in place of a dozen, for language bindings.
//
// HTTPSTREAM_ERROR_ARGUMENT: `size` is not set.
//
// This function and those below are for use inside callbacks, with the reply passed to the
// callback, on the engine's thread. For a reply that is not lent to a running callback they return
// HTTPSTREAM_ERROR_HANDLE or HTTPSTREAM_ERROR_THREAD. Functions that return no error number then
// return 0, false or null, and httpstream_last_error_number returns the error. Returned pointers
// are valid until the callback returns, and null only where this is stated.
int32_t httpstream_reply_view(httpstream_reply reply, struct httpstream_view *out);

// Returns the id of the chain that the reply belongs to, or 0 if this is not a reply.
httpstream_id httpstream_reply_id(httpstream_reply reply);

// Returns HTTPSTREAM_KIND_RESPONSE (0) for a response, its head or a piece of it. For a failure,
// returns its cause, another HTTPSTREAM_KIND_*. A negative value is an error.
int32_t httpstream_reply_kind(httpstream_reply reply);

// Returns the name of a HTTPSTREAM_KIND_*, such as "Truncated"; "Response" for 0, and "Other" for
// unknown numbers. The text is valid forever. Callable from any thread.
const char *httpstream_kind_name(int32_t kind);

// Returns what failed, where and why, as NUL-terminated UTF-8 text; "" for a response. The text
// contains no path, query or field value. Returns null if this is not a reply.
const char *httpstream_reply_message(httpstream_reply reply);

// Returns the phase in which the request failed, a HTTPSTREAM_PHASE_*; 0 for a response. A
// negative value is an error.
int32_t httpstream_reply_phase(httpstream_reply reply);

// Returns the name of a HTTPSTREAM_PHASE_*, such as "FirstByte"; "None" for 0, and "Other" for
// unknown numbers. The text is valid forever. Callable from any thread.
const char *httpstream_phase_name(int32_t phase);

// Returns whether the request left this machine: HTTPSTREAM_SENT_NO, HTTPSTREAM_SENT_MAYBE or
// HTTPSTREAM_SENT_YES; always the last for a response. A negative value is an error.
int32_t httpstream_reply_request_sent(httpstream_reply reply);

// Returns 1 if sending the request again can do no harm, because it never left this machine or is
// idempotent. Returns 0 if it can, and for a response. A negative value is an error.
int32_t httpstream_reply_resend_is_safe(httpstream_reply reply);

// Returns the status code, 100 to 999, also for a failure after the head; 0 if none was received.
// A negative value is an error.
int32_t httpstream_reply_status(httpstream_reply reply);

// Returns the reason phrase, which is often empty. It is not NUL-terminated. Its length is written
// to `len`, which may be null. Returns null if this is not a reply.
const char *httpstream_reply_reason(httpstream_reply reply, size_t *len);

// Returns the body, with the transfer coding removed. For a failure it is what had been collected;
// it is empty if the body was streamed or discarded. Its length is written to `len`, which may be
// null. Returns null if this is not a reply.
const uint8_t *httpstream_reply_body(httpstream_reply reply, size_t *len);

// Returns the value of the first field with this name, in any case. It is not NUL-terminated. Its
// length is written to `len`, which may be null. A `name_len` of SIZE_MAX means that `name` is
// NUL-terminated. Returns null if there is no such field or this is not a reply.
const uint8_t *httpstream_reply_header(httpstream_reply reply,
                                       const char *name,
                                       size_t name_len,
                                       size_t *len);

// Returns the number of fields; several of the same name count each. 0 for a failure.
size_t httpstream_reply_header_count(httpstream_reply reply);

// Writes the field at `index` to the four places, each of which may be null. Fields are in the
// order received, and indexes start at 0.
//
// HTTPSTREAM_ERROR_ARGUMENT: `index` is not less than the number of fields.
int32_t httpstream_reply_header_at(httpstream_reply reply,
                                   size_t index,
                                   const uint8_t **name,
                                   size_t *name_len,
                                   const uint8_t **value,
                                   size_t *value_len);

// Writes up to `room` fields to `out`, in the order received. Returns the total number of fields,
// which may exceed `room`. `out` may be null if `room` is 0. One call in place of many, for
// language bindings.
size_t httpstream_reply_headers(httpstream_reply reply, struct httpstream_field *out, size_t room);

// Writes the head as text to `out`, which has room for `room` bytes: the status line, then each
// field line as "name: value" in the order received, all terminated by CR LF. Returns the full
// length; 0 for a failure or if this is not a reply. If the length exceeds `room`, only a part of
// the beginning was written, possibly nothing. `out` may be null if `room` is 0. One copy in place
// of many, for language bindings that read fields later or never.
size_t httpstream_reply_head(httpstream_reply reply, char *out, size_t room);

// Returns the number of trailer fields; 0 until the response is complete.
size_t httpstream_reply_trailer_count(httpstream_reply reply);

// Writes the trailer field at `index` to the four places, like httpstream_reply_header_at.
int32_t httpstream_reply_trailer_at(httpstream_reply reply,
                                    size_t index,
                                    const uint8_t **name,
                                    size_t *name_len,
                                    const uint8_t **value,
                                    size_t *value_len);

// Returns the method of the request, also for a failure. It is not NUL-terminated. Its length is
// written to `len`, which may be null. Returns null if this is not a reply.
const char *httpstream_reply_method(httpstream_reply reply, size_t *len);

// Returns the URL of the request, also for a failure: percent-encoded as it was sent, without a
// fragment. It may contain secrets, so do not log it. It is not NUL-terminated. Its length is
// written to `len`, which may be null. Returns null if this is not a reply.
const char *httpstream_reply_url(httpstream_reply reply, size_t *len);

// Returns how many times the request was sent: 2 after a retry on a fresh connection. For a
// failure, returns how many times it was assigned a connection, established or not: 0 if it never
// left the queue. A negative value is an error.
int32_t httpstream_reply_attempts(httpstream_reply reply);

// Returns the address that the response came from, such as "127.0.0.1:80" or "[::1]:80", as
// NUL-terminated text; "" if it is not known, as for a failure. Returns null if this is not a
// reply.
const char *httpstream_reply_peer(httpstream_reply reply);

// Returns whether the connection had served another request before.
bool httpstream_reply_reused(httpstream_reply reply);

// Returns the time in microseconds from the submission, or the end of the delay, to the end of the
// response, or to now if the response is not complete or the request failed.
uint64_t httpstream_reply_elapsed_us(httpstream_reply reply);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HTTPSTREAM_H */
