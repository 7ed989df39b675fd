/* Forks while requests are in flight: the child cannot use the engine, and the parent is not
 * affected. */
#include "check.h"
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int replies, releases;
static httpstream_engine engine;

static void release(void *user) {
    (void)user;
    releases++;
}

static void on_reply(void *user, httpstream_reply reply, httpstream_next *next) {
    (void)user, (void)next;
    CHECK(httpstream_reply_kind(reply) == 0);
    replies++;
}

static const httpstream_readback readback = {.on_reply = on_reply, .release = release};

static void child(httpstream_request request, httpstream_config config) {
    httpstream_stats stats = {.size = sizeof stats};
    httpstream_engine own;
    const char *w = "is a fork of the one that created it";
    replies = releases = 0;
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_turn(engine, 1, NULL));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_fd(engine));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_timeout_ms(engine));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_pending(engine));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_get_stats(engine, &stats));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_submit(engine, request, 0, &readback, NULL));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_cancel(engine, 1));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_resume(engine, 1));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_close_idle(engine));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_network_changed(engine));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_wakeup(engine));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_stop(engine));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_free(engine));
    CHECK(releases == 0);

    /* The child can use its values, and create engines of its own. */
    OK(httpstream_new(config, &own));
    OK(httpstream_submit(own, request, 0, &readback, NULL));
    run(own);
    CHECK(replies == 1 && releases == 1);
    OK(httpstream_free(own));
    OK(httpstream_request_free(request));
    OK(httpstream_config_free(config));
    FAILS(HTTPSTREAM_ERROR_FORKED, w, httpstream_free(engine));
    /* Not _exit: exit handlers must not touch what belongs to the parent either. */
    exit(17);
}

static void expect(pid_t pid, int code) {
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code);
}

/* ---- in a callback: the child must not return ---- */

static int returning;

static void on_forking(void *user, httpstream_reply reply, httpstream_next *next) {
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        FAILS(HTTPSTREAM_ERROR_FORKED, "is a fork", httpstream_turn(engine, 1, NULL));
        if (!returning)
            _exit(18);
        /* Returning aborts the child before it touches what belongs to the parent. No core dump is
         * wanted. */
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(19);
        return;
    }
    if (!returning) {
        expect(pid, 18);
    } else {
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
    on_reply(user, reply, next);
}

/* The same in the first of two releases: the second runs only in the parent. */
static void fork_in_release(void *user) {
    if (releases++ == 0) {
        pid_t pid = fork();
        int status;
        if (pid == 0) {
            setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
            if (freopen("/dev/null", "w", stderr) == NULL)
                _exit(19);
            return;
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
    (void)user;
}

static void fork_in_releases(httpstream_request request) {
    httpstream_readback forking = {.release = fork_in_release};
    httpstream_engine own;
    int at_the_end, i;
    for (at_the_end = 0; at_the_end < 2; at_the_end++) {
        httpstream_id ids[2];
        releases = 0;
        OK(httpstream_new(0, &own));
        for (i = 0; i < 2; i++)
            OK(httpstream_submit(own, request, UINT64_MAX, &forking, &ids[i]));
        if (!at_the_end) {
            for (i = 0; i < 2; i++)
                CHECK(httpstream_cancel(own, ids[i]) == 1);
            OK(httpstream_turn(own, 1, NULL));
            CHECK(releases == 2);
        }
        OK(httpstream_free(own));
        CHECK(releases == 2);
    }
}

/* ---- while other threads use the tables ---- */

static volatile bool done;

static void *busy(void *argument) {
    (void)argument;
    while (!done) {
        httpstream_request request = get("/one");
        OK(httpstream_request_free(request));
    }
    return NULL;
}

/* The child keeps memory that only the other thread's stack refers to; valgrind would report it as
 * lost. */
static void fork_beside_a_thread(void) {
    pthread_t thread;
    int i;
    CHECK(pthread_create(&thread, NULL, busy, NULL) == 0);
    for (i = 0; i < 50; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            httpstream_request request = get("/one");
            alarm(20); /* If the lock were held here, the child would wait forever. */
            OK(httpstream_request_free(request));
            _exit(20);
        }
        expect(pid, 20);
    }
    done = true;
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(int argc, char **argv) {
    httpstream_request late, one;
    httpstream_config config;
    httpstream_readback forking = {.on_reply = on_forking};
    pid_t pid;
    CHECK(argc > 1);
    base = argv[1];
    late = get("/late");
    one = get("/one");
    OK(httpstream_config_new(&config));
    OK(httpstream_new(config, &engine));
    /* One connection is idle in the pool and one waits for its response: both are registered. */
    OK(httpstream_submit(engine, one, 0, &readback, NULL));
    run(engine);
    OK(httpstream_submit(engine, one, 0, &readback, NULL));
    OK(httpstream_submit(engine, late, 0, &readback, NULL));
    OK(httpstream_submit(engine, one, 60000, &readback, NULL));
    while (replies < 2)
        OK(step(engine));
    pid = fork();
    if (pid == 0)
        child(one, config);
    expect(pid, 17);
    /* The response arrives on a connection that the child shared, and the descriptor reports it. */
    while (replies < 3)
        OK(step(engine));
    CHECK(releases == 3 && httpstream_pending(engine) == 1);
    OK(httpstream_submit(engine, one, 0, &readback, NULL));
    while (replies < 4)
        OK(step(engine));

    for (returning = 0; returning < 2; returning++) {
        OK(httpstream_submit(engine, one, 0, &forking, NULL));
        while (replies < 5 + returning)
            OK(step(engine));
    }

    if (argc > 2 && strcmp(argv[2], "threads") == 0)
        fork_beside_a_thread();

    OK(httpstream_free(engine));
    CHECK(releases == 5);
    fork_in_releases(one);
    OK(httpstream_request_free(late));
    OK(httpstream_request_free(one));
    OK(httpstream_config_free(config));
    return 0;
}
