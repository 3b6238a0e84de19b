// GPT-2's table of bytes and printable characters. See bpe_model.h.
#include "common/core/error.h"
#include "common/tokenizer/bpe_model.h"
#include "common/tokenizer/split.h"

namespace llm {
namespace {

// The characters of Latin-1 that can be seen: neither controls nor spaces nor the soft hyphen.
constexpr bool printable(int b) {
  return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xff && b != 0xad);
}

struct Tables {
  std::array<std::int32_t, 256> to_unicode{};
  std::array<std::uint8_t, 256> order{};
  std::array<std::int32_t, 512> to_byte{};  // of a code point; -1 if it stands for no byte
};

Tables make_tables() {
  Tables t;
  t.to_byte.fill(-1);
  std::size_t next = 0;
  for (int b = 0; b < 256; ++b)
    if (printable(b)) t.order[next++] = static_cast<std::uint8_t>(b);
  std::int32_t unused = 256;
  for (int b = 0; b < 256; ++b)
    if (!printable(b)) t.order[next++] = static_cast<std::uint8_t>(b);
  for (int b = 0; b < 256; ++b) {
    const std::int32_t c = printable(b) ? b : unused++;
    t.to_unicode[static_cast<std::size_t>(b)] = c;
    t.to_byte[static_cast<std::size_t>(c)] = b;
  }
  return t;
}

const Tables& tables() {
  static const Tables t = make_tables();
  return t;
}

}  // namespace

const std::array<std::int32_t, 256>& byte_to_unicode() {
  return tables().to_unicode;
}

const std::array<std::uint8_t, 256>& byte_order() {
  return tables().order;
}

std::string spell_bytes(std::string_view bytes) {
  std::string spelling;
  for (const char byte : bytes) {
    const std::int32_t c = tables().to_unicode[static_cast<unsigned char>(byte)];
    if (c < 0x80) {
      spelling += static_cast<char>(c);
    } else {  // all are below U+0800: two bytes of UTF-8
      spelling += static_cast<char>(0xc0 | c >> 6);
      spelling += static_cast<char>(0x80 | (c & 0x3f));
    }
  }
  return spelling;
}

std::string unspell_bytes(std::string_view spelling) {
  std::string bytes;
  for (std::size_t i = 0; i < spelling.size();) {
    const Character c = character_at(spelling, i);
    const bool known = c.code_point >= 0 && c.code_point < 512 &&
                       tables().to_byte[static_cast<std::size_t>(c.code_point)] >= 0;
    check(known,
          "the token \"{}\" has a character (byte {} of it) that stands for no byte in GPT-2's spelling",
          spelling, i);
    bytes += static_cast<char>(tables().to_byte[static_cast<std::size_t>(c.code_point)]);
    i += c.length;
  }
  return bytes;
}

}  // namespace llm
