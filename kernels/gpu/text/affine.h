// MLX's integer formats: weight = code * scale + bias, one scale and bias for a group.

inline int ordered(uint bits) {  // whole numbers in the order of the floats they come from
  return int(bits ^ ((bits >> 31) ? 0x7fffffffu : 0u));
}
inline float from_ordered(int key) { return as_type<float>(uint(key) ^ (key < 0 ? 0x7fffffffu : 0u)); }

struct Range { int low; int high; };  // the lowest and the highest weight, ordered

inline Range joined(Range a, Range b) {
  a.low = smaller(a.low, b.low);
  a.high = larger(a.high, b.high);
  return a;
}

template <int LANES> inline Range range_of_lanes(Range r) {  // of LANES neighbours, each of which gets it
  UNROLL for (int mask = 1; mask < LANES; mask *= 2) {
    Range other;
    other.low = simd_shuffle_xor(r.low, ushort(mask));
    other.high = simd_shuffle_xor(r.high, ushort(mask));
    r = joined(r, other);
  }
  return r;
}

// Bits of floats are compared as whole numbers: the largest is the lowest weight where any has its sign set, the
// smallest is the highest where all have, and the largest as numbers with a sign is the highest where one has not.
template <int KIND, int N> inline Range range_of(Words<N> block) {
  uint most = block.w[0], least = block.w[0], top = block.w[0];
  UNROLL for (int k = 1; k < N; ++k) {
    most = KIND == 0 ? larger(most, block.w[k]) : larger_halves(most, block.w[k]);
    least = KIND == 0 ? smaller(least, block.w[k]) : smaller_halves(least, block.w[k]);
    top = KIND == 0 ? uint(larger(int(top), int(block.w[k]))) : higher_halves(top, block.w[k]);
  }
  if (KIND != 0) {
    most = larger(most >> 16, most & 0xffffu);
    least = smaller(least >> 16, least & 0xffffu);
    top = uint(larger(int(top) >> 16, int(top << 16) >> 16)) & 0xffffu;
  }
  most = widen<KIND>(most);
  least = widen<KIND>(least);
  top = widen<KIND>(top);
  Range r;
  r.low = ordered((most >> 31) ? most : least);
  r.high = ordered((top >> 31) ? least : top);
  return r;
}

struct Affine { float scale; float bias; float inverse; float steps; bool quick; };

inline Affine ready(Affine a) {  // to divide by its scale
  a.inverse = 1.0f / a.scale;
  a.quick = absolute(a.scale) > 0x1p-30f && absolute(a.scale) < 0x1p90f;
  return a;
}

template <int BITS> inline Affine affine_of(float low, float high) {
  const float bins = float((1 << BITS) - 1);
  uint below = as_type<uint>(low) & 0x7fffffffu, above = as_type<uint>(high) & 0x7fffffffu;
  bool low_is_edge = below > above;
  float scale = larger((high - low) / bins, 1e-7f), edge = low_is_edge ? low : high;
  scale = low_is_edge ? scale : -scale;
  float steps = nearest(edge / scale);
  Affine a;
  a.scale = steps == 0.0f ? scale : edge / steps;
  a.bias = steps == 0.0f ? 0.0f : edge;
  a.steps = steps;
  return ready(a);
}

template <int LANES> inline int sum_of_lanes(int x) {
  UNROLL for (int mask = 1; mask < LANES; mask *= 2) x += simd_shuffle_xor(x, ushort(mask));
  return x;
}

// The squared error of a part of a group, in 1/64 steps of its shrunk scale: x * m / 4096 is what a weight x comes to.
template <int BITS> inline int shrunk_squares(Words<16> parts, int m, int offset) {
  const int MOST = (1 << BITS) - 1;
  int sum = 0;
  UNROLL for (int k = 0; k < 16; ++k) {
    int x = (int(parts.w[k]) * m + 2048) >> 12;
    int code = larger(smaller(((x + 32) >> 6) - offset, MOST), 0);
    int missed = larger(smaller(x - (code + offset) * 64, 2047), -2047);
    sum += missed * missed;
  }
  return sum;
}

// Scale and bias of a group times the factor of eight that misses least, as kernels/search.py has it. All lanes of the
// group call this together.
template <int KIND, int BITS, int LANES, int N> inline Affine shrunk(Words<N> block, Affine a) {
  bool near = a.steps >= -256.0f && a.steps <= 257.0f - float(1 << BITS);
  int offset = near ? int(a.steps) : 0;
  Words<16> parts = {};
  UNROLL for (int k = 0; k < 16; ++k)
    parts.w[k] = uint(int(nearest(larger(smaller(value_of<KIND>(block, k) / a.scale, 320.0f), -320.0f) * 64.0f)));
  float best = 0x1p120f, found = 1.0f;
  for (int step = 0; step < 8; ++step) {
    float factor = 1.0f - float(step) * 0.03125f;
    int sum = sum_of_lanes<LANES>(shrunk_squares<BITS>(parts, int(nearest(4096.0f / factor)), offset));
    float total = product(factor * factor, float(sum));
    found = total < best ? factor : found;
    best = smaller(total, best);
  }
  found = near ? found : 1.0f;
  a.scale = a.scale * found;
  a.bias = a.bias * found;
  return ready(a);
}

#define CODE_BASE 0x1.8p23f
#define CODE_BASE_BITS 0x4b400000u

// The code above CODE_BASE, which rounds to nearest even. The quick quotient is that of true division, to the bit, beside
// every k + 0.5: tests/kernels/division_check.cpp walks all divisors. Only the far end of a range can exceed its codes,
// unless the range is SHRUNK.
template <int BITS, bool QUICK, bool SHRUNK> inline uint affine_code(float weight, Affine a) {
  const float bins = float((1 << BITS) - 1);
  float x = weight - a.bias;
  if (!QUICK) return as_type<uint>(smaller(larger(nearest(x / a.scale), 0.0f), bins) + CODE_BASE);
  float guess = product(x, a.inverse);
  float steps = smaller(fused(a.inverse, fused(-guess, a.scale, x), guess), bins);
  return as_type<uint>((SHRUNK ? larger(steps, 0.0f) : steps) + CODE_BASE);
}

template <int KIND, int BITS, bool QUICK, bool SHRUNK, int N> inline Words<BITS / 2> affine_codes(Words<N> block, Affine a) {
  const int PER_WORD = 32 / BITS;
  const uint bases = CODE_BASE_BITS * (BITS == 4 ? 0x11111111u : 0x01010101u);
  Words<BITS / 2> codes = {};
  UNROLL for (int k = 15; k >= 0; --k)
    codes.w[k / PER_WORD] = (codes.w[k / PER_WORD] << BITS) + affine_code<BITS, QUICK, SHRUNK>(value_of<KIND>(block, k), a);
  UNROLL for (int k = 0; k < BITS / 2; ++k) codes.w[k] -= bases;
  return codes;
}

template <int KIND, int BITS> inline uint affine_decoded(uint code, float scale, float bias) {
  return narrow<KIND>(product(float(code & ((1u << BITS) - 1u)), scale) + bias);
}
