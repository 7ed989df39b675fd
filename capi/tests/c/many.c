/* Creates, uses and frees as many engines as the second argument says: neither descriptors nor heap
 * grow. */
#include "check.h"
#include <dirent.h>
#include <malloc.h>

static int releases, replies;

static void release(void *user) {
    (void)user;
    releases++;
}

static void on_reply(void *user, httpstream_reply reply, httpstream_next *next) {
    (void)user, (void)reply, (void)next;
    replies++;
}

static int descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static size_t heap(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void one_life(int number) {
    httpstream_readback readback = {.on_reply = on_reply, .release = release};
    httpstream_config config;
    httpstream_engine engine;
    httpstream_request request = get("/one");
    OK(httpstream_config_new(&config));
    OK(httpstream_config_set(config, "max_connections", 10));
    OK(httpstream_config_set(config, "timerfd", (uint64_t)(number % 2)));
    OK(httpstream_new(config, &engine));
    OK(httpstream_config_free(config));
    OK(httpstream_submit(engine, request, 0, &readback, NULL));
    /* One request in a hundred is answered; the others are left in various states. */
    if (number % 100 == 0)
        run(engine);
    else if (number % 2 == 0)
        OK(httpstream_turn(engine, 1, NULL));
    OK(httpstream_submit(engine, request, UINT64_MAX, &readback, NULL));
    OK(httpstream_request_free(request));
    OK(httpstream_free(engine));
}

int main(int argc, char **argv) {
    int count, i, warm = 200, open_before;
    size_t heap_before;
    CHECK(argc > 2);
    base = argv[1];
    count = atoi(argv[2]);
    for (i = 0; i < warm; i++)
        one_life(i);
    open_before = descriptors();
    heap_before = heap();
    for (i = 0; i < count; i++)
        one_life(i);
    CHECK(descriptors() == open_before);
    /* The allocator's own memory varies by some kilobytes. Leaking the smallest block for each
     * engine would make 240 kilobytes. */
    CHECK(heap() < heap_before + 16384);
    CHECK(releases == 2 * (count + warm) && replies >= (count + warm) / 100);
    return 0;
}
