// Simd operations, barriers, threadgroup memory and the attributes of a kernel.
#pragma once
#include "fibers.h"

namespace shim {
template <class T> T& slot(Lane* l) {
  static_assert(sizeof(T) <= sizeof(l->value), "a lane brings at most 16 bytes");
  return *reinterpret_cast<T*>(l->value);
}

template <class T> T meet(T v, uint32_t argument, void (*operation)(Lane* const*, int), int line) {
  Lane* l = machine()->current;
  slot<T>(l) = v;
  l->argument = argument;
  l->operation = operation;
  l->line = line;
  wait(AT_SIMD);
  return slot<T>(l);
}

struct Sum { template <class T> static T of(T a, T b) { return T(a + b); } };
struct Most { template <class T> static T of(T a, T b) { return a < b ? b : a; } };
struct Least { template <class T> static T of(T a, T b) { return b < a ? b : a; } };

template <class T, class Op> void reduce(Lane* const* lanes, int n) {
  T v[32];
  for (int i = 0; i < n; ++i) v[i] = slot<T>(lanes[machine()->options.sum_order == 2 ? n - 1 - i : i]);
  if (machine()->options.sum_order == 0) {
    for (int k = n; k > 1; k = (k + 1) / 2)
      for (int i = 0; i + (k + 1) / 2 < k; ++i) v[i] = Op::of(v[i], v[i + (k + 1) / 2]);
  } else {
    for (int i = 1; i < n; ++i) v[0] = Op::of(v[0], v[i]);
  }
  for (int i = 0; i < n; ++i) slot<T>(lanes[i]) = v[0];
}

enum Way { AT, DOWN, XOR };

// Reading a lane that is not there gives a pattern of bits, except that a shift down leaves the last lanes as they are.
template <class T, Way WAY> void exchange(Lane* const* lanes, int n) {
  T old[32];
  for (int i = 0; i < n; ++i) old[i] = slot<T>(lanes[i]);
  for (int i = 0; i < n; ++i) {
    uint32_t a = lanes[i]->argument, from = WAY == AT ? a : WAY == DOWN ? uint32_t(i) + a : uint32_t(i) ^ a;
    if (from < uint32_t(n)) slot<T>(lanes[i]) = old[from];
    else if (WAY != DOWN) memset(lanes[i]->value, 0xA5, sizeof(T));
  }
}

struct Seen { uint64_t serial = ~0ull; };
inline void enter_threadgroup_memory(void* p, size_t n, Seen& seen) {  // poisoned once for each threadgroup
  if (seen.serial == machine()->serial) return;
  seen.serial = machine()->serial;
  memset(p, 0xFF, n);
}

template <class V> V attribute(const uint32_t* p);
template <> inline uint attribute<uint>(const uint32_t* p) { return p[0]; }
template <> inline uint2 attribute<uint2>(const uint32_t* p) { return uint2(p[0], p[1]); }
template <> inline uint3 attribute<uint3>(const uint32_t* p) { return uint3(p[0], p[1], p[2]); }

#define SHIM_ATTRIBUTE(name, values)                                \
  template <class V> V get_##name() {                               \
    Machine& m = *machine();                                        \
    Lane& l = *m.current;                                           \
    uint32_t v[3] = values;                                         \
    (void)l;                                                        \
    return attribute<V>(v);                                         \
  }
#define SHIM_THREE(a) {a[0], a[1], a[2]}
#define SHIM_ONE(a) {uint32_t(a), 0, 0}
SHIM_ATTRIBUTE(thread_position_in_grid, SHIM_THREE(l.in_grid))
SHIM_ATTRIBUTE(thread_position_in_threadgroup, SHIM_THREE(l.in_group))
SHIM_ATTRIBUTE(threadgroup_position_in_grid, SHIM_THREE(m.group))
SHIM_ATTRIBUTE(threads_per_grid, SHIM_THREE(m.grid))
SHIM_ATTRIBUTE(threads_per_threadgroup, SHIM_THREE(m.size))
SHIM_ATTRIBUTE(threadgroups_per_grid, SHIM_THREE(m.groups))
SHIM_ATTRIBUTE(thread_index_in_threadgroup, SHIM_ONE(l.index))
SHIM_ATTRIBUTE(thread_index_in_simdgroup, SHIM_ONE(l.lane))
SHIM_ATTRIBUTE(simdgroup_index_in_threadgroup, SHIM_ONE(l.simdgroup))
SHIM_ATTRIBUTE(simdgroups_per_threadgroup, SHIM_ONE((m.threads + 31) / 32))
}  // namespace shim

namespace metal {
#define SHIM_LINE int line = __builtin_LINE()
template <class T> T simd_sum(T v, SHIM_LINE) { return shim::meet<T>(v, 0, &shim::reduce<T, shim::Sum>, line); }
template <class T> T simd_max(T v, SHIM_LINE) { return shim::meet<T>(v, 0, &shim::reduce<T, shim::Most>, line); }
template <class T> T simd_min(T v, SHIM_LINE) { return shim::meet<T>(v, 0, &shim::reduce<T, shim::Least>, line); }
template <class T> T simd_shuffle(T v, ushort a, SHIM_LINE) { return shim::meet<T>(v, a, &shim::exchange<T, shim::AT>, line); }
template <class T> T simd_shuffle_down(T v, ushort a, SHIM_LINE) { return shim::meet<T>(v, a, &shim::exchange<T, shim::DOWN>, line); }
template <class T> T simd_shuffle_xor(T v, ushort a, SHIM_LINE) { return shim::meet<T>(v, a, &shim::exchange<T, shim::XOR>, line); }

enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
inline void threadgroup_barrier(mem_flags, SHIM_LINE) {
  shim::machine()->current->line = line;
  shim::wait(shim::AT_BARRIER);
}
}  // namespace metal

// harness.py writes `threadgroup float part[32];` as SHIM_SHARED(float, part, [32]);
#define SHIM_SHARED(T, name, dims)                                                \
  alignas(16) static unsigned char name##_memory[sizeof(T dims)];                 \
  static shim::Seen name##_seen;                                                  \
  shim::enter_threadgroup_memory(name##_memory, sizeof(name##_memory), name##_seen); \
  typedef T name##_type;                                                          \
  threadgroup name##_type(&name) dims = *(threadgroup name##_type(*) dims)(void*)name##_memory
