/* Invalid calls: each returns its error, with a message that names the function, the argument and
 * the mistake. */
#include "check.h"

static const uint64_t never_made = (UINT64_C(1) << 60) + 4711;

static void on_nothing(void *user, httpstream_reply reply, httpstream_next *next) { (void)user, (void)reply, (void)next; }

static void nulls(httpstream_engine engine, httpstream_config config, httpstream_request request) {
    httpstream_readback readback = {.on_reply = on_nothing};
    FAILS(HTTPSTREAM_ERROR_NULL, "httpstream_config_new: out is null", httpstream_config_new(NULL));
    FAILS(HTTPSTREAM_ERROR_NULL, "httpstream_config_set: name is null", httpstream_config_set(config, NULL, 1));
    FAILS(HTTPSTREAM_ERROR_NULL, "text is null", httpstream_config_user_agent(config, NULL, 0));
    FAILS(HTTPSTREAM_ERROR_NULL, "name is null", httpstream_config_header(config, NULL, 3, "v", 1));
    FAILS(HTTPSTREAM_ERROR_NULL, "value is null", httpstream_config_header(config, "n", 1, NULL, 3));
    FAILS(HTTPSTREAM_ERROR_NULL, "pattern is null", httpstream_config_resolve_to(config, NULL, "127.0.0.1:1"));
    FAILS(HTTPSTREAM_ERROR_NULL, "address is null", httpstream_config_resolve_to(config, "*", NULL));
    FAILS(HTTPSTREAM_ERROR_NULL, "path is null", httpstream_config_ca_file(config, NULL));
    FAILS(HTTPSTREAM_ERROR_NULL, "httpstream_new: out is null", httpstream_new(0, NULL));
    FAILS(HTTPSTREAM_ERROR_NULL, "out is null", httpstream_get_stats(engine, NULL));
    FAILS(HTTPSTREAM_ERROR_NULL, "readback is null", httpstream_submit(engine, request, 0, NULL, NULL));
    FAILS(HTTPSTREAM_ERROR_NULL, "out is null", httpstream_request_new("GET", 3, "http://a/", 9, NULL));
    FAILS(HTTPSTREAM_ERROR_NULL, "method is null", httpstream_request_new(NULL, 3, "http://a/", 9, &request));
    FAILS(HTTPSTREAM_ERROR_NULL, "url is null", httpstream_request_new("GET", 3, NULL, 0, &request));
    FAILS(HTTPSTREAM_ERROR_NULL, "name is null", httpstream_request_header(request, NULL, 0, "v", 1));
    FAILS(HTTPSTREAM_ERROR_NULL, "value is null", httpstream_request_header(request, "n", 1, NULL, SIZE_MAX));
    FAILS(HTTPSTREAM_ERROR_NULL, "body is null", httpstream_request_body(request, NULL, 1));
    OK(httpstream_request_body(request, NULL, 0));
    FAILS(HTTPSTREAM_ERROR_NULL, "name is null", httpstream_request_option(request, NULL, 1));
    CHECK(httpstream_pending(engine) == 0);
    (void)readback;
}

/* Tests every function with every kind of invalid handle. */
static void handles(httpstream_engine engine, httpstream_config config, httpstream_request request) {
    httpstream_readback readback = {.on_reply = on_nothing};
    httpstream_stats stats = {.size = sizeof stats};
    httpstream_engine freed_engine;
    httpstream_config freed_config;
    httpstream_request freed_request = get("/");
    size_t i;
    OK(httpstream_new(0, &freed_engine));
    OK(httpstream_config_new(&freed_config));
    OK(httpstream_free(freed_engine));
    OK(httpstream_config_free(freed_config));
    OK(httpstream_request_free(freed_request));

    {
        const struct {
            httpstream_engine handle;
            const char *words;
        } wrong[] = {{0, "engine 0x0 is the null handle"}, {7, "engine 0x7 was never created"}, {never_made, "was never created"}, {freed_engine, "was freed"},
                     {config, "is a config"},   {request, "is a request"}};
        for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            httpstream_engine e = wrong[i].handle;
            const char *w = wrong[i].words;
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_free(e));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_fd(e));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_timeout_ms(e));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_turn(e, 1, NULL));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_wakeup(e));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_stop(e));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_close_idle(e));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_network_changed(e));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_pending(e));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_get_stats(e, &stats));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_submit(e, request, 0, &readback, NULL));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_cancel(e, 1));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_resume(e, 1));
        }
    }
    {
        const struct {
            httpstream_config handle;
            const char *words;
        } wrong[] = {{7, "config 0x7 was never created"}, {config + 5, "was never created"}, {freed_config, "was freed"}, {engine, "is an engine"}};
        for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            httpstream_config c = wrong[i].handle;
            httpstream_engine out;
            const char *w = wrong[i].words;
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_new(c, &out));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_config_free(c));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_config_set(c, "max_connections", 1));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_config_user_agent(c, "", 0));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_config_header(c, "a", 1, "b", 1));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_config_resolve_to(c, "*", "127.0.0.1:1"));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_config_low_speed(c, 1, 1));
        }
        FAILS(HTTPSTREAM_ERROR_HANDLE, "config 0x0 is the null handle", httpstream_config_free(0));
    }
    {
        const struct {
            httpstream_request handle;
            const char *words;
        } wrong[] = {{0, "request 0x0 is the null handle"}, {7, "was never created"}, {request + 5, "was never created"}, {freed_request, "was freed"},
                     {engine, "is an engine"},   {config, "is a config"}};
        for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            httpstream_request r = wrong[i].handle;
            const char *w = wrong[i].words;
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_request_free(r));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_request_header(r, "a", 1, "b", 1));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_request_body(r, "", 0));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_request_timeout_ms(r, 1));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_request_long_poll_ms(r, 1));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_request_low_speed(r, 1, 1));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_request_option(r, "close", 1));
            FAILS(HTTPSTREAM_ERROR_HANDLE, w, httpstream_submit(engine, r, 0, &readback, NULL));
        }
    }
    {
        /* The first chain of each engine: an id of another engine cancels nothing here. */
        httpstream_engine other;
        httpstream_id here, there;
        OK(httpstream_new(0, &other));
        OK(httpstream_submit(engine, request, UINT64_MAX, &readback, &here));
        OK(httpstream_submit(other, request, UINT64_MAX, &readback, &there));
        CHECK(here != there && here != 0 && there != 0);
        CHECK(httpstream_cancel(engine, there) == 0 && httpstream_cancel(other, here) == 0);
        CHECK(httpstream_cancel(engine, here) == 1);
        run(engine);
        OK(httpstream_free(other));
    }
    CHECK(httpstream_cancel(engine, 0) == 0 && httpstream_cancel(engine, 1) == 0 && httpstream_cancel(engine, UINT64_MAX) == 0);
    CHECK(httpstream_resume(engine, 0) == 0 && httpstream_resume(engine, 1) == 0);
    CHECK(httpstream_pending(engine) == 0);
}

/* An invalid URL, field or setting is rejected by the call that passes it, with the position. */
static void arguments(httpstream_engine engine, httpstream_config config) {
    httpstream_readback readback = {.on_reply = on_nothing};
    httpstream_stats stats = {.size = 0};
    httpstream_request request = 4711;
    httpstream_engine out = 4711;
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "httpstream_request_new: URL", httpstream_request_new("GET", 3, "example.com/", SIZE_MAX, &request));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "URL: space at byte 10", httpstream_request_new("GET", 3, "http://exa mple.com/", SIZE_MAX, &request));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "url is not UTF-8 at byte 8", httpstream_request_new("GET", 3, "http://a\xff/", SIZE_MAX, &request));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "method: not a token", httpstream_request_new("G T", 3, "http://a/", SIZE_MAX, &request));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "method", httpstream_request_new("CONNECT", SIZE_MAX, "http://a/", SIZE_MAX, &request));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "method", httpstream_request_new("", 0, "http://a/", SIZE_MAX, &request));
    CHECK(request == 4711);

    request = get("/");
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "body is 18446744073709551614 bytes long", httpstream_request_body(request, "", SIZE_MAX - 1));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "there is no setting \"idempotence\"", httpstream_request_option(request, "idempotence", 1));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "close is 2: neither 0 nor 1", httpstream_request_option(request, "close", 2));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "Upgrade: this interface cannot write", httpstream_request_header(request, "upgrade", SIZE_MAX, "websocket", SIZE_MAX));
    /* None of these invalidates the request; this one does: */
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "header value of \"X-A\": CR at byte 3", httpstream_request_header(request, "X-A", 3, "two\r\nlines", SIZE_MAX));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "httpstream_request_body: header value of \"X-A\": CR at byte 3", httpstream_request_body(request, "", 0));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "httpstream_submit: header value of \"X-A\"", httpstream_submit(engine, request, 0, &readback, NULL));
    OK(httpstream_request_free(request));

    request = get("/");
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "header name starting with \"X\": space at byte 1", httpstream_request_header(request, "X A", 3, "v", 1));
    OK(httpstream_request_free(request));

    /* A mistake in the request as a whole is detected when it is sent. */
    request = get("/");
    OK(httpstream_request_header(request, "Content-Length", SIZE_MAX, "5", 1));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "header value of \"Content-Length\": not the length of the body", httpstream_submit(engine, request, 0, &readback, NULL));
    OK(httpstream_request_free(request));

    /* A request that was sent is fixed. */
    request = get("/one");
    OK(httpstream_submit(engine, request, 0, &readback, NULL));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "request was sent already", httpstream_request_header(request, "X-A", 3, "v", 1));
    OK(httpstream_submit(engine, request, 0, &readback, NULL));
    OK(httpstream_request_free(request));
    run(engine);

    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "there is no setting \"max_conections\"", httpstream_config_set(config, "max_conections", 1));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "max_connections is 0: nothing could ever be sent", httpstream_config_set(config, "max_connections", 0));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "read_buffer is 4095 bytes: not within", httpstream_config_set(config, "read_buffer", 4095));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "turn_events is 0: nothing could", httpstream_config_set(config, "turn_events", 0));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "turn_events is 1048577: over 1048576", httpstream_config_set(config, "turn_events", 1048577));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "turn_events is 18446744073709551615", httpstream_config_set(config, "turn_events", UINT64_MAX));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "timerfd is 2: neither 0 nor 1", httpstream_config_set(config, "timerfd", 2));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "header value of \"User-Agent\": LF at byte 1", httpstream_config_user_agent(config, "a\nb", 3));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "name of header 0: is empty", httpstream_config_header(config, "", 0, "v", 1));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "header \"HOST\" belongs to a single request", httpstream_config_header(config, "HOST", 4, "v", 1));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "address \"127.0.0.1\" is not an IP address with a port", httpstream_config_resolve_to(config, "*", "127.0.0.1"));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "size is 0", httpstream_get_stats(engine, &stats));

    /* A pattern is parsed when an engine is created. */
    OK(httpstream_config_resolve_to(config, "a.*", "127.0.0.1:1"));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "httpstream_new: configuration cannot be used: resolve_to \"a.*\"", httpstream_new(config, &out));
    CHECK(out == 4711);
}

static void files(httpstream_config config) {
    FAILS(HTTPSTREAM_ERROR_IO, "file \"/nowhere/ca.pem\": No such file", httpstream_config_ca_file(config, "/nowhere/ca.pem"));
    FAILS(HTTPSTREAM_ERROR_IO, "file \"/nowhere/\\xFF.pem\": No such file", httpstream_config_ca_file(config, "/nowhere/\xff.pem"));
    /* /dev/null contains no certificate; a library without TLS fails as well. */
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "httpstream_config_ca_file: ", httpstream_config_ca_file(config, "/dev/null"));
}

/* ---- inside callbacks ---- */

typedef struct {
    httpstream_engine engine;
    httpstream_reply kept;
    int calls;
} state;

static void on_reply(void *user, httpstream_reply reply, httpstream_next *next) {
    state *s = user;
    httpstream_stats stats = {.size = sizeof stats};
    httpstream_view view = {.size = 0};
    size_t len;
    s->calls++;
    FAILS(HTTPSTREAM_ERROR_BUSY, "httpstream_turn: engine", httpstream_turn(s->engine, 1, NULL));
    FAILS(HTTPSTREAM_ERROR_BUSY, "cannot be freed inside its own callbacks", httpstream_free(s->engine));
    FAILS(HTTPSTREAM_ERROR_BUSY, "has no stats inside its own callbacks", httpstream_get_stats(s->engine, &stats));
    CHECK(httpstream_fd(s->engine) >= 0 && httpstream_timeout_ms(s->engine) == 0 && httpstream_pending(s->engine) == 1);
    OK(httpstream_wakeup(s->engine));
    OK(httpstream_close_idle(s->engine));
    OK(httpstream_network_changed(s->engine));

    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "size is 0", httpstream_reply_view(reply, &view));
    FAILS(HTTPSTREAM_ERROR_NULL, "out is null", httpstream_reply_view(reply, NULL));
    CHECK(httpstream_reply_header(reply, NULL, 0, &len) == NULL);
    CHECK(len == 0 && httpstream_last_error_number() == HTTPSTREAM_ERROR_NULL);
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "index is 9, but there are", httpstream_reply_header_at(reply, 9, NULL, NULL, NULL, NULL));
    FAILS(HTTPSTREAM_ERROR_ARGUMENT, "index is 0, but there are 0", httpstream_reply_trailer_at(reply, 0, NULL, NULL, NULL, NULL));
    CHECK(httpstream_reply_headers(reply, NULL, 1) == 0 && httpstream_last_error_number() == HTTPSTREAM_ERROR_NULL);
    CHECK(httpstream_reply_head(reply, NULL, 1) == 0 && httpstream_last_error_number() == HTTPSTREAM_ERROR_NULL);
    s->kept = reply;
    if (s->calls == 1) {
        next->action = HTTPSTREAM_AGAIN;
    }
}

static void no_reply(httpstream_reply reply, const char *words) {
    httpstream_view view = {.size = sizeof view};
    size_t len = 7;
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_view(reply, &view));
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_kind(reply));
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_phase(reply));
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_status(reply));
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_request_sent(reply));
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_resend_is_safe(reply));
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_attempts(reply));
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_header_at(reply, 0, NULL, NULL, NULL, NULL));
    FAILS(HTTPSTREAM_ERROR_HANDLE, words, httpstream_reply_trailer_at(reply, 0, NULL, NULL, NULL, NULL));
    CHECK(httpstream_reply_body(reply, &len) == NULL);
    CHECK(len == 0);
    CHECK(httpstream_reply_header(reply, "a", 1, NULL) == NULL);
    CHECK(httpstream_reply_message(reply) == NULL && httpstream_reply_reason(reply, NULL) == NULL && httpstream_reply_url(reply, NULL) == NULL);
    CHECK(httpstream_reply_id(reply) == 0 && httpstream_reply_header_count(reply) == 0 && httpstream_reply_trailer_count(reply) == 0);
    CHECK(httpstream_reply_headers(reply, NULL, 0) == 0 && httpstream_reply_head(reply, NULL, 0) == 0);
    CHECK(!httpstream_reply_reused(reply) && httpstream_reply_elapsed_us(reply) == 0);
    CHECK(httpstream_reply_method(reply, &len) == NULL && len == 0 && httpstream_reply_peer(reply) == NULL);
    CHECK(strstr(httpstream_last_error(), words) != NULL);
}

static void inside(httpstream_engine engine) {
    state s = {.engine = engine};
    httpstream_readback readback = {.on_reply = on_reply, .user = &s};
    httpstream_request request = get("/one");
    OK(httpstream_submit(engine, request, 0, &readback, NULL));
    run(engine);
    CHECK(s.calls == 2);
    OK(httpstream_request_free(request));
    no_reply(s.kept, "is no longer lent: its callback has returned");
    no_reply(s.kept + 1, "was never created");
    no_reply(0, "reply 0x0 is the null handle");
    no_reply(engine, "is an engine");
}

/* ---- failures of requests ---- */

typedef struct {
    int32_t kind, phase, sent;
    int status;
    const char *body, *words;
    int calls;
} expected;

static void on_failure(void *user, httpstream_reply reply, httpstream_next *next) {
    expected *e = user;
    httpstream_view view = {.size = sizeof view};
    size_t len;
    (void)next;
    e->calls++;
    CHECK(httpstream_reply_kind(reply) == e->kind);
    CHECK(httpstream_reply_phase(reply) == e->phase);
    CHECK(httpstream_reply_request_sent(reply) == e->sent);
    CHECK(httpstream_reply_resend_is_safe(reply) == 1); /* They are GETs. */
    CHECK(httpstream_reply_status(reply) == e->status);
    CHECK(body_is(reply, e->body));
    CHECK(strstr(httpstream_reply_message(reply), e->words) != NULL);
    CHECK(httpstream_reply_message(reply) == httpstream_reply_message(reply));
    CHECK(httpstream_reply_url(reply, NULL) != NULL);
    CHECK(IS(httpstream_reply_method(reply, &len), "GET") && strcmp(httpstream_reply_peer(reply), "") == 0);
    CHECK(httpstream_reply_header(reply, "Content-Length", SIZE_MAX, NULL) == NULL && httpstream_reply_header_count(reply) == 0);
    OK(httpstream_reply_view(reply, &view));
    CHECK(view.kind == e->kind && view.phase == e->phase && view.minor == -1 && view.attempts == 1);
    CHECK(is(view.method, view.method_len, "GET") && view.peer_address_len == 0 && view.first_byte_us == UINT64_MAX);
}

static void failures(httpstream_engine engine) {
    expected rows[] = {
        {HTTPSTREAM_KIND_CLOSED_BEFORE_RESPONSE, HTTPSTREAM_PHASE_FIRST_BYTE, HTTPSTREAM_SENT_MAYBE, 0, "", "closed before the first byte", 0},
        {HTTPSTREAM_KIND_TRUNCATED, HTTPSTREAM_PHASE_BODY, HTTPSTREAM_SENT_YES, 200, "four", "cut short", 0},
        {HTTPSTREAM_KIND_MALFORMED, HTTPSTREAM_PHASE_HEAD, HTTPSTREAM_SENT_YES, 0, "", "malformed response", 0},
        {HTTPSTREAM_KIND_TIMEOUT, HTTPSTREAM_PHASE_FIRST_BYTE, HTTPSTREAM_SENT_MAYBE, 0, "", "timed out while waiting for the response", 0},
        {HTTPSTREAM_KIND_TIMEOUT, HTTPSTREAM_PHASE_BODY, HTTPSTREAM_SENT_YES, 200, "four", "slower than 1000 bytes/s over 100ms", 0},
        {HTTPSTREAM_KIND_CONNECT, HTTPSTREAM_PHASE_CONNECT, HTTPSTREAM_SENT_NO, 0, "", "refused", 0},
    };
    const char *paths[] = {"/close", "/cut", "/nonsense", "/silent", "/stuck"};
    httpstream_request request;
    size_t i;
    for (i = 0; i < 6; i++) {
        httpstream_readback readback = {.on_reply = on_failure, .user = &rows[i]};
        if (i < 5) {
            request = get(paths[i]);
            OK(httpstream_request_option(request, "fresh_connection", 1));
        } else {
            OK(httpstream_request_new("GET", 3, "http://127.0.0.1:1/", SIZE_MAX, &request));
        }
        if (i == 3)
            OK(httpstream_request_option(request, "timeout_first_byte_ms", 100));
        if (i == 4)
            OK(httpstream_request_low_speed(request, 1000, 100));
        OK(httpstream_submit(engine, request, 0, &readback, NULL));
        run(engine);
        OK(httpstream_request_free(request));
        CHECK(rows[i].calls == 1);
    }
}

int main(int argc, char **argv) {
    httpstream_engine engine;
    httpstream_config config;
    httpstream_request request;
    CHECK(argc > 1);
    base = argv[1];
    OK(httpstream_new(0, &engine));
    OK(httpstream_config_new(&config));
    request = get("/");
    nulls(engine, config, request);
    handles(engine, config, request);
    arguments(engine, config);
    files(config);
    inside(engine);
    failures(engine);
    OK(httpstream_request_free(request));
    OK(httpstream_config_free(config));
    OK(httpstream_free(engine));
    return 0;
}
