// The encoder of bfloat16 in one format, not measuring: quick to compile, so that mistakes can be planted in its headers.
#include "encode.h"

using namespace VARIANT;

extern "C" __attribute__((visibility("default"))) int encode_bfloat16(EncodeTask* task) {
    Columns columns;
    if (!lay_out(*task, columns)) return -1;
    encode_rows<BFloat16, CODEC, false>(*task, columns);
    free(columns.memory);
    return 0;
}
