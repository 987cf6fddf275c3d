/* The wall clock of a process, ahead of the true one by what a file says: CHAOS_CLOCK names it, and
   it holds one int64 of nanoseconds in the machine's byte order, which may change at any time.

   Preloaded (ld.so(8), LD_PRELOAD), it stands before libc's. Monotonic and boot time stay true, and
   so do sleeping and waiting: that is why it is not libfaketime, whose clock_nanosleep fails with
   EINVAL for a monotonic deadline while the wall clock is off. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000

static const volatile int64_t *offset_ns;

__attribute__((constructor)) static void open_offset(void)
{
    const char *name = getenv("CHAOS_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof *offset_ns, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        offset_ns = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && offset_ns && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = now->tv_sec * (int64_t)SECOND_NS + now->tv_nsec + *offset_ns;
        now->tv_sec = ns / SECOND_NS;
        now->tv_nsec = ns % SECOND_NS;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec it;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &it))
        return -1;
    now->tv_sec = it.tv_sec;
    now->tv_usec = it.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *also)
{
    struct timespec it;
    clock_gettime(CLOCK_REALTIME, &it);
    if (also)
        *also = it.tv_sec;
    return it.tv_sec;
}
