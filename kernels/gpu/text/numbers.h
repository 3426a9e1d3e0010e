// Number formats as pairs of small functions on float32 and on raw bits. No pointers, so no address spaces.
// KIND is the dtype of weights: 0 float32, 1 float16, 2 bfloat16.

template <int N> struct Words { uint w[N]; };

// Subnormals of float32 are flushed by some GPUs, so whatever may meet one works on bits or scaled by 2**64.
#define SMALLEST_NORMAL 0x00800000u
#define TWO_TO_64 (64u << 23)

template <int KIND> inline uint widen(uint bits) {
  if (KIND == 2) return bits << 16;
  if (KIND == 1) return float_of_half(bits);
  return bits;
}

template <int KIND> inline uint narrow_bits(uint f) {  // from float32 bits, to nearest even, subnormals too
  if (KIND == 2) return (f & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : bfloat_of_bits(f);
  if (KIND == 1) return half_of_float(as_type<float>(f));
  return f;
}

template <int KIND> inline uint narrow(float x) { return narrow_bits<KIND>(as_type<uint>(x)); }

template <int KIND> inline uint narrow_pair(float low, float high) {  // two neighbours of a 16-bit dtype in one word
  return KIND == 2 ? bfloats_of_floats(low, high) : halves_of_floats(low, high);
}

// x * 2**64 of a finite magnitude, exact for subnormals; what would overflow becomes huge.
inline float scaled_up(uint bits) {
  if (bits < SMALLEST_NORMAL) return float(bits) * 0x1p-85f;
  return as_type<float>(smaller(bits + TWO_TO_64, 0x7e000000u));
}

// The bits of x * 2**-64, where a result below 2**-126 is rounded to float32's subnormal grid.
inline uint scaled_down_bits(float x) {
  uint bits = as_type<uint>(x);
  if (bits >= SMALLEST_NORMAL + TWO_TO_64) return bits - TWO_TO_64;
  return as_type<uint>(x + 0x1p-62f) - as_type<uint>(0x1p-62f);
}

inline uint e4m3_encode(float x) {  // x >= 0: nearest, ties to even, saturating at 448
  uint bits = smaller(as_type<uint>(x), 0x43e00000u);
  uint normal = ((bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20) - (120u << 3);
  uint tiny = as_type<uint>(as_type<float>(bits) + 16384.0f) - 0x46800000u;  // steps of 2**-9
  return bits < 0x3c800000u ? tiny : normal;
}

inline float e4m3_decode(uint code) {  // bytes 0..0x7E
  float tiny = float(code) * 0x1p-9f;
  return code < 8u ? tiny : as_type<float>((code << 20) + (120u << 23));
}

inline float e4m3_decode_any(uint byte) {  // with a sign, and NaN for 0x7F and 0xFF
  uint code = byte & 0x7fu;
  uint bits = code == 0x7fu ? 0x7fc00000u : as_type<uint>(e4m3_decode(code));
  return as_type<float>(bits | ((byte & 0x80u) << 24));
}

inline float e4m3_decode_small(uint byte) {  // the same times 2**-8: bits of a byte moved into those of a half
  uint half_bits = ((byte & 0x80u) << 8) | ((byte & 0x7fu) << 7);
  return as_type<float>((byte & 0x7fu) == 0x7fu ? 0x7fc00000u : float_of_half(half_bits));
}

// A magnitude rounded to E2M1, to nearest even: the code in the low bits, and the value.
struct E2m1 { uint bits; float value; };

#define E2M1_BASE 0x4b000000u

// The code alone: three pieces with steps of 0.5, 1 and 2 are counted above 2**23, each saturating at its end.
inline uint e2m1_encode(float magnitude) {
  float fine = fused(saturated(magnitude * 0.5f), 4.0f, 0x1p23f);
  float middle = fused(saturated(fused(magnitude, 0.5f, -1.0f)), 2.0f, fine);
  return as_type<uint>(middle + saturated(fused(magnitude, 0.5f, -2.0f))) - E2M1_BASE;
}

// Code (in the low 23 bits) and value for a magnitude below 7: one addition rounds to the step of the magnitude's binade. The sums that saturate
// are 1 from 2 and from 4 on, and the odd units put 0, 2 or 4, the code at the start of the binade, in the low bits.
inline E2m1 e2m1_round(float magnitude) {
  float two = saturated(fused(magnitude, 0x1p23f, 1.0f - 0x1p24f)), four = saturated(fused(magnitude, 0x1p22f, 1.0f - 0x1p24f));
  float base = fused(four, 0x1p23f + 6.0f, fused(two, 0x1p22f + 2.0f, 0x1p22f));
  float sum = magnitude + base;
  E2m1 r;
  r.bits = as_type<uint>(sum);
  r.value = sum - base;
  return r;
}

inline int level_of(int x) {  // the nearest magnitude of E2M1 to x / 64, in 1/64, the larger at a tie
  int half_step = x < 128 ? 16 : x < 256 ? 32 : 64;
  return smaller((x + half_step) & (-2 * half_step), 384);
}

inline int error_of(int whole, int multiplier) {  // what codes miss of their product over 4096, in 1/64 of the scale
  int size = (whole * multiplier + 2048) >> 12;
  return size - level_of(size);
}

inline float e2m1_decode(uint code) {  // magnitude of the low 3 bits: twice the value stands in a nibble of the constant
  uint twice = (0xc8643210u >> ((code & 7u) << 2)) & 15u;
  return (as_type<float>(twice | E2M1_BASE) - 0x1p23f) * 0.5f;
}
