// Reads tasks from a file, runs them through the library and writes the bytes: so that another processor's build can be
// tested under an emulator. All numbers are little-endian; see test_cpu_neon.py for the order.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/cpu/tasks.h"

extern "C" int32_t nvfp4_encode(int32_t, EncodeTask*);
extern "C" int32_t nvfp4_decode(int32_t, const DecodeTask*);
extern "C" int32_t nvfp4_census(int32_t, CensusTask*);

struct Header {
    int64_t rows, width;
    int32_t dtype, itemsize, kind, bits, block, min_scale, zero_scale, floor_exponent;
    float tensor_scale;
    int32_t method, importance, moments;  // whether they follow the weight
};

struct Known {
    void *importance, *moments, *scales;
};

static bool has_biases(const Header& h) { return h.kind == AFFINE || h.kind == SYMMETRIC; }

static int64_t scale_size(const Header& h) { return has_biases(h) ? h.itemsize : h.kind == TILED ? 4 : 1; }

static void write(const void* from, size_t size, FILE* out) { fwrite(from, 1, size, out); }

static void run(const Header& h, const void* weight, const Known& known, FILE* out) {
    const int64_t count = h.rows * h.width, blocks = count / h.block;
    const size_t code_bytes = (size_t)(count * h.bits / 8), scale_bytes = (size_t)(blocks * scale_size(h));
    uint8_t* codes = (uint8_t*)calloc(1, code_bytes);
    uint8_t *scales = (uint8_t*)calloc(1, scale_bytes), *biases = (uint8_t*)calloc(1, scale_bytes);
    if (known.scales) memcpy(scales, known.scales, scale_bytes);
    double *squares = (double*)calloc((size_t)h.rows, 8), *error = (double*)calloc((size_t)h.rows, 8);
    float* block_error = (float*)calloc((size_t)blocks, 4);
    uint64_t scale_counts[256] = {}, *counts = (uint64_t*)calloc(32768, 8);
    void* decoded = calloc((size_t)count, (size_t)h.itemsize);
    Measure measure = {squares, error, block_error, scale_counts, 0, 0};
    const Layout layout = {h.kind, h.bits, h.block};
    EncodeTask encode = {weight,   codes,   scales,  biases,         &measure,    (const uint16_t*)known.importance,
                         (const int16_t*)known.moments, h.rows, h.width, layout, h.dtype, h.tensor_scale,
                         h.min_scale, h.zero_scale, h.floor_exponent, h.method};
    nvfp4_encode(0, &encode);
    DecodeTask decode = {codes, scales, biases, decoded, count, layout, h.dtype, h.dtype, h.tensor_scale};
    nvfp4_decode(0, &decode);
    CensusTask census = {weight, counts, count, h.dtype, 0, 0, 0};
    nvfp4_census(0, &census);
    write(codes, code_bytes, out);
    write(scales, scale_bytes, out);
    if (has_biases(h)) write(biases, scale_bytes, out);
    write(decoded, (size_t)(count * h.itemsize), out);
    write(squares, (size_t)h.rows * 8, out);
    write(error, (size_t)h.rows * 8, out);
    write(block_error, (size_t)blocks * 4, out);
    write(&measure.max_error, 8, out);
    write(&measure.vanished, 8, out);
    write(counts, 32768 * 8, out);
    void* made[] = {codes, scales, biases, squares, error, block_error, counts, decoded};
    for (void* one : made) free(one);
}

// The next bytes of a file, or null.
static void* take(size_t size, FILE* in) {
    void* taken = size ? malloc(size) : nullptr;
    if (size && fread(taken, 1, size, in) != size) exit(1);
    return taken;
}

int feed_forward(FILE* in, FILE* out);

int main(int count, char** names) {
    FILE *in = fopen(names[1], "rb"), *out = fopen(names[2], "wb");
    if (count > 3) return feed_forward(in, out);
    Header header;
    while (fread(&header, sizeof header, 1, in) == 1) {
        const size_t width = (size_t)header.width;
        void* weight = take((size_t)header.rows * width * (size_t)header.itemsize, in);
        void* importance = take(header.importance ? 2 * width : 0, in);
        void* moments = take(header.moments ? width / 16 * 272 : 0, in);
        const size_t blocks = (size_t)header.rows * width / (size_t)header.block;
        void* scales = take(header.kind == TILED ? 4 * blocks : 0, in);
        run(header, weight, {importance, moments, scales}, out);
        void* taken[] = {weight, importance, moments, scales};
        for (void* one : taken) free(one);
    }
    return fclose(out);
}
