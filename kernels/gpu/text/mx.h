// MXFP4 and MXFP8: blocks of 32 with a power of two as scale, stored as its biased exponent (E8M0).

// peak / DIVISOR where that is below 2**-126, in whole numbers of 2**-149, to nearest even.
template <uint DIVISOR> inline uint tiny_ratio(uint peak) {
  uint exponent = peak >> 23, n = peak & 0x7fffffu;
  if (exponent > 0u) n = (n | SMALLEST_NORMAL) << (exponent - 1u);
  uint ratio = n / DIVISOR, rest = 2u * (n - ratio * DIVISOR);
  return ratio + uint(rest > DIVISOR || (rest == DIVISOR && (ratio & 1u)));
}

template <int BITS, bool CEIL> inline uint e8m0_scale(uint peak) {  // the byte for a block with this largest magnitude
  if (!CEIL) {
    uint emax = BITS == 4 ? 2u : 8u, exponent = peak >> 23;
    return peak == 0u ? 127u : exponent > emax ? exponent - emax : 0u;
  }
  if (peak < (BITS == 4 ? 0x01c00000u : 0x04e00000u)) {  // 6 or 448 times 2**-126
    uint ratio = tiny_ratio<BITS == 4 ? 6u : 448u>(peak);
    return ratio == 0u ? 127u : uint(ratio > 0x400000u);
  }
  uint ratio = as_type<uint>(as_type<float>(peak) / (BITS == 4 ? 6.0f : 448.0f));
  return (ratio >> 23) + uint((ratio & 0x7fffffu) != 0u);
}

// Which of the neighbours of `scale` misses a block of 32 by least, as kernels/search.py has it: a weight is a whole number
// of 2**-11 of the power of two above the largest, and the multiplier of each scale is its ratio to that, made odd. A scale
// that is not tried there, the largest weight being beyond 1023 in 1/64 of it, would cost more than the next: smaller steps
// make up for 16 * 16 a weight.
template <int KIND, int N> inline uint e8m0_chosen(Words<N> block, uint peak, uint scale) {
  if (peak - (67u << 23) >= (120u << 23)) return scale;  // 2**-60 to 2**60
  int power = int(peak >> 23);
  float up = as_type<float>(uint(264 - power) << 23), best = 0x1p120f, weight = 4.0f;
  uint found = scale;
  for (int step = 1; step >= -1; --step) {
    int multiplier = (1 << (power - int(scale) - step + 8)) | 1, sum = 0;
    UNROLL for (int k = 0; k < 32; ++k) {
      int whole = int(nearest(smaller(as_type<float>(magnitude_bits<KIND>(block, k)) * up, 2047.0f)));
      int missed = error_of(whole, multiplier);
      sum += missed * missed;
    }
    float total = weight * float(sum);
    found = total < best ? uint(int(scale) + step) : found;
    best = smaller(total, best);
    weight = weight * 0.25f;
  }
  return found;
}

inline float e8m0_quotient(uint magnitude, uint scale) {  // magnitude / 2**(scale - 127)
  if (scale < 27u) return scaled_up(magnitude) * as_type<float>((190u - scale) << 23);
  if (scale > 227u) return as_type<float>(magnitude) * 0x1p-64f * as_type<float>((318u - scale) << 23);
  return as_type<float>(magnitude) * as_type<float>((254u - scale) << 23);
}

inline uint e8m0_product_bits(float value, uint scale) {  // value * 2**(scale - 127), value >= 0
  if (scale == 255u) return 0x7fc00000u;
  if (scale < 27u) return scaled_down_bits(value * as_type<float>((scale + 64u) << 23));
  return as_type<uint>(value * as_type<float>(scale << 23));
}

template <int BITS> inline uint mx_code(uint magnitude, uint scale) {
  float q = e8m0_quotient(magnitude, scale);
  return BITS == 4 ? e2m1_encode(q) : e4m3_encode(q);
}

template <int KIND, int BITS> inline uint mx_decoded(uint code, uint scale) {
  uint sign = (code >> (BITS - 1)) & 1u, magnitude = code & ((1u << (BITS - 1)) - 1u);
  float value = BITS == 4 ? e2m1_decode(magnitude) : e4m3_decode(magnitude);
  uint bits = e8m0_product_bits(value, scale);
  if (BITS == 8 && magnitude == 0x7fu) bits = 0x7fc00000u;
  return narrow_bits<KIND>(bits | (sign << 31));
}
