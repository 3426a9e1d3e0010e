// Compares codecs.h's quotient with division for all 2**23 mantissas of the divisor, and dividends around midpoint x
// divisor: exponents only shift both sides. Prints how many results lie on another side of the midpoint.
#include <stdio.h>
#include <stdlib.h>

#include "../../kernels/cpu/codecs.h"

using namespace VARIANT;

static uint64_t differences(float midpoint) {
    Integers found = {};
    const Words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (uint32_t mantissa = 0; mantissa < 1u << 23; mantissa += 16) {
        const Floats divisor = floats(0x3F800000u + mantissa + lane);
        const Words near = bits(divisor * midpoint);
        for (uint32_t offset = 0; offset < 7; offset++) {
            const Floats x = floats(near + offset - 3u);
            const Floats right = x / divisor, ours = quotient<false>(x, divisor, 1.0f / divisor);
            found -= ((right < midpoint) != (ours < midpoint)) | ((right == midpoint) != (ours == midpoint));
        }
    }
    uint64_t total = 0;
    for (int i = 0; i < LANES; i++) total += (uint64_t)found[i];
    return total;
}

// The constants that scales are divided by: every dividend of one binade, to the bit.
static uint64_t constant_differences(float divisor) {
    uint64_t total = 0;
    const Words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (uint32_t mantissa = 0; mantissa < 1u << 23; mantissa += 16) {
        const Floats x = floats(0x3F800000u + mantissa + lane);
        total += any(quotient<false>(x, Floats{} + divisor, Floats{} + 1.0f / divisor) != x / divisor);
    }
    return total;
}

int main(int count, char** numbers) {
    uint64_t total = 0;
    for (int i = 1; i < count; i++) total += differences((float)atof(numbers[i]));
    const float constants[] = {6.0f, 15.0f, 255.0f};
    for (float divisor : constants) total += constant_differences(divisor);
    printf("%llu\n", (unsigned long long)total);
}
