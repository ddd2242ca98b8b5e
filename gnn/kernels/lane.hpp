// SPDX-License-Identifier: MIT
// What a kernel body computes with.
//
// A *scalar* S is float, double, or Dual<float>, Dual<double>: a value and its derivative along one direction. A *lane* holds one S for each of
// `width` channels (or edges): on the CPU a SIMD vector, on a GPU a thread. Weights are plain numbers T = Base<S> whatever S is.
// Bodies are written once over Lane<S, W>; what crosses lanes is sum_over_lanes.
//
// The vectors are GCC's vector extension rather than std::experimental::simd: the same instructions, a tenth of the compile time, and shuffles,
// which sum_over_lanes needs.
#pragma once
// clang-format off (it would break every operator into three lines)
#include <cstdint>
#include <cstring>
#include <utility>

#include "gnn/kernels/scalar.hpp"

namespace adatom::gnn {

// ----------------------------------------------------------------------------------------------------------------- Vec
// GCC drops vector_size from types that depend on template parameters, so each width is spelled out.
template <class T, int W>
struct NativeVector;
#define ADATOM_NATIVE_VECTOR(T, I, W)                                                               \
  template <>                                                                                       \
  struct NativeVector<T, W> {                                                                       \
    typedef T type __attribute__((vector_size(W * sizeof(T))));                                     \
    typedef T unaligned __attribute__((vector_size(W * sizeof(T)), aligned(sizeof(T)), may_alias)); \
    typedef I integer __attribute__((vector_size(W * sizeof(T))));                                  \
  };
ADATOM_NATIVE_VECTOR(float, std::int32_t, 4)
ADATOM_NATIVE_VECTOR(float, std::int32_t, 8)
ADATOM_NATIVE_VECTOR(float, std::int32_t, 16)
ADATOM_NATIVE_VECTOR(double, std::int64_t, 2)
ADATOM_NATIVE_VECTOR(double, std::int64_t, 4)
ADATOM_NATIVE_VECTOR(double, std::int64_t, 8)
#undef ADATOM_NATIVE_VECTOR

/// W numbers that one instruction works on.
template <class T, int W>
struct Vec {
  using native = typename NativeVector<T, W>::type;
  native v;
  Vec() = default;
  ADATOM_INLINE Vec(native x) : v(x) {}
  ADATOM_INLINE Vec(T x) : v(x - native{}) {}
  ADATOM_INLINE T operator[](int i) const { return v[i]; }
};
template <class T, int W>
ADATOM_INLINE Vec<T, W> operator+(Vec<T, W> a, Vec<T, W> b) {
  return a.v + b.v;
}
template <class T, int W>
ADATOM_INLINE Vec<T, W> operator-(Vec<T, W> a, Vec<T, W> b) {
  return a.v - b.v;
}
template <class T, int W>
ADATOM_INLINE Vec<T, W> operator*(Vec<T, W> a, Vec<T, W> b) {
  return a.v * b.v;
}
template <class T, int W>
ADATOM_INLINE Vec<T, W> operator/(Vec<T, W> a, Vec<T, W> b) {
  return a.v / b.v;
}
template <class T, int W>
ADATOM_INLINE Vec<T, W> operator-(Vec<T, W> a) {
  return -a.v;
}
template <class T, int W, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
ADATOM_INLINE Vec<T, W> operator+(Vec<T, W> a, U b) {
  return a.v + static_cast<T>(b);
}
template <class T, int W, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
ADATOM_INLINE Vec<T, W> operator+(U b, Vec<T, W> a) {
  return a.v + static_cast<T>(b);
}
template <class T, int W, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
ADATOM_INLINE Vec<T, W> operator-(Vec<T, W> a, U b) {
  return a.v - static_cast<T>(b);
}
template <class T, int W, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
ADATOM_INLINE Vec<T, W> operator-(U b, Vec<T, W> a) {
  return static_cast<T>(b) - a.v;
}
template <class T, int W, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
ADATOM_INLINE Vec<T, W> operator*(Vec<T, W> a, U b) {
  return a.v * static_cast<T>(b);
}
template <class T, int W, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
ADATOM_INLINE Vec<T, W> operator*(U b, Vec<T, W> a) {
  return a.v * static_cast<T>(b);
}
template <class T, int W, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
ADATOM_INLINE Vec<T, W> operator/(Vec<T, W> a, U b) {
  return a.v / static_cast<T>(b);
}
template <class T, int W, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
ADATOM_INLINE Vec<T, W> operator/(U b, Vec<T, W> a) {
  return static_cast<T>(b) / a.v;
}
template <class T, int W>
ADATOM_INLINE Vec<T, W>& operator+=(Vec<T, W>& a, Vec<T, W> b) {
  return a = a + b;
}

#define ADATOM_ELEMENTWISE(f)                            \
  template <class T, int W>                              \
  ADATOM_INLINE Vec<T, W> f(Vec<T, W> a) {               \
    Vec<T, W> r;                                         \
    for (int i = 0; i < W; ++i) r.v[i] = std::f(a.v[i]); \
    return r;                                            \
  }
ADATOM_ELEMENTWISE(sqrt)
ADATOM_ELEMENTWISE(log)
ADATOM_ELEMENTWISE(sin)
ADATOM_ELEMENTWISE(cos)
ADATOM_ELEMENTWISE(tanh)
ADATOM_ELEMENTWISE(floor)
#undef ADATOM_ELEMENTWISE
template <class T, int W>
ADATOM_INLINE Vec<T, W> pow(Vec<T, W> a, double p) {
  Vec<T, W> r;
  for (int i = 0; i < W; ++i) r.v[i] = std::pow(a.v[i], static_cast<T>(p));
  return r;
}

/// The value without derivatives.
template <class T, int W>
ADATOM_INLINE Vec<T, W> value(Vec<T, W> a) {
  return a;
}

template <class T, int W>
ADATOM_INLINE auto less(Vec<T, W> a, double b) {
  return a.v < static_cast<T>(b);
}
template <class M, class T, int W>
ADATOM_INLINE Vec<T, W> select(M mask, Vec<T, W> a, Vec<T, W> b) {
  return Vec<T, W>(mask ? a.v : b.v);
}

/// e^x by 2^k p(f) with x = (k + f) ln 2, |f| <= 1/2, and a Taylor polynomial of f ln 2; error below 2 ulp, saturates instead of overflowing.
template <class T, int W>
ADATOM_INLINE Vec<T, W> exp(Vec<T, W> x) {
  using V = typename Vec<T, W>::native;
  using Int = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  using VI = typename NativeVector<T, W>::integer;
  constexpr T bound = sizeof(T) == 4 ? T(87.0) : T(708.0);
  V a = x.v;
  a = a < -bound ? V{} - bound : a;
  a = a > bound ? V{} + bound : a;
  constexpr T shifter = sizeof(T) == 4 ? T(12582912.0) : T(6755399441055744.0);  // 1.5 * 2^23 or 2^52: adding it rounds to an integer
  const V k = (a * T(1.44269504088896340736) + shifter) - shifter;
  constexpr T hi = sizeof(T) == 4 ? T(0.693359375) : T(0.693147180369123816490);
  constexpr T lo = sizeof(T) == 4 ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10);
  const V f = (a - k * hi) - k * lo;
  V p;
  if constexpr (sizeof(T) == 4) {
    p = f * T(1.0 / 5040) + T(1.0 / 720);
    p = p * f + T(1.0 / 120);
  } else {
    p = f * T(1.0 / 6227020800.0) + T(1.0 / 479001600.0);
    p = p * f + T(1.0 / 39916800.0);
    p = p * f + T(1.0 / 3628800.0);
    p = p * f + T(1.0 / 362880.0);
    p = p * f + T(1.0 / 40320.0);
    p = p * f + T(1.0 / 5040.0);
    p = p * f + T(1.0 / 720.0);
    p = p * f + T(1.0 / 120.0);
  }
  p = p * f + T(1.0 / 24);
  p = p * f + T(1.0 / 6);
  p = p * f + T(0.5);
  p = p * f + T(1);
  p = p * f + T(1);
  const VI exponent = __builtin_convertvector(k, VI) + Int(sizeof(T) == 4 ? 127 : 1023);
  const VI bits = exponent << (sizeof(T) == 4 ? 23 : 52);
  V scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

namespace detail {
template <class V, int... I>
ADATOM_INLINE V take_even(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I)...);
}
template <class V, int... I>
ADATOM_INLINE V take_odd(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I + 1)...);
}
template <class V, int... I>
ADATOM_INLINE V interleave_low(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + (I % 2) * int(sizeof...(I)))...);
}
template <class V, int... I>
ADATOM_INLINE V interleave_high(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + int(sizeof...(I)) / 2 + (I % 2) * int(sizeof...(I)))...);
}
}  // namespace detail

// ---------------------------------------------------------------------------------------------------------------- Lane
/// The lane of scalar S with W channels: `Number` is what a body computes with; loads and stores are of W consecutive S (or T).
template <class S, int W>
struct Lane {
  using Scalar = S;
  using T = Base<S>;
  using Number = Vec<T, W>;
  static constexpr int width = W;
  using native = typename Number::native;
  using unaligned = typename NativeVector<T, W>::unaligned;

  static ADATOM_INLINE Number uniform(T x) { return Number(x); }  ///< the same in all channels
  static ADATOM_INLINE Number load(const T* p) { return Number(native(*reinterpret_cast<const unaligned*>(p))); }
  static ADATOM_INLINE void store(T* p, Number x) { *reinterpret_cast<unaligned*>(p) = x.v; }
};

/// Dual scalars lie in memory as value, tangent, value, tangent, ...: an array of Dual<T>.
template <class T_, int W>
struct Lane<Dual<T_>, W> {
  using Scalar = Dual<T_>;
  using T = T_;
  using Half = Vec<T, W>;
  using Number = Dual<Half>;
  static constexpr int width = W;
  using native = typename Half::native;
  using unaligned = typename NativeVector<T, W>::unaligned;
  using Indices = std::make_integer_sequence<int, W>;

  static ADATOM_INLINE Number uniform(Scalar x) { return {Half(x.v), Half(x.d)}; }
  static ADATOM_INLINE Number load(const Scalar* p) {
    const native a = *reinterpret_cast<const unaligned*>(&p[0].v), b = *reinterpret_cast<const unaligned*>(&p[W / 2].v);
    return {Half(detail::take_even(a, b, Indices{})), Half(detail::take_odd(a, b, Indices{}))};
  }
  static ADATOM_INLINE Half load(const T* p) { return Half(native(*reinterpret_cast<const unaligned*>(p))); }
  static ADATOM_INLINE void store(Scalar* p, Number x) {
    *reinterpret_cast<unaligned*>(&p[0].v) = detail::interleave_low(x.v.v, x.d.v, Indices{});
    *reinterpret_cast<unaligned*>(&p[W / 2].v) = detail::interleave_high(x.v.v, x.d.v, Indices{});
  }
};

// Mixed products of lanes and uniform scalars.
template <class T, int W>
ADATOM_INLINE Dual<Vec<T, W>> operator*(Dual<Vec<T, W>> a, Dual<T> b) {
  return {a.v * b.v, a.v * b.d + a.d * b.v};
}
template <class T, int W>
ADATOM_INLINE Dual<Vec<T, W>> operator*(Vec<T, W> a, Dual<T> b) {
  return {a * b.v, a * b.d};
}

/// x[i][k] -> x[k][i]. A perfect shuffle of the two halves of the list, log2(W) times.
template <class T, int W>
ADATOM_INLINE void transpose(Vec<T, W> (&x)[W]) {
  using Indices = std::make_integer_sequence<int, W>;
#pragma GCC unroll 4
  for (int round = 1; round < W; round *= 2) {
    Vec<T, W> y[W];
#pragma GCC unroll 8
    for (int i = 0; i < W / 2; ++i) {
      y[2 * i] = detail::interleave_low(x[i].v, x[i + W / 2].v, Indices{});
      y[2 * i + 1] = detail::interleave_high(x[i].v, x[i + W / 2].v, Indices{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) x[i] = y[i];
  }
}
template <class T, int W>
ADATOM_INLINE void transpose(Dual<Vec<T, W>> (&x)[W]) {
  Vec<T, W> v[W], d[W];
  for (int i = 0; i < W; ++i) v[i] = x[i].v, d[i] = x[i].d;
  transpose(v);
  transpose(d);
  for (int i = 0; i < W; ++i) x[i] = {v[i], d[i]};
}

// One element of a lane.
template <class T, int W>
ADATOM_INLINE T element(Vec<T, W> x, int i) {
  return x.v[i];
}
template <class T, int W>
ADATOM_INLINE Dual<T> element(Dual<Vec<T, W>> x, int i) {
  return {x.v.v[i], x.d.v[i]};
}
template <class T, int W>
ADATOM_INLINE void set_element(Vec<T, W>& x, int i, T s) {
  x.v[i] = s;
}
template <class T, int W>
ADATOM_INLINE void set_element(Dual<Vec<T, W>>& x, int i, Dual<T> s) {
  x.v.v[i] = s.v, x.d.v[i] = s.d;
}

namespace detail {
template <class T, int W, int N>
ADATOM_INLINE void sum_vectors(Vec<T, W> (&x)[N], T (&out)[N]) {
  using Indices = std::make_integer_sequence<int, W>;
  constexpr int P = N <= 1 ? 1 : N <= 2 ? 2 : N <= 4 ? 4 : N <= 8 ? 8 : 16;  // next power of two
  static_assert(N <= 16);
  Vec<T, W> y[P];
  for (int i = 0; i < P; ++i) y[i] = i < N ? x[i] : Vec<T, W>(T(0));
  // Each round adds neighbouring lanes of two vectors into the halves of one. After log2 P rounds y[0] holds P groups of W/P lanes, ...
  int n = P, w = W;
#pragma GCC unroll 8
  for (; n > 1 && w > 1; n /= 2, w /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i)
      y[i] = Vec<T, W>(take_even(y[2 * i].v, y[2 * i + 1].v, Indices{})) + Vec<T, W>(take_odd(y[2 * i].v, y[2 * i + 1].v, Indices{}));
      // ... or, with more sums than lanes, n vectors of finished sums; ...
#pragma GCC unroll 8
  for (; w > 1; w /= 2) y[0] = Vec<T, W>(take_even(y[0].v, y[0].v, Indices{})) + Vec<T, W>(take_odd(y[0].v, y[0].v, Indices{}));
  for (int i = 0; i < N; ++i) out[i] = y[i / W].v[i % W];
}
}  // namespace detail

/// out[i] = sum of the lanes of x[i], in a fixed order.
template <class T, int W, int N>
ADATOM_INLINE void sum_over_lanes(Vec<T, W> (&x)[N], T (&out)[N]) {
  if constexpr (N <= 16) {
    detail::sum_vectors(x, out);
  } else {
    Vec<T, W> head[16], tail[N - 16];
    T head_sum[16], tail_sum[N - 16];
    for (int i = 0; i < 16; ++i) head[i] = x[i];
    for (int i = 16; i < N; ++i) tail[i - 16] = x[i];
    sum_over_lanes(head, head_sum);
    sum_over_lanes(tail, tail_sum);
    for (int i = 0; i < N; ++i) out[i] = i < 16 ? head_sum[i] : tail_sum[i - 16];
  }
}
template <class T, int W, int N>
ADATOM_INLINE void sum_over_lanes(Dual<Vec<T, W>> (&x)[N], Dual<T> (&out)[N]) {
  Vec<T, W> v[N], d[N];
  T vs[N], ds[N];
  for (int i = 0; i < N; ++i) v[i] = x[i].v, d[i] = x[i].d;
  sum_over_lanes(v, vs);
  sum_over_lanes(d, ds);
  for (int i = 0; i < N; ++i) out[i] = {vs[i], ds[i]};
}

}  // namespace adatom::gnn
