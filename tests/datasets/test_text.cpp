// SPDX-License-Identifier: MIT
#include <cmath>

#include "datasets/key_values.hpp"
#include "datasets/xxhash.hpp"
#include "frames.hpp"

using namespace adatom::datasets;
using namespace adatom::datasets::test;

TEST_CASE("text: numbers") {
  const auto number = [](const char* text) {
    double value = -7;
    REQUIRE(parse_number(text, value));
    return value;
  };
  CHECK(number("1.5") == 1.5);
  CHECK(number("+2") == 2.0);
  CHECK(number("-1e-3") == -1e-3);
  CHECK(number("1.0D-03") == 1e-3);
  CHECK(number("-2.5d+2") == -250.0);
  CHECK(number(".5") == 0.5);
  CHECK(number("5.") == 5.0);
  CHECK(number("1e-400") == 0.0);
  CHECK(std::isnan(number("nan")));
  CHECK(std::isnan(number("NaN")));
  CHECK(std::isinf(number("-Inf")));
  double value;
  for (const char* bad : {"", "+", "++1", "+-1", "1.5x", "1,5", "1e", "0x10", "1e400", "D", "one", "1.0D-03D", "--1"}) CHECK_FALSE(parse_number(bad, value));
  std::int64_t whole;
  CHECK((parse_number("12", whole) && whole == 12));
  CHECK_FALSE(parse_number("12.0", whole));
}

TEST_CASE("text: written numbers read back to the same bits") {
  for (const double value : {0.1, -1.0 / 3, 1e-300, 6.02214076e23, -0.0, 123456789.123456789, 5e-324}) {
    double again = 1;
    REQUIRE(parse_number(number_text(value), again));
    CHECK(again == value);
    CHECK(std::signbit(again) == std::signbit(value));
  }
}

TEST_CASE("text: lines, their ends and their places") {
  const Folder folder;
  const std::string text =
      "\xef\xbb\xbf"
      "one\r\n\ntwo\nlast";
  write_bytes(folder / "t", text);
  LineReader lines(folder / "t");
  std::string_view line;
  REQUIRE(lines.next(line));
  CHECK(line == "one");
  CHECK((lines.begin() == 3 && lines.end() == 8 && lines.number() == 1));
  REQUIRE(lines.next(line));
  CHECK(line.empty());
  REQUIRE(lines.next(line));
  CHECK((line == "two" && lines.begin() == 9 && lines.number() == 3));
  lines.put_back();
  CHECK((lines.number() == 2 && lines.end() == 9));
  REQUIRE(lines.next(line));
  CHECK((line == "two" && lines.begin() == 9 && lines.number() == 3));
  REQUIRE(lines.next(line));
  CHECK((line == "last" && lines.end() == text.size()));
  CHECK_FALSE(lines.next(line));
  CHECK_FALSE(lines.next(line));
}

TEST_CASE("text: lines longer than the block and lines across blocks") {
  const Folder folder;
  std::string text;
  std::vector<std::string> expected;
  for (int i = 0; i < 400; ++i) {
    expected.emplace_back(static_cast<std::size_t>(i * i * 37 % 20011 + (i == 200 ? 3000000 : 0)), static_cast<char>('a' + i % 26));
    text += expected.back() + "\n";
  }
  write_bytes(folder / "t", text);
  LineReader lines(folder / "t");
  std::string_view line;
  std::size_t same = 0;
  for (const std::string& one : expected) same += lines.next(line) && line == one;
  CHECK(same == expected.size());
  CHECK(lines.end() == text.size());
  CHECK_FALSE(lines.next(line));
}

TEST_CASE("text: keys and values") {
  std::vector<KeyValue> pairs;
  const auto parsed = [&pairs](const char* text) {
    parse_key_values(text, pairs);
    std::string result;
    for (const KeyValue& pair : pairs) result += pair.bare ? "<" + pair.key + ">" : "<" + pair.key + "|" + pair.value + ">";
    return result;
  };
  CHECK(parsed("") == "");
  CHECK(parsed("a=1 b=two") == "<a|1><b|two>");
  CHECK(parsed("  a = 1\tb =2 c= 3 ") == "<a|1><b|2><c|3>");
  CHECK(parsed("a=\"1 2\" b='3 4' c={5 6} d=[7, 8]") == "<a|1 2><b|3 4><c|5 6><d|7, 8>");
  CHECK(parsed("a=[[1, 2], [3, 4]] flag e=5") == "<a|[1, 2], [3, 4]><flag><e|5>");
  CHECK(parsed(R"(a="say \"hi\"" b="back\\slash")") == R"(<a|say "hi"><b|back\slash>)");
  CHECK(parsed("\"two words\"=3") == "<two words|3>");
  CHECK(parsed("a=b=c") == "<a|b=c>");
  CHECK(parsed("a=") == "<a|>");
  CHECK(parsed("a=\"\" b=1") == "<a|><b|1>");
  CHECK(parsed("Joe's molecule, \"made by hand") == "<Joe's><molecule,><\"made><by><hand>");
  CHECK(parsed("i = 3, time = 1.5, E = -17.2") == "<i|3,><time|1.5,><E|-17.2>");
  CHECK_THROWS_WITH(parsed("a=1 b=\"2 3"), Catch::Contains("key 'b' begins with \" but has no closing \""));
  CHECK_THROWS_WITH(parsed("a=[1 2"), Catch::Contains("no closing ]"));
  for (const char* value : {"", "plain", "two words", "a\"b", "a\\b", "x=y", "{c}", "it's", "1,2"}) {
    parse_key_values("k=" + quote_value(value) + " after=1", pairs);
    REQUIRE(pairs.size() == 2);
    CHECK(pairs[0].value == value);
  }
}

TEST_CASE("text: XXH64 of known texts") {
  // From the reference implementation's `xxhsum -H1`.
  const auto hash = [](const std::string& text) { return xxhash64(text.data(), text.size()); };
  CHECK(hash("") == 0xef46db3751d8e999);
  CHECK(hash("a") == 0xd24ec4f1a98c6e5b);
  CHECK(hash("abc") == 0x44bc2cf5ad770999);
  CHECK(hash("xxhash") == 0x32dd38952c4bc720);
  CHECK(hash("Call me Ishmael. Some years ago--never mind how long precisely-") == 0x02a2e85470d6fd96);
}

TEST_CASE("text: XXH64 of bytes that come in pieces") {
  std::string bytes;
  for (int k = 0; k < 200; ++k) bytes += static_cast<char>(k * 37);
  for (std::size_t n = 0; n <= bytes.size(); ++n)
    for (const std::size_t piece : {1, 7, 31, 32, 33, 64, 100}) {
      XxHash64 hash(5);
      for (std::size_t at = 0; at < n; at += piece) hash.update(bytes.data() + at, std::min(piece, n - at));
      CHECK(hash.digest() == xxhash64(bytes.data(), n, 5));
    }
}

TEST_CASE("text: bytes that are no UTF-8") {
  for (const char* good : {"", "plain", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) CHECK(to_utf8(good) == good);
  CHECK(to_utf8("D\xfcsseldorf") == "D\xc3\xbcsseldorf");
  CHECK(to_utf8("\xc3") == "\xc3\x83");
  CHECK(to_utf8("\xc0\x80") == "\xc3\x80\xc2\x80");
  for (const char* bad : {"\xed\xa0\x80", "\xf4\x90\x80\x80z", "\xe2\x82z"}) CHECK(to_utf8(bad).size() > std::string(bad).size());
}
