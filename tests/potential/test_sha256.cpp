// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>
#include <string>

#include "potential/sha256.hpp"

namespace {

std::string sha256(const std::string& text, std::size_t piece) {
  adatom::Sha256 hash;
  for (std::size_t at = 0; at < text.size(); at += piece) hash.update(text.data() + at, std::min(piece, text.size() - at));
  return hash.hex();
}

}  // namespace

// Examples of FIPS 180-4 (NIST, "SHA256.pdf" of the examples with intermediate values, and the million of letters).
TEST_CASE("sha256: published examples, in pieces of any size") {
  for (const std::size_t piece : {1, 3, 55, 64, 65, 100000}) {
    CHECK(sha256("", piece) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc", piece) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", piece) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(sha256(std::string(1000000, 'a'), piece) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}
