/* A host with the default disposition of SIGPIPE, and servers that reset: nothing terminates the
 * process. */
#include "check.h"
#include <signal.h>

static int replies;

static void on_reply(void *user, httpstream_reply reply, httpstream_next *next) {
    (void)user, (void)next;
    /* Closed, reset or a broken pipe, depending on what the kernel notices first. */
    CHECK(httpstream_reply_kind(reply) == HTTPSTREAM_KIND_CLOSED_BEFORE_RESPONSE || httpstream_reply_kind(reply) == HTTPSTREAM_KIND_IO);
    replies++;
}

int main(int argc, char **argv) {
    httpstream_engine engine;
    httpstream_readback readback = {.on_reply = on_reply};
    struct sigaction action;
    static char body[8 << 20];
    int i;
    CHECK(argc > 1);
    base = argv[1];
    CHECK(sigaction(SIGPIPE, NULL, &action) == 0);
    /* The parent process may have ignored the signal. */
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    OK(httpstream_new(0, &engine));
    for (i = 0; i < 20; i++) {
        httpstream_request request;
        char url[256];
        snprintf(url, sizeof url, "%s/%s", base, i % 2 ? "reset" : "close");
        OK(httpstream_request_new("POST", SIZE_MAX, url, SIZE_MAX, &request));
        OK(httpstream_request_body(request, body, sizeof body));
        OK(httpstream_submit(engine, request, 0, &readback, NULL));
        OK(httpstream_request_free(request));
    }
    run(engine);
    CHECK(replies == 20);
    CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    OK(httpstream_free(engine));
    return 0;
}
