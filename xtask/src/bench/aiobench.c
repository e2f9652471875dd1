/*
 * Random 4 KiB reads of a block device with O_DIRECT and Linux's native asynchronous I/O, at a
 * fixed depth, by bare system calls: no library stands between the kernel and the figure.
 *
 *     aiobench DEVICE DEPTH MILLISECONDS
 *
 * prints "RESULT <device> <depth> <requests> <nanoseconds>". A first, short run finds how many
 * requests fill the time, so that the measured run looks at the clock only twice.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, DEEPEST = 1024, WARM_UP = 2000 };

static int fd;
static uint64_t blocks;
static aio_context_t context;
static struct iocb requests[DEEPEST];
static struct iocb *batch[DEEPEST];
static struct io_event events[DEEPEST];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t next_offset(void)
{
    static uint64_t x = 0x9E3779B97F4A7C15;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x % blocks * BLOCK;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void submit(long count)
{
    for (long done = 0; done < count;) {
        long taken = syscall(SYS_io_submit, context, count - done, batch + done);
        if (taken <= 0)
            fail("io_submit");
        done += taken;
    }
}

/* Keeps `depth` requests in flight until `total` are done; returns the nanoseconds. */
static uint64_t run(long depth, long total)
{
    uint64_t start = now();
    long submitted = depth < total ? depth : total;
    for (long i = 0; i < submitted; i++) {
        requests[i].aio_offset = next_offset();
        batch[i] = &requests[i];
    }
    submit(submitted);
    for (long done = 0; done < total;) {
        long came = syscall(SYS_io_getevents, context, 1L, depth, events, NULL);
        if (came <= 0)
            fail("io_getevents");
        long again = 0;
        for (long i = 0; i < came; i++) {
            if (events[i].res != BLOCK) {
                fprintf(stderr, "a read ended with %lld\n", (long long)events[i].res);
                exit(1);
            }
            if (submitted < total) {
                struct iocb *request = (struct iocb *)(uintptr_t)events[i].obj;
                request->aio_offset = next_offset();
                batch[again++] = request;
                submitted++;
            }
        }
        done += came;
        submit(again);
    }
    return now() - start;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long depth = atol(argv[2]), milliseconds = atol(argv[3]);
    if (depth < 1 || depth > DEEPEST || milliseconds < 1)
        return 2;
    fd = open(argv[1], O_RDONLY | O_DIRECT);
    uint64_t bytes;
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) != 0)
        fail(argv[1]);
    blocks = bytes / BLOCK;
    void *buffers;
    if (posix_memalign(&buffers, BLOCK, (size_t)depth * BLOCK) != 0)
        fail("memory");
    memset(buffers, 1, (size_t)depth * BLOCK);
    if (syscall(SYS_io_setup, depth, &context) != 0)
        fail("io_setup");
    for (long i = 0; i < depth; i++) {
        requests[i].aio_fildes = (uint32_t)fd;
        requests[i].aio_lio_opcode = IOCB_CMD_PREAD;
        requests[i].aio_buf = (uint64_t)(uintptr_t)buffers + (uint64_t)i * BLOCK;
        requests[i].aio_nbytes = BLOCK;
    }
    uint64_t warm = run(depth, WARM_UP);
    long total = (long)((double)WARM_UP / (double)warm * 1e6 * (double)milliseconds) + depth;
    uint64_t nanoseconds = run(depth, total);
    printf("RESULT %s %ld %ld %llu\n", argv[1], depth, total, (unsigned long long)nanoseconds);
    return 0;
}
