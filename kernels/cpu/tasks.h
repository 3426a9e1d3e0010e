// What crosses the C boundary: plain structures, mirrored field by field in library.py.
#pragma once

#include <stdint.h>

enum Dtype : int32_t { BFLOAT16 = 0, FLOAT16 = 1, FLOAT32 = 2 };
enum Kind : int32_t { NVFP4 = 0, MXFP4 = 1, MXFP8 = 2, AFFINE = 3, TILED = 4, SYMMETRIC = 5 };
enum Method : int32_t { MAX = 0, FOUR_SIX = 1, SEARCH = 2 };

struct Layout {
    int32_t kind;
    int32_t bits;   // of a code: 4 or 8
    int32_t block;  // codes per scale
};

struct Measure {
    double* row_squares;     // [rows]
    double* row_error;       // [rows]
    float* block_error;      // [rows * width / block], or null
    uint64_t* scale_counts;  // [256], added to
    double max_error;
    int64_t vanished;
};

struct EncodeTask {
    const void* weight;  // [rows, width] of dtype
    uint8_t* codes;      // [rows, width * bits / 8]
    void* scales;        // [rows, width / block]: uint8, or dtype for affine; TILED: float32, given
    void* biases;        // as scales, affine only
    Measure* measure;    // or null
    const uint16_t* importance;  // [width], or null: NVFP4 only, as moments
    const int16_t* moments;      // [width / 16, 136], or null; with them importance is not used
    int64_t rows;
    int64_t width;
    Layout layout;
    int32_t dtype;
    float tensor_scale;
    int32_t min_scale;
    int32_t zero_scale;
    int32_t floor_exponent;  // 1: the rule of OCP MX 1.0, 0: the smallest scale that does not saturate
    int32_t method;          // how scales are chosen: FOUR_SIX for NVFP4 only, SEARCH for all but MXFP8
};

struct DecodeTask {
    const uint8_t* codes;
    const void* scales;
    const void* biases;
    void* weight;         // [count] of dtype
    int64_t count;        // elements
    Layout layout;
    int32_t dtype;        // of weight
    int32_t scale_dtype;  // of affine scales and biases
    float tensor_scale;
};

struct CompareTask {
    DecodeTask coded;    // its weight and dtype are not used
    const void* weight;  // [coded.count] of dtype: what it stands for
    int32_t dtype;
    double squared_error;
};

struct CensusTask {
    const void* weight;  // [count] of dtype
    uint64_t* counts;    // [32768], added to
    int64_t count;
    int32_t dtype;
    double max_abs;
    double sum2;
    double sum4;
};

struct FactorTask {
    double* matrix;  // [size, size]: its upper triangle, done from column `stop` on
    double* panel;   // [panel, size], shared by the calls of one panel of columns
    double* corner;  // [panel, panel], the same
    int64_t size;    // a multiple of 16, as are all of these
    int64_t start;   // of the panel's columns, at most 128
    int64_t stop;
    int64_t first;   // of the rows to do; none: those of the panel itself, before all others
    int64_t last;
    int64_t failed;  // the column that has no positive square, or -1
};

struct FeedbackTask {       // NVFP4
    const void* weight;     // [rows, width] of dtype
    const uint8_t* scales;  // [rows, width / 16]
    const int32_t* order;   // [width]
    const float* feedback;  // [width, width]
    const float* coupling;  // [width, width]
    uint8_t* codes;         // [rows, width / 2]
    Measure* measure;       // or null
    int64_t rows;
    int64_t width;
    int32_t dtype;
    float tensor_scale;
    int32_t sweeps;
};

// One instruction set's functions. They return 0, or -1 when memory ran out.
struct Kernels {
    const char* name;
    int (*encode)(EncodeTask*);
    int (*decode)(const DecodeTask*);
    int (*compare)(CompareTask*);
    int (*census)(CensusTask*);
    int (*factor)(FactorTask*);
    int (*feedback)(FeedbackTask*);
    float (*max_abs)(const void* weight, int64_t count, int32_t dtype);
};
