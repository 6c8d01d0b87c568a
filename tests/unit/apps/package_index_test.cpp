#include "apps/package_index.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace volley::apps {
namespace {

const std::string kHash(64, 'a');

std::string page_with(const std::string& file) {
  return R"({"meta": {"api-version": "1.1"}, "name": "pkg", "files": [)" + file + "]}";
}

std::string fault_of(std::string_view type, const std::string& body) {
  const auto files = parse_index_page(type, body);
  return files.ok() ? "" : files.fault().message;
}

TEST(PackageIndex, JsonPages) {
  const nlohmann::json page{
      {"meta", {{"api-version", "1.0"}}},
      {"files",
       {{{"filename", "p-1.whl"}, {"url", "../p-1.whl"}, {"hashes", {{"sha256", std::string(64, 'A')}}}},
        {{"filename", "p-2.tar.gz"},
         {"url", "https://h/p-2.tar.gz"},
         {"hashes", {{"md5", "00"}}},
         {"yanked", true},
         {"size", 7}}}}};
  for (const char* type : {"application/vnd.pypi.simple.v1+json", "application/json"}) {
    const auto files = parse_index_page(type, page.dump()).value_or_throw(type);
    ASSERT_EQ(files.size(), 2u);
    EXPECT_EQ(files[0].name, "p-1.whl");
    EXPECT_EQ(files[0].url, "../p-1.whl");
    EXPECT_EQ(files[0].sha256, kHash) << "in lower case";
    EXPECT_EQ(files[1].url, "https://h/p-2.tar.gz");
    EXPECT_EQ(files[1].sha256, "");
  }
}

// Each is read once: a search to the page's end for every one would take hours.
TEST(PackageIndex, AmpersandsWithoutEndAreText) {
  const std::string many(4 << 20, '&');
  const auto files =
      parse_index_page("text/html", "<a href=\"" + many + "\">" + many + "</a>").value_or_throw("");
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(files[0].name, many);
  EXPECT_EQ(files[0].url, many);
}

TEST(PackageIndex, HtmlPages) {
  const std::string page = R"(<!DOCTYPE html><html><head><title>Links for p</title><meta name="x" content=">">
<!-- <a href="old.whl">old.whl</a> --></head><body><h1>Links</h1>
<a href="../../files/p-1.whl#sha256=)" +
                           kHash + R"(" data-requires-python="&gt;=3.9">p-1.whl</a><br/>
<A class=x HREF='https://h/p-2.whl?a=1&amp;b=2#md5=00'>
  p-2.whl </A>
<a href=p-3.whl>p-3.whl</a> <a name="here">no file</a> <abbr href="x">x</abbr>
<a href="p-4&#43;cpu.whl#egg=p&amp;sha256=)" +
                           kHash + R"(">p-4&#x2B;cpu.whl</a></body></html>)";
  for (const char* type : {"text/html", "application/vnd.pypi.simple.v1+html"}) {
    const auto files = parse_index_page(type, page).value_or_throw(type);
    ASSERT_EQ(files.size(), 4u);
    EXPECT_EQ(files[0].name, "p-1.whl");
    EXPECT_EQ(files[0].url, "../../files/p-1.whl");
    EXPECT_EQ(files[0].sha256, kHash);
    EXPECT_EQ(files[1].name, "p-2.whl");
    EXPECT_EQ(files[1].url, "https://h/p-2.whl?a=1&b=2");
    EXPECT_EQ(files[1].sha256, "");
    EXPECT_EQ(files[2].url, "p-3.whl");
    EXPECT_EQ(files[3].name, "p-4+cpu.whl");
    EXPECT_EQ(files[3].url, "p-4+cpu.whl");
    EXPECT_EQ(files[3].sha256, kHash);
  }
}

TEST(PackageIndex, WhatJsonPagesGetWrong) {
  const auto fault = [](const std::string& body) { return fault_of("application/json", body); };
  EXPECT_EQ(fault(page_with("")), "");
  EXPECT_NE(fault("{"), "");
  EXPECT_EQ(fault("[]"), "the page is no JSON object");
  EXPECT_EQ(fault(R"({"files": []})"), "the page states no api-version");
  EXPECT_EQ(fault(R"({"meta": {"api-version": "2.0"}, "files": []})"), "api-version '2.0': expected 1");
  EXPECT_EQ(fault(R"({"meta": {"api-version": "1.0"}, "files": {}})"), "the page has no array files");
  EXPECT_EQ(fault(page_with("1")), "an entry of files is no object");
  EXPECT_EQ(fault(page_with(R"({"url": "x"})")), "an entry of files has no filename");
  EXPECT_EQ(fault(page_with(R"({"filename": "f", "url": 1})")), "file 'f' has no url");
  EXPECT_EQ(fault(page_with(R"({"filename": "f", "url": "u"})")), "file 'f' has no object hashes");
  EXPECT_EQ(fault(page_with(R"({"filename": "f", "url": "u", "hashes": {"sha256": 1}})")),
            "file 'f': its sha256 is no text");
  EXPECT_EQ(fault(page_with(R"({"filename": "f", "url": "u", "hashes": {"sha256": "abc"}})")),
            "file 'f': 'abc' is no SHA-256");
}

TEST(PackageIndex, WhatHtmlPagesGetWrong) {
  const auto fault = [](const std::string& body) { return fault_of("text/html", body); };
  EXPECT_EQ(fault(""), "");
  EXPECT_EQ(fault("<a href='x'"), "a tag does not end");
  EXPECT_EQ(fault("<a href='x>f</a>"), "a tag does not end");
  EXPECT_EQ(fault("<!-- <a href='x'>f</a>"), "a comment does not end");
  EXPECT_EQ(fault("<a href='x#sha256='>f</a>"), "file 'f': '' is no SHA-256");
  EXPECT_EQ(fault("<a href='x#sha256=" + kHash + "0'>f</a>").find("file 'f': "), 0u);
}

TEST(PackageIndex, OtherAnswersAreNoPage) {
  EXPECT_EQ(fault_of("text/plain", page_with("")), "answers with 'text/plain', no page of a package index");
  EXPECT_EQ(fault_of("", ""), "answers with no media type, no page of a package index");
}

TEST(PackageIndex, FilesHaveALimit) {
  std::string html, json;
  for (int i = 0; i <= 100'000; ++i) {
    html += "<a href=x>f</a>";
    json += std::string(json.empty() ? "" : ",") + "{}";
  }
  EXPECT_EQ(fault_of("text/html", html), "names more than 100000 files");
  EXPECT_EQ(fault_of("application/json", page_with(json)), "names more than 100000 files");
}

}  // namespace
}  // namespace volley::apps
