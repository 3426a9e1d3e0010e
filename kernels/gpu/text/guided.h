// The scale of a block where its inputs are known. There it may pay to cut off a large weight whose column matters
// little, so three smaller scales are tried, and errors, which do not fit into bytes, are ints.

#define MOMENT_WORDS 72
#define GUIDED_MOST 16376.0f  // 1023.5 * 16

template <int METHOD> struct Known {
  enum { words = METHOD == HESSIAN ? MOMENT_WORDS : METHOD == IMPORTANCE ? 16 : 4 };
};

inline Words<16> halves_apart(Words<8> packed) {
  Words<16> apart = {};
  UNROLL for (int k = 0; k < 16; ++k) apart.w[k] = (packed.w[k >> 1] >> (16 * (k & 1))) & 0xffffu;
  return apart;
}

template <class P> inline Words<4> known_at(P, uint, Words<4> none) { return none; }
template <class P> inline Words<16> known_at(P inputs, uint column, Words<16>) {
  return halves_apart(load_kept<8>(inputs, size_t(column)));
}
template <class P> inline Words<MOMENT_WORDS> known_at(P inputs, uint column, Words<MOMENT_WORDS>) {
  return load_kept<MOMENT_WORDS>(inputs, size_t(column));
}

template <int METHOD, class P> inline Words<Known<METHOD>::words> load_known(P inputs, uint column) {
  Words<Known<METHOD>::words> none = {};
  return known_at(inputs, column, none);
}

template <int KIND, bool SIGNED, int N> inline Words<16> wholes_of(Words<N> block, float up) {
  Words<16> wholes = {};
  UNROLL for (int i = 0; i < 16; ++i) {
    int whole = int(smaller(nearest(as_type<float>(magnitude_bits<KIND>(block, i)) * up), 2047.0f));
    wholes.w[i] = uint(SIGNED && sign_bit<KIND>(block, i) ? -whole : whole);
  }
  return wholes;
}

template <bool SIGNED> inline Words<16> errors_of(Words<16> wholes, int multiplier) {
  Words<16> errors = {};
  UNROLL for (int i = 0; i < 16; ++i) {
    int whole = int(wholes.w[i]);
    bool below = SIGNED && whole < 0;
    int missed = error_of(below ? -whole : whole, multiplier);
    errors.w[i] = uint(below ? -missed : missed);
  }
  return errors;
}

inline float cost_of(Words<16> errors, Words<16> importance) {
  int sum = 0;
  UNROLL for (int k = 0; k < 16; ++k) {
    int e = int(errors.w[k]);
    sum += ((int(importance.w[k]) * 32 * e + 16384) >> 15) * e;
  }
  return float(sum);
}

inline int moment(Words<MOMENT_WORDS> moments, int row, int k) {
  return int(moments.w[row + (k >> 1)] << (16 - 16 * (k & 1))) >> 16;
}

// Rows of the upper triangle from the even column before the diagonal on, two columns to a word.
inline float cost_of(Words<16> errors, Words<MOMENT_WORDS> moments) {
  int high = 0, low = 0;
  UNROLL for (int i = 0; i < 16; ++i) {
    int r = i >> 1, row = r * (17 - r) + (i & 1) * (8 - r) - r, inner = 0;
    UNROLL for (int k = 0; k < 16; ++k)
      if (k >= i) inner += moment(moments, row, k) * int(errors.w[k]);
    high += (inner >> 15) * int(errors.w[i]);
    low += (inner & 0x7fff) * int(errors.w[i]);
  }
  return float(high) * 32768.0f + float(low);
}

// Codes of a block, eight to a word with their signs; `there`: that these are the ones to take.
struct Codes { uint low; uint high; bool there; };

// Codes gone over once from those nearest under the multiplier, as kernels/search.py defines it.
inline Codes gone_over(Words<16> wholes, int multiplier, Words<MOMENT_WORDS> moments) {
  Words<16> errors = errors_of<true>(wholes, multiplier);
  uint packed[2] = {0u, 0u};
  UNROLL for (int c = 0; c < 16; ++c) {
    int r = c >> 1, row = r * (17 - r) + (c & 1) * (8 - r) - r, sum = 0, own = moment(moments, row, c);
    UNROLL for (int i = 0; i < 16; ++i) {
      int q = i >> 1, other = q * (17 - q) + (i & 1) * (8 - q) - q;
      if (i < c) sum += moment(moments, other, c) * int(errors.w[i]);
      if (i > c) sum += moment(moments, row, i) * int(errors.w[i]);
    }
    int whole = int(wholes.w[c]), size = ((whole < 0 ? -whole : whole) * multiplier + 2048) >> 12;
    float wanted = float(whole < 0 ? -size : size), share = own > 0 ? reciprocal(2.0f * float(own)) : 0.0f;
    float target = wanted + product(float(sum), share);
    bool below = target < 0.0f;
    E2m1 found = e2m1_round(smaller(absolute(target) * 0x1p-6f, 6.0f));
    float level = found.value * 64.0f;
    errors.w[c] = uint(int(wanted - (below ? -level : level)));
    packed[c >> 3] |= ((found.bits & 7u) | (below ? 8u : 0u)) << (4 * (c & 7));
  }
  Codes codes = {packed[0], packed[1], true};
  return codes;
}
template <int N> inline Codes gone_over(Words<16>, int, Words<N>) {
  Codes none = {0u, 0u, false};
  return none;
}

// As choice.h has it for methods that know nothing; `known` are importance or moments of the block's columns.
template <int KIND, int METHOD, int MIN_SCALE, int N, int KNOWN, class T>
inline uint chosen_code(Words<N> block, uint peak, Words<KNOWN> known, T table, uint first, uint) {
  Words<16> wholes = wholes_of<KIND, METHOD == HESSIAN>(block, up_of(peak));
  float power = power_of(peak), top = top_of(peak), best = 0x1p120f;
  uint found = first;
  ROLLED for (int step = 5; step >= -10; --step) {
    if (step == 2 || (step < -3 && step != -6 && step != -10)) continue;
    int code = int(first) + (step == -2 && first < 8u ? 2 : step);
    uint2 entry = table[code + BEFORE_CODES];
    float m = odd_multiplier(entry, power);
    if (!(top * m < GUIDED_MOST)) continue;
    Words<16> errors = errors_of<METHOD == HESSIAN>(wholes, int(m * 256.0f));
    float total = product(as_type<float>(entry.y), cost_of(errors, known));
    uint byte = candidate_code<MIN_SCALE>(code);
    bool better = total < best || (total == best && byte > found);
    best = better ? total : best;
    found = better ? byte : found;
  }
  return found;
}
