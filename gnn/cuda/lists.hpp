// SPDX-License-Identifier: MIT
// Neighbour lists on the device: what is launched in which order (gnn/cuda/search.hpp), and where it lies.
#pragma once
#include <cstdint>
#include <limits>

#include "gnn/cuda/contract.hpp"
#include "gnn/cuda/runtime.hpp"
#include "gnn/cuda/search.hpp"

namespace adatom::gnn::cuda {

class NeighbourLists {
 public:
  /// Atoms, and groups of nodes, which stay when atoms move.
  void set_atoms(Stream& stream, const StructureView& view, int species_count, const std::vector<NodeGroup>& groups) {
    atoms_ = view.first_atom[view.structures];
    species_count_ = species_count;
    std::vector<int> species(view.species, view.species + atoms_), structure(atoms_);
    for (int s = 0; s < view.structures; ++s) std::fill(structure.begin() + view.first_atom[s], structure.begin() + view.first_atom[s + 1], s);
    fixed_.begin();
    in_.species = fixed_.add(species);
    in_.structure = fixed_.add(structure);
    groups_ = fixed_.add(groups);
    fixed_.upload(stream);
    stream.synchronize();
    boxes_.clear();
  }

  /// Whether the last build was for these cells and range.
  bool fits(const StructureView& view) const {
    if (boxes_.size() != static_cast<std::size_t>(view.structures) || range_ != view.range) return false;
    for (int s = 0; s < view.structures; ++s)
      if (!std::equal(std::begin(boxes_[s].box.vectors), std::end(boxes_[s].box.vectors), view.boxes[s].vectors) ||
          !std::equal(std::begin(boxes_[s].box.periodic), std::end(boxes_[s].box.periodic), view.boxes[s].periodic))
        return false;
    return true;
  }

  /// Lists of the positions, which lie in host memory that the device reaches. Waits. Throws std::invalid_argument for a position that is impossible.
  /// `receivers`: also the receiver of each edge.
  void build(Stream& stream, const StructureView& view, const double* positions, bool receivers) {
    set_boxes(stream, view);
    place_nodes();
    const std::int64_t n = atoms_, keys = std::int64_t(species_count_) * in_.bins, runs = n * species_count_;
    const int none = std::numeric_limits<int>::max();
    *host_status_ = none;
    stream.upload(status_, host_status_, sizeof(int));
    stream.upload(positions_, positions, 3 * n * sizeof(double));
    in_.positions = positions_;
    stream.clear(first_, (keys + 1) * sizeof(int));
    stream.each(AssignBins{in_, key_, atom_offset_, first_, status_}, n);
    scan(stream, first_, keys + 1, totals_);
    stream.clear(used_, keys * sizeof(int));
    stream.each(PlaceByKey{key_, first_, used_, slots_}, n);
    stream.each(SortByKey{key_, first_, slots_, node_}, n);
    stream.each(NumberNodes{in_, node_, key_, atom_offset_, species_, structure_, bin_, offset_, reference_}, n);

    FindEdges find;
    find.in = in_;
    find.first = first_, find.structure = structure_, find.bin = bin_, find.x = reference_, find.runs = run_edge_;
    stream.clear(run_edge_ + runs, sizeof(int));
    stream.teams(find, n);
    scan(stream, run_edge_, runs + 1, totals_);
    stream.each(NumberEdges{run_edge_, species_count_, first_edge_, first_run_}, n + 1);
    stream.download(host_status_, status_, sizeof(int));
    stream.download(host_status_ + 1, run_edge_ + runs, sizeof(int));
    stream.synchronize();
    if (host_status_[0] != none)
      throw std::invalid_argument("atom " + std::to_string(host_status_[0]) +
                                  " has a position that is not finite (NaN, infinite), or so far away that it has lost its digits: wrap it into the cell");
    edges_ = host_status_[1];
    if (edges_ < 0) throw std::runtime_error("the neighbour list has more than 2^31 edges, more than a CUDA device takes: use more devices");
    place_edges(receivers);
    find.sender = sender_, find.image = image_, find.receiver = receiver_;
    stream.teams(find, n);
    stream.clear(first_sent_, (n + 1) * sizeof(int));
    stream.each(CountKeys{sender_, first_sent_}, edges_);
    scan(stream, first_sent_, n + 1, totals_);
    stream.clear(used_, n * sizeof(int));
    stream.each(PlaceByKey{sender_, first_sent_, used_, sent_slots_}, edges_);
    stream.each(SortByKey{sender_, first_sent_, sent_slots_, sent_edge_}, edges_);
  }

  /// As the device sees it; positions are not set.
  DeviceGraph graph() const {
    DeviceGraph g;
    g.receivers = g.nodes = atoms_;
    g.node = node_, g.species = species_;
    g.first_edge = first_edge_, g.sender = sender_;
    g.first_run = first_run_, g.run_edge = run_edge_;
    g.first_sent = first_sent_, g.sent_edge = sent_edge_;
    g.image = image_, g.structure = structure_, g.boxes = device_boxes_;
    return g;
  }
  const double* offset() const { return offset_; }
  const double* reference() const { return reference_; }
  const int* receiver() const { return receiver_; }
  const NodeGroup* groups() const { return groups_; }
  int edges() const { return edges_; }
  int edge_room() const { return edge_room_; }  ///< at least edges(); stays while lists become a little longer
  std::size_t bytes() const { return nodes_arena_.bytes() + edges_arena_.bytes(); }

  /// Exclusive sums, in place. `totals`: room for the sums of blocks of all levels.
  static void scan(Stream& stream, int* values, std::int64_t count, int* totals) {
    const std::int64_t blocks = (count + ScanBlock::block_size - 1) / ScanBlock::block_size;
    stream.teams(ScanBlock{values, count, totals}, blocks, ScanBlock::shared(), ScanBlock::threads);
    if (blocks <= 1) return;
    scan(stream, totals, blocks, totals + blocks);
    stream.each(AddBlockSums{values, totals}, count);
  }

 private:
  void set_boxes(Stream& stream, const StructureView& view) {
    boxes_.clear();  // an error must not leave what looks complete
    std::vector<DeviceBox> boxes;
    std::int64_t bins = 0;
    for (int s = 0; s < view.structures; ++s) {
      const SearchBox& box = view.boxes[s];
      boxes.push_back({box, static_cast<int>(bins)});
      bins += std::int64_t(box.bins[0]) * box.bins[1] * box.bins[2];
    }
    if (bins * species_count_ > std::numeric_limits<int>::max())
      throw std::runtime_error("the structures have more bins than a CUDA device numbers: evaluate fewer at once");
    box_store_.begin();
    device_boxes_ = box_store_.add(boxes);
    box_store_.upload(stream);
    in_.boxes = device_boxes_;
    in_.bins = static_cast<int>(bins), in_.species_count = species_count_;
    in_.range2 = view.range * view.range;
    boxes_ = std::move(boxes);
    range_ = view.range;
  }

  void place_nodes() {
    const std::size_t n = atoms_, keys = std::size_t(species_count_) * in_.bins;
    host_arena_.forget();
    host_arena_.add(host_status_, 2);
    host_arena_.commit();
    nodes_arena_.forget();
    const auto add = [&](auto& p, std::size_t count) { nodes_arena_.add(p, count); };
    add(key_, n), add(slots_, n), add(node_, n), add(species_, n), add(structure_, n), add(bin_, n);
    add(atom_offset_, 3 * n), add(offset_, 3 * n), add(reference_, 3 * n), add(positions_, 3 * n);
    add(first_edge_, n + 1), add(first_run_, n + 1), add(first_sent_, n + 1), add(run_edge_, n * species_count_ + 1);
    add(first_, keys + 1), add(used_, std::max(keys, n)), add(status_, 1);
    add(totals_, total_blocks(std::max(keys, n * species_count_) + 1));
    nodes_arena_.commit();
  }

  void place_edges(bool receivers) {
    if (edges_ <= edge_room_ && receivers == (receiver_ != nullptr)) return;
    edge_room_ = 0;
    const std::int64_t room = std::int64_t(edges_) + edges_ / 8 + 64;
    const std::size_t count = std::min<std::int64_t>(room, std::numeric_limits<int>::max());
    edges_arena_.forget();
    edges_arena_.add(sender_, count), edges_arena_.add(image_, count), edges_arena_.add(sent_edge_, count), edges_arena_.add(sent_slots_, count);
    edges_arena_.add(receiver_, receivers ? count : 0);
    edges_arena_.commit();
    edge_room_ = static_cast<int>(count);
  }

  static std::size_t total_blocks(std::size_t count) {
    std::size_t total = 0;
    while (count > 1) count = (count + ScanBlock::block_size - 1) / ScanBlock::block_size, total += count;
    return total + 1;
  }

  Store fixed_, box_store_;
  Arena nodes_arena_, edges_arena_, host_arena_{true};
  SearchInput in_;
  const NodeGroup* groups_ = nullptr;
  const DeviceBox* device_boxes_ = nullptr;
  std::vector<DeviceBox> boxes_;  // of the last build
  double range_ = 0.0;
  int atoms_ = 0, species_count_ = 0, edges_ = 0, edge_room_ = 0;
  int *key_ = nullptr, *slots_ = nullptr, *node_ = nullptr, *species_ = nullptr, *structure_ = nullptr, *bin_ = nullptr, *first_edge_ = nullptr,
      *first_run_ = nullptr, *first_sent_ = nullptr, *run_edge_ = nullptr, *first_ = nullptr, *used_ = nullptr, *totals_ = nullptr, *status_ = nullptr,
      *host_status_ = nullptr;
  int *sender_ = nullptr, *image_ = nullptr, *sent_edge_ = nullptr, *sent_slots_ = nullptr, *receiver_ = nullptr;
  double *atom_offset_ = nullptr, *offset_ = nullptr, *reference_ = nullptr, *positions_ = nullptr;
};

}  // namespace adatom::gnn::cuda
