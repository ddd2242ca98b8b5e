// SPDX-License-Identifier: MIT
#include <cstring>
#include <limits>

#include "datasets/cache.hpp"
#include "datasets/xxhash.hpp"
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;
using Catch::Contains;

namespace {

std::string good_bytes() {
  static const std::string bytes = [] {
    const Folder folder;
    CacheWriter writer(folder / "c");
    for (unsigned seed = 0; seed < 4; ++seed) writer.add(random_frame(3, seed));
    writer.commit();
    return read_bytes(folder / "c");
  }();
  return bytes;
}

/// The message with which a cache of these bytes is refused, on opening or on reading its frames.
std::string refusal(const std::string& bytes) {
  static const Folder folder;
  write_bytes(folder / "c.cache", bytes);
  try {
    CacheReader(folder / "c.cache").verify();
  } catch (const DataError& error) {
    const std::string start = "training cache '" + (folder / "c.cache").string() + "': ";
    CHECK_THAT(error.what(), Catch::StartsWith(start));
    return std::string(error.what()).substr(start.size());
  }
  return "it was read";
}

const auto damaged = Contains("the file is damaged or was cut; make it again with `adatom data convert`");

/// Changes the foot and its checksum: what a program that writes nonsense would do.
template <class Change>
std::string with_foot(Change change) {
  using cache_format::Foot;
  std::string bytes = good_bytes();
  Foot foot;
  std::memcpy(&foot, bytes.data() + bytes.size() - sizeof(foot), sizeof(foot));
  change(foot);
  foot.foot_checksum = xxhash64(&foot, offsetof(Foot, foot_checksum));
  std::memcpy(bytes.data() + bytes.size() - sizeof(foot), &foot, sizeof(foot));
  return bytes;
}

}  // namespace

TEST_CASE("cache errors: no file, empty, foreign, newer") {
  const Folder folder;
  CHECK(refusal(good_bytes()) == "it was read");
  CHECK_THROWS_WITH(CacheReader(folder / "none"), Contains("cannot open it: No such file or directory"));
  CHECK_THROWS_WITH(CacheReader(folder.path), Contains("it is a folder"));
  CHECK_THAT(refusal(""), Contains("it is empty"));
  CHECK_THAT(refusal("8\nLattice="), Contains("it is no training cache: it begins with '8?Lattic'") && Contains("`adatom data convert`"));
  CHECK_THAT(refusal(std::string("\x93NUMPY\x01\x00", 8)), Contains("it is no training cache"));
  std::string bytes = good_bytes();
  bytes[8] = 2;
  CHECK_THAT(refusal(bytes), Contains("its format version is 2, this Adatom reads up to 1: update Adatom"));
  bytes[8] = 0;
  CHECK_THAT(refusal(bytes), Contains("its format version is 0"));
}

TEST_CASE("cache errors: truncated anywhere, or longer") {
  const std::string good = good_bytes();
  CHECK_THAT(refusal(good.substr(0, 10)), damaged || Contains("format version"));
  CHECK_THAT(refusal(good.substr(0, 40)), Contains("it has only 40 bytes") && damaged);
  CHECK_THAT(refusal(good.substr(0, good.size() / 2)), Contains("its last bytes are not those of a cache") && damaged);
  int read = 0;
  for (std::size_t n = 0; n < good.size(); ++n) read += refusal(good.substr(0, n)) == "it was read";
  CHECK(read == 0);
  CHECK_THAT(refusal(good + std::string(8, '\0')), damaged);
  CHECK_THAT(refusal(good + good), Contains("bytes, expected") && damaged);
}

TEST_CASE("cache errors: every flipped bit is found") {
  const std::string good = good_bytes();
  int read = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1 << at % 8);
    read += refusal(bad) == "it was read";
  }
  CHECK(read == 0);
}

TEST_CASE("cache errors: the frame that is damaged is named, others can be read") {
  const Folder folder;
  std::string bytes = good_bytes();
  bytes[16 + 3 * cache_format::record_bytes(3, 127) - 200] ^= 1;  // in frame 2
  write_bytes(folder / "c", bytes);
  const CacheReader cache(folder / "c");
  CHECK_NOTHROW(cache.read(1));
  CHECK_NOTHROW(cache.read(3));
  CHECK_THROWS_WITH(cache.read(2), Contains("the checksum of frame 2 is wrong"));
  CHECK_THROWS_WITH(cache.verify(), Contains("frame 2"));
}

TEST_CASE("cache errors: a foot that contradicts itself") {
  const auto contradicts = Contains("its foot contradicts itself");
  CHECK_THAT(refusal(with_foot([](auto& foot) { foot.frames = ~0ull; })), contradicts);
  CHECK_THAT(refusal(with_foot([](auto& foot) { foot.index_offset = ~0ull - 7; })), contradicts);
  CHECK_THAT(refusal(with_foot([](auto& foot) { foot.metadata_offset = 0; })), contradicts);
  CHECK_THAT(refusal(with_foot([](auto& foot) { foot.metadata_bytes = ~0ull; })), contradicts);
  CHECK_THAT(refusal(with_foot([](auto& foot) { foot.frames -= 1, foot.metadata_offset -= 32; })), Contains("the checksum of its index is wrong"));
}

TEST_CASE("cache errors: what cannot be trained on does not get in") {
  const Folder folder;
  CacheWriter writer(folder / "c");
  writer.add(random_frame(3, 1));
  Frame frame = random_frame(3, 2);
  frame.forces[1][2] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(writer.add(frame), Contains("c: frame 1 (of those written) cannot be trained on: the force on atom 1 is ("));
  CHECK_THROWS_AS(CacheWriter(folder / "d", "[1]"), DataError);
  CHECK_THROWS_WITH(CacheWriter((folder / "none") / "d"), Contains("cannot write"));
}
