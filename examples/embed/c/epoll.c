/* In a host of plain epoll: one descriptor, one timeout, one turn for each wakeup.
 *
 * The trap: a timeout of -1 is "nothing to wait for but the descriptor", 0 is "now"; it is asked for before each wait, not kept. */
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
    /* The engine's descriptor is closed by httpstream_free: nobody watches it then. */
    close(watched);
    return end(engine);
}
