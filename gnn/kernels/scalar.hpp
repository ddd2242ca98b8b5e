// SPDX-License-Identifier: MIT
// Scalars that kernel bodies compute with: float, double, and Dual<float>, Dual<double>, a value and its derivative along one direction.
// For host and device; vectors of them are in gnn/kernels/lane.hpp.
#pragma once
// clang-format off (it would break every operator into three lines)
#include <cmath>
#include <type_traits>

#ifdef __CUDACC__
#define ADATOM_INLINE __host__ __device__ __forceinline__
#define ADATOM_FUNCTION __host__ __device__
#else
#define ADATOM_INLINE inline __attribute__((always_inline))
#define ADATOM_FUNCTION
#endif

namespace adatom::gnn {

// ---------------------------------------------------------------------------------------------------------------- Dual
/// v + d eps with eps^2 = 0: `d` is the derivative of `v` along the direction that the inputs' `d` describe.
template <class T>
struct Dual {
  T v{}, d{};
  Dual() = default;
  ADATOM_INLINE constexpr Dual(T value) : v(value), d{} {}
  ADATOM_INLINE constexpr Dual(T value, T tangent) : v(value), d(tangent) {}
  template <class U, class = std::enable_if_t<std::is_arithmetic_v<U> && !std::is_same_v<U, T>>>
  ADATOM_INLINE constexpr Dual(U value) : v(static_cast<T>(value)), d{} {}
};

template <class S>
struct BaseOf {
  using type = S;
};
template <class T>
struct BaseOf<Dual<T>> {
  using type = typename BaseOf<T>::type;
};
template <class S>
using Base = typename BaseOf<S>::type;  ///< the number type under any nesting of Dual

template <class S>
inline constexpr bool is_dual = false;
template <class T>
inline constexpr bool is_dual<Dual<T>> = true;

template <class T>
ADATOM_INLINE Dual<T> operator+(Dual<T> a, Dual<T> b) {
  return {a.v + b.v, a.d + b.d};
}
template <class T>
ADATOM_INLINE Dual<T> operator-(Dual<T> a, Dual<T> b) {
  return {a.v - b.v, a.d - b.d};
}
template <class T>
ADATOM_INLINE Dual<T> operator-(Dual<T> a) {
  return {-a.v, -a.d};
}
template <class T>
ADATOM_INLINE Dual<T> operator*(Dual<T> a, Dual<T> b) {
  return {a.v * b.v, a.v * b.d + a.d * b.v};
}
template <class T>
ADATOM_INLINE Dual<T> operator/(Dual<T> a, Dual<T> b) {
  const T q = a.v / b.v;
  return {q, (a.d - q * b.d) / b.v};
}
// Products with numbers that carry no derivative cost half.
template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U> || std::is_same_v<U, T>>>
ADATOM_INLINE Dual<T> operator*(Dual<T> a, U b) {
  return {T(a.v * b), T(a.d * b)};
}
template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U> || std::is_same_v<U, T>>>
ADATOM_INLINE Dual<T> operator*(U b, Dual<T> a) {
  return {T(a.v * b), T(a.d * b)};
}
template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U> || std::is_same_v<U, T>>>
ADATOM_INLINE Dual<T> operator+(Dual<T> a, U b) {
  return {T(a.v + b), a.d};
}
template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U> || std::is_same_v<U, T>>>
ADATOM_INLINE Dual<T> operator+(U b, Dual<T> a) {
  return {T(a.v + b), a.d};
}
template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U> || std::is_same_v<U, T>>>
ADATOM_INLINE Dual<T> operator-(Dual<T> a, U b) {
  return {T(a.v - b), a.d};
}
template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U> || std::is_same_v<U, T>>>
ADATOM_INLINE Dual<T> operator-(U b, Dual<T> a) {
  return {T(b - a.v), -a.d};
}
template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U> || std::is_same_v<U, T>>>
ADATOM_INLINE Dual<T> operator/(Dual<T> a, U b) {
  return {T(a.v / b), T(a.d / b)};
}
template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U> || std::is_same_v<U, T>>>
ADATOM_INLINE Dual<T> operator/(U b, Dual<T> a) {
  return Dual<T>(T(b)) / a;
}
template <class T, class U>
ADATOM_INLINE Dual<T>& operator+=(Dual<T>& a, U b) {
  return a = a + b;
}
template <class T, class U>
ADATOM_INLINE Dual<T>& operator*=(Dual<T>& a, U b) {
  return a = a * b;
}

// Functions of numbers. Found by argument-dependent look-up for Dual and Vec, by these using-declarations for float and double.
using std::cos;
using std::exp;
using std::log;
using std::pow;
using std::sin;
using std::sqrt;
using std::tanh;

ADATOM_INLINE float pow(float a, double p) { return std::pow(a, static_cast<float>(p)); }  ///< a constant exponent

template <class T>
ADATOM_FUNCTION Dual<T> sqrt(Dual<T> a) {
  const T s = sqrt(a.v);
  return {s, a.d * (T(0.5) / s)};
}
template <class T>
ADATOM_FUNCTION Dual<T> exp(Dual<T> a) {
  const T e = exp(a.v);
  return {e, a.d * e};
}
template <class T>
ADATOM_FUNCTION Dual<T> log(Dual<T> a) {
  return {log(a.v), a.d / a.v};
}
template <class T>
ADATOM_FUNCTION Dual<T> sin(Dual<T> a) {
  return {sin(a.v), a.d * cos(a.v)};
}
template <class T>
ADATOM_FUNCTION Dual<T> cos(Dual<T> a) {
  return {cos(a.v), -(a.d * sin(a.v))};
}
template <class T>
ADATOM_FUNCTION Dual<T> tanh(Dual<T> a) {
  const T t = tanh(a.v);
  return {t, a.d * (T(1) - t * t)};
}
/// a^p for a constant exponent.
template <class T>
ADATOM_FUNCTION Dual<T> pow(Dual<T> a, double p) {
  return {pow(a.v, p), a.d * T(pow(a.v, p - 1.0) * p)};
}

/// The value without derivatives.
ADATOM_INLINE float value(float a) { return a; }
ADATOM_INLINE double value(double a) { return a; }
template <class T>
ADATOM_INLINE auto value(Dual<T> a) {
  return value(a.v);
}

// Branches, lane by lane: select(less(x, bound), a, b).
ADATOM_INLINE bool less(double a, double b) { return a < b; }
ADATOM_INLINE float select(bool mask, float a, float b) { return mask ? a : b; }
ADATOM_INLINE double select(bool mask, double a, double b) { return mask ? a : b; }
template <class M, class T>
ADATOM_INLINE Dual<T> select(M mask, Dual<T> a, Dual<T> b) {
  return {select(mask, a.v, b.v), select(mask, a.d, b.d)};
}

/// a + b * c, contracted to a fused multiply-add.
template <class A, class B, class C>
ADATOM_INLINE A fma(A a, B b, C c) {
  return a + b * c;
}

/// Derivative of a b.
template <class T>
ADATOM_INLINE T tangent_of_product(Dual<T> a, Dual<T> b) {
  return a.v * b.d + a.d * b.v;
}

// ---------------------------------------------------------------------------------------------------------------- Real
/// One number, whose products with constants stay in its own precision (in C++ float * 2.0 is a double): a lane of width one, which is a thread of a GPU.
template <class T>
struct Real {
  T v;
  Real() = default;
  template <class U, class = std::enable_if_t<std::is_arithmetic_v<U>>>
  ADATOM_INLINE constexpr Real(U x) : v(static_cast<T>(x)) {}
};
template <class T>
ADATOM_INLINE Real<T> operator-(Real<T> a) {
  return -a.v;
}
#define ADATOM_REAL_OPERATOR(op)                                                 \
  template <class T>                                                             \
  ADATOM_INLINE Real<T> operator op(Real<T> a, Real<T> b) {                      \
    return a.v op b.v;                                                           \
  }                                                                              \
  template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>> \
  ADATOM_INLINE Real<T> operator op(Real<T> a, U b) {                            \
    return a.v op static_cast<T>(b);                                             \
  }                                                                              \
  template <class T, class U, class = std::enable_if_t<std::is_arithmetic_v<U>>> \
  ADATOM_INLINE Real<T> operator op(U a, Real<T> b) {                            \
    return static_cast<T>(a) op b.v;                                             \
  }
ADATOM_REAL_OPERATOR(+)
ADATOM_REAL_OPERATOR(-)
ADATOM_REAL_OPERATOR(*)
ADATOM_REAL_OPERATOR(/)
#undef ADATOM_REAL_OPERATOR
#define ADATOM_REAL_FUNCTION(f)        \
  template <class T>                   \
  ADATOM_INLINE Real<T> f(Real<T> a) { \
    return std::f(a.v);                \
  }
ADATOM_REAL_FUNCTION(sqrt)
ADATOM_REAL_FUNCTION(exp)
ADATOM_REAL_FUNCTION(log)
ADATOM_REAL_FUNCTION(sin)
ADATOM_REAL_FUNCTION(cos)
ADATOM_REAL_FUNCTION(tanh)
#undef ADATOM_REAL_FUNCTION
template <class T>
ADATOM_INLINE Real<T> pow(Real<T> a, double p) {
  return std::pow(a.v, static_cast<T>(p));
}
template <class T>
ADATOM_INLINE T value(Real<T> a) {
  return a.v;
}
template <class T>
ADATOM_INLINE Real<T> select(bool mask, Real<T> a, Real<T> b) {
  return mask ? a : b;
}

template <class S>
struct NumberType {
  using type = Real<S>;
};
template <class T>
struct NumberType<Dual<T>> {
  using type = Dual<typename NumberType<T>::type>;
};
/// What a lane of width one computes with for the scalar S; both look the same in memory.
template <class S>
using NumberOf = typename NumberType<S>::type;
template <class T>
ADATOM_INLINE Real<T> number(T x) {
  return x;
}
template <class T>
ADATOM_INLINE auto number(Dual<T> x) {
  return Dual<decltype(number(x.v))>(number(x.v), number(x.d));
}
template <class T>
ADATOM_INLINE T scalar(Real<T> x) {
  return x.v;
}
template <class N>
ADATOM_INLINE auto scalar(Dual<N> x) {
  return Dual<decltype(scalar(x.v))>(scalar(x.v), scalar(x.d));
}

}  // namespace adatom::gnn
