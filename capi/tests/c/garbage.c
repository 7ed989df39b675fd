/* Callbacks that return invalid values: their chain ends, everything else goes on, and the turn
 * reports it. */
#include "check.h"

typedef struct {
    int32_t action, flow, data_flow, kind;
    httpstream_request request;
    uint64_t delay_ms;
    bool frees;
    int replies, releases;
    httpstream_id id;
} bad;

static void release(void *user) { ((bad *)user)->releases++; }

static void on_reply(void *user, httpstream_reply reply, httpstream_next *next) {
    bad *b = user;
    b->replies++;
    b->kind = httpstream_reply_kind(reply);
    next->action = b->action;
    next->request = b->request;
    next->delay_ms = b->delay_ms;
    /* C may also write a byte that is not a valid bool. */
    memset(&next->frees_request, b->frees ? 0x7e : 0, 1);
    b->action = HTTPSTREAM_DONE;
    b->request = 0;
    b->frees = false;
}

static int32_t on_head(void *user, httpstream_reply head) {
    (void)head;
    return ((bad *)user)->flow;
}

static int32_t on_data(void *user, httpstream_reply reply, const uint8_t *data, size_t len) {
    (void)reply, (void)data, (void)len;
    return ((bad *)user)->data_flow;
}

static const httpstream_readback reading = {.on_reply = on_reply, .on_head = on_head, .on_data = on_data, .release = release};

/* Runs `b` next to a valid chain until both end. Returns how many turns reported an error, and
 * keeps the last message in `words`. */
static char words[1024];

static int run_beside_a_good_one(httpstream_engine engine, bad *b, int count) {
    bad good = {.flow = HTTPSTREAM_BUFFER};
    httpstream_request request = get("/one");
    int told = 0, i;
    httpstream_readback readback = reading;
    readback.user = b;
    for (i = 0; i < count; i++)
        OK(httpstream_submit(engine, request, 0, &readback, &b->id));
    readback.user = &good;
    OK(httpstream_submit(engine, request, 0, &readback, NULL));
    OK(httpstream_request_free(request));
    while (httpstream_pending(engine) > 0) {
        int32_t answer = step(engine);
        CHECK(answer == HTTPSTREAM_OK || answer == HTTPSTREAM_ERROR_CALLBACK);
        if (answer == HTTPSTREAM_ERROR_CALLBACK) {
            told++;
            snprintf(words, sizeof words, "%s", httpstream_last_error());
        }
    }
    CHECK(good.replies == 1 && good.releases == 1 && b->releases == count);
    return told;
}

static void expect(httpstream_engine engine, bad b, int replies, int32_t kind, const char *expected) {
    char with_id[256];
    CHECK(run_beside_a_good_one(engine, &b, 1) == 1);
    snprintf(with_id, sizeof with_id, expected, (unsigned long)b.id);
    if (strstr(words, with_id) == NULL) {
        fprintf(stderr, "\"%s\" is not \"%s\"\n", words, with_id);
        abort();
    }
    CHECK(b.replies == replies && b.kind == kind);
}

int main(int argc, char **argv) {
    httpstream_engine engine;
    httpstream_request freed, spoiled;
    httpstream_turned turned = {.answered = 4711};
    bad several = {.action = 77};
    int told;
    CHECK(argc > 1);
    base = argv[1];
    OK(httpstream_new(0, &engine));
    freed = get("/one");
    OK(httpstream_request_free(freed));
    spoiled = get("/one");
    CHECK(httpstream_request_header(spoiled, "", 0, "v", 1) == HTTPSTREAM_ERROR_ARGUMENT);

    expect(engine, (bad){.action = 3}, 1, 0, "httpstream_turn: on_reply of chain %lu returned 3, which is not a valid action");
    expect(engine, (bad){.action = -1}, 1, 0, "on_reply of chain %lu returned -1, which is not a valid action");
    expect(engine, (bad){.action = HTTPSTREAM_SEND}, 1, 0, "on_reply of chain %lu returned HTTPSTREAM_SEND: request 0x0 is the null handle");
    expect(engine, (bad){.action = HTTPSTREAM_SEND, .request = freed}, 1, 0, "was freed");
    expect(engine, (bad){.action = HTTPSTREAM_SEND, .request = freed, .frees = true}, 1, 0, "was freed");
    expect(engine, (bad){.action = HTTPSTREAM_SEND, .request = engine}, 1, 0, "is an engine");
    expect(engine, (bad){.action = HTTPSTREAM_SEND, .request = spoiled, .delay_ms = UINT64_MAX}, 1, 0, "name of header 0");
    expect(engine, (bad){.action = HTTPSTREAM_DONE, .request = freed, .frees = true}, 1, 0, "on_reply of chain %lu frees 0x");
    expect(engine, (bad){.flow = 5}, 1, HTTPSTREAM_KIND_ABORTED, "on_head of chain %lu returned 5, which is not a valid flow");
    expect(engine, (bad){.flow = -2}, 1, HTTPSTREAM_KIND_ABORTED, "on_head of chain %lu returned -2, which is not a valid flow");
    expect(engine, (bad){.flow = HTTPSTREAM_STREAM, .data_flow = 99}, 1, HTTPSTREAM_KIND_ABORTED,
           "on_data of chain %lu returned 99, which is not a valid flow");

    /* A request that the callback hands back is freed whatever else the callback returns. */
    {
        httpstream_request given = get("/one");
        expect(engine, (bad){.action = 9, .request = given, .frees = true}, 1, 0, "returned 9");
        FAILS(HTTPSTREAM_ERROR_HANDLE, "was freed", httpstream_request_free(given));
    }

    /* Only one turn reports the invalid action. */
    several.action = 77;
    told = run_beside_a_good_one(engine, &several, 1);
    CHECK(told == 1);

    /* The result of a turn is written in spite of an error, and nothing of it is left for the next
     * turn. */
    OK(httpstream_turn(engine, 1, &turned));
    CHECK(turned.answered == 0);
    OK(httpstream_request_free(spoiled));
    OK(httpstream_free(engine));
    return 0;
}
