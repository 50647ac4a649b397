/* Rows out of mapped files into a batch, and their CRC32C, without Python between two rows.
 *
 * A batch is larger than the cores' caches, so it is written past them (non-temporal stores), which
 * spares the reading of what is about to be overwritten; the sum is made of the same registers on
 * the way. Python cannot do either. What this module does not copy, for whatever reason, it leaves
 * to row_reader.py, which reads it again and says what is wrong.
 *
 * CRC32C by folding: Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction", Intel 2009. The constants that fold by D bits are x^(D+31) and x^(D-33) modulo the
 * polynomial 0x11EDC6F41, bits reflected; tests/cache/test_native.py computes them again.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if !defined(__x86_64__) || !defined(__linux__)
#error "written for x86-64 and Linux; tca works without it"
#endif

#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define INLINE static inline __attribute__((always_inline))
#define BASE __attribute__((target("sse4.2,pclmul")))
#define WIDE __attribute__((target("avx512f,vpclmulqdq,sse4.2,pclmul")))

enum { CHECKSUM = 4 };
enum store { NONE, CACHED, STREAMED };

/* Fold by 2048, 512 and 128 bits: the constants for the lower and the upper 64 bits. */
#define FOLD_2048 0xb9e02b86, 0xdcb17aa4
#define FOLD_512 0x9e4addf8, 0x740eef02
#define FOLD_128 0x493c7d27, 0xf20c0dfe

/* ---- sums -------------------------------------------------------------------------------- */

BASE INLINE __m128i fold(__m128i sum, __m128i by, __m128i next)
{
    __m128i low = _mm_clmulepi64_si128(sum, by, 0x00), high = _mm_clmulepi64_si128(sum, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

BASE INLINE void put(char *to, __m128i value, enum store store)
{
    if (store == STREAMED)
        _mm_stream_si128((__m128i *)to, value);
    else if (store == CACHED)
        _mm_storeu_si128((__m128i *)to, value);
}

/* Finish a sum whose last 64 bytes are folded into `lanes`, with the `size` bytes that are left. */
BASE static uint32_t finish(const __m128i lanes[4], char *to, const char *from, size_t size,
                            enum store store)
{
    const __m128i by = _mm_set_epi64x(FOLD_128);
    __m128i sum = fold(fold(fold(lanes[0], by, lanes[1]), by, lanes[2]), by, lanes[3]);
    uint64_t crc = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(sum));
    crc = _mm_crc32_u64(crc, (uint64_t)_mm_extract_epi64(sum, 1));
    for (size_t i = 0; i < size; i++) {
        crc = _mm_crc32_u8((uint32_t)crc, (uint8_t)from[i]);
        if (store != NONE)
            to[i] = from[i];
    }
    return ~(uint32_t)crc;
}

BASE static uint32_t short_sum(char *to, const char *from, size_t size, enum store store)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc = _mm_crc32_u8(crc, (uint8_t)from[i]);
        if (store != NONE)
            to[i] = from[i];
    }
    return ~crc;
}

BASE INLINE uint32_t base_sum(char *to, const char *from, size_t size, enum store store)
{
    if (size < 64)
        return short_sum(to, from, size, store);
    const __m128i by = _mm_set_epi64x(FOLD_512);
    __m128i lanes[4] = {_mm_cvtsi32_si128(-1)};
    /* Folding zeros gives zeros: the first round only puts the first 64 bytes there. */
    __m128i start = lanes[0];
    lanes[0] = lanes[1] = lanes[2] = lanes[3] = _mm_setzero_si128();
    size_t i = 0;
    for (; i + 64 <= size; i += 64) {
        for (int lane = 0; lane < 4; lane++) {
            __m128i next = _mm_loadu_si128((const __m128i *)(from + i) + lane);
            put(to + i + 16 * lane, next, store);
            lanes[lane] = fold(lanes[lane], by, next);
        }
        lanes[0] = _mm_xor_si128(lanes[0], start);
        start = _mm_setzero_si128();
    }
    return finish(lanes, to + i, from + i, size - i, store);
}

WIDE INLINE __m512i fold_wide(__m512i sum, __m512i by, __m512i next)
{
    __m512i low = _mm512_clmulepi64_epi128(sum, by, 0x00);
    return _mm512_ternarylogic_epi64(low, _mm512_clmulepi64_epi128(sum, by, 0x11), next, 0x96);
}

WIDE INLINE void put_wide(char *to, __m512i value, enum store store)
{
    if (store == STREAMED)
        _mm512_stream_si512((__m512i *)to, value);
    else if (store == CACHED)
        _mm512_storeu_si512((__m512i *)to, value);
}

WIDE INLINE uint32_t wide_sum(char *to, const char *from, size_t size, enum store store)
{
    if (size < 256)
        return base_sum(to, from, size, store == STREAMED ? CACHED : store);
    const __m512i far = _mm512_broadcast_i32x4(_mm_set_epi64x(FOLD_2048));
    const __m512i near = _mm512_broadcast_i32x4(_mm_set_epi64x(FOLD_512));
    __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                       _mm512_setzero_si512()};
    __m512i start = _mm512_zextsi128_si512(_mm_cvtsi32_si128(-1));
    size_t i = 0;
    for (; i + 256 <= size; i += 256) {
        for (int part = 0; part < 4; part++) {
            __m512i next = _mm512_loadu_si512(from + i + 64 * part);
            put_wide(to + i + 64 * part, next, store);
            sums[part] = fold_wide(sums[part], far, next);
        }
        sums[0] = _mm512_xor_si512(sums[0], start);
        start = _mm512_setzero_si512();
    }
    __m512i sum = sums[0];
    for (int part = 1; part < 4; part++)
        sum = fold_wide(sum, near, sums[part]);
    for (; i + 64 <= size; i += 64) {
        __m512i next = _mm512_loadu_si512(from + i);
        put_wide(to + i, next, store);
        sum = fold_wide(sum, near, next);
    }
    __m128i lanes[4];
    _mm512_storeu_si512(lanes, sum);
    return finish(lanes, to + i, from + i, size - i, store);
}

/* The same for each way to store, so that the choice is not made in the loop. */
BASE static uint32_t base_copy_sum(char *to, const char *from, size_t size, enum store store)
{
    return store == STREAMED ? base_sum(to, from, size, STREAMED)
           : store == CACHED ? base_sum(to, from, size, CACHED)
                             : base_sum(to, from, size, NONE);
}

WIDE static uint32_t wide_copy_sum(char *to, const char *from, size_t size, enum store store)
{
    return store == STREAMED ? wide_sum(to, from, size, STREAMED)
           : store == CACHED ? wide_sum(to, from, size, CACHED)
                             : wide_sum(to, from, size, NONE);
}

static uint32_t (*copy_sum)(char *to, const char *from, size_t size, enum store store);

/* Copy past the caches without a sum; a line of 64 bytes by one store where there is one. */
static void base_stream(char *to, const char *from, size_t size)
{
    size_t i = 0;
    for (; i + 64 <= size; i += 64)
        for (int lane = 0; lane < 4; lane++)
            _mm_stream_si128((__m128i *)(to + i) + lane,
                             _mm_loadu_si128((const __m128i *)(from + i) + lane));
    memcpy(to + i, from + i, size - i);
}

WIDE static void wide_stream(char *to, const char *from, size_t size)
{
    size_t i = 0;
    for (; i + 256 <= size; i += 256)
        for (int part = 0; part < 4; part++)
            put_wide(to + i + 64 * part, _mm512_loadu_si512(from + i + 64 * part), STREAMED);
    memcpy(to + i, from + i, size - i);
}

static void (*stream)(char *to, const char *from, size_t size);

/* ---- a file that gets shorter while it is mapped ------------------------------------------ */

static _Thread_local sigjmp_buf *escape;
static struct sigaction others;
static volatile sig_atomic_t handed_on;

static void on_bus_error(int number, siginfo_t *what, void *context)
{
    (void)context;
    if (escape != NULL)
        siglongjmp(*escape, 1);
    /* Not ours. Returning repeats what failed, under the handler that was there before. */
    if (handed_on)
        signal(SIGBUS, SIG_DFL);
    else
        sigaction(SIGBUS, &others, NULL);
    handed_on = 1;
    if (what->si_code <= 0)
        raise(number);
}

static void catch_bus_errors(void)
{
    struct sigaction now, ours = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, NULL, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error)
        return;
    others = now;
    handed_on = 0;
    sigaction(SIGBUS, &ours, NULL);
}

/* ---- rows --------------------------------------------------------------------------------- */

typedef struct {
    char *out;
    size_t width;
    const int64_t *places, *starts, *maps;
    const int32_t *descriptors;
    const uint32_t *expected; /* NULL: in the 4 bytes behind each row */
    uint8_t *done;
    int64_t rows;
    int check;
    enum store store;
} batch;

/* Read a row that is not in the file cache, or of a file that is not mapped. */
static int read_row(const batch *b, int64_t i, char *to, uint32_t *behind, size_t tail)
{
    size_t got = 0;
    while (got < b->width + tail) {
        struct iovec parts[2] = {{to + got, b->width - got}, {behind, tail}};
        if (got > b->width) {
            parts[0] = (struct iovec){NULL, 0};
            parts[1] = (struct iovec){(char *)behind + (got - b->width), tail + b->width - got};
        } else if (got == b->width)
            parts[0].iov_len = 0;
        ssize_t more = preadv(b->descriptors[i], parts, 2, b->starts[i] + (int64_t)got);
        if (more <= 0)
            return 0;
        got += (size_t)more;
    }
    return 1;
}

static int copy_row(const batch *b, int64_t i)
{
    if (b->starts[i] < 0 || b->descriptors[i] < 0)
        return 0;
    char *to = b->out + (size_t)b->places[i] * b->width;
    size_t tail = b->check && b->expected == NULL ? CHECKSUM : 0;
    uint32_t want = b->check && b->expected != NULL ? b->expected[i] : 0, found = want;
    char last;
    struct iovec one = {&last, 1};
    int64_t end = b->starts[i] + (int64_t)(b->width + tail) - 1;
    /* Waiting for the disk is cheaper in one call than page by page. A file system that cannot
       tell, most of them over a network, is read by calls as well. */
    if (b->maps[i] && preadv2(b->descriptors[i], &one, 1, end, RWF_NOWAIT) == 1) {
        const char *from = (const char *)b->maps[i] + b->starts[i];
        if (tail)
            memcpy(&want, from + b->width, CHECKSUM);
        if (b->check)
            found = copy_sum(to, from, b->width, b->store);
        else if (b->store == STREAMED)
            stream(to, from, b->width);
        else
            memcpy(to, from, b->width);
    } else {
        if (!read_row(b, i, to, &want, tail))
            return 0;
        if (b->check)
            found = copy_sum(NULL, to, b->width, NONE);
    }
    return !b->check || found == want;
}

static void copy_rows_left(const batch *b, _Atomic int64_t *next)
{
    sigjmp_buf here;
    volatile int64_t i;
    /* Comes back with 1 from a row that is gone; the next one may be there. */
    if (sigsetjmp(here, 0) == 0)
        escape = &here;
    while ((i = atomic_fetch_add(next, 1)) < b->rows)
        b->done[i] = (uint8_t)copy_row(b, i);
    escape = NULL;
    _mm_sfence();
}

static PyObject *py_copy_rows(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer out, places, starts, maps, descriptors, expected = {0}, done, next;
    PyObject *sums;
    Py_ssize_t width;
    int check, streamed;
    if (!PyArg_ParseTuple(args, "w*ny*y*y*y*Oppw*w*", &out, &width, &places, &starts, &maps,
                          &descriptors, &sums, &check, &streamed, &done, &next))
        return NULL;
    Py_ssize_t rows = done.len;
    int has_sums = sums != Py_None && PyObject_GetBuffer(sums, &expected, PyBUF_SIMPLE) == 0;
    int fits = width > 0 && places.len == 8 * rows && starts.len == 8 * rows &&
               maps.len == 8 * rows && descriptors.len == 4 * rows && next.len == 8 &&
               (!has_sums || expected.len == 4 * rows) && !PyErr_Occurred();
    for (Py_ssize_t i = 0; fits && i < rows; i++)
        fits = ((const int64_t *)places.buf)[i] >= 0 &&
               ((const int64_t *)places.buf)[i] < out.len / width;
    if (fits) {
        int aligned = (uintptr_t)out.buf % 64 == 0 && width % 64 == 0;
        batch b = {
            .out = out.buf,
            .width = (size_t)width,
            .places = places.buf,
            .starts = starts.buf,
            .maps = maps.buf,
            .descriptors = descriptors.buf,
            .expected = has_sums ? expected.buf : NULL,
            .done = done.buf,
            .rows = rows,
            .check = check,
            .store = streamed && aligned ? STREAMED : CACHED,
        };
        catch_bus_errors();
        Py_BEGIN_ALLOW_THREADS;
        copy_rows_left(&b, next.buf);
        Py_END_ALLOW_THREADS;
    } else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "the arrays do not fit each other");
    Py_buffer *all[] = {&out, &places, &starts, &maps, &descriptors, &done, &next};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        PyBuffer_Release(all[i]);
    if (has_sums)
        PyBuffer_Release(&expected);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_crc32c(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer data;
    int wide;
    if (!PyArg_ParseTuple(args, "y*p", &data, &wide))
        return NULL;
    uint32_t sum = wide ? copy_sum(NULL, data.buf, (size_t)data.len, NONE)
                        : base_copy_sum(NULL, data.buf, (size_t)data.len, NONE);
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(sum);
}

static PyObject *py_map_file(PyObject *self, PyObject *args)
{
    (void)self;
    int descriptor;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "in", &descriptor, &size))
        return NULL;
    void *map = size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, descriptor, 0) : MAP_FAILED;
    return PyLong_FromLongLong(map == MAP_FAILED ? 0 : (int64_t)map);
}

static PyObject *py_unmap(PyObject *self, PyObject *args)
{
    (void)self;
    long long map;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "Ln", &map, &size))
        return NULL;
    munmap((void *)map, (size_t)size);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"copy_rows", py_copy_rows, METH_VARARGS,
     "Copy rows that no thread has taken yet; any number of threads may call it for one batch."},
    {"crc32c", py_crc32c, METH_VARARGS, "CRC32C of a buffer; wide: as the processor can do best."},
    {"map_file", py_map_file, METH_VARARGS, "Address of a mapped file, 0 if it cannot be mapped."},
    {"unmap", py_unmap, METH_VARARGS, "Let go of a mapped file."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_rows", "Rows out of mapped files, see _rows.c.", -1, methods,
    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rows(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("pclmul")) {
        PyErr_SetString(PyExc_ImportError, "this processor has no SSE4.2 and PCLMULQDQ");
        return NULL;
    }
    int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq");
    copy_sum = wide ? wide_copy_sum : base_copy_sum;
    stream = wide ? wide_stream : base_stream;
    return PyModule_Create(&module);
}
