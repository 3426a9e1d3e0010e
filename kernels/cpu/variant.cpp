// All functions for one instruction set: compiled once per variant, with -DVARIANT=<name> and that set's flags.
#include "census.h"
#include "compare.h"
#include "encode.h"
#include "factor.h"
#include "feedback.h"

namespace VARIANT {

static int encode(EncodeTask* task) {
    switch (task->dtype) {
        case BFLOAT16: return encode_dtype<BFloat16>(*task);
        case FLOAT16: return encode_dtype<Float16>(*task);
        default: return encode_dtype<Float32>(*task);
    }
}

static int decode(const DecodeTask* task) {
    switch (task->dtype) {
        case BFLOAT16: return decode_dtype<BFloat16>(*task);
        case FLOAT16: return decode_dtype<Float16>(*task);
        default: return decode_dtype<Float32>(*task);
    }
}

static int compare(CompareTask* task) {
    switch (task->dtype) {
        case BFLOAT16: task->squared_error = compare_dtype<BFloat16>(*task); break;
        case FLOAT16: task->squared_error = compare_dtype<Float16>(*task); break;
        default: task->squared_error = compare_dtype<Float32>(*task);
    }
    return 0;
}

static int feedback(FeedbackTask* task) {
    switch (task->dtype) {
        case BFLOAT16: return feedback_dtype<BFloat16>(*task);
        case FLOAT16: return feedback_dtype<Float16>(*task);
        default: return feedback_dtype<Float32>(*task);
    }
}

#define TEXT(x) #x
#define NAME(x) TEXT(x)
extern const Kernels kernels;
const Kernels kernels = {NAME(VARIANT), encode, decode, compare, census, factor, feedback, max_abs};

}  // namespace VARIANT
