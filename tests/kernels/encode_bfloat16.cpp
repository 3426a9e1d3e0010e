// The encoder of bfloat16 alone, not measuring: quick to compile, so that mistakes can be planted in its headers.
#include "encode.h"

using namespace VARIANT;

template <class C> static int encode(EncodeTask& task) {
    Columns columns;
    if (!lay_out(task, columns)) return -1;
    encode_rows<BFloat16, C, false>(task, columns);
    free(columns.memory);
    return 0;
}

extern "C" __attribute__((visibility("default"))) int encode_bfloat16(EncodeTask* task) {
    switch (task->layout.kind) {
        case NVFP4: return encode<Nvfp4>(*task);
        case MXFP4: return encode<Mxfp4>(*task);
        default: return task->layout.bits == 4 ? encode<Affine<4, true>>(*task) : encode<Affine<8, true>>(*task);
    }
}
