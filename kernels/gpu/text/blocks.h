// Blocks of weights in registers: 32-bit words as stored, two elements in each for the 16-bit dtypes.

template <int N> inline Words<N> put_words(Words<N> into, uint4 part, int at) {
  into.w[at] = part.x;
  into.w[at + 1] = part.y;
  into.w[at + 2] = part.z;
  into.w[at + 3] = part.w;
  return into;
}

// Block i of N words of a buffer.
template <int N, class P> inline Words<N> load_block(P from, size_t i) {
  Words<N> block = {};
  UNROLL for (int k = 0; k < N / 4; ++k) block = put_words(block, load16(from, i * (N / 4) + size_t(k)), 4 * k);
  return block;
}

// The same of a buffer that many threads read, so that caches shall keep it.
template <int N, class P> inline Words<N> load_kept(P from, size_t i) {
  Words<N> block = {};
  UNROLL for (int k = 0; k < N / 4; ++k) block = put_words(block, load16_kept(from, i * (N / 4) + size_t(k)), 4 * k);
  return block;
}

template <int N, class P> inline void store_block(P to, size_t i, Words<N> block) {
  UNROLL for (int k = 0; k < N / 4; ++k)
    store16(to, i * (N / 4) + size_t(k),
            four(block.w[4 * k], block.w[4 * k + 1], block.w[4 * k + 2], block.w[4 * k + 3]));
}

template <int KIND, int N> inline uint peak_of(Words<N> block) {  // float32 bits of the largest magnitude
  uint most = 0u;
  if (KIND == 0) {
    UNROLL for (int k = 0; k < N; ++k) most = larger(most, block.w[k] & 0x7fffffffu);
    return most;
  }
  UNROLL for (int k = 0; k < N; ++k) most = larger_halves(most, block.w[k] & 0x7fff7fffu);
  return widen<KIND>(larger(most >> 16, most & 0xffffu));
}

template <int KIND, int N> inline bool holds_zero(Words<N> block) {
  uint least = 0x7fff7fffu;
  if (KIND == 0) {
    UNROLL for (int k = 0; k < N; ++k) least = smaller(least, block.w[k] & 0x7fffffffu);
    return least == 0u;
  }
  UNROLL for (int k = 0; k < N; ++k) least = smaller_halves(least, block.w[k] & 0x7fff7fffu);
  return (least & 0xffffu) == 0u || (least >> 16) == 0u;
}

template <int KIND, int N> inline uint magnitude_bits(Words<N> block, int i) {  // float32 bits of |element i|
  if (KIND == 0) return block.w[i] & 0x7fffffffu;
  uint pair = block.w[i >> 1] & 0x7fff7fffu;
  if (KIND == 2) return (i & 1) ? pair & 0xffff0000u : low_half_up(pair);
  return float_of_half((i & 1) ? pair >> 16 : pair & 0xffffu);
}

template <int KIND, int N> inline uint sign_bit(Words<N> block, int i) {  // 1 where element i has its sign set
  if (KIND == 0) return block.w[i] >> 31;
  return (block.w[i >> 1] >> ((i & 1) ? 31 : 15)) & 1u;
}

template <int KIND, int N> inline float value_of(Words<N> block, int i) {  // element i as float32
  if (KIND == 0) return as_type<float>(block.w[i]);
  uint pair = block.w[i >> 1];
  if (KIND == 2) return as_type<float>((i & 1) ? pair & 0xffff0000u : low_half_up(pair));
  return as_type<float>(float_of_half((i & 1) ? pair >> 16 : pair & 0xffffu));
}

template <int KIND, int N> inline uint eight_signs(Words<N> block, int first) {  // above nibbles of 8 codes
  if (KIND != 0) {
    int k = first >> 1;
    return sign_nibbles(block.w[k], block.w[k + 1], block.w[k + 2], block.w[k + 3]);
  }
  uint signs = 0u;
  UNROLL for (int k = 0; k < 8; ++k) signs |= (block.w[first + k] >> 31) << (4 * k + 3);
  return signs;
}

template <int KIND, int N> inline int zeros_of(Words<N> block) {  // how many elements are zero
  int count = 0;
  UNROLL for (int i = 0; i < (KIND == 0 ? N : 2 * N); ++i) count += int(magnitude_bits<KIND, N>(block, i) == 0u);
  return count;
}

// The error of encoding, summed over blocks by one thread.
struct Error { float squares; float error; float largest; float vanished; float fourth; float peak; };

inline Error no_error() {
  Error e;
  e.squares = e.error = e.largest = e.vanished = e.fourth = e.peak = 0.0f;
  return e;
}

inline Error add_element(Error e, float magnitude, float missed, bool outliers) {
  float square = product(magnitude, magnitude);
  e.squares = outliers ? e.squares + square : fused(magnitude, magnitude, e.squares);
  e.error = fused(missed, missed, e.error);
  if (outliers) {
    e.largest = larger(e.largest, absolute(missed));
    e.fourth = fused(square, square, e.fourth);
  }
  return e;
}

inline Error add_block(Error sum, Error block) {
  sum.squares = sum.squares + block.squares;
  sum.error = sum.error + block.error;
  sum.largest = larger(sum.largest, block.largest);
  sum.vanished = sum.vanished + block.vanished;
  sum.fourth = sum.fourth + block.fourth;
  sum.peak = larger(sum.peak, block.peak);
  return sum;
}
