/* The conversation of ../conversation in C: 20 chains of 50 steps, and a line for each step. Each
 * program adds only its loop:
 *
 *     httpstream_engine engine = begin(argc, argv);
 *     ... until httpstream_pending(engine) is 0 ...
 *     return end(engine);
 *
 *     cargo build -p httpstream-capi
 *     cc -D_GNU_SOURCE -Icapi/include examples/embed/c/epoll.c -o epoll \
 *         -Ltarget/debug -Wl,-rpath,target/debug -lhttpstream
 *     ./epoll ADDR REFUSED
 *
 * ADDR and REFUSED are printed by `cargo run --example embed_run -- --serve`. For uv.c, add -luv at
 * the end.
 *
 * The first part repeats ../conversation/script.rs, the rest ../conversation/mod.rs. */
#ifndef CONVERSATION_H
#define CONVERSATION_H
#include <httpstream.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Returns the result of a call. If it is negative, prints the error and exits. */
static inline int64_t ok(int64_t answer) {
    if (answer < 0) {
        fprintf(stderr, "%s: %s\n", httpstream_error_name((int32_t)answer), httpstream_last_error());
        exit(1);
    }
    return answer;
}

/* ---- the script ---- */

enum { CHAINS = 20, STEPS = 50, ACTS = 25 };
enum { PATIENCE_MS = 25, PAUSE_MS = 3, HOLD_MS = 60000, MAX_BODY_BYTES = 100, MAX_SENT_BYTES = 1024 };

typedef enum act {
    WHOLE,
    CHUNKED,
    PIECES,
    LARGE,
    CLOSING,
    UNTIL_CLOSE,
    INTERIM,
    NO_CONTENT,
    NOT_MODIFIED,
    HEAD,
    NOT_FOUND,
    ECHO_BODY,
    BUSY,
    ELSEWHERE,
    PAUSED,
    ABORTED,
    CANCELLED,
    MALFORMED,
    TOO_LARGE,
    TRUNCATED,
    TRUNCATED_CHUNKED,
    CLOSED,
    CLOSED_POST,
    SILENCE,
    REFUSED
} act;

static inline act act_of(int chain, int step) { return (act)((step * 7 + chain / 2 * 3) % ACTS); }

static inline unsigned delay_of(int chain, int step) { return (unsigned)((chain * 3 + step * 5) % 8); }

/* In each pair of chains, the even one is held, and the odd one cancels it. */
static inline bool is_held(int chain, int step) { return act_of(chain, step) == CANCELLED && chain % 2 == 0; }

/* Writes the body sent in ECHO_BODY and CLOSED_POST to `body`, and returns its length. */
static inline size_t body_of(int chain, int step, char body[MAX_SENT_BYTES]) {
    int i, len = 200 + chain * 13 + step * 7;
    for (i = 0; i < len; i++)
        body[i] = (char)('a' + (i * 7 + i / 26 + chain + step) % 26);
    return (size_t)len;
}

/* FNV-1a, 32 bits. */
static const uint32_t NO_SUM = 0x811c9dc5;

static inline uint32_t sum_of(uint32_t sum, const uint8_t *bytes, size_t len) {
    for (; len > 0; bytes++, len--)
        sum = (sum ^ *bytes) * 0x01000193;
    return sum;
}

/* ---- the client ---- */

typedef struct chain {
    int chain, step;
    httpstream_id id;
    /* The lines written so far. */
    FILE *out;
    char *text;
    size_t len;
    /* The part of a streamed body that has arrived. */
    size_t bytes;
    uint32_t sum;
    int pauses;
    /* Readbacks of the steps, of the request that follows ELSEWHERE, and of the one that resumes.
     * */
    httpstream_readback steps, elsewhere, resuming;
} chain;

static httpstream_engine engine_of_all;
static const char *server, *refused;
static chain chains[CHAINS];
/* Readbacks that were passed to the engine and not released yet. */
static int readbacks;

static inline httpstream_request request_to(const char *method, const char *url) {
    httpstream_request request = 0;
    ok(httpstream_request_new(method, SIZE_MAX, url, SIZE_MAX, &request));
    return request;
}

/* Returns the request of a step. The caller frees it. */
static inline httpstream_request request_of(int chain, int step) {
    char url[256], body[MAX_SENT_BYTES];
    httpstream_request request;
    act what = act_of(chain, step);
    bool has_body = what == ECHO_BODY || what == CLOSED_POST;
    snprintf(url, sizeof url, "http://%s/%d/%d", what == REFUSED ? refused : server, chain, step);
    request = request_to(what == HEAD ? "HEAD" : has_body ? "POST" : "GET", url);
    if (has_body)
        ok(httpstream_request_body(request, body, body_of(chain, step, body)));
    if (what == CANCELLED)
        ok(httpstream_request_long_poll_ms(request, HOLD_MS));
    if (what == TOO_LARGE)
        ok(httpstream_request_option(request, "max_body_bytes", MAX_BODY_BYTES));
    if (what == SILENCE)
        ok(httpstream_request_option(request, "timeout_first_byte_ms", PATIENCE_MS));
    return request;
}

/* Sends a request as a new chain. */
static inline void start(httpstream_request request, unsigned delay, const httpstream_readback *readback, httpstream_id *id) {
    ok(httpstream_submit(engine_of_all, request, delay, readback, id));
    ok(httpstream_request_free(request));
    readbacks++;
}

static void on_release(void *user) {
    (void)user;
    readbacks--;
}

static inline void begin_line(chain *c) {
    fprintf(c->out, "chain %02d step %02d after %u ms: ", c->chain, c->step, delay_of(c->chain, c->step));
    c->bytes = 0;
    c->sum = NO_SUM;
    c->pauses = 0;
}

/* Writes a summary of the response, or of the error. */
static inline void tell(chain *c, httpstream_reply reply) {
    static const char *const sent[] = {"not sent", "maybe sent", "sent"};
    int32_t kind = httpstream_reply_kind(reply);
    size_t len;
    const uint8_t *body = httpstream_reply_body(reply, &len);
    if (kind == HTTPSTREAM_KIND_RESPONSE) {
        fprintf(c->out, "%" PRId32 " %zu bytes %08" PRIx32, httpstream_reply_status(reply), len, sum_of(NO_SUM, body, len));
        return;
    }
    if (kind == HTTPSTREAM_KIND_TOO_LARGE)
        fprintf(c->out, "%s over %d", httpstream_kind_name(kind), MAX_BODY_BYTES);
    else
        fprintf(c->out, "%s in %s", httpstream_kind_name(kind), httpstream_phase_name(httpstream_reply_phase(reply)));
    fprintf(c->out, ", %s", sent[ok(httpstream_reply_request_sent(reply))]);
    if (ok(httpstream_reply_resend_is_safe(reply)) == 1)
        fputs(", safe to send again", c->out);
    if (kind == HTTPSTREAM_KIND_TRUNCATED)
        fprintf(c->out, ", %zu bytes %08" PRIx32, len, sum_of(NO_SUM, body, len));
}

/* Ends the line, and decides what the chain does next. */
static inline void next_step(chain *c, httpstream_next *next) {
    bool was_held = is_held(c->chain, c->step);
    httpstream_request request;
    unsigned delay;
    fputc('\n', c->out);
    if (++c->step == STEPS)
        return;
    begin_line(c);
    request = request_of(c->chain, c->step);
    delay = delay_of(c->chain, c->step);
    if (was_held) {
        /* The canceled chain ends whatever its callback returns, so the steps continue in a new
         * chain. */
        start(request, delay, &c->steps, &c->id);
        return;
    }
    next->action = HTTPSTREAM_SEND;
    next->request = request;
    next->frees_request = true;
    next->delay_ms = delay;
}

static inline void take_over(httpstream_next *next, const httpstream_readback *readback) {
    next->readback = readback;
    readbacks++;
}

static void on_elsewhere(void *user, httpstream_reply reply, httpstream_next *next) {
    chain *c = user;
    tell(c, reply);
    next_step(c, next);
    take_over(next, &c->steps);
}

static void on_step(void *user, httpstream_reply reply, httpstream_next *next) {
    chain *c = user;
    bool is_response = httpstream_reply_kind(reply) == HTTPSTREAM_KIND_RESPONSE;
    int32_t status = httpstream_reply_status(reply);
    act what = act_of(c->chain, c->step);
    if (what == PAUSED && is_response)
        fprintf(c->out, "%" PRId32 " %zu bytes %08" PRIx32 ", paused %d times", status, c->bytes, c->sum, c->pauses);
    else
        tell(c, reply);
    if (what == CHUNKED && is_response) {
        const uint8_t *name, *value;
        size_t name_len, value_len;
        ok(httpstream_reply_trailer_at(reply, 0, &name, &name_len, &value, &value_len));
        fprintf(c->out, ", trailer %.*s", (int)value_len, (const char *)value);
    }
    if (what == HEAD && is_response) {
        size_t len;
        const uint8_t *value = httpstream_reply_header(reply, "Content-Length", SIZE_MAX, &len);
        fprintf(c->out, ", length %.*s", (int)len, (const char *)value);
    }
    if (what == BUSY && status == 503) {
        fputs(", again: ", c->out);
        next->action = HTTPSTREAM_AGAIN;
        return;
    }
    if (what == ELSEWHERE && is_response) {
        char url[256], told[9];
        size_t len, url_len;
        const uint8_t *body = httpstream_reply_body(reply, &len);
        const char *same = httpstream_reply_url(reply, &url_len);
        snprintf(url, sizeof url, "%.*s", (int)url_len, same);
        snprintf(told, sizeof told, "%08" PRIx32, sum_of(NO_SUM, body, len));
        next->action = HTTPSTREAM_SEND;
        next->request = request_to("POST", url);
        next->frees_request = true;
        ok(httpstream_request_body(next->request, told, 8));
        take_over(next, &c->elsewhere);
        fputs(", elsewhere: ", c->out);
        return;
    }
    if (what == CANCELLED && status == 200) {
        int held = c->chain ^ 1;
        if (ok(httpstream_cancel(engine_of_all, chains[held].id)) == 1)
            fprintf(c->out, ", cancelled chain %02d", held);
    }
    next_step(c, next);
}

/* The C interface has no calls without a request, so a small delayed request resumes the chain. */
static void on_resuming(void *user, httpstream_reply reply, httpstream_next *next) {
    chain *c = user;
    (void)reply;
    (void)next;
    ok(httpstream_resume(engine_of_all, c->id));
}

static inline int32_t pause_for_a_while(chain *c) {
    char url[256];
    c->pauses++;
    snprintf(url, sizeof url, "http://%s/plain", server);
    start(request_to("GET", url), PAUSE_MS, &c->resuming, NULL);
    return HTTPSTREAM_PAUSE;
}

static int32_t on_head(void *user, httpstream_reply head) {
    chain *c = user;
    (void)head;
    if (act_of(c->chain, c->step) == ABORTED)
        return HTTPSTREAM_ABORT;
    return act_of(c->chain, c->step) == PAUSED ? pause_for_a_while(c) : HTTPSTREAM_BUFFER;
}

static int32_t on_data(void *user, httpstream_reply reply, const uint8_t *data, size_t len) {
    chain *c = user;
    bool is_first = c->bytes == 0;
    (void)reply;
    c->bytes += len;
    c->sum = sum_of(c->sum, data, len);
    return is_first ? pause_for_a_while(c) : HTTPSTREAM_STREAM;
}

static inline void begin_chain(chain *c) {
    c->out = open_memstream(&c->text, &c->len);
    if (c->out == NULL) {
        perror("open_memstream");
        exit(1);
    }
    c->steps = (httpstream_readback){.on_reply = on_step, .on_head = on_head, .on_data = on_data, .release = on_release, .user = c};
    c->elsewhere = (httpstream_readback){.on_reply = on_elsewhere, .release = on_release, .user = c};
    c->resuming = (httpstream_readback){.on_reply = on_resuming, .release = on_release, .user = c};
    begin_line(c);
    start(request_of(c->chain, c->step), delay_of(c->chain, c->step), &c->steps, &c->id);
}

/* ---- --fetch: the same request repeatedly, for measurements ---- */

static long to_fetch, fetched, left;

static void on_fetched(void *user, httpstream_reply reply, httpstream_next *next) {
    (void)user;
    fetched += httpstream_reply_status(reply) == 200;
    if (left > 0) {
        left--;
        next->action = HTTPSTREAM_AGAIN;
    }
}

static inline void begin_to_fetch(long at_once, const char *url) {
    const httpstream_readback readback = {.on_reply = on_fetched, .release = on_release};
    at_once = at_once < to_fetch ? at_once : to_fetch;
    left = to_fetch - at_once;
    for (; at_once > 0; at_once--)
        start(request_to("GET", url), 0, &readback, NULL);
}

/* ---- the program ---- */

/* PROGRAM ADDR REFUSED, or PROGRAM --fetch N --at-once C URL. */
static inline httpstream_engine begin(int argc, char **argv) {
    httpstream_config config = 0;
    int i;
    ok(httpstream_config_new(&config));
    to_fetch = argc == 6 && strcmp(argv[1], "--fetch") == 0 && strcmp(argv[3], "--at-once") == 0 ? atol(argv[2]) : 0;
    if (to_fetch <= 0 && argc != 3) {
        fprintf(stderr, "usage: %s ADDR REFUSED, as printed by `cargo run --example embed_run -- --serve`\n", argv[0]);
        fprintf(stderr, "       %s --fetch N --at-once C URL\n", argv[0]);
        exit(2);
    }
    /* With so few events per turn, turns often leave work, none of which a host may lose. */
    if (to_fetch <= 0)
        ok(httpstream_config_set(config, "turn_events", 2));
    /* The loop has timers; a timer inside the descriptor would cost system calls. */
    ok(httpstream_config_set(config, "timerfd", 0));
    ok(httpstream_new(config, &engine_of_all));
    ok(httpstream_config_free(config));
    if (to_fetch > 0) {
        begin_to_fetch(atol(argv[4]), argv[5]);
        return engine_of_all;
    }
    server = argv[1];
    refused = argv[2];
    for (i = 0; i < CHAINS; i++) {
        chains[i].chain = i;
        begin_chain(&chains[i]);
    }
    return engine_of_all;
}

/* Prints the transcript. The host's loop no longer watches the descriptor. Returns the exit code.
 * */
static inline int end(httpstream_engine engine) {
    int i;
    ok(httpstream_free(engine));
    if (to_fetch > 0) {
        printf("done %ld\n", fetched);
        return fetched == to_fetch ? 0 : 1;
    }
    for (i = 0; i < CHAINS; i++) {
        fclose(chains[i].out);
        fputs(chains[i].text, stdout);
        free(chains[i].text);
    }
    if (readbacks != 0)
        fprintf(stderr, "%d readbacks were not released\n", readbacks);
    return readbacks == 0 ? 0 : 1;
}
#endif
