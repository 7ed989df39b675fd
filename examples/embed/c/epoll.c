/* Embeds the engine in a host that uses epoll: one descriptor, one timeout, one turn for each
 * wakeup.
 *
 * The trap: a timeout of -1 means "wait for the descriptor only", 0 means "now". Ask for it before
 * each wait and do not keep it. */
#include "conversation.h"
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

int main(int argc, char **argv) {
    httpstream_engine engine = begin(argc, argv);
    struct epoll_event event = {.events = EPOLLIN};
    int watched = epoll_create1(EPOLL_CLOEXEC);
    if (watched < 0 || epoll_ctl(watched, EPOLL_CTL_ADD, httpstream_fd(engine), &event) != 0) {
        perror("epoll");
        return 1;
    }
    while (httpstream_pending(engine) > 0) {
        int timeout = httpstream_timeout_ms(engine);
        if (timeout < -1)
            ok(timeout);
        if (epoll_wait(watched, &event, 1, timeout) < 0 && errno != EINTR) {
            perror("epoll_wait");
            return 1;
        }
        ok(httpstream_turn(engine, 1, NULL));
    }
    /* httpstream_free closes the engine's descriptor, which nothing watches by then. */
    close(watched);
    return end(engine);
}
