// MLX's integer formats: weight = code * scale + bias, one scale and bias for a group.

inline int ordered(uint bits) {  // whole numbers in the order of the floats they come from
  return int(bits ^ ((bits >> 31) ? 0x7fffffffu : 0u));
}
inline float from_ordered(int key) { return as_type<float>(uint(key) ^ (key < 0 ? 0x7fffffffu : 0u)); }

struct Affine { float scale; float bias; };

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
  return a;
}

template <int BITS> inline uint affine_code(float weight, Affine a) {
  float code = nearest((weight - a.bias) / a.scale);
  return uint(smaller(larger(code, 0.0f), float((1 << BITS) - 1)));
}

template <int KIND, int BITS> inline uint affine_decoded(uint code, float scale, float bias) {
  return narrow<KIND>(product(float(code & ((1u << BITS) - 1u)), scale) + bias);
}
