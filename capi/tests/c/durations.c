/* Tests every duration that the interface takes with extreme values: 0, 1, and values so long that
 * a sum overflows. */
#include "check.h"

static const uint64_t long_ones[] = {UINT64_MAX, UINT64_MAX - 1, (uint64_t)1 << 63, UINT64_MAX / 1000, (uint64_t)UINT32_MAX + 1, UINT32_MAX};
#define LONG_ONES (sizeof long_ones / sizeof *long_ones)

typedef struct {
    int replies, answered, timeouts, reused;
    uint64_t delay_ms;
} seen;

static void on_reply(void *user, httpstream_reply reply, httpstream_next *next) {
    seen *s = user;
    s->replies++;
    s->answered += httpstream_reply_kind(reply) == HTTPSTREAM_KIND_RESPONSE;
    s->timeouts += httpstream_reply_kind(reply) == HTTPSTREAM_KIND_TIMEOUT;
    s->reused += httpstream_reply_reused(reply);
    if (s->delay_ms > 0) {
        next->action = HTTPSTREAM_AGAIN;
        next->delay_ms = s->delay_ms;
    }
}

static httpstream_engine engine_with(const char *name, uint64_t value) {
    httpstream_config config;
    httpstream_engine engine;
    OK(httpstream_config_new(&config));
    OK(httpstream_config_set(config, name, value));
    OK(httpstream_new(config, &engine));
    OK(httpstream_config_free(config));
    return engine;
}

/* Sends two requests, one after the other. */
static seen two(httpstream_engine engine, httpstream_request request) {
    seen s = {0};
    httpstream_readback readback = {.on_reply = on_reply, .user = &s};
    int i;
    for (i = 0; i < 2; i++) {
        OK(httpstream_submit(engine, request, 0, &readback, NULL));
        run(engine);
    }
    CHECK(s.replies == 2);
    return s;
}

static void idle_connections_are_kept(void) {
    httpstream_request request = get("/one");
    httpstream_engine engine;
    seen s;
    size_t i;
    for (i = 0; i < LONG_ONES; i++) {
        httpstream_stats stats = {.size = sizeof stats};
        engine = engine_with("idle_timeout_ms", long_ones[i]);
        s = two(engine, request);
        CHECK(s.answered == 2 && s.reused == 1);
        OK(httpstream_get_stats(engine, &stats));
        CHECK(stats.opened == 1 && stats.links_idle == 1);
        /* A loop that waits for the timeout does not spin. */
        CHECK(httpstream_timeout_ms(engine) == -1 || httpstream_timeout_ms(engine) > 1000000);
        OK(httpstream_free(engine));
    }
    engine = engine_with("idle_timeout_ms", 0);
    s = two(engine, request);
    CHECK(s.answered == 2 && s.reused == 0);
    OK(httpstream_free(engine));
    engine = engine_with("idle_timeout_ms", 1);
    s = two(engine, request);
    CHECK(s.answered == 2);
    OK(httpstream_free(engine));
    OK(httpstream_request_free(request));
}

static void other_durations_of_a_configuration(void) {
    const char *names[] = {"timeout_resolve_ms",    "timeout_connect_ms", "timeout_tls_ms",   "timeout_write_ms",
                           "timeout_first_byte_ms", "timeout_idle_ms",    "timeout_total_ms", "keep_names_ms",
                           "keep_stale_names_ms"};
    httpstream_request request = get("/one");
    size_t i, j;
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        for (j = 0; j < LONG_ONES; j++) {
            httpstream_engine engine = engine_with(names[i], long_ones[j]);
            CHECK(two(engine, request).answered == 2);
            OK(httpstream_free(engine));
        }
        for (j = 0; j < 2; j++) {
            httpstream_engine engine = engine_with(names[i], j);
            seen s = two(engine, request);
            CHECK(s.answered + s.timeouts == 2);
            OK(httpstream_free(engine));
        }
    }
    OK(httpstream_request_free(request));
}

static void durations_of_a_request(httpstream_engine engine) {
    const char *names[] = {"timeout_resolve_ms",    "timeout_connect_ms", "timeout_tls_ms",   "timeout_write_ms",
                           "timeout_first_byte_ms", "timeout_idle_ms",    "timeout_total_ms"};
    size_t i, j;
    for (j = 0; j < LONG_ONES + 2; j++) {
        uint64_t ms = j < LONG_ONES ? long_ones[j] : j - LONG_ONES;
        httpstream_request request;
        seen s;
        for (i = 0; i < sizeof names / sizeof *names; i++) {
            request = get("/one");
            OK(httpstream_request_option(request, names[i], ms));
            s = two(engine, request);
            CHECK(s.answered + s.timeouts == 2 && (s.answered == 2 || ms <= 1));
            OK(httpstream_request_free(request));
        }
        request = get("/one");
        OK(httpstream_request_timeout_ms(request, ms));
        s = two(engine, request);
        CHECK(s.answered + s.timeouts == 2 && (s.answered == 2 || ms <= 1));
        OK(httpstream_request_free(request));
        request = get("/one");
        OK(httpstream_request_long_poll_ms(request, ms));
        CHECK(two(engine, request).answered == 2);
        OK(httpstream_request_free(request));
    }
}

static void delays(httpstream_engine engine) {
    httpstream_request request = get("/one");
    size_t i;
    for (i = 0; i < LONG_ONES; i++) {
        /* Before the first request, and before a second one. */
        seen submitted = {0}, followed = {.delay_ms = long_ones[i]};
        httpstream_readback of_submitted = {.on_reply = on_reply, .user = &submitted};
        httpstream_readback of_followed = {.on_reply = on_reply, .user = &followed};
        httpstream_id a, b;
        OK(httpstream_submit(engine, request, long_ones[i], &of_submitted, &a));
        OK(httpstream_submit(engine, request, 0, &of_followed, &b));
        while (followed.replies == 0)
            OK(step(engine));
        OK(httpstream_turn(engine, 10, NULL));
        CHECK(submitted.replies == 0 && followed.replies == 1 && httpstream_pending(engine) == 2);
        CHECK(httpstream_timeout_ms(engine) == -1 || httpstream_timeout_ms(engine) > 10000);
        followed.delay_ms = 0;
        CHECK(httpstream_cancel(engine, a) == 1 && httpstream_cancel(engine, b) == 1);
        run(engine);
        CHECK(submitted.replies == 1 && followed.replies == 2);
    }
    for (i = 0; i < 2; i++) {
        seen s = {0};
        httpstream_readback readback = {.on_reply = on_reply, .user = &s};
        OK(httpstream_submit(engine, request, i, &readback, NULL));
        run(engine);
        CHECK(s.answered == 1);
    }
    OK(httpstream_request_free(request));
}

int main(int argc, char **argv) {
    httpstream_engine engine;
    CHECK(argc > 1);
    base = argv[1];
    idle_connections_are_kept();
    other_durations_of_a_configuration();
    OK(httpstream_new(0, &engine));
    durations_of_a_request(engine);
    delays(engine);
    OK(httpstream_free(engine));
    return 0;
}
