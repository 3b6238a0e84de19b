// Tables, numbers, metrics and pictures: what a person reads in a program's output.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/cli/format.h"
#include "common/cli/metrics.h"
#include "common/cli/svg.h"
#include "common/cli/table.h"
#include "common/cli/text_plot.h"
#include "common/core/error.h"
#include "common/core/file.h"

namespace llm {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A little XML reader: every element is closed, in order, and attributes are quoted. Returns the number of
// elements.
int count_elements(const std::string& xml) {
  std::vector<std::string> open;
  int count = 0;
  for (std::size_t at = 0; at < xml.size();) {
    const std::size_t begin = xml.find('<', at);
    if (begin == std::string::npos) break;
    const std::size_t end = xml.find('>', begin);
    if (end == std::string::npos) ADD_FAILURE() << "'<' without '>' in " << xml.substr(begin, 60);
    const std::string tag = xml.substr(begin + 1, end - begin - 1);
    at = end + 1;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1))
        ADD_FAILURE() << "closes " << tag;
      else
        open.pop_back();
      continue;
    }
    ++count;
    EXPECT_EQ(std::count(tag.begin(), tag.end(), '"') % 2, 0) << tag;
    EXPECT_EQ(tag.find("nan"), std::string::npos) << tag;
    EXPECT_EQ(tag.find("inf"), std::string::npos) << tag;
    if (tag.back() != '/') open.push_back(tag.substr(0, tag.find(' ')));
  }
  EXPECT_TRUE(open.empty()) << open.size() << " elements stay open";
  return count;
}

TEST(Format, Numbers) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(338025), "338,025");
  EXPECT_EQ(with_commas(-1234567), "-1,234,567");
  EXPECT_EQ(short_count(999), "999");
  EXPECT_EQ(short_count(1234), "1.23 k");
  EXPECT_EQ(short_count(124439808), "124 M");
  EXPECT_EQ(short_count(999999), "1.00 M");
  EXPECT_EQ(byte_text(20e6), "20.0 MB");
  EXPECT_EQ(duration_text(0.84), "0.8 s");
  EXPECT_EQ(duration_text(59.4), "59 s");
  EXPECT_EQ(duration_text(59.6), "1:00");
  EXPECT_EQ(duration_text(185), "3:05");
  EXPECT_EQ(duration_text(7650), "2:07:30");
  EXPECT_EQ(duration_text(kNaN), "?");
}

TEST(Format, WidthCountsCharactersNotBytes) {
  EXPECT_EQ(display_width("café"), 4);
  EXPECT_EQ(display_width("cafe\u0301"), 4);  // e and a combining accent
  EXPECT_EQ(display_width("日本"), 4);
  EXPECT_EQ(display_width("\xff\xfe"), 2);  // no UTF-8, still shown
  EXPECT_EQ(pad("é", 3), "é  ");
  EXPECT_EQ(shorten("日本語テキスト", 7), "日本語…");
  EXPECT_EQ(shorten("two\nlines", 20), "two lines");
}

TEST(Table, NumbersStandToTheRight) {
  Table table({"name", "count"});
  table.add({"a", "1,234"});
  table.add({"bcd", "5"});
  EXPECT_EQ(table.text(),
            "name  count\n"
            "────  ─────\n"
            "a     1,234\n"
            "bcd       5\n");
  EXPECT_EQ(table.markdown(), "| name | count |\n|---|---:|\n| a | 1,234 |\n| bcd | 5 |\n");
  EXPECT_THROW(table.add({"1", "2", "3"}), Error);
}

TEST(Metrics, OneObjectPerLine) {
  EXPECT_EQ(to_json_line({{"step", 3}, {"loss", 1.25}, {"text", "a\nb\"c"}, {"ok", true}, {"lr", kNaN}}),
            R"({"step":3,"loss":1.25,"text":"a\nb\"c","ok":true,"lr":null})");
  // A model's samples need not be UTF-8; the line still must be JSON.
  EXPECT_TRUE(nlohmann::json::accept(to_json_line({{"sample", std::string("\xff\xc3")}})));

  const auto path = std::filesystem::temp_directory_path() / "llm_cli_metrics_test" / "m.jsonl";
  {
    MetricsWriter metrics(path);
    metrics.write({{"step", 1}});
    EXPECT_EQ(read_file(path), "{\"step\":1}\n");  // there before the file is closed
  }
  MetricsWriter more(path, true);
  more.write({{"step", 2}});
  EXPECT_EQ(read_file(path), "{\"step\":1}\n{\"step\":2}\n");
  MetricsWriter().write({{"step", 3}});
  EXPECT_THROW(MetricsWriter("/dev/null/file"), Error);
  MetricsWriter full("/dev/full");
  EXPECT_THROW(full.write({{"step", 1}}), Error);
  std::filesystem::remove_all(path.parent_path());
}

TEST(Svg, TicksAreRound) {
  EXPECT_EQ(nice_ticks(0, 1, 4), (std::vector<double>{0, 0.25, 0.5, 0.75, 1}));
  EXPECT_EQ(nice_ticks(0, 2000, 8), (std::vector<double>{0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000}));
  EXPECT_EQ(nice_ticks(5, 5, 4), std::vector<double>{5});
  EXPECT_EQ(nice_ticks(kNaN, 1, 4).size(), 1U);
}

TEST(Svg, EscapesWhatXmlCannotHold) {
  EXPECT_EQ(escape_xml("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  EXPECT_EQ(escape_xml("é日😀"), "é日😀");
  EXPECT_EQ(escape_xml("\x01"), "·");
  EXPECT_EQ(escape_xml("a\xff"), "a\ufffd");
  EXPECT_EQ(escape_xml("\xc3"), "\ufffd");                                // cut
  EXPECT_EQ(escape_xml("\xed\xa0\x80").find('\xed'), std::string::npos);  // a surrogate
  EXPECT_EQ(escape_xml("\xef\xbf\xbf").find("\xef\xbf\xbf"), std::string::npos);
}

TEST(Svg, PicturesAreWellFormedAlsoOfStrangeData) {
  const std::vector<LinePlot> plots = {
      {},
      {.title = "<&>",
       .series = {{.label = "one point", .x = {1}, .y = {2}}},
       .references = {{0.5, "floor \"x\""}}},
      {.series = {{.label = "constant", .x = {1, 2}, .y = {3, 3}}}},
      {.series = {{.label = "bad", .x = {1, 2, 3, kNaN}, .y = {kNaN, kInfinity, -1, 2}}}, .log_y = true},
      {.series = {{.label = "huge", .x = {1, 2, 3}, .y = {1e300, -1e300, 1e-300}}}},
      {.series = {{.label = "uneven", .x = {1, 2, 3}, .y = {1}}}, .y_low = 5, .y_high = 1}};
  for (const LinePlot& plot : plots) {
    EXPECT_GT(count_elements(svg(plot)), 3);
    EXPECT_FALSE(text_plot(plot).empty());
  }
  for (const HeatMap& map :
       {HeatMap{}, HeatMap{.values = {{1}}}, HeatMap{.values = {{0.5, kNaN}, {1, 0}}, .numbers = true},
        HeatMap{.row_labels = {"<a>", "b"}, .column_labels = {"\n"}, .values = {{1, 2}, {3, 4}}}}) {
    EXPECT_GT(count_elements(svg(map)), 3);
    EXPECT_FALSE(text_plot(map).empty());
  }
  EXPECT_THROW(svg(HeatMap{.values = {{1, 2}, {3}}}), Error);
  for (const Histogram& h :
       {Histogram{}, Histogram{.values = {1, 1, 1}}, Histogram{.values = {kNaN, 2, 5}, .log_y = true}})
    EXPECT_GT(count_elements(svg(h)), 3);
  EXPECT_GT(count_elements(svg(BarChart{.labels = {"a", "b"}, .values = {kNaN, 0}})), 3);
}

TEST(Svg, LongCurvesStaySmallAndKeepTheirPeaks) {
  Series series{.label = "loss", .x = {}, .y = {}};
  for (int i = 0; i < 1'000'000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i == 654'321 ? 100 : 1);
  }
  const std::string with_peak = svg(LinePlot{.series = {series}, .y_low = 0, .y_high = 100});
  EXPECT_LT(with_peak.size(), 100'000U);
  const std::size_t points = with_peak.find("points=\"", with_peak.rfind("<polyline"));
  std::istringstream in(with_peak.substr(points + 8));
  double highest = 1e9, x = 0, y = 0;
  for (char comma = 0; in >> x >> comma >> y;) highest = std::min(highest, y);
  EXPECT_LT(highest, 60);  // the peak reaches the top of the frame
}

TEST(TextPlot, BarsAreProportional) {
  EXPECT_EQ(text_plot(BarChart{.labels = {"a", "bb"}, .values = {4, 2}}, 4), " a  ████ 4\nbb  ██ 2\n");
  EXPECT_EQ(sparkline({0, 7, kNaN, 3.5}), "▁█ ▅");
}

TEST(TextPlot, HeatMapShadesGrow) {
  const std::string text = text_plot(HeatMap{.row_labels = {"x", "y"}, .values = {{1, kNaN}, {0, 1}}});
  EXPECT_EQ(text.substr(0, text.find('\n', text.find('\n') + 1)), "x  ██\ny  · ██");
}

}  // namespace
}  // namespace llm
