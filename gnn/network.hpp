// SPDX-License-Identifier: MIT
// The assembled network: a model file's weights, merged and laid out for evaluation, in double. The backends convert it to their precision.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "gnn/detectors.hpp"
#include "gnn/evaluator.hpp"
#include "gnn/irreps.hpp"
#include "gnn/kernels/radial.hpp"
#include "gnn/matrix.hpp"

namespace adatom::gnn {

/// Largest degree of edge harmonics and features.
inline constexpr int max_edge_l = 3;

/// Where the rows of one irrep lie in a node's features: row m at offset + m * channels.
struct FeatureBlock {
  Irrep ir;
  int channels = 0;  ///< padded
  int offset = 0;
  int row(int m) const { return offset + m * channels; }
};

/// Layout [l, m][channel] of a node's features; one block per kind of irrep.
struct FeatureLayout {
  std::vector<FeatureBlock> blocks;
  int size = 0;  ///< scalars per node
  const FeatureBlock* find(Irrep ir) const;
  FeatureBlock& add(Irrep ir, int channels);  ///< channels: padded
};

/// y[m] = x[m] W for the rows m of one irrep, with one W for all nodes or one per element of the node.
struct LinearPart {
  Irrep ir;
  int in = 0, out = 0;           ///< offsets of row 0 in the input's and the output's features
  int in_row = 0, out_row = 0;   ///< distance of rows: channels of the blocks
  std::vector<Matrix> matrices;  ///< one, or one per element
};

struct LinearMap {
  std::vector<LinearPart> parts;
  int bias_offset = 0;       ///< of the 0e row of the output
  std::vector<double> bias;  ///< of the 0e row; empty without
  int bias_id = -1;
  bool empty() const { return parts.empty() && bias.empty(); }
};

/// C[m1][m2][m3] of a path, nonzero entries.
struct CouplingTerm {
  int m1, m2, m3;
  double c;
};

/// One path of a convolution: A[l3] += R(r) C (h[l1], Y[l2]).
struct ConvolutionPath {
  int l1, l2, l3;
  int in, in_row;    ///< offset of row 0 and distance of rows in the sender's features
  int out, out_row;  ///< the same in A
  int channels;      ///< padded
  int radial;        ///< first column of this path's radial functions
  std::vector<CouplingTerm> coupling;
};

/// Radial functions f_c(r) tabulated as quintic B-splines on [0, cutoff]: one spline, or two that meet with equal value and slope where the second
/// derivative of the functions jumps (as XPLOR's cutoff function makes it). For models whose radial functions depend on the pair of elements there is
/// one table per pair.
struct SplineTable {
  int functions = 0;  ///< padded
  struct Segment {
    double begin, h;  ///< angstrom
    int intervals;
    int first;  ///< row of its first coefficient; it has intervals + 5
  };
  std::vector<Segment> segments;
  int rows = 0;                                   ///< coefficients per function, over all segments
  std::vector<std::vector<double>> coefficients;  ///< [pair][rows][functions]
  double error = 0.0;                             ///< largest deviation found, relative to the largest value
  int id = -1;
};

/// Sums r_i = c_i + sum_j c_ij x_j + sum_n c_in p_n, one for each of some inputs i, where p_n are products of two inputs.
struct ContractionRows {
  struct Row {
    int input, pairs_end, triples_end;
  };  ///< ends (exclusive) in `pairs` and `triples`; they begin where the previous row's ended
  std::vector<Row> rows;
  std::vector<int> pairs;    ///< j
  std::vector<int> triples;  ///< n
  /// Number of coefficients: for each row c_i, then those of its pairs, then those of its triples.
  int coefficients = 0;
};

/// One component m of one irrep of the contraction's output, as a polynomial of the inputs x: its value is sum_i x_i r_i over `value`, its gradient
/// dvalue/dx_i = r_i over `gradient`.
struct ContractionComponent {
  int out = 0;  ///< offset of the row in the product's features
  ContractionRows value, gradient;
  std::vector<std::vector<double>> value_coefficients, gradient_coefficients;  ///< [element or 1][coefficient * channels + channel]
  std::vector<int> ids;                                                        ///< of value_coefficients
};

struct Contraction {
  static constexpr std::size_t most_inputs = 32;     ///< both parities of degrees up to 3
  static constexpr std::size_t most_products = 256;  ///< for which the kernels have room

  int channels = 0;                          ///< padded
  std::vector<int> inputs;                   ///< offset in the message of each x_i's row
  std::vector<std::array<int, 2>> products;  ///< p_n = x_a x_b
  std::vector<ContractionComponent> components;
  FeatureLayout out;
};

/// Gate: scalars are activated; blocks of higher l are multiplied with activated gate channels.
struct Gate {
  struct Scalars {
    int in, out, channels;
    Activation activation;
    double factor;
  };  ///< channels: padded
  struct Gated {
    int gate, in, out, rows, channels, in_row = 0, out_row = 0;
  };  ///< gate: offset of the gate channels in the input
  std::vector<Scalars> scalars;
  std::vector<Gated> gated;
  Activation activation = Activation::silu;
  double factor = 1.0;
};

/// E_i += MLP of the 0e channels.
struct Readout {
  std::vector<MlpLayer> layers;  ///< in of the first: 0e channels of the features, not padded
  Activation activation = Activation::silu;
  int in = 0;                             ///< offset of the 0e row
  std::vector<int> weight_ids, bias_ids;  ///< of each layer; those of biases -1 where there is none
};

struct Layer {
  FeatureLayout in_layout;                            ///< features before the layer (later layers)
  FeatureLayout conv_layout;                          ///< the sender's features; in the first layer they depend on its element alone
  LinearMap up;                                       ///< from the previous features; empty in the first layer
  std::vector<std::vector<double>> species_features;  ///< training, first layer: [species][conv_layout.size], the senders' features
  int species_features_id = -1;

  // Radial functions of all paths: R = phi M, phi = the last hidden activations of the radial MLP (times the cutoff function where it applies to
  // the MLP's output).
  std::vector<MlpLayer> radial_mlp;  ///< all layers but the last
  Activation radial_activation = Activation::silu;
  bool radial_constant = false;  ///< phi has a last function 1, for the bias of the MLP's last layer
  int hidden = 0;                ///< functions phi, padded
  Matrix radial_matrix;          ///< M [hidden][columns], columns padded per path
  SplineTable table;             ///< with splines: of R in later layers; in the first layer of a few combinations of phi that span R

  // Convolution of later layers; in training of all.
  std::vector<ConvolutionPath> paths;
  FeatureLayout mid_layout;  ///< A: for each irrep the channels of its paths, one path after the other

  // First layer: message = sum over elements z of senders, functions c:  G[z][c] * sum over edges phi_c(r) Y_lm(e).
  // [element of receiver or 1][element of sender]: from B [lm][c] (c fastest, `element_functions` of them) to the message.
  int element_functions = 0;  ///< padded
  std::vector<std::vector<LinearMap>> element_linear;
  /// Whether this is a first layer in that form; first layers of networks for training have paths.
  bool merged() const { return !element_linear.empty(); }

  std::vector<double> density;  ///< [basis] weights of the edge density; empty without
  SplineTable density_table;    ///< with splines: one function (padded)

  FeatureLayout message_layout;
  LinearMap linear;        ///< from A, with the message's skip merged; in the first layer only its bias
  LinearMap message_skip;  ///< training: the message's skip, not merged

  // Update.
  bool contracts = false;
  Contraction contraction;
  LinearMap product;  ///< from the contraction to the features
  Gate gate;
  FeatureLayout update_layout;                 ///< what the skip adds to: the features, or the gate's input
  LinearMap skip;                              ///< of the layer's input features; empty without, and in the first layer (skip_bias)
  std::vector<std::vector<double>> skip_bias;  ///< first layer: [element][update_layout.size], what the skip adds
  int skip_bias_id = -1;
  FeatureLayout out_layout;  ///< features after the layer

  bool has_readout = false;
  Readout readout;
  std::vector<int> scalars;  ///< offsets in out_layout of the 0e channels, without padding
};

struct Network {
  std::vector<int> elements;     ///< atomic numbers of the species
  double cutoff = 0.0;           ///< angstrom
  int l_max = 0;                 ///< of the edge harmonics
  bool solid_harmonics = false;  ///< harmonics of the edge vector instead of its direction: r^l Y_lm
  bool splines = true;
  Radial radial;
  std::vector<double> radii;  ///< covalent radius per species, where something uses it
  bool repels = false;
  PairRepulsion repulsion;
  std::vector<double> energy_offset;  ///< per species, eV: reference energy and shift
  std::vector<double> scale;          ///< per species
  std::vector<Layer> layers;
  std::string summary;
  std::optional<Detectors> detectors;

  // Assembled for training, tensors are not merged with each other: every array is a linear function of one tensor, or made by gnn/assembly.hpp.
  bool trainable = false;
  std::vector<std::size_t> array_sizes;  ///< of the arrays that have an id

  int species() const { return static_cast<int>(elements.size()); }
  /// Scalar features of a node, over all layers.
  int features() const {
    std::size_t n = 0;
    for (const Layer& layer : layers) n += layer.scalars.size();
    return static_cast<int>(n);
  }
  /// Row of a spline table for a pair: 0 where radial functions do not depend on it.
  int pair(int receiver, int sender) const {
    if (!radial.depends_on_pair()) return 0;
    const int a = receiver < sender ? receiver : sender, b = receiver < sender ? sender : receiver;
    return b * (b + 1) / 2 + a;
  }
  /// Sum of the covalent radii of a pair, angstrom; 0 where radial functions do not depend on it.
  double pair_radii(int pair) const {
    if (!radial.depends_on_pair()) return 0.0;
    int b = 0;
    while ((b + 1) * (b + 2) / 2 <= pair) ++b;
    return radii[b] + radii[pair - b * (b + 1) / 2];
  }
  int pairs() const { return radial.depends_on_pair() ? species() * (species() + 1) / 2 : 1; }
};

}  // namespace adatom::gnn
