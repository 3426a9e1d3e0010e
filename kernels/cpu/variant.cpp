// All functions for one instruction set: compiled once per variant, with -DVARIANT=<name> and that set's flags.
#include "census.h"
#include "decode.h"
#include "encode.h"

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

#define TEXT(x) #x
#define NAME(x) TEXT(x)
extern const Kernels kernels;
const Kernels kernels = {NAME(VARIANT), encode, decode, census, max_abs};

}  // namespace VARIANT
