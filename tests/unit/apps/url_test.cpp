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

}  // namespace
}  // namespace volley::apps
