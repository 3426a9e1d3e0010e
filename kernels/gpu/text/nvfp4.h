// NVFP4 blocks of 16: an E4M3 scale each and, with THREE tiers, one float32 multiplier g for the tensor.
//
// Codes are defined by w / (s * g) in float32. The quick way multiplies by the reciprocal in two parts,
// q = fma(w, high, w * low), which takes the same side of every rounding boundary as the division for all
// divisors but those whose mantissa is all ones (tests/kernels/test_gpu_division.py walks them). Blocks
// outside the quick way's range are encoded by `careful`, with true division and no subnormal on the way.

struct Divisor { float value; float high; float low; bool quick; };

inline bool in_quick_range(uint bits) { return bits - (67u << 23) < (120u << 23); }  // 2**-60 to 2**60

inline Divisor divisor(float value) {
  Divisor d;
  uint bits = as_type<uint>(value);
  d.value = value;
  d.high = reciprocal(value);
  d.low = fused(-value, d.high, 1.0f) * d.high;
  d.quick = in_quick_range(bits) && (bits & 0x7fffffu) != 0x7fffffu;
  return d;
}

inline float quotient(float x, Divisor d) { return fused(x, d.high, x * d.low); }

inline float sixth(float x) { return fused(x, 0x1.555556p-3f, x * -0x1.555556p-28f); }  // x / 6 for every float32

struct Scale { uint code; Divisor by; };

template <bool THREE, int MIN_SCALE> inline Scale quick_scale(uint peak, Divisor g) {
  Scale s;
  float wanted = sixth(as_type<float>(peak));
  if (THREE) wanted = quotient(wanted, g);
  s.code = e4m3_encode(wanted);
  if (MIN_SCALE > 0) s.code = larger(s.code, uint(MIN_SCALE));
  float value = e4m3_decode(s.code);
  s.by = divisor(THREE ? value * g.value : value);
  bool zero = !THREE && MIN_SCALE == 0 && s.code == 0u;  // everything under a zero scale is a zero
  s.by.high = zero ? 0.0f : s.by.high;
  s.by.low = zero ? 0.0f : s.by.low;
  s.by.quick = (zero || s.by.quick) && in_quick_range(peak) && (!THREE || g.quick);
  if (MIN_SCALE >= 8) s.by.quick = s.by.quick && wanted < 464.0f;  // so that no weight exceeds 6.4 scales
  return s;
}

// peak / 6 * 2**64, rounded as float32 without the scaling: below 6 * 2**-126 in whole numbers of 2**-149.
inline float careful_sixth(uint peak) {
  if (peak >= 0x01c00000u) return scaled_up(as_type<uint>(as_type<float>(peak) / 6.0f));
  uint exponent = peak >> 23, n = peak & 0x7fffffu;
  if (exponent > 0u) n = (n | SMALLEST_NORMAL) << (exponent - 1u);
  uint sixths = n / 6u, rest = n - sixths * 6u;
  sixths += uint(rest > 3u || (rest == 3u && (sixths & 1u)));
  return float(sixths) * 0x1p-85f;
}

template <bool THREE, int MIN_SCALE, int ZERO_SCALE> inline uint careful_scale(uint peak, float g) {
  if (peak == 0u) return uint(ZERO_SCALE);
  float wanted = as_type<float>(peak) / 6.0f;
  if (THREE) {
    bool large = in_quick_range(peak) || peak > (187u << 23);
    wanted = large ? wanted / g : careful_sixth(peak) / scaled_up(as_type<uint>(g));
  }
  return larger(e4m3_encode(wanted), uint(MIN_SCALE));
}

// s * g * 2**64, rounded as float32 without the scaling.
inline float careful_factor(uint code, float g) {
  float up = e4m3_decode(code), by = scaled_up(as_type<uint>(g));
  float factor = up * by;
  return factor < 0x1p-62f ? fused(up, by, 0x1p-62f) - 0x1p-62f : factor;
}

inline float careful_quotient(uint magnitude, uint code, float g) {
  if (code == 0u) return 0.0f;
  if (g < 1.0f && careful_factor(code, g) < 0x1p-50f) return scaled_up(magnitude) / careful_factor(code, g);
  return as_type<float>(magnitude) / (e4m3_decode(code) * g);
}

// One block encoded: 16 codes in two words, its scale byte, and what was lost.
struct Encoded { uint low; uint high; uint scale; Error error; };

template <int KIND, bool QUICK> inline float scaled(Words<KIND == 0 ? 16 : 8> block, int i, Scale s, float g) {
  uint bits = magnitude_bits<KIND>(block, i);
  return QUICK ? quotient(as_type<float>(bits), s.by) : careful_quotient(bits, s.code, g);
}

template <int KIND, bool QUICK, bool CLAMP, bool MEASURE, bool OUTLIERS>
inline Encoded encode_scaled(Words<KIND == 0 ? 16 : 8> block, Scale s, float g) {
  Encoded r;
  r.error = no_error();
  uint codes[2];
  UNROLL for (int half = 0; half < 2; ++half) {
    uint packed = 0u;
    UNROLL for (int k = 7; k >= 0; --k) {
      int i = 8 * half + k;
      float q = scaled<KIND, QUICK>(block, i, s, g);
      if (MEASURE) {
        E2m1 rounded = e2m1_round(QUICK && !CLAMP ? q : smaller(q, 6.0f));
        float magnitude = as_type<float>(magnitude_bits<KIND>(block, i));
        r.error = add_element(r.error, magnitude, fused(-rounded.value, s.by.value, magnitude), OUTLIERS);
        packed = packed * 16u + (k < 3 ? rounded.bits & 7u : rounded.bits);  // exponents above are shifted out
      } else {
        packed = packed * 16u + e2m1_encode(q);
      }
    }
    codes[half] = packed;
  }
  if (MEASURE && OUTLIERS) {
    uint low = (codes[0] | (codes[0] >> 1) | (codes[0] >> 2)) & 0x11111111u;
    uint high = (codes[1] | (codes[1] >> 1) | (codes[1] >> 2)) & 0x11111111u;
    uint kept = s.code == 0u ? 0u : ones(low + high * 2u);
    r.error.vanished = 16.0f - float(kept);
    if (holds_zero<KIND>(block)) r.error.vanished = r.error.vanished - float(zeros_of<KIND>(block));
  }
  r.low = codes[0] | eight_signs<KIND>(block, 0);
  r.high = codes[1] | eight_signs<KIND>(block, 8);
  r.scale = s.code;
  return r;
}

// The same with codes that are there.
template <int KIND, bool MEASURE, bool OUTLIERS>
inline Encoded encode_given(Words<KIND == 0 ? 16 : 8> block, Scale s, Codes codes) {
  Encoded r;
  r.error = no_error();
  if (MEASURE) {
    UNROLL for (int i = 0; i < 16; ++i) {
      uint code = (i < 8 ? codes.low : codes.high) >> (4 * (i & 7));
      float value = e2m1_decode(code), weight = value_of<KIND>(block, i);
      if (code & 8u) value = -value;
      r.error = add_element(r.error, absolute(weight), fused(-value, s.by.value, weight), OUTLIERS);
      if (OUTLIERS && (code & 7u) == 0u && magnitude_bits<KIND>(block, i) != 0u) r.error.vanished = r.error.vanished + 1.0f;
    }
  }
  r.low = codes.low;
  r.high = codes.high;
  r.scale = s.code;
  return r;
}

template <int KIND, bool THREE, int MIN_SCALE, int ZERO_SCALE, bool MEASURE, bool OUTLIERS>
inline Encoded encode_block(Words<KIND == 0 ? 16 : 8> block, Divisor g) {
  uint peak = peak_of<KIND>(block);
  Scale s = quick_scale<THREE, MIN_SCALE>(peak, g);
  Encoded r;
  if (s.by.quick) {
    r = encode_scaled<KIND, true, (MIN_SCALE < 8), MEASURE, OUTLIERS>(block, s, g.value);
  } else {
    s.code = careful_scale<THREE, MIN_SCALE, ZERO_SCALE>(peak, g.value);
    s.by.value = e4m3_decode(s.code) * g.value;
    r = encode_scaled<KIND, false, true, MEASURE, OUTLIERS>(block, s, g.value);
  }
  r.error.peak = as_type<float>(peak);
  return r;
}

// The same with the scale chosen by METHOD; `table` and `known` as in choice.h.
template <int METHOD, int KIND, bool THREE, int MIN_SCALE, int ZERO_SCALE, bool MEASURE, bool OUTLIERS, class T>
inline Encoded encode_chosen(Words<KIND == 0 ? 16 : 8> block, Divisor g, T table, Words<Known<METHOD>::words> known) {
  uint peak = peak_of<KIND>(block);
  bool usable = in_quick_range(peak), quick = usable && (!THREE || g.quick);
  float size = as_type<float>(peak), wanted = quick ? sixth(size) : size / 6.0f;
  if (THREE) wanted = quick ? quotient(wanted, g) : wanted / g.value;
  Scale s;
  s.code = usable ? larger(e4m3_encode(wanted), uint(MIN_SCALE)) : careful_scale<THREE, MIN_SCALE, ZERO_SCALE>(peak, g.value);
  if (usable && wanted <= 464.0f) {
    float quarter = METHOD != FOUR_SIX ? 0.0f : !THREE ? size * 0.25f : quick ? quotient(size * 0.25f, g) : size * 0.25f / g.value;
    s.code = chosen_code<KIND, METHOD, MIN_SCALE>(block, peak, known, table, s.code, e4m3_encode(quarter));
  }
  s.by = divisor(e4m3_decode(s.code) * g.value);
  Codes codes = {0u, 0u, false};
  if (METHOD == HESSIAN && usable) {
    float m = odd_multiplier(table[s.code + BEFORE_CODES], power_of(peak));
    if (top_of(peak) * m < GUIDED_MOST) codes = gone_over(wholes_of<KIND, true>(block, up_of(peak)), int(m * 256.0f), known);
  }
  Encoded r;
  if (codes.there)
    r = encode_given<KIND, MEASURE, OUTLIERS>(block, s, codes);
  else
    r = quick && s.by.quick ? encode_scaled<KIND, true, true, MEASURE, OUTLIERS>(block, s, g.value)
                            : encode_scaled<KIND, false, true, MEASURE, OUTLIERS>(block, s, g.value);
  r.error.peak = size;
  return r;
}

// What multiplies the codes of one block: scale byte times multiplier. `careful` near the ends of float32's range.
struct Factor { float value; float up; uint sign; bool careful; bool tiny; };

inline Factor factor_of(uint scale, float g) {
  Factor f;
  uint s = scale & 0x7fu;
  float size = e4m3_decode_any(s) * g;
  f.tiny = g < 0x1p-40f && s > 0u && s < 0x7fu && size < 0x1p-100f;
  f.careful = f.tiny || !(size < 0x1p100f);
  f.up = f.tiny ? careful_factor(s, g) : 0.0f;
  f.sign = (scale & 0x80u) << 24;
  f.value = as_type<float>(as_type<uint>(size) | f.sign);
  return f;
}

inline Factor absorbed(Factor f, float extra) {  // times one more scale, in float32
  f.value = f.value * extra;
  f.careful = !(absolute(f.value) > 0x1p-100f && absolute(f.value) < 0x1p100f);
  f.tiny = false;
  return f;
}

inline uint careful_bits(uint code, Factor f) {  // a code times its factor as float32 bits
  float value = e2m1_decode(code);
  uint bits = f.tiny ? scaled_down_bits(value * f.up) : as_type<uint>(value * f.value) & 0x7fffffffu;
  return bits | (((code & 8u) << 28) ^ f.sign);
}

template <int KIND> inline Words<KIND == 0 ? 8 : 4> careful_decode(uint codes, Factor f) {
  Words<KIND == 0 ? 8 : 4> out = {};
  UNROLL for (int k = 0; k < 8; ++k) {
    uint bits = narrow_bits<KIND>(careful_bits(codes >> (4 * k), f));
    if (KIND == 0) out.w[k] = bits;
    else out.w[k >> 1] |= bits << (16 * (k & 1));
  }
  return out;
}

// Values of eight codes times 2**-14: bits of a code moved into those of a half, signed.
inline Words<8> small_values(uint codes) {
  Words<8> out = {};
  UNROLL for (int k = 0; k < 4; ++k) {
    uint size = k < 3 ? codes << (9 - 4 * k) : codes >> 3;
    uint sign = codes << (12 - 4 * k);
    Pair p = floats_of_halves((size & 0x0e000e00u) | (sign & 0x80008000u));
    out.w[k] = as_type<uint>(p.low);
    out.w[k + 4] = as_type<uint>(p.high);
  }
  return out;
}

// Eight codes times their factor.
template <int KIND> inline Words<KIND == 0 ? 8 : 4> decode_eight(uint codes, Factor f) {
  if (f.careful) return careful_decode<KIND>(codes, f);
  float factor = f.value * 16384.0f, v[8];
  Words<8> small = small_values(codes);
  UNROLL for (int k = 0; k < 8; ++k) v[k] = as_type<float>(small.w[k]) * factor;
  Words<KIND == 0 ? 8 : 4> out = {};
  UNROLL for (int k = 0; k < (KIND == 0 ? 8 : 4); ++k)
    out.w[k] = KIND == 0 ? as_type<uint>(v[k]) : narrow_pair<KIND>(v[(2 * k) & 7], v[(2 * k + 1) & 7]);
  return out;
}

// Eight codes times eight elements of a block from `first` on, summed, times 2**-14.
template <int KIND, int N> inline float dot_eight(uint codes, Words<N> block, int first) {
  Words<8> small = small_values(codes);
  float sum = 0.0f;
  UNROLL for (int k = 0; k < 8; ++k) sum = fused(as_type<float>(small.w[k]), value_of<KIND>(block, first + k), sum);
  return sum;
}
