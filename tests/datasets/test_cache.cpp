// SPDX-License-Identifier: MIT
#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "datasets/cache.hpp"
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;

namespace {

std::vector<Frame> some_frames() {
  std::vector<Frame> frames;
  for (unsigned seed = 0; seed < 30; ++seed) frames.push_back(random_frame(1 + static_cast<int>(seed * 7) % 20, seed));
  frames[3].energy.reset(), frames[4].forces.clear(), frames[5].stress.reset(), frames[6].charges.clear();
  frames[7].structure.pbc = {}, frames[7].structure.cell = {}, frames[7].stress.reset();
  frames[8].structure.numbers[0] = 118;
  return frames;
}

void write_cache(const std::filesystem::path& file, const std::vector<Frame>& frames) {
  CacheWriter writer(file, R"({"source":"a test"})");
  for (const Frame& frame : frames) writer.add(frame);
  writer.commit();
}

}  // namespace

TEST_CASE("cache: what goes in comes out, in any order") {
  const Folder folder;
  const auto frames = some_frames();
  write_cache(folder / "c", frames);
  CHECK(folder.files() == 1);
  const CacheReader cache(folder / "c");
  REQUIRE(cache.size() == frames.size());
  Frame frame;
  for (std::size_t k = 0; k < frames.size(); ++k) {
    const std::size_t i = k * 17 % frames.size();
    cache.read(i, frame);
    check_same(frame, frames[i]);
    CHECK(cache.atoms(i) == static_cast<int>(frames[i].size()));
    CHECK(cache.has_energy(i) == frames[i].energy.has_value());
    CHECK(cache.has_forces(i) == !frames[i].forces.empty());
    CHECK(cache.has_stress(i) == frames[i].stress.has_value());
    CHECK(cache.heads()[cache.head(i)] == frames[i].head);
    CHECK(cache.config_types()[cache.config_type(i)] == frames[i].config_type);
  }
  CHECK(cache.heads() == std::vector<std::string>{"", "pbe"});
  CHECK(cache.elements() == std::vector<int>{1, 6, 8, 29, 118});
  CHECK(nlohmann::json::parse(cache.provenance()) == nlohmann::json{{"source", "a test"}});
  CHECK_NOTHROW(cache.verify());
  CHECK_THROWS_AS(cache.read(frames.size()), std::out_of_range);
  const auto streamed = read_all(folder / "c");
  REQUIRE(streamed.size() == frames.size());
  for (std::size_t i = 0; i < frames.size(); ++i) check_same(streamed[i], frames[i]);
}

TEST_CASE("cache: the same frames give the same bytes, other frames another hash") {
  const Folder folder;
  auto frames = some_frames();
  write_cache(folder / "a", frames);
  write_cache(folder / "b", frames);
  CHECK(read_bytes(folder / "a") == read_bytes(folder / "b"));
  CHECK(CacheReader(folder / "a").hash() == CacheReader(folder / "b").hash());
  const std::string hash = CacheReader(folder / "a").hash();
  CHECK(hash.size() == 16);
  frames[9].forces[0][0] = std::nextafter(frames[9].forces[0][0], 100.0);
  write_cache(folder / "b", frames);
  CHECK(CacheReader(folder / "b").hash() != hash);
}

TEST_CASE("cache: without frames") {
  const Folder folder;
  write_cache(folder / "c", {});
  CHECK(CacheReader(folder / "c").size() == 0);
  CHECK(read_all(folder / "c").empty());
}

TEST_CASE("cache: several threads read at once") {
  const Folder folder;
  const auto frames = some_frames();
  write_cache(folder / "c", frames);
  const CacheReader cache(folder / "c");
  std::vector<int> same(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int k = 0; k < 500; ++k) {
        const auto i = static_cast<std::size_t>(k * 7 + t) % frames.size();
        same[t] += cache.read(i).structure.positions == frames[i].structure.positions;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(same == std::vector<int>(4, 500));
}

TEST_CASE("cache: replaces a file at commit only; its reader keeps the old one") {
  const Folder folder;
  write_cache(folder / "c", some_frames());
  const CacheReader old(folder / "c");
  {
    CacheWriter writer(folder / "c");
    writer.add(random_frame(2, 1));
  }
  CHECK(CacheReader(folder / "c").size() == 30);
  write_cache(folder / "c", {random_frame(2, 1)});
  CHECK(CacheReader(folder / "c").size() == 1);
  CHECK(old.read(29).size() == some_frames()[29].size());
}
