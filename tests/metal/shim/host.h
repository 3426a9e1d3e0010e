// Runs Metal Shading Language text on a processor: compile it after this header as C++17.
//
// g++ gives the execution; with clang the address spaces are real too, so that mixing them does not compile.
// Literals are float without a suffix: -fsingle-precision-constant, or -cl-single-precision-constant with clang.
#pragma once
#include <csetjmp>
#include <csignal>
#include <tuple>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "functions.h"

namespace shim {
struct Guarded { char *low, *high; int buffer; };
inline std::vector<Guarded>& guards() {
  static std::vector<Guarded> g;
  return g;
}
inline sigjmp_buf& escape() {
  static sigjmp_buf b;
  return b;
}

inline void on_fault(int, siginfo_t* info, void*) {
  Machine* m = machine();
  char* at = (char*)info->si_addr;
  m->error = "memory fault";
  for (auto& g : guards())
    if (at >= g.low && at < g.high) m->error = "buffer " + std::to_string(g.buffer) + " accessed out of bounds";
  siglongjmp(escape(), 1);
}

class Faults {  // reported as errors while it lives
 public:
  Faults() {
    static char stack[1 << 16];
    stack_t now{};
    now.ss_sp = stack;
    now.ss_size = sizeof stack;
    sigaltstack(&now, &old_stack_);
    struct sigaction act{};
    act.sa_sigaction = on_fault;
    act.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &act, &old_segv_);
    sigaction(SIGBUS, &act, &old_bus_);
  }
  ~Faults() {
    sigaction(SIGSEGV, &old_segv_, nullptr);
    sigaction(SIGBUS, &old_bus_, nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  stack_t old_stack_{};
  struct sigaction old_segv_, old_bus_;
};

class Flushing {  // subnormals of this thread, while it lives
 public:
  explicit Flushing(bool on) {
#if defined(__x86_64__)
    saved_ = _mm_getcsr();
    if (on) _mm_setcsr(saved_ | 0x8040u);
#else
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    if (on) asm volatile("msr fpcr, %0" ::"r"(saved_ | (1ull << 24)));
#endif
  }
  ~Flushing() {
#if defined(__x86_64__)
    _mm_setcsr(unsigned(saved_));
#else
    asm volatile("msr fpcr, %0" ::"r"(saved_));
#endif
  }

 private:
  uint64_t saved_ = 0;
};

inline uint64_t coprime_step(uint64_t n) {  // visits all of n threadgroups in an order that is not theirs
  for (uint64_t step = n * 5 / 8 | 1;; step += 2) {
    uint64_t a = step, b = n;
    while (b) std::swap(a %= b, b);
    if (a == 1) return step;
  }
}

inline void run_grid(Machine& m) {
  uint64_t total = uint64_t(m.groups[0]) * m.groups[1] * m.groups[2], step = coprime_step(total);
  for (uint64_t i = 0; i < total && m.error.empty(); ++i) {
    uint64_t t = m.options.order == 0 ? i : m.options.order == 1 ? total - 1 - i : (i * step + m.options.order) % total;
    uint64_t at[3] = {t % m.groups[0], t / m.groups[0] % m.groups[1], t / m.groups[0] / m.groups[1]};
    m.threads = 1;
    for (int d = 0; d < 3; ++d) {
      m.group[d] = uint32_t(at[d]);
      m.size[d] = std::min(m.nominal[d], m.grid[d] - m.group[d] * m.nominal[d]);
      m.threads *= m.size[d];
    }
    run_threadgroup(m);
  }
}

template <class F> int dispatch(const uint32_t* grid, const uint32_t* group, const Options& options, char* error, size_t n, F&& body) {
  Machine m;
  m.options = options;
  m.serial = next_dispatch();
  machine() = &m;
  m.body = [](void* f) { (*static_cast<std::remove_reference_t<F>*>(f))(); };
  m.context = (void*)&body;
  uint64_t threads = 1;
  for (int d = 0; d < 3; ++d) {
    m.grid[d] = grid[d];
    m.nominal[d] = std::min(group[d], grid[d]);
    if (m.nominal[d]) m.groups[d] = (grid[d] + m.nominal[d] - 1) / m.nominal[d];
    threads *= m.nominal[d];
  }
  if (threads == 0 || threads > 1024) m.error = "a threadgroup has 1 to 1024 threads";
  if (m.error.empty()) {
    Faults faults;
    Flushing flushing(options.flush);
    if (sigsetjmp(escape(), 1) == 0) run_grid(m);
  }
  for (auto& l : m.lanes)
    if (l.stack) munmap(l.stack, STACK + GUARD);
  machine() = nullptr;
  snprintf(error, n, "%s", m.error.c_str());
  return m.error.empty() ? 0 : 1;
}

// The type of parameter I of a kernel, and a buffer or an attribute as such.
template <int I, class F> struct parameter;
template <int I, class R, class... A> struct parameter<I, R(A...)> { using type = std::tuple_element_t<I, std::tuple<std::common_type<A>...>>; };
template <class T> struct buffer;
template <class T> struct buffer<std::common_type<T*>> { static T* get(void* p) { return (T*)p; } };
template <class T> struct buffer<std::common_type<T&>> { static T& get(void* p) { return *(T*)p; } };
}  // namespace shim

// A buffer whose end touches memory that can not be read.
extern "C" void* shim_allocate(size_t n, int buffer) {
  size_t page = size_t(sysconf(_SC_PAGESIZE)), body = (n + page - 1) / page * page + (n ? 0 : page);
  char* p = (char*)mmap(nullptr, body + 18 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
  if (p == (char*)MAP_FAILED) return nullptr;
  mprotect(p, page, PROT_NONE);
  mprotect(p + page + body, 17 * page, PROT_NONE);
  shim::guards().push_back({p, p + page, buffer});
  shim::guards().push_back({p + page + body, p + body + 18 * page, buffer});
  return p + page + (body - n);
}
extern "C" void shim_free(void* q, size_t n) {
  size_t page = size_t(sysconf(_SC_PAGESIZE)), body = (n + page - 1) / page * page + (n ? 0 : page);
  char* p = (char*)q - (body - n) - page;
  auto& g = shim::guards();
  g.erase(std::remove_if(g.begin(), g.end(), [&](auto& x) { return x.low == p || x.low == p + page + body; }), g.end());
  munmap(p, body + 18 * page);
}

using namespace metal;
#define __METAL_VERSION__ 310
#define METAL_FUNC inline
#define double metal_has_no_double
