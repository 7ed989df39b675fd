/* Code that the programs share. Each is started with the URL of a server; programs/server.rs shows
 * what it serves. */
#ifndef CHECK_H
#define CHECK_H
#include <httpstream.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\nlast error: %s\n", __FILE__, __LINE__, #condition, httpstream_last_error()); \
            abort(); \
        } \
    } while (0)

/* The call returns this error, and its message contains `part`. */
#define FAILS(error, part, call) \
    do { \
        int64_t answer = (int64_t)(call); \
        if (answer != (error) || strstr(httpstream_last_error(), part) == NULL || httpstream_last_error_number() != (error)) { \
            fprintf(stderr, "%s:%d: %s is %ld, not %s with \"%s\"\nlast error: %s\n", __FILE__, __LINE__, #call, (long)answer, #error, \
                    part, httpstream_last_error()); \
            abort(); \
        } \
    } while (0)

#define OK(call) CHECK((call) == HTTPSTREAM_OK)

static const char *base;

/* Returns a GET request for `path` on the server. */
static inline httpstream_request get(const char *path) {
    char url[256];
    httpstream_request request = 0;
    snprintf(url, sizeof url, "%s%s", base, path);
    OK(httpstream_request_new("GET", SIZE_MAX, url, SIZE_MAX, &request));
    return request;
}

/* Waits for the engine as a host does, then turns it once. */
static inline int32_t step(httpstream_engine engine) {
    struct pollfd ready = {.fd = httpstream_fd(engine), .events = POLLIN};
    int32_t timeout = httpstream_timeout_ms(engine);
    CHECK(ready.fd >= 0);
    CHECK(timeout >= -1);
    /* Nothing in the tests takes half a minute; a timeout means that something hangs. */
    CHECK(poll(&ready, 1, timeout == -1 ? 30000 : timeout) > 0 || timeout != -1);
    return httpstream_turn(engine, 1, NULL);
}

/* Turns the engine until no chain is left. */
static inline void run(httpstream_engine engine) {
    while (httpstream_pending(engine) > 0)
        OK(step(engine));
    CHECK(httpstream_pending(engine) == 0);
}

static inline bool is(const void *bytes, size_t len, const char *text) {
    return bytes != NULL && len == strlen(text) && memcmp(bytes, text, len) == 0;
}

/* The call writes its length to `len` and returns these bytes. */
static const void *answered_ __attribute__((unused));
#define IS(call, text) (answered_ = (call), is(answered_, len, text))

static inline bool body_is(httpstream_reply reply, const char *text) {
    size_t len;
    const uint8_t *body = httpstream_reply_body(reply, &len);
    return is(body, len, text);
}

#endif
