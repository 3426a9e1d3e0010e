// Weights in whole numbers, two of 16 bits in a word, and what a scale misses of each in 1/64 of it.
#define WHOLE 1.0f

inline uint whole_pair(float low, float high) {  // to nearest even
  return uint(nearest(low)) | (uint(nearest(high)) << 16);
}

inline uint packed_multiplier(float m) { return uint(m * 256.0f); }

// Two errors in the low bytes of the halves of a word. LARGE: a weight may be beyond the middle of codes 6 and 8.
template <bool LARGE> inline uint errors_of_pair(uint wholes, uint multiplier) {
  int low = error_of(int(wholes & 0xffffu), int(multiplier)), high = error_of(int(wholes >> 16), int(multiplier));
  return (uint(low) & 0xffu) | ((uint(high) & 0xffu) << 16);
}

inline uint four_bytes(uint a, uint b) {
  return (a & 0xffu) | ((a >> 8) & 0xff00u) | ((b & 0xffu) << 16) | ((b << 8) & 0xff000000u);
}
inline int byte_of(uint bytes, int k) { return int(bytes << (24 - 8 * k)) >> 24; }

inline int add_squares(uint bytes, int sum) {
  UNROLL for (int k = 0; k < 4; ++k) sum += byte_of(bytes, k) * byte_of(bytes, k);
  return sum;
}
