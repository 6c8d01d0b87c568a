#include "image/xmp.h"

#include <array>
#include <utility>

#include "core/io/untrusted_text.h"

namespace volley::image {
namespace {

constexpr std::string_view kOpen = "<volley:run>", kClose = "</volley:run>";

constexpr std::array<std::pair<char, std::string_view>, 5> kEntities{
    {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&apos;"}}};

std::string escape(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    if (c == '&' || c == '<' || c == '>') {
      for (const auto& [plain, entity] : kEntities) {
        if (plain == c) escaped += entity;
      }
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace

std::string make_xmp(std::string_view record) {
  return "<?xpacket begin=\"\xEF\xBB\xBF\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
         "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">"
         "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">"
         "<rdf:Description rdf:about=\"\" xmlns:volley=\"urn:volley:run:1/\">" +
         std::string(kOpen) + escape(record) + std::string(kClose) +
         "</rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end=\"r\"?>";
}

Result<std::string> read_xmp_record(std::string_view packet) {
  const size_t open = packet.find(kOpen);
  if (open == std::string_view::npos) return Fault{"XMP holds no run record"};
  std::string_view rest = packet.substr(open + kOpen.size());
  const size_t close = rest.find(kClose);
  if (close == std::string_view::npos) return Fault{"XMP: the run record has no end"};
  if (rest.find(kOpen, close) != std::string_view::npos) return Fault{"XMP holds two run records"};
  rest = rest.substr(0, close);
  std::string record;
  while (!rest.empty()) {
    if (rest.front() != '&') {
      record += rest.front();
      rest.remove_prefix(1);
      continue;
    }
    bool is_known = false;
    for (const auto& [plain, entity] : kEntities) {
      if (!rest.starts_with(entity)) continue;
      record += plain;
      rest.remove_prefix(entity.size());
      is_known = true;
      break;
    }
    if (!is_known) return Fault{"XMP: unknown entity in the run record"};
  }
  if (!is_valid_utf8(record)) return Fault{"XMP: the run record is not UTF-8"};
  return record;
}

}  // namespace volley::image
