/* Data that arrives on an idle connection while no response is outstanding is never the response to
 * the next request, and that request is sent on another connection.
 *
 * unasked URL SECOND_URL PORT_OF_ORDERS CA_FILE|- [NAME]: programs/unasked.rs documents the server
 * and the data that NAME selects. Without a name, all data are tested. */
#include "check.h"
#include <arpa/inet.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *second_base;
static int orders = -1;

/* Sends the server a command; returns how many requests arrived on a tainted connection. */
static int order(const char *what) {
    char line[64];
    ssize_t len = snprintf(line, sizeof line, "%s\n", what);
    CHECK(write(orders, line, len) == len);
    len = 0;
    do {
        ssize_t got = read(orders, line + len, sizeof line - 1 - len);
        CHECK(got > 0);
        len += got;
    } while (line[len - 1] != '\n');
    line[len] = 0;
    return atoi(line);
}

static void send_unasked(const char *name) {
    char line[64];
    snprintf(line, sizeof line, "send %s", name);
    order(line);
}

static void work(long milliseconds) {
    struct timespec time = {.tv_nsec = milliseconds * 1000000};
    CHECK(nanosleep(&time, NULL) == 0);
}

/* ---- one case: a first request, what the server sends, a second request ---- */

typedef enum {
    /* httpstream_submit, then httpstream_turn. */
    BEFORE_TURN,
    /* In one turn, from the callback of another exchange: the unsolicited data is reported after
     * that exchange, or before it. */
    IN_TURN,
    IN_TURN_LATER,
    /* The same, but the callback returns the request. */
    FOLLOWS_IN_TURN,
    FOLLOWS_IN_TURN_LATER,
    /* A callback works for 50 ms while the server sends, then submits or returns the request. */
    AFTER_WORK,
    FOLLOWS_WORK,
    /* The same in the callback of the first request, on whose connection the data arrives. */
    AFTER_OWN_WORK,
    FOLLOWS_OWN_WORK,
    WAYS
} way;

static const char *const ways[] = {
    "submit, then turn",
    "submitted in the turn, unsolicited bytes behind it",
    "submitted in the turn, unsolicited bytes before it",
    "returned in the turn, unsolicited bytes behind it",
    "returned in the turn, unsolicited bytes before it",
    "submitted after work",
    "returned after work",
    "submitted after work on its own connection",
    "returned after work on its own connection",
};

typedef struct {
    way way;
    const char *unasked;
    httpstream_engine engine;
    httpstream_request second;
    int connection, answers, was_reused;
    char told[256];
} test;

/* Handles the response to the second request. */
static void on_second(void *user, httpstream_reply reply, httpstream_next *next) {
    test *t = user;
    size_t len;
    const uint8_t *body = httpstream_reply_body(reply, &len);
    (void)next;
    t->answers++;
    t->was_reused = httpstream_reply_reused(reply);
    snprintf(t->told, sizeof t->told, "%d %.*s%s", (int)httpstream_reply_status(reply), (int)(len > 64 ? 64 : len), (const char *)body,
             httpstream_reply_message(reply));
}

static void go_on(test *t, bool follows, httpstream_next *next) {
    static httpstream_readback readback = {.on_reply = on_second};
    readback.user = t;
    if (follows) {
        next->action = HTTPSTREAM_SEND;
        next->request = t->second;
        next->readback = &readback;
    } else {
        OK(httpstream_submit(t->engine, t->second, 0, &readback, NULL));
    }
}

static void on_first(void *user, httpstream_reply reply, httpstream_next *next) {
    test *t = user;
    CHECK(httpstream_reply_kind(reply) == 0 && httpstream_reply_status(reply) == 200);
    t->connection = atoi((const char *)httpstream_reply_body(reply, NULL));
    CHECK(t->connection > 0);
    if (t->way == AFTER_OWN_WORK || t->way == FOLLOWS_OWN_WORK) {
        send_unasked(t->unasked);
        work(50);
        go_on(t, t->way == FOLLOWS_OWN_WORK, next);
    }
}

/* Handles the response from the other origin. */
static void on_other(void *user, httpstream_reply reply, httpstream_next *next) {
    test *t = user;
    CHECK(httpstream_reply_kind(reply) == 0 && httpstream_reply_status(reply) == 200);
    if (t->way == AFTER_WORK || t->way == FOLLOWS_WORK) {
        send_unasked(t->unasked);
        work(50);
    }
    go_on(t, t->way == FOLLOWS_IN_TURN || t->way == FOLLOWS_IN_TURN_LATER || t->way == FOLLOWS_WORK, next);
}

static httpstream_request make(const char *method, const char *origin, const char *path) {
    char url[256];
    httpstream_request request;
    snprintf(url, sizeof url, "%s/%s", origin, path);
    OK(httpstream_request_new(method, SIZE_MAX, url, SIZE_MAX, &request));
    if (strcmp(method, "POST") == 0)
        OK(httpstream_request_body(request, "a body", SIZE_MAX));
    return request;
}

/* Returns whether the second request got the right response; prints what was wrong. */
static bool case_is_good(httpstream_config config, way way, const char *unasked, const char *method) {
    static int id;
    test t = {.way = way, .unasked = unasked};
    httpstream_readback by_first = {.on_reply = on_first, .user = &t}, by_other = {.on_reply = on_other, .user = &t};
    httpstream_readback by_second = {.on_reply = on_second, .user = &t};
    char path[32];
    httpstream_request first, other = make("GET", second_base, "held");
    int connection, stale = order("stale"), more;
    bool is_reused, good;
    const char *rest;

    OK(httpstream_new(config, &t.engine));
    snprintf(path, sizeof path, "%d", ++id);
    first = make("GET", base, path);
    snprintf(path, sizeof path, "%d", ++id);
    t.second = make(method, base, path);
    OK(httpstream_submit(t.engine, first, 0, &by_first, NULL));
    run(t.engine);
    switch (way) {
    case BEFORE_TURN:
        send_unasked(unasked);
        OK(httpstream_submit(t.engine, t.second, 0, &by_second, NULL));
        break;
    case AFTER_OWN_WORK:
    case FOLLOWS_OWN_WORK:
        break;
    default: {
        httpstream_stats stats = {.size = sizeof stats};
        int64_t sent;
        OK(httpstream_submit(t.engine, other, 0, &by_other, NULL));
        /* Turns until the request is sent, then until no more bytes go out. */
        do {
            OK(step(t.engine));
            OK(httpstream_get_stats(t.engine, &stats));
        } while (stats.links_dialing > 0 || stats.links_open < 2);
        do {
            sent = stats.bytes_out;
            OK(httpstream_turn(t.engine, 1, NULL));
            OK(httpstream_get_stats(t.engine, &stats));
        } while ((int64_t)stats.bytes_out != sent);
        /* The server has received the request and holds it. */
        order("stale");
        if (way == IN_TURN_LATER || way == FOLLOWS_IN_TURN_LATER)
            send_unasked(unasked);
        order("answer");
        if (way == IN_TURN || way == FOLLOWS_IN_TURN)
            send_unasked(unasked);
    }
    }
    run(t.engine);
    CHECK(t.answers == 1);

    /* "200 CONNECTION ID" */
    is_reused = strcmp(unasked, "nothing") == 0;
    connection = strncmp(t.told, "200 ", 4) == 0 ? atoi(t.told + 4) : 0;
    rest = connection > 0 ? strchr(t.told + 4, ' ') : NULL;
    more = order("stale") - stale;
    good = rest != NULL && strcmp(rest + 1, path) == 0 && (connection == t.connection) == is_reused && t.was_reused == is_reused && more == 0;
    if (!good)
        fprintf(stderr, "%s, %s, %s: connection %d first, then \"%s\" (the id is %s), reused: %d, requests on a tainted connection: %d\n",
                unasked, ways[way], method, t.connection, t.told, path, t.was_reused, more);
    OK(httpstream_free(t.engine));
    OK(httpstream_request_free(first));
    OK(httpstream_request_free(other));
    OK(httpstream_request_free(t.second));
    order("forget");
    return good;
}

int main(int argc, char **argv) {
    static const char *const names[] = {"nothing", "fin", "408", "200", "crlf", "last-chunk", "close_notify"};
    struct sockaddr_in addr = {.sin_family = AF_INET};
    httpstream_config config;
    int failed = 0, i, w;
    bool is_secure;
    CHECK(argc == 5 || argc == 6);
    is_secure = strcmp(argv[4], "-") != 0;
    base = argv[1];
    second_base = argv[2];
    addr.sin_port = htons(atoi(argv[3]));
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    orders = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(orders >= 0 && connect(orders, (struct sockaddr *)&addr, sizeof addr) == 0);
    OK(httpstream_config_new(&config));
    if (is_secure)
        OK(httpstream_config_ca_file(config, argv[4]));
    /* Without TLS there is no close_notify. */
    for (i = 0; i < (is_secure ? 7 : 6); i++) {
        if (argc == 6 && strcmp(argv[5], names[i]) != 0)
            continue;
        for (w = 0; w < WAYS; w++) {
            failed += !case_is_good(config, w, names[i], "POST");
            failed += !case_is_good(config, w, names[i], "GET");
        }
    }
    OK(httpstream_config_free(config));
    close(orders);
    if (failed > 0)
        fprintf(stderr, "%d failed\n", failed);
    return failed > 0;
}
