/* An engine belongs to its thread; other threads can wake and stop it. Requests and configurations
 * can be used on any thread. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>

static void on_reply(void *user, httpstream_reply reply, httpstream_next *next) {
    (void)next;
    CHECK(body_is(reply, "one"));
    ++*(int *)user;
}

typedef struct {
    httpstream_engine engine;
    httpstream_request request;
    httpstream_reply reply;
} shared;

static void *wrong_thread(void *argument) {
    shared *s = argument;
    httpstream_readback readback = {.on_reply = on_reply};
    httpstream_stats stats = {.size = sizeof stats};
    const char *w = "belongs to another thread";
    CHECK(strcmp(httpstream_last_error(), "") == 0); /* Each thread has its own error. */
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_free(s->engine));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_fd(s->engine));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_timeout_ms(s->engine));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_turn(s->engine, 1, NULL));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_close_idle(s->engine));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_network_changed(s->engine));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_pending(s->engine));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_get_stats(s->engine, &stats));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_submit(s->engine, s->request, 0, &readback, NULL));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_cancel(s->engine, 1));
    FAILS(HTTPSTREAM_ERROR_THREAD, w, httpstream_resume(s->engine, 1));
    return NULL;
}

static void *own_engine(void *argument) {
    shared *s = argument;
    int replies = 0, i;
    httpstream_engine engine;
    httpstream_readback readback = {.on_reply = on_reply, .user = &replies};
    OK(httpstream_new(0, &engine));
    for (i = 0; i < 20; i++)
        OK(httpstream_submit(engine, s->request, 0, &readback, NULL));
    run(engine);
    CHECK(replies == 20);
    OK(httpstream_free(engine));
    return NULL;
}

static void *waker(void *argument) {
    shared *s = argument;
    OK(httpstream_wakeup(s->engine));
    return NULL;
}

static void *stopper(void *argument) {
    shared *s = argument;
    OK(httpstream_stop(s->engine));
    return NULL;
}

static void *reply_looker(void *argument) {
    shared *s = argument;
    FAILS(HTTPSTREAM_ERROR_THREAD, "was lent on another thread", httpstream_reply_status(s->reply));
    CHECK(httpstream_reply_body(s->reply, NULL) == NULL && httpstream_last_error_number() == HTTPSTREAM_ERROR_THREAD);
    return NULL;
}

static void elsewhere(void *(*job)(void *), shared *s) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, job, s) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void on_shown(void *user, httpstream_reply reply, httpstream_next *next) {
    shared *s = user;
    (void)next;
    s->reply = reply;
    elsewhere(reply_looker, s);
    CHECK(httpstream_reply_status(reply) == 200);
}

/* Ends with an engine that is never freed: leaked, but harmless. */
static void *forgetful(void *argument) {
    shared *s = argument;
    httpstream_readback readback = {.on_reply = on_reply};
    httpstream_config config;
    OK(httpstream_config_new(&config));
    OK(httpstream_new(config, &s->engine));
    OK(httpstream_config_free(config));
    OK(httpstream_submit(s->engine, s->request, 0, &readback, NULL));
    return NULL;
}

/* ---- no wakeup of many is lost: a turn begins after each ---- */

enum { WAKEUPS = 5000, WAKERS = 2 };
static int handed_over;

static void *hand_over(void *argument) {
    shared *s = argument;
    int i;
    for (i = 0; i < WAKEUPS; i++) {
        __atomic_add_fetch(&handed_over, 1, __ATOMIC_SEQ_CST);
        OK(httpstream_wakeup(s->engine));
        if (i % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void take_what_is_handed_over(shared *s) {
    pthread_t threads[WAKERS];
    int i, taken = 0;
    for (i = 0; i < WAKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, hand_over, s) == 0);
    while (taken < WAKERS * WAKEUPS) {
        OK(step(s->engine)); /* fails if nothing wakes it */
        taken = __atomic_load_n(&handed_over, __ATOMIC_SEQ_CST);
    }
    for (i = 0; i < WAKERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    OK(httpstream_turn(s->engine, 8, NULL));
}

static size_t heap(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

int main(int argc, char **argv) {
    shared s = {0}, forgotten = {0};
    httpstream_readback shown = {.on_reply = on_shown, .user = &s};
    struct pollfd ready;
    httpstream_turned turned;
    pthread_t threads[4];
    size_t i;
    CHECK(argc > 1);
    base = argv[1];
    s.request = get("/one");
    OK(httpstream_new(0, &s.engine));
    elsewhere(wrong_thread, &s);

    for (i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, own_engine, &s) == 0);
    for (i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);

    /* Only the descriptor has to be waited for. It is readable after a wakeup, and no longer after
     * the turn. */
    ready = (struct pollfd){.fd = httpstream_fd(s.engine), .events = POLLIN};
    CHECK(httpstream_timeout_ms(s.engine) == -1);
    CHECK(poll(&ready, 1, 0) == 0);
    elsewhere(waker, &s);
    CHECK(poll(&ready, 1, 30000) == 1);
    OK(httpstream_turn(s.engine, 1, &turned));
    CHECK(!turned.stopped && turned.events == 1);
    CHECK(poll(&ready, 1, 0) == 0);
    elsewhere(stopper, &s);
    CHECK(poll(&ready, 1, 30000) == 1);
    OK(httpstream_turn(s.engine, 1, &turned));
    CHECK(turned.stopped);

    take_what_is_handed_over(&s);

    /* Any number of wakeups or stops before a turn counts as one and takes no memory. */
    {
        size_t before = heap();
        for (i = 0; i < 10000; i++)
            OK(httpstream_wakeup(s.engine));
        for (i = 0; i < 10000; i++)
            OK(httpstream_stop(s.engine));
        CHECK(heap() < before + 4096);
    }
    CHECK(poll(&ready, 1, 30000) == 1);
    OK(httpstream_turn(s.engine, 8, &turned));
    CHECK(turned.stopped);
    OK(httpstream_turn(s.engine, 1, &turned));
    CHECK(!turned.stopped && poll(&ready, 1, 0) == 0);
    /* The next wakeup counts again. */
    elsewhere(waker, &s);
    CHECK(poll(&ready, 1, 30000) == 1);
    OK(httpstream_turn(s.engine, 1, NULL));

    OK(httpstream_submit(s.engine, s.request, 0, &shown, NULL));
    run(s.engine);
    OK(httpstream_free(s.engine));
    FAILS(HTTPSTREAM_ERROR_HANDLE, "was freed", httpstream_wakeup(s.engine));

    if (argc > 2 && strcmp(argv[2], "forget") == 0) {
        forgotten.request = s.request;
        elsewhere(forgetful, &forgotten);
        FAILS(HTTPSTREAM_ERROR_THREAD, "belongs to another thread", httpstream_free(forgotten.engine));
        OK(httpstream_wakeup(forgotten.engine));
    }
    OK(httpstream_request_free(s.request));
    return 0;
}
