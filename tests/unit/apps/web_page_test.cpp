// Pages of a server on this machine.
#include "apps/web_page.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/unit/apps/hub_server.h"

namespace volley::apps {
namespace {

class WebPages : public testing::Test {
 protected:
  WebPage fetch(const std::string& path, int64_t max_bytes) {
    server_.set(settings_);
    return fetch_page(
        {.url = parse_url(server_.endpoint() + path, "test"), .accept = "text/html", .max_bytes = max_bytes},
        {});
  }
  std::string fault(const std::string& path, int64_t max_bytes) {
    try {
      fetch(path, max_bytes);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  test::HubSettings settings_;
  test::HubServer server_;
};

TEST_F(WebPages, AreNoLongerThanAllowed) {
  settings_.files["/page"] = {.body = std::string(100'000, 'x'), .type = "Text/HTML ; charset=UTF-8"};
  const WebPage page = fetch("/page", 100'000);
  EXPECT_EQ(page.body, settings_.files["/page"].body);
  EXPECT_EQ(page.media_type, "text/html");
  const std::string message = server_.endpoint() + "/page: is longer than ";
  EXPECT_TRUE(fault("/page", 99'999).starts_with(message)) << fault("/page", 99'999);
  // Not all of it is read: the rest of a page that claims to go on for ever is not waited for.
  settings_.files["/page"].claimed_size = size_t{1} << 50;
  settings_.files["/page"].ends_after = 100'000;
  settings_.files["/page"].waits = true;
  EXPECT_TRUE(fault("/page", 50'000).starts_with(message)) << fault("/page", 50'000);
}

TEST_F(WebPages, TheLimitHoldsBehindRedirects) {
  settings_.files["/page"] = {.body = std::string(101, 'x')};
  settings_.files["/old"] = {.status = 308, .location = "/page"};
  EXPECT_EQ(fetch("/old", 101).url.path, "/page");
  EXPECT_TRUE(fault("/old", 100).starts_with(server_.endpoint() + "/page: is longer than 100 bytes"))
      << fault("/old", 100);
}

}  // namespace
}  // namespace volley::apps
