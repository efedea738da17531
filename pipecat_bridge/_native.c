/* The two loops on the frames' way that are slow in Python: the FIR resampler and WebSocket masks.
 *
 * Each has a twin in Python that gives the same to the bit, and says what is computed and why:
 * audio/polyphase.py and wire/websocket.py. Lengths are checked here, so that no call can reach
 * beyond a buffer; taps must be finite. Nothing is kept between two calls.
 */

#define PY_SSIZE_T_CLEAN
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030B0000 /* one build for Python 3.11 and all that follow */
#endif
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "samples are little-endian here and on the wire: use the twins in Python"
#endif
#if __FLT_EVAL_METHOD__ != 0
#error "doubles are computed with more than 53 bits: the twins in Python would give other samples"
#endif

enum {
    LANES = 4,      /* doubles that are added up side by side */
    BATCH = 512,    /* samples of input that are computed together */
    WIDEST = 1024,  /* taps for one output; 192 to 8 kHz has 864 */
    HIGHEST = 1280, /* `up` and `down`; fir.py allows no more */
};

typedef double lanes
    __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

/* Where the C library can choose at run time, processors with AVX2 run their own version. To GCC
 * "arch=haswell" is that one processor, and none that followed. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define FASTEST __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define FASTEST __attribute__((target_clones("avx2", "default")))
#endif
#else
#define FASTEST
#endif

typedef struct {
    const double *taps; /* `up` rows of `width`, the oldest sample's first */
    Py_ssize_t width, up, down;
} Filter;

/* The sum of `width` products, a multiple of LANES. All sums are exact (filters.py), so their
 * order does not matter. */
static inline __attribute__((always_inline)) double dot(
    const double *taps, const double *samples, Py_ssize_t width)
{
    lanes even = {0}, odd = {0};
    Py_ssize_t at = 0;
    for (; at + 2 * LANES <= width; at += 2 * LANES) {
        even += *(const lanes *)(taps + at) * *(const lanes *)(samples + at);
        odd += *(const lanes *)(taps + at + LANES) * *(const lanes *)(samples + at + LANES);
    }
    if (at < width)
        even += *(const lanes *)(taps + at) * *(const lanes *)(samples + at);
    even += odd;
    return (even[0] + even[1]) + (even[2] + even[3]);
}

static inline __attribute__((always_inline)) int16_t to_sample(double sum)
{
    /* Beyond 2**52 doubles have no fraction: the addition rounds, half to even as NumPy does. */
    const double whole = 6755399441055744.0;
    sum = (sum + whole) - whole;
    return sum > 32767.0 ? 32767 : sum < -32768.0 ? -32768 : (int16_t)sum;
}

/* Resample `count` samples from `in` to `out`. `history` has the samples before them, and is
 * updated. `phase` is how many samples of a period came before. */
FASTEST static void resample(const Filter *filter, char *history, const char *in,
                             Py_ssize_t count, Py_ssize_t phase, char *out)
{
    double scratch[WIDEST + BATCH]; /* the inputs of a batch, after those that its filter reaches */
    const Py_ssize_t up = filter->up, down = filter->down, width = filter->width;
    const Py_ssize_t before = width - 1, whole = down / up, rest = down % up;
    /* Output n needs the inputs up to n * down / up, and the row of the remainder. */
    const Py_ssize_t first = (phase * up + down - 1) / down; /* at most HIGHEST squared */
    Py_ssize_t newest = first * down / up - phase, row = first * down % up;
    int16_t sample;

    for (Py_ssize_t at = 0; at < before; at++) {
        memcpy(&sample, history + 2 * at, 2);
        scratch[at] = sample;
    }
    for (Py_ssize_t begin = 0; begin < count; begin += BATCH) {
        const Py_ssize_t stop = count - begin < BATCH ? count : begin + BATCH;
        for (Py_ssize_t at = begin; at < stop; at++) {
            memcpy(&sample, in + 2 * at, 2);
            scratch[before + at - begin] = sample;
        }
        while (newest < stop) {
            sample = to_sample(dot(filter->taps + row * width, scratch + newest - begin, width));
            memcpy(out, &sample, 2);
            out += 2;
            newest += whole;
            row += rest;
            if (row >= up) {
                row -= up;
                newest++;
            }
        }
        memmove(scratch, scratch + stop - begin, before * sizeof(double));
    }
    for (Py_ssize_t at = 0; at < before; at++) {
        sample = (int16_t)scratch[at];
        memcpy(history + 2 * at, &sample, 2);
    }
}

static PyObject *fir(PyObject *self, PyObject *args)
{
    Py_buffer history, pcm, taps;
    Py_ssize_t up, down, phase;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "w*y*y*nnn", &history, &pcm, &taps, &up, &down, &phase))
        return NULL;
    const Py_ssize_t count = pcm.len / 2, before = history.len / 2, width = before + 1;
    if (up < 1 || up > HIGHEST || down < 1 || down > HIGHEST || phase < 0 || phase >= down ||
        pcm.itemsize != 1 || pcm.len % 2 || history.len % 2 || width % LANES || width > WIDEST ||
        taps.len != up * width * (Py_ssize_t)sizeof(double) ||
        (uintptr_t)taps.buf % sizeof(double) || count > INT64_MAX / HIGHEST / 4) {
        PyErr_SetString(PyExc_ValueError, "fir: lengths and numbers that do not go together");
        goto done;
    }
    const int64_t first = ((int64_t)phase * up + down - 1) / down;
    const int64_t end = ((int64_t)(phase + count) * up + down - 1) / down;
    if (end - first > PY_SSIZE_T_MAX / 2) {
        PyErr_NoMemory();
        goto done;
    }
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(end - first) * 2);
    if (result == NULL)
        goto done;
    const Filter filter = {taps.buf, width, up, down};
    resample(&filter, history.buf, pcm.buf, count, phase, PyBytes_AsString(result));
done:
    PyBuffer_Release(&taps);
    PyBuffer_Release(&pcm);
    PyBuffer_Release(&history);
    return result;
}

static PyObject *mask(PyObject *self, PyObject *args)
{
    Py_buffer payload, key;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "y*y*", &payload, &key))
        return NULL;
    if (key.len != 4) {
        PyErr_SetString(PyExc_ValueError, "mask: expected a key of 4 bytes");
        goto done;
    }
    result = PyBytes_FromStringAndSize(NULL, payload.len);
    if (result == NULL)
        goto done;
    const char *in = payload.buf, *four = key.buf;
    char *out = PyBytes_AsString(result);
    uint64_t pattern, word;
    memcpy(&pattern, four, 4);
    memcpy((char *)&pattern + 4, four, 4);
    Py_ssize_t at = 0;
    for (; at + 8 <= payload.len; at += 8) {
        memcpy(&word, in + at, 8);
        word ^= pattern;
        memcpy(out + at, &word, 8);
    }
    for (; at < payload.len; at++)
        out[at] = in[at] ^ four[at % 4];
done:
    PyBuffer_Release(&key);
    PyBuffer_Release(&payload);
    return result;
}

static PyMethodDef functions[] = {
    {"fir", fir, METH_VARARGS,
     "fir(history, pcm, taps, up, down, phase): the next samples of a resampled stream."},
    {"mask", mask, METH_VARARGS, "mask(payload, key): the payload, masked or unmasked."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", NULL, 0, functions,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
