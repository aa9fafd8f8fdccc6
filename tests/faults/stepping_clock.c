/*
 * A clock that steps: the wall clock of a process, so many seconds off.
 *
 * Preloaded into a server (LD_PRELOAD), it adds to every reading of the wall clock the eight
 * bytes, a count of seconds, that stand in the file of CQ_CLOCK_OFFSET. The file is mapped, so
 * that a step shows in every process of the server at once. Monotonic clocks are left alone, as a
 * real step leaves them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;

__attribute__((constructor)) static void map_offset(void)
{
    const char *path = getenv("CQ_CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *page = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
        if (page != MAP_FAILED)
            offset = page;
        close(file);
    }
}

static int64_t seconds_off(void)
{
    return offset ? *offset : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, now);
    if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += seconds_off();
    return answer;
}

int gettimeofday(struct timeval *now, void *zone)
{
    static int (*real)(struct timeval *, void *);
    if (!real)
        real = dlsym(RTLD_NEXT, "gettimeofday");
    int answer = real(now, zone);
    if (answer == 0)
        now->tv_sec += seconds_off();
    return answer;
}

time_t time(time_t *place)
{
    static time_t (*real)(time_t *);
    if (!real)
        real = dlsym(RTLD_NEXT, "time");
    time_t now = real(NULL) + seconds_off();
    if (place)
        *place = now;
    return now;
}
