// Threads of one threadgroup as fibers on one OS thread, and the lock step of 32 lanes.
//
// A lane runs until it meets a simd operation or a barrier; when all lanes of its simdgroup wait at the same
// operation it is carried out on all of them. A collective that only some lanes reach is an error, as is a
// threadgroup barrier that some threads never meet.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "values.h"

extern "C" __attribute__((visibility("hidden"))) void shim_switch(void** save, void* load);
#if defined(__APPLE__)
#define SHIM_SWITCH "_shim_switch"
#define SHIM_HIDDEN ".private_extern _shim_switch\n"
#else
#define SHIM_SWITCH "shim_switch"
#define SHIM_HIDDEN ".hidden shim_switch\n"
#endif
#if defined(__x86_64__)
asm(".text\n.globl " SHIM_SWITCH "\n" SHIM_HIDDEN SHIM_SWITCH ":\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
#elif defined(__aarch64__)
asm(".text\n.globl " SHIM_SWITCH "\n" SHIM_HIDDEN ".p2align 2\n" SHIM_SWITCH ":\n"
    "sub sp,sp,#176\nstp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\nstp x25,x26,[sp,#48]\n"
    "stp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\nstp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\n"
    "stp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\nmov x9,sp\nstr x9,[x0]\nmov sp,x1\n"
    "ldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\nldp x25,x26,[sp,#48]\n"
    "ldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\nldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\n"
    "ldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\nadd sp,sp,#176\nret\n");
#else
#error "no fiber switch for this processor"
#endif

namespace shim {
constexpr size_t STACK = 128 * 1024, GUARD = 16384;

struct Options {       // mirrored in harness.py
  uint32_t order;      // 0 forward, 1 reverse, otherwise the seed of a random order of lanes and threadgroups
  uint32_t sum_order;  // of simd_sum: 0 butterfly, 1 from the first lane, 2 from the last
  uint32_t flush;      // 1 flushes subnormal inputs and results to zero
};

enum State : uint8_t { READY, AT_SIMD, AT_BARRIER, RETURNED };

struct Lane {
  void* sp = nullptr;
  void* stack = nullptr;
  State state = RETURNED;
  int line = 0;
  uint32_t lane = 0, simdgroup = 0, index = 0, argument = 0;
  uint32_t in_grid[3], in_group[3];
  void (*operation)(Lane* const*, int) = nullptr;
  alignas(16) unsigned char value[16];
};

struct Machine {
  Options options;
  void* scheduler = nullptr;
  Lane* current = nullptr;
  std::vector<Lane> lanes;
  uint32_t group[3], groups[3], grid[3], size[3], nominal[3], threads = 0;
  uint64_t serial = 0;
  void (*body)(void*) = nullptr;
  void* context = nullptr;
  std::string error;
};
inline uint64_t next_dispatch() {  // above the number of any threadgroup, so that memory is poisoned in each dispatch
  static uint64_t count = 0;
  return ++count << 32;
}

inline Machine*& machine() {
  static Machine* m = nullptr;
  return m;
}

inline void wait(State state) {
  Lane* l = machine()->current;
  l->state = state;
  shim_switch(&l->sp, machine()->scheduler);
}

inline void fiber() {
  for (;;) {
    machine()->body(machine()->context);
    wait(RETURNED);
  }
}

inline void prepare(Lane& l) {
  if (l.stack) return;  // parked in its loop by the threadgroup before
  l.stack = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (l.stack == MAP_FAILED) abort();
  mprotect(l.stack, GUARD, PROT_NONE);
  void** top = (void**)((char*)l.stack + STACK + GUARD);
#if defined(__x86_64__)
  *--top = nullptr;
  *--top = (void*)&fiber;
  top -= 6;
#else
  top -= 22;
  top[11] = (void*)&fiber;
#endif
  l.sp = top;
}

inline uint32_t next_random(uint32_t& s) {
  s ^= s << 13;
  s ^= s >> 17;
  return s ^= s << 5;
}

template <class T> inline void shuffle(T* items, uint32_t n, uint32_t& seed) {
  for (uint32_t k = n; k > 1; --k) std::swap(items[k - 1], items[next_random(seed) % k]);
}

// Carries out the operation that the lanes of a simdgroup wait at. False when none waits; sets the error when not all do.
inline bool meet_lanes(Machine& m, Lane* const* lanes, int n) {
  int waiting = 0;
  Lane* first = nullptr;
  bool same = true;
  for (int i = 0; i < n; ++i) {
    if (lanes[i]->state != AT_SIMD) continue;
    if (!first) first = lanes[i];
    same &= first->operation == lanes[i]->operation && first->line == lanes[i]->line;
    ++waiting;
  }
  if (!waiting) return false;
  if (waiting != n || !same) {
    m.error = "simd operation in line " + std::to_string(first->line) + " met by " + std::to_string(waiting) + " of " +
              std::to_string(n) + " lanes" + (same ? "" : ", which wait at different ones");
    return false;
  }
  first->operation(lanes, n);
  for (int i = 0; i < n; ++i) lanes[i]->state = READY;
  return true;
}

inline void run_simdgroup(Machine& m, Lane* const* lanes, Lane* const* order, int n) {
  do {
    for (int i = 0; i < n; ++i) {
      if (order[i]->state != READY) continue;
      m.current = order[i];
      shim_switch(&m.scheduler, order[i]->sp);
      if (!m.error.empty()) return;
    }
  } while (meet_lanes(m, lanes, n));
}

inline void place_lanes(Machine& m) {
  if (m.lanes.size() < m.threads) m.lanes.resize(m.threads);
  for (uint32_t i = 0; i < m.threads; ++i) {
    Lane& l = m.lanes[i];
    prepare(l);
    l.state = READY;
    l.index = i;
    l.lane = i & 31;
    l.simdgroup = i >> 5;
    l.in_group[0] = i % m.size[0];
    l.in_group[1] = i / m.size[0] % m.size[1];
    l.in_group[2] = i / m.size[0] / m.size[1];
    for (int d = 0; d < 3; ++d) l.in_grid[d] = m.group[d] * m.nominal[d] + l.in_group[d];
  }
}

inline bool pass_barrier(Machine& m) {  // false when every thread has returned
  uint32_t waiting = 0;
  int line = -1;
  bool same = true;
  for (uint32_t i = 0; i < m.threads; ++i) {
    if (m.lanes[i].state != AT_BARRIER) continue;
    if (line < 0) line = m.lanes[i].line;
    same &= line == m.lanes[i].line;
    ++waiting;
  }
  if (!waiting) return false;
  if (waiting != m.threads || !same) {
    m.error = "threadgroup barrier in line " + std::to_string(line) + " met by " + std::to_string(waiting) + " of " +
              std::to_string(m.threads) + " threads";
    return false;
  }
  for (uint32_t i = 0; i < m.threads; ++i) m.lanes[i].state = READY;
  return true;
}

inline void run_threadgroup(Machine& m) {
  place_lanes(m);
  uint32_t simdgroups = (m.threads + 31) / 32, seed = m.options.order * 2654435761u + uint32_t(m.serial++) * 40503u + 1u;
  std::vector<Lane*> lanes(m.threads), order(m.threads);
  std::vector<uint32_t> turns(simdgroups);
  for (uint32_t i = 0; i < m.threads; ++i) lanes[i] = order[i] = &m.lanes[i];
  for (uint32_t s = 0; s < simdgroups; ++s) {
    uint32_t n = std::min(32u, m.threads - 32 * s);
    turns[s] = s;
    if (m.options.order == 1) std::reverse(&order[32 * s], &order[32 * s] + n);
    if (m.options.order > 1) shuffle(&order[32 * s], n, seed);
  }
  if (m.options.order == 1) std::reverse(turns.begin(), turns.end());
  if (m.options.order > 1) shuffle(turns.data(), simdgroups, seed);
  do {
    for (uint32_t s : turns) {
      run_simdgroup(m, &lanes[32 * s], &order[32 * s], int(std::min(32u, m.threads - 32 * s)));
      if (!m.error.empty()) return;
    }
  } while (pass_barrier(m));
}
}  // namespace shim
