// SPDX-License-Identifier: MIT
// Radial functions of an edge: distance transform, basis, cutoff function, radial MLP; the pair repulsion of close atoms.
//
// N is a number or a lane of them, with derivatives if it is Dual. These bodies fill the spline tables, and run per edge when splines are off.
#pragma once
#include <vector>

#include "gnn/kernels/scalar.hpp"

namespace adatom::gnn {

enum class Activation { identity, silu, shifted_softplus, tanh, abs, sigmoid, relu };

struct RadialBasis {
  enum class Type { bessel, gaussian, chebyshev } type = Type::bessel;
  std::vector<double> parameters;  ///< frequencies (1/angstrom) or centres (angstrom); of Chebyshev, only the number counts
  double factor = 0.0;             ///< prefactor of the Bessel functions, coefficient of the Gaussians
  int size() const { return static_cast<int>(parameters.size()); }
};

struct CutoffFunction {
  enum class Type { polynomial, xplor } type = Type::polynomial;
  double r_max = 0.0;  ///< angstrom
  double p = 5.0;      ///< of the polynomial
  double r_on = 0.0;   ///< of XPLOR, angstrom
};

struct DistanceTransform {
  enum class Type { none, agnesi, soft } type = Type::none;
  double q = 0.0, p = 0.0, a = 0.0;  ///< of Agnesi
  double alpha = 0.0;                ///< of Soft
};

/// Everything that the radial functions of a model share.
struct Radial {
  RadialBasis basis;
  CutoffFunction cutoff;
  DistanceTransform transform;
  bool cutoff_on_basis = true;
  bool depends_on_pair() const { return transform.type != DistanceTransform::Type::none; }
};

/// One layer of the radial MLP: x W + b, and, before the activation, a layer normalisation where norm_weight is not empty.
struct MlpLayer {
  int in = 0, out = 0;
  std::vector<double> weight;  ///< [in][out]
  std::vector<double> bias, norm_weight, norm_bias;
};

/// Ziegler, Biersack, Littmark (1985), with a polynomial cutoff at the sum of the covalent radii.
struct PairRepulsion {
  double p = 6.0, a_exp = 0.3, a_prefactor = 0.4543;
  double c[4] = {0.1818, 0.5099, 0.2802, 0.02817};
};

// Written so that neither values nor derivatives overflow for any finite x.
template <class N>
ADATOM_INLINE N sigmoid(N x) {
  return 1.0 / (exp(-x) + 1.0);
}
template <class T>
ADATOM_INLINE Dual<T> sigmoid(Dual<T> x) {
  const T s = sigmoid(x.v);
  return {s, x.d * (s * (T(1) - s))};
}
template <class N>
ADATOM_INLINE N softplus(N x) {
  const auto negative = less(value(x), 0.0);
  return select(negative, N(0), x) + log(exp(select(negative, x, -x)) + 1.0);
}
template <class T>
ADATOM_INLINE Dual<T> softplus(Dual<T> x) {
  return {softplus(x.v), x.d * sigmoid(x.v)};
}

template <class N>
ADATOM_INLINE N activate(Activation f, N x) {
  switch (f) {
    case Activation::silu: return x * sigmoid(x);
    case Activation::tanh: return tanh(x);
    case Activation::sigmoid: return sigmoid(x);
    case Activation::shifted_softplus: return softplus(x) - 0.69314718055994530942;
    case Activation::abs: return select(less(value(x), 0.0), -x, x);
    case Activation::relu: return select(less(value(x), 0.0), N(0), x);
    case Activation::identity: break;
  }
  return x;
}

/// act(x) and its derivative.
template <class N>
ADATOM_INLINE void activate_with_slope(Activation f, N x, N& y, N& slope) {
  const Dual<N> r = activate(f, Dual<N>(x, N(1)));
  y = r.v;
  slope = r.d;
}

/// 1 at r = 0, 0 with two vanishing derivatives at r_max (arXiv 2003.03123, eq. 8). The caller keeps r < r_max.
template <class N>
ADATOM_FUNCTION N polynomial_cutoff(N r, N r_max, double p) {
  const N x = r / r_max;
  return N(1) + pow(x, p) * ((x * (p * (p + 2.0)) - (p + 1.0) * (p + 2.0) / 2.0) - x * x * (p * (p + 1.0) / 2.0));
}

template <class N>
ADATOM_FUNCTION N cutoff_function(const CutoffFunction& f, N r) {
  if (f.type == CutoffFunction::Type::polynomial) return polynomial_cutoff(r, N(f.r_max), f.p);
  const double on2 = f.r_on * f.r_on, max2 = f.r_max * f.r_max, width = max2 - on2;
  const N r2 = r * r;
  const N outer = (max2 - r2) * (max2 - r2) * (r2 * 2.0 + (max2 - 3.0 * on2)) * (1.0 / (width * width * width));
  return select(less(value(r), f.r_on), N(1), outer);
}

/// `radii`: sum of the covalent radii of the pair, angstrom.
template <class N>
ADATOM_FUNCTION N distance_transform(const DistanceTransform& f, N r, N radii) {
  switch (f.type) {
    case DistanceTransform::Type::agnesi: {  // ACEpotentials.jl, doi 10.1063/5.0158783, in MACE's form
      const N x = r * 2.0 / radii;
      return N(1) / (N(1) + pow(x, f.q) * f.a / (N(1) + pow(x, f.q - f.p)));
    }
    case DistanceTransform::Type::soft: {
      const N p0 = radii * 0.75, p1 = radii * (4.0 / 3.0);
      const N s = (tanh((r - (p0 + p1) * 0.5) * f.alpha / (p1 - p0)) + 1.0) * 0.5;
      return (r - p0) * s + p0;
    }
    default: return r;
  }
}

/// Values of the basis functions at r, times the cutoff function where that belongs to them. Returns the factor that the MLP's output still needs.
/// `radial`: a Radial, or what stands for it on a device.
template <class R, class N>
ADATOM_FUNCTION N radial_basis(const R& radial, N r, N radii, N* basis) {
  const auto& b = radial.basis;
  const N cut = cutoff_function(radial.cutoff, r);
  const N x = distance_transform(radial.transform, r, radii);
  const int n = b.size();
  for (int i = 0; i < n; ++i) {
    switch (b.type) {
      case RadialBasis::Type::bessel: basis[i] = sin(x * b.parameters[i]) * b.factor / x; break;
      case RadialBasis::Type::gaussian: basis[i] = exp((x - b.parameters[i]) * (x - b.parameters[i]) * b.factor); break;
      case RadialBasis::Type::chebyshev:  // T_1..T_n by the recursion T_{k+1} = 2 x T_k - T_{k-1}
        basis[i] = i == 0 ? x : i == 1 ? x * x * 2.0 - 1.0 : x * basis[i - 1] * 2.0 - basis[i - 2];
        break;
    }
  }
  if (radial.cutoff_on_basis)
    for (int i = 0; i < n; ++i) basis[i] = basis[i] * cut;
  return radial.cutoff_on_basis ? N(1) : cut;
}

/// Activations after the hidden layers of a radial MLP. `x` holds `size` inputs and then the result, whose number is left in `size`; `x` and
/// `scratch` have room for the widest layer.
template <class N>
void hidden_layers(const std::vector<MlpLayer>& layers, Activation activation, N* x, N* scratch, int& size) {
  for (const MlpLayer& layer : layers) {
    for (int o = 0; o < layer.out; ++o) {
      N sum = layer.bias.empty() ? N(0) : N(layer.bias[o]);
      for (int i = 0; i < layer.in; ++i) sum = sum + x[i] * layer.weight[std::size_t(i) * layer.out + o];
      scratch[o] = sum;
    }
    if (!layer.norm_weight.empty()) {
      N mean(0), variance(0);
      for (int o = 0; o < layer.out; ++o) mean = mean + scratch[o];
      mean = mean * (1.0 / layer.out);
      for (int o = 0; o < layer.out; ++o) variance = variance + (scratch[o] - mean) * (scratch[o] - mean);
      const N inverse = N(1) / sqrt(variance * (1.0 / layer.out) + 1e-5);
      for (int o = 0; o < layer.out; ++o) scratch[o] = (scratch[o] - mean) * inverse * layer.norm_weight[o] + layer.norm_bias[o];
    }
    for (int o = 0; o < layer.out; ++o) x[o] = activate(activation, scratch[o]);
    size = layer.out;
  }
}

/// Half of the pair's energy (each of the two edges of a pair adds it to its receiver), eV; r in angstrom.
template <class N>
ADATOM_FUNCTION N pair_repulsion(const PairRepulsion& zbl, N r, int z_i, int z_j, N radii) {
  const double a = zbl.a_prefactor * 0.529 / (std::pow(z_i, zbl.a_exp) + std::pow(z_j, zbl.a_exp));
  const N x = r * (1.0 / a);
  const N phi = exp(x * -3.2) * zbl.c[0] + exp(x * -0.9423) * zbl.c[1] + exp(x * -0.4028) * zbl.c[2] + exp(x * -0.2016) * zbl.c[3];
  return phi * (0.5 * 14.3996 * z_i * z_j) / r * polynomial_cutoff(r, radii, zbl.p);
}

}  // namespace adatom::gnn
