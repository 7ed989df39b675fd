/* Embeds the engine in a libuv loop, as in node: a uv_poll_t on the engine's descriptor, and one
 * uv_timer_t that is set before each wait.
 *
 * The traps: libuv aborts if a descriptor is closed while it is watched. So the handles are closed
 * first, the loop runs until they are closed, and then the engine is freed. And the loop's clock
 * does not advance between two waits: a timer that is set without uv_update_time may be early. */
#include "conversation.h"
#include <uv.h>

typedef struct host {
    httpstream_engine engine;
    uv_poll_t poll;
    uv_timer_t timer;
    uv_prepare_t prepare;
} host;

static void turn(host *h) {
    ok(httpstream_turn(h->engine, 1, NULL));
    if (httpstream_pending(h->engine) == 0 && !uv_is_closing((uv_handle_t *)&h->poll)) {
        uv_close((uv_handle_t *)&h->poll, NULL);
        uv_close((uv_handle_t *)&h->timer, NULL);
        uv_close((uv_handle_t *)&h->prepare, NULL);
    }
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    (void)status;
    (void)events;
    turn(poll->data);
}

static void on_deadline(uv_timer_t *timer) { turn(timer->data); }

/* Runs before each wait, and so covers everything submitted since the last one. */
static void set_timer(uv_prepare_t *prepare) {
    host *h = prepare->data;
    int32_t timeout = httpstream_timeout_ms(h->engine);
    if (timeout == -1) {
        uv_timer_stop(&h->timer);
        return;
    }
    uv_update_time(prepare->loop);
    uv_timer_start(&h->timer, on_deadline, (uint64_t)ok(timeout), 0);
}

int main(int argc, char **argv) {
    host h = {.engine = begin(argc, argv)};
    uv_loop_t *loop = uv_default_loop();
    h.poll.data = h.timer.data = h.prepare.data = &h;
    uv_poll_init(loop, &h.poll, httpstream_fd(h.engine));
    uv_timer_init(loop, &h.timer);
    uv_prepare_init(loop, &h.prepare);
    uv_poll_start(&h.poll, UV_READABLE, on_readable);
    uv_prepare_start(&h.prepare, set_timer);
    /* Runs until the handles are closed, which happens when no chain is left. */
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    return end(h.engine);
}
