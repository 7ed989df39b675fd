/* Uses every function as intended: values, chains, and everything that a reply shows. */
#include "check.h"

typedef struct {
    int replies, heads, releases;
    httpstream_request second;
    httpstream_id id;
    httpstream_engine engine;
} chain;

static void release(void *user) { ((chain *)user)->releases++; }

/* ---- every part of one response ---- */

static int32_t on_whole_head(void *user, httpstream_reply head) {
    chain *c = user;
    c->heads++;
    CHECK(httpstream_reply_status(head) == 200);
    CHECK(httpstream_reply_trailer_count(head) == 0);
    CHECK(body_is(head, ""));
    return HTTPSTREAM_BUFFER;
}

static void on_whole(void *user, httpstream_reply reply, httpstream_next *next) {
    chain *c = user;
    size_t len, name_len, value_len;
    const uint8_t *name, *value;
    httpstream_view view = {.size = sizeof view};
    httpstream_field fields[8];
    char url[256], text[256];
    const char *head = "HTTP/1.1 200 Fine\r\nX-One: 1\r\nX-Two: a\r\nX-Two: b\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n";

    c->replies++;
    CHECK(next->action == HTTPSTREAM_DONE && next->request == 0 && next->delay_ms == 0 && next->readback == NULL);
    CHECK(httpstream_reply_id(reply) == c->id && c->id != 0);
    CHECK(httpstream_reply_kind(reply) == HTTPSTREAM_KIND_RESPONSE);
    CHECK(httpstream_reply_phase(reply) == 0);
    CHECK(strcmp(httpstream_reply_message(reply), "") == 0);
    CHECK(httpstream_reply_status(reply) == 200);
    CHECK(IS(httpstream_reply_reason(reply, &len), "Fine"));
    CHECK(httpstream_reply_reason(reply, NULL) != NULL);
    CHECK(body_is(reply, "hello world"));
    CHECK(IS(httpstream_reply_header(reply, "X-ONE", SIZE_MAX, &len), "1"));
    CHECK(IS(httpstream_reply_header(reply, "x-two-and-more", 5, &len), "a"));
    CHECK(httpstream_reply_header(reply, "X-Three", SIZE_MAX, &len) == NULL);
    CHECK(len == 0);
    CHECK(httpstream_reply_header_count(reply) == 5);
    OK(httpstream_reply_header_at(reply, 2, &name, &name_len, &value, &value_len));
    CHECK(is(name, name_len, "X-Two") && is(value, value_len, "b"));
    OK(httpstream_reply_header_at(reply, 2, NULL, NULL, NULL, NULL));
    /* One variable may receive several unwanted results: the last one written stays. */
    OK(httpstream_reply_header_at(reply, 0, &value, &value_len, &value, &value_len));
    CHECK(is(value, value_len, "1"));
    CHECK(httpstream_reply_headers(reply, fields, 8) == 5);
    CHECK(is(fields[0].name, fields[0].name_len, "X-One") && is(fields[0].value, fields[0].value_len, "1"));
    CHECK(is(fields[4].name, fields[4].name_len, "Trailer"));
    fields[1].name = NULL;
    CHECK(httpstream_reply_headers(reply, fields, 1) == 5 && fields[1].name == NULL);
    CHECK(httpstream_reply_headers(reply, NULL, 0) == 5);
    /* With exactly enough room, with one byte too little, and with none. */
    memset(text, 'x', sizeof text);
    CHECK(httpstream_reply_head(reply, text, strlen(head)) == strlen(head) && memcmp(text, head, strlen(head)) == 0 && text[strlen(head)] == 'x');
    memset(text, 'x', sizeof text);
    CHECK(httpstream_reply_head(reply, text, strlen(head) - 1) == strlen(head) && text[strlen(head) - 1] == 'x');
    CHECK(httpstream_reply_head(reply, NULL, 0) == strlen(head));
    CHECK(httpstream_reply_trailer_count(reply) == 1);
    OK(httpstream_reply_trailer_at(reply, 0, &name, &name_len, &value, &value_len));
    CHECK(is(name, name_len, "X-Sum") && is(value, value_len, "9"));
    snprintf(url, sizeof url, "%s/whole?q=long%%20poll", base);
    CHECK(IS(httpstream_reply_url(reply, &len), url));
    CHECK(IS(httpstream_reply_method(reply, &len), "GET"));
    CHECK(httpstream_reply_method(reply, NULL) != NULL);
    CHECK(strcmp(httpstream_reply_peer(reply), base + strlen("http://")) == 0);
    CHECK(httpstream_reply_attempts(reply) == 1);
    CHECK(!httpstream_reply_reused(reply));
    CHECK(httpstream_reply_request_sent(reply) == HTTPSTREAM_SENT_YES);
    CHECK(httpstream_reply_resend_is_safe(reply) == 0);

    OK(httpstream_reply_view(reply, &view));
    CHECK(view.size == sizeof view && view.kind == 0 && view.status == 200 && view.id == c->id && view.phase == 0);
    CHECK(is(view.body, view.body_len, "hello world") && is(view.reason, view.reason_len, "Fine"));
    CHECK(view.request_sent == HTTPSTREAM_SENT_YES && view.resend_is_safe == 0 && view.attempts == 1 && view.reused == 0);
    CHECK(view.minor == 1 && view.header_count == 5 && view.trailer_count == 1);
    CHECK(view.elapsed_us == httpstream_reply_elapsed_us(reply));
    CHECK(is(view.method, view.method_len, "GET"));
    snprintf(text, sizeof text, "http://%d.%d.%d.%d:%u", view.peer_address[0], view.peer_address[1], view.peer_address[2],
             view.peer_address[3], (unsigned)view.peer_port);
    CHECK(view.peer_address_len == 4 && strcmp(text, base) == 0);
    CHECK(view.resolve_us <= view.connect_us && view.connect_us <= view.sent_us && view.sent_us <= view.first_byte_us);
    CHECK(view.first_byte_us <= view.done_us && view.done_us == view.elapsed_us && view.tls_us == UINT64_MAX);

    /* The struct of an older program is shorter: the bytes behind it are not written. */
    memset(&view, 0x55, sizeof view);
    view.size = offsetof(httpstream_view, body);
    OK(httpstream_reply_view(reply, &view));
    CHECK(view.status == 200 && view.body_len == (size_t)0x5555555555555555);
}

static void look_at_one_response(httpstream_engine engine) {
    chain c = {0};
    httpstream_readback readback = {.on_reply = on_whole, .on_head = on_whole_head, .release = release, .user = &c};
    httpstream_request request = get("/whole?q=long poll#fragment");
    OK(httpstream_submit(engine, request, 0, &readback, &c.id));
    memset(&readback, 0, sizeof readback); /* The readback was copied. */
    CHECK(httpstream_pending(engine) == 1);
    CHECK(httpstream_timeout_ms(engine) == 0);
    OK(httpstream_request_free(request)); /* The chain has its own. */
    run(engine);
    CHECK(c.replies == 1 && c.heads == 1 && c.releases == 1);
}

/* ---- the request as it is sent ---- */

static void on_echo(void *user, httpstream_reply reply, httpstream_next *next) {
    chain *c = user;
    size_t len;
    const char *body = (const char *)httpstream_reply_body(reply, &len);
    char text[2048];
    (void)next;
    c->replies++;
    CHECK(len < sizeof text);
    memcpy(text, body, len);
    text[len] = 0;
    CHECK(strstr(text, "PUT /echo HTTP/1.1\r\n") == text);
    CHECK(strstr(text, "\r\nX-Name: some value\r\n"));
    CHECK(strstr(text, "\r\nX-Name: \xc3\xa9\r\n"));
    CHECK(strstr(text, "\r\nX-Default: yes\r\n"));
    CHECK(strstr(text, "\r\nUser-Agent: checker\r\n"));
    CHECK(strstr(text, "\r\nContent-Length: 5\r\n"));
    CHECK(strcmp(text + len - 9, "\r\n\r\nbytes") == 0);
}

static void send_all_there_is(void) {
    chain c = {0};
    httpstream_readback readback = {.on_reply = on_echo, .release = release, .user = &c};
    httpstream_config config;
    httpstream_engine engine;
    httpstream_request request;
    char address[256];

    OK(httpstream_config_new(&config));
    OK(httpstream_config_set(config, "max_connections", 4));
    OK(httpstream_config_set(config, "timeout_total_ms", UINT64_MAX));
    OK(httpstream_config_set(config, "limit_max_fields", 64));
    OK(httpstream_config_set(config, "timerfd", 1));
    OK(httpstream_config_set(config, "public_only", 0));
    OK(httpstream_config_low_speed(config, 1, 60000));
    OK(httpstream_config_user_agent(config, "checker and more", 7));
    OK(httpstream_config_header(config, "X-Default", SIZE_MAX, "yes", SIZE_MAX));
    snprintf(address, sizeof address, "%s", base + strlen("http://"));
    OK(httpstream_config_resolve_to(config, "*.example.com", address));
    OK(httpstream_new(config, &engine));
    OK(httpstream_config_free(config)); /* The engine has its own. */

    OK(httpstream_request_new("PUT", 3, "http://www.example.com/echo", SIZE_MAX, &request));
    OK(httpstream_request_header(request, "X-Name", SIZE_MAX, " some value ", SIZE_MAX));
    OK(httpstream_request_header(request, "X-Name", 6, "\xc3\xa9", 2));
    OK(httpstream_request_body(request, "other", SIZE_MAX));
    OK(httpstream_request_body(request, "bytes and more", 5));
    OK(httpstream_request_timeout_ms(request, 60000));
    OK(httpstream_request_long_poll_ms(request, 1000));
    OK(httpstream_request_low_speed(request, 1, 60000));
    OK(httpstream_request_option(request, "download_rate", 1000000));
    OK(httpstream_request_option(request, "upload_rate", 1000000));
    OK(httpstream_request_option(request, "idempotent", 0));
    OK(httpstream_request_option(request, "fresh_connection", 1));
    OK(httpstream_request_option(request, "close", 0));
    OK(httpstream_request_option(request, "max_body_bytes", 100000));
    OK(httpstream_request_option(request, "limit_max_head_bytes", 10000));
    OK(httpstream_request_option(request, "timeout_connect_ms", 5000));
    OK(httpstream_submit(engine, request, 0, &readback, NULL));
    OK(httpstream_submit(engine, request, 0, &readback, NULL));
    run(engine);
    CHECK(c.replies == 2 && c.releases == 2);
    OK(httpstream_request_free(request));
    OK(httpstream_free(engine));
}

/* ---- chains ---- */

static void on_last(void *user, httpstream_reply reply, httpstream_next *next) {
    chain *c = user;
    (void)next;
    c->replies++;
    CHECK(body_is(reply, "three"));
    CHECK(httpstream_reply_id(reply) == c->id);
}

static void on_chain(void *user, httpstream_reply reply, httpstream_next *next) {
    static httpstream_readback last;
    chain *c = user;
    c->replies++;
    CHECK(httpstream_reply_id(reply) == c->id);
    switch (c->replies) {
    case 1:
        CHECK(body_is(reply, "one"));
        next->action = HTTPSTREAM_AGAIN;
        break;
    case 2:
        CHECK(body_is(reply, "one"));
        CHECK(httpstream_reply_reused(reply));
        next->action = HTTPSTREAM_SEND;
        next->request = c->second;
        next->delay_ms = 20;
        break;
    case 3:
        CHECK(body_is(reply, "two"));
        CHECK(c->releases == 0);
        last = (httpstream_readback){.on_reply = on_last, .release = release, .user = c};
        next->action = HTTPSTREAM_SEND;
        next->request = get("/three");
        next->frees_request = true;
        next->readback = &last;
        break;
    default: abort();
    }
}

static void follow_a_chain(httpstream_engine engine) {
    chain c = {0};
    httpstream_readback readback = {.on_reply = on_chain, .release = release, .user = &c};
    httpstream_request one = get("/one");
    httpstream_turned turned;
    uint64_t answered = 0;
    c.second = get("/two");
    OK(httpstream_submit(engine, one, 10, &readback, &c.id));
    OK(httpstream_turn(engine, 0, NULL));
    while (httpstream_pending(engine) > 0) {
        struct pollfd ready = {.fd = httpstream_fd(engine), .events = POLLIN};
        poll(&ready, 1, httpstream_timeout_ms(engine));
        OK(httpstream_turn(engine, 8, &turned));
        CHECK(!turned.stopped);
        answered += turned.answered;
    }
    CHECK(answered == 4 && c.replies == 4 && c.releases == 2);
    OK(httpstream_request_free(one));
    OK(httpstream_request_free(c.second));
}

/* Without callbacks, the request is sent, its response is read to the end, and the chain ends. A
 * readback returned with HTTPSTREAM_DONE is released as well. */
static void on_handing_over(void *user, httpstream_reply reply, httpstream_next *next) {
    static httpstream_readback unused;
    (void)reply;
    unused = (httpstream_readback){.release = release, .user = user};
    next->readback = &unused;
}

static void leave_it_unread(httpstream_engine engine) {
    chain c = {0};
    httpstream_readback nobody = {.release = release, .user = &c};
    httpstream_readback handing_over = {.on_reply = on_handing_over, .release = release, .user = &c};
    httpstream_request request = get("/one");
    OK(httpstream_submit(engine, request, 0, &nobody, NULL));
    run(engine);
    CHECK(c.releases == 1);
    OK(httpstream_submit(engine, request, 0, &handing_over, NULL));
    run(engine);
    CHECK(c.releases == 3);
    OK(httpstream_request_free(request));
}

/* ---- an engine inside another's callback ---- */

static void on_inner(void *user, httpstream_reply reply, httpstream_next *next) {
    (void)next;
    CHECK(body_is(reply, "two"));
    ((chain *)user)->replies++;
}

static void on_outer(void *user, httpstream_reply reply, httpstream_next *next) {
    chain *c = user;
    httpstream_readback readback = {.on_reply = on_inner, .user = c};
    (void)next;
    OK(httpstream_submit(c->engine, c->second, 0, &readback, NULL));
    run(c->engine);
    CHECK(c->replies == 1);
    CHECK(body_is(reply, "one"));
    c->replies++;
}

static void turn_another_engine_inside(httpstream_engine engine) {
    chain c = {0};
    httpstream_readback readback = {.on_reply = on_outer, .user = &c};
    httpstream_request one = get("/one");
    OK(httpstream_new(0, &c.engine));
    c.second = get("/two");
    OK(httpstream_submit(engine, one, 0, &readback, NULL));
    run(engine);
    CHECK(c.replies == 2);
    OK(httpstream_request_free(one));
    OK(httpstream_request_free(c.second));
    OK(httpstream_free(c.engine));
}

/* The timeout is that of the delay until the chain is canceled. */
static void wait_for_a_minute(void) {
    chain c = {0};
    httpstream_readback readback = {.release = release, .user = &c};
    httpstream_request request = get("/one");
    httpstream_engine engine;
    OK(httpstream_new(0, &engine));
    CHECK(httpstream_timeout_ms(engine) == -1);
    OK(httpstream_submit(engine, request, 60000, &readback, &c.id));
    CHECK(httpstream_timeout_ms(engine) == 0);
    OK(httpstream_turn(engine, 1, NULL));
    CHECK(httpstream_timeout_ms(engine) > 30000 && httpstream_timeout_ms(engine) <= 60001);
    CHECK(httpstream_cancel(engine, c.id) == 1 && httpstream_timeout_ms(engine) == 0);
    OK(httpstream_turn(engine, 1, NULL));
    CHECK(httpstream_timeout_ms(engine) == -1 && httpstream_pending(engine) == 0 && c.releases == 1);
    OK(httpstream_free(engine));
    OK(httpstream_request_free(request));
}

static void ask_the_rest(httpstream_engine engine) {
    httpstream_stats stats = {.size = sizeof stats};
    httpstream_turned turned;
    OK(httpstream_get_stats(engine, &stats));
    CHECK(stats.submitted == 5 && stats.answered == 8 && stats.failed == 0 && stats.in_flight == 0 && stats.links_idle >= 1);
    CHECK(stats.bytes_in > 0 && stats.bytes_out > 0 && stats.turns > 0);
    OK(httpstream_close_idle(engine));
    OK(httpstream_get_stats(engine, &stats));
    CHECK(stats.links_idle == 0);
    OK(httpstream_network_changed(engine));
    OK(httpstream_stop(engine));
    OK(httpstream_turn(engine, 1, &turned));
    CHECK(turned.stopped);
    OK(httpstream_turn(engine, 1, &turned));
    CHECK(!turned.stopped && !turned.more && turned.events == 0 && turned.answered == 0);
    CHECK(httpstream_timeout_ms(engine) >= -1);

    CHECK(httpstream_abi_version() == HTTPSTREAM_ABI_VERSION);
    CHECK(strcmp(httpstream_version(), "0.1.0") == 0);
    CHECK(strcmp(httpstream_error_name(HTTPSTREAM_ERROR_NULL), "HTTPSTREAM_ERROR_NULL") == 0);
    CHECK(strcmp(httpstream_error_name(HTTPSTREAM_ERROR_PANIC), "HTTPSTREAM_ERROR_PANIC") == 0);
    CHECK(strcmp(httpstream_error_name(7), "HTTPSTREAM_ERROR_UNKNOWN") == 0);
    CHECK(strcmp(httpstream_kind_name(HTTPSTREAM_KIND_TRUNCATED), "Truncated") == 0);
    CHECK(strcmp(httpstream_kind_name(HTTPSTREAM_KIND_GONE), "Gone") == 0);
    CHECK(strcmp(httpstream_kind_name(50), "Other") == 0);
    CHECK(strcmp(httpstream_phase_name(HTTPSTREAM_PHASE_FIRST_BYTE), "FirstByte") == 0);
    CHECK(strcmp(httpstream_phase_name(HTTPSTREAM_PHASE_BODY), "Body") == 0);
    CHECK(strcmp(httpstream_phase_name(0), "None") == 0);
}

int main(int argc, char **argv) {
    httpstream_engine engine;
    CHECK(argc > 1);
    base = argv[1];
    CHECK(strcmp(httpstream_last_error(), "") == 0 && httpstream_last_error_number() == 0);
    OK(httpstream_new(0, &engine));
    look_at_one_response(engine);
    follow_a_chain(engine);
    leave_it_unread(engine);
    turn_another_engine_inside(engine);
    ask_the_rest(engine);
    send_all_there_is();
    wait_for_a_minute();
    OK(httpstream_free(engine));
    CHECK(strcmp(httpstream_last_error(), "") == 0);
    return 0;
}
