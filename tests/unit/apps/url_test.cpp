#include "apps/url.h"

#include <gtest/gtest.h>

#include "core/base/error.h"

namespace volley::apps {
namespace {

TEST(Url, TakesAddressesApart) {
  const Url url = parse_url("HTTPS://Host.example/a/b?c=d#e", "x");
  EXPECT_EQ(url.origin(), "https://host.example:443");
  EXPECT_EQ(url.path, "/a/b?c=d");
  EXPECT_EQ(url.text(), "https://host.example/a/b?c=d");
  EXPECT_EQ(parse_url("http://h:8080", "x").text(), "http://h:8080/");
  EXPECT_EQ(parse_url("http://[::1]:80/x", "x").origin(), "http://[::1]:80");
  for (const char* bad : {"", "host/path", "ftp://h/", "https://", "https://h:0/", "https://h:x/",
                          "https://u:p@h/", "https://h/a b", "https://h/\r\nX: y"}) {
    EXPECT_THROW(parse_url(bad, "x"), Error) << bad;
  }
}

TEST(Url, TokensStayWithTheirHostAndPrivate) {
  EXPECT_TRUE(parse_url("https://h/", "x").is_private());
  EXPECT_TRUE(parse_url("http://127.0.0.1:1/", "x").is_private());
  EXPECT_FALSE(parse_url("http://h/", "x").is_private());
  EXPECT_NE(parse_url("https://h/", "x").origin(), parse_url("https://h:444/", "x").origin());
  EXPECT_NE(parse_url("https://h/", "x").origin(), parse_url("https://h.evil/", "x").origin());
}

TEST(Url, RedirectsLeadOn) {
  const Url from = parse_url("https://h:444/a/b?c", "x");
  EXPECT_EQ(redirected(from, "/z").text(), "https://h:444/z");
  EXPECT_EQ(redirected(from, "z?q").text(), "https://h:444/a/z?q");
  EXPECT_EQ(redirected(from, "//other/z").text(), "https://other/z");
  EXPECT_EQ(redirected(from, "https://other/z").text(), "https://other/z");
  EXPECT_THROW(redirected(from, "http://h/z"), Error) << "leaves TLS";
}

TEST(Url, ReferencesAreResolved) {
  const Url from = parse_url("https://h/simple/pkg/", "x");
  const auto text = [&](std::string_view reference) { return resolved(from, reference, "x").text(); };
  EXPECT_EQ(text("a.whl"), "https://h/simple/pkg/a.whl");
  EXPECT_EQ(text("../../packages/ab/a.whl"), "https://h/packages/ab/a.whl");
  EXPECT_EQ(text("./a.whl?x=../y"), "https://h/simple/pkg/a.whl?x=../y");
  EXPECT_EQ(text("../../../../a"), "https://h/a");
  EXPECT_EQ(text(".."), "https://h/simple/");
  EXPECT_EQ(text("/a/b/../c//d"), "https://h/a/c//d");
  EXPECT_EQ(text("a?to=http://other/"), "https://h/simple/pkg/a?to=http://other/");
  EXPECT_EQ(text("https://other/z/../a"), "https://other/z/../a");
  EXPECT_THROW(text("http://h/a.whl"), Error) << "leaves TLS";
}

TEST(Url, PasswordsAreNotRepeated) {
  try {
    parse_url("https://user:secret@h/simple", "PIP_INDEX_URL");
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace volley::apps
