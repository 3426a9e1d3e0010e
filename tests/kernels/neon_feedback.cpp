// The part of the driver that factors a matrix and feeds errors forward; see test_cpu_neon.py for the order of numbers.
#include <stdio.h>
#include <stdlib.h>

#include "../../kernels/cpu/tasks.h"

extern "C" int32_t nvfp4_factor(int32_t, FactorTask*);
extern "C" int32_t nvfp4_feedback(int32_t, FeedbackTask*);

namespace {

struct Header {
    int64_t rows, width;
    int32_t dtype, itemsize;
    float tensor_scale;
    int32_t sweeps;
};

void* read(FILE* in, int64_t size) {
    void* made = calloc(1, (size_t)size);
    if (fread(made, 1, (size_t)size, in) != (size_t)size) exit(1);
    return made;
}

void factor(double* matrix, int64_t size) {
    const int64_t panel = 128;
    double *rows = (double*)calloc((size_t)(panel * size), 8), *corner = (double*)calloc((size_t)(panel * panel), 8);
    for (int64_t stop = size; stop > 0; stop -= panel) {
        const int64_t start = stop > panel ? stop - panel : 0, middle = start / 32 * 16;
        const int64_t parts[][2] = {{0, 0}, {0, middle}, {middle, start}};
        for (const auto& part : parts) {
            FactorTask task = {matrix, rows, corner, size, start, stop, part[0], part[1], -1};
            if (&part == parts || part[0] < part[1]) nvfp4_factor(0, &task);
        }
    }
    free(rows);
    free(corner);
}

}  // namespace

int feed_forward(FILE* in, FILE* out) {
    Header h;
    while (fread(&h, sizeof h, 1, in) == 1) {
        const int64_t count = h.rows * h.width, square = h.width * h.width;
        double* matrix = (double*)read(in, 8 * square);
        void* weight = read(in, count * h.itemsize);
        uint8_t* scales = (uint8_t*)read(in, count / 16);
        int32_t* order = (int32_t*)read(in, 4 * h.width);
        float* feedback = (float*)read(in, 4 * square);
        float* coupling = (float*)read(in, 4 * square);
        uint8_t* codes = (uint8_t*)calloc(1, (size_t)count / 2);
        double *squares = (double*)calloc((size_t)h.rows, 8), *error = (double*)calloc((size_t)h.rows, 8);
        uint64_t counts[256] = {};
        Measure measure = {squares, error, nullptr, counts, 0, 0};
        FeedbackTask task = {weight, scales, order, feedback, coupling, codes, &measure, h.rows, h.width, h.dtype,
                             h.tensor_scale, h.sweeps};
        factor(matrix, h.width);
        nvfp4_feedback(0, &task);
        fwrite(matrix, 8, (size_t)square, out);
        fwrite(codes, 1, (size_t)count / 2, out);
        fwrite(error, 8, (size_t)h.rows, out);
        fwrite(&measure.max_error, 8, 1, out);
        fwrite(&measure.vanished, 8, 1, out);
        void* made[] = {matrix, weight, scales, order, feedback, coupling, codes, squares, error};
        for (void* one : made) free(one);
    }
    return fclose(out);
}
