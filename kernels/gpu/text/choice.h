// The scale of a block by its method, in whole numbers as kernels/search.py defines it: the smallest cost among candidates,
// if equal that of the larger scale. What a candidate needs of its code and of g stands in a table of the threadgroup.

#define MAX 0
#define FOUR_SIX 1
#define SEARCH 2
#define IMPORTANCE 3
#define HESSIAN 4

#define BEFORE_CODES 2
#define CANDIDATES 136
#define MOMENT_WORDS 72

template <int MIN_SCALE> inline uint candidate_code(int code) {
  return uint(smaller(larger(code, MIN_SCALE > 0 ? MIN_SCALE : 1), 126));
}

template <int MIN_SCALE> inline uint2 candidate_entry(uint at, float g) {  // 1 / scale, and the scale byte's value squared
  float value = e4m3_decode(candidate_code<MIN_SCALE>(int(at) - BEFORE_CODES));
  return two(as_type<uint>(1.0f / (value * g)), as_type<uint>(value * value));
}

// What is known of one block while candidates are tried, and the best of those so far.
template <int KNOWN> struct Trial {
  Words<8> wholes;
  Words<KNOWN> known;  // importance or moments of the block's columns
  float power;
  float top;  // the largest weight in whole numbers
  float best;
  int code;  // before its limits
};

template <int METHOD> struct Known { enum { words = METHOD == HESSIAN ? MOMENT_WORDS : METHOD == IMPORTANCE ? 16 : 4 }; };

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

template <int KIND, bool SIGNED, int N> inline float whole_of(Words<N> block, int i, float up) {
  float x = (SIGNED ? value_of<KIND>(block, i) : absolute(value_of<KIND>(block, i))) * up;
  return KIND == 0 ? larger(smaller(x, 2047.0f * WHOLE), -2047.0f * WHOLE) : x;
}

template <int KIND, int METHOD, int N>
inline Trial<Known<METHOD>::words> trial_of(Words<N> block, uint peak, Words<Known<METHOD>::words> known, uint first) {
  Trial<Known<METHOD>::words> t;
  uint power = peak & 0x7f800000u;
  float up = as_type<float>((264u << 23) - power);  // 1024 over the power
  t.known = known;
  t.power = as_type<float>(power);
  t.top = smaller(nearest(as_type<float>(peak) * up), 2047.0f);
  t.best = 0x1p120f;
  t.code = int(first);
  UNROLL for (int k = 0; k < 8; ++k)
    t.wholes.w[k] = whole_pair(whole_of<KIND, METHOD == HESSIAN>(block, 2 * k, up * WHOLE),
                               whole_of<KIND, METHOD == HESSIAN>(block, 2 * k + 1, up * WHOLE));
  return t;
}

inline float squares(Words<4> errors) {
  int sum = 0x4b000000;  // the bits of 2**23, whose last place is 1
  UNROLL for (int k = 0; k < 4; ++k) sum = add_squares(errors.w[k], sum);
  return as_type<float>(sum) - 0x1p23f;
}

inline int weighted_squares(Words<4> errors, Words<16> importance) {
  int sum = 0;
  UNROLL for (int k = 0; k < 16; ++k) {
    int e = byte_of(errors.w[k >> 2], k & 3);
    sum += int(importance.w[k]) * (e * e);
  }
  return sum;
}

// Rows of the upper triangle from the even column before the diagonal on, two columns to a word.
inline int output_squares(Words<4> errors, Words<MOMENT_WORDS> moments) {
  int sum = 0;
  UNROLL for (int i = 0; i < 16; ++i) {
    int r = i >> 1, row = r * (17 - r) + (i & 1) * (8 - r), inner = 2048;
    UNROLL for (int k = 0; k < 8; ++k)
      if (k >= r) inner = add_products(moments.w[row + k - r], errors.w[k >> 1], 2 * (k & 1), inner);
    sum += (inner >> 12) * byte_of(errors.w[i >> 2], i & 3);
  }
  return sum;
}

inline float cost_of(Words<4> errors, Words<4>) { return squares(errors); }
inline float cost_of(Words<4> errors, Words<16> importance) { return float(weighted_squares(errors, importance)); }
inline float cost_of(Words<4> errors, Words<MOMENT_WORDS> moments) { return float(output_squares(errors, moments)); }

// LARGE: the scale may cut off the largest weight. LAST: larger codes were tried before.
template <bool LARGE, bool LAST, int MIN_SCALE, int KNOWN, class T>
inline Trial<KNOWN> tried(Trial<KNOWN> t, T table, int code) {
  uint2 entry = table[code + BEFORE_CODES];
  const float ODD = 0x1.8p15f;  // last place 2**-8
  float m = as_type<float>(as_type<uint>(fused(as_type<float>(entry.x), t.power, ODD)) | 1u) - ODD;
  uint multiplier = packed_multiplier(m);
  Words<4> errors = {};
  UNROLL for (int k = 0; k < 4; ++k)
    errors.w[k] = four_bytes(errors_of_pair<LARGE, (KNOWN == MOMENT_WORDS)>(t.wholes.w[2 * k], multiplier),
                             errors_of_pair<LARGE, (KNOWN == MOMENT_WORDS)>(t.wholes.w[2 * k + 1], multiplier));
  float total = product(as_type<float>(entry.y), cost_of(errors, t.known));
  bool better = total < t.best;
  if (!LAST) better = better || (total == t.best && candidate_code<MIN_SCALE>(code) > candidate_code<MIN_SCALE>(t.code));
  if (LARGE) better = better && t.top * m < 8184.0f;  // 511.5 * 16
  t.best = better ? total : t.best;
  t.code = better ? code : t.code;
  return t;
}

template <int MIN_SCALE, int KNOWN, class T> inline Trial<KNOWN> tried_window(Trial<KNOWN> t, T table, int first) {
  t = tried<false, true, MIN_SCALE>(t, table, first + 6);
  t = tried<false, true, MIN_SCALE>(t, table, first + 5);
  t = tried<false, true, MIN_SCALE>(t, table, first + 4);
  t = tried<false, true, MIN_SCALE>(t, table, first + 3);
  t = tried<false, true, MIN_SCALE>(t, table, first + 1);
  t = tried<(MIN_SCALE < 8), true, MIN_SCALE>(t, table, first);
  t = tried<true, true, MIN_SCALE>(t, table, first - 1);
  return tried<true, (MIN_SCALE >= 8), MIN_SCALE>(t, table, MIN_SCALE < 8 && first < 8 ? first + 2 : first - 2);
}

// The code of a block whose largest weight lies between 2**-60 and 2**60 and wants at most 464: `quarter` is that of 4.
template <int KIND, int METHOD, int MIN_SCALE, int N, class T>
inline uint chosen_code(Words<N> block, uint peak, Words<Known<METHOD>::words> known, T table, uint first, uint quarter) {
  Trial<Known<METHOD>::words> t = trial_of<KIND, METHOD>(block, peak, known, first);
  if (METHOD != FOUR_SIX) return candidate_code<MIN_SCALE>(tried_window<MIN_SCALE>(t, table, int(first)).code);
  t = tried<true, true, MIN_SCALE>(t, table, int(first));
  return candidate_code<MIN_SCALE>(tried<true, false, MIN_SCALE>(t, table, int(quarter)).code);
}
