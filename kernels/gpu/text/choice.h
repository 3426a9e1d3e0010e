// The scale of a block by its method, in whole numbers as kernels/search.py defines it: the smallest cost among candidates,
// if equal that of the larger scale. What a candidate needs of its code and of g stands in a table of the threadgroup.
// Here are the methods that know nothing of the inputs; guided.h has the others.

#define MAX 0
#define FOUR_SIX 1
#define SEARCH 2
#define IMPORTANCE 3
#define HESSIAN 4

#define BEFORE_CODES 10
#define CANDIDATES 144

template <int MIN_SCALE> inline uint candidate_code(int code) {
  return uint(smaller(larger(code, MIN_SCALE > 0 ? MIN_SCALE : 1), 126));
}

template <int MIN_SCALE> inline uint2 candidate_entry(uint at, float g) {  // 1 / scale, and the scale byte's value squared
  float value = e4m3_decode(candidate_code<MIN_SCALE>(int(at) - BEFORE_CODES));
  return two(as_type<uint>(1.0f / (value * g)), as_type<uint>(value * value));
}

inline float power_of(uint peak) { return as_type<float>(peak & 0x7f800000u); }
inline float up_of(uint peak) { return as_type<float>((264u << 23) - (peak & 0x7f800000u)); }  // 1024 over the power
inline float top_of(uint peak) { return smaller(nearest(as_type<float>(peak) * up_of(peak)), 2047.0f); }

inline float odd_multiplier(uint2 entry, float power) {  // m in 1/256
  const float ODD = 0x1.8p15f;  // last place 2**-8
  return as_type<float>(as_type<uint>(fused(as_type<float>(entry.x), power, ODD)) | 1u) - ODD;
}

// What is known of one block while candidates are tried, and the best of those so far.
struct Trial {
  Words<8> wholes;
  float power;
  float top;  // the largest weight in whole numbers
  float best;
  int code;  // before its limits
};

template <int KIND, int N> inline float whole_of(Words<N> block, int i, float up) {
  float x = absolute(value_of<KIND>(block, i)) * up;
  return KIND == 0 ? smaller(x, 2047.0f * WHOLE) : x;
}

template <int KIND, int N> inline Trial trial_of(Words<N> block, uint peak, uint first) {
  Trial t;
  float up = up_of(peak) * WHOLE;
  t.power = power_of(peak);
  t.top = top_of(peak);
  t.best = 0x1p120f;
  t.code = int(first);
  UNROLL for (int k = 0; k < 8; ++k)
    t.wholes.w[k] = whole_pair(whole_of<KIND>(block, 2 * k, up), whole_of<KIND>(block, 2 * k + 1, up));
  return t;
}

inline float squares(Words<4> errors) {
  int sum = 0x4b000000;  // the bits of 2**23, whose last place is 1
  UNROLL for (int k = 0; k < 4; ++k) sum = add_squares(errors.w[k], sum);
  return as_type<float>(sum) - 0x1p23f;
}

// LARGE: the scale may cut off the largest weight. LAST: larger codes were tried before.
template <bool LARGE, bool LAST, int MIN_SCALE, class T> inline Trial tried(Trial t, T table, int code) {
  uint2 entry = table[code + BEFORE_CODES];
  float m = odd_multiplier(entry, t.power);
  uint multiplier = packed_multiplier(m);
  Words<4> errors = {};
  UNROLL for (int k = 0; k < 4; ++k)
    errors.w[k] = four_bytes(errors_of_pair<LARGE>(t.wholes.w[2 * k], multiplier),
                             errors_of_pair<LARGE>(t.wholes.w[2 * k + 1], multiplier));
  float total = product(as_type<float>(entry.y), squares(errors));
  bool better = total < t.best;
  if (!LAST) better = better || (total == t.best && candidate_code<MIN_SCALE>(code) > candidate_code<MIN_SCALE>(t.code));
  if (LARGE) better = better && t.top * m < 8184.0f;  // 511.5 * 16
  t.best = better ? total : t.best;
  t.code = better ? code : t.code;
  return t;
}

template <int MIN_SCALE, class T> inline Trial tried_window(Trial t, T table, int first) {
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
inline uint chosen_code(Words<N> block, uint peak, Words<4>, T table, uint first, uint quarter) {
  Trial t = trial_of<KIND>(block, peak, first);
  if (METHOD != FOUR_SIX) return candidate_code<MIN_SCALE>(tried_window<MIN_SCALE>(t, table, int(first)).code);
  t = tried<true, true, MIN_SCALE>(t, table, int(first));
  return candidate_code<MIN_SCALE>(tried<true, false, MIN_SCALE>(t, table, int(quarter)).code);
}
