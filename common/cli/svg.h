// Pictures without a plotting library: a struct says what is to be seen, `svg` draws it.
//
// The pictures stand on a white card, so they can be read on light and dark pages alike. Save one with
// write_file(path, svg(plot)) of common/core/file.h. For the same data in a terminal: text_plot.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llm {

/// One curve. Points that are not finite (or not positive on a logarithmic axis) leave a gap.
struct Series {
  std::string label{};
  std::vector<double> x{};
  std::vector<double> y{};
  bool faint = false;   ///< thin and pale: raw values behind a smoothed curve
  bool points = false;  ///< a dot at each point
};

/// A dashed horizontal line with its name: the entropy floor, a published value.
struct ReferenceLine {
  double y = 0;
  std::string label{};
};

struct LinePlot {
  std::string title{}, x_label{}, y_label{};
  std::vector<Series> series{};
  std::vector<ReferenceLine> references{};
  bool log_x = false, log_y = false;
  std::optional<double> y_low{}, y_high{};  ///< else what the data and the references need
  int width = 760, height = 440;
};
std::string svg(const LinePlot& plot);

/// How often values fall into `bins` equal intervals between the smallest and the largest (or `low` and
/// `high`).
struct Histogram {
  std::string title{}, x_label{}, y_label = "count";
  std::vector<double> values{};
  int bins = 40;
  std::optional<double> low{}, high{};
  bool log_y = false;
  int width = 760, height = 380;
};
std::string svg(const Histogram& plot);

/// Bars with names, in the order given: token frequencies, milliseconds per op.
struct BarChart {
  std::string title{}, x_label{};
  std::vector<std::string> labels{};
  std::vector<double> values{};
  int width = 760;
};
std::string svg(const BarChart& plot);

/// A matrix as colours, row 0 at the top: attention weights, with the tokens as labels. A NaN is left blank,
/// as the masked half of causal attention.
struct HeatMap {
  std::string title{};
  std::string row_title{}, column_title{};    ///< "query", "key"
  std::vector<std::string> row_labels{};      ///< R of them, or none
  std::vector<std::string> column_labels{};   ///< C of them, or none
  std::vector<std::vector<double>> values{};  ///< R rows of C
  std::optional<double> low{}, high{};        ///< the ends of the colour scale; else of the data
  bool numbers = false;                       ///< also write the values into the cells
};
std::string svg(const HeatMap& plot);

/// Text as it may stand in SVG and HTML: & < > " ' escaped, control characters and broken UTF-8 replaced.
std::string escape_xml(std::string_view text);

/// Round numbers from about `low` to about `high`, some `count` of them: 0, 0.5, 1, 1.5.
std::vector<double> nice_ticks(double low, double high, int count);

}  // namespace llm
