// SPDX-License-Identifier: MIT
#include <algorithm>
#include <map>
#include <set>

#include "datasets/random.hpp"
#include "datasets/splits.hpp"
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;

namespace {

std::vector<int> split(const std::vector<Frame>& frames, const SplitOptions& options) {
  Splitter splitter(options);
  for (std::size_t i = 0; i < frames.size(); ++i) splitter.add(frames[i], {0, static_cast<std::int64_t>(i)});
  return splitter.finish();
}

std::vector<Frame> many(int n) {
  std::vector<Frame> frames;
  for (int i = 0; i < n; ++i) {
    frames.push_back(random_frame(2, static_cast<unsigned>(i)));
    frames.back().group = "run " + std::to_string(i / 7);
  }
  return frames;
}

std::vector<int> sizes(const std::vector<int>& parts, int n) {
  std::vector<int> counts(static_cast<std::size_t>(n));
  for (const int p : parts) ++counts.at(static_cast<std::size_t>(p));
  return counts;
}

}  // namespace

TEST_CASE("random: the published sequences") {
  // SplitMix64 from state 1234567, as in many test suites (e.g. Rosetta Code).
  std::uint64_t state = 1234567;
  for (const std::uint64_t expected : {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u, 16408922859458223821u}) {
    CHECK(scatter(state) == expected);
    state += 0x9E3779B97F4A7C15;
  }
}

TEST_CASE("random: uniform, and a permutation") {
  Random random(3);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts[random.below(7)];
  for (const int count : counts) CHECK(std::abs(count - 10000) < 400);  // four standard deviations
  CHECK(Random(3).below(1) == 0);
  const auto order = shuffled(1000, 5);
  CHECK(std::set(order.begin(), order.end()).size() == 1000);
  CHECK(order != shuffled(1000, 6));
  CHECK(order == shuffled(1000, 5));
  CHECK(shuffled(0, 1).empty());
}

TEST_CASE("splits: single frames have exactly the sizes asked for, the same for the same seed") {
  const auto frames = many(103);
  const auto parts = split(frames, {.parts = {0.8, 0.1, 0.1}, .seed = 4});
  CHECK(sizes(parts, 3) == std::vector<int>{82, 11, 10});
  CHECK(parts == split(frames, {.parts = {0.8, 0.1, 0.1}, .seed = 4}));
  CHECK(parts != split(frames, {.parts = {0.8, 0.1, 0.1}, .seed = 5}));
  CHECK(sizes(split(frames, {.parts = {0, 7}}), 2) == std::vector<int>{96, 7});
  CHECK(sizes(split(frames, {.parts = {100, 3}}), 2) == std::vector<int>{100, 3});
  // Fixed for all machines: a change of it would change everybody's splits.
  std::vector<std::size_t> test;
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (parts[i] == 2) test.push_back(i);
  CHECK(test == std::vector<std::size_t>{7, 17, 22, 23, 31, 41, 42, 52, 53, 80});
}

TEST_CASE("splits: groups, config types and blocks are never cut") {
  const auto frames = many(140);
  const auto whole = [](const std::vector<int>& parts, auto key) {
    std::map<decltype(key(std::size_t{})), std::set<int>> seen;
    for (std::size_t i = 0; i < parts.size(); ++i) seen[key(i)].insert(parts[i]);
    return std::all_of(seen.begin(), seen.end(), [](const auto& entry) { return entry.second.size() == 1; });
  };
  const auto by_group = split(frames, {.parts = {0.7, 0.3}, .group_by = GroupBy::group});
  CHECK(whole(by_group, [&](std::size_t i) { return frames[i].group; }));
  CHECK(sizes(by_group, 2) == std::vector<int>{98, 42});
  const auto by_type = split(frames, {.parts = {0.6, 0.4}, .group_by = GroupBy::config_type});
  CHECK(whole(by_type, [&](std::size_t i) { return frames[i].config_type; }));
  const auto by_block = split(frames, {.parts = {0.5, 0.5}, .seed = 1, .group_by = GroupBy::block, .block = 20});
  CHECK(whole(by_block, [](std::size_t i) { return i / 20; }));
  CHECK_FALSE(whole(split(frames, {.parts = {0.5, 0.5}}), [](std::size_t i) { return i / 20; }));
}

TEST_CASE("splits: no copy of a structure is on the other side, and it ties its group") {
  auto frames = many(60);
  for (int i = 0; i < 20; ++i) frames.push_back(frames[static_cast<std::size_t>(i)]), frames.back().group = "copy " + std::to_string(i);
  for (unsigned seed = 0; seed < 5; ++seed) {
    const auto parts = split(frames, {.parts = {0.5, 0.5}, .seed = seed});
    for (std::size_t i = 0; i < 20; ++i) CHECK(parts[i] == parts[60 + i]);
  }
  const auto parts = split(frames, {.parts = {0.5, 0.5}, .group_by = GroupBy::group});
  for (std::size_t i = 0; i < 20; ++i) CHECK(parts[60 + i] == parts[i / 7 * 7]);
}

TEST_CASE("splits: near-duplicates stay together when asked to") {
  std::vector<Frame> frames;
  for (unsigned seed = 0; seed < 30; ++seed) {
    Frame frame = random_frame(3, seed);
    frame.structure.cell = {}, frame.structure.pbc = {}, frame.stress.reset();
    frame.structure.numbers = {8, 1, 1};
    for (int i = 0; i < 3; ++i) frame.structure.positions[i] = {1.5 * i, 0.1 * (seed % 6), 0.2 * (seed / 6) * i};
    frames.push_back(frame);
    for (Vector3& r : frame.structure.positions) r = {r[1], -r[0], r[2] + 5};
    frames.push_back(frame);
  }
  int apart = 0;
  const auto together = split(frames, {.parts = {0.5, 0.5}, .near_duplicates = true}), plain = split(frames, {.parts = {0.5, 0.5}});
  for (std::size_t i = 0; i < frames.size(); i += 2) {
    CHECK(together[i] == together[i + 1]);
    apart += plain[i] != plain[i + 1];
  }
  CHECK(apart > 5);
}

TEST_CASE("splits: isolated atoms go to the first part") {
  auto frames = many(20);
  for (const std::size_t i : {3, 17}) {
    frames[i] = Frame();
    frames[i].structure.numbers = {6};
    frames[i].structure.positions = {{0.1 * static_cast<double>(i), 0, 0}};
  }
  for (unsigned seed = 0; seed < 10; ++seed) {
    const auto parts = split(frames, {.parts = {0.5, 0.5}, .seed = seed, .group_by = GroupBy::group});
    CHECK((parts[3] == 0 && parts[17] == 0));
  }
}

TEST_CASE("splits: errors") {
  const auto frames = many(20);
  CHECK_THROWS_WITH(split(frames, {.parts = {1.0}}), Catch::Contains("at least 2 parts, got 1"));
  CHECK_THROWS_WITH(split(frames, {.parts = {1.5, -0.5}}), Catch::Contains("a part of a split is -0.5"));
  CHECK_THROWS_WITH(split(frames, {.parts = {0.5, 0.4}}), Catch::Contains("split of 20 frames into parts of 0.5, 0.4: expected shares that add up to 1"));
  CHECK_THROWS_WITH(split(frames, {.parts = {30, 10}}), Catch::Contains("numbers of frames that add up to all of them"));
  CHECK_THROWS_WITH(split(frames, {.parts = {0, 0}}), Catch::Contains("0 for one part"));
  CHECK_THROWS_WITH(split(frames, {.parts = {0.5, 0.5}, .group_by = GroupBy::block, .block = 0}), Catch::Contains("blocks of 0 frames"));
  CHECK_THROWS_WITH(split(frames, {.parts = {0.99, 0.01}}), Catch::Contains("part 1 of the split is empty: 20 frames in 20 groups"));
  auto one_group = frames;
  for (Frame& frame : one_group) frame.group = "all";
  CHECK_THROWS_WITH(split(one_group, {.parts = {0.5, 0.5}, .group_by = GroupBy::group}),
                    Catch::Contains("part 1 of the split is empty: 20 frames in 1 groups"));
}
