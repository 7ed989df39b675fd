/* Streams bodies in pieces, with pauses; cancels, resumes and submits chains inside callbacks. */
#include "check.h"

typedef struct {
    httpstream_engine engine;
    httpstream_id id;
    httpstream_request request;
    int32_t flow; /* What on_head returns. */
    int pieces, replies, heads, releases, pauses;
    size_t bytes;
    int32_t kind;
    bool pauses_at_each, stops;
} stream;

static void release(void *user) { ((stream *)user)->releases++; }

static int32_t on_head(void *user, httpstream_reply head) {
    stream *s = user;
    CHECK(httpstream_reply_status(head) == 200 && httpstream_reply_kind(head) == 0);
    CHECK(httpstream_reply_id(head) == s->id);
    s->heads++;
    s->pauses += s->flow == HTTPSTREAM_PAUSE;
    return s->flow;
}

static int32_t on_data(void *user, httpstream_reply reply, const uint8_t *data, size_t len) {
    stream *s = user;
    size_t i, url_len;
    CHECK(len > 0 && httpstream_reply_id(reply) == s->id);
    CHECK(httpstream_reply_url(reply, &url_len) != NULL);
    CHECK(url_len == strlen(base) + strlen("/pieces"));
    CHECK(httpstream_reply_status(reply) == 0 && httpstream_reply_header_count(reply) == 0 && httpstream_reply_kind(reply) == 0);
    for (i = 0; i < len; i++)
        CHECK(data[i] == '0' + (s->bytes + i) / 100000);
    s->bytes += len;
    s->pieces++;
    if (s->stops)
        return HTTPSTREAM_DISCARD;
    if (s->pauses_at_each) {
        CHECK(httpstream_resume(s->engine, s->id) == 0); /* Not paused yet. */
        s->pauses++;
        return HTTPSTREAM_PAUSE;
    }
    return HTTPSTREAM_STREAM;
}

static void on_end(void *user, httpstream_reply reply, httpstream_next *next) {
    stream *s = user;
    (void)next;
    s->replies++;
    s->kind = httpstream_reply_kind(reply);
    if (s->kind == 0 && s->flow != HTTPSTREAM_BUFFER)
        CHECK(body_is(reply, ""));
}

static const httpstream_readback streaming = {.on_reply = on_end, .on_head = on_head, .on_data = on_data, .release = release};

static stream begin(httpstream_engine engine, stream *s) {
    httpstream_readback readback = streaming;
    readback.user = s;
    s->engine = engine;
    s->request = get("/pieces");
    OK(httpstream_submit(engine, s->request, 0, &readback, &s->id));
    OK(httpstream_request_free(s->request));
    return *s;
}

static void end(stream *s, int32_t kind) {
    CHECK(s->replies == 1 && s->releases == 1 && s->kind == kind);
    CHECK(httpstream_cancel(s->engine, s->id) == 0 && httpstream_resume(s->engine, s->id) == 0);
}

static void bodies(httpstream_engine engine) {
    stream whole = {.flow = HTTPSTREAM_STREAM}, none = {.flow = HTTPSTREAM_DISCARD}, buffered = {.flow = HTTPSTREAM_BUFFER},
           aborted = {.flow = HTTPSTREAM_ABORT}, left = {.flow = HTTPSTREAM_STREAM, .stops = true};
    begin(engine, &whole);
    run(engine);
    end(&whole, 0);
    CHECK(whole.bytes == 1000000 && whole.pieces > 0);
    begin(engine, &none);
    run(engine);
    end(&none, 0);
    CHECK(none.pieces == 0);
    begin(engine, &buffered);
    run(engine);
    end(&buffered, 0);
    begin(engine, &left);
    run(engine);
    end(&left, 0);
    CHECK(left.pieces == 1 && left.bytes < 1000000);
    begin(engine, &aborted);
    run(engine);
    end(&aborted, HTTPSTREAM_KIND_ABORTED);
}

static void pauses(httpstream_engine engine) {
    stream s = {.flow = HTTPSTREAM_PAUSE, .pauses_at_each = true};
    int resumed = 0;
    begin(engine, &s);
    while (httpstream_pending(engine) > 0) {
        OK(step(engine));
        if (s.pauses > resumed) {
            httpstream_stats stats = {.size = sizeof stats};
            OK(httpstream_get_stats(engine, &stats));
            CHECK(stats.paused == 1);
            CHECK(httpstream_resume(engine, s.id) == 1);
            CHECK(httpstream_timeout_ms(engine) == 0);
            resumed++;
        }
    }
    end(&s, 0);
    CHECK(s.bytes == 1000000 && s.pauses == s.pieces + 1);
}

/* ---- canceling ---- */

static int32_t cancelling_head(void *user, httpstream_reply head) {
    stream *s = user;
    (void)head;
    CHECK(httpstream_cancel(s->engine, s->id) == 1);
    CHECK(httpstream_cancel(s->engine, s->id) == 0);
    return HTTPSTREAM_BUFFER;
}

static void on_first(void *user, httpstream_reply reply, httpstream_next *next) {
    stream *s = user;
    s->replies++;
    s->kind = httpstream_reply_kind(reply);
    /* The chain cancels itself and is called once more. Its action is then ignored, but the request
     * it hands over is freed. */
    if (s->replies == 1)
        CHECK(httpstream_cancel(s->engine, s->id) == 1);
    next->action = HTTPSTREAM_SEND;
    next->request = get("/one");
    next->frees_request = true;
}

static void cancelling(httpstream_engine engine) {
    stream outside = {.flow = HTTPSTREAM_BUFFER}, in_head = {0}, itself = {0}, never = {0};
    httpstream_readback readback = {.on_reply = on_end, .on_head = cancelling_head, .release = release, .user = &in_head};
    httpstream_request request = get("/one");
    begin(engine, &outside);
    CHECK(httpstream_cancel(engine, outside.id) == 1);
    CHECK(httpstream_cancel(engine, outside.id) == 0);
    CHECK(outside.replies == 0 && httpstream_timeout_ms(engine) == 0);
    run(engine);
    end(&outside, HTTPSTREAM_KIND_CANCELLED);

    in_head.engine = engine;
    OK(httpstream_submit(engine, request, 0, &readback, &in_head.id));
    run(engine);
    end(&in_head, HTTPSTREAM_KIND_CANCELLED);

    itself.engine = engine;
    readback = (httpstream_readback){.on_reply = on_first, .release = release, .user = &itself};
    OK(httpstream_submit(engine, request, 0, &readback, &itself.id));
    run(engine);
    CHECK(itself.replies == 2 && itself.releases == 1 && itself.kind == HTTPSTREAM_KIND_CANCELLED);

    never.engine = engine;
    readback = (httpstream_readback){.on_reply = on_end, .release = release, .user = &never};
    OK(httpstream_submit(engine, request, UINT64_MAX, &readback, &never.id));
    OK(httpstream_turn(engine, 1, NULL));
    CHECK(never.replies == 0 && httpstream_pending(engine) == 1);
    CHECK(httpstream_cancel(engine, never.id) == 1);
    run(engine);
    end(&never, HTTPSTREAM_KIND_CANCELLED);
    OK(httpstream_request_free(request));
}

/* ---- submitting inside ---- */

typedef struct {
    httpstream_engine engine;
    int depth, replies, releases;
    httpstream_id ids[8];
} tree;

static void release_branch(void *user) { ((tree *)user)->releases++; }

static int32_t on_branch_head(void *user, httpstream_reply head) {
    (void)user, (void)head;
    return HTTPSTREAM_BUFFER;
}

static void on_branch(void *user, httpstream_reply reply, httpstream_next *next) {
    tree *t = user;
    httpstream_readback readback = {.on_reply = on_branch, .on_head = on_branch_head, .release = release_branch, .user = t};
    char path[16];
    int i;
    (void)next, (void)reply;
    t->replies++;
    if (t->depth == 3)
        return;
    t->depth++;
    for (i = 0; i < 2; i++) {
        httpstream_request request;
        snprintf(path, sizeof path, "/%d", i);
        request = get(path);
        OK(httpstream_submit(t->engine, request, (uint64_t)i, &readback, &t->ids[t->depth]));
        CHECK(t->ids[t->depth] != 0 && t->ids[t->depth] != httpstream_reply_id(reply));
        OK(httpstream_request_free(request));
    }
    CHECK(httpstream_pending(t->engine) >= 3);
}

static void submitting(httpstream_engine engine) {
    tree t = {.engine = engine};
    httpstream_readback readback = {.on_reply = on_branch, .release = release_branch, .user = &t};
    httpstream_request request = get("/one");
    OK(httpstream_submit(engine, request, 0, &readback, NULL));
    OK(httpstream_request_free(request));
    run(engine);
    CHECK(t.replies == 7 && t.releases == 7);
}

/* ---- freed with chains left: no callback runs but release, once each ---- */

static void submit_in_release(void *user) {
    stream *s = user;
    httpstream_readback readback = {.on_reply = on_end, .release = release, .user = s};
    s->releases++;
    FAILS(HTTPSTREAM_ERROR_HANDLE, "was freed", httpstream_submit(s->engine, s->request, 0, &readback, NULL));
}

static void free_with_chains_left(void) {
    stream s = {0};
    httpstream_readback readback = {.on_reply = on_end, .release = submit_in_release, .user = &s};
    httpstream_request silent = get("/silent");
    int i;
    OK(httpstream_new(0, &s.engine));
    s.request = get("/one");
    for (i = 0; i < 5; i++)
        OK(httpstream_submit(s.engine, silent, 0, &readback, NULL));
    for (i = 0; i < 20; i++) {
        struct pollfd ready = {.fd = httpstream_fd(s.engine), .events = POLLIN};
        poll(&ready, 1, 1);
        OK(httpstream_turn(s.engine, 1, NULL));
    }
    OK(httpstream_submit(s.engine, s.request, 5000, &readback, NULL));
    OK(httpstream_submit(s.engine, s.request, 0, &readback, NULL));
    CHECK(httpstream_pending(s.engine) == 7);
    OK(httpstream_free(s.engine));
    CHECK(s.replies == 0 && s.releases == 7);
    OK(httpstream_request_free(silent));
    OK(httpstream_request_free(s.request));
}

/* A release runs at the end of a turn, and may submit another request. */
static void release_and_submit(void *user) {
    stream *s = user;
    httpstream_readback readback = {.on_reply = on_end, .release = release, .user = s};
    s->releases++;
    FAILS(HTTPSTREAM_ERROR_BUSY, "cannot be turned inside its own callbacks", httpstream_turn(s->engine, 1, NULL));
    FAILS(HTTPSTREAM_ERROR_BUSY, "cannot be freed", httpstream_free(s->engine));
    OK(httpstream_submit(s->engine, s->request, 0, &readback, NULL));
}

static void submit_when_released(httpstream_engine engine) {
    stream s = {.engine = engine};
    httpstream_readback readback = {.on_reply = on_end, .release = release_and_submit, .user = &s};
    s.request = get("/one");
    OK(httpstream_submit(engine, s.request, 0, &readback, NULL));
    run(engine);
    CHECK(s.replies == 2 && s.releases == 2);
    OK(httpstream_request_free(s.request));
}

int main(int argc, char **argv) {
    httpstream_engine engine;
    CHECK(argc > 1);
    base = argv[1];
    OK(httpstream_new(0, &engine));
    bodies(engine);
    pauses(engine);
    cancelling(engine);
    submitting(engine);
    submit_when_released(engine);
    free_with_chains_left();
    OK(httpstream_free(engine));
    return 0;
}
